"""Alerts: notifications of opened and recovered incidents, sent through the services that the setting names as Apprise URLs.

`ops.alerts` has a row per service and event: each is sent once, and retried with growing pauses while the service cannot be
reached. Delivery is at least once: a process that is killed between sending and recording that sends again.

Apprise is imported only where something is sent. The URLs are secrets: only the kind and the host of one is ever shown.

https://appriseit.com/services/
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, Row, Select, and_, delete, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.config.extras import require
from mini_platform.config.settings import Settings
from mini_platform.operations.incidents import ALERTED_KINDS, Kind, is_open
from mini_platform.warehouse import run_history
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import alerts, files, incidents

if TYPE_CHECKING:
    from apprise import NotifyBase

LISTED = 20
"""Incidents that one message describes; the others are only counted."""
PAUSE, LONGEST_PAUSE = 30.0, 3600.0
"""Seconds until the first retry of a service that failed, doubled with each attempt, and their maximum."""
TICK_SECONDS = 30.0
"""Time after which a tick starts no further service; the next tick sends the rest."""
SHORT = 4
"""Minimum length of a URL part that is masked: shorter parts are not secrets, and would hide half of a message."""
DELAYS: Mapping[Kind, dt.timedelta] = {"files_waiting": dt.timedelta(minutes=10)}
"""How long incidents of a kind are open before they are sent: a platform that has just started takes its files in a moment."""
SAYS_WHY = ("WARNING", "ERROR", "CRITICAL")
LEADS = {
    "part_down": "Part down",
    "disk_low": "Disk low",
    "connections_low": "Connections low",
    "clock_off": "Clock off",
    "queue_stalled": "Queue stalled",
    "logs_growing": "Logs growing",
    "files_waiting": "Files waiting",
    "automation_silent": "Automation silent",
    "files_unseen": "Files not taken",
    "declaration_invalid": "Declaration invalid",
    "run_failed": "Run failed",
    "file_refused": "File refused",
    "check_failed": "Check failed",
    "source_down": "Source down",
    "freshness_missed": "Freshness missed",
    "digest": "Daily digest",
}


class AlertsError(ValueError):
    """The setting cannot be used; the message does not quote it."""


@dataclass(frozen=True)
class Service:
    """A service that messages are sent to.

    Attributes:
        name: kind, host and a hash of the URL without its password, which stays the same as long as the URL does.
        plugin: the Apprise plugin that sends.
        secrets: parts of the URL that must not be shown.
    """

    name: str
    plugin: NotifyBase
    secrets: tuple[str, ...]

    def send(self, title: str, body: str) -> str | None:
        """Send a message; return the reason if that failed, else None."""
        import apprise

        notifier = apprise.Apprise()
        notifier.add(self.plugin)
        with apprise.LogCapture(level=logging.DEBUG, fmt="%(levelname)s %(message)s") as captured:
            if notifier.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
                return None
            lines = captured.getvalue().splitlines()
        # Apprise logs the cause of a failed connection at level DEBUG, among whole messages and their headers.
        reason = " ".join(
            line.partition(" ")[2] for line in lines if line.startswith(SAYS_WHY) or "Exception: " in line
        )
        for secret in self.secrets:
            reason = reason.replace(secret, "****")
        return reason or "The service did not accept the message."


def services(settings: Settings) -> list[Service]:
    """Return the services that the settings name.

    Raises:
        AlertsError: one of the URLs is not one that Apprise knows, or Apprise is not installed.
    """
    if settings.alerts is None or not settings.alerts.get_secret_value().strip():
        return []
    require("alerts", "MINI_PLATFORM_ALERTS", AlertsError)
    import apprise
    from apprise.utils.parse import parse_urls

    by_name: dict[str, Service] = {}
    for number, url in enumerate(parse_urls(settings.alerts.get_secret_value()) or [""], start=1):
        with apprise.LogCapture(level=logging.CRITICAL):  # it would quote the URL
            plugin = apprise.Apprise.instantiate(url)
        if plugin is None:
            raise AlertsError(
                f"URL {number} of MINI_PLATFORM_ALERTS is not one that Apprise understands. "
                "It should look like mailtos://user:password@host?to=ops@example.com"
            )
        hashed = hashlib.sha256(plugin.url(privacy=True).encode()).hexdigest()[:8]
        name = f"{urlsplit(url).scheme} {plugin.host or ''}".strip() + f" {hashed}"
        by_name[name] = Service(name, plugin, _secrets(url, str(plugin.host or "")))
    return list(by_name.values())


def _secrets(url: str, host: str) -> tuple[str, ...]:
    """Return every part of a URL, raw and decoded, except its kind and host, the longest first."""
    parts = re.split(r"[/:@?&=#,]", url.partition("://")[2])
    shown = {part for part in (*parts, *map(unquote, parts)) if len(part) >= SHORT and part not in host}
    return tuple(sorted(shown, key=len, reverse=True))


def notify(engine: Engine, settings: Settings) -> list[str]:
    """Send what is due to the services that the settings name; return a sentence for each that could not be notified."""
    try:
        receivers = services(settings)
    except AlertsError as error:
        return [str(error)]
    if settings.alerts_digest is not None:
        digest(engine, settings, receivers)
    return deliver(engine, receivers)


def deliver(engine: Engine, receivers: Sequence[Service]) -> list[str]:
    """Send each service the events that it has not received yet and that are due, in one message.

    Returns:
        Sentences about services that could not be reached; they are retried later.
    """
    end = time.monotonic() + TICK_SECONDS
    with engine.begin() as conn:
        _queue(conn, receivers)
    return [failure for service in receivers if time.monotonic() < end for failure in _send_queued(engine, service)]


def _queue(conn: Connection, receivers: Sequence[Service]) -> None:
    """Queue alerts: open incidents for each service, also a new one, and recovered incidents for those that know them.

    Incidents of other kinds than `ALERTED_KINDS` are not sent.
    """
    names = [service.name for service in receivers]
    conn.execute(delete(alerts).where(alerts.c.service.not_in(names), alerts.c.sent_at.is_(None)))
    for name in names:
        of_service = and_(alerts.c.incident_id == incidents.c.incident_id, alerts.c.service == name)
        known = exists().where(of_service, alerts.c.event == "opened")
        early = (
            and_(incidents.c.kind == kind, incidents.c.opened_at > func.now() - wait) for kind, wait in DELAYS.items()
        )
        opened = and_(is_open(), ~known, ~or_(*early))
        # Nobody is notified of an incident that was closed by hand.
        recovered = and_(incidents.c.closed_at.is_not(None), incidents.c.closed_by.is_(None), known)
        recovery_known = exists().where(of_service, alerts.c.event == "recovered")
        for event, condition in (("opened", opened), ("recovered", and_(recovered, ~recovery_known))):
            rows: Select[Any] = select(incidents.c.incident_id, literal(event), literal(name))
            rows = rows.where(condition, incidents.c.kind.in_(ALERTED_KINDS))
            conn.execute(insert(alerts).from_select(["incident_id", "event", "service"], rows).on_conflict_do_nothing())


def _send_queued(engine: Engine, service: Service) -> Iterator[str]:
    """Send the queued alerts of a service, and yield an error; the rows are locked, so that no other process sends them too."""
    queued = and_(alerts.c.service == service.name, alerts.c.sent_at.is_(None))
    due = (func.max(alerts.c.next_at) <= func.clock_timestamp()).label("due")
    with engine.begin() as conn:
        lose_when_frozen(conn, 10 * TICK_SECONDS)
        if not conn.scalar(select(due).where(queued)):
            return
        rows = conn.execute(
            select(incidents, alerts.c.event, alerts.c.attempts)
            .join(alerts, alerts.c.incident_id == incidents.c.incident_id)
            .where(queued)
            .order_by(incidents.c.incident_id, alerts.c.event)
            .with_for_update(skip_locked=True, of=alerts)
        ).all()
        if not rows:
            return
        failure = service.send(*message(rows))
        sent_rows = and_(queued, alerts.c.incident_id == func.any([row.incident_id for row in rows]))
        if failure is None:
            conn.execute(update(alerts).where(sent_rows).values(sent_at=func.clock_timestamp(), error=None))
            return
        seconds = min(PAUSE * 2 ** max(row.attempts for row in rows), LONGEST_PAUSE)
        later = func.clock_timestamp() + dt.timedelta(seconds=seconds)
        conn.execute(
            update(alerts).where(sent_rows).values(attempts=alerts.c.attempts + 1, next_at=later, error=failure)
        )
        yield f"{service.name} could not be notified; next attempt in {seconds:.0f} s: {failure}"


def digest(engine: Engine, settings: Settings, receivers: Sequence[Service]) -> None:
    """Queue a summary of the last 24 hours, once a day, from the hour on that the setting names."""
    hour = settings.alerts_digest
    with engine.begin() as conn:
        advisory_lock(conn, "incidents")
        now = conn.execute(select(func.now())).scalar_one().astimezone(dt.UTC)
        today = f"{now:%Y-%m-%d}"
        known = exists().where(incidents.c.kind == "digest", incidents.c.subject == today)
        if hour is None or now.hour < hour or not receivers or conn.scalar(select(known)):
            return
        # It is stored as closed: nobody has to do anything about it.
        row = {
            "kind": "digest",
            "subject": today,
            "evidence": today,
            "message": _last_day(conn),
            "advice": "",
            "since": now,
        }
        closed = {"link": settings.links_url, "closed_at": func.now(), "closed_by": "digest"}
        incident_id = conn.scalar(insert(incidents).values(**row, **closed).returning(incidents.c.incident_id))
        conn.execute(
            insert(alerts),
            [{"incident_id": incident_id, "event": "opened", "service": service.name} for service in receivers],
        )


def _last_day(conn: Connection) -> str:
    """Return runs and files of the last 24 hours by dataset, and what is still wrong, as text."""
    lines = [f"{row.what}: {row.succeeded} runs succeeded, {row.failed} failed" for row in run_history.last_day(conn)]
    rows = (func.sum(files.c[name]).filter(files.c.status == "loaded") for name in ("rows_read", "rows_rejected"))
    counts = select(files.c.dataset, files.c.status, func.count(), *rows).group_by(files.c.dataset, files.c.status)
    moment = func.coalesce(files.c.loaded_at, files.c.arrived_at)
    counted = conn.execute(
        counts.where(moment >= func.now() - dt.timedelta(days=1)).order_by(*counts.selected_columns[:2])
    )
    for dataset, status, number, read, rejected in counted:
        figures = "" if read is None else f", {read:,} rows read, {rejected:,} rejected"
        lines.append(f"{dataset}: {number:,} files {status}{figures}")
    lines += ["", "Open incidents", *still] if (still := _still_open(conn)) else []
    return "\n".join(["Activity of the last 24 hours", *lines] if lines else ["No activity in the last 24 hours"])


def _still_open(conn: Connection) -> list[str]:
    """Return the open incidents, the oldest first, as text."""
    rows = conn.scalars(select(incidents.c.message).where(is_open()).order_by(incidents.c.incident_id)).all()
    more = len(rows) - LISTED
    return [*rows[:LISTED], *([f"... and {more:,} more: `mini-platform alerts list`"] if more > 0 else [])]


def message(rows: Sequence[Row[Any]]) -> tuple[str, str]:
    """Return title and text of a message about incidents, each with its `event`."""
    opened = [row for row in rows if row.event == "opened"]
    recovered = [row for row in rows if row.event == "recovered"]
    if len(rows) == 1:
        summary = f"{LEADS[rows[0].kind]}{' - recovered' if recovered else ''}: {rows[0].message.partition(': ')[0]}"
    else:
        summary = ", ".join(
            f"{len(events)} {word}" for events, word in ((opened, "new"), (recovered, "recovered")) if events
        )
    parts = [_described(row) for row in rows[:LISTED]]
    if more := len(rows) - LISTED:
        parts += [f"... and {more:,} more: `mini-platform alerts list`"] if more > 0 else []
    return f"Mini Platform: {summary}", "\n\n".join(parts)


def _described(row: Row[Any]) -> str:
    since = f"Since {_clock(row.since)}"
    if row.event == "recovered":
        return f"RECOVERED  {LEADS[row.kind]}. {row.message}\n{since}, until {_clock(row.closed_at)}.\n{row.link}"
    if row.kind == "digest":
        return f"{row.message}\n{row.link}"
    return f"{LEADS[row.kind].upper()}  {row.message}\n{since}.\n{row.advice}\n{row.link}"


def _clock(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
