"""Filling a table in bulk: without its key, indexes and constraints, which are built afterwards, each in one pass.

Not here: creating tables (`schema.py`), and the modules that fill them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, ForeignKeyConstraint, Table, UniqueConstraint, exists, inspect, literal, select, text
from sqlalchemy.schema import AddConstraint


def owns(conn: Connection, table: Table) -> bool:
    """Return True if the user of the database may alter a table, and not only its rows."""
    name = conn.dialect.identifier_preparer.format_table(table)
    owner = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = CAST(:name AS regclass)")
    return bool(conn.scalar(owner, {"name": name}))


def is_empty(conn: Connection, table: Table) -> bool:
    """Return True if a table has no rows."""
    return not conn.scalar(select(exists(select(literal(1)).select_from(table))))


@contextmanager
def filled_in_bulk(conn: Connection, table: Table) -> Iterator[None]:
    """Drop key, constraints and indexes of an empty table that the body fills, and build them afterwards, each in one pass.

    For a user who does not own the table they stay, and filling it takes longer.
    """
    if not owns(conn, table):
        yield
        return
    if not referring(table):
        # TRUNCATE in the same transaction lets the server skip the log where its wal_level is minimal.
        conn.execute(text(f"TRUNCATE {conn.dialect.identifier_preparer.format_table(table)}"))
    drop_indexes(conn, table)
    yield
    build_indexes(conn, table)


def drop_indexes(conn: Connection, table: Table) -> None:
    """Drop key, constraints and indexes of an empty table; `build_indexes` builds them again once it is filled.

    Foreign keys that refer to it are dropped too: the tables that have them are empty as well.
    """
    preparer = conn.dialect.identifier_preparer
    _drop_constraints(conn, referring(table))
    drop_foreign_keys(conn, table)
    inspector = inspect(conn)
    constraints = [
        *inspector.get_unique_constraints(table.name, schema=table.schema),
        inspector.get_pk_constraint(table.name, schema=table.schema),
    ]
    for name in filter(None, (constraint["name"] for constraint in constraints)):
        conn.execute(text(f"ALTER TABLE {preparer.format_table(table)} DROP CONSTRAINT {preparer.quote(name)}"))
    for index in table.indexes:
        index.drop(conn, checkfirst=True)


def build_indexes(conn: Connection, table: Table) -> None:
    """Build the key, the declared indexes and the constraints of a filled table, each in one pass."""
    conn.execute(AddConstraint(table.primary_key, isolate_from_table=False))
    for index in table.indexes:
        index.create(conn)
    unique = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    for constraint in (*unique, *referring(table)):
        conn.execute(AddConstraint(constraint, isolate_from_table=False))
    build_foreign_keys(conn, table)


def drop_foreign_keys(conn: Connection, table: Table) -> None:
    """Drop the foreign keys of a table until `build_foreign_keys`, in the same transaction."""
    _drop_constraints(conn, table.foreign_key_constraints)


def build_foreign_keys(conn: Connection, table: Table) -> None:
    """Build the foreign keys of a table again: each checks all of its rows in one pass."""
    for constraint in _by_name(table.foreign_key_constraints):
        conn.execute(AddConstraint(constraint, isolate_from_table=False))


def _drop_constraints(conn: Connection, constraints: Iterable[ForeignKeyConstraint]) -> None:
    preparer = conn.dialect.identifier_preparer
    for constraint in constraints:
        name = preparer.quote(str(constraint.name))
        conn.execute(text(f"ALTER TABLE {preparer.format_table(constraint.table)} DROP CONSTRAINT IF EXISTS {name}"))


def referring(table: Table) -> list[ForeignKeyConstraint]:
    """Return the foreign keys of other tables that refer to this one."""
    others = (constraint for other in table.metadata.tables.values() for constraint in other.foreign_key_constraints)
    return _by_name(constraint for constraint in others if constraint.referred_table is table)


def _by_name(constraints: Iterable[ForeignKeyConstraint]) -> list[ForeignKeyConstraint]:
    return sorted(constraints, key=lambda constraint: str(constraint.name))
