"""First-loaded times of deleted rows, stored while a row may come back.

A row that its newest file, validated again, does not contain any more is deleted, and the other files are queued: one may
have an earlier version of the row, and it is the same row then. This also applies to the row of another person that comes
back after a person was forgotten; only keys that rows of others have are stored there. A row ends when every file that had
arrived by then is done and none brought it: if it arrives later, it is first loaded then.

Datasets without such a column have no table for these times, and nothing is done for them.
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
    """Store the times of rows of production that are about to be deleted, in the transaction that queues the other files."""
    tables = dataset_tables(dataset)
    if (gone := tables.gone) is None:
        return
    first = next(tables.production.c[column.name] for column in dataset.columns if column.system == "first_loaded")
    last_file = select(func.max(files.c.file_id)).where(files.c.dataset == dataset.name).scalar_subquery()
    deleted = select(*tables.production.primary_key.columns, first, last_file).where(rows)
    statement = insert(gone).from_select([c.name for c in gone.c], deleted)
    new = {name: statement.excluded[name] for name in ("_first_loaded", "_last_file")}
    conn.execute(statement.on_conflict_do_update(index_elements=list(dataset.key), set_=new))


def expire(conn: Connection, dataset: Dataset) -> None:
    """Delete the times of rows that have ended: no file that may bring them back is pending."""
    if (gone := dataset_tables(dataset).gone) is None or is_empty(conn, gone):
        return
    pending = or_(
        files.c.status.in_(("landed", "staged")),
        and_(files.c.status == "failed", files.c.loaded_at.is_not(None), files.c.raw_dropped_at.is_(None)),
    )
    pending_files = select(1).where(files.c.dataset == dataset.name, pending, files.c.file_id <= gone.c._last_file)
    conn.execute(delete(gone).where(not_(exists(pending_files))))


def with_timestamps(conn: Connection, dataset: Dataset, rows: Select[Any], timestamps: Sequence[str]) -> Select[Any]:
    """Add the columns of the time of writing to rows that are new to production: now, or their stored first-loaded time."""
    gone: Table | None = dataset_tables(dataset).gone
    if gone is None or is_empty(conn, gone):
        return rows.add_columns(*(NOW.label(name) for name in timestamps))
    new = rows.subquery("new")
    first = {column.name for column in dataset.columns if column.system == "first_loaded"}
    first_written = func.coalesce(gone.c._first_loaded, NOW)
    written = ((first_written if name in first else NOW).label(name) for name in timestamps)
    same_key = and_(*(new.c[name] == gone.c[name] for name in dataset.key))
    return select(*new.c, *written).select_from(new.outerjoin(gone, same_key))
