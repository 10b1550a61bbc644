"""How remote inboxes are: who visits each, where its listing stopped, what is wrong with it and when it is asked again.

Here: the rows of `ops.inboxes`. Not here: what a visit does (`inbox_work.py`).
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.storage.remote import Inbox
from mini_platform.warehouse.tables import inbox_files, inboxes

HELD_SECONDS = 60.0
"""A visit that gives no sign of life for so long is taken for dead, and another one begins."""
IDLE_SHARE = 4.0
"""An inbox is left alone for so many times as long as a visit took: a listing of 100,000 names is not made all the time."""
SECOND_LOOK = 1.5
"""Seconds after which a file that may still grow is looked at again."""
LONGEST_PAUSE = 600.0
"""An inbox that fails is asked again after pauses that double, up to this."""


class VisitOvertakenError(Exception):
    """Another process took the visit over."""


def states(conn: Connection, chosen: Sequence[Inbox]) -> Sequence[Row[Any]]:
    """The rows of these inboxes, of those that were ever visited."""
    mine = tuple_(inboxes.c.dataset, inboxes.c.inbox).in_([(inbox.dataset, inbox.name) for inbox in chosen])
    return conn.execute(select(inboxes).where(mine).order_by(inboxes.c.dataset, inboxes.c.inbox)).all()


def due(conn: Connection, chosen: Sequence[Inbox]) -> list[Inbox]:
    """Those of these inboxes of a dataset that are to be visited now."""
    if not chosen:
        return []
    now = func.clock_timestamp()
    waits = or_(inboxes.c.next_at > now, and_(inboxes.c.held_by.is_not(None), inboxes.c.held_until > now))
    later = set(conn.execute(select(inboxes.c.inbox).where(inboxes.c.dataset == chosen[0].dataset, waits)).scalars())
    return [inbox for inbox in chosen if inbox.name not in later]


def pause_after(failures: int, every: float) -> float:
    """Seconds for which an inbox is left alone that failed so many times before.

    Never quite the same, so that a server that comes back is not asked by everybody at once.
    """
    return min(every * 2.0 ** min(failures, 16), LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311


@dataclass
class Hold:
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
            VisitOvertakenError: it came too late, or the process ends.
        """
        if not threading.main_thread().is_alive():
            raise VisitOvertakenError  # The process is about to end: a long download is not to keep it.
        with self.lock:
            if time.monotonic() - self.renewed > HELD_SECONDS / 6:
                with self.engine.begin() as conn:
                    self.note(conn)

    def note(self, conn: Connection, **values: Any) -> None:
        """Renew the lease in the caller's transaction, and note something."""
        mine = update(inboxes).where(self._row, inboxes.c.held_by == self.me)
        if not conn.execute(mine.values(held_until=self._until, **values)).rowcount:
            raise VisitOvertakenError
        self.renewed = time.monotonic()

    def done(self, *, soon: bool) -> None:
        """Give the lease back: all is well."""
        idle = max(self.inbox.settings.every, IDLE_SHARE * (time.monotonic() - self.taken))
        pause = SECOND_LOOK if soon else idle
        self._end(pause, last_error=None, failing_since=None, failures=0)

    def failed(self, row: Row[Any], why: str) -> None:
        """Give the lease back, and leave the inbox alone for a while."""
        pause = pause_after(row.failures, self.inbox.settings.every)
        since = func.coalesce(inboxes.c.failing_since, func.clock_timestamp())
        self._end(pause, last_error=why, failing_since=since, failures=inboxes.c.failures + 1)

    def _end(self, pause: float, **values: Any) -> None:
        next_at = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause)
        mine = update(inboxes).where(self._row, inboxes.c.held_by == self.me)
        with self.engine.begin() as conn:
            conn.execute(mine.values(held_by=None, held_until=None, next_at=next_at, **values))
