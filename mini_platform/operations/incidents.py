"""Incidents: something wrong, from first to last detection; one row of `ops.incidents` each.

Here: what an incident is, and how open incidents are stored. The detected incidents are compared with the stored ones again
and again, so no process has to run at the moment when one begins or ends. Not here: detection from the ledger
(`detection.py`), failed runs and checks, which only Dagster knows (`dagster/alerting.py`), what stopped silently
or runs short (`watchdog.py`), notifications (`alerts.py`).

Nothing that is stored has personal data in it: no value of a row, no file name of a dataset that has personal data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, true, tuple_, update

from mini_platform.warehouse import audit
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import alerts, incidents

Kind = Literal[
    "part_down",
    "disk_low",
    "connections_low",
    "clock_off",
    "queue_stalled",
    "automation_silent",
    "declaration_invalid",
    "files_waiting",
    "files_unseen",
    "run_failed",
    "file_refused",
    "source_down",
    "check_failed",
    "freshness_missed",
    "figures_unusual",
    "rows_rejected",
    "logs_growing",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Ordered by severity: what stops everything, then a whole file, then what may be in order."""
WARNINGS: tuple[Kind, ...] = ("freshness_missed", "figures_unusual", "rows_rejected", "logs_growing")
"""Kinds of level warning; all others are problems."""
ALERTED_KINDS = tuple(kind for kind in KINDS if kind not in ("figures_unusual", "rows_rejected"))
"""Kinds that are sent as alerts; the others are only shown."""
DAGSTER_KINDS: tuple[Kind, ...] = ("run_failed", "check_failed")
"""Kinds that only Dagster knows."""
WATCHDOG_KINDS: tuple[Kind, ...] = (
    "part_down", "disk_low", "connections_low", "clock_off", "queue_stalled", "automation_silent", "files_unseen",
    "logs_growing",
)  # fmt: skip
"""Kinds that the watchdog detects."""
STOPS_ALL = ("daemon", "code_server")
"""Parts without which no sensor ticks and no file is taken."""
UNSTORED = ("detail", "alike")
Subject = tuple[Kind, str]
BATCH = 1000
"""Incidents that one statement looks up."""


@dataclass(frozen=True)
class Incident:
    """Something that is wrong.

    Attributes:
        kind: the kind of problem.
        subject: the affected file, dataset, source, figure or check; each has at most one open incident per kind.
        dataset: name of the dataset; None if it concerns no single one.
        evidence: identifies this occurrence among those of the same subject, such as the id of a run.
        message: what is wrong, as a sentence.
        advice: what to do about it, as a sentence.
        link: page with details.
        since: time at which it began.
        detail: message for readers of the dataset, with file names and reasons; never stored.
        alike: incidents of a dataset with the same value are shown as one, the last of them with its detail; never stored.
    """

    kind: Kind
    subject: str
    dataset: str | None
    evidence: str
    message: str
    advice: str
    link: str
    since: dt.datetime
    detail: str = ""
    alike: str = ""

    @property
    def level(self) -> Literal["problem", "warning"]:
        """Return the severity of the incident."""
        return "warning" if self.kind in WARNINGS else "problem"

    @property
    def key(self) -> tuple[Kind, str, str]:
        """Return the identity of the incident among all others, including past ones."""
        return self.kind, self.subject, self.evidence

    def as_row(self) -> dict[str, Any]:
        """Return the columns that are stored."""
        return {name: value for name, value in asdict(self).items() if name not in UNSTORED}


def reconcile(
    conn: Connection,
    detected: Sequence[Incident],
    undecided: Collection[Subject] = (),
    kinds: Collection[Kind] = KINDS,
) -> None:
    """Open incidents that are not stored yet, and close those that are no longer detected.

    Args:
        conn: the caller's transaction.
        detected: everything that is wrong now.
        undecided: subjects that cannot be judged now, as they are being processed: their incidents stay as they are.
        kinds: kinds that were checked; incidents of others stay as they are.
    """
    advisory_lock(conn, "incidents")
    of_kinds = incidents.c.kind.in_(kinds)
    open_rows = {(row.kind, row.subject): row for row in conn.execute(select(incidents).where(is_open(), of_kinds))}
    now = {(incident.kind, incident.subject): incident for incident in detected}
    for key in now.keys() & open_rows.keys():
        if (incident := now[key]).evidence != open_rows[key].evidence:
            changes = {"since": open_rows[key].since, "seen_at": func.now(), "times": incidents.c.times + 1}
            row = incidents.c.incident_id == open_rows[key].incident_id
            conn.execute(update(incidents).where(row).values(incident.as_row() | changes))
    new = [incident for key, incident in now.items() if key not in open_rows]
    for start in range(0, len(new), BATCH):
        _open(conn, new[start : start + BATCH])
    over = [open_rows[key].incident_id for key in open_rows.keys() - now.keys() - set(undecided)]
    conn.execute(
        update(incidents).where(incidents.c.incident_id == func.any(over), is_open()).values(closed_at=func.now())
    )


