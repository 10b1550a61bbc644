"""DataFrames of users' own assets as tables of the schema `analytics`, each named by the last part of its asset's key.

With key columns, rows of a frame are inserted, or overwrite those with their key. Without, the table is made equal to the
frame, rows that occur several times included. Either way rows that are equal already are not written.

Here: creating, changing, filling and reading these tables. A table's comment names its asset, so that no other asset takes it.
Not here: the columns of frames (`frame_columns.py`).
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    MetaData,
    Table,
    and_,
    delete,
    except_all,
    exists,
    func,
    insert,
    inspect,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError, ProgrammingError

from mini_platform.declare.reserved import NAME_BYTES
from mini_platform.warehouse.arrow import read_arrow
from mini_platform.warehouse.bulk import is_empty
from mini_platform.warehouse.frame_columns import (
    DIGITS,
    EXACT_FLOATS,
    TEXT,
    FrameColumn,
    FrameError,
    as_type,
    common_type,
    holds,
    sql_name,
)
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.roles import become_owner, grant, is_refused
from mini_platform.warehouse.upsert import copy_in, temporary

SCHEMA = "analytics"
OWNED = "DataFrame of the asset "
"""Beginning of the comment of such a table; the key of the asset follows."""
DEPENDENT = ("0A000", "2BP01")
"""SQLSTATE of a change that a view on the table does not allow."""
DUPLICATE_OR_NULL = ("23502", "23505")
"""SQLSTATE of a primary key that the rows of a table do not allow."""


@dataclass(frozen=True)
class StoredFrame:
    """The result of storing a frame: its table, and the numbers of rows; `unchanged` are rows of the frame."""

    table: Table
    inserted: int
    updated: int
    deleted: int
    unchanged: int


def frame_owners(conn: Connection) -> dict[str, str]:
    """Return name of the table -> key of the asset, for every table of a user's own asset."""
    return {row.name: row.comment.removeprefix(OWNED) for row in conn.execute(FRAMES, {"owned": OWNED})}


def frame_tables(conn: Connection) -> list[Table]:
    """Return every table of a user's own asset, as it is in the database."""
    return [_reflected(conn, name) for name in frame_owners(conn)]


def read_frame(conn: Connection, asset: str) -> Any:
    """Return the table of a user's own asset as a `pyarrow.Table`.

    Raises:
        FrameError: the asset has no table.
    """
    name = asset.rpartition("/")[2]
    if frame_owners(conn).get(name) != asset:
        raise FrameError(f"{SCHEMA}.{name} has no rows of the asset {asset}: materialize that first")
    return read_arrow(conn, select(_reflected(conn, name)))


def store_frame(conn: Connection, asset: str, columns: Sequence[FrameColumn], key: Sequence[str] = ()) -> StoredFrame:
    """Store a frame in the caller's transaction.

    Args:
        conn: connection with the transaction.
        asset: key of the asset, its parts joined by `/`; the last one names the table.
        columns: columns of the frame.
        key: names of the columns that identify a row; without any, the table is made equal to the frame.

    Raises:
        FrameError: the table belongs to something else, or it does not fit the frame without losing data.
    """
    name = asset.rpartition("/")[2]
    if unknown := [column for column in key if column not in [item.name for item in columns]]:
        raise FrameError(f"mini_platform/key names {unknown[0]}, which is no column of the frame")
    if len(name.encode()) > NAME_BYTES:
        raise FrameError(
            f"the asset's name {name} is longer than the {NAME_BYTES} bytes that Postgres takes for a table"
        )
    advisory_lock(conn, "frame", name)
    conn.execute(text("SET LOCAL work_mem = '256MB'"))
    become_owner(conn)
    with _explained(f"{SCHEMA}.{name}"):
        table = _owned(conn, asset, name)
        columns = _create(conn, asset, name, columns, key) if table is None else _fit(conn, table, columns, key)
        table = _reflected(conn, name)
        if not table.comment:
            raise AssertionError("a frame's table names its asset")
        incoming = temporary(conn, "incoming_frame", select(*(table.c[column.name] for column in columns)).subquery())
        _copy(conn, incoming, columns)
        stored = _upsert(conn, table, incoming, key) if key else _make_equal(conn, table, incoming)
        incoming.drop(conn)
    return stored


