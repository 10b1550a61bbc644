"""Alerts: people are told of incidents, and of their end, by whatever services the setting names as Apprise URLs.

`ops.alerts` says who was told of what: each service is told of an incident once, and tried again, ever more seldom, where it
cannot be reached. A process that is killed between sending and writing that down sends again: at least once.

Apprise is imported where something is to be sent. The URLs are secrets: only the kind and the host of one is ever shown.

https://appriseit.com/services/
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, Row, Select, and_, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.config.settings import Settings
from mini_platform.operations.incidents import TOLD
from mini_platform.warehouse import run_history
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import alerts, files, incidents

if TYPE_CHECKING:
    from apprise import NotifyBase

LISTED = 20
"""Incidents that one message describes; of others it says how many."""
PAUSE, LONGEST_PAUSE = 30.0, 3600.0
"""Seconds until a service that failed is tried again; they double with each attempt."""
TICK_SECONDS = 30.0
"""After that no further service is begun with: the rest is sent by the next tick."""
SHORT = 4
"""Parts of a URL that are shorter are no secrets, and would hide half of a message."""
SAYS_WHY = ("WARNING", "ERROR", "CRITICAL")
LEADS = {
    "run_failed": "Run failed",
    "file_refused": "File refused",
    "check_failed": "Check failed",
    "source_down": "Source down",
    "freshness_missed": "Freshness missed",
    "digest": "Daily digest",
}


class AlertsError(ValueError):
    """The setting cannot be understood; the message does not quote it."""


@dataclass(frozen=True)
class Service:
    """Who can be told.

    Attributes:
        name: kind, host and a hash of the URL without its password, which stays the same as long as the URL does.
        plugin: sends.
        secrets: parts of its URL that must not be shown.
    """

    name: str
    plugin: NotifyBase
    secrets: tuple[str, ...]

    def send(self, title: str, body: str) -> str | None:
        """Send a message; returns why that failed, None if it did not."""
        import apprise

        told = apprise.Apprise()
        told.add(self.plugin)
        with apprise.LogCapture(level=logging.DEBUG, fmt="%(levelname)s %(message)s") as said:
            if told.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
                return None
            lines = said.getvalue().splitlines()
        # Why a connection failed is told as a detail for those who debug, beside whole messages and their headers.
        words = " ".join(line.partition(" ")[2] for line in lines if line.startswith(SAYS_WHY) or "Exception: " in line)
        for secret in self.secrets:
            words = words.replace(secret, "****")
        return words or "The service did not take it."


def services(settings: Settings) -> list[Service]:
    """Everybody who is to be told.

    Raises:
        AlertsError: one of the URLs is none that Apprise knows.
    """
    if settings.alerts is None or not settings.alerts.get_secret_value().strip():
        return []
    import apprise
    from apprise.utils.parse import parse_urls

    found: dict[str, Service] = {}
    for number, url in enumerate(parse_urls(settings.alerts.get_secret_value()) or [""], start=1):
        with apprise.LogCapture(level=logging.CRITICAL):  # it would quote the URL
            plugin = apprise.Apprise.instantiate(url)
        if plugin is None:
            raise AlertsError(
                f"URL {number} of MINI_PLATFORM_ALERTS is none that Apprise understands. "
                "It should look like mailtos://user:password@host?to=ops@example.com"
            )
        hashed = hashlib.sha256(plugin.url(privacy=True).encode()).hexdigest()[:8]
        name = f"{urlsplit(url).scheme} {plugin.host or ''}".strip() + f" {hashed}"
        found[name] = Service(name, plugin, _secrets(url, str(plugin.host or "")))
    return list(found.values())


def _secrets(url: str, host: str) -> tuple[str, ...]:
    """Every part of a URL, as it stands and decoded, but for its kind and host; the longest first."""
    parts = re.split(r"[/:@?&=#,]", url.partition("://")[2])
    shown = {part for part in (*parts, *map(unquote, parts)) if len(part) >= SHORT and part not in host}
    return tuple(sorted(shown, key=len, reverse=True))


def deliver(engine: Engine, told: Sequence[Service]) -> list[str]:
    """Tell each service, by one message, of what it was not told yet and is due.

    Returns:
        Sentences about services that could not be reached; they are tried again later.
    """
    end = time.monotonic() + TICK_SECONDS
    with engine.begin() as conn:
        _queue(conn, told)
    return [trouble for service in told if time.monotonic() < end for trouble in _tell(engine, service)]


def _queue(conn: Connection, told: Sequence[Service]) -> None:
    """Each service is to be told of what is open, also one that is new, and of the end of what it was told of.

    Nobody is told of other kinds of incidents: who looks sees them.
    """
    names = [service.name for service in told]
    conn.execute(delete(alerts).where(alerts.c.service.not_in(names), alerts.c.sent_at.is_(None)))
    for name in names:
        mine = and_(alerts.c.incident_id == incidents.c.incident_id, alerts.c.service == name)
        known = exists().where(mine, alerts.c.event == "opened")
        begun = and_(incidents.c.closed_at.is_(None), ~known)
        # Of what somebody closed by hand, that somebody knows.
        over = and_(incidents.c.closed_at.is_not(None), incidents.c.closed_by.is_(None), known)
        again = exists().where(mine, alerts.c.event == "recovered")
        for event, chosen in (("opened", begun), ("recovered", and_(over, ~again))):
            rows: Select[Any] = select(incidents.c.incident_id, literal(event), literal(name))
            rows = rows.where(chosen, incidents.c.kind.in_(TOLD))
            conn.execute(insert(alerts).from_select(["incident_id", "event", "service"], rows).on_conflict_do_nothing())


def _tell(engine: Engine, service: Service) -> Iterator[str]:
    """Send what waits for a service; the rows are locked meanwhile, so that nobody else sends the same."""
    waiting = and_(alerts.c.service == service.name, alerts.c.sent_at.is_(None))
    due = (func.max(alerts.c.next_at) <= func.clock_timestamp()).label("due")
    with engine.begin() as conn:
        lose_when_frozen(conn, 10 * TICK_SECONDS)
        if not conn.scalar(select(due).where(waiting)):
            return
        rows = conn.execute(
            select(incidents, alerts.c.event, alerts.c.attempts)
            .join(alerts, alerts.c.incident_id == incidents.c.incident_id)
            .where(waiting)
            .order_by(incidents.c.incident_id, alerts.c.event)
            .with_for_update(skip_locked=True, of=alerts)
        ).all()
        if not rows:
            return
        failure = service.send(*message(rows))
        done = and_(waiting, alerts.c.incident_id == func.any([row.incident_id for row in rows]))
        if failure is None:
            conn.execute(update(alerts).where(done).values(sent_at=func.clock_timestamp(), error=None))
            return
        seconds = min(PAUSE * 2 ** max(row.attempts for row in rows), LONGEST_PAUSE)
        later = func.clock_timestamp() + dt.timedelta(seconds=seconds)
        conn.execute(update(alerts).where(done).values(attempts=alerts.c.attempts + 1, next_at=later, error=failure))
        yield f"{service.name} could not be told, and is tried again in {seconds:.0f} s: {failure}"


def digest(engine: Engine, settings: Settings, told: Sequence[Service]) -> None:
    """Once a day, from the hour on that the setting names: queue what the last 24 hours brought."""
    hour = settings.alerts_digest
    with engine.begin() as conn:
        advisory_lock(conn, "incidents")
        now = conn.execute(select(func.now())).scalar_one().astimezone(dt.UTC)
        today = f"{now:%Y-%m-%d}"
        known = exists().where(incidents.c.kind == "digest", incidents.c.subject == today)
        if hour is None or now.hour < hour or not told or conn.scalar(select(known)):
            return
        # It is over as soon as it is written: nobody has to do anything about it.
        row = {
            "kind": "digest",
            "subject": today,
            "evidence": today,
            "message": _last_day(conn),
            "advice": "",
            "since": now,
        }
        over = {"link": settings.links_url, "closed_at": func.now(), "closed_by": "digest"}
        made = conn.scalar(insert(incidents).values(**row, **over).returning(incidents.c.incident_id))
        conn.execute(insert(alerts), [{"incident_id": made, "event": "opened", "service": one.name} for one in told])


def _last_day(conn: Connection) -> str:
    """Runs and files of the last 24 hours, by dataset."""
    runs = [f"{row.what}: {row.succeeded} runs succeeded, {row.failed} failed" for row in run_history.last_day(conn)]
    rows = (func.sum(files.c[name]).filter(files.c.status == "loaded") for name in ("rows_read", "rows_rejected"))
    lately = select(files.c.dataset, files.c.status, func.count(), *rows).group_by(files.c.dataset, files.c.status)
    moment = func.coalesce(files.c.loaded_at, files.c.arrived_at)
    counted = conn.execute(
        lately.where(moment >= func.now() - dt.timedelta(days=1)).order_by(*lately.selected_columns[:2])
    )
    for dataset, status, number, read, rejected in counted:
        figures = "" if read is None else f", {read:,} rows read, {rejected:,} rejected"
        runs.append(f"{dataset}: {number:,} files {status}{figures}")
    return "\n".join(
        ["The last 24 hours: everything that happened", *runs] if runs else ["The last 24 hours: nothing happened"]
    )


def message(rows: Sequence[Row[Any]]) -> tuple[str, str]:
    """Title and text of a message about incidents, each with its `event`."""
    opened = [row for row in rows if row.event == "opened"]
    over = [row for row in rows if row.event == "recovered"]
    if len(rows) == 1:
        what = f"{LEADS[rows[0].kind]}{' - recovered' if over else ''}: {rows[0].message.partition(': ')[0]}"
    else:
        what = ", ".join(f"{len(some)} {word}" for some, word in ((opened, "new"), (over, "recovered")) if some)
    parts = [_described(row) for row in rows[:LISTED]]
    if more := len(rows) - LISTED:
        parts += [f"... and {more:,} more: `mini-platform alerts list`"] if more > 0 else []
    return f"Mini Platform: {what}", "\n\n".join(parts)


def _described(row: Row[Any]) -> str:
    since = f"Since {_clock(row.since)}"
    if row.event == "recovered":
        return f"RECOVERED  {LEADS[row.kind]}. {row.message}\n{since}, until {_clock(row.closed_at)}.\n{row.link}"
    if row.kind == "digest":
        return f"{row.message}\n{row.link}"
    return f"{LEADS[row.kind].upper()}  {row.message}\n{since}.\n{row.advice}\n{row.link}"


def _clock(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