def is_open() -> Any:
    """Return the condition that an incident is open."""
    return incidents.c.closed_at.is_(None)


def _open(conn: Connection, new: Sequence[Incident]) -> None:
    """Open incidents, except those that were closed before with the same evidence."""
    settled = _settled(conn, new, incidents.c.closed_at.is_not(None))
    if rows := [incident.as_row() for incident in new if incident.key not in settled]:
        conn.execute(insert(incidents), rows)


def unacknowledged(conn: Connection, candidates: Sequence[Incident]) -> list[Incident]:
    """Return the incidents that were not closed by hand."""
    settled = _settled(conn, candidates, incidents.c.closed_by.is_not(None))
    return [incident for incident in candidates if incident.key not in settled]


def _settled(
    conn: Connection, candidates: Sequence[Incident], condition: ColumnElement[bool]
) -> set[tuple[str, str, str]]:
    """Return the keys of incidents that have a stored row which meets a condition."""
    key = (incidents.c.kind, incidents.c.subject, incidents.c.evidence)
    settled: set[tuple[str, str, str]] = set()
    for start in range(0, len(candidates), BATCH):
        batch = [incident.key for incident in candidates[start : start + BATCH]]
        settled |= {tuple(row) for row in conn.execute(select(*key).where(tuple_(*key).in_(batch), condition))}
    return settled


def list_incidents(conn: Connection, *, closed: bool = False) -> Sequence[Row[Any]]:
    """Return the open incidents, or also the closed ones, the oldest first; `notified` lists the alerts that were sent."""
    sent = and_(alerts.c.incident_id == incidents.c.incident_id, alerts.c.sent_at.is_not(None))
    notified = select(func.array_agg(alerts.c.service.concat(" ").concat(alerts.c.event))).where(sent).scalar_subquery()
    rows = select(incidents, notified.label("notified")).where(true() if closed else is_open())
    return conn.execute(rows.order_by(incidents.c.incident_id)).all()


def stored(
    conn: Connection, kinds: Collection[Kind], subjects: Collection[Subject] = ()
) -> list[tuple[Incident, dt.datetime]]:
    """Return the open incidents of some kinds or subjects, each with the time when it last got new evidence."""
    columns = [incidents.c[field.name] for field in fields(Incident) if field.name not in UNSTORED]
    of_subject = tuple_(incidents.c.kind, incidents.c.subject).in_(list(subjects))
    matching = select(incidents.c.seen_at, *columns).where(is_open(), or_(incidents.c.kind.in_(kinds), of_subject))
    rows = conn.execute(matching.order_by(incidents.c.incident_id)).all()
    return [(Incident(*values), seen_at) for seen_at, *values in rows]


def open_of(conn: Connection, datasets: Collection[str]) -> set[Subject]:
    """Return kind and subject of the open incidents of these datasets."""
    rows = select(incidents.c.kind, incidents.c.subject).where(is_open(), incidents.c.dataset.in_(datasets))
    return {(kind, subject) for kind, subject in conn.execute(rows).tuples()} if datasets else set()


def open_by_kind(conn: Connection) -> dict[Kind, int]:
    """Return how many incidents of each kind are open."""
    counted = select(incidents.c.kind, func.count()).where(is_open()).group_by(incidents.c.kind)
    by_kind = dict(conn.execute(counted).tuples().all())
    return {kind: by_kind.get(kind, 0) for kind in KINDS}


def open_of_kinds(conn: Connection, kinds: Collection[Kind]) -> set[Subject]:
    """Return kind and subject of the open incidents of these kinds."""
    rows = select(incidents.c.kind, incidents.c.subject).where(is_open(), incidents.c.kind.in_(kinds))
    return {(kind, subject) for kind, subject in conn.execute(rows).tuples()}


def open_subjects(conn: Connection, kind: Kind) -> set[str]:
    """Return the subjects of the open incidents of a kind."""
    return {subject for _, subject in open_of_kinds(conn, (kind,))}


def close(conn: Connection, incident_id: int, by: str) -> bool:
    """Close an incident by hand, without a notification; return True if it was open."""
    to_close = and_(incidents.c.incident_id == incident_id, is_open())
    closed = conn.execute(update(incidents).where(to_close).values(closed_at=func.now(), closed_by=by)).rowcount == 1
    if closed:
        audit.record(conn, "closed an incident", incident_id)
    return closed
