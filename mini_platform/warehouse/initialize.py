"""Setting up separate roles in a database, and logins for them: once as an administrator, after each change as the owner.

Here: creating roles, making the owner role the owner of all tables, logins with passwords. Not here: the privileges of roles
(`roles.py`), the tables (`schema.py`).
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
from mini_platform.warehouse.frames import frame_tables
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.roles import (
    LOADER,
    OWNER,
    READER_ROLES,
    ROLES,
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
"""Schema of Dagster's tables, which Dagster creates."""
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


def initialize(engine: Engine, datasets: Collection[Dataset]) -> dict[str, ValueError]:
    """Create the roles, make the owner role the owner of all of the platform's tables, and grant the others their privileges.

    Changes nothing if all of that is in place. Includes Dagster's tables if they exist.

    Returns:
        The datasets whose tables cannot be made or changed, as of `create_all`.

    Raises:
        RolesError: the database user may not do that.
    """
    try:
        with engine.begin() as conn:
            advisory_lock(conn, "schema")
            if missing := set(ROLES) - set(existing(conn)):
                make_roles(conn, sorted(missing))
            if not conn.scalar(
                text("SELECT bool_and(pg_has_role(:loader, name, 'MEMBER')) FROM unnest(:names) AS name"),
                {"loader": LOADER, "names": list(READER_ROLES)},
            ):
                conn.exec_driver_sql(f"GRANT {', '.join(READER_ROLES)} TO {LOADER}")
            if not conn.scalar(
                text("SELECT has_database_privilege(:owner, current_database(), 'CREATE')"), {"owner": OWNER}
            ):
                name = conn.scalar(text("SELECT quote_ident(current_database())"))
                conn.exec_driver_sql(f"GRANT CREATE ON DATABASE {name} TO {OWNER}")
            conn.execute(text(TAKE_OVER))
        refused = create_all(engine, datasets)
        with engine.begin() as conn:
            advisory_lock(conn, "schema")
            conn.execute(text(TAKE_OVER))  # For what `create_all` created.
            become_owner(conn)
            declared = all_tables(dataset for dataset in datasets if dataset.name not in refused)
            grant(conn, [*declared, *frame_tables(conn)])
            if conn.scalar(text("SELECT to_regnamespace(:name)"), {"name": DAGSTER}):
                conn.exec_driver_sql(DAGSTER_GRANTS)
    except ProgrammingError as error:
        if is_refused(error):
            message = error.orig.diag.message_primary if isinstance(error.orig, psycopg2.Error) else error.orig
            raise RolesError(
                f"This database user may not do that ({message}): for the first `db init`, DATABASE_URL should be that of an "
                "administrator of the server."
            ) from error
        raise
    return refused


def has_dagster(engine: Engine) -> bool:
    """True if Dagster has created its tables."""
    with engine.connect() as conn:
        statement = text(
            "SELECT count(*) FROM pg_class WHERE relname = 'runs' AND relnamespace = to_regnamespace(:name)"
        )
        return bool(conn.scalar(statement, {"name": DAGSTER}))


def is_initialized(conn: Connection) -> bool:
    """True if the platform's schemas belong to the owner role."""
    owner = text("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'ops'")
    return bool(conn.scalar(owner) == OWNER)


def make_login(conn: Connection, name: str, role: str, password: str | None = None) -> str:
    """Create a login that is a member of a role, or set a new password for an existing one.

    The SCRAM verifier is computed here and sent to the server, so that the password cannot appear in the server's log.

    Args:
        conn: connection of an administrator.
        name: name of the login.
        role: one of `ROLES`.
        password: password of the login; generated if None.

    Returns:
        The password.

    Raises:
        RolesError: the name is taken by another role, the password is too short, or the user may not create logins.
    """
    password = password or secrets.token_urlsafe(32)
    if len(password) < SHORTEST_PASSWORD:
        raise RolesError(f"The password should have at least {SHORTEST_PASSWORD} characters.")
    if role not in existing(conn):
        raise RolesError("The roles do not exist yet: run `mini-platform db init` first.")
    login = conn.execute(LOGIN, {"name": name, "role": role}).first()
    if login and not login.ours:
        raise RolesError(f"There is a role {name} already, and it is not a login of {role}: choose another name.")
    raw: Any = conn.connection.driver_connection
    verifier = encrypt_password(password, name, raw, "scram-sha-256")
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}" if login else "CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
    parts = [sql.Identifier(name), sql.Literal(verifier), *([] if login else [sql.Identifier(role)])]
    try:
        with raw.cursor() as cursor:
            cursor.execute(statement.format(*parts))
    except psycopg2.ProgrammingError as error:
        raise RolesError(f"The login cannot be created: {error.diag.message_primary}.") from None
    return password


LOGIN = text(
    """
    SELECT rolcanlogin AND NOT rolsuper AND NOT rolcreaterole AND EXISTS (
        SELECT FROM pg_auth_members WHERE member = pg_roles.oid AND roleid = to_regrole(:role)
    ) AS ours
    FROM pg_roles WHERE rolname = :name
    """
)
