"""Migrations of the tables that belong to no dataset: numbered, each made once, in its order, and recorded in `ops.migrations`.

Here: the list, and what brings a database up to it. A new database is made from the declaration (`tables/ops.py`) at the
newest number, and a test holds that a database of each number before comes to be the same. Not here: tables of datasets,
which follow what is declared (`schema.py`).

Our own, and not Alembic, which comes with Dagster: of what it does, only the list would be used. The lock, the role that owns
the schema, a transaction for each, databases without a number and the refusal of newer ones are to be written in either case,
and are all that there is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, insert, select, text

from mini_platform.config.faultpoints import failpoint
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.migrations import m0001_unnumbered, m0002_dirty_groups, m0003_words
from mini_platform.warehouse.migrations.migration import Migration
from mini_platform.warehouse.roles import become_owner
from mini_platform.warehouse.tables import migrations as recorded

MIGRATIONS = (m0001_unnumbered.MIGRATION, m0002_dirty_groups.MIGRATION, m0003_words.MIGRATION)
NEWEST = MIGRATIONS[-1].number


class NewerDatabaseError(RuntimeError):
    """The database was changed by newer code than this; the message is a sentence."""


def bring_up(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Make the migrations that a database lacks, each in a transaction of its own, as who owns the schema.

    A database that has no tables yet is left as it is. A process that is killed leaves the rest to the next one.

    Raises:
        NewerDatabaseError: the database has a migration that is not known here.
        ProgrammingError: the user of the database may not change tables.
    """
    while _make_next(engine, migrations):
        pass


def _make_next(engine: Engine, migrations: Sequence[Migration]) -> bool:
    """Make the first migration that is missing; False if there was none."""
    with engine.begin() as conn:
        advisory_lock(conn, "schema")
        if (made := _made(conn)) is None:
            return False
        missing = [migration for migration in migrations if migration.number not in made]
        if made - {migration.number for migration in migrations}:
            raise NewerDatabaseError(
                f"The database was changed by a newer version of Mini Platform (its tables have the number {max(made)}, and "
                f"this version knows them up to {migrations[-1].number}): install that version, or a later one."
            )
        if not missing:
            return False
        become_owner(conn)
        recorded.create(conn, checkfirst=True)
        conn.execute(text(missing[0].statements))
        record(conn, missing[:1])
        failpoint("migration.before_commit")
    return True


def _made(conn: Connection) -> set[int] | None:
    """Return the numbers of the migrations that a database has; None if it has no tables yet."""
    found = conn.execute(
        text("SELECT to_regclass('ops.files') AS files, to_regclass('ops.migrations') AS numbers")
    ).one()
    if found.numbers:
        return set(conn.execute(select(recorded.c.number)).scalars())
    return set() if found.files else None


def record(conn: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Record, in the caller's transaction, that the tables are as these migrations leave them."""
    conn.execute(insert(recorded), [{"number": item.number, "name": item.name} for item in migrations])
