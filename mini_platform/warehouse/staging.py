"""Staging: raw files -> every row, valid or not, as text with its verdict, in one COPY per batch of files.

A batch is one transaction: its rows and its ledger transitions commit together or not at all. What is staged is a pure
function of the declaration and the raw bytes, so it can be made again at will.
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
from mini_platform.warehouse.load import take_back
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import among, dataset_tables, files, sql_type
from mini_platform.warehouse.upsert import copy_in, materialized
from mini_platform.warehouse.validated_rows import PLATFORM_COLUMNS, Progress, RawFiles, Tally, ValidatedRows

QUEUE_BLOCKS = 4
"""Blocks that wait between the thread that reads and validates and the one that sends: bounds the memory."""

MANY_ROWS = 100_000
"""Rows of a refused file stay for the quality report until the next run; of more than this, loads till then would suffer."""


class Pipe:
    """File-like: what one thread writes as blocks of bytes, `COPY` reads in another."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(QUEUE_BLOCKS)
        self._rest = memoryview(b"")
        self._closed = threading.Event()
        self.failure: BaseException | None = None
        """What the writer raised: the driver turns it into an error of its own on its way through COPY."""

    def put(self, block: bytes | BaseException | None) -> None:
        """Hand over a block, an exception to be raised in the reader, or None at the end."""
        while not self._closed.is_set():
            try:
                return self._blocks.put(block, timeout=0.5)
            except queue.Full:
                continue
        raise BrokenPipeError

    def close(self) -> None:
        """Tell the writer that nobody reads any more."""
        self._closed.set()

    def read(self, size: int) -> bytes:
        """As a file's `read`: at most `size` bytes, none at the end."""
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
    """Stage the landed files of a dataset that nobody else works on.

    A file that turns out to be slow while others wait in its batch is deferred: it is taken alone, after them.

    Args:
        worker: who holds the leases; the caller keeps them alive by `ledger.lease`.
        dataset: whose files.
        raw: where the raw files are and how they are read.
        limit: files to take at most.
        only: file ids to choose from; None means all.
        progress: called as bytes and rows are read.

    Returns:
        Ids of the files that were taken, whatever became of them; not of those that were deferred.
    """
    done: list[int] = []
    purged = False
    order = ledger.OTHERS_FIRST if worker.others_first else ledger.EVERYTHING
    while len(done) < limit and (batch := ledger.claim(worker, dataset.name, "landed", limit - len(done), only, order)):
        now = not purged and purge(worker, dataset)
        purged = purged or now
        # What was staged of a file that is validated again, as it was queued since then, would be there twice.
        if not now and (before := [row.file_id for row in batch if row.rows_read is not None]):
            with worker.engine.begin() as conn:
                _forget(conn, dataset, before)
        done += _stage_or_isolate(worker, dataset, batch, raw, progress)
        order = ledger.OTHERS_ONLY if worker.others_first else ledger.EVERYTHING
    return done


