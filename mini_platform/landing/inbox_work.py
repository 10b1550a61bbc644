"""The steps of a visit to a remote inbox: list its files, land new ones, tidy those that the ledger is finished with.

Here: the three steps. Not here: protocols (`remote.py`), the statements of a listing (`listing.py`), leases and schedule
(`inbox_state.py`).
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from sqlalchemy import Connection, Engine, Row, delete, func, update

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.landing import listing
from mini_platform.landing.folder import THREADS
from mini_platform.landing.inbox_state import Lease, VisitOvertakenError
from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.storage.errors import (
    ChangedError,
    GoneError,
    InboxError,
    NoRoomError,
    ObjectError,
    RawStoreAwayError,
)
from mini_platform.storage.remote import ARCHIVE_FOLDERS, Blocks, Inbox, Remote, RemoteObject
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import ledger, quarantine
from mini_platform.warehouse.tables import inbox_files

VISIT_SECONDS = 30.0
"""A visit starts nothing new after this time; the next one continues."""
VISIT_PAGES = 200
"""Maximum number of pages that one visit lists."""
LAND_FILES, LAND_BYTES = 500, 256 * 2**20
"""Limits of one transaction; a single larger file is landed alone."""
MOST_REJECTS = 100_000
"""Maximum number of rejects in the file that is written beside a refused one."""
REJECTS = ("line", "record", "column", "value", "rule", "reason")
_LATER = ObjectError("the time of the visit was over")


@dataclass
class Visit:
    """The result of a visit.

    Attributes:
        inbox: name of the inbox.
        error: why the visit failed, as a sentence; None if it did not.
        file_ids: ledger ids of the files that were landed.
        deferred: sentences about files that could not be read or tidied.
        has_more: True if there is more to do at once, or, for a file that may still grow, in a moment.
    """

    inbox: str
    error: str | None = None
    file_ids: list[int] = field(default_factory=list)
    deferred: list[str] = field(default_factory=list)
    has_more: bool = False


@dataclass
class Work:
    """The three steps of a visit."""

    engine: Engine
    dataset: Dataset
    inbox: Inbox
    store: RawStore
    remote: Remote
    lease: Lease
    result: Visit
    max_bytes: int
    broken: bool = False
    end: float = field(default_factory=lambda: time.monotonic() + VISIT_SECONDS)

    @property
    def _is_over(self) -> bool:
        """Return True if nothing new may begin: the time is over, or the inbox has failed."""
        return self.broken or time.monotonic() >= self.end

    def list_files(self, after: bytes) -> None:
        """List the inbox from where the last visit stopped."""
        for number, (page, up_to) in enumerate(self.remote.pages(after), start=1):
            with self.engine.begin() as conn:
                span = (after, up_to)
                whole = self.remote.appears_whole
                listing.compare(conn, self.dataset, self.inbox, page, span, whole=whole, max_bytes=self.max_bytes)
                self.lease.renew(conn, position=up_to, **({} if up_to else {"looked_at": func.clock_timestamp()}))
            after = up_to
            if up_to and (number >= VISIT_PAGES or self._is_over):
                self.result.has_more = True
                return
        with self.engine.connect() as conn:
            self.result.has_more = listing.growing(conn, self.inbox)

    def land(self) -> None:
        """Copy new files into the raw store and register them in the ledger."""
        self.store.sweep()
        while not self._is_over:
            with self.engine.connect() as conn:
                rows = listing.waiting(conn, self.inbox, LAND_FILES)
            if not rows:
                return
            self._land(_first_bytes(rows))
        self.result.has_more = True

    def _land(self, rows: Sequence[Row[Any]]) -> None:
        # Files are stored in parallel; an error of one file (`ObjectError`) defers only that file. An error of the whole inbox
        # or of the raw store is raised after the commit, so that files that were stored before it are not read again. The
        # lease is renewed in the same transaction: if another process has it by now, that raises and nothing is landed twice.
        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = list(pool.map(self._store, rows))
        arrived = [
            (row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, ledger.Arrival)
        ]
        with self.engine.begin() as conn:
            landed = ledger.register(conn, self.dataset.name, [arrival for _, arrival in arrived], self.inbox.channel)
            for (row, _), entry in zip(arrived, landed, strict=True):
                landed_version = {"signature": row.seen, "file_id": entry.same_as or entry.file_id}
                reset = {"skip_reason": None, "retry_at": None, "tries": 0}
                conn.execute(update(inbox_files).where(listing.is_row_of(row)).values(**landed_version, **reset))
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, ObjectError):
                    self._handle_error(conn, row, outcome)
            self.lease.renew(conn)
            failpoint("inbox.before_commit")
        failpoint("inbox.after_commit")
        self.result.file_ids += [entry.file_id for entry in landed]
        for outcome in outcomes:
            if isinstance(outcome, (InboxError, NoRoomError, RawStoreAwayError, VisitOvertakenError)):
                raise outcome

    def _store(self, row: Row[Any]) -> ledger.Arrival | Exception | None:
        """Store the bytes of a file in the raw store; return its arrival, or the error, or None if the time is over."""
        if self._is_over:
            return None
        stream = Blocks(self.remote, RemoteObject(row.key, row.seen, row.bytes), self.lease.heartbeat)
        try:
            stored = self.store.put(cast("BinaryIO", stream))
        except (ObjectError, InboxError, NoRoomError, RawStoreAwayError, VisitOvertakenError) as error:
            self.broken |= not isinstance(error, ObjectError)
            return error  # Raised later: files of the batch that were stored are landed first.
        failpoint("inbox.raw_file_kept")
        return ledger.Arrival(listing.name_in_ledger(self.inbox, row.key), *stored)

    def _handle_error(self, conn: Connection, row: Row[Any], error: ObjectError) -> None:
        if isinstance(error, GoneError):
            conn.execute(delete(inbox_files).where(listing.is_row_of(row)))
        elif isinstance(error, ChangedError):
            conn.execute(update(inbox_files).where(listing.is_row_of(row)).values(still=False, seen=""))
            self.result.has_more = True
        else:
            listing.defer(conn, row, str(error))
            self.result.deferred.append(f"{listing.name_in_ledger(self.inbox, row.key)}: {error}")

    def tidy(self) -> None:
        """Move or delete loaded and refused files, if the inbox is configured to."""
        if self.inbox.settings.after == "keep":
            return
        while not self._is_over:
            with self.engine.connect() as conn:
                rows = listing.to_tidy(conn, self.inbox, LAND_FILES)
            if not rows:
                return
            with ThreadPoolExecutor(THREADS) as pool:
                errors = list(pool.map(self._tidy, rows))
            with self.engine.begin() as conn:
                for row, error in zip(rows, errors, strict=True):
                    if error is _LATER:
                        continue
                    if error is None or isinstance(error, GoneError):
                        conn.execute(delete(inbox_files).where(listing.is_row_of(row)))
                    elif isinstance(error, ChangedError):
                        self._handle_error(conn, row, error)
                    elif isinstance(error, ObjectError):
                        listing.defer(conn, row, f"it is {row.status} and could not be moved or deleted: {error}")
                        self.result.deferred.append(f"{listing.name_in_ledger(self.inbox, row.key)}: {error}")
                self.lease.renew(conn)
            for error in errors:
                if isinstance(error, (InboxError, VisitOvertakenError)):
                    raise error

    def _tidy(self, row: Row[Any]) -> Exception | None:
        """Move or delete one file and return the error, if any. Can be repeated safely."""
        file = RemoteObject(row.key, row.signature, row.bytes)
        if self._is_over:
            return _LATER
        try:
            self.lease.heartbeat()
            if self.inbox.settings.after == "delete":
                self.remote.remove(file)
                return None
            place = f"{ARCHIVE_FOLDERS[row.status == 'refused']}/{row.file_id}"
            if row.status == "refused":
                with tempfile.TemporaryFile() as rejects:
                    self._write_rejects(rejects, row)
                    self.remote.write(cast("BinaryIO", rejects), f"{place}/rejects.csv")
                failpoint("inbox.rejects_written")
            self.remote.move(file, f"{place}/{os.fsdecode(row.key)}")
        except (ObjectError, InboxError, VisitOvertakenError) as error:
            self.broken |= not isinstance(error, ObjectError)
            return error
        failpoint("inbox.tidied")
        return None

    def _write_rejects(self, target: Any, row: Row[Any]) -> None:
        """Write why a file was refused: a line for each broken rule of its first rejected rows."""
        wrapped = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(wrapped, lineterminator="\n")
        names = [name for name in REJECTS if name != "record" or self.dataset.may_share_lines]
        writer.writerow(names)
        writer.writerow([*([""] * (len(names) - 1)), row.error])
        with self.engine.connect() as conn:
            for reject in quarantine.rejects(conn, self.dataset, file_id=row.file_id, limit=MOST_REJECTS):
                writer.writerow(escape_formula(reject[name]) for name in names)
        wrapped.detach()
        target.seek(0)


def _first_bytes(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Return the first files that fit into one transaction."""
    total = 0
    for count, row in enumerate(rows):
        total += row.bytes
        if count and total > LAND_BYTES:
            return rows[:count]
    return rows
