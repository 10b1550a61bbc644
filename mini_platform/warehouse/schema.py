"""Bringing the database to the declarations: create missing tables, add new columns, rebuild what is derived.

Nothing that holds the only copy of data is ever dropped here. Not here: changes of tables that belong to no dataset
(`migrations/`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
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
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
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
from mini_platform.declare.columns import DeclarationError, reported
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import changes, dirty_groups, migrations
from mini_platform.warehouse.bulk import is_empty
from mini_platform.warehouse.frames import SCHEMA, frame_owners, frame_tables, psql_command
from mini_platform.warehouse.locks import advisory_lock, lock_aggregates
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.roles import RolesError, all_grants, become_owner, grant, is_refused, make_readers
from mini_platform.warehouse.tables import (
    SCHEMAS,
    DatasetTables,
    dataset_tables,
    fingerprints,
    platform_tables,
    without_tables,
)

NOT_OWNER = (
    "The tables differ from what the datasets declare, and this database user may not change them: run "
    "`mini-platform db init` with a DATABASE_URL of their owner."
)


REFUSING = ("0A", "22", "23", "2B", "42", "54")
"""Classes of SQLSTATE by which a declaration is refused: what is asked for is impossible, and not the server in trouble."""
LOCK_SECONDS = 2


class MismatchError(ValueError):
    """A table differs from its declaration, and cannot be changed without losing data. The message is a sentence."""


def create_all(engine: Engine, datasets: Iterable[Dataset]) -> dict[str, ValueError]:
    """Bring the database to what the datasets declare. If nothing has changed since the last time, this costs two queries.

    Runs as the owner of the schema `ops` where the database user may, so that all tables have one owner.

    Returns:
        The datasets whose tables cannot be made or changed, by name, each with an error whose message is the reason. Their
        tables stay as they are; the other datasets are not affected. The next call tries again.

    Raises:
        NewerDatabaseError: the database was changed by a newer version of the code.
        RolesError: the database user may not change tables.
    """
    declared, expected, refused = _possible(datasets)
    try:
        with engine.begin() as conn:
            is_up_to_date = _has_fingerprints(conn, expected)
            _set_search_path(conn)
        if not is_up_to_date:
            migrations.migrate(engine)
            with engine.begin() as conn:
                refused |= _apply(conn, declared, expected)
                failpoint("schema.before_commit")
    except ProgrammingError as error:
        if is_refused(error):
            raise RolesError(NOT_OWNER) from error
        raise
    return refused


def refusals(engine: Engine, datasets: Iterable[Dataset]) -> dict[str, ValueError]:
    """Return what `create_all` would return, without changing anything; a dataset whose tables are locked is left out."""
    declared, expected, refused = _possible(datasets)
    with engine.connect() as conn:  # Never committed.
        if _has_fingerprints(conn, expected):
            return refused
        conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        try:
            return refused | _apply(conn, declared, expected)
        except (ProgrammingError, OperationalError):
            return refused


def _possible(datasets: Iterable[Dataset]) -> tuple[list[Dataset], dict[str, str], dict[str, ValueError]]:
    """Return the datasets that can have tables, whatever the database has, their fingerprints, and the errors of the others."""
    declared = list(datasets)
    refused: dict[str, ValueError] = dict(without_tables(declared))
    possible, expected = [], _platform_fingerprint()
    for dataset in declared:
        if dataset.name not in refused:
            try:
                expected |= _dataset_fingerprints(dataset)
                possible.append(dataset)
            except SQLAlchemyError as error:  # Its select cannot be written as SQL.
                refused[dataset.name] = DeclarationError(f"dataset {dataset.name}: {error}")
    return possible, expected, refused


def _apply(conn: Connection, declared: Iterable[Dataset], expected: dict[str, str]) -> dict[str, ValueError]:
    # The lock makes other processes wait, as several may start at once. A fingerprint (a hash of the DDL and selects) is stored
    # per dataset, so that only datasets that changed are migrated; those of the grants are separate, as a changed grant needs
    # no rebuilding. All of this is one transaction: fingerprints are stored if and only if the tables are. Each dataset has a
    # savepoint in it, to which a dataset that is refused is rolled back; its fingerprints are not stored.
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
    stored = _stored_fingerprints(conn)
    if stored.get("ops") != expected["ops"]:
        for table in platform_tables():
            _comment(conn, table)
    refused: dict[str, ValueError] = {}
    for dataset in declared:
        if stored.get(dataset.name) != expected[dataset.name] and (error := _try_to_migrate(conn, dataset)):
            refused[dataset.name] = error
    changed = {
        name: sha256
        for name, sha256 in expected.items()
        if stored.get(name) != sha256 and name.partition(":")[0] not in refused
    }
    if changed:
        tables = all_tables(dataset for dataset in declared if dataset.name not in refused)
        grant(conn, [*tables, *frame_tables(conn)])
    for name, sha256 in changed.items():
        statement = upsert(fingerprints).values(name=name, sha256=sha256)
        conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"sha256": sha256}))
    return refused


def _try_to_migrate(conn: Connection, dataset: Dataset) -> ValueError | None:
    """Bring the tables of a dataset to its declaration; if that is impossible, change nothing and return the reason."""
    try:
        with conn.begin_nested():
            _migrate(conn, dataset)
    except (MismatchError, DeclarationError) as error:
        return error
    except DBAPIError as error:
        cause: Any = error.orig
        if is_refused(error) or (getattr(cause, "pgcode", None) or "")[:2] not in REFUSING:
            raise
        return MismatchError(f"Postgres refuses its tables: {cause}")
    return None


def _set_search_path(conn: Connection) -> None:
    """Let people who query the database leave out the schemas of tables; a search path that the database has is kept.

    Here and not with the tables: neither a copy of a database nor its dump has this setting.
    """
    unset = text(
        """
        SELECT quote_ident(datname) FROM pg_database d
        WHERE datname = current_database() AND pg_has_role(datdba, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
            WHERE setdatabase = d.oid AND setrole = 0 AND setting LIKE 'search_path=%'
        )
        """
    )
    # Whoever holds the lock is starting, too, or changes tables: this can wait for the next start.
    if conn.scalar(unset) and advisory_lock(conn, "schema", wait=False) and (name := conn.scalar(unset)):
        conn.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = public, analytics, production")


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
    """True if the database matches what the datasets declare."""
    return _has_fingerprints(conn, _expected_fingerprints(datasets))


def undeclared(conn: Connection, datasets: Collection[Dataset]) -> tuple[str, str] | None:
    """Return a message naming tables and views that no dataset declares any more, and a command that drops them.

    None if there are none. They are never dropped automatically: they may hold the only copy of data.
    """
    declared = {(table.schema, table.name) for table in all_tables(datasets)}
    declared |= {(SCHEMA, name) for name in frame_owners(conn)}
    relations = [row for row in conn.execute(DATASET_RELATIONS) if (row.schema, row.name) not in declared]
    if not relations:
        return None
    preparer = conn.dialect.identifier_preparer
    names: dict[str, list[str]] = {"VIEW": [], "TABLE": []}
    for row in relations:
        names[row.kind].append(f"{row.schema}.{preparer.quote(row.name)}")
    drops = [f"DROP {kind} {', '.join(relation_names)}" for kind, relation_names in names.items() if relation_names]
    # Otherwise a dataset that is declared once more would be assumed to have its tables.
    known_names = ("ops", *(dataset.name for dataset in datasets))
    if unknown := sorted(name for name in _stored_fingerprints(conn) if name.split(":")[0] not in known_names):
        quoted = ", ".join(f"'{name}'" for name in unknown)
        drops.append(f"DELETE FROM ops.fingerprints WHERE name IN ({quoted})")  # noqa: S608 - they are plain names
    listing = ", ".join(name for relation_names in names.values() for name in relation_names)
    return (
        f"no dataset declares {listing} any more: what is there stays, and is not kept up to date",
        f"To drop it: {psql_command('; '.join(drops))}",
    )


DATASET_RELATIONS = text(
    """
    SELECT nspname AS schema, relname AS name, CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname IN ('analytics', 'production', 'quarantine', 'staging', 'ops') AND relkind IN ('r', 'p', 'v')
        AND (nspname <> 'ops' OR relname ~ '^(surrogates|gone)_') AND obj_description(pg_class.oid, 'pg_class') IS NOT NULL
    ORDER BY 1, 2
    """
)
"""Tables and views of datasets. All of them have a comment, which tables made by others seldom have."""


def _expected_fingerprints(datasets: Iterable[Dataset]) -> dict[str, str]:
    expected = _platform_fingerprint()
    for dataset in datasets:
        expected |= _dataset_fingerprints(dataset)
    return expected


def _platform_fingerprint() -> dict[str, str]:
    numbers = [f"{migration.number}: {migration.name}" for migration in migrations.MIGRATIONS]
    return {"ops": _fingerprint(platform_tables(), all_grants(platform_tables()), *numbers)}


@cache
def _dataset_fingerprints(dataset: Dataset) -> Mapping[str, str]:
    tables = dataset_tables(dataset)
    selects = [_compiled(tables.rows(computed)) for computed in dataset.computed]
    return {
        dataset.name: _fingerprint(_tables_and_views(dataset), *selects),
        # Separate, as a changed grant needs no recomputation.
        f"{dataset.name}:grants": hashlib.sha256(all_grants(_tables_and_views(dataset)).encode()).hexdigest(),
    }


def _has_fingerprints(conn: Connection, expected: dict[str, str]) -> bool:
    has_table = conn.scalar(text("SELECT to_regclass('ops.fingerprints')"))
    return bool(has_table) and expected.items() <= _stored_fingerprints(conn).items()


def _stored_fingerprints(conn: Connection) -> dict[str, str]:
    return {row.name: row.sha256 for row in conn.execute(select(fingerprints))}


def _fingerprint(tables: Iterable[Table], *extra: str) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    parts = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
    parts += [f"{c.name}: {c.comment}" for table in tables for c in table.columns]
    # Indexes are a set, whose order differs between processes.
    parts += sorted(str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes)
    return hashlib.sha256("\n".join([*parts, *extra]).encode()).hexdigest()


def _compiled(rows: Select[Any]) -> str:
    """Return the SQL of a select with its values inlined."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(rows.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _migrate(conn: Connection, dataset: Dataset) -> None:
    from mini_platform.rows.validation import refuse_expressions  # Imports polars and pandera.

    with reported(f"dataset {dataset.name}"):
        refuse_expressions(dataset)
    tables = dataset_tables(dataset)
    _refuse_taken(conn, _tables_and_views(dataset))
    advisory_lock(conn, "load", dataset.name)
    lock_aggregates(conn, dataset, *dataset.aggregates)
    changes.note(conn, dataset.name, changes.DECLARATION)
    inspector = inspect(conn)
    for table in tables_of(dataset, "rows"):
        if inspector.has_table(table.name, schema=table.schema):
            _alter_table(conn, table)
        else:
            table.create(conn)
    _refuse_names_of_frames(conn, dataset)
    _drop_computed(conn, tables)
    dirty_groups.clear_aggregates(conn, dataset)
    for table in tables_of(dataset, "keys"):
        _create_key_table(conn, table)
    empty = is_empty(conn, tables.production)
    for aggregate in dataset.aggregates:
        tables.aggregates[aggregate.name].create(conn)
        rows = tables.rows(aggregate).subquery()
        # Even over no rows a select may return one, such as a total.
        any_row = select(exists(select(literal(1)).select_from(rows))) if empty else rows.select().limit(0)
        has_rows = _try_select(conn, dataset, aggregate, any_row)
        if has_rows or not empty:
            dirty_groups.mark_all(conn, dataset, changes.aggregate(aggregate.name))
    for view in dataset.views:
        _try_select(conn, dataset, view, tables.rows(view).subquery().select().limit(0))
        _create_view(conn, tables.views[view.name], tables.rows(view))