@contextmanager
def _explained(table: str) -> Iterator[None]:
    """Raise what Postgres refuses as a sentence, which shows no value."""
    try:
        yield
    except (DBAPIError, psycopg2.DataError) as error:
        original: Any = error.orig if isinstance(error, DBAPIError) else error
        code = str(getattr(original, "pgcode", None))
        if isinstance(error, ProgrammingError) and is_refused(error):
            raise FrameError(
                f"{table} cannot be created or changed by this user of the database: materialize the asset once with a "
                "DATABASE_URL of the owner of the tables"
            ) from error
        if code in DEPENDENT:
            raise FrameError(
                f"{table} has other columns than the frame, and a view depends on them: {original.diag.message_primary}. Drop "
                "the view, or return the columns as they were"
            ) from error
        if isinstance(error, psycopg2.DataError):
            place = re.search(r"line (\d+), column ([^:]+)", str(original.diag.context))
            where = f"row {place[1]} of the column {place[2]}" if place else "the frame"
            raise FrameError(
                f"{where} has a value that Postgres cannot store in {table}"
            ) from None  # The error shows it.
        raise


def _owned(conn: Connection, asset: str, name: str) -> Table | None:
    """Return the existing table of an asset; None if there is none.

    Raises:
        FrameError: the name is taken by something else.
    """
    qualified = f"{SCHEMA}.{conn.dialect.identifier_preparer.quote(name)}"
    if conn.scalar(select(func.to_regclass(qualified))) is None:
        return None
    owner = frame_owners(conn).get(name)
    if owner == asset:
        return _reflected(conn, name)
    if owner is None:
        raise FrameError(f"{SCHEMA}.{name} is a table that is no asset's of yours: give the asset {asset} another name")
    drop = psql_command(f'DROP TABLE {SCHEMA}."{name}"')
    raise FrameError(
        f"{SCHEMA}.{name} belongs to the asset {owner}, and the last part of {asset} would name the same table: give one of "
        f"them another name. If {owner} is no more: {drop}"
    )


def _reflected(conn: Connection, name: str) -> Table:
    return Table(name, MetaData(), schema=SCHEMA, autoload_with=conn)


def _create(
    conn: Connection, asset: str, name: str, columns: Sequence[FrameColumn], key: Sequence[str]
) -> Sequence[FrameColumn]:
    table_columns = [
        Column(item.name, TEXT if item.type is None else item.type, primary_key=item.name in key, autoincrement=False)
        for item in columns
    ]
    table = Table(name, MetaData(), *table_columns, schema=SCHEMA, comment=f"{OWNED}{asset}")
    table.create(conn)
    grant(conn, [table])
    return columns


def _fit(conn: Connection, table: Table, columns: Sequence[FrameColumn], key: Sequence[str]) -> list[FrameColumn]:
    """Change a table so that it takes a frame, without losing a value; return the columns with the types of the table."""
    quote, changed = conn.dialect.identifier_preparer.quote, list(columns)
    stored_key = [column.name for column in table.primary_key]
    if stored_key and stored_key != list(key):
        _alter(
            conn, table, f"DROP CONSTRAINT {quote(str(inspect(conn).get_pk_constraint(table.name, SCHEMA)['name']))}"
        )
        for name in stored_key:
            _alter(conn, table, f"ALTER COLUMN {quote(name)} DROP NOT NULL")
    for number, column in enumerate(columns):
        if column.name not in table.c:
            _alter(
                conn,
                table,
                f"ADD COLUMN {quote(column.name)} {sql_name(column.type or TEXT)}" + _collation(column.type),
            )
            continue
        kind, changed[number] = _wider(conn, table, column)
        if kind is not table.c[column.name].type:
            using = "NULL" if _is_void(conn, table, column.name) else quote(column.name)
            definition = f"{sql_name(kind)}{_collation(kind)} USING {using}::{sql_name(kind)}"
            _alter(conn, table, f"ALTER COLUMN {quote(column.name)} TYPE {definition}")
    if not key:
        for name in set(table.c.keys()) - {column.name for column in columns}:
            _alter(conn, table, f"DROP COLUMN {quote(name)}")
    elif stored_key != list(key):
        _add_key(conn, table, key)
    return changed


