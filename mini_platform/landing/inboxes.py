"""Visits to remote inboxes: each lists what stands there, lands what is new, and tidies what the ledger has done with.

A visit is bounded in requests and time, and goes on where the last one stopped: its state is in `ops.inboxes` and
`ops.inbox_files`. It is made in a thread of its own, by one process at a time (under a lease), so that an inbox that is slow
or dead delays neither the drop folder nor another inbox. What goes wrong with it is in `ops.inboxes`, as a sentence.

Not here: protocols (`remote.py`), the statements of a listing (`listing.py`).
"""

from __future__ import annotations

import csv
import io
import os
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.dataset import Dataset
from mini_platform.faultpoints import reach
from mini_platform.landing import listing
from mini_platform.landing.folder import THREADS
from mini_platform.landing.remote import (
    ASIDE,
    Blocks,
    ChangedError,
    GoneError,
    Inbox,
    InboxError,
    Listed,
    ObjectError,
    Remote,
    connect,
)
from mini_platform.landing.store import NoRoomError, RawStore, RawStoreAwayError
from mini_platform.spreadsheets import harmless
from mini_platform.warehouse import ledger, quarantine
from mini_platform.warehouse.tables import inbox_files, inboxes

VISIT_SECONDS = 30.0
"""A visit begins nothing new after so long; the next one goes on."""
VISIT_PAGES = 200
"""Pages that one visit lists at most."""
LAND_FILES, LAND_BYTES = 500, 256 * 2**20
"""Landed in one transaction at most, or one file that is larger."""
HELD_SECONDS = 60.0
"""A visit that gives no sign of life for so long is taken for dead, and another one begins."""
IDLE_SHARE = 4.0
"""An inbox is left alone for so many times as long as a visit took: a listing of 100,000 names is not made all the time."""
SECOND_LOOK = 1.5
"""Seconds after which a file that may still grow is looked at again."""
LONGEST_PAUSE = 600.0
"""An inbox that fails is asked again after pauses that double, up to this."""
MOST_REJECTS = 100_000
"""Rows of the rejects that are put beside a refused file."""
REJECTS = ("line", "column", "value", "rule", "reason")


class OvertakenError(Exception):
    """Another process took the visit over."""


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


def due(conn: Connection, chosen: Sequence[Inbox]) -> list[Inbox]:
    """Those of these inboxes of a dataset that are to be visited now."""
    if not chosen:
        return []
    now = func.clock_timestamp()
    waits = or_(inboxes.c.next_at > now, and_(inboxes.c.held_by.is_not(None), inboxes.c.held_until > now))
    later = set(conn.execute(select(inboxes.c.inbox).where(inboxes.c.dataset == chosen[0].dataset, waits)).scalars())
    return [inbox for inbox in chosen if inbox.name not in later]


def failing(conn: Connection, dataset: str, chosen: Sequence[Inbox]) -> Sequence[Row[Any]]:
    """The rows of those inboxes that cannot be used."""
    mine = (inboxes.c.dataset == dataset, inboxes.c.inbox.in_([inbox.name for inbox in chosen]))
    return conn.execute(select(inboxes).where(*mine, inboxes.c.last_error.is_not(None))).all()


def visit(
    engine: Engine,
    dataset: Dataset,
    inbox: Inbox,
    store: RawStore,
    *,
    max_bytes: int,
    at_once: bool = False,
) -> Visit | None:
    """Visit an inbox, unless another process does, or it is too early.

    What goes wrong with the inbox is in the answer and in `ops.inboxes`; what goes wrong with the database propagates.

    Args:
        engine: on the platform's database.
        dataset: whose inbox.
        inbox: to be visited.
        store: of raw files.
        max_bytes: a larger file is left alone.
        at_once: whether it is too early or not.

    Returns:
        What came of it; None: there was none.
    """
    hold = _Hold(engine, inbox)
    row = hold.take(at_once=at_once)
    if row is None:
        return None
    done = Visit(inbox.name)
    try:
        with closing(connect(inbox)) as remote:
            work = _Work(engine, dataset, inbox, store, remote, hold, done, max_bytes)
            work.look(row.position)
            work.land()
            work.tidy()
    except OvertakenError:
        return None
    except (InboxError, ObjectError) as error:
        hold.failed(row, said := _sentence(inbox, error))
        done.error = said
    except NoRoomError as error:
        hold.failed(row, said := f"{str(error.strerror).capitalize()}.")
        done.error = said
    except RawStoreAwayError as error:
        hold.failed(row, said := str(error))
        done.error = said
    except ledger.AWAY:
        raise  # The lease runs out by itself.
    except Exception as error:
        hold.failed(row, f"The visit broke off: {type(error).__name__}; the log of the sensor has more.")
        raise
    else:
        hold.done(soon=done.goes_on)
    return done


