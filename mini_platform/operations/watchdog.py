"""Watchdog: a process outside Dagster that notices what stopped silently, and sends alerts also while Dagster is down.

Once a minute it looks for parts that keep ending, do not answer or show no sign of life, sensors and schedules that are
stopped, silent, failing or unknown, a queue of runs that does not move, files in drop folders that nobody takes, and resources
that run short; it also updates the incidents that the ledger shows. After each look it requests MINI_PLATFORM_HEARTBEAT_URL, so
that a service elsewhere notices when this process, its machine or its database has stopped.
Not here: the restart of processes (`cli/supervisor/`), incidents of the ledger (`detection.py`), measuring (`resources.py`).

python -m mini_platform.operations.watchdog             look again and again
python -m mini_platform.operations.watchdog --check     exit code 0 if one does
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, func, select

from mini_platform.config import logs
from mini_platform.config.running import FAILING_DEATHS, read_state, running
from mini_platform.config.settings import Settings, load_settings
from mini_platform.landing import folder
from mini_platform.operations import resources
from mini_platform.operations.alerts import notify
from mini_platform.operations.answering import api_answers, code_server_answers, dagster_answers
from mini_platform.operations.detection import update_incidents
from mini_platform.operations.incidents import (
    STOPS_ALL,
    WATCHDOG_KINDS,
    Incident,
    Kind,
    Subject,
    open_of_kinds,
    reconcile,
)
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
STARTING = dt.timedelta(minutes=5)
"""Time after its start in which a watchdog ends no incident of an earlier one: it has not seen enough yet."""
QUEUE_WAITS, QUEUE_WAITS_FOR_OTHERS = dt.timedelta(minutes=10), dt.timedelta(hours=1)
"""Time without a start or end of a run after which a queue of runs is stalled: if nothing runs, and behind what runs."""
LASTING: Mapping[Kind, float] = {"part_down": 300.0, "connections_low": 180.0}
"""Seconds for which a part does not answer, or connections are short, until that is an incident; others are at once."""
STEP_SHOWN = 3600.0
"""Seconds for which a clock that was set back is an incident."""
HEARTBEAT_SECONDS = 5.0
"""Time-out of the request of the heartbeat."""
ANSWERS = {"api": api_answers, "webserver": dagster_answers, "code_server": code_server_answers}
"""How to see if a part answers; the daemon has its own sign of life in the database."""

DAEMON_BACK = select(func.max(func.coalesce(incidents.c.closed_at, func.now()))).where(
    incidents.c.kind == "part_down", incidents.c.subject == "daemon"
)
"""When the daemon came back last: before that no sensor could tick."""


class Watch:
    """The memory of a watchdog, from one look to the next."""

    def __init__(self, since: dt.datetime) -> None:
        """Begin to watch; silence before this moment does not count, as the platform may have been stopped deliberately."""
        self.since = since
        self.undecided: set[Subject] = set()
        self._began: dict[Subject, tuple[float, dt.datetime]] = {}
        self._clock = resources.reading()
        self._stepped = (float("-inf"), 0.0)

    def lasting(self, candidates: Iterable[Incident]) -> Iterator[Incident]:
        """Yield those incidents that last long enough by now, each with the time at which it began; forget all others."""
        moment, began = time.monotonic(), self._began
        self._began, self.undecided = {}, set()
        for incident in candidates:
            subject = (incident.kind, incident.subject)
            first, since = self._began[subject] = began.get(subject, (moment, incident.since))
            if moment - first >= LASTING.get(incident.kind, 0.0):
                yield dataclasses.replace(incident, since=since, evidence=since.isoformat())
            else:
                self.undecided.add(subject)

    def clock_steps(self, settings: Settings) -> Iterator[Incident]:
        """Yield an incident if the clock of this host was set back, for a while."""
        now, before = resources.reading(), self._clock
        self._clock = now
        if (seconds := now.stepped_back(before)) > resources.SKEW_SECONDS[1]:
            self._stepped = now.monotonic, seconds
        moment, seconds = self._stepped
        if now.monotonic - moment < STEP_SHOWN:
            yield resources.clock_stepped(settings, seconds)


def look(platform: Platform, watch: Watch) -> list[str]:
    """Update the incidents once, and send alerts; return a sentence for each service that could not be notified."""
    unanswered = [*_unanswered(platform.settings)]  # It waits for servers: not within a transaction.
    with platform.engine.begin() as conn:
        detected = wrong(conn, platform, watch, unanswered)
        is_new = dt.datetime.now(dt.UTC) - watch.since < STARTING
        undecided = watch.undecided | (open_of_kinds(conn, WATCHDOG_KINDS) if is_new else set())
        reconcile(conn, detected, undecided, WATCHDOG_KINDS)
        update_incidents(conn, platform, platform.datasets)
    return notify(platform.engine, platform.settings)


def wrong(conn: Connection, platform: Platform, watch: Watch, unanswered: Iterable[Incident] = ()) -> list[Incident]:
    """Return what stopped silently and what runs short; one cause is one incident."""
    settings = platform.settings
    candidates = [*unanswered, *resources.shortages(conn, settings), *watch.clock_steps(settings)]
    lasting = [*watch.lasting(candidates)]
    parts = {incident.subject: incident for incident in lasting if incident.kind == "part_down"}
    parts |= {incident.subject: incident for incident in _failing_parts(settings)}
    short = [incident for incident in lasting if incident.kind != "part_down"]
    return [*short, *silences(conn, platform, watch.since, parts)]


def silences(
    conn: Connection, platform: Platform, watching_since: dt.datetime, parts: dict[str, Incident]
) -> list[Incident]:
    """Return what stopped silently; one cause is one incident.

    Args:
        conn: a connection.
        platform: its settings and datasets.
        watching_since: silence before this moment does not count.
        parts: incidents of parts that keep ending or do not answer, by their names.
    """
    heartbeat = run_history.last_heartbeat(conn)
    if heartbeat and (away := _silence(heartbeat, watching_since)):
        parts.setdefault("daemon", _part("daemon", "it shows no sign of life", away, platform.settings))
    if heartbeat is None or not parts.keys().isdisjoint(STOPS_ALL):
        return [*parts.values()]
    if back := conn.scalar(DAEMON_BACK):
        watching_since = max(watching_since, back)
    stopped, silent, ticking = _automation(conn, platform, watching_since)
    never_ticked = not ticking and not stopped and _silence(watching_since, watching_since) is not None
    if never_ticked or len(silent) == ticking > 1:
        since = min((incident.since for incident in silent), default=watching_since)
        why = "no sensor ticks, as if the code server did not answer"
        return [*parts.values(), _part("code_server", why, since, platform.settings), *stopped]
    stopped += _unknown(conn, platform, watching_since)
    unwatched = {incident.dataset for incident in (*stopped, *silent)}
    queue = _queue(conn, platform.settings, watching_since)
    return [*parts.values(), *queue, *stopped, *silent, *_unseen(conn, platform, watching_since, unwatched)]


def _silence(last: dt.datetime, watching_since: dt.datetime, allowed: dt.timedelta | None = None) -> dt.datetime | None:
    """Return the last sign of life if that is too long ago, also since the watchdog started; else None."""
    return last if max(last, watching_since) < dt.datetime.now(dt.UTC) - (allowed or SILENT) else None


def _unanswered(settings: Settings) -> Iterator[Incident]:
    """Yield an incident per process of the supervisor that runs but does not answer."""
    state = read_state(settings.home) if running(settings.home) else {}
    for name, part in state.get("parts", {}).items():
        if part["running"] and name in ANSWERS and not ANSWERS[name](settings):
            yield _part(name, "its process runs but does not answer", dt.datetime.now(dt.UTC), settings)


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


def _queue(conn: Connection, settings: Settings, watching_since: dt.datetime) -> Iterator[Incident]:
    """Yield an incident if runs are queued, and none has started or ended for long."""
    queue = run_history.queue(conn)
    allowed = QUEUE_WAITS_FOR_OTHERS if queue and queue.running else QUEUE_WAITS
    if queue and (since := _silence(queue.moved_at, watching_since, allowed)):
        behind = f", behind {plural(queue.running, 'run')} in progress" if queue.running else ""
        message = (
            f"runs: {plural(queue.queued, 'run is', 'runs are')} queued{behind}, and none has started or ended since "
        )
        yield Incident(
            "queue_stalled",
            "runs",
            None,
            since.isoformat(),
            f"{message}{since.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC.",
            "See the runs in Dagster's UI: end one that hangs, and see the log of the daemon.",
            f"{settings.dagster_url}/runs",
            since,
        )


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
    """Return incidents of what is stopped, or a schedule that fails; of sensors that do not tick or fail; how many should."""
    expected, settings = _expected(platform), platform.settings
    stopped: list[Incident] = []
    silent: list[Incident] = []
    ticking = 0
    for row in run_history.automation(conn):
        if row.name not in expected:
            continue
        ticking += row.is_sensor and not row.is_stopped
        what, subject, dataset = "sensor" if row.is_sensor else "schedule", row.name, expected[row.name]
        state, moment, advice = (
            "does not tick",
            row.last_tick,
            "See its ticks in Dagster's UI, and the log of the daemon.",
        )
        if row.is_stopped:
            state, moment = "is stopped", row.changed_at
            advice = f"Start it in Dagster's UI: a {what} that the platform declares should run."
        elif row.is_failing:
            state, moment = "fails at each tick", row.last_success or watching_since
        if moment is None or not (since := _silence(moment, watching_since)):
            continue
        message = f"{dataset or subject}: the {what} {subject} {state}."
        link, evidence = f"{settings.dagster_url}/automation", f"{state} {since.isoformat()}"
        incident = Incident("automation_silent", subject, dataset, evidence, message, advice, link, since)
        (silent if row.is_sensor and not row.is_stopped else stopped).append(incident)
    return stopped, silent, ticking


def _unknown(conn: Connection, platform: Platform, watching_since: dt.datetime) -> Iterator[Incident]:
    """Yield an incident per sensor and schedule that is declared, and that Dagster has never started."""
    if not (since := _silence(watching_since, watching_since)):
        return
    expected = _expected(platform)
    for name in expected.keys() - {row.name for row in run_history.automation(conn)}:
        message = f"{expected[name] or name}: Dagster does not run {name}."
        advice = "See the code location in Dagster's UI: reload it, or see why it does not load."
        link, evidence = f"{platform.settings.dagster_url}/locations", f"unknown {since.isoformat()}"
        yield Incident("automation_silent", name, expected[name], evidence, message, advice, link, since)


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
        changed = folder.changed(conn, settings.data / dataset.name, dataset)
        blocked = [file for file in changed if file.blocked]
        not_taken = blocked or [file for file in changed if not file.skip_reason]
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


def last_look(settings: Settings) -> float | None:
    """Return when a watchdog has looked last, or has started, as a timestamp; None if none ever did."""
    try:
        return _sign_of_life(settings).stat().st_mtime
    except FileNotFoundError:
        return None


def looks(settings: Settings) -> bool:
    """Return True if a watchdog has looked within the last minutes, or has just started."""
    return time.time() - (last_look(settings) or 0.0) < 3 * SECONDS


def send_heartbeat(settings: Settings) -> str | None:
    """Request the URL of the heartbeat, if one is set; return why that failed, without the URL, which is a secret.

    The address may be private, as those of alerts may: it is the operator's own, and redirects are not followed.
    """
    if settings.heartbeat_url is None:
        return None
    import httpx

    url = settings.heartbeat_url.get_secret_value()
    try:
        with httpx.stream("GET", url, timeout=HEARTBEAT_SECONDS) as answer:  # Without its body, however long that is.
            return None if answer.is_success else f"it was answered {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__


def main() -> None:
    """Look again and again; a look that fails is logged, and the next one tries anew."""
    platform, watch = Platform(), Watch(dt.datetime.now(dt.UTC))
    logs.configure(platform.settings.logs)
    log, logged = logging.getLogger(__name__), None
    _sign_of_life(platform.settings).touch()
    while True:
        time.sleep(SECONDS)
        try:
            for sentence in look(platform, watch):
                log.warning(sentence)
            _sign_of_life(platform.settings).touch()
            if (failure := send_heartbeat(platform.settings)) != logged:
                log.warning("the heartbeat cannot be sent: %s", failure) if failure else log.info(
                    "the heartbeat is sent"
                )
                logged = failure
        except DatabaseAwayError as error:
            log.warning(str(error))
        except Exception as error:  # Without its message, which may quote a row.
            log.warning("this look failed: %s", type(error).__name__)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(not looks(load_settings()))
    main()
