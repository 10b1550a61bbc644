"""Locks: keep two processes from doing the same work at once, and bound how long a frozen process holds up the others.

A transaction acquires the locks that it needs in this order, and locks rows and tables after them, so that no two deadlock:
`schema`, `sync`, `register`, `load`, then `aggregate` for each aggregate of a dataset in the order of declaration. A process
that computes an aggregate also has the locks of all aggregates that it reads, directly or not: rows that are deleted there
delete rows here (foreign keys). Marks of an aggregate in `ops.dirty_groups` are removed only under its lock. The locks
`incidents`, `frame` and those of the raw store are acquired alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import Dataset

FROZEN_SECONDS = 30.0
"""A process that sends nothing for this long in the middle of a transaction counts as frozen, or disconnected."""


def lose_when_frozen(conn: Connection, seconds: float = FROZEN_SECONDS) -> None:
    """Make the server end this transaction, and release its locks, once its process sends nothing for this long.

    Without it a process that is suspended, or whose network fails silently, would hold up its dataset for hours. The time
    that a statement runs does not count.
    """
    milliseconds = str(round(seconds * 1000))
    conn.execute(select(func.set_config("idle_in_transaction_session_timeout", milliseconds, True)))


def advisory_lock(conn: Connection, *names: str, frozen_seconds: float = FROZEN_SECONDS, wait: bool = True) -> bool:
    """Acquire the lock of this name, and hold it until the transaction ends.

    Args:
        conn: connection in its transaction.
        *names: parts of the name of the lock.
        frozen_seconds: see `lose_when_frozen`.
        wait: wait until others have released it.

    Returns:
        True if it is held now; always true with `wait`.
    """
    lose_when_frozen(conn, frozen_seconds)
    lock = func.pg_advisory_xact_lock if wait else func.pg_try_advisory_xact_lock
    return conn.scalar(select(lock(_key(*names)))) is not False


def lock_aggregates(conn: Connection, dataset: Dataset, *aggregates: Aggregate) -> None:
    """Acquire the locks of aggregates and of all that they read, in the order in which they are declared."""
    reading = {aggregate.name for aggregate in aggregates}
    for aggregate in reversed(dataset.aggregates):
        if aggregate.name in reading:
            reading.update(aggregate.reads)
    for aggregate in dataset.aggregates:
        if aggregate.name in reading:
            advisory_lock(conn, "aggregate", dataset.name, aggregate.name)


@contextmanager
def shared_lock(engine: Engine, *names: str) -> Iterator[None]:
    """Hold the lock of this name while the body runs, shared with others, on a connection of its own."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(select(func.pg_advisory_lock_shared(_key(*names))))
        try:
            yield
        finally:
            conn.execute(select(func.pg_advisory_unlock_shared(_key(*names))))


def _key(*names: str) -> ColumnElement[int]:
    return func.hashtextextended(":".join(names), 0)
