"""Migrations of the tables that belong to no dataset: numbered, each applied once, in order, and recorded in `ops.migrations`.

Here: the list, and applying it to a database. A new database is created from the definitions (`tables/ops.py`) at the newest
number, and a test checks that migrating a database of each earlier number has the same result. Not here: tables of datasets,
which follow the declaration (`schema.py`).

This does not use Alembic, which comes with Dagster: of its features, only the list would be used. The lock, the role that
owns the schema, a transaction for each migration, databases without a number and the refusal of newer ones would be needed
in either case, and are all that this module has.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, insert, select, text

from mini_platform.config.faultpoints import failpoint
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.migrations import m0001_unnumbered, m0002_dirty_groups, m0003_words, m0004_sessions
from mini_platform.warehouse.migrations.migration import Migration
from mini_platform.warehouse.roles import become_owner
from mini_platform.warehouse.tables import migrations as migrations_table

MIGRATIONS = (
    m0001_unnumbered.MIGRATION,
    m0002_dirty_groups.MIGRATION,
    m0003_words.MIGRATION,
    m0004_sessions.MIGRATION,
)
NEWEST = MIGRATIONS[-1].number


class NewerDatabaseError(RuntimeError):
    """The database was migrated by a newer version than this; the message says to which number."""


def migrate(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Apply the migrations that a database lacks, each in a transaction of its own, as the owner of the schema.

    A database without tables is not changed. If the process is killed, the next one applies the rest.

    Raises:
        NewerDatabaseError: the database has a migration that this version does not know.
        ProgrammingError: the user of the database may not change tables.
    """
    while _apply_next(engine, migrations):
        pass


def _apply_next(engine: Engine, migrations: Sequence[Migration]) -> bool:
    """Apply the first missing migration; return False if there is none."""
    with engine.begin() as conn:
        advisory_lock(conn, "schema")
        refuse_newer(conn, migrations)
        if (applied := _applied(conn)) is None:
            return False
        missing = [migration for migration in migrations if migration.number not in applied]
        if not missing:
            return False
        become_owner(conn)
        migrations_table.create(conn, checkfirst=True)
        conn.execute(text(missing[0].statements))
        record(conn, missing[:1])
        failpoint("migration.before_commit")
    return True


def refuse_newer(conn: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Raise a NewerDatabaseError if the database has a migration that this version does not know; nothing is changed."""
    if unknown := (_applied(conn) or set()) - {migration.number for migration in migrations}:
        raise NewerDatabaseError(
            f"The database was migrated by a newer version of Mini Platform (to number {max(unknown)}, and "
            f"this version knows numbers up to {migrations[-1].number}): install that version, or a later one."
        )


def _applied(conn: Connection) -> set[int] | None:
    """Return the numbers of the migrations applied to a database; None if it has no tables yet."""
    tables = conn.execute(
        text("SELECT to_regclass('ops.files') AS files, to_regclass('ops.migrations') AS numbers")
    ).one()
    if tables.numbers:
        return set(conn.execute(select(migrations_table.c.number)).scalars())
    return set() if tables.files else None


def record(conn: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Record, in the caller's transaction, that these migrations are applied."""
    conn.execute(insert(migrations_table), [{"number": item.number, "name": item.name} for item in migrations])
