"""When a row was first loaded, remembered while the row is gone and may come back.

A row that its newest file, validated again, does not contain any more is deleted, and the other files are queued: one may
hold what it was before, and it is the same row then. So is the row of somebody else that comes back where a person was
forgotten; only keys that others' rows have are remembered there. A row ends when every file that had arrived by then is
done, and none brought it: what comes later is first loaded then.

Datasets without such a column have no table for it, and nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, exists, func, not_, or_, select
from sqlalchemy.dialects.postgresql import insert

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.bulk import is_empty
from mini_platform.warehouse.tables import NOW, dataset_tables, files


def remember(conn: Connection, dataset: Dataset, rows: ColumnElement[bool]) -> None:
    """Remember it of rows of production that are about to be deleted, in the transaction that queues the other files."""
    tables = dataset_tables(dataset)
    if (gone := tables.gone) is None:
        return
    first = next(tables.production.c[column.name] for column in dataset.columns if column.system == "first_loaded")
    last_file = select(func.max(files.c.file_id)).where(files.c.dataset == dataset.name).scalar_subquery()
    found = select(*tables.production.primary_key.columns, first, last_file).where(rows)
    statement = insert(gone).from_select([c.name for c in gone.c], found)
    new = {name: statement.excluded[name] for name in ("_first_loaded", "_last_file")}
    conn.execute(statement.on_conflict_do_update(index_elements=list(dataset.key), set_=new))


def expire(conn: Connection, dataset: Dataset) -> None:
    """Forget it of rows that have ended: no file that may bring them back waits any more."""
    if (gone := dataset_tables(dataset).gone) is None or is_empty(conn, gone):
        return
    waits = or_(
        files.c.status.in_(("landed", "staged")),
        and_(files.c.status == "failed", files.c.loaded_at.is_not(None), files.c.raw_dropped_at.is_(None)),
    )
    waiting = select(1).where(files.c.dataset == dataset.name, waits, files.c.file_id <= gone.c._last_file)
    conn.execute(delete(gone).where(not_(exists(waiting))))


def with_moments(conn: Connection, dataset: Dataset, rows: Select[Any], moments: Sequence[str]) -> Select[Any]:
    """Rows that are new to production, with the columns that say when they were written: now, or when they first were."""
    gone: Table | None = dataset_tables(dataset).gone
    if gone is None or is_empty(conn, gone):
        return rows.add_columns(*(NOW.label(name) for name in moments))
    new = rows.subquery("new")
    first = {column.name for column in dataset.columns if column.system == "first_loaded"}
    known = func.coalesce(gone.c._first_loaded, NOW)
    written = ((known if name in first else NOW).label(name) for name in moments)
    same_key = and_(*(new.c[name] == gone.c[name] for name in dataset.key))
    return select(*new.c, *written).select_from(new.outerjoin(gone, same_key))