def _add_key(conn: Connection, table: Table, key: Sequence[str]) -> None:
    try:
        with conn.begin_nested():
            _alter(conn, table, f"ADD PRIMARY KEY ({', '.join(map(conn.dialect.identifier_preparer.quote, key))})")
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in DUPLICATE_OR_NULL:
            raise
        drop = psql_command(f'DROP TABLE {SCHEMA}."{table.name}"')
        raise FrameError(
            f"{table.fullname} has rows of which {', '.join(key)} is no key, as it is missing or occurs twice: delete them, or "
            f"drop the table: {drop}"
        ) from None  # The error shows a row.


def _wider(conn: Connection, table: Table, column: FrameColumn) -> tuple[Any, FrameColumn]:
    """Return the type that a column of a table gets, its own if possible, and the values of the frame in that type.

    Raises:
        FrameError: no type holds the values of both.
    """
    stored = table.c[column.name].type
    if (same := as_type(column, stored)) is not None:
        return stored, same
    new = column.type
    if new is None:
        raise AssertionError("missing values fit any type")
    if _is_void(conn, table, column.name):
        return new, column
    for kind in (common_type(stored, new), Double()):
        if kind is None or (values := as_type(column, kind)) is None:
            continue
        if holds(kind, stored) or (sql_name(stored) in DIGITS and _is_exact_as_float(conn, table, column.name)):
            return kind, values
    drop = psql_command(f'ALTER TABLE {SCHEMA}."{table.name}" DROP COLUMN "{column.name}"')
    raise FrameError(
        f"{column.name} is {sql_name(stored).lower()} in {table.fullname} and {sql_name(new).lower()} in the frame, and no "
        f"type holds both without loss: return it as it was, give it another name, or drop the stored column: {drop}"
    )


def psql_command(statement: str) -> str:
    """Return the command that a user types for a statement."""
    return f"mini-platform psql -c {shlex.quote(statement)}"


def _is_void(conn: Connection, table: Table, name: str) -> bool:
    """Return True if a column has no value in any row."""
    return not conn.scalar(select(exists(select(literal(1)).select_from(table).where(table.c[name].is_not(None)))))


def _is_exact_as_float(conn: Connection, table: Table, name: str) -> bool:
    beyond = or_(table.c[name] > EXACT_FLOATS, table.c[name] < -EXACT_FLOATS)
    return not conn.scalar(select(exists(select(literal(1)).select_from(table).where(beyond))))


def _collation(kind: Any) -> str:
    return ' COLLATE "C"' if sql_name(kind or TEXT) == "TEXT" else ""


def _alter(conn: Connection, table: Table, change: str) -> None:
    # Without parameters, so that a % in a name stays one.
    name = conn.dialect.identifier_preparer.format_table(table)
    conn.exec_driver_sql(f"ALTER TABLE {name} {change}", execution_options={"no_parameters": True})


def _copy(conn: Connection, incoming: Table, columns: Sequence[FrameColumn]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    buffer = io.BytesIO()
    table = pa.table([column.values for column in columns], names=[str(number) for number in range(len(columns))])
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False))
    buffer.seek(0)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(incoming.name), names)
    copy_in(conn, copy, buffer)
    conn.execute(text(f"ANALYZE {incoming.name}"))


