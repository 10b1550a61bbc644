"""Making the declared tables exist: create what is missing, add what was added, rebuild what is derived.

Nothing that holds the only copy of data is ever dropped here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, exists, func, insert, inspect, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.schema import AddConstraint, CreateColumn, CreateIndex, CreateSchema, CreateTable, SetColumnComment

from mini_platform.dataset import Dataset
from mini_platform.datasets import all_datasets
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import (
    SCHEMAS,
    dataset_tables,
    fingerprints,
    ops_metadata,
    quality_report,
    touched,
)


def create_all(engine: Engine, datasets: Iterable[Dataset] | None = None) -> None:
    """Bring the database to what the datasets declare; costs one query when nothing was changed since the last time.

    Raises:
        ValueError: a declared change cannot be made without losing data (a type or a key changed).
    """
    chosen = list(all_datasets().values() if datasets is None else datasets)
    wanted = {"ops": _fingerprint([*ops_metadata.sorted_tables, quality_report])}
    wanted |= {dataset.name: _dataset_fingerprint(dataset) for dataset in chosen}
    with engine.begin() as conn:
        if conn.scalar(text("SELECT to_regclass('ops.fingerprints')")) and wanted.items() <= _stored(conn).items():
            return
        advisory_lock(conn, "schema")
        for schema in SCHEMAS:
            conn.execute(CreateSchema(schema, if_not_exists=True))
        existing = inspect(conn)
        for table in (*ops_metadata.sorted_tables, quality_report):
            if existing.has_table(table.name, schema=table.schema):
                _add_to(conn, table)
            else:
                table.create(conn)
        stored = _stored(conn)
        for dataset in chosen:
            if stored.get(dataset.name) != wanted[dataset.name]:
                _migrate(conn, dataset)
        for name, sha256 in wanted.items():
            statement = upsert(fingerprints).values(name=name, sha256=sha256)
            conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"sha256": sha256}))


def _stored(conn: Connection) -> dict[str, str]:
    return {row.name: row.sha256 for row in conn.execute(select(fingerprints))}


def _fingerprint(tables: Iterable[Table], *more: str) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    words = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
    words += [f"{c.name}: {c.comment}" for table in tables for c in table.columns]
    words += [str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes]
    return hashlib.sha256("\n".join([*words, *more]).encode()).hexdigest()


def _dataset_fingerprint(dataset: Dataset) -> str:
    tables = dataset_tables(dataset)
    selects = [str(aggregate.select(tables.production)) for aggregate in dataset.aggregates]
    return _fingerprint(tables.all, *selects)


def _migrate(conn: Connection, dataset: Dataset) -> None:
    tables = dataset_tables(dataset)
    existing = inspect(conn)
    for table in (tables.staging, tables.production, tables.quarantine):
        if existing.has_table(table.name, schema=table.schema):
            _add_to(conn, table)
        else:
            table.create(conn)
    for name, table in tables.aggregates.items():
        # Derived: dropped and computed again by the next refresh.
        table.drop(conn, checkfirst=True)
        table.create(conn)
        if not conn.scalar(select(exists(select(tables.production.c._file_id)))):
            continue  # Nothing to compute.
        conn.execute(insert(touched).values(dataset=dataset.name, aggregate=name, group_key=None))


def _add_to(conn: Connection, table: Table) -> None:
    """Add declared columns and indexes that an existing table lacks."""
    found = inspect(conn)
    existing = {c["name"]: c for c in found.get_columns(table.name, schema=table.schema)}
    columns = {name: c["type"] for name, c in existing.items()}
    preparer = conn.dialect.identifier_preparer
    for column in table.columns:
        if column.name not in columns:
            if not column.nullable and conn.scalar(select(func.count()).select_from(table)):
                raise ValueError(f"{table.fullname}.{column.name} is new and may not be empty, but the table has rows")
            definition = CreateColumn(column).compile(dialect=conn.dialect)
            conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {definition}"))
        elif len({kind.compile(conn.dialect).split(" COLLATE")[0] for kind in (columns[column.name], column.type)}) > 1:
            raise ValueError(
                f"{table.fullname}.{column.name} is {columns[column.name]} in the database and {column.type} in the "
                "declaration: change its type in the database first"
            )
        elif existing[column.name]["nullable"] != column.nullable:
            _set_nullable(conn, table, column)
        conn.execute(SetColumnComment(column))
    key = found.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"]
    if key != [c.name for c in table.primary_key]:
        raise ValueError(f"{table.fullname} has the key {key} in the database and another one in the declaration")
    indexes = {index["name"] for index in found.get_indexes(table.name, schema=table.schema)}
    for index in table.indexes:
        if index.name not in indexes:
            index.create(conn)


def _set_nullable(conn: Connection, table: Table, column: Column[Any]) -> None:
    """Let an existing column be empty, or forbid it."""
    if not column.nullable and conn.scalar(select(func.count()).select_from(table).where(column.is_(None))):
        raise ValueError(
            f"{table.fullname}.{column.name} may not be empty any more, but is in some rows: fill them first"
        )
    preparer = conn.dialect.identifier_preparer
    names = (preparer.format_table(table), preparer.quote(column.name))
    conn.execute(
        text("ALTER TABLE {} ALTER COLUMN {} {} NOT NULL".format(*names, "DROP" if column.nullable else "SET"))
    )


def drop_indexes(conn: Connection, table: Table) -> None:
    """Take the key and the indexes off an empty table, to put them back by `build_indexes` once it is filled."""
    preparer = conn.dialect.identifier_preparer
    name = inspect(conn).get_pk_constraint(table.name, schema=table.schema)["name"]
    if name:
        conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} DROP CONSTRAINT {preparer.quote(name)}"))
    for index in table.indexes:
        index.drop(conn, checkfirst=True)


def build_indexes(conn: Connection, table: Table) -> None:
    """Build the key and the declared indexes of a filled table, each in one sort."""
    conn.execute(AddConstraint(table.primary_key, isolate_from_table=False))
    for index in table.indexes:
        index.create(conn)