def _refuse_taken(conn: Connection, tables: Iterable[Table]) -> None:
    """Refuse tables that others made, which would be changed or dropped; all tables of the platform have a comment."""
    for table in tables:
        if conn.scalar(WITHOUT_COMMENT, {"schema": table.schema, "name": table.name}):
            raise MismatchError(
                f"{table.fullname} exists already, and the platform did not make it: rename it, or what is declared"
            )


WITHOUT_COMMENT = text(
    """
    SELECT true FROM pg_class WHERE relnamespace = to_regnamespace(:schema) AND relname = :name
        AND obj_description(oid, 'pg_class') IS NULL
    """
)


def _try_select(conn: Connection, dataset: Dataset, computed: Aggregate | View, rows: Select[Any]) -> Any:
    """Return the first value of a select; raise DeclarationError if Postgres rejects it, now instead of in every run."""
    try:
        return conn.scalar(rows)
    except (ProgrammingError, DataError, NotSupportedError) as error:
        if isinstance(error, ProgrammingError) and is_refused(error):
            raise
        raise DeclarationError(f"{dataset.name}.{computed.name}: Postgres rejects its select: {error.orig}") from error


def _refuse_names_of_frames(conn: Connection, dataset: Dataset) -> None:
    owners = frame_owners(conn)
    for computed in dataset.computed:
        if computed.name in owners:
            raise MismatchError(
                f"{dataset.name}.{computed.name}: {SCHEMA}.{computed.name} is the table of the asset {owners[computed.name]}: "
                "give one of them another name"
            )


