"""The ledger `ops.files`: whether a file is new, pending or done is read here and nowhere else.

Here: registering arrivals, claiming files under a lease, moving them from status to status. Every transition is made in
the transaction that writes the rows it speaks of, and only by the holder of the lease.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError

from mini_platform.config.faultpoints import failpoint
from mini_platform.storage.errors import RawStoreAwayError
from mini_platform.warehouse import audit
from mini_platform.warehouse.connection import DatabaseAwayError
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import COUNTERS, among, files

log = logging.getLogger("mini_platform.ledger")
PENDING = ("landed", "staged")
REPROCESSED = ("loaded", "refused", "failed")
HOLDS = and_(files.c.loaded_at.is_not(None), files.c.status.in_(("loaded", *PENDING)))
"""Whether the rows of a file are in production: of one that is validated again, until it is refused or has failed."""
BATCH_BYTES = 256 * 2**20
"""A batch is closed before it grows over this, so that one transaction and its retry stay short."""

AWAY = (OperationalError, DatabaseAwayError)
"""What is raised where the database goes away in the middle of something, and where it cannot be reached at all."""
BLAMELESS = ("53100", "53300", "57P01", "57P03")
"""SQLSTATEs that no file can be blamed for: disk full, too many connections, stopped by an administrator, starting or stopping.
A connection that breaks without a word is not among them: a file may have brought the server down."""


Kind = Literal["fresh", "tried", "due", "alone"]
"""Of pending files. Fresh: never tried. Tried: a process died on it and on others with it. Due: deferred, and neither does
a file wait that arrived before that, nor one whose rows are staged and would have to wait longer to be published. Alone:
every file that is not fresh."""
EVERYTHING: tuple[Kind, ...] = ("fresh", "alone")
OTHERS_FIRST: tuple[Kind, ...] = ("due", "fresh", "tried")
"""How a run begins that leaves what is slow to a later run ..."""
OTHERS_ONLY: tuple[Kind, ...] = ("fresh", "tried", "due")
"""... and how it goes on, so that nobody waits for more than one slow file."""


class LeaseLostError(Exception):
    """The lease on a file ran out and another process took it: what was done for it here is rolled back."""


@dataclass(frozen=True)
class Arrival:
    """Bytes that arrived under a name; they are in the raw store already."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Worker:
    """Who works: the owner of the leases, how long they last, and when to give a file up.

    With `others_first` it does not stage what was deferred while rows of other files are staged and not loaded: its next
    run does.
    """

    engine: Engine
    owner: str
    lease_seconds: float = 30.0
    max_attempts: int = 5
    batch_files: int = 1000
    others_first: bool = False

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return f"run {self.owner}"


def current_versions(conn: Connection, dataset: str, names: Sequence[str]) -> dict[str, Row[Any]]:
    """The current version of each name that has one: the one that arrived last."""
    latest = (
        select(files)
        .distinct(files.c.name)
        .where(files.c.dataset == dataset, files.c.name == func.any(list(names)), files.c.same_as.is_(None))
        .order_by(files.c.name, files.c.version.desc())
    )
    return {row.name: row for row in conn.execute(latest)}


def register(conn: Connection, dataset: str, arrivals: Sequence[Arrival], channel: str) -> list[Row[Any]]:
    """Write arrivals into the ledger, each a new version of its name if the bytes differ from the current one.

    Returns:
        The ledger rows in the order of the arrivals; one whose bytes are the current version has the status `unchanged`.
    """
    advisory_lock(conn, "register", dataset)
    rows: list[Row[Any]] = []
    while rest := arrivals[len(rows) :]:
        names = [arrival.name for arrival in rest]
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        # Up to a name that comes again: it is the next version of a row, or the same as one, that must be written first.
        distinct = next((i for i, name in enumerate(names) if first[name] != i), len(names))
        rows += _register(conn, dataset, rest[:distinct], channel)
    return rows


