"""A platform to break: its drop folder, its workers in separate processes, and the check of the results.

`CrashHarness.wrong()` asks the oracle for every row, and beyond it: that each version of a file was loaded exactly once, that
every row was written in the very transaction that told the ledger of it, that no lease, mark or missing raw file is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, text

from mini_platform import Dataset
from mini_platform.datasets import all_datasets
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import aggregates
from mini_platform.warehouse.connection import DatabaseAwayError
from mini_platform_tests.support import worker
from mini_platform_tests.support.oracle import File, Oracle, differences

LEASE_SECONDS = 1
"""Lease of workers that are killed, so that nothing waits long for their files."""
PATIENT = {"MINI_PLATFORM_LEASE_SECONDS": "20"}
"""Settings of workers that must survive: on a busy machine they may not renew a lease for more than a second."""
FINISH_SECONDS = 60.0

WATCH = """
CREATE SCHEMA watch;
CREATE TABLE watch.moves (
    file_id bigint, old text, new text, inserted bigint, at timestamptz DEFAULT now(), loaded_before timestamptz);
CREATE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO watch.moves (file_id, old, new, inserted, loaded_before)
            VALUES (NEW.file_id, OLD.status, NEW.status, NEW.rows_inserted, OLD.loaded_at);
        RETURN NULL;
    END $$;
