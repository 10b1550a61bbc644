"""Reading the tables of a platform from a notebook or a script: `mini_platform.connect`.

    from mini_platform import connect

    data = connect()
    data.table("stations").where(city="Oslo", height_m__gte=100).order_by("-height_m").limit(10).df()

Only read-only transactions are opened, each of which sees one state of the data. Personal data is masked: the columns that the
project declares so, and those that the database withholds from its role for readers. Its grants are made from the declarations,
so that they are known even without a project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Select,
    Table,
    Text,
    case,
    func,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError

from mini_platform.config.project import use_project
from mini_platform.declare.columns import DeclarationError, nearest
from mini_platform.declare.dataset import Dataset
from mini_platform.platform import Platform
from mini_platform.rows.protection import MASK
from mini_platform.warehouse.arrow import UnreadableError, read_arrow, to_pandas, to_polars
from mini_platform.warehouse.connection import engine
from mini_platform.warehouse.filters import filter_condition, operators_of, python_type
from mini_platform.warehouse.frame_columns import sql_name
from mini_platform.warehouse.frames import OWNED
from mini_platform.warehouse.roles import READER
from mini_platform.warehouse.tables import dataset_tables, quality_report

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

SCHEMAS = ("production", "analytics")
"""Schemas whose tables can be read."""


def connect(database: str | None = None, *, project: str | Path | None = None) -> Reader:
    """Open the tables of a platform for reading.

    Args:
        database: URL of the database, as `mini-platform url` prints it; by default that of the project.
        project: folder of the project, which becomes that of this process; by default the one that this process is in. With
            a URL, no project is needed, and tables are known by their own names alone.

    Raises:
        UnreadableError: `database` is not the URL of a Postgres database.
        ProjectError: there is no project.
        DatabaseAwayError: the database cannot be reached.
    """
    if project is not None:
        use_project(Path(project))
    platform = Platform()
    datasets = platform.datasets if database is None or project is not None else {}
    return Reader(_psycopg2_url(platform.url if database is None else database), datasets)


class Reader:
    """The tables of a platform, which can be read and not be changed. `with connect() as data:` closes it at the end."""

    def __init__(self, url: str, datasets: Mapping[str, Dataset]) -> None:
        """Connect to a database, whose tables these datasets declare."""
        self._engine = engine(
            url,
            name="mini_platform_connect",
            session={"default_transaction_read_only": "on"},
            pool=3,
            isolation_level="REPEATABLE READ",
        )
        self._names = {name: ("production", dataset.table) for name, dataset in datasets.items()}
        self._declared = {(str(table.schema), table.name): table for table in _declared_tables(datasets.values())}
        self._engine.connect().close()

    def __enter__(self) -> Reader:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """Return the database and its tables."""
        return f"<{self._engine.url.database}: {', '.join(self.tables())}>"

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def tables(self) -> list[str]:
        """Return the names that `table` takes: of datasets, of what is computed from them, and of the project's own assets."""
        with self._engine.connect() as conn:
            return list(self._tables(conn))

    def table(self, name: str, *, personal: bool = False) -> Rows:
        """Return the rows of a table; nothing is read yet.

        Args:
            name: name of a dataset, for its rows in production; or of a table, with its schema if two have one name.
            personal: return personal data as it is stored instead of masked.

        Raises:
            UnreadableError: there is no such table, or it is not known which of its columns have personal data.
        """
        with self._engine.connect() as conn:
            known = self._tables(conn)
            named = known | {".".join(place): place for place in known.values()}
            tables = {place for place in known.values() if place[1] == name}
            if name not in named and len(tables) > 1:
                raise UnreadableError(f"{name} are two tables: {' and '.join(sorted(map('.'.join, tables)))}.")
            place = named.get(name) or next(iter(tables), None)
            if place is None:
                hint = f"The tables are: {', '.join(known)}." if known else "The database has no tables yet."
                raise UnreadableError(f"There is no table {name!r}{nearest(name, named) or '.'} {hint}")
            table = Table(place[1], MetaData(), schema=place[0], autoload_with=conn, resolve_fks=False)
            masked = {} if personal else self._masked(conn, table)
        shown = {column.name: masked.get(column.name, column) for column in table.columns}
        # What the platform adds to rows is read where it is named.
        names = [name for name in shown if place[0] != "production" or not name.startswith("_")]
        return Rows(self._engine, table, shown, frozenset(masked), tuple(names))

    def _tables(self, conn: Connection) -> dict[str, tuple[str, str]]:
        """Return name -> schema and table, of everything that can be read."""
        places = [(row.schema, row.name) for row in conn.execute(RELATIONS, {"schemas": list(SCHEMAS)})]
        names = {name: place for name, place in self._names.items() if place in places}
        for place in places:
            is_free = place[1] not in names and sum(place[1] == other for _, other in places) == 1
            if place not in names.values():
                names[place[1] if is_free else ".".join(place)] = place
        return names

    def _masked(self, conn: Connection, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns of a table with personal data, as they are shown.

        Raises:
            UnreadableError: it is not known which columns have personal data.
        """
        parameters = {"table": conn.dialect.identifier_preparer.format_table(table), "reader": READER}
        rights = conn.execute(RIGHTS, parameters).all()
        has_grants = any(column.reader_may for column in rights)
        personal = {column.name for column in rights if has_grants and not column.reader_may}
        declared = self._declared.get((str(table.schema), table.name))
        if declared is not None:
            personal |= {column.name for column in declared.columns if column.info.get("personal")}
        elif not has_grants and not (table.comment or "").startswith(OWNED):
            raise UnreadableError(
                f"Which columns of {table.fullname} have personal data is not known, as neither a dataset of the project nor a "
                "grant of the database says so: read it by connect(project=…), or with personal=True as it is."
            )
        # A login that may not read a value does not see either whether there is one.
        return {
            column.name: case((table.c[column.name].is_not(None), literal(MASK, Text)), else_=None)
            if column.login_may
            else literal(MASK, Text)
            for column in rights
            if column.name in personal
        }


@dataclass(frozen=True, repr=False)
class Rows:
    """Rows of a table, as they will be read: each method returns other rows, and `df`, `polars` and `arrow` read them."""

    _engine: Engine
    _table: Table
    _shown: Mapping[str, ColumnElement[Any]]
    _masked: frozenset[str]
    _names: tuple[str, ...]
    _where: tuple[ColumnElement[bool], ...] = ()
    _order: tuple[ColumnElement[Any], ...] = ()
    _limit: int | None = None

    def __repr__(self) -> str:
        """Return the table, and its columns with their types."""
        kinds = {name: sql_name(self._table.c[name].type).lower() for name in self._names}
        columns = (f"{name} {'masked' if name in self._masked else kind}" for name, kind in kinds.items())
        return f"<{self._table.fullname}: {', '.join(columns)}>"

    def where(self, conditions: Mapping[str, Any] | None = None, /, **more: Any) -> Rows:
        """Return the rows that meet all conditions, which Postgres checks.

        Args:
            conditions: name of a column, alone or followed by `__` and an operator, and a value. The operators are those of the
                API: eq, ne, gt, gte, lt, lte, in (a list of values), contains (in any case), isnull (True or False).
            **more: the same as keywords, as in `where(city="Oslo", height_m__gte=100)`.

        Raises:
            UnreadableError: there is no such column or operator, or the column is masked.
        """
        added = [self._condition(name, value) for name, value in {**(conditions or {}), **more}.items()]
        return replace(self, _where=(*self._where, *added))

    def columns(self, *names: str) -> Rows:
        """Return the rows with these columns only, in this order.

        Raises:
            UnreadableError: there is no such column.
        """
        return replace(self, _names=tuple(self._known(name) for name in dict.fromkeys(names)))

    def order_by(self, *names: str) -> Rows:
        """Return the rows ordered by columns; a `-` before a name means descending order.

        Raises:
            UnreadableError: there is no such column, or it is masked.
        """
        order = [(self._readable(name.removeprefix("-")), name.startswith("-")) for name in names]
        return replace(self, _order=tuple(column.desc() if descends else column.asc() for column, descends in order))

    def limit(self, rows: int) -> Rows:
        """Return at most this number of rows."""
        return replace(self, _limit=max(0, int(rows)))

    def count(self) -> int:
        """Return the number of rows."""
        rows = select(literal(1)).select_from(self._table).where(*self._where).limit(self._limit).subquery()
        return int(self._read(select(func.count().label("rows")).select_from(rows))["rows"][0].as_py())

    def df(self) -> pd.DataFrame:
        """Read the rows into a DataFrame of pandas; whole numbers with missing values are Int64, decimals Decimal."""
        return to_pandas(self.arrow())

    def polars(self) -> pl.DataFrame:
        """Read the rows into a DataFrame of polars."""
        return to_polars(self.arrow())

    def arrow(self) -> pa.Table:
        """Read the rows into an Arrow table, whose types are those of the columns; memory is bounded by the result.

        Raises:
            UnreadableError: Postgres refuses a value of a filter, or Arrow cannot hold a stored one.
        """
        columns = [self._shown[name].label(name) for name in self._names]
        rows = select(*columns).select_from(self._table).where(*self._where)
        return self._read(rows.order_by(*self._order).limit(self._limit))

    def _read(self, rows: Select[Any]) -> pa.Table:
        with self._engine.connect() as conn:
            return read_arrow(conn, rows)

    def _condition(self, name: str, value: Any) -> ColumnElement[bool]:
        operator = "eq"
        if name not in self._shown and "__" in name:
            name, _, operator = name.rpartition("__")
        column = self._readable(name)
        if operator not in (allowed := operators_of(_type(column))):
            raise UnreadableError(
                f"{name} can be filtered by {', '.join(f'{name}__{one}' for one in allowed)}, not by {operator}."
            )
        if operator == "in":
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise UnreadableError(f"{name}__in takes a list of values.")
            return filter_condition(column, operator, [_plain(one) for one in value])
        return filter_condition(column, operator, _plain(value))

    def _known(self, name: str) -> str:
        if name not in self._shown:
            hint = f"The columns are: {', '.join(self._shown)}."
            raise UnreadableError(
                f"{self._table.fullname} has no column {name!r}{nearest(name, self._shown) or '.'} {hint}"
            )
        return name

    def _readable(self, name: str) -> ColumnElement[Any]:
        if self._known(name) in self._masked:
            raise UnreadableError(f"{name} has personal data, which is masked: use it with table(…, personal=True).")
        return self._table.c[name]


def _declared_tables(datasets: Iterable[Dataset]) -> Iterator[Table]:
    """Yield every table and view that can be read, of datasets whose tables can be made."""
    yield quality_report
    for dataset in datasets:
        with suppress(DeclarationError):
            tables = dataset_tables(dataset)
            yield from (tables.production, *tables.aggregates.values(), *tables.views.values())


def _psycopg2_url(database: str) -> str:
    """Return a URL with the driver.

    Raises:
        UnreadableError: it is not the URL of a Postgres database.
    """
    with suppress(ArgumentError):
        url = make_url(database)
        if url.drivername.partition("+")[0] in ("postgresql", "postgres"):
            return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    raise UnreadableError(
        "connect() takes the URL of a Postgres database, such as postgresql://user@host/name; a project is named by "
        "connect(project=FOLDER)."
    )


def _type(column: ColumnElement[Any]) -> Any:
    try:
        return python_type(column)
    except NotImplementedError:  # A type of Postgres that Python has not.
        return str


def _plain(value: Any) -> Any:
    """Return a value as Python's own type: the driver does not know numpy's."""
    return value.item() if type(value).__module__ == "numpy" else value


RELATIONS = text(
    """
    SELECT nspname AS schema, relname AS name FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = ANY (:schemas) AND relkind IN ('r', 'p', 'v', 'm') ORDER BY nspname DESC, relname
    """
)
RIGHTS = text(
    """
    SELECT attname AS name, has_column_privilege(attrelid, attnum, 'SELECT') AS login_may,
        CASE WHEN to_regrole(:reader) IS NOT NULL
            THEN has_column_privilege(:reader, attrelid, attnum, 'SELECT') END AS reader_may
    FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
    """
)
