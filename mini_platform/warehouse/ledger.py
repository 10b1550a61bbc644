"""The ledger `ops.files`: the only record of whether a file is new, pending or done.

Here: registering arrivals, claiming files under a lease, moving them from status to status. Every transition is made in
the transaction that writes the rows concerned, and only by the holder of the lease.
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
LOGGED = 10
"""Files that get the same status in one transaction and have a line each in the log; more of them have one line."""
PENDING = ("landed", "staged")
REPROCESSED = ("loaded", "refused", "failed")
IN_PRODUCTION = and_(files.c.loaded_at.is_not(None), files.c.status.in_(("loaded", *PENDING)))
"""Condition: rows of a file are in production. A file that is validated again counts until it is refused or fails."""
BATCH_BYTES = 256 * 2**20
"""A batch that has this many bytes gets no further file, so that one transaction and its retry stay short."""

AWAY = (OperationalError, DatabaseAwayError)
"""Errors raised when the database goes away in the middle of a statement, or cannot be reached at all."""
INFRASTRUCTURE_SQLSTATES = ("53100", "53300", "57P01", "57P03")
"""SQLSTATEs that no file causes: disk full, too many connections, stopped by an administrator, starting or stopping.
A connection that breaks without a message is not among them: a file may have crashed the server."""


Kind = Literal["fresh", "tried", "due", "alone"]
"""Kinds of pending files. Fresh: never tried. Tried: a process died while it worked on the file and on others. Due: deferred,
while no file waits that had arrived by then, and none whose rows are staged and would be published later. Alone: every file
that is not fresh."""
EVERYTHING: tuple[Kind, ...] = ("fresh", "alone")
OTHERS_FIRST: tuple[Kind, ...] = ("due", "fresh", "tried")
"""Order in which a run begins that leaves slow files to a later run."""
OTHERS_ONLY: tuple[Kind, ...] = ("fresh", "tried", "due")
"""Order in which such a run continues, so that no file waits for more than one slow file."""


class LeaseLostError(Exception):
    """The lease on a file expired and another process claimed the file: the work of this process is rolled back."""


@dataclass(frozen=True)
class Arrival:
    """Bytes that arrived under a name and are in the raw store already."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Worker:
    """A process that claims files: the owner of its leases, their duration, and the attempts after which a file fails.

    With `others_first` it does not stage deferred files while rows of other files are staged and not loaded: its next
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
        """Return the name of the worker in the audit trail."""
        return f"run {self.owner}"


def current_versions(conn: Connection, dataset: str, names: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the current version of each name that has one: the one that arrived last."""
    latest = (
        select(files)
        .distinct(files.c.name)
        .where(files.c.dataset == dataset, files.c.name == func.any(list(names)), files.c.same_as.is_(None))
        .order_by(files.c.name, files.c.version.desc())
    )
    return {row.name: row for row in conn.execute(latest)}


def register(conn: Connection, dataset: str, arrivals: Sequence[Arrival], channel: str) -> list[Row[Any]]:
    """Write arrivals into the ledger, each as a new version of its name if the bytes differ from the current one.

    Returns:
        The ledger rows in the order of the arrivals; one whose bytes are the current version has the status `unchanged`.
    """
    advisory_lock(conn, "register", dataset)
    rows: list[Row[Any]] = []
    while rest := arrivals[len(rows) :]:
        names = [arrival.name for arrival in rest]
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        # Stops before a name that repeats: whether it is a new version depends on its first row, which must be written before.
        distinct = next((i for i, name in enumerate(names) if first[name] != i), len(names))
        rows += _register(conn, dataset, rest[:distinct], channel)
    return rows


def _register(conn: Connection, dataset: str, arrivals: Sequence[Arrival], channel: str) -> Sequence[Row[Any]]:
    """Write arrivals of different names into the ledger, under the lock."""
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
    registered = conn.execute(insert(files).returning(files, sort_by_parameter_order=True), rows).all()
    landed = [row.file_id for row in registered if row.status == "landed"]
    audit.record_all(conn, "landed", landed, dataset=dataset, channel=channel)
    return registered


def _unleased(dataset: str, status: str, only: Sequence[int] | None) -> Select[Any]:
    """Select the pending files that nobody has leased."""
    statement = select(files).where(
        files.c.dataset == dataset,
        files.c.status == status,
        or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp()),
    )
    return statement if only is None else statement.where(among(files.c.file_id, only))


