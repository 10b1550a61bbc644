"""Staging: raw files -> every row, valid or not, as text with the rules it breaks, in one COPY per batch of files.

A batch is one transaction: its rows and its ledger transitions commit together or not at all. Staged rows are a pure
function of the declaration and the raw bytes, so they can be made again at any time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2 import sql
from sqlalchemy import Connection, Row, and_, delete, exists, func, select, text, update
from sqlalchemy.exc import OperationalError

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.rules import KEY_ONCE
from mini_platform.storage.errors import RawStoreAwayError
from mini_platform.warehouse import first_loaded, ledger, quarantine
from mini_platform.warehouse.load import withdraw_rows
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import among, dataset_tables, files, sql_type
from mini_platform.warehouse.upsert import copy_in, materialized
from mini_platform.warehouse.validated_rows import PLATFORM_COLUMNS, Progress, RawFiles, Tally, ValidatedRows

QUEUE_BLOCKS = 4
"""Limit of blocks between the thread that reads and validates and the one that sends: bounds the memory."""

MANY_ROWS = 100_000
"""Rows of a refused file stay for the quality report until the next run, unless they are more: they would slow loads down."""


class Pipe:
    """A file-like object: one thread writes blocks of bytes, and `COPY` reads them in another."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(QUEUE_BLOCKS)
        self._rest = memoryview(b"")
        self._closed = threading.Event()
        self.failure: BaseException | None = None
        """Exception that the writer raised: the driver turns it into an error of its own on its way through COPY."""

    def put(self, block: bytes | BaseException | None) -> None:
        """Send a block, an exception to be raised in the reader, or None at the end."""
        while not self._closed.is_set():
            try:
                return self._blocks.put(block, timeout=0.5)
            except queue.Full:
                continue
        raise BrokenPipeError

    def close(self) -> None:
        """Make further writes fail, as nobody reads any more."""
        self._closed.set()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end, as `read` of a file does."""
        if not self._rest:
            block = self._blocks.get()
            if isinstance(block, BaseException):
                self.failure = block
                raise block
            if block is None:
                return b""
            self._rest = memoryview(block)
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def stage(
    worker: ledger.Worker,
    dataset: Dataset,
    raw: RawFiles,
    *,
    limit: int,
    only: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[int]:
    """Stage the landed files of a dataset that no other process works on.

    A file that turns out to be slow while others wait in its batch is deferred: it is staged alone, after them.

    Args:
        worker: owner of the leases; the caller keeps them alive by `ledger.lease`.
        dataset: dataset of the files.
        raw: location of the raw files, and how they are read.
        limit: largest number of files to stage.
        only: ids of the files to choose from; None means all.
        progress: called as bytes and rows are read.

    Returns:
        Ids of the files that were processed, whatever their status is now; without those that were deferred.
    """
    processed: list[int] = []
    purged = False
    order = ledger.OTHERS_FIRST if worker.others_first else ledger.EVERYTHING
    while len(processed) < limit and (
        batch := ledger.claim(worker, dataset.name, "landed", limit - len(processed), only, order)
    ):
        purged_now = not purged and purge(worker, dataset)
        purged = purged or purged_now
        # Rows that an earlier run staged of a file which was queued again since then would be staged twice.
        if not purged_now and (staged_before := [row.file_id for row in batch if row.rows_read is not None]):
            with worker.engine.begin() as conn:
                _delete_staged(conn, dataset, staged_before)
        processed += _stage_or_isolate(worker, dataset, batch, raw, progress)
        order = ledger.OTHERS_ONLY if worker.others_first else ledger.EVERYTHING
    return processed


def _stage_or_isolate(
    worker: ledger.Worker,
    dataset: Dataset,
    batch: Sequence[Row[Any]],
    raw: RawFiles,
    progress: Progress | None,
) -> list[int]:
    """Stage a batch; if it fails for an unknown reason, stage its files one by one to find the one at fault.

    Returns:
        Ids of the files that were processed.
    """
    try:
        return _stage_batch(worker, dataset, batch, raw, progress)
    except (*ledger.AWAY, psycopg2.OperationalError, ledger.LeaseLostError, RawStoreAwayError):
        raise  # Not caused by the file: it stays landed. COPY raises the driver's own errors.
    except Exception as error:  # The only boundary at which a file that breaks the code must not stop the others.
        if len(batch) > 1:
            return [i for row in batch for i in _stage_or_isolate(worker, dataset, [row], raw, None)]
        cause = getattr(error, "orig", error)  # The driver's error, whose message quotes no row, as others may.
        is_open = not dataset.is_personal or isinstance(cause, (DeclarationError, psycopg2.Error))
        reason = f"could not be processed: {type(cause).__name__}{f': {str(cause)[:500]}' if is_open else ''}"
        if isinstance(error, FileNotFoundError):
            reason = f"its raw file is missing: {error.filename}"
        with worker.engine.begin() as conn:
            ledger.move(conn, worker, "landed", [{"file_id": batch[0].file_id, "status": "failed", "error": reason}])
        return [batch[0].file_id]


def _stage_batch(
    worker: ledger.Worker,
    dataset: Dataset,
    batch: Sequence[Row[Any]],
    raw: RawFiles,
    progress: Progress | None,
) -> list[int]:
    tallies = {
        row.file_id: Tally(row.file_id, row.name, row.channel, raw.path(row.sha256), row.rows_erased or 0)
        for row in batch
    }
    rows = ValidatedRows(dataset, tallies, raw, progress)
    with worker.engine.begin() as conn:
        _copy(conn, dataset, rows.as_csv())
        deferred = [tally.file_id for tally in tallies.values() if tally.deferred]
        completed = {file_id: tally for file_id, tally in tallies.items() if not tally.deferred}
        if dataset.duplicates == "reject":
            _reject_duplicates(conn, dataset, completed)
        results = [tally.ledger_row(dataset) for tally in completed.values()]
        unreadable = [tally.file_id for tally in tallies.values() if tally.refused]
        over_limit = [v["file_id"] for v in results if v["status"] == "refused" and v["file_id"] not in unreadable]
        refused = [*over_limit, *unreadable]
        if refused:  # Before any row is locked that a load, or `forget`, waits for.
            advisory_lock(conn, "load", dataset.name, frozen_seconds=worker.lease_seconds)
        quarantine.write(conn, dataset, refused, over_limit)
        large = [file_id for file_id in over_limit if tallies[file_id].rows_read > MANY_ROWS]
        _delete_staged(conn, dataset, [*unreadable, *deferred, *large])
        if loaded_before := [row.file_id for row in batch if row.file_id in refused and row.loaded_at]:
            withdraw_rows(conn, dataset, loaded_before)
        ledger.move(conn, worker, "landed", results)
        ledger.defer(conn, worker, deferred)
        failpoint("stage.before_commit")
    failpoint("stage.after_commit")
    if large or deferred:
        purge(worker, dataset)
    return list(completed)


def _reject_duplicates(conn: Connection, dataset: Dataset, tallies: Mapping[int, Tally]) -> None:
    """Reject the valid rows whose key another valid row of the same file has, in two passes over the rows at most.

    Files whose keys all have different hashes are skipped, as nearly always those that are alone in a batch.
    """
    suspects = [tally for tally in tallies.values() if not tally.keys_unique()]
    if not suspects:
        return
    staging = dataset_tables(dataset).staging
    rule = next(rule for rule in dataset.rules if rule.name == KEY_ONCE)
    valid = and_(among(staging.c._file_id, [tally.file_id for tally in suspects]), staging.c._rules.is_(None))
    key = {c.name: staging.c[c.name].cast(sql_type(c)) for c in dataset.columns if c.name in dataset.key}
    group = {"_file_id": staging.c._file_id, **key}
    labels = (value.label(name) for name, value in group.items())
    conn.execute(text("SET LOCAL work_mem = '256MB'"))
    keys = select(*labels).where(valid).group_by(*group.values()).having(func.count() > 1)
    duplicates = materialized(conn, "doubled", keys)
    conn.execute(text("ANALYZE doubled"))
    rejected = (
        update(staging)
        .where(valid, *(value == duplicates.c[name] for name, value in group.items()))
        .values(_rules=[rule.name], _reasons=[rule.message])
        .returning(staging.c._file_id)
        .cte()
    )
    for file_id, count in conn.execute(select(rejected.c._file_id, func.count()).group_by(rejected.c._file_id)):
        tallies[file_id].rows_rejected += count
        tallies[file_id].rule_counts[rule.name] += count
    for tally in suspects:
        tally.unique = tally.rows_rejected < tally.rows_read


def _copy(conn: Connection, dataset: Dataset, blocks: Iterator[bytes]) -> None:
    """COPY blocks of CSV into the staging table; a thread of its own produces them, so that both cores work."""
    columns = (*PLATFORM_COLUMNS, *(c.name for c in (*dataset.staged_columns, *dataset.adopted_columns)))
    pipe = Pipe()

    def write() -> None:
        try:
            with closing(blocks):  # type: ignore[type-var]
                for block in blocks:
                    pipe.put(block)
                    failpoint("stage.block_sent")
            pipe.put(None)
        except BrokenPipeError:
            return
        except BaseException as error:  # Raised again in the thread that reads the pipe.
            pipe.put(error)

    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier("staging", dataset.table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    thread = threading.Thread(target=write, name="stage", daemon=True)
    thread.start()
    try:
        copy_in(conn, statement, pipe)
    except psycopg2.Error as error:
        raise pipe.failure or error from error
    finally:
        pipe.close()
        thread.join()


def _delete_staged(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> None:
    """Delete the staged rows of these files."""
    staging = dataset_tables(dataset).staging
    if file_ids:
        conn.execute(delete(staging).where(among(staging.c._file_id, file_ids)))


def purge(worker: ledger.Worker, dataset: Dataset) -> bool:
    """Delete staged rows that no file waits for; return False, and delete none, while another process uses the table."""
    staging = dataset_tables(dataset).staging
    with worker.engine.begin() as conn:
        lose_when_frozen(conn, worker.lease_seconds)
        name = conn.dialect.identifier_preparer.format_table(staging)
        try:
            conn.execute(text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT"))
        except OperationalError:  # In use: old rows are deleted by a later call.
            conn.rollback()
            return False
        waiting = select(files.c.file_id).where(files.c.dataset == dataset.name, files.c.status == "staged")
        if conn.scalar(select(exists(waiting))):
            conn.execute(delete(staging).where(staging.c._file_id.not_in(waiting)))
        else:
            conn.execute(text(f"TRUNCATE {name}"))
        first_loaded.expire(conn, dataset)
    return True