def _stage_or_isolate(
    worker: ledger.Worker,
    dataset: Dataset,
    batch: Sequence[Row[Any]],
    raw: RawFiles,
    progress: Progress | None,
) -> list[int]:
    """Stage a batch; where it fails for no reason that we know, stage its files one by one to find the one at fault.

    Returns:
        Ids of the files that were taken.
    """
    try:
        return _stage_batch(worker, dataset, batch, raw, progress)
    except (*ledger.AWAY, psycopg2.OperationalError, ledger.LeaseLostError, RawStoreAwayError):
        raise  # Not the file's fault: it stays landed. COPY raises the driver's own errors.
    except Exception as error:  # The one boundary where a file that breaks the code must not stop the others.
        if len(batch) > 1:
            return [i for row in batch for i in _stage_or_isolate(worker, dataset, [row], raw, None)]
        # The database's errors quote the row.
        reason = f"could not be processed: {type(error).__name__}" + (
            "" if dataset.is_personal and not isinstance(error, DeclarationError) else f": {str(error)[:500]}"
        )
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
        aside = [tally.file_id for tally in tallies.values() if tally.deferred]
        taken = {file_id: tally for file_id, tally in tallies.items() if not tally.deferred}
        if dataset.duplicates == "reject":
            _reject_doubled(conn, dataset, taken)
        results = [tally.verdict(dataset) for tally in taken.values()]
        unreadable = [tally.file_id for tally in tallies.values() if tally.refused]
        over_limit = [v["file_id"] for v in results if v["status"] == "refused" and v["file_id"] not in unreadable]
        refused = [*over_limit, *unreadable]
        if refused:  # Before a row is locked that who loads, or forgets, waits for.
            advisory_lock(conn, "load", dataset.name, frozen_seconds=worker.lease_seconds)
        quarantine.write(conn, dataset, refused, over_limit)
        large = [file_id for file_id in over_limit if tallies[file_id].rows_read > MANY_ROWS]
        _forget(conn, dataset, [*unreadable, *aside, *large])
        if loaded_before := [row.file_id for row in batch if row.file_id in refused and row.loaded_at]:
            take_back(conn, dataset, loaded_before)
        ledger.move(conn, worker, "landed", results)
        ledger.defer(conn, worker, aside)
        failpoint("stage.before_commit")
    failpoint("stage.after_commit")
    if large or aside:
        purge(worker, dataset)
    return list(taken)


def _reject_doubled(conn: Connection, dataset: Dataset, tallies: Mapping[int, Tally]) -> None:
    """Reject the valid rows whose key another valid row of the same file has, in two passes over the rows at most.

    None where the hashes of its keys tell them all apart, as those of a file that comes alone do nearly always.
    """
    suspects = [tally for tally in tallies.values() if not tally.keys_unique()]
    if not suspects:
        return
    staging = dataset_tables(dataset).staging
    rule = next(rule for rule in dataset.rules if rule.name == KEY_ONCE)
    mine = and_(among(staging.c._file_id, [tally.file_id for tally in suspects]), staging.c._rules.is_(None))
    key = {c.name: staging.c[c.name].cast(sql_type(c)) for c in dataset.columns if c.name in dataset.key}
    same = {"_file_id": staging.c._file_id, **key}
    labelled = (value.label(name) for name, value in same.items())
    conn.execute(text("SET LOCAL work_mem = '256MB'"))
    keys = select(*labelled).where(mine).group_by(*same.values()).having(func.count() > 1)
    doubled = materialized(conn, "doubled", keys)
    conn.execute(text("ANALYZE doubled"))
    rejected = (
        update(staging)
        .where(mine, *(value == doubled.c[name] for name, value in same.items()))
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
    """COPY blocks of CSV into the staging table; they are made in a thread of their own, so that both cores work."""
    columns = (*PLATFORM_COLUMNS, *(c.name for c in dataset.staged_columns))
    pipe = Pipe()

    def produce() -> None:
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
    thread = threading.Thread(target=produce, name="stage", daemon=True)
    thread.start()
    try:
        copy_in(conn, statement, pipe)
    except psycopg2.Error as error:
        raise pipe.failure or error from error
    finally:
        pipe.close()
        thread.join()


def _forget(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> None:
    """Delete what is staged of these files."""
    staging = dataset_tables(dataset).staging
    if file_ids:
        conn.execute(delete(staging).where(among(staging.c._file_id, file_ids)))


def purge(worker: ledger.Worker, dataset: Dataset) -> bool:
    """Empty the staging table of what no file waits for any more; False, and later, while somebody works on it."""
    staging = dataset_tables(dataset).staging
    with worker.engine.begin() as conn:
        lose_when_frozen(conn, worker.lease_seconds)
        name = conn.dialect.identifier_preparer.format_table(staging)
        try:
            conn.execute(text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT"))
        except OperationalError:  # Somebody reads or writes it: what is old goes another time.
            conn.rollback()
            return False
        waiting = select(files.c.file_id).where(files.c.dataset == dataset.name, files.c.status == "staged")
        if conn.scalar(select(exists(waiting))):
            conn.execute(delete(staging).where(staging.c._file_id.not_in(waiting)))
        else:
            conn.execute(text(f"TRUNCATE {name}"))
        first_loaded.expire(conn, dataset)
    return True