def _sentence(inbox: Inbox, error: Exception) -> str:
    """A listing has no file that could be at fault: what a server says of one is about the folder."""
    return str(error) if isinstance(error, InboxError) else f"{inbox.url} cannot be listed: {error}."


@dataclass
class _Hold:
    """The lease on an inbox, and what is noted when it ends."""

    engine: Engine
    inbox: Inbox
    me: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken: float = 0.0
    renewed: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _row(self) -> ColumnElement[bool]:
        return and_(inboxes.c.dataset == self.inbox.dataset, inboxes.c.inbox == self.inbox.name)

    def take(self, *, at_once: bool) -> Row[Any] | None:
        """Take the lease; an inbox that was moved elsewhere is a new one."""
        now, key = func.clock_timestamp(), {"dataset": self.inbox.dataset, "inbox": self.inbox.name}
        with self.engine.begin() as conn:
            made = insert(inboxes).values(**key, url=self.inbox.url, position=b"").on_conflict_do_nothing()
            conn.execute(made)
            free = or_(inboxes.c.held_by.is_(None), inboxes.c.held_until < now)
            chosen = [self._row, free] if at_once else [self._row, free, inboxes.c.next_at <= now]
            held = {"held_by": self.me, "held_until": self._until, "tried_at": now}
            row = conn.execute(update(inboxes).where(*chosen).values(held).returning(inboxes)).first()
            if row is not None and row.url != self.inbox.url:
                mine = (inbox_files.c.dataset == self.inbox.dataset, inbox_files.c.inbox == self.inbox.name)
                conn.execute(delete(inbox_files).where(*mine))
                anew = {"url": self.inbox.url, "position": b"", "looked_at": None, "failures": 0, "failing_since": None}
                row = conn.execute(update(inboxes).where(self._row).values(anew).returning(inboxes)).one()
        self.taken = self.renewed = time.monotonic()
        return row

    @property
    def _until(self) -> Any:
        return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, HELD_SECONDS)

    def alive(self) -> None:
        """Give a sign of life now and then.

        Raises:
            OvertakenError: it came too late, or the process ends.
        """
        if not threading.main_thread().is_alive():
            raise OvertakenError  # The process is about to end: a long download is not to keep it.
        with self.lock:
            if time.monotonic() - self.renewed > HELD_SECONDS / 6:
                with self.engine.begin() as conn:
                    self.note(conn)

    def note(self, conn: Connection, **values: Any) -> None:
        """Renew the lease in the caller's transaction, and note something."""
        mine = update(inboxes).where(self._row, inboxes.c.held_by == self.me)
        if not conn.execute(mine.values(held_until=self._until, **values)).rowcount:
            raise OvertakenError
        self.renewed = time.monotonic()

    def done(self, *, soon: bool) -> None:
        """Give the lease back: all is well."""
        idle = max(self.inbox.settings.every, IDLE_SHARE * (time.monotonic() - self.taken))
        pause = SECOND_LOOK if soon else idle
        self._end(pause, last_error=None, failing_since=None, failures=0)

    def failed(self, row: Row[Any], why: str) -> None:
        """Give the lease back, and leave the inbox alone for a while."""
        pause = min(self.inbox.settings.every * 2 ** min(row.failures, 16), LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311
        since = func.coalesce(inboxes.c.failing_since, func.clock_timestamp())
        self._end(pause, last_error=why, failing_since=since, failures=inboxes.c.failures + 1)

    def _end(self, pause: float, **values: Any) -> None:
        next_at = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause)
        mine = update(inboxes).where(self._row, inboxes.c.held_by == self.me)
        with self.engine.begin() as conn:
            conn.execute(mine.values(held_by=None, held_until=None, next_at=next_at, **values))