def _register(conn: Connection, dataset: str, arrivals: Sequence[Arrival], channel: str) -> Sequence[Row[Any]]:
    """The same for arrivals of different names, under the lock."""
    current = current_versions(conn, dataset, [a.name for a in arrivals])
    rows = []
    for arrival in arrivals:
        before = current.get(arrival.name)
        unchanged = before is not None and before.sha256 == arrival.sha256
        rows.append(
            {
                "dataset": dataset,
                "name": arrival.name,
                "version": (before.version if before else 0) + (not unchanged),
                "sha256": arrival.sha256,
                "bytes": arrival.size,
                "channel": channel,
                "status": "unchanged" if unchanged else "landed",
                "same_as": before.file_id if before and unchanged else None,
            }
        )
    arrived = conn.execute(insert(files).returning(files, sort_by_parameter_order=True), rows).all()
    landed = [row.file_id for row in arrived if row.status == "landed"]
    audit.record_all(conn, "landed", landed, dataset=dataset, channel=channel)
    return arrived


def _free(dataset: str, status: str, only: Sequence[int] | None) -> Select[Any]:
    """Pending files that nobody holds."""
    chosen = select(files).where(
        files.c.dataset == dataset,
        files.c.status == status,
        or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp()),
    )
    return chosen if only is None else chosen.where(among(files.c.file_id, only))


def _kinds(dataset: str, status: str, only: Sequence[int] | None) -> dict[Kind, ColumnElement[bool]]:
    """What is true of the pending files of each kind."""
    aside = files.c.deferred_at.is_not(None)
    fresh = and_(files.c.attempts == 0, not_(aside))
    earlier = _free(dataset, status, only).subquery()
    staged = _free(dataset, "staged", None).subquery()
    nobody_before = not_(exists().where(earlier.c.deferred_at.is_(None), earlier.c.arrived_at <= files.c.deferred_at))
    nobody_staged = not_(exists().where(staged.c.deferred_at.is_(None)))
    return {
        "fresh": fresh,
        "tried": and_(files.c.attempts > 0, not_(aside)),
        "due": and_(aside, nobody_before, nobody_staged),
        "alone": not_(fresh),
    }


def claim(
    worker: Worker,
    dataset: str,
    status: str,
    limit: int,
    only: Sequence[int] | None = None,
    order: Sequence[Kind] = EVERYTHING,
) -> list[Row[Any]]:
    """Take pending files under a lease: those of the first kind that has any, oldest arrival first.

    Files that were never tried come in batches. One whose processing died before, or that was deferred, comes alone, so
    that it delays nobody and takes nobody down with it. One that dies alone is deferred too; after `max_attempts` it is
    marked failed.
    """
    kinds = _kinds(dataset, status, only)
    with worker.engine.begin() as conn:
        lose_when_frozen(conn, worker.lease_seconds)
        given_up = _free(dataset, status, only).where(files.c.attempts >= worker.max_attempts)
        dead = conn.scalars(
            update(files)
            .where(files.c.file_id.in_(given_up.with_only_columns(files.c.file_id).with_for_update(skip_locked=True)))
            .values(
                status="failed",
                error=func.concat(
                    "gave it up: its processing died ", files.c.attempts, " times, see the log of its run"
                ),
            )
            .returning(files.c.file_id)
        )
        audit.record_all(conn, "failed", dead.all(), dataset=dataset, actor=worker.actor)
        claimed: Sequence[Row[Any]] = []
        for kind in order:
            size = min(limit, worker.batch_files) if kind == "fresh" else 1
            queue = _free(dataset, status, only).where(kinds[kind]).subquery()
            running = func.sum(queue.c.bytes).over(order_by=(queue.c.attempts, queue.c.file_id)) - queue.c.bytes
            ranked = select(queue.c.file_id, running.label("before")).order_by(queue.c.attempts, queue.c.file_id)
            first = ranked.limit(size).subquery()
            taken = (
                select(files.c.file_id)
                .where(files.c.file_id.in_(select(first.c.file_id).where(first.c.before < BATCH_BYTES)))
                .where(or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp()))
                .with_for_update(skip_locked=True)
            )
            claimed = conn.execute(
                update(files)
                .where(files.c.file_id.in_(taken), files.c.status == status)
                .values(
                    attempts=files.c.attempts + 1,
                    leased_by=worker.owner,
                    leased_until=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, worker.lease_seconds),
                    run_id=worker.owner,
                    deferred_at=case((files.c.attempts > 0, func.clock_timestamp()), else_=files.c.deferred_at),
                )
                .returning(files)
            ).all()
            if claimed:
                break
        failpoint("claim.before_commit")
    failpoint("claim.after_commit")
    return sorted(claimed, key=lambda row: row.file_id)


