"""Advisory locks: what must not be done by two processes at once."""

from __future__ import annotations

from sqlalchemy import Connection, func, select


def advisory_lock(conn: Connection, *names: str) -> None:
    """Wait for, and hold until the transaction ends, the lock of this name."""
    conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(":".join(names), 0))))