def _drop_computed(conn: Connection, tables: DatasetTables) -> None:
    """Drop the aggregates and views of a dataset: the next refresh computes them.

    Views in the schema `analytics` that read them are dropped too, and foreign keys that refer to them: an earlier declaration
    may have had others than the current one. Objects that others built upon them elsewhere are not dropped, and make this fail.
    """
    preparer = conn.dialect.identifier_preparer
    names = [*tables.aggregates, *tables.views]
    for name in conn.execute(DEPENDENT_VIEWS, {"names": [*names, tables.production.name]}).scalars():
        conn.execute(text(f"DROP VIEW IF EXISTS analytics.{preparer.quote(name)} CASCADE"))
    for table, constraint in conn.execute(DEPENDENT_FOREIGN_KEYS, {"names": names}).tuples().all():
        conn.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {preparer.quote(constraint)}"))
    # A view may have been an aggregate before.
    for table in (*tables.views.values(), *reversed(tables.aggregates.values())):
        table.drop(conn, checkfirst=True)


DEPENDENT_VIEWS = text(
    """
    SELECT DISTINCT view_name FROM information_schema.view_table_usage
    WHERE view_schema = 'analytics' AND table_schema IN ('analytics', 'production') AND table_name = ANY (:names)
    """
)
DEPENDENT_FOREIGN_KEYS = text(
    """
    SELECT conrelid::regclass::text, conname FROM pg_constraint JOIN pg_class ON pg_class.oid = confrelid
    WHERE contype = 'f' AND relnamespace = 'analytics'::regnamespace AND relname = ANY (:names)
    """
)


