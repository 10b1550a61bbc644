"""What a visit to a remote inbox does: lists what stands there, lands what is new, tidies what the ledger has done with.

Here: the three parts. Not here: protocols (`remote.py`), the statements of a listing (`listing.py`), who visits when
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
from mini_platform.landing.inbox_state import Hold, VisitOvertakenError
from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.storage.errors import (
    ChangedError,
    GoneError,
    InboxError,
    NoRoomError,
    ObjectError,
    RawStoreAwayError,
)
from mini_platform.storage.remote import ASIDE, Blocks, Inbox, Remote, RemoteObject
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import ledger, quarantine
from mini_platform.warehouse.tables import inbox_files

VISIT_SECONDS = 30.0
"""A visit begins nothing new after so long; the next one goes on."""
VISIT_PAGES = 200
"""Pages that one visit lists at most."""
LAND_FILES, LAND_BYTES = 500, 256 * 2**20
"""Landed in one transaction at most, or one file that is larger."""
MOST_REJECTS = 100_000
"""Rows of the rejects that are put beside a refused file."""
REJECTS = ("line", "record", "column", "value", "rule", "reason")
_LATER = ObjectError("there was no time for it")


@dataclass
class Visit:
    """What came of a visit.

    Attributes:
        inbox: its name.
        error: why it failed, as a sentence; None if it did not.
        file_ids: of what was landed, ids in the ledger.
        put_off: sentences about files that could not be had or tidied.
        goes_on: whether there is more to do at once, or, for a file that may still grow, in a moment.
    """

    inbox: str
    error: str | None = None
    file_ids: list[int] = field(default_factory=list)
    put_off: list[str] = field(default_factory=list)
    goes_on: bool = False


@dataclass
class Work:
    """The three parts of a visit."""

    engine: Engine
    dataset: Dataset
    inbox: Inbox
    store: RawStore
    remote: Remote
    hold: Hold
    done: Visit
    max_bytes: int
    broken: bool = False
    end: float = field(default_factory=lambda: time.monotonic() + VISIT_SECONDS)

    @property
    def _late(self) -> bool:
        """Whether nothing new is to be begun: the time is over, or the inbox cannot be used any more."""
        return self.broken or time.monotonic() >= self.end

    def look(self, after: bytes) -> None:
        """List the inbox from where the last visit stopped."""
        for number, (page, up_to) in enumerate(self.remote.pages(after), start=1):
            with self.engine.begin() as conn:
                span = (after, up_to)
                whole = self.remote.appears_whole
                listing.compare(conn, self.dataset, self.inbox, page, span, whole=whole, max_bytes=self.max_bytes)
                self.hold.note(conn, position=up_to, **({} if up_to else {"looked_at": func.clock_timestamp()}))
            after = up_to
            if up_to and (number >= VISIT_PAGES or self._late):
                self.done.goes_on = True
                return
        with self.engine.connect() as conn:
            self.done.goes_on = listing.growing(conn, self.inbox)

    def land(self) -> None:
        """Copy new files into the raw store and write them into the ledger."""
        self.store.sweep()
        while not self._late:
            with self.engine.connect() as conn:
                rows = listing.waiting(conn, self.inbox, LAND_FILES)
            if not rows:
                return
            self._land(_first_bytes(rows))
        self.done.goes_on = True

    def _land(self, rows: Sequence[Row[Any]]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            taken = list(pool.map(self._take, rows))
        arrived = [(row, got) for row, got in zip(rows, taken, strict=True) if isinstance(got, ledger.Arrival)]
        with self.engine.begin() as conn:
            landed = ledger.register(conn, self.dataset.name, [arrival for _, arrival in arrived], self.inbox.channel)
            for (row, _), entry in zip(arrived, landed, strict=True):
                known = {"signature": row.seen, "file_id": entry.same_as or entry.file_id}
                again = {"skip_reason": None, "retry_at": None, "tries": 0}
                conn.execute(update(inbox_files).where(listing.same(row)).values(**known, **again))
            for row, got in zip(rows, taken, strict=True):
                if isinstance(got, ObjectError):
                    self._not_taken(conn, row, got)
            self.hold.note(conn)
            failpoint("inbox.before_commit")
        failpoint("inbox.after_commit")
        self.done.file_ids += [entry.file_id for entry in landed]
        for got in taken:
            if isinstance(got, (InboxError, NoRoomError, RawStoreAwayError, VisitOvertakenError)):
                raise got

    def _take(self, row: Row[Any]) -> ledger.Arrival | Exception | None:
        """Bytes of a file into the raw store; or why not; None: there was no time for it."""
        if self._late:
            return None
        stream = Blocks(self.remote, RemoteObject(row.key, row.seen, row.bytes), self.hold.alive)
        try:
            kept = self.store.put(cast("BinaryIO", stream))
        except (ObjectError, InboxError, NoRoomError, RawStoreAwayError, VisitOvertakenError) as error:
            self.broken |= not isinstance(error, ObjectError)
            return error  # Those of the batch that were had are landed first.
        failpoint("inbox.raw_file_kept")
        return ledger.Arrival(listing.name_in_ledger(self.inbox, row.key), *kept)

    def _not_taken(self, conn: Connection, row: Row[Any], why: ObjectError) -> None:
        if isinstance(why, GoneError):
            conn.execute(delete(inbox_files).where(listing.same(row)))
        elif isinstance(why, ChangedError):
            conn.execute(update(inbox_files).where(listing.same(row)).values(still=False, seen=""))
            self.done.goes_on = True
        else:
            listing.put_off(conn, row, str(why))
            self.done.put_off.append(f"{listing.name_in_ledger(self.inbox, row.key)}: {why}")

    def tidy(self) -> None:
        """Move or remove what is loaded or refused, if the inbox says so."""
        if self.inbox.settings.after == "keep":
            return
        while not self._late:
            with self.engine.connect() as conn:
                rows = listing.to_tidy(conn, self.inbox, LAND_FILES)
            if not rows:
                return
            with ThreadPoolExecutor(THREADS) as pool:
                said = list(pool.map(self._tidy, rows))
            with self.engine.begin() as conn:
                for row, why in zip(rows, said, strict=True):
                    if why is _LATER:
                        continue
                    if why is None or isinstance(why, GoneError):
                        conn.execute(delete(inbox_files).where(listing.same(row)))
                    elif isinstance(why, ChangedError):
                        self._not_taken(conn, row, why)
                    elif isinstance(why, ObjectError):
                        listing.put_off(conn, row, f"it is {row.status} and could not be put away: {why}")
                        self.done.put_off.append(f"{listing.name_in_ledger(self.inbox, row.key)}: {why}")
                self.hold.note(conn)
            for why in said:
                if isinstance(why, (InboxError, VisitOvertakenError)):
                    raise why

    def _tidy(self, row: Row[Any]) -> Exception | None:
        """Put a file away; repeating it does no harm. Returns what prevented it."""
        file = RemoteObject(row.key, row.signature, row.bytes)
        if self._late:
            return _LATER
        try:
            self.hold.alive()
            if self.inbox.settings.after == "delete":
                self.remote.remove(file)
                return None
            place = f"{ASIDE[row.status == 'refused']}/{row.file_id}"
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
        """Why a file was refused, a line for each broken rule of its first rejected rows."""
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
    """As many as are landed together."""
    total = 0
    for count, row in enumerate(rows):
        total += row.bytes
        if count and total > LAND_BYTES:
            return rows[:count]
    return rows
