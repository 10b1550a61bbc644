"""Changes: marks by which whoever was given rows of a dataset is told whether they still are what they were.

A mark is written in the transaction that makes the change, under the lock that lets nobody else change the same: rows under
that of the load, an aggregate under its own, tables under that of the schema. So no mark is ever waited for.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from mini_platform.warehouse.tables import changes

ROWS, DECLARATION = "rows", "declaration"


def aggregate(name: str) -> str:
    """What changes where an aggregate is computed."""
    return f"aggregate:{name}"


def note(conn: Connection, dataset: str, what: str) -> None:
    """Write down, in the caller's transaction, that something of a dataset changes.

    Microseconds, as a count would come again once an older state of the database is restored.
    """
    clock = func.floor(func.extract("epoch", func.clock_timestamp()) * 1_000_000).cast(BigInteger)
    noted = insert(changes).values(dataset=dataset, what=what, mark=clock)
    later = func.greatest(changes.c.mark + 1, noted.excluded.mark)
    conn.execute(noted.on_conflict_do_update(index_elements=["dataset", "what"], set_={"mark": later}))


def state(conn: Connection, dataset: str | None = None) -> int | None:
    """What differs whenever rows or aggregates of a dataset, or of any, do; None before there were any."""
    chosen = select(func.sum(changes.c.mark))
    found = conn.scalar(chosen if dataset is None else chosen.where(changes.c.dataset == dataset))
    return None if found is None else int(found)
