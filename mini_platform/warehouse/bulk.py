"""Filling a table in bulk: without its key, indexes and constraints, which are built afterwards, each in one pass.

Not here: making tables (`schema.py`), and who fills them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, ForeignKeyConstraint, Table, UniqueConstraint, exists, inspect, literal, select, text
from sqlalchemy.schema import AddConstraint


def owns(conn: Connection, table: Table) -> bool:
    """Whether the user of the database may change a table, and not only its rows."""
    name = conn.dialect.identifier_preparer.format_table(table)
    owner = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = CAST(:name AS regclass)")
    return bool(conn.scalar(owner, {"name": name}))


def is_empty(conn: Connection, table: Table) -> bool:
    """Whether a table has no row."""
    return not conn.scalar(select(exists(select(literal(1)).select_from(table))))


@contextmanager
def filled_in_bulk(conn: Connection, table: Table) -> Iterator[None]:
    """Have an empty table filled inside without key, constraints and indexes, which are built afterwards, each in one pass.

    A user who does not own it fills it as it is, which takes longer.
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
    """Take key, constraints and indexes off an empty table, to put them back by `build_indexes` once it is filled.

    Foreign keys that refer to it go too: the tables that have them are empty as well.
    """
    preparer = conn.dialect.identifier_preparer
    _drop_constraints(conn, referring(table))
    drop_foreign_keys(conn, table)
    found = inspect(conn)
    constraints = [
        *found.get_unique_constraints(table.name, schema=table.schema),
        found.get_pk_constraint(table.name, schema=table.schema),
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
    """Let rows refer to nothing until `build_foreign_keys`, in the same transaction."""
    _drop_constraints(conn, table.foreign_key_constraints)


def build_foreign_keys(conn: Connection, table: Table) -> None:
    """Put the foreign keys of a table back: all of its rows are checked in one pass for each."""
    for constraint in _by_name(table.foreign_key_constraints):
        conn.execute(AddConstraint(constraint, isolate_from_table=False))


def _drop_constraints(conn: Connection, constraints: Iterable[ForeignKeyConstraint]) -> None:
    preparer = conn.dialect.identifier_preparer
    for constraint in constraints:
        name = preparer.quote(str(constraint.name))
        conn.execute(text(f"ALTER TABLE {preparer.format_table(constraint.table)} DROP CONSTRAINT IF EXISTS {name}"))


def referring(table: Table) -> list[ForeignKeyConstraint]:
    """Foreign keys of other tables that refer to this one."""
    others = (constraint for other in table.metadata.tables.values() for constraint in other.foreign_key_constraints)
    return _by_name(constraint for constraint in others if constraint.referred_table is table)


def _by_name(constraints: Iterable[ForeignKeyConstraint]) -> list[ForeignKeyConstraint]:
    return sorted(constraints, key=lambda constraint: str(constraint.name))