def _create_key_table(conn: Connection, table: Table) -> None:
    """Create a table with data about keys, such as surrogates; an existing one is kept unless the key itself changed."""
    inspector = inspect(conn)
    if inspector.has_table(table.name, schema=table.schema):
        columns = {
            c["name"]: c["type"].compile(conn.dialect) for c in inspector.get_columns(table.name, schema=table.schema)
        }
        if columns == {c.name: c.type.compile(conn.dialect) for c in table.columns}:
            return
        table.drop(conn)
    table.create(conn)


class _CreateView(ExecutableDDLElement):
    """`CREATE VIEW`, which SQLAlchemy does not have."""

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


def _alter_table(conn: Connection, table: Table) -> None:
    """Add declared columns and indexes that an existing table lacks, and adjust NOT NULL, comments and platform keys."""
    # Only changes that cannot lose data are made: a new column must be nullable, have a default, or find the table empty; NOT
    # NULL is set only if no row has a NULL; types and keys of datasets never change. The one key that does is the platform's
    # own (`_` columns) getting longer: rows that were distinct by the shorter key remain distinct.
    inspector = inspect(conn)
    column_info = {c["name"]: c for c in inspector.get_columns(table.name, schema=table.schema)}
    types = {name: c["type"] for name, c in column_info.items()}
    preparer = conn.dialect.identifier_preparer
    for column in table.columns:
        if column.name not in types:
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
        elif len({kind.compile(conn.dialect).split(" COLLATE")[0] for kind in (types[column.name], column.type)}) > 1:
            if _is_counter(column_info[column.name]):
                raise MismatchError(_counter_error(conn, table, column))
            raise MismatchError(
                f"{table.fullname}.{column.name} is {types[column.name]} in the database and {column.type} in the "
                "declaration: change its type in the database first"
            )
        elif column_info[column.name]["nullable"] != column.nullable:
            _set_nullable(conn, table, column)
        if _is_counter(column_info.get(column.name, {})):
            _drop_counter(conn, table, column)
        conn.execute(SetColumnComment(column))
    constraint = inspector.get_pk_constraint(table.name, schema=table.schema)
    key, declared = constraint["constrained_columns"], [c.name for c in table.primary_key]
    if key != declared and key == declared[: len(key)] and all(name.startswith("_") for name in declared):
        name = preparer.quote(str(constraint["name"]))
        conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} DROP CONSTRAINT {name}"))
        conn.execute(AddConstraint(table.primary_key, isolate_from_table=False))
    elif key != declared:
        raise MismatchError(f"{table.fullname} has the key {key} in the database and another one in the declaration")
    indexes = {index["name"] for index in inspector.get_indexes(table.name, schema=table.schema)}
    for index in table.indexes:
        if index.name not in indexes:
            index.create(conn)


