"""Locks: what must not be done by two processes at once, and how long one that went silent may keep the others waiting."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

FROZEN_SECONDS = 30.0
"""A process that says nothing for so long in the middle of a transaction is taken for frozen, or cut off."""


def lose_when_frozen(conn: Connection, seconds: float = FROZEN_SECONDS) -> None:
    """Let the server end this transaction, and free its locks, once its process sends nothing for so long.

    Without it a process that is suspended, or whose network fails silently, would hold up its dataset for hours. A
    statement that runs long is no silence.
    """
    milliseconds = str(round(seconds * 1000))
    conn.execute(select(func.set_config("idle_in_transaction_session_timeout", milliseconds, True)))


def advisory_lock(conn: Connection, *names: str, frozen_seconds: float = FROZEN_SECONDS) -> None:
    """Wait for, and hold until the transaction ends, the lock of this name."""
    lose_when_frozen(conn, frozen_seconds)
    conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(":".join(names), 0))))
