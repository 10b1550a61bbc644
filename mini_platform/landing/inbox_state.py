"""The state of remote inboxes: lease, position of the listing, errors, and time of the next visit.

Here: the rows of `ops.inboxes`. Not here: the steps of a visit (`inbox_work.py`).
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, not_, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.storage.remote import Inbox
from mini_platform.warehouse.tables import inbox_files, inboxes

HELD_SECONDS = 60.0
"""A visit that does not renew its lease for this long counts as dead, and another one begins."""
IDLE_SHARE = 4.0
"""The pause after a visit, in multiples of its duration: 100,000 names are not listed all the time."""
SECOND_LOOK = 1.5
"""Seconds after which an inbox with a file that may still grow is listed again."""
LONGEST_PAUSE = 600.0
"""An inbox that fails is visited again after pauses that double, up to this number of seconds."""


class VisitOvertakenError(Exception):
    """Another process has taken the lease over."""


def states(conn: Connection, requested: Sequence[Inbox]) -> Sequence[Row[Any]]:
    """Return the rows of these inboxes; those that were never visited have none."""
    is_requested = tuple_(inboxes.c.dataset, inboxes.c.inbox).in_([(inbox.dataset, inbox.name) for inbox in requested])
    return conn.execute(select(inboxes).where(is_requested).order_by(inboxes.c.dataset, inboxes.c.inbox)).all()


def due(conn: Connection, candidates: Sequence[Inbox]) -> list[Inbox]:
    """Return those of these inboxes of one dataset that are due for a visit."""
    if not candidates:
        return []
    now = func.clock_timestamp()
    is_waiting = or_(_pauses(now), and_(inboxes.c.held_by.is_not(None), inboxes.c.held_until > now))
    waiting = set(
        conn.execute(select(inboxes.c.inbox).where(inboxes.c.dataset == candidates[0].dataset, is_waiting)).scalars()
    )
    return [inbox for inbox in candidates if inbox.name not in waiting]


def _pauses(now: Any) -> ColumnElement[bool]:
    """Return the condition of an inbox that is not due; what is further ahead was planned before the clock was set back."""
    latest = now + func.make_interval(0, 0, 0, 0, 0, 0, 2 * LONGEST_PAUSE)
    return and_(inboxes.c.next_at > now, inboxes.c.next_at < latest)


def pause_after(failures: int, every: float) -> float:
    """Return the seconds until the next visit of an inbox after this many failures in a row.

    Randomized, so that not all processes retry a server at the same moment.
    """
    return min(every * 2.0 ** min(failures, 16), LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311


@dataclass
class Lease:
    """The lease on an inbox. Its end stores the result of the visit."""

    engine: Engine
    inbox: Inbox
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = 0.0
    renewed: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _row(self) -> ColumnElement[bool]:
        return and_(inboxes.c.dataset == self.inbox.dataset, inboxes.c.inbox == self.inbox.name)

    def acquire(self, *, at_once: bool) -> Row[Any] | None:
        """Acquire the lease and return the inbox's row; None if another process has it, or the inbox is not due.

        An inbox whose URL changed starts without state.
        """
        now, key = func.clock_timestamp(), {"dataset": self.inbox.dataset, "inbox": self.inbox.name}
        with self.engine.begin() as conn:
            statement = insert(inboxes).values(**key, url=self.inbox.url, position=b"").on_conflict_do_nothing()
            conn.execute(statement)
            free = or_(inboxes.c.held_by.is_(None), inboxes.c.held_until < now)
            conditions = [self._row, free] if at_once else [self._row, free, not_(_pauses(now))]
            values = {"held_by": self.holder, "held_until": self._held_until, "tried_at": now}
            row = conn.execute(update(inboxes).where(*conditions).values(values).returning(inboxes)).first()
            if row is not None and row.url != self.inbox.url:
                own_files = (inbox_files.c.dataset == self.inbox.dataset, inbox_files.c.inbox == self.inbox.name)
                conn.execute(delete(inbox_files).where(*own_files))
                reset = {
                    "url": self.inbox.url,
                    "position": b"",
                    "looked_at": None,
                    "failures": 0,
                    "failing_since": None,
                }
                row = conn.execute(update(inboxes).where(self._row).values(reset).returning(inboxes)).one()
        self.started = self.renewed = time.monotonic()
        return row

    @property
    def _held_until(self) -> Any:
        return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, HELD_SECONDS)

    def heartbeat(self) -> None:
        """Renew the lease if it is time.

        Raises:
            VisitOvertakenError: the lease has expired and was taken over, or the process is ending.
        """
        if not threading.main_thread().is_alive():
            raise VisitOvertakenError  # The process is ending: a long download must not delay it.
        with self.lock:
            if time.monotonic() - self.renewed > HELD_SECONDS / 6:
                with self.engine.begin() as conn:
                    self.renew(conn)

    def renew(self, conn: Connection, **values: Any) -> None:
        """Renew the lease in the caller's transaction, and store these values in the inbox's row.

        Raises:
            VisitOvertakenError: another process has taken the lease over.
        """
        statement = update(inboxes).where(self._row, inboxes.c.held_by == self.holder)
        if not conn.execute(statement.values(held_until=self._held_until, **values)).rowcount:
            raise VisitOvertakenError
        self.renewed = time.monotonic()

    def release(self, *, soon: bool) -> None:
        """Release the lease after a success; `soon` schedules the next visit in a moment."""
        idle = max(self.inbox.settings.every, IDLE_SHARE * (time.monotonic() - self.started))
        pause = SECOND_LOOK if soon else idle
        self._end(pause, last_error=None, failing_since=None, failures=0)

    def release_failed(self, row: Row[Any], reason: str) -> None:
        """Release the lease after an error, and schedule the next visit after a pause."""
        pause = pause_after(row.failures, self.inbox.settings.every)
        failing_since = func.coalesce(inboxes.c.failing_since, func.clock_timestamp())
        self._end(pause, last_error=reason, failing_since=failing_since, failures=inboxes.c.failures + 1)

    def _end(self, pause: float, **values: Any) -> None:
        next_at = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause)
        statement = update(inboxes).where(self._row, inboxes.c.held_by == self.holder)
        with self.engine.begin() as conn:
            conn.execute(statement.values(held_by=None, held_until=None, next_at=next_at, **values))
