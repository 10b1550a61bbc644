"""Watchdog: a process outside Dagster that notices what stopped silently, and sends alerts also while Dagster is down.

Once a minute it looks for parts that keep ending or show no sign of life, sensors and schedules that are stopped or silent,
and files in drop folders that nobody takes; it also updates the incidents that the ledger shows.
Not here: the restart of processes (`cli/supervisor/`), incidents of the ledger (`detection.py`).

python -m mini_platform.operations.watchdog             look again and again
python -m mini_platform.operations.watchdog --check     exit code 0 if one does
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, func, select

from mini_platform.config import logs
from mini_platform.config.running import FAILING_DEATHS, read_state, running
from mini_platform.config.settings import Settings, load_settings
from mini_platform.landing import folder
from mini_platform.operations.alerts import notify
from mini_platform.operations.detection import update_incidents
from mini_platform.operations.incidents import WATCHDOG_KINDS, Incident, reconcile
from mini_platform.operations.sources import is_configured
from mini_platform.platform import Platform
from mini_platform.rows.wording import plural
from mini_platform.warehouse import run_history
from mini_platform.warehouse.connection import DatabaseAwayError
from mini_platform.warehouse.tables import incidents

SECONDS = 60.0
"""Time from one look to the next."""
SILENT = dt.timedelta(minutes=5)
"""Silence after which something counts as stopped: sensors tick every few seconds, the daemon shows a sign of life in 30."""
STOPS_ALL = {"daemon", "code_server"}
"""Parts without which no sensor ticks and no file is taken."""

DAEMON_BACK = select(func.max(func.coalesce(incidents.c.closed_at, func.now()))).where(
    incidents.c.kind == "part_down", incidents.c.subject == "daemon"
)
"""When the daemon came back last: before that no sensor could tick."""


def look(platform: Platform, watching_since: dt.datetime) -> list[str]:
    """Update the incidents once, and send alerts; return a sentence for each service that could not be notified."""
    with platform.engine.begin() as conn:
        update_incidents(conn, platform, platform.datasets)
        reconcile(conn, silences(conn, platform, watching_since), kinds=WATCHDOG_KINDS)
    return notify(platform.engine, platform.settings)


def silences(conn: Connection, platform: Platform, watching_since: dt.datetime) -> list[Incident]:
    """Return what stopped silently; one cause is one incident.

    Args:
        conn: a connection.
        platform: its settings and datasets.
        watching_since: silence before this moment does not count, as the platform may have been stopped deliberately.
    """
    parts = {incident.subject: incident for incident in _failing_parts(platform.settings)}
    heartbeat = run_history.last_heartbeat(conn)
    if heartbeat and (away := _silence(heartbeat, watching_since)):
        parts.setdefault("daemon", _part("daemon", "it shows no sign of life", away, platform.settings))
    if heartbeat is None or STOPS_ALL & parts.keys():
        return [*parts.values()]
    if back := conn.scalar(DAEMON_BACK):
        watching_since = max(watching_since, back)
    stopped, silent, ticking = _automation(conn, platform, watching_since)
    never_ticked = not ticking and not stopped and _silence(watching_since, watching_since) is not None
    if never_ticked or len(silent) == ticking > 1:
        since = min((incident.since for incident in silent), default=watching_since)
        why = "no sensor ticks, as if the code server did not answer"
        return [*parts.values(), _part("code_server", why, since, platform.settings), *stopped]
    unwatched = {incident.dataset for incident in (*stopped, *silent)}
    return [*parts.values(), *stopped, *silent, *_unseen(conn, platform, watching_since, unwatched)]


def _silence(last: dt.datetime, watching_since: dt.datetime) -> dt.datetime | None:
    """Return the last sign of life if that is too long ago, also since the watchdog started; else None."""
    return last if max(last, watching_since) < dt.datetime.now(dt.UTC) - SILENT else None


def _failing_parts(settings: Settings) -> Iterator[Incident]:
    """Yield an incident per process that keeps ending, as the supervisor writes it."""
    state = read_state(settings.home) if running(settings.home) else {}
    for name, part in state.get("parts", {}).items():
        if part["deaths"] >= FAILING_DEATHS:
            since = dt.datetime.fromisoformat(part["failing_since"])
            yield _part(
                name, f"its process keeps ending ({part['why']}), and is restarted after pauses", since, settings
            )


def _part(name: str, why: str, since: dt.datetime, settings: Settings) -> Incident:
    advice = f"See mini-platform status, and the end of its log, {name}.log."
    return Incident("part_down", name, None, since.isoformat(), f"{name}: {why}.", advice, settings.links_url, since)


def _expected(platform: Platform) -> dict[str, str | None]:
    """Return the names of the sensors and schedules that run by default, each with its dataset."""
    names: dict[str, str | None] = {run_history.ALERTS_SENSOR: None, run_history.PURGE_SCHEDULE: None}
    for dataset in platform.datasets.values():
        names[dataset.files_sensor] = dataset.name
        for source in dataset.api_sources:
            if is_configured(platform, dataset, source):
                names[dataset.sync_schedule(source)] = dataset.name
    return names


def _automation(
    conn: Connection, platform: Platform, watching_since: dt.datetime
) -> tuple[list[Incident], list[Incident], int]:
    """Return incidents of sensors and schedules that are stopped and of sensors that do not tick, and how many should."""
    expected, settings = _expected(platform), platform.settings
    stopped: list[Incident] = []
    silent: list[Incident] = []
    ticking = 0
    for row in run_history.automation(conn):
        if row.name not in expected:
            continue
        ticking += row.is_sensor and not row.is_stopped
        moment = row.changed_at if row.is_stopped else row.last_tick
        if moment is None or not (since := _silence(moment, watching_since)):
            continue
        what, subject, dataset = "sensor" if row.is_sensor else "schedule", row.name, expected[row.name]
        message = f"{dataset or subject}: the {what} {subject} {'is stopped' if row.is_stopped else 'does not tick'}."
        advice = "See its ticks in Dagster's UI, and the log of the daemon."
        if row.is_stopped:
            advice = f"Start it in Dagster's UI: a {what} that the platform declares should run."
        evidence = f"{'stopped' if row.is_stopped else 'silent'} {since.isoformat()}"
        link = f"{settings.dagster_url}/automation"
        incident = Incident("automation_silent", subject, dataset, evidence, message, advice, link, since)
        (stopped if row.is_stopped else silent).append(incident)
    return stopped, silent, ticking


def _unseen(
    conn: Connection, platform: Platform, watching_since: dt.datetime, unwatched: set[str | None]
) -> Iterator[Incident]:
    """Yield an incident per dataset with files in its drop folder that are in no ledger row though its sensor ticks.

    Files, or the folder, that the platform may not read are among them.
    """
    settings = platform.settings
    for dataset in platform.datasets.values():
        if dataset.name in unwatched:
            continue
        files = folder.look(settings.data / dataset.name, dataset)
        blocked = [file for file in files if file.blocked]
        not_taken = blocked or folder.changed(conn, dataset, files)
        moments = (dt.datetime.fromtimestamp(file.changed_at, dt.UTC) for file in not_taken)
        waiting = sorted(moment for moment in moments if _silence(moment, watching_since))
        if waiting:
            why = f" {blocked[0].name}: {blocked[0].skip_reason}." if blocked else ""
            advice = "See the ticks of its sensor and its runs in Dagster's UI."
            yield Incident(
                "files_unseen",
                dataset.name,
                dataset.name,
                waiting[0].isoformat(),
                f"{dataset.name}: {plural(len(waiting), 'file')} in its drop folder not taken.{why}",
                "Make it readable for the user of the platform; it is tried again by itself." if blocked else advice,
                f"{settings.links_url}/datasets/{quote(dataset.name)}",
                waiting[0],
            )


def _sign_of_life(settings: Settings) -> Path:
    return settings.home / "watchdog"


def looks() -> bool:
    """Return True if a watchdog has looked within the last minutes, or has just started."""
    try:
        return time.time() - _sign_of_life(load_settings()).stat().st_mtime < 3 * SECONDS
    except FileNotFoundError:
        return False


def main() -> None:
    """Look again and again; a look that fails is logged, and the next one tries anew."""
    platform, watching_since = Platform(), dt.datetime.now(dt.UTC)
    logs.configure(platform.settings.logs)
    log = logging.getLogger(__name__)
    _sign_of_life(platform.settings).touch()
    while True:
        time.sleep(SECONDS)
        try:
            for sentence in look(platform, watching_since):
                log.warning(sentence)
            _sign_of_life(platform.settings).touch()
        except DatabaseAwayError as error:
            log.warning(str(error))
        except Exception as error:  # Without its message, which may quote a row.
            log.warning("this look failed: %s", type(error).__name__)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(not looks())
    main()
