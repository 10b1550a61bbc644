"""Making the declared tables exist: create what is missing, add what was added, rebuild what is derived.

Nothing that holds the only copy of data is ever dropped here. Not here: how tables that belong to no dataset change
(`migrations/`).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from psycopg2 import sql
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Select,
    Table,
    exists,
    func,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DataError, NotSupportedError, ProgrammingError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import (
    AddConstraint,
    CreateColumn,
    CreateIndex,
    CreateSchema,
    CreateTable,
    ExecutableDDLElement,
    SetColumnComment,
    SetTableComment,
)

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import changes, dirty_groups, migrations
from mini_platform.warehouse.bulk import is_empty
from mini_platform.warehouse.locks import advisory_lock, lock_aggregates
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.roles import RolesError, all_grants, become_owner, grant, is_refused, make_readers
from mini_platform.warehouse.tables import (
    SCHEMAS,
    DatasetTables,
    computed_names,
    dataset_tables,
    fingerprints,
    platform_tables,
    refuse_one_name,
)

NOT_OURS = (
    "The tables are not what the datasets declare, and this user of the database may not change them: run "
    "`mini-platform db init` with DATABASE_URL for their owner."
)


class MismatchError(ValueError):
    """A table is not what is declared, and cannot be made so without losing data; the message is a sentence."""


def create_all(engine: Engine, datasets: Iterable[Dataset]) -> None:
    """Bring the database to what the datasets declare; costs one query when nothing was changed since the last time.

    All is done as who owns the schema `ops`, where the user of the database may: new tables have one owner whoever makes them.

    Raises:
        MismatchError: a declared change cannot be made without losing data (a type or a key changed).
        NewerDatabaseError: the database was changed by newer code than this.
        RolesError: the user of the database may not change tables.
    """
    chosen = list(datasets)
    refuse_one_name(name for dataset in chosen for name in computed_names(dataset, dataset_tables(dataset)))
    wanted = _wanted(chosen)
    try:
        with engine.begin() as conn:
            current = _has(conn, wanted)
        if not current:
            migrations.bring_up(engine)
            with engine.begin() as conn:
                _bring_to(conn, chosen, wanted)
                failpoint("schema.before_commit")
    except ProgrammingError as error:
        if is_refused(error):
            raise RolesError(NOT_OURS) from error
        raise


def _bring_to(conn: Connection, chosen: Iterable[Dataset], wanted: dict[str, str]) -> None:
    advisory_lock(conn, "schema")
    make_readers(conn)
    become_owner(conn)
    for schema in SCHEMAS:
        if not conn.scalar(
            select(func.to_regnamespace(schema))
        ):  # Without the right to make it, even IF NOT EXISTS fails.
            conn.execute(CreateSchema(schema, if_not_exists=True))
    if not conn.scalar(select(func.to_regclass("ops.files"))):
        _make_platform_tables(conn)
    stored = _stored(conn)
    if stored.get("ops") != wanted["ops"]:
        for table in platform_tables():
            _comment(conn, table)
    for dataset in chosen:
        if stored.get(dataset.name) != wanted[dataset.name]:
            _migrate(conn, dataset)
    grant(conn, all_tables(chosen))
    for name, sha256 in wanted.items():
        statement = upsert(fingerprints).values(name=name, sha256=sha256)
        conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"sha256": sha256}))


def _make_platform_tables(conn: Connection) -> None:
    for table in platform_tables():
        table.create(conn, checkfirst=True)
    migrations.record(conn)


def _comment(conn: Connection, table: Table) -> None:
    conn.execute(SetTableComment(table))
    for column in table.columns:
        if column.comment:
            conn.execute(SetColumnComment(column))


def _tables_and_views(dataset: Dataset) -> list[Table]:
    return [*tables_of(dataset), *dataset_tables(dataset).views.values()]


def all_tables(datasets: Iterable[Dataset]) -> list[Table]:
    """Return every table and view of the platform and of these datasets."""
    return [*platform_tables(), *(table for dataset in datasets for table in _tables_and_views(dataset))]


def is_current(conn: Connection, datasets: Iterable[Dataset]) -> bool:
    """True if the database is what the datasets declare."""
    return _has(conn, _wanted(datasets))


def undeclared(conn: Connection, datasets: Collection[Dataset]) -> tuple[str, str] | None:
    """Say which tables and views none of all datasets declares any more, and what drops them; None if there are none.

    They stay as they were: what is in them may be the only copy, and nobody said that it may go.
    """
    declared = {(table.schema, table.name) for table in all_tables(datasets)}
    found = [row for row in conn.execute(MADE_HERE) if (row.schema, row.name) not in declared]
    if not found:
        return None
    preparer = conn.dialect.identifier_preparer
    names: dict[str, list[str]] = {"VIEW": [], "TABLE": []}
    for row in found:
        names[row.kind].append(f"{row.schema}.{preparer.quote(row.name)}")
    drops = [f"DROP {kind} {', '.join(listed)}" for kind, listed in names.items() if listed]
    # Or a dataset that is declared again would be taken to have its tables.
    known = ("ops", *(dataset.name for dataset in datasets))
    if unknown := sorted(name for name in _stored(conn) if name.split(":")[0] not in known):
        quoted = ", ".join(f"'{name}'" for name in unknown)
        drops.append(f"DELETE FROM ops.fingerprints WHERE name IN ({quoted})")  # noqa: S608 - they are plain names
    told = ", ".join(name for listed in names.values() for name in listed)
    return (
        f"no dataset declares {told} any more: what stands there stays, and is not kept up to date",
        f"Where nobody needs it: mini-platform psql -c {shlex.quote('; '.join(drops))}",
    )


MADE_HERE = text(
    """
    SELECT nspname AS schema, relname AS name, CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname IN ('analytics', 'production', 'quarantine', 'staging', 'ops') AND relkind IN ('r', 'p', 'v')
        AND (nspname <> 'ops' OR relname ~ '^(surrogates|gone)_') AND obj_description(pg_class.oid, 'pg_class') IS NOT NULL
    ORDER BY 1, 2
    """
)
"""Tables and views of datasets; all that are made here have a comment, and what others put beside them seldom has."""


def _wanted(datasets: Iterable[Dataset]) -> dict[str, str]:
    numbers = [f"{migration.number}: {migration.name}" for migration in migrations.MIGRATIONS]
    wanted = {"ops": _fingerprint(platform_tables(), all_grants(platform_tables()), *numbers)}
    for dataset in datasets:
        wanted[dataset.name] = _dataset_fingerprint(dataset)
        # Apart: what may be read changes without that anything is to be computed again.
        wanted[f"{dataset.name}:grants"] = hashlib.sha256(all_grants(_tables_and_views(dataset)).encode()).hexdigest()
    return wanted


def _has(conn: Connection, wanted: dict[str, str]) -> bool:
    known = conn.scalar(text("SELECT to_regclass('ops.fingerprints')"))
    return bool(known) and wanted.items() <= _stored(conn).items()


def _stored(conn: Connection) -> dict[str, str]:
    return {row.name: row.sha256 for row in conn.execute(select(fingerprints))}


def _fingerprint(tables: Iterable[Table], *more: str) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    words = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
    words += [f"{c.name}: {c.comment}" for table in tables for c in table.columns]
    # A set has another order in each process.
    words += sorted(str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes)
    return hashlib.sha256("\n".join([*words, *more]).encode()).hexdigest()


def _dataset_fingerprint(dataset: Dataset) -> str:
    tables = dataset_tables(dataset)
    selects = [_sql(tables.rows(computed)) for computed in dataset.computed]
    return _fingerprint(_tables_and_views(dataset), *selects)


def _sql(rows: Select[Any]) -> str:
    """A select as the server is told it, its values within."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(rows.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _migrate(conn: Connection, dataset: Dataset) -> None:
    from mini_platform.rows.validation import refuse_other_rows  # Brings polars and pandera.

    refuse_other_rows(dataset)
    tables = dataset_tables(dataset)
    advisory_lock(conn, "load", dataset.name)
    lock_aggregates(conn, dataset, *dataset.aggregates)
    changes.note(conn, dataset.name, changes.DECLARATION)
    existing = inspect(conn)
    for table in tables_of(dataset, "rows"):
        if existing.has_table(table.name, schema=table.schema):
            _add_to(conn, table)
        else:
            table.create(conn)
    _drop_computed(conn, tables)
    dirty_groups.clear_aggregates(conn, dataset)
    for table in tables_of(dataset, "keys"):
        _keep_keys(conn, table)
    empty = is_empty(conn, tables.production)
    for aggregate in dataset.aggregates:
        tables.aggregates[aggregate.name].create(conn)
        rows = tables.rows(aggregate).subquery()
        # Over no rows, too, a select may have one: a total.
        any_row = select(exists(select(literal(1)).select_from(rows))) if empty else rows.select().limit(0)
        has_rows = _tried(conn, dataset, aggregate, any_row)
        if has_rows or not empty:
            dirty_groups.mark_all(conn, dataset, changes.aggregate(aggregate.name))
    for view in dataset.views:
        _tried(conn, dataset, view, tables.rows(view).subquery().select().limit(0))
        _create_view(conn, tables.views[view.name], tables.rows(view))