CREATE TRIGGER note AFTER UPDATE ON ops.files FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION watch.note();
"""
"""SQL that records every committed transition of the ledger, with the time of its transaction."""

INVARIANTS = {
    "a file is loaded more or less often than it was queued": """
        SELECT file_id, count(*) FILTER (WHERE new = 'loaded') AS loads, count(*) FILTER (WHERE old = 'loaded') AS queued
        FROM watch.moves JOIN ops.files f USING (file_id) WHERE f.status = 'loaded' GROUP BY 1
        HAVING count(*) FILTER (WHERE new = 'loaded') <> 1 + count(*) FILTER (WHERE old = 'loaded')""",
    "rows were inserted more than once, or without being counted": """
        SELECT coalesce(sum(inserted), 0) AS counted, (SELECT count(*) FROM production.measurements) AS rows
        FROM watch.moves WHERE new = 'loaded'
        HAVING coalesce(sum(inserted), 0) <> (SELECT count(*) FROM production.measurements)""",
    "a row of production was not written by the transaction that loaded its file": """
        SELECT _file_id, _loaded_at, count(*) FROM production.measurements p WHERE NOT EXISTS (
            SELECT FROM watch.moves m WHERE m.file_id = p._file_id AND m.new = 'loaded' AND m.at = p._loaded_at)
        GROUP BY 1, 2""",
    "a quarantined row was not written by the transaction that loaded or refused its file": """
        SELECT _file_id, _quarantined_at, count(*) FROM quarantine.measurements q WHERE NOT EXISTS (
            SELECT FROM watch.moves m
            WHERE m.file_id = q._file_id AND m.new IN ('loaded', 'refused') AND m.at = q._quarantined_at)
        GROUP BY 1, 2""",
    "rows are not accounted for": """
        SELECT file_id FROM ops.files WHERE status = 'loaded' AND rows_read IS DISTINCT FROM
            rows_inserted + rows_updated + rows_unchanged + rows_superseded + rows_rejected""",
    "a lease is left": "SELECT file_id, leased_by, status FROM ops.files WHERE leased_by IS NOT NULL",
    "groups wait to be computed again": "SELECT consumer, group_key FROM ops.dirty_groups",
}


@dataclass
class Worker:
    """A worker's process, and its output."""

    process: Any
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # It was faster.
            os.kill(self.process.pid, number)

    def wait(self, seconds: float = FINISH_SECONDS) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still at work after {seconds} s: {self.output}"
        return int(self.process.exitcode)

    def wait_until_frozen(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait for the SIGSTOP of a fault point."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive:
            if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                return
            time.sleep(0.005)
        raise AssertionError(f"the worker never reached the point: {self.output}")


_parsed: dict[bytes, File] = {}


class Remembering(Oracle):
    """An oracle that parses equal bytes only once for all tests."""

    def _read(self, file: File) -> None:
        if file.data not in _parsed:
            super()._read(file)
            _parsed[file.data] = replace(file)
        known = _parsed[file.data]
        file.unreadable, file.rows_read = known.unreadable, known.rows_read
        file.rejected, file.valid = dict(known.rejected), dict(known.valid)


@dataclass
class CrashHarness:
    """A drop folder and a database of one test.

    Attributes:
        engine: on the database.
        home, data: the platform's folders.
        environment: settings of the workers.
        written: bytes by SHA-256 of everything that was ever in the folder.
    """

    engine: Engine
    home: Path
    data: Path
    environment: dict[str, str]
    written: dict[str, bytes] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    @property
    def dataset(self) -> Dataset:
        return all_datasets()["weather"]

    @property
    def inbox(self) -> Path:
        return self.data / "weather"

    @property
    def store(self) -> RawStore:
        return RawStore(self.home / "raw")

    def standing(self) -> dict[str, str]:
        """Return the SHA-256 by name of the files in the folder now."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.inbox.iterdir()}

    def watch(self) -> None:
        with self.engine.begin() as conn:
            conn.execute(text(WATCH))

    def record(self, data: bytes) -> bytes:
        """Record bytes that are, or were, in the folder; return them."""
        self.written[hashlib.sha256(data).hexdigest()] = data
        return data

    def drop(self, files: Mapping[str, bytes], age: float = 10) -> None:
        """Put files into the folder, each atomically, and with a time as if they had been there for a while."""
        for name, data in files.items():
            new = self.inbox / f".{name}.new"
            new.write_bytes(self.record(data))
            os.utime(new, (time.time() - age,) * 2)
            new.rename(self.inbox / name)

    def start(self, fault: str | None = None, **settings: str) -> Worker:
        """Start a worker; `fault` as in MINI_PLATFORM_FAULT."""
        environment = self.environment | settings | ({"MINI_PLATFORM_FAULT": fault} if fault else {})
        log = self.home.with_name(f"worker-{len(self.workers) + 1}.log")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([worker.__name__])
        process = context.Process(target=worker.main, args=(environment, log), daemon=True)
        process.start()
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def kill_at(self, fault: str) -> None:
        """Run a worker that is killed at a fault point; fail if it never reaches it."""
        code = self.start(fault).wait()
        assert code == -signal.SIGKILL, f"the fault {fault} never fired (exit code {code}): {self.workers[-1].output}"

    def finish(self) -> Worker:
        """Run a new worker until all remaining work is done; return it."""
        fresh = self.start(**PATIENT)
        assert fresh.wait() == 0, fresh.output
        return fresh

    def let_leases_run_out(self, seconds: float = 30) -> None:
        held = text("SELECT count(*) FROM ops.files WHERE leased_until > clock_timestamp()")
        end = time.monotonic() + seconds
        with self.engine.connect() as conn:
            while conn.scalar(held):
                assert time.monotonic() < end
                time.sleep(0.05)

    def when_up(self, statement: str = "SELECT 1", seconds: float = 30) -> None:
        """Run a statement as soon as the server answers."""
        end = time.monotonic() + seconds
        while True:
            try:
                with self.engine.begin() as conn:
                    conn.execute(text(statement))
            except DatabaseAwayError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        for started in self.workers:
            if started.alive:
                started.send(signal.SIGKILL)
                started.process.join()

    def wrong(self) -> list[str]:
        """Return everything that is wrong after all work is done, as sentences."""
        with self.engine.connect() as conn:
            return [*self._bytes(conn), *self._rows(conn), *self._invariants(conn), *self._raw_store(conn)]

    def _ledger(self, conn: Connection) -> list[Any]:
        return list(conn.execute(text("SELECT * FROM ops.files WHERE dataset = 'weather' ORDER BY file_id")))

    def _bytes(self, conn: Connection) -> list[str]:
        """Return differences of the ledger to the bytes that were in the folder, and to those that are in it now."""
        rows = self._ledger(conn)
        wrong = [f"{row.name}: bytes that never stood there" for row in rows if row.sha256 not in self.written]
        latest = {row.name: row.sha256 for row in rows}
        lacking = [name for name, sha256 in self.standing().items() if latest.get(name) != sha256]
        return wrong + [f"{name}: what stands there was not landed" for name in lacking]

    def _rows(self, conn: Connection) -> list[str]:
        oracle = Remembering()
        for row in self._ledger(conn):
            oracle.arrive(row.name, self.written.get(row.sha256, b""), row.file_id)
        return differences(conn, oracle)

    def _invariants(self, conn: Connection) -> list[str]:
        wrong = []
        for sentence, query in INVARIANTS.items():
            wrong += [f"{sentence}: {dict(row)}" for row in conn.execute(text(query)).mappings()]
        for aggregate in self.dataset.aggregates:
            items = aggregates.differences(conn, self.dataset, aggregate)
            wrong += [f"{aggregate.name} is not what production says: {item}" for item in items]
        return wrong

    def _raw_store(self, conn: Connection) -> list[str]:
        wrong = []
        for sha256 in {row.sha256 for row in self._ledger(conn)}:
            path = self.store.path(sha256)
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                wrong.append(f"the raw file {sha256} is missing or is not what its name says")
        return wrong