def _is_counter(column_info: Mapping[str, Any]) -> bool:
    """True if a column is filled from a sequence: earlier versions did that to any number that alone was the key."""
    return str(column_info.get("default") or "").startswith("nextval(")


def _drop_counter(conn: Connection, table: Table, column: Column[Any]) -> None:
    """Drop the sequence that a column is filled from; its values stay."""
    preparer = conn.dialect.identifier_preparer
    name = preparer.format_table(table)
    counter = conn.scalar(select(func.pg_get_serial_sequence(name, column.name)))
    conn.execute(text(f"ALTER TABLE {name} ALTER COLUMN {preparer.quote(column.name)} DROP DEFAULT"))
    if counter:
        conn.execute(text(f"DROP SEQUENCE {counter}"))


def _counter_error(conn: Connection, table: Table, column: Column[Any]) -> str:
    """Return a message: an earlier version truncated the values of a key, and the raw files restore them."""
    name = conn.dialect.identifier_preparer.format_table(table)
    drop = psql_command(f"DROP TABLE {name} CASCADE")
    return (
        f"{table.fullname}.{column.name} was made a counter of whole numbers by an earlier version, which cut off all "
        "decimals when rows were loaded. The raw files have them: drop the table with "
        f"`{drop}`, then load its files with `mini-platform reprocess {table.info['dataset']}`"
    )


def _set_nullable(conn: Connection, table: Table, column: Column[Any]) -> None:
    """Set or drop NOT NULL on an existing column, as declared."""
    if not column.nullable and conn.scalar(select(func.count()).select_from(table).where(column.is_(None))):
        raise MismatchError(
            f"{table.fullname}.{column.name} may not be empty any more, but is empty in some rows: fill it there first"
        )
    preparer = conn.dialect.identifier_preparer
    names = (preparer.format_table(table), preparer.quote(column.name))
    conn.execute(
        text("ALTER TABLE {} ALTER COLUMN {} {} NOT NULL".format(*names, "DROP" if column.nullable else "SET"))
    )