def _tried(conn: Connection, dataset: Dataset, computed: Aggregate | View, rows: Select[Any]) -> Any:
    """Ask Postgres for the first value of a select; what it does not take is refused here, and not by every run."""
    try:
        return conn.scalar(rows)
    except (ProgrammingError, DataError, NotSupportedError) as error:
        if isinstance(error, ProgrammingError) and is_refused(error):
            raise
        said = " ".join(str(error.orig).split("LINE 1")[0].split())
        raise DeclarationError(f"{dataset.name}.{computed.name}: Postgres does not take its select: {said}") from error


def _drop_computed(conn: Connection, tables: DatasetTables) -> None:
    """Drop what is derived: it is computed again by the next refresh.

    Views of the schema `analytics` that read it go too, and foreign keys that refer to it: an earlier declaration may have
    had others than today's. What others have built upon it elsewhere is not ours to drop, and keeps it in place.
    """
    preparer = conn.dialect.identifier_preparer
    names = [*tables.aggregates, *tables.views]
    for name in conn.execute(VIEWS_UPON, {"names": [*names, tables.production.name]}).scalars():
        conn.execute(text(f"DROP VIEW IF EXISTS analytics.{preparer.quote(name)} CASCADE"))
    for table, constraint in conn.execute(REFERENCES_TO, {"names": names}).tuples().all():
        conn.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {preparer.quote(constraint)}"))
    # A view may have been an aggregate before.
    for table in (*tables.views.values(), *reversed(tables.aggregates.values())):
        table.drop(conn, checkfirst=True)