@contextmanager
def lease(worker: Worker) -> Iterator[None]:
    """Keep the worker's leases alive while the body runs; give back what it still holds at the end.

    A worker that is killed gives nothing back: its leases run out by themselves. One that is interrupted, or that the
    database has no room for, gives back the attempts too, or a full disk would make files fail for good.
    """
    done = threading.Event()
    mine = files.c.leased_by == worker.owner
    held = and_(mine, files.c.status.in_(PENDING))
    # Waits for no lock: `move` locks the same rows, perhaps in another order, and one of the two would be a deadlock's victim.
    free = select(files.c.file_id).where(held).with_for_update(skip_locked=True)
    until = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, worker.lease_seconds)

    def renew() -> None:
        while not done.wait(worker.lease_seconds / 3):
            try:
                with worker.engine.begin() as conn:
                    lose_when_frozen(conn, worker.lease_seconds)
                    conn.execute(update(files).where(files.c.file_id.in_(free)).values(leased_until=until))
            except AWAY:
                continue  # The worker's own statement will say so, and a database that is back must find the lease alive.

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    given_back: dict[str, Any] = {"leased_by": None, "leased_until": None}
    try:
        yield
    except BaseException as error:
        if _blameless(error):
            given_back |= {"attempts": func.greatest(files.c.attempts - 1, 0), "deferred_at": None}
        raise
    finally:
        done.set()
        thread.join()
        try:
            with worker.engine.begin() as conn:
                conn.execute(update(files).where(held).values(given_back))
        except AWAY:
            pass  # The leases run out by themselves.


def _blameless(error: BaseException) -> bool:
    """Whether what ended a worker says nothing against the files that it held."""
    interrupted = not isinstance(error, Exception)
    said = getattr(getattr(error, "orig", error), "pgcode", None)
    return interrupted or isinstance(error, (DatabaseAwayError, RawStoreAwayError)) or said in BLAMELESS


FINISH = text(
    """
    WITH moved AS (
    UPDATE ops.files AS f
    SET status = r.status, error = r.error, attempts = 0, leased_by = NULL, leased_until = NULL,
        -- A slow file is loaded alone too. One that died when it was staged (it has more attempts) was well this time.
        deferred_at = CASE WHEN r.status = 'staged' AND f.attempts = 1 THEN f.deferred_at END,
        rows_read = coalesce(r.rows_read, f.rows_read), rows_rejected = coalesce(r.rows_rejected, f.rows_rejected),
        rows_inserted = r.rows_inserted, rows_updated = r.rows_updated,
        rows_unchanged = r.rows_unchanged, rows_superseded = r.rows_superseded,
        rule_counts = coalesce(r.rule_counts, f.rule_counts),
        keys_unique = coalesce(r.keys_unique, f.keys_unique),
        figures = CASE r.status WHEN 'loaded' THEN f.figures ELSE r.figures END,
        unexpected_columns = coalesce(r.unexpected_columns, f.unexpected_columns),
        missing_columns = coalesce(r.missing_columns, f.missing_columns),
        staged_at = CASE r.status WHEN 'staged' THEN now() ELSE f.staged_at END,
        loaded_at = CASE r.status WHEN 'loaded' THEN now() ELSE f.loaded_at END
    FROM jsonb_to_recordset(cast(:rows AS jsonb)) AS r(
        file_id bigint, status text, error text, rows_read bigint, rows_rejected bigint, rows_inserted bigint,
        rows_updated bigint, rows_unchanged bigint, rows_superseded bigint, rule_counts jsonb, keys_unique boolean,
        figures jsonb, unexpected_columns text[], missing_columns text[])
    WHERE f.file_id = r.file_id AND f.leased_by = :owner AND f.status = :status
    RETURNING f.*
    ), noted AS (
    INSERT INTO ops.audit (actor, action, dataset, subject, details)
    SELECT :actor, status, dataset, file_id,
        jsonb_build_object('rows_read', rows_read, 'rows_rejected', rows_rejected) || jsonb_strip_nulls(jsonb_build_object(
            'rows_inserted', rows_inserted, 'rows_updated', rows_updated, 'rows_unchanged', rows_unchanged,
            'rows_superseded', rows_superseded, 'queued_at', queued_at))
    FROM moved WHERE status <> 'staged'
    )
    SELECT count(*) FROM moved
    """
)


