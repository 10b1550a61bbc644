"""Database roles: their privileges on each table, and the GRANT statements for them.

Privileges are derived from the tables (`privileges`), so that datasets that are declared later, and columns that become
personal, are granted by the same rules. A platform with a single database user needs no roles; the two reader roles are created
if that user may create roles. `initialize.py` creates all of them. Roles belong to the server, not to a database: several
platforms on one server share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, ProgrammingError

OWNER = "mini_platform_owner"
LOADER = "mini_platform_loader"
READER = "mini_platform_reader"
PERSONAL = "mini_platform_personal"
BI = "mini_platform_bi"
ROLES = {
    OWNER: "owns schemas and tables, and is the only role that changes them",
    LOADER: "runs the platform: reads and writes rows, but changes neither tables nor grants",
    READER: "reads what is served, except personal data, staging and keys",
    PERSONAL: "reads the same and personal data: for API keys that may read it",
    BI: "reads production and analytics, except personal data: for Metabase and similar tools",
}
"""Role -> description. They cannot log in; logins are members of them."""
ASSUMED_ROLES = (READER, PERSONAL)
"""Roles that the API assumes to read."""

SERVED_SCHEMAS = ("ops", "production", "quarantine", "analytics")
ROLE_SCHEMAS = {
    LOADER: (*SERVED_SCHEMAS, "staging"),
    READER: SERVED_SCHEMAS,
    PERSONAL: SERVED_SCHEMAS,
    BI: ("production", "analytics"),
}
"""Role -> the schemas that it may use."""
SECRET_TABLES = ("ops.api_keys", "ops.sessions", "ops.pages")
"""Hashes of API keys and sessions, and URLs that may contain credentials: only owner and loader may read them."""
OWNER_WRITTEN = ("ops.fingerprints", "ops.migrations")
"""Tables that only the owner writes."""
APPEND_ONLY = ("ops.audit",)
"""Tables to which the loader may only add rows."""

INSUFFICIENT_PRIVILEGE = "42501"


class RolesError(Exception):
    """The database user lacks a privilege, or a role cannot be created. The message is a sentence."""


Privilege = tuple[str, str, tuple[str, ...]]
"""A role, the actions that it may do on a table, and the columns that they are limited to (empty: not limited)."""


def is_open(column: Column[object]) -> bool:
    """True if a column cannot contain personal data; in rejected rows of datasets with personal data, any column may."""
    return not (column.info.get("personal") or column.info.get("shaped"))


def privileges(table: Table) -> Iterator[Privilege]:
    """Yield the privileges of each role on a table or a view, except the owner, who has all."""
    name, schema = table.fullname, str(table.schema)
    yield LOADER, _loader_privileges(table), ()
    if name in SECRET_TABLES:
        return
    has_open_columns_only = all(map(is_open, table.columns))
    columns = () if has_open_columns_only else tuple(column.name for column in table.columns if is_open(column))
    for role in (READER, BI):
        if schema in ROLE_SCHEMAS[role] and (has_open_columns_only or columns):
            yield role, "SELECT", columns
    if schema in ROLE_SCHEMAS[PERSONAL]:
        yield PERSONAL, "SELECT", ()


def _loader_privileges(table: Table) -> str:
    if table.info.get("view") or table.fullname in OWNER_WRITTEN:
        return "SELECT"
    if table.fullname in APPEND_ONLY:
        return "SELECT, INSERT"
    return "SELECT, INSERT, UPDATE, DELETE" + (", TRUNCATE" if table.schema == "staging" else "")


@cache
def grants(role: str, tables: tuple[Table, ...]) -> str:
    """Return the statements that give a role exactly its privileges on these tables."""
    preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    schemas = ", ".join(ROLE_SCHEMAS[role])
    statements = [f"GRANT USAGE ON SCHEMA {schemas} TO {role}"]
    for table in tables:
        name = preparer.format_table(table)
        statements.append(f"REVOKE ALL ON {name} FROM {role}")
        for _, actions, columns in (item for item in privileges(table) if item[0] == role):
            column_list = f" ({', '.join(map(preparer.quote, columns))})" if columns else ""
            statements.append(f"GRANT {actions}{column_list} ON {name} TO {role}")
        if role == LOADER:
            statements += _sequence_grants(name, table)
    return ";\n".join(statements)


def _sequence_grants(name: str, table: Table) -> Iterator[str]:
    """Yield the grants on the sequences from which the loader numbers rows itself, as rows of adopted tables have numbers."""
    for column in table.columns:
        if column.identity is not None and not column.identity.always:
            sequence = f"pg_get_serial_sequence('{name}', '{column.name}')"
            yield (f"DO $$ BEGIN EXECUTE 'GRANT USAGE, UPDATE ON SEQUENCE ' || {sequence} || ' TO {LOADER}'; END $$")


def all_grants(tables: Iterable[Table]) -> str:
    """Return the statements for all roles; they differ whenever a privilege does."""
    return "\n".join(grants(role, tuple(tables)) for role in ROLE_SCHEMAS)


def grant(conn: Connection, tables: Iterable[Table]) -> None:
    """Grant the existing roles their privileges on these tables, which the current user owns."""
    tables = tuple(tables)
    for role in existing(conn):
        if role in ROLE_SCHEMAS:
            conn.exec_driver_sql(grants(role, tables))
            # Earlier versions granted whole tables by default privileges.
            conn.exec_driver_sql(
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {', '.join(SERVED_SCHEMAS)} REVOKE ALL ON TABLES FROM {role}"
            )


def existing(conn: Connection) -> list[str]:
    """Return the roles that exist on the server."""
    names = conn.execute(text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)"), {"names": list(ROLES)})
    return sorted(names.scalars(), key=list(ROLES).index)


def make_roles(conn: Connection, names: Iterable[str]) -> None:
    """Create roles that the server lacks, and make the current user a member of them.

    Raises:
        ProgrammingError: the user may not create roles.
    """
    for name in names:
        conn.exec_driver_sql(
            f"""
            DO $$ BEGIN
                IF to_regrole('{name}') IS NULL THEN
                    CREATE ROLE {name} NOLOGIN;
                    GRANT {name} TO CURRENT_USER;
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another platform's, at this very moment
            END $$
            """
        )
        if not _may_become(conn, name):
            conn.exec_driver_sql(f"GRANT {name} TO CURRENT_USER")


def make_readers(conn: Connection) -> None:
    """Create the roles that the API assumes to read, if the database user may create roles.

    Otherwise do nothing: reads are then prevented from writing by read-only transactions alone.
    """
    for name in ASSUMED_ROLES:
        try:
            with conn.begin_nested():
                make_roles(conn, [name])
        except ProgrammingError as error:
            if not is_refused(error):
                raise


def become_owner(conn: Connection) -> None:
    """Assume the role that owns the platform's schemas until the end of the transaction, if the database user may."""
    owner = conn.scalar(
        text(
            """
            SELECT quote_ident(rolname) FROM pg_namespace JOIN pg_roles ON pg_roles.oid = nspowner
            WHERE nspname = 'ops' AND rolname <> current_user AND pg_has_role(nspowner, 'MEMBER')
            """
        )
    )
    if owner:
        conn.exec_driver_sql(f"SET LOCAL ROLE {owner}")


def may_become_readers(conn: Connection) -> bool:
    """True if the database user can assume the reader roles."""
    return set(ASSUMED_ROLES) <= set(existing(conn)) and all(_may_become(conn, name) for name in ASSUMED_ROLES)


def is_refused(error: DBAPIError) -> bool:
    """True if the server refused a statement for lack of a privilege."""
    return getattr(error.orig, "pgcode", None) == INSUFFICIENT_PRIVILEGE


def _may_become(conn: Connection, name: str) -> bool:
    return bool(conn.scalar(text("SELECT pg_has_role(CAST(:name AS name), 'MEMBER')"), {"name": name}))