VIEWS_UPON = text(
    """
    SELECT DISTINCT view_name FROM information_schema.view_table_usage
    WHERE view_schema = 'analytics' AND table_schema IN ('analytics', 'production') AND table_name = ANY (:names)
    """
)
REFERENCES_TO = text(
    """
    SELECT conrelid::regclass::text, conname FROM pg_constraint JOIN pg_class ON pg_class.oid = confrelid
    WHERE contype = 'f' AND relnamespace = 'analytics'::regnamespace AND relname = ANY (:names)
    """
)


def _keep_keys(conn: Connection, table: Table) -> None:
    """What is known of keys, as their numbers, outlives any change but one of the key itself."""
    found = inspect(conn)
    if found.has_table(table.name, schema=table.schema):
        columns = {
            c["name"]: c["type"].compile(conn.dialect) for c in found.get_columns(table.name, schema=table.schema)
        }
        if columns == {c.name: c.type.compile(conn.dialect) for c in table.columns}:
            return
        table.drop(conn)
    table.create(conn)


class _CreateView(ExecutableDDLElement):
    """`CREATE VIEW`, which SQLAlchemy has no word for."""

    inherit_cache = False

    def __init__(self, view: Table, rows: Select[Any]) -> None:
        self.view = view
        self.rows = rows


@compiles(_CreateView)
def _create_view_sql(element: _CreateView, compiler: Any, **_: Any) -> str:
    rows = compiler.sql_compiler.process(element.rows, literal_binds=True)
    return f"CREATE VIEW {compiler.preparer.format_table(element.view)} AS {rows}"


def _create_view(conn: Connection, view: Table, rows: Select[Any]) -> None:
    conn.execute(_CreateView(view, rows))
    name = conn.dialect.identifier_preparer.format_table(view)
    comment = sql.Literal(view.comment).as_string(conn.connection.driver_connection)  # DDL takes no parameters.
    conn.exec_driver_sql(f"COMMENT ON VIEW {name} IS {comment}")
    for column in view.columns:
        conn.execute(SetColumnComment(column))


