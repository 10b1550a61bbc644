"""Separate roles for a database, and logins for them: what an administrator does once, the owner after each change.

Here: making the roles, giving the owner what the platform has, logins with passwords. Not here: who may do what (`roles.py`),
the tables (`schema.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.roles import (
    LOADER,
    OWNER,
    ROLES,
    TAKEN_ON,
    RolesError,
    become_owner,
    existing,
    grant,
    is_refused,
    make_roles,
)
from mini_platform.warehouse.schema import all_tables, create_all
from mini_platform.warehouse.tables import SCHEMAS

DAGSTER = "dagster"
"""Schema of Dagster's tables, which Dagster makes."""
SHORTEST_PASSWORD = 16

TAKE_OVER = f"""
DO $$ DECLARE item record; BEGIN
    FOR item IN SELECT oid::regnamespace AS name FROM pg_namespace
        WHERE nspname IN ('{"', '".join((*SCHEMAS, DAGSTER))}') AND nspowner <> '{OWNER}'::regrole
    LOOP
        EXECUTE format('ALTER SCHEMA %s OWNER TO {OWNER}', item.name);
    END LOOP;
    -- Indexes, and sequences of columns, follow their tables.
    FOR item IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname IN ('{"', '".join((*SCHEMAS, DAGSTER))}') AND relowner <> '{OWNER}'::regrole
        AND relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO {OWNER}', item.name);
    END LOOP;
END $$
"""  # noqa: S608 - constants

DAGSTER_GRANTS = f"""
GRANT USAGE ON SCHEMA {DAGSTER} TO {LOADER};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {DAGSTER} TO {LOADER};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {DAGSTER} TO {LOADER};
"""


def initialize(engine: Engine, datasets: Collection[Dataset]) -> None:
    """Make the roles, give their owner all that the platform has in the database, and grant the others what is theirs.

    Changes nothing where all of that is so. Tables of Dagster are given away and granted where they are there.

    Raises:
        RolesError: the user of the database may not do that.
        ValueError: a declared change cannot be made without losing data.
    """
    try:
        with engine.begin() as conn:
            advisory_lock(conn, "schema")
            if missing := set(ROLES) - set(existing(conn)):
                make_roles(conn, sorted(missing))
            if not conn.scalar(
                text("SELECT bool_and(pg_has_role(:loader, name, 'MEMBER')) FROM unnest(:names) AS name"),
                {"loader": LOADER, "names": list(TAKEN_ON)},
            ):
                conn.exec_driver_sql(f"GRANT {', '.join(TAKEN_ON)} TO {LOADER}")
            if not conn.scalar(
                text("SELECT has_database_privilege(:owner, current_database(), 'CREATE')"), {"owner": OWNER}
            ):
                name = conn.scalar(text("SELECT quote_ident(current_database())"))
                conn.exec_driver_sql(f"GRANT CREATE ON DATABASE {name} TO {OWNER}")
            conn.execute(text(TAKE_OVER))
        create_all(engine, datasets)
        with engine.begin() as conn:
            advisory_lock(conn, "schema")
            conn.execute(text(TAKE_OVER))  # What was missing until now.
            become_owner(conn)
            grant(conn, all_tables(datasets))
            if conn.scalar(text("SELECT to_regnamespace(:name)"), {"name": DAGSTER}):
                conn.exec_driver_sql(DAGSTER_GRANTS)
    except ProgrammingError as error:
        if is_refused(error):
            said = error.orig.diag.message_primary if isinstance(error.orig, psycopg2.Error) else error.orig
            raise RolesError(
                f"This user of the database may not do that ({said}): the first time, DATABASE_URL should name an "
                "administrator of the server."
            ) from error
        raise


def has_dagster(engine: Engine) -> bool:
    """Whether Dagster made its tables."""
    with engine.connect() as conn:
        found = text("SELECT count(*) FROM pg_class WHERE relname = 'runs' AND relnamespace = to_regnamespace(:name)")
        return bool(conn.scalar(found, {"name": DAGSTER}))


def is_initialized(conn: Connection) -> bool:
    """Whether the owner of the platform's schemas is the role that is made for it."""
    owner = text("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'ops'")
    return bool(conn.scalar(owner) == OWNER)


def make_login(conn: Connection, name: str, role: str, password: str | None = None) -> str:
    """Make a login that is a member of a role, or give one that there is a new password.

    The server is told a SCRAM verifier that is computed here: the password is in no log of it.

    Args:
        conn: of an administrator.
        name: of the login.
        role: one of `ROLES`.
        password: of the login; without one, it is made.

    Returns:
        The password.

    Raises:
        RolesError: the name is somebody else's, the password is too short, or the user may not make logins.
    """
    password = password or secrets.token_urlsafe(32)
    if len(password) < SHORTEST_PASSWORD:
        raise RolesError(f"The password should have at least {SHORTEST_PASSWORD} characters.")
    if role not in existing(conn):
        raise RolesError("The roles are not there yet: run `mini-platform db init` first.")
    found = conn.execute(FOUND, {"name": name, "role": role}).first()
    if found and not found.ours:
        raise RolesError(f"There is a role {name} already, and it is no login of {role}: choose another name.")
    raw: Any = conn.connection.driver_connection
    verifier = encrypt_password(password, name, raw, "scram-sha-256")
    words = sql.SQL("ALTER ROLE {} PASSWORD {}" if found else "CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
    parts = [sql.Identifier(name), sql.Literal(verifier), *([] if found else [sql.Identifier(role)])]
    try:
        with raw.cursor() as cursor:
            cursor.execute(words.format(*parts))
    except psycopg2.ProgrammingError as error:
        raise RolesError(f"The login cannot be made: {error.diag.message_primary}.") from None
    return password


FOUND = text(
    """
    SELECT rolcanlogin AND NOT rolsuper AND NOT rolcreaterole AND EXISTS (
        SELECT FROM pg_auth_members WHERE member = pg_roles.oid AND roleid = to_regrole(:role)
    ) AS ours
    FROM pg_roles WHERE rolname = :name
    """
)
