"""The idempotent upsert: writes rows of a select or a DataFrame into a table, by its primary key."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from sqlalchemy import Column as TableColumn
from sqlalchemy import Connection, FromClause, MetaData, Select, Table, tuple_
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable

from mini_platform.warehouse.database_errors import without_values

if TYPE_CHECKING:
    import pandas as pd


def key_of(table: Table) -> list[str]:
    """Return the names of the columns of the primary key."""
    return [column.name for column in table.primary_key]


def upsert(
    conn: Connection, table: Table, rows: Select[Any], *, skip_unchanged: bool = True, insert_only: Collection[str] = ()
) -> int:
    """Insert rows, or overwrite the rows with their keys; return the number of rows written.

    Args:
        conn: the caller's transaction.
        table: table with a primary key.
        rows: select of values for columns of the table, by name; every key at most once.
        skip_unchanged: do not write rows that already have the values; False if the select has no such rows.
        insert_only: columns that keep the value of the insert.
    """
    names = [column.name for column in rows.selected_columns]
    statement = insert(table).from_select(names, rows)
    key = key_of(table)
    values = [name for name in names if name not in key and name not in insert_only]
    if not values:
        return conn.execute(statement.on_conflict_do_nothing(index_elements=key)).rowcount
    new = statement.excluded
    condition = None
    if skip_unchanged:
        condition = tuple_(*(table.c[v] for v in values)).is_distinct_from(tuple_(*(new[v] for v in values)))
    update = statement.on_conflict_do_update(index_elements=key, set_={v: new[v] for v in values}, where=condition)
    return conn.execute(update).rowcount


def temporary(conn: Connection, name: str, like: FromClause, *extra_columns: TableColumn[Any]) -> Table:
    """Create a temporary table with the columns of `like` and more, dropped at the end of the transaction."""
    columns = [TableColumn(column.name, column.type) for column in like.c]
    table = Table(name, MetaData(), *columns, *extra_columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")
    table.create(conn)
    return table


class _CreateAs(Executable, ClauseElement):
    """`CREATE TABLE AS`, which SQLAlchemy does not have."""

    inherit_cache = False

    def __init__(self, name: str, rows: Select[Any]) -> None:
        self.name = name
        self.rows = rows


@compiles(_CreateAs)
def _create_as(element: _CreateAs, compiler: Any, **_: Any) -> str:
    name = compiler.preparer.quote(element.name)
    return f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {compiler.process(element.rows)}"


def materialized(conn: Connection, name: str, rows: Select[Any]) -> Table:
    """Write the rows of a select into a temporary table, dropped at the end of the transaction, and return the table.

    The server may select them with several processes, which it never does for `INSERT ... SELECT`.
    """
    conn.execute(_CreateAs(name, rows))
    return Table(name, MetaData(), *(TableColumn(column.name, column.type) for column in rows.selected_columns))


def copy_in(conn: Connection, statement: sql.Composable, source: Any) -> None:
    """Run `COPY ... FROM STDIN` in the transaction of `conn`; `source` has a `read` method.

    Raises:
        psycopg2.Error: the server or `source` raised an error; as an error of the driver.
    """
    cursor: Any = conn.connection.cursor()
    try:
        cursor.copy_expert(statement, source, 2**18)
    except (psycopg2.Error, SystemError) as error:
        if isinstance(error, psycopg2.Error):
            without_values(error)
        if not cursor.connection.closed:
            raise
        conn.invalidate()  # Otherwise the rollback of the lost transaction would raise another error instead of this one.
        # If the connection is lost while `source` is read, Python reports the driver's error as a SystemError.
        raise (
            error if isinstance(error, psycopg2.Error) else psycopg2.OperationalError(str(error.__cause__))
        ) from error
    finally:
        cursor.close()


def _csv_lines(frame: pd.DataFrame) -> Iterator[str]:
    """Yield rows as CSV for COPY: a missing value is an empty field, an empty text a quoted one (`to_csv` confuses them)."""
    filled = frame.astype(object).where(frame.notna(), None)
    for row in filled.itertuples(index=False, name=None):
        yield ",".join("" if value is None else '"' + str(value).replace('"', '""') + '"' for value in row)


def upsert_frame(conn: Connection, table: Table, frame: pd.DataFrame) -> int:
    """Upsert a DataFrame with COPY; its columns have the names of the table's. Return the number of rows written.

    Raises:
        ValueError: the frame lacks a key column or has one that the table does not have.
    """
    if unknown := set(frame.columns) - set(table.c.keys()):
        raise ValueError(f"{table.fullname} has no columns {sorted(map(str, unknown))}")
    if missing := set(key_of(table)) - set(frame.columns):
        raise ValueError(f"the frame lacks the key columns {sorted(missing)} of {table.fullname}")
    incoming = temporary(conn, f"incoming_{table.name}", table)
    for name in frame.columns:
        if isinstance(table.c[name].type, JSONB):
            frame = frame.assign(**{name: frame[name].map(json.dumps)})
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(incoming.name), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    copy_in(conn, copy, io.StringIO("\n".join(_csv_lines(frame))))
    written = upsert(conn, table, incoming.select().with_only_columns(*(incoming.c[n] for n in frame.columns)))
    incoming.drop(conn)
    return written
