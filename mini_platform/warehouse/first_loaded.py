"""First-loaded times and numbers of rows, also of deleted rows, for which they are stored while a row may come back.

A row that its newest file, validated again, does not contain any more is deleted, and the other files are queued: one may
have an earlier version of the row, and it is the same row then. This also applies to the row of another person that comes
back after a person was forgotten; only keys that rows of others have are stored there. A row ends when every file that had
arrived by then is done and none brought it: if it arrives later, it is first loaded then.

Datasets without such a column have no table for these values, and nothing is done for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
)
from sqlalchemy import Column as TableColumn
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.bulk import is_empty
from mini_platform.warehouse.tables import NOW, among, dataset_tables, files


def remember(conn: Connection, dataset: Dataset, rows: ColumnElement[bool]) -> None:
    """Store times and numbers of rows that are about to be deleted from production, when other files are queued for them."""
    tables = dataset_tables(dataset)
    if (gone := tables.gone) is None:
        return
    lasting = {f"_{c.system}": tables.production.c[c.name] for c in reversed(dataset.columns) if c.is_lasting}
    names = [column.name for column in gone.c if column.name in lasting]
    last_file = select(func.max(files.c.file_id)).where(files.c.dataset == dataset.name).scalar_subquery()
    values = [lasting[name] for name in names]
    deleted = select(*tables.production.primary_key.columns, *values, last_file).where(rows)
    statement = insert(gone).from_select([c.name for c in gone.c], deleted)
    new = {name: statement.excluded[name] for name in (*names, "_last_file")}
    conn.execute(statement.on_conflict_do_update(index_elements=list(dataset.key), set_=new))


def expire(conn: Connection, dataset: Dataset) -> None:
    """Delete the times and numbers of rows that have ended: no file that may bring them back is pending."""
    if (gone := dataset_tables(dataset).gone) is None or is_empty(conn, gone):
        return
    pending = or_(
        files.c.status.in_(("landed", "staged")),
        and_(files.c.status == "failed", files.c.loaded_at.is_not(None), files.c.raw_dropped_at.is_(None)),
    )
    pending_files = select(1).where(files.c.dataset == dataset.name, pending, files.c.file_id <= gone.c._last_file)
    conn.execute(delete(gone).where(not_(exists(pending_files))))


def with_written_columns(conn: Connection, dataset: Dataset, rows: Select[Any]) -> Select[Any]:
    """Add the columns that are known once a row is written to rows that are new to production.

    A value that lasts is the one before the row was deleted; else each value is that of the adopted table, which `rows` have
    under its name; else the time is now. A number that is not selected is the next one.
    """
    tables = dataset_tables(dataset)
    written = [column for column in dataset.stored_columns if not column.is_staged]
    gone = tables.gone if tables.gone is not None and not is_empty(conn, tables.gone) else None
    new = rows.subquery("new")
    source: FromClause = new
    if gone is not None:
        source = source.outerjoin(gone, and_(*(new.c[name] == gone.c[name] for name in dataset.key)))
    values: list[ColumnElement[Any]] = [NOW.label("_loaded_at")]
    for column in written:
        known: list[ColumnElement[Any]] = (
            [gone.c[f"_{column.system}"]] if gone is not None and column.is_lasting else []
        )
        known += [new.c[column.name]] if column.name in new.c else []
        if column.system != "surrogate":
            values.append(func.coalesce(*known, NOW).label(column.name))
        elif known:
            # A known number counts, unless another key has it by now, in production or before it among these rows.
            number, stored = func.coalesce(*known), tables.production.c[column.name]
            is_free = func.row_number().over(partition_by=number, order_by=new.c._file_id) == 1
            if not is_empty(conn, tables.production):
                numbered = tables.production.alias("numbered")
                source = source.outerjoin(numbered, numbered.c[column.name] == number)
                is_free = and_(is_free, numbered.c[column.name].is_(None))
            is_known = and_(number.is_not(None), is_free)
            values.append(case((is_known, number), else_=func.nextval(_sequence(stored))).label(column.name))
    names = {column.name for column in written}
    return select(*(c for c in new.c if c.name not in names), *values).select_from(source)


def _sequence(column: TableColumn[Any]) -> ColumnElement[str]:
    preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    return func.pg_get_serial_sequence(preparer.format_table(column.table), column.name)


def skip_adopted_numbers(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> None:
    """Let further numbers follow those that staged rows of an adopted table have."""
    if not dataset.adopts:
        return
    tables = dataset_tables(dataset)
    for name in dataset.surrogates:
        highest = func.max(tables.staging.c[name].cast(BigInteger))
        if (number := conn.scalar(select(highest).where(among(tables.staging.c._file_id, file_ids)))) is not None:
            sequence = _sequence(tables.production.c[name])
            conn.execute(select(func.setval(sequence, func.greatest(func.nextval(sequence), number))))