def _upsert(conn: Connection, table: Table, incoming: Table, key: Sequence[str]) -> StoredFrame:
    """Insert and update rows by their key; columns that the frame lacks keep their values, and are NULL in new rows."""
    keys = [incoming.c[name] for name in key]
    rows = conn.scalar(select(func.count()).select_from(incoming)) or 0
    missing = conn.scalar(select(func.count()).select_from(incoming).where(or_(*(column.is_(None) for column in keys))))
    if missing:
        raise FrameError(f"in {missing} of {rows} rows of the frame the key ({', '.join(key)}) is missing")
    twice = select(func.count().label("rows")).select_from(incoming).group_by(*keys).having(func.count() > 1).subquery()
    if repeated := conn.scalar(select(func.count()).select_from(twice)):
        raise FrameError(
            f"{repeated} keys ({', '.join(key)}) occur in several rows of the frame: leave one of each, or add the column to "
            "the key that tells them apart"
        )
    same_key = and_(*(table.c[name] == incoming.c[name] for name in key))
    values = [column.name for column in incoming.c if column.name not in key]
    updated = 0
    if values:
        differs = tuple_(*(table.c[name] for name in values)).is_distinct_from(
            tuple_(*(incoming.c[name] for name in values))
        )
        changes = update(table).values({table.c[name]: incoming.c[name] for name in values}).where(same_key, differs)
        updated = conn.execute(changes).rowcount
    new = incoming.select().where(~exists(select(literal(1)).select_from(table).where(same_key)))
    inserted = conn.execute(insert(table).from_select(incoming.c.keys(), new)).rowcount
    return StoredFrame(table, inserted, updated, 0, rows - inserted - updated)


def _make_equal(conn: Connection, table: Table, incoming: Table) -> StoredFrame:
    """Delete the rows that the frame has not, or not as often, and insert those that the table has not, or not as often."""
    names = incoming.c.keys()
    rows = conn.scalar(select(func.count()).select_from(incoming)) or 0
    if is_empty(conn, table):  # A new table has the order of the frame.
        conn.execute(insert(table).from_select(names, incoming.select()))
        return StoredFrame(table, rows, 0, 0, 0)
    # Equal rows of both are numbered: with 3 stored ones and 1 of the frame, numbers 2 and 3 of the stored ones go. Windows
    # treat NULLs as equal, which a join would not.
    place: Any = literal_column(f"{conn.dialect.identifier_preparer.format_table(table)}.ctid").label("place")
    stored_rows = select(place, *(table.c[name].label(f"c{n}") for n, name in enumerate(names)))
    frame_rows = select(null().label("place"), *(incoming.c[name].label(f"c{n}") for n, name in enumerate(names)))
    both = union_all(stored_rows, frame_rows).subquery("both_rows")
    cells = [both.c[f"c{n}"] for n in range(len(names))]
    is_stored = both.c.place.is_not(None)
    numbered = select(
        both.c.place,
        func.row_number(type_=BigInteger).over(partition_by=[*cells, is_stored]).label("number"),
        func.count().filter(~is_stored).over(partition_by=cells).label("needed"),
    ).subquery("numbered")
    surplus = select(numbered.c.place).where(numbered.c.place.is_not(None), numbered.c.number > numbered.c.needed)
    deleted = conn.execute(delete(table).where(literal_column("ctid").in_(surplus))).rowcount
    lacking = except_all(incoming.select(), select(*(table.c[name] for name in names)))
    inserted = conn.execute(insert(table).from_select(names, lacking)).rowcount
    return StoredFrame(table, inserted, 0, deleted, rows - inserted)


FRAMES = text(
    """
    SELECT relname AS name, obj_description(c.oid, 'pg_class') AS comment FROM pg_class c
    WHERE relnamespace = to_regnamespace('analytics') AND relkind = 'r'
        AND starts_with(obj_description(c.oid, 'pg_class'), :owned)
    ORDER BY 1
    """
)