_LATER = ObjectError("there was no time for it")


@dataclass
class _Work:
    """The three parts of a visit."""

    engine: Engine
    dataset: Dataset
    inbox: Inbox
    store: RawStore
    remote: Remote
    hold: _Hold
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
            landed = ledger.register(conn, self.dataset.name, [arrival for _, arrival in arrived], self.inbox.door)
            for (row, _), entry in zip(arrived, landed, strict=True):
                known = {"signature": row.seen, "file_id": entry.same_as or entry.file_id}
                again = {"left_alone": None, "retry_at": None, "tries": 0}
                conn.execute(update(inbox_files).where(listing.same(row)).values(**known, **again))
            for row, got in zip(rows, taken, strict=True):
                if isinstance(got, ObjectError):
                    self._not_taken(conn, row, got)
            self.hold.note(conn)
            reach("inbox.before_commit")
        reach("inbox.after_commit")
        self.done.file_ids += [entry.file_id for entry in landed]
        for got in taken:
            if isinstance(got, (InboxError, NoRoomError, RawStoreAwayError, OvertakenError)):
                raise got

    def _take(self, row: Row[Any]) -> ledger.Arrival | Exception | None:
        """Bytes of a file into the raw store; or why not; None: there was no time for it."""
        if self._late:
            return None
        stream = Blocks(self.remote, Listed(row.key, row.seen, row.bytes), self.hold.alive)
        try:
            kept = self.store.put(cast("BinaryIO", stream))
        except (ObjectError, InboxError, NoRoomError, RawStoreAwayError, OvertakenError) as error:
            self.broken |= not isinstance(error, ObjectError)
            return error  # Those of the batch that were had are landed first.
        reach("inbox.raw_file_kept")
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
                if isinstance(why, (InboxError, OvertakenError)):
                    raise why

    def _tidy(self, row: Row[Any]) -> Exception | None:
        """Put a file away; repeating it does no harm. Returns what prevented it."""
        file = Listed(row.key, row.signature, row.bytes)
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
            self.remote.move(file, f"{place}/{os.fsdecode(row.key)}")
        except (ObjectError, InboxError, OvertakenError) as error:
            self.broken |= not isinstance(error, ObjectError)
            return error
        reach("inbox.tidied")
        return None

    def _write_rejects(self, target: Any, row: Row[Any]) -> None:
        """Why a file was refused, a line for each broken rule of its first rejected rows."""
        wrapped = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(wrapped, lineterminator="\n")
        writer.writerow(REJECTS)
        writer.writerow(["", "", "", "", row.error])
        with self.engine.connect() as conn:
            for reject in quarantine.rejects(conn, self.dataset, file_id=row.file_id, limit=MOST_REJECTS):
                writer.writerow(harmless(reject[name]) for name in REJECTS)
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


def visit_all(visits: Sequence[Callable[[], Visit | None]], seconds: float = 60.0) -> list[Visit]:
    """Visit inboxes side by side until each has nothing new, at most for so long: what somebody asks for who waits for it."""
    end = time.monotonic() + seconds

    def repeatedly(once: Callable[[], Visit | None]) -> Visit | None:
        done = whole = once()
        while done is not None and whole is not None and done.goes_on and time.monotonic() < end:
            time.sleep(SECOND_LOOK)
            done = once()
            if done is not None:
                whole.file_ids += done.file_ids
                whole.put_off += done.put_off
                whole.error, whole.goes_on = done.error, done.goes_on
        return whole

    if not visits:
        return []
    with ThreadPoolExecutor(len(visits)) as pool:
        return [done for done in pool.map(repeatedly, visits) if done is not None]
