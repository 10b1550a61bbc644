"""Changes: marks that show whether the rows of a dataset have changed since they were read.

A mark is written in the transaction that makes the change, under the lock that keeps others from the same change: rows under
the lock of the load, an aggregate under its own, tables under that of the schema. So no transaction waits for a mark.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from mini_platform.warehouse.tables import changes

ROWS, DECLARATION = "rows", "declaration"


def aggregate(name: str) -> str:
    """Return the name by which the marks of an aggregate are stored."""
    return f"aggregate:{name}"


def note(conn: Connection, dataset: str, what: str) -> None:
    """Record, in the caller's transaction, that rows, an aggregate or the declaration of a dataset change.

    Marks are in microseconds, as a counter would repeat once an older state of the database is restored.
    """
    microseconds = func.floor(func.extract("epoch", func.clock_timestamp()) * 1_000_000).cast(BigInteger)
    statement = insert(changes).values(dataset=dataset, what=what, mark=microseconds)
    next_mark = func.greatest(changes.c.mark + 1, statement.excluded.mark)
    conn.execute(statement.on_conflict_do_update(index_elements=["dataset", "what"], set_={"mark": next_mark}))


def state(conn: Connection, dataset: str | None = None) -> int | None:
    """Return a number that changes whenever rows or aggregates of a dataset, or of any, change; None before there were any."""
    statement = select(func.sum(changes.c.mark))
    total = conn.scalar(statement if dataset is None else statement.where(changes.c.dataset == dataset))
    return None if total is None else int(total)