def move(conn: Connection, worker: Worker, status: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Move claimed files out of `status`, each into the status and with the counters that its row gives.

    Raises:
        LeaseLostError: another process took one of the files; the caller's transaction must roll back.
    """
    if not rows:
        return
    lose_when_frozen(conn, worker.lease_seconds)
    told = {"rows": json.dumps(rows), "owner": worker.owner, "status": status, "actor": worker.actor}
    moved = conn.execute(FINISH, told).scalar_one()
    for row in rows:
        # Before the commit: where that fails, an error follows.
        log.info("file %s", row["status"], extra={"file_id": row["file_id"], "run_id": worker.owner})
    if moved != len(rows):
        raise LeaseLostError(f"{len(rows) - moved} of {len(rows)} files were taken over by another process")


def defer(conn: Connection, worker: Worker, file_ids: Sequence[int]) -> None:
    """Give claimed files back, as if they had not been tried, to be taken alone after all that have arrived by now."""
    mine = and_(among(files.c.file_id, file_ids), files.c.leased_by == worker.owner)
    free = {"leased_by": None, "leased_until": None, "attempts": files.c.attempts - 1}
    conn.execute(update(files).where(mine).values(deferred_at=func.clock_timestamp(), **free))


def return_to_landed(conn: Connection, dataset: str, *criteria: Any) -> list[int]:
    """Queue files for another pass from their raw bytes, if those are kept; returns their ids.

    Their rows are locked in one order, so that of two who queue files at once neither is a deadlock's victim.
    """
    free = {"leased_by": None, "leased_until": None, "deferred_at": None}
    values = {"status": "landed", "attempts": 0, "error": None, "queued_at": func.now(), **free}
    chosen = and_(files.c.dataset == dataset, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None), *criteria)
    rows = select(files.c.file_id).where(chosen).order_by(files.c.file_id).with_for_update()
    ids = conn.scalars(rows).all()
    conn.execute(update(files).where(among(files.c.file_id, ids)).values(values))
    return list(ids)


def reprocess(conn: Connection, dataset: str, file_id: int | None = None) -> list[int]:
    """Queue files to be validated and loaded again by today's rules: one, or all of a dataset; landed ones stay landed.

    Returns:
        Ids of the versions that will be, or are being, loaded; none where no raw file is kept. For an arrival of unchanged
        bytes it is the version that they are.
    """
    lose_when_frozen(conn)
    versions = select(files.c.file_id).where(
        files.c.dataset == dataset, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    if file_id is not None:
        version = select(func.coalesce(files.c.same_as, files.c.file_id)).where(files.c.file_id == file_id)
        versions = versions.where(files.c.file_id == version.scalar_subquery())
    ids = list(conn.scalars(versions))
    # What is staged, and loaded by nobody now, was validated by the rules of its day.
    free = or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp())
    validated = or_(files.c.status.in_(REPROCESSED), and_(files.c.status == "staged", free))
    return_to_landed(conn, dataset, among(files.c.file_id, ids), validated)
    audit.record(conn, "re-drove", file_id, dataset=dataset, files=len(ids))
    failpoint("reprocess.before_commit")
    return ids


def is_deferred(dataset: str) -> ColumnElement[bool]:
    """Whether a file waits to be read alone, after the others."""
    return and_(files.c.dataset == dataset, files.c.status == "landed", files.c.deferred_at.is_not(None))


def pending(conn: Connection, dataset: str) -> int:
    """Files that wait for work and that nobody holds."""
    waiting = [_free(dataset, status, None).with_only_columns(files.c.file_id) for status in PENDING]
    return sum(conn.scalar(select(func.count()).select_from(w.subquery())) or 0 for w in waiting)


def last_arrival(conn: Connection, dataset: str) -> dt.datetime | None:
    """When the newest file of a dataset arrived; None if it has none."""
    return conn.scalar(
        select(files.c.arrived_at).where(files.c.dataset == dataset).order_by(files.c.file_id.desc()).limit(1)
    )


def accounting(row: Any) -> dict[str, Any]:
    """A ledger row as the figures that are shown of it."""
    shown = ("file_id", "name", "status", "rows_read", *COUNTERS, "error")
    return {name: getattr(row, name) for name in shown}
