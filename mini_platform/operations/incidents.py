"""Incidents: what is wrong, from when it is first seen until it is gone, a row of `ops.incidents` each.

What is wrong is compared with what was known to be wrong, over and over: an incident does not depend on anybody having been
there when it began or ended. What the ledger knows is looked for here; runs and checks, which only Dagster knows, by
`mini_platform/alerting.py`; who is told of it is the business of `alerts.py`.

Nothing here has personal data in it: no value of a row, no name of a file of a dataset that has personal data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote

from sqlalchemy import Connection, Row, and_, exists, func, insert, select, true, tuple_, update

from mini_platform.dataset import Dataset
from mini_platform.settings import Settings
from mini_platform.warehouse import audit
from mini_platform.warehouse.ledger import HOLDS, PENDING
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import alerts, checkpoints, files, incidents

Kind = Literal["run_failed", "file_refused", "check_failed", "source_down", "freshness_missed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Subject = tuple[Kind, str]
BAD = ("refused", "failed")
RULES = 3
"""Broken rules that are named at most."""
BATCH = 1000
"""Incidents that are looked up by one statement."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now.

    Attributes:
        kind: of the incident that it is.
        subject: with what; there is one incident for each at a time.
        dataset: whose; None where it is not of one.
        evidence: what tells this occurrence from others with the same subject, such as the id of a run.
        said: what is wrong, as a sentence.
        advice: what to do about it, as a sentence.
        link: page that shows more.
        since: when it began.
    """

    kind: Kind
    subject: str
    dataset: str | None
    evidence: str
    said: str
    advice: str
    link: str
    since: dt.datetime


def reconcile(conn: Connection, found: Sequence[Problem], undecided: Collection[Subject] = ()) -> None:
    """Open an incident for each problem that has none, and close those whose problem is gone.

    Args:
        conn: the caller's transaction.
        found: everything that is wrong.
        undecided: of which nobody can tell just now, as they are being worked on: these stay as they are.
    """
    advisory_lock(conn, "incidents")
    known = {(row.kind, row.subject): row for row in conn.execute(select(incidents).where(is_open()))}
    problems = {(problem.kind, problem.subject): problem for problem in found}
    for key in problems.keys() & known.keys():
        if (problem := problems[key]).evidence != known[key].evidence:
            news = {**asdict(problem), "since": known[key].since, "seen_at": func.now(), "times": incidents.c.times + 1}
            conn.execute(update(incidents).where(incidents.c.incident_id == known[key].incident_id).values(news))
    new = [problem for key, problem in problems.items() if key not in known]
    for start in range(0, len(new), BATCH):
        _open(conn, new[start : start + BATCH])
    gone = [known[key].incident_id for key in known.keys() - problems.keys() - set(undecided)]
    conn.execute(
        update(incidents).where(incidents.c.incident_id == func.any(gone), is_open()).values(closed_at=func.now())
    )


def is_open() -> Any:
    """Whether an incident is not over."""
    return incidents.c.closed_at.is_(None)


def _open(conn: Connection, new: Sequence[Problem]) -> None:
    """Open incidents, but for those that somebody closed by hand: the same evidence is no news."""
    key = tuple_(incidents.c.kind, incidents.c.subject, incidents.c.evidence)
    settled = conn.execute(
        select(incidents.c.kind, incidents.c.subject, incidents.c.evidence)
        .where(key.in_([(p.kind, p.subject, p.evidence) for p in new]))
    ).all()  # fmt: skip
    known = {tuple(row) for row in settled}
    if rows := [asdict(p) for p in new if (p.kind, p.subject, p.evidence) not in known]:
        conn.execute(insert(incidents), rows)


def listed(conn: Connection, *, closed: bool = False) -> Sequence[Row[Any]]:
    """The open incidents, or with those that are over, the oldest first; `told`: who was told of what."""
    mine = and_(alerts.c.incident_id == incidents.c.incident_id, alerts.c.sent_at.is_not(None))
    told = select(func.array_agg(alerts.c.service.concat(" ").concat(alerts.c.event))).where(mine).scalar_subquery()
    chosen = select(incidents, told.label("told")).where(true() if closed else is_open())
    return conn.execute(chosen.order_by(incidents.c.incident_id)).all()


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


def in_the_ledger(
    conn: Connection, datasets: Mapping[str, Dataset], settings: Settings
) -> tuple[list[Problem], set[Subject]]:
    """What is wrong by the ledger: refused files, sources that are down, datasets that are late; and what is undecided."""
    found = [*_files(conn, datasets, settings), *_sources(conn, datasets, settings), *_late(conn, datasets, settings)]
    first, waiting = files.alias("first"), files.alias("waiting")
    of_name = and_(first.c.dataset == waiting.c.dataset, first.c.name == waiting.c.name, first.c.version == 1)
    pending = select(first.c.file_id).select_from(waiting.join(first, of_name)).where(waiting.c.status.in_(PENDING))
    decided = {problem.subject for problem in found if problem.kind == "file_refused"}
    subjects = set(map(str, conn.scalars(pending.where(first.c.same_as.is_(None)))))
    return found, {("file_refused", subject) for subject in subjects - decided}


def waiting(conn: Connection) -> set[str]:
    """The datasets that have files to be judged: what their checks say is about to change."""
    return set(conn.scalars(select(files.c.dataset).distinct().where(files.c.status.in_(PENDING))))


def _files(conn: Connection, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Problem]:
    """Names whose last version that was judged was refused or failed."""
    first, later = files.alias("first"), files.alias("later")
    same_name = and_(later.c.dataset == files.c.dataset, later.c.name == files.c.name, later.c.same_as.is_(None))
    judged_later = exists().where(same_name, later.c.version > files.c.version, later.c.status.in_(("loaded", *BAD)))
    of_name = and_(
        first.c.dataset == files.c.dataset,
        first.c.name == files.c.name,
        first.c.version == 1,
        first.c.same_as.is_(None),
    )
    bad = (
        select(files, first.c.file_id.label("first"))
        .select_from(files.join(first, of_name))
        .where(files.c.status.in_(BAD), files.c.same_as.is_(None), files.c.dataset.in_(list(datasets)), ~judged_later)
        .order_by(files.c.file_id)
    )
    for row in conn.execute(bad):
        dataset = datasets[row.dataset]
        name = "" if dataset.is_personal else f"{row.name}, "
        yield Problem(
            "file_refused",
            str(row.first),
            dataset.name,
            f"{row.file_id} {row.run_id}",
            f"{dataset.name}: {name}file {row.file_id}, was {row.status}. {_why(row)}",
            f"Correct it and drop it again under its name, or `mini-platform redrive {dataset.name} --file {row.file_id}`.",
            f"{settings.links_url}/files/{row.file_id}",
            row.arrived_at,
        )


def _why(row: Row[Any]) -> str:
    """Why a file is bad, without what stands in it: a refusal may quote a header, and what it takes for one may be a row."""
    if not row.rule_counts or not row.rows_rejected:
        return "Its page says why."
    worst = sorted(row.rule_counts.items(), key=lambda item: -item[1])[:RULES]
    rules = ", ".join(f"{rule} ({count:,})" for rule, count in worst)
    return f"{row.rows_rejected:,} of {row.rows_read:,} rows are rejected: {rules}."


def _sources(conn: Connection, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Problem]:
    """Sources whose last pull failed, after all of its tries."""
    declared = {(dataset.name, source.name) for dataset in datasets.values() for source in dataset.pulls}
    down = select(checkpoints).where(checkpoints.c.last_error.is_not(None))
    for row in conn.execute(down):
        if (row.dataset, row.source) in declared:
            yield Problem(
                "source_down",
                f"{row.dataset}/{row.source}",
                row.dataset,
                row.last_failed.isoformat(),
                f"{row.dataset}: the source {row.source} cannot be pulled. {row.last_error}",
                "See whether it answers, and its credentials; the schedule goes on asking. `mini-platform sources` lists it.",
                f"{settings.links_url}/datasets/{quote(row.dataset)}",
                row.last_failed,
            )


def inboxes_down(states: Sequence[Row[Any]], settings: Settings) -> Iterator[Problem]:
    """Remote inboxes (rows of `ops.inboxes`) that could not be used when they were last visited, after all tries."""
    for row in states:
        if row.last_error is not None:
            yield Problem(
                "source_down",
                f"{row.dataset}/{row.inbox}",
                row.dataset,
                row.failing_since.isoformat(),
                f"{row.dataset}: the inbox {row.inbox} cannot be used. {row.last_error}",
                "`mini-platform doctor` tries it and says what to do; it is asked again by itself.",
                f"{settings.links_url}/datasets/{quote(row.dataset)}",
                row.failing_since,
            )


def _late(conn: Connection, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Problem]:
    """Datasets whose newest load is older than they declare."""
    loads = select(files.c.dataset, func.max(files.c.loaded_at).label("last"), func.now().label("now"))
    for row in conn.execute(loads.where(HOLDS).group_by(files.c.dataset)):
        declared = datasets.get(row.dataset)
        if declared and declared.freshness and row.now - row.last > declared.freshness:
            yield Problem(
                "freshness_missed",
                row.dataset,
                row.dataset,
                row.last.isoformat(),
                f"{row.dataset}: the newest load is of {row.last.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC, and should not be "
                f"older than {declared.freshness}.",
                "See whether files still arrive, and whether the daemon runs.",
                f"{settings.links_url}/datasets/{quote(row.dataset)}",
                row.last + declared.freshness,
            )
