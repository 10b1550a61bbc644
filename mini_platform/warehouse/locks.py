"""Locks: what must not be done by two processes at once, and how long one that went silent may keep the others waiting.

A transaction takes the locks that it needs in this order, and rows and tables after them, so that no two wait for each other:
`schema`, `sync`, `register`, `load`, then `aggregate` by aggregate of a dataset as they are declared. Whoever computes an
aggregate has the locks of all that it reads, however indirectly, too: what is deleted there takes rows here with it (foreign
keys). Marks of an aggregate in `ops.dirty_groups` are taken by who has its lock. `incidents` and those of the raw store are
taken alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import Dataset

FROZEN_SECONDS = 30.0
"""A process that says nothing for so long in the middle of a transaction is taken for frozen, or cut off."""


def lose_when_frozen(conn: Connection, seconds: float = FROZEN_SECONDS) -> None:
    """Let the server end this transaction, and free its locks, once its process sends nothing for so long.

    Without it a process that is suspended, or whose network fails silently, would hold up its dataset for hours. A
    statement that runs long is no silence.
    """
    milliseconds = str(round(seconds * 1000))
    conn.execute(select(func.set_config("idle_in_transaction_session_timeout", milliseconds, True)))


def advisory_lock(conn: Connection, *names: str, frozen_seconds: float = FROZEN_SECONDS, wait: bool = True) -> bool:
    """Get the lock of this name, and hold it until the transaction ends.

    Args:
        conn: in its transaction.
        *names: the lock's name, in parts.
        frozen_seconds: see `lose_when_frozen`.
        wait: until others let go of it.

    Returns:
        Whether it is held now; always true where it was waited for.
    """
    lose_when_frozen(conn, frozen_seconds)
    lock = func.pg_advisory_xact_lock if wait else func.pg_try_advisory_xact_lock
    return conn.scalar(select(lock(_key(*names)))) is not False


def lock_aggregates(conn: Connection, dataset: Dataset, *aggregates: Aggregate) -> None:
    """Get the locks of aggregates and of all that they read, in the order in which they are declared."""
    reading = {aggregate.name for aggregate in aggregates}
    for aggregate in reversed(dataset.aggregates):
        if aggregate.name in reading:
            reading.update(aggregate.reads)
    for aggregate in dataset.aggregates:
        if aggregate.name in reading:
            advisory_lock(conn, "aggregate", dataset.name, aggregate.name)


@contextmanager
def shared_lock(engine: Engine, *names: str) -> Iterator[None]:
    """Hold the lock of this name beside others who share it, for as long as it takes, by a connection of its own."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(select(func.pg_advisory_lock_shared(_key(*names))))
        try:
            yield
        finally:
            conn.execute(select(func.pg_advisory_unlock_shared(_key(*names))))


def _key(*names: str) -> ColumnElement[int]:
    return func.hashtextextended(":".join(names), 0)
