"""Incidents: what is wrong, from when it is first seen until it is gone, a row of `ops.incidents` each.

Here: what an incident is, and how those that are known are kept. What is wrong is compared with what was known to be wrong,
over and over: an incident does not depend on anybody having been there when it began or ended. Not here: what is wrong now by
the ledger (`detection.py`), runs and checks, which only Dagster knows (`dagster/alerting.py`), who is told (`alerts.py`).

Nothing that is stored has personal data in it: no value of a row, no name of a file of a dataset that has personal data.
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
    "files_waiting",
    "run_failed",
    "file_refused",
    "source_down",
    "check_failed",
    "freshness_missed",
    "figures_unusual",
    "rows_rejected",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The worst first: what stops all, then a whole file, then what may be as it should be."""
WARNINGS: tuple[Kind, ...] = ("freshness_missed", "figures_unusual", "rows_rejected")
"""The others are problems."""
TOLD: tuple[Kind, ...] = ("run_failed", "file_refused", "source_down", "check_failed", "freshness_missed")
"""Of which people are told by alerts; the others are seen by who looks."""
DAGSTERS: tuple[Kind, ...] = ("run_failed", "check_failed")
"""Which only Dagster knows."""
UNSTORED = ("detail", "alike")
Subject = tuple[Kind, str]
BATCH = 1000
"""Incidents that are looked up by one statement."""


@dataclass(frozen=True)
class Incident:
    """Something that is wrong.

    Attributes:
        kind: what sort of thing is wrong.
        subject: with what; there is one incident for each at a time.
        dataset: whose; None where it is not of one.
        evidence: what tells this occurrence from others with the same subject, such as the id of a run.
        message: what is wrong, as a sentence.
        advice: what to do about it, as a sentence.
        link: page that shows more.
        since: when it began.
        detail: what is wrong for who may read the dataset, with names of files and reasons; never stored.
        alike: those of a dataset that have the same are shown as one, the last of them with its detail; never stored.
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
        """How bad it is."""
        return "warning" if self.kind in WARNINGS else "problem"

    @property
    def key(self) -> tuple[Kind, str, str]:
        """What tells it from all others, past ones among them."""
        return self.kind, self.subject, self.evidence

    def as_row(self) -> dict[str, Any]:
        """Return what is stored of it."""
        return {name: value for name, value in asdict(self).items() if name not in UNSTORED}


def reconcile(
    conn: Connection,
    found: Sequence[Incident],
    undecided: Collection[Subject] = (),
    kinds: Collection[Kind] = KINDS,
) -> None:
    """Open the incidents that are not known, and close those that are over.

    Args:
        conn: the caller's transaction.
        found: everything that is wrong.
        undecided: of which nobody can tell just now, as they are being worked on: these stay as they are.
        kinds: that were looked for: others stay as they are.
    """
    advisory_lock(conn, "incidents")
    looked_for = incidents.c.kind.in_(kinds)
    known = {(row.kind, row.subject): row for row in conn.execute(select(incidents).where(is_open(), looked_for))}
    now = {(incident.kind, incident.subject): incident for incident in found}
    for key in now.keys() & known.keys():
        if (incident := now[key]).evidence != known[key].evidence:
            news = {"since": known[key].since, "seen_at": func.now(), "times": incidents.c.times + 1}
            row = incidents.c.incident_id == known[key].incident_id
            conn.execute(update(incidents).where(row).values(incident.as_row() | news))
    new = [incident for key, incident in now.items() if key not in known]
    for start in range(0, len(new), BATCH):
        _open(conn, new[start : start + BATCH])
    gone = [known[key].incident_id for key in known.keys() - now.keys() - set(undecided)]
    conn.execute(
        update(incidents).where(incidents.c.incident_id == func.any(gone), is_open()).values(closed_at=func.now())
    )


def is_open() -> Any:
    """Whether an incident is not over."""
    return incidents.c.closed_at.is_(None)


def _open(conn: Connection, new: Sequence[Incident]) -> None:
    """Open incidents, but for those that were closed before: the same evidence is no news."""
    settled = _settled(conn, new, incidents.c.closed_at.is_not(None))
    if rows := [incident.as_row() for incident in new if incident.key not in settled]:
        conn.execute(insert(incidents), rows)


def unacknowledged(conn: Connection, found: Sequence[Incident]) -> list[Incident]:
    """Return those of the incidents that nobody has closed by hand."""
    settled = _settled(conn, found, incidents.c.closed_by.is_not(None))
    return [incident for incident in found if incident.key not in settled]


def _settled(conn: Connection, found: Sequence[Incident], condition: ColumnElement[bool]) -> set[tuple[str, str, str]]:
    """Return the keys of those of the incidents of which a row meets a condition."""
    key = (incidents.c.kind, incidents.c.subject, incidents.c.evidence)
    settled: set[tuple[str, str, str]] = set()
    for start in range(0, len(found), BATCH):
        some = [incident.key for incident in found[start : start + BATCH]]
        settled |= {tuple(row) for row in conn.execute(select(*key).where(tuple_(*key).in_(some), condition))}
    return settled


def listed(conn: Connection, *, closed: bool = False) -> Sequence[Row[Any]]:
    """The open incidents, or with those that are over, the oldest first; `told`: who was told of what."""
    mine = and_(alerts.c.incident_id == incidents.c.incident_id, alerts.c.sent_at.is_not(None))
    told = select(func.array_agg(alerts.c.service.concat(" ").concat(alerts.c.event))).where(mine).scalar_subquery()
    chosen = select(incidents, told.label("told")).where(true() if closed else is_open())
    return conn.execute(chosen.order_by(incidents.c.incident_id)).all()


def stored(
    conn: Connection, kinds: Collection[Kind], subjects: Collection[Subject] = ()
) -> list[tuple[Incident, dt.datetime]]:
    """Return the open incidents of some kinds, and those of some subjects, each with when it was last seen anew."""
    columns = [incidents.c[field.name] for field in fields(Incident) if field.name not in UNSTORED]
    of_subject = tuple_(incidents.c.kind, incidents.c.subject).in_(list(subjects))
    chosen = select(incidents.c.seen_at, *columns).where(is_open(), or_(incidents.c.kind.in_(kinds), of_subject))
    rows = conn.execute(chosen.order_by(incidents.c.incident_id)).all()
    return [(Incident(*values), seen_at) for seen_at, *values in rows]


def open_subjects(conn: Connection, kind: Kind) -> set[str]:
    """The subjects of the open incidents of a kind."""
    return set(conn.scalars(select(incidents.c.subject).where(is_open(), incidents.c.kind == kind)))


def close(conn: Connection, incident_id: int, by: str) -> bool:
    """Close an incident by hand, for what will not go away by itself; whether it was open. Nobody is told."""
    mine = and_(incidents.c.incident_id == incident_id, is_open())
    closed = conn.execute(update(incidents).where(mine).values(closed_at=func.now(), closed_by=by)).rowcount == 1
    if closed:
        audit.record(conn, "closed an incident", incident_id)
    return closed