def _add_to(conn: Connection, table: Table) -> None:
    """Add declared columns and indexes that an existing table lacks."""
    found = inspect(conn)
    existing = {c["name"]: c for c in found.get_columns(table.name, schema=table.schema)}
    columns = {name: c["type"] for name, c in existing.items()}
    preparer = conn.dialect.identifier_preparer
    for column in table.columns:
        if column.name not in columns:
            if (
                not column.nullable
                and column.server_default is None
                and conn.scalar(select(func.count()).select_from(table))
            ):
                raise MismatchError(
                    f"{table.fullname}.{column.name} is new and may not be empty, but the table has rows"
                )
            definition = CreateColumn(column).compile(dialect=conn.dialect)
            conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {definition}"))
        elif len({kind.compile(conn.dialect).split(" COLLATE")[0] for kind in (columns[column.name], column.type)}) > 1:
            if _is_counter(existing[column.name]):
                raise MismatchError(_lost(conn, table, column))
            raise MismatchError(
                f"{table.fullname}.{column.name} is {columns[column.name]} in the database and {column.type} in the "
                "declaration: change its type in the database first"
            )
        elif existing[column.name]["nullable"] != column.nullable:
            _set_nullable(conn, table, column)
        if _is_counter(existing.get(column.name, {})):
            _drop_counter(conn, table, column)
        conn.execute(SetColumnComment(column))
    constraint = found.get_pk_constraint(table.name, schema=table.schema)
    key, declared = constraint["constrained_columns"], [c.name for c in table.primary_key]
    if key != declared and key == declared[: len(key)] and all(name.startswith("_") for name in declared):
        # A key of the platform's own that grew: what a shorter key told apart, a longer one does.
        name = preparer.quote(str(constraint["name"]))
        conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} DROP CONSTRAINT {name}"))
        conn.execute(AddConstraint(table.primary_key, isolate_from_table=False))
    elif key != declared:
        raise MismatchError(f"{table.fullname} has the key {key} in the database and another one in the declaration")
    indexes = {index["name"] for index in found.get_indexes(table.name, schema=table.schema)}
    for index in table.indexes:
        if index.name not in indexes:
            index.create(conn)


def _is_counter(found: Mapping[str, Any]) -> bool:
    """True for a column that counts by itself: earlier versions made one of any number that was a key alone."""
    return str(found.get("default") or "").startswith("nextval(")


def _drop_counter(conn: Connection, table: Table, column: Column[Any]) -> None:
    """Take from a column the numbers that nobody ever asked for; its values stay."""
    preparer = conn.dialect.identifier_preparer
    name = preparer.format_table(table)
    counter = conn.scalar(select(func.pg_get_serial_sequence(name, column.name)))
    conn.execute(text(f"ALTER TABLE {name} ALTER COLUMN {preparer.quote(column.name)} DROP DEFAULT"))
    if counter:
        conn.execute(text(f"DROP SEQUENCE {counter}"))


def _lost(conn: Connection, table: Table, column: Column[Any]) -> str:
    """What became of a key in a table of an earlier version, and how the raw files bring it back."""
    name = conn.dialect.identifier_preparer.format_table(table)
    drop = shlex.quote(f"DROP TABLE {name} CASCADE")
    return (
        f"{table.fullname}.{column.name} was made a counter of whole numbers by an earlier version: what stands behind the "
        "point was cut off when its rows were loaded. The raw files have it: drop the table by `mini-platform psql -c "
        f"{drop}`, then load its files again by `mini-platform reprocess {table.info['dataset']}`"
    )


def _set_nullable(conn: Connection, table: Table, column: Column[Any]) -> None:
    """Let an existing column be empty, or forbid it."""
    if not column.nullable and conn.scalar(select(func.count()).select_from(table).where(column.is_(None))):
        raise MismatchError(
            f"{table.fullname}.{column.name} may not be empty any more, but is in some rows: fill them first"
        )
    preparer = conn.dialect.identifier_preparer
    names = (preparer.format_table(table), preparer.quote(column.name))
    conn.execute(
        text("ALTER TABLE {} ALTER COLUMN {} {} NOT NULL".format(*names, "DROP" if column.nullable else "SET"))
    )