def _conditions(dataset: str, status: str, only: Sequence[int] | None) -> dict[Kind, ColumnElement[bool]]:
    """Return the condition that the pending files of each kind meet."""
    deferred = files.c.deferred_at.is_not(None)
    fresh = and_(files.c.attempts == 0, not_(deferred))
    earlier = _unleased(dataset, status, only).subquery()
    staged = _unleased(dataset, "staged", None).subquery()
    none_before = not_(exists().where(earlier.c.deferred_at.is_(None), earlier.c.arrived_at <= files.c.deferred_at))
    none_staged = not_(exists().where(staged.c.deferred_at.is_(None)))
    return {
        "fresh": fresh,
        "tried": and_(files.c.attempts > 0, not_(deferred)),
        "due": and_(deferred, none_before, none_staged),
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

    Files that were never tried are claimed in batches. A file whose processing died before, or that was deferred, is claimed
    alone, so that it neither delays other files nor makes them fail. One that dies alone is deferred too; after
    `max_attempts` it is marked failed.
    """
    conditions = _conditions(dataset, status, only)
    with worker.engine.begin() as conn:
        lose_when_frozen(conn, worker.lease_seconds)
        exhausted = _unleased(dataset, status, only).where(files.c.attempts >= worker.max_attempts)
        failed = conn.scalars(
            update(files)
            .where(files.c.file_id.in_(exhausted.with_only_columns(files.c.file_id).with_for_update(skip_locked=True)))
            .values(
                status="failed",
                error=func.concat("gave up: its process died ", files.c.attempts, " times, see the log of its run"),
            )
            .returning(files.c.file_id)
        )
        audit.record_all(conn, "failed", failed.all(), dataset=dataset, actor=worker.actor)
        claimed: Sequence[Row[Any]] = []
        for kind in order:
            # The head of the queue is read without a lock, and cut where the files before one have BATCH_BYTES: `running` sums
            # the bytes before each. Then its rows are locked; SKIP LOCKED leaves those to another worker that it is claiming
            # at this moment. The lease is checked once more, as one may have been committed since the queue was read: under
            # the lock Postgres evaluates this condition for the newest version of the row, but not the subquery.
            size = min(limit, worker.batch_files) if kind == "fresh" else 1
            queue = _unleased(dataset, status, only).where(conditions[kind]).subquery()
            running = func.sum(queue.c.bytes).over(order_by=(queue.c.attempts, queue.c.file_id)) - queue.c.bytes
            ranked = select(queue.c.file_id, running.label("before")).order_by(queue.c.attempts, queue.c.file_id)
            head = ranked.limit(size).subquery()
            claimable = (
                select(files.c.file_id)
                .where(files.c.file_id.in_(select(head.c.file_id).where(head.c.before < BATCH_BYTES)))
                .where(or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp()))
                .with_for_update(skip_locked=True)
            )
            # The attempt is counted before the work, so that a process that is killed has counted it. A file that was tried
            # before is deferred from now on: if this attempt dies too, it waits for all files that have arrived by now.
            claimed = conn.execute(
                update(files)
                .where(files.c.file_id.in_(claimable), files.c.status == status)
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
    """Keep the worker's leases alive while the body runs; release those that it still has at the end.

    A worker that is killed releases nothing: its leases expire. One that is interrupted, or that stops for a reason such as
    a full disk, takes its attempts back too, or such reasons would make files fail for good.
    """
    stopped = threading.Event()
    owned = files.c.leased_by == worker.owner
    held = and_(owned, files.c.status.in_(PENDING))
    # Waits for no lock: `move` locks the same rows, perhaps in another order, and the two could deadlock.
    unlocked = select(files.c.file_id).where(held).with_for_update(skip_locked=True)
    until = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, worker.lease_seconds)

    def renew() -> None:
        while not stopped.wait(worker.lease_seconds / 3):
            try:
                with worker.engine.begin() as conn:
                    lose_when_frozen(conn, worker.lease_seconds)
                    conn.execute(update(files).where(files.c.file_id.in_(unlocked)).values(leased_until=until))
            except AWAY:
                continue  # The worker's own statement reports it; once the database is back, the lease must be alive.

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    released: dict[str, Any] = {"leased_by": None, "leased_until": None}
    try:
        yield
    except BaseException as error:
        if _is_unrelated_to_files(error):
            released |= {"attempts": func.greatest(files.c.attempts - 1, 0), "deferred_at": None}
        raise
    finally:
        stopped.set()
        thread.join()
        try:
            with worker.engine.begin() as conn:
                conn.execute(update(files).where(held).values(released))
        except AWAY:
            pass  # The leases expire.


def _is_unrelated_to_files(error: BaseException) -> bool:
    """Return True if the error that ended a worker was not caused by the files that it had claimed."""
    interrupted = not isinstance(error, Exception)
    sqlstate = getattr(getattr(error, "orig", error), "pgcode", None)
    return (
        interrupted or isinstance(error, (DatabaseAwayError, RawStoreAwayError)) or sqlstate in INFRASTRUCTURE_SQLSTATES
    )


MOVE_FILES = text(
    """
    WITH moved AS (
    UPDATE ops.files AS f
    SET status = r.status, error = r.error, attempts = 0, leased_by = NULL, leased_until = NULL,
        -- A slow file stays deferred, to be loaded alone too; one with more attempts died in staging before, and succeeded now.
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
    """Move claimed files out of `status`, each to the status and with the counters of its row.

    Raises:
        LeaseLostError: another process claimed one of the files; the caller's transaction must roll back.
    """
    if not rows:
        return
    lose_when_frozen(conn, worker.lease_seconds)
    params = {"rows": json.dumps(rows), "owner": worker.owner, "status": status, "actor": worker.actor}
    moved = conn.execute(MOVE_FILES, params).scalar_one()
    _log_moved(rows, worker.owner)  # Before the commit: if that fails, an error follows.
    if moved != len(rows):
        raise LeaseLostError(f"{len(rows) - moved} of {len(rows)} files were taken over by another process")


def _log_moved(rows: Sequence[Mapping[str, Any]], run_id: str) -> None:
    """Log the new status of files: a line for each, or one for many, as a sender that is broken sends many a second."""
    ids: dict[str, list[int]] = {}
    for row in rows:
        ids.setdefault(row["status"], []).append(row["file_id"])
    for status, of_status in ids.items():
        if len(of_status) > LOGGED:
            extra = {"files": len(of_status), "first_file_id": min(of_status), "last_file_id": max(of_status)}
            log.info("files %s", status, extra=extra | {"run_id": run_id})
            continue
        for file_id in of_status:
            log.info("file %s", status, extra={"file_id": file_id, "run_id": run_id})


def defer(conn: Connection, worker: Worker, file_ids: Sequence[int]) -> None:
    """Release claimed files without counting the attempt, to be claimed alone after all files that have arrived by now."""
    claimed = and_(among(files.c.file_id, file_ids), files.c.leased_by == worker.owner)
    released = {"leased_by": None, "leased_until": None, "attempts": files.c.attempts - 1}
    conn.execute(update(files).where(claimed).values(deferred_at=func.clock_timestamp(), **released))


def return_to_landed(conn: Connection, dataset: str, *criteria: Any) -> list[int]:
    """Queue files to be read again from their raw bytes, if those are kept; return their ids.

    Their rows are locked in the order of ids, so that two processes that queue files at once cannot deadlock.
    """
    released = {"leased_by": None, "leased_until": None, "deferred_at": None}
    values = {"status": "landed", "attempts": 0, "error": None, "queued_at": func.now(), **released}
    selected = and_(files.c.dataset == dataset, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None), *criteria)
    rows = select(files.c.file_id).where(selected).order_by(files.c.file_id).with_for_update()
    ids = conn.scalars(rows).all()
    conn.execute(update(files).where(among(files.c.file_id, ids)).values(values))
    return list(ids)


def reprocess(conn: Connection, dataset: str, file_id: int | None = None) -> list[int]:
    """Queue files to be validated and loaded again by the current rules: one, or all of a dataset; landed ones stay landed.

    Returns:
        Ids of the versions that will be, or are being, loaded; none if no raw file is kept. For an arrival of unchanged
        bytes, the id of the version with these bytes.
    """
    lose_when_frozen(conn)
    versions = select(files.c.file_id).where(
        files.c.dataset == dataset, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    if file_id is not None:
        version = select(func.coalesce(files.c.same_as, files.c.file_id)).where(files.c.file_id == file_id)
        versions = versions.where(files.c.file_id == version.scalar_subquery())
    ids = list(conn.scalars(versions))
    # A staged file that is not being loaded now may have been validated by earlier rules.
    free = or_(files.c.leased_until.is_(None), files.c.leased_until < func.clock_timestamp())
    outdated = or_(files.c.status.in_(REPROCESSED), and_(files.c.status == "staged", free))
    return_to_landed(conn, dataset, among(files.c.file_id, ids), outdated)
    audit.record(conn, "re-drove", file_id, dataset=dataset, files=len(ids))
    failpoint("reprocess.before_commit")
    return ids


def is_deferred(dataset: str) -> ColumnElement[bool]:
    """Return the condition that a file of a dataset is deferred: it waits to be read alone, after the others."""
    return and_(files.c.dataset == dataset, files.c.status == "landed", files.c.deferred_at.is_not(None))


def pending(conn: Connection, dataset: str) -> int:
    """Return the number of pending files that nobody has leased."""
    statements = [_unleased(dataset, status, None).with_only_columns(files.c.file_id) for status in PENDING]
    return sum(conn.scalar(select(func.count()).select_from(statement.subquery())) or 0 for statement in statements)


def last_arrival(conn: Connection, dataset: str) -> dt.datetime | None:
    """Return the time at which the newest file of a dataset arrived; None if it has none."""
    return conn.scalar(
        select(files.c.arrived_at).where(files.c.dataset == dataset).order_by(files.c.file_id.desc()).limit(1)
    )


def accounting(row: Any) -> dict[str, Any]:
    """Return the values of a ledger row that are shown to people."""
    names = ("file_id", "name", "status", "rows_read", *COUNTERS, "error")
    return {name: getattr(row, name) for name in names}
