"""Roles of the database: who may do what with which table, and the statements that say so.

What a role may do is derived from the tables (`privileges`), so that a dataset that is declared later, or a column that becomes
personal, is granted as the others are. A platform with a single user of the database needs none of them: it is given the two
that read where it may make roles. `initialize.py` makes all of them. Roles belong to the server, not to a database: those of
several platforms on one server share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ProgrammingError

OWNER = "mini_platform_owner"
LOADER = "mini_platform_loader"
READER = "mini_platform_reader"
PERSONAL = "mini_platform_personal"
BI = "mini_platform_bi"
ROLES = {
    OWNER: "owns schemas and tables, and alone changes them",
    LOADER: "runs the platform: reads and writes rows, and changes no table and no grant",
    READER: "reads what is served, but for personal data, staging and keys",
    PERSONAL: "the same with personal data: what the API is for a key that may read them",
    BI: "reads production and analytics, but for personal data: for Metabase and its like",
}
"""Roles that nobody logs in as; logins are members of them."""
TAKEN_ON = (READER, PERSONAL)
"""Roles that the API takes on to read."""

SERVED = ("ops", "production", "quarantine", "analytics")
REACHED = {
    LOADER: (*SERVED, "staging"),
    READER: SERVED,
    PERSONAL: SERVED,
    BI: ("production", "analytics"),
}
"""Schemas of which each role may use anything."""
WITHHELD = ("ops.api_keys", "ops.pages")
"""Hashes of keys, and addresses that may hold credentials: nobody reads them but who needs them to work."""
NOT_WRITTEN = ("ops.fingerprints", "ops.migrations")
"""What the owner alone writes."""
APPENDED = ("ops.audit",)
"""What the loader adds to, and never takes from or changes."""

INSUFFICIENT_PRIVILEGE = "42501"


class RolesError(Exception):
    """The user of the database may not do what was asked, or a role cannot be made; the message is a sentence."""


Privilege = tuple[str, str, tuple[str, ...]]
"""A role, what it may do with a table, and with which of its columns only: none for all of them."""


def is_open(column: Column[object]) -> bool:
    """Whether a column holds nothing of persons; of rejected rows of personal data, any column may."""
    return not (column.info.get("personal") or column.info.get("shaped"))


def privileges(table: Table) -> Iterator[Privilege]:
    """What each role may do with a table or a view; the owner, everything."""
    name, schema = table.fullname, str(table.schema)
    yield LOADER, _written(table), ()
    if name in WITHHELD:
        return
    is_open_whole = all(map(is_open, table.columns))
    columns = () if is_open_whole else tuple(column.name for column in table.columns if is_open(column))
    for role in (READER, BI):
        if schema in REACHED[role] and (is_open_whole or columns):
            yield role, "SELECT", columns
    if schema in REACHED[PERSONAL]:
        yield PERSONAL, "SELECT", ()


def _written(table: Table) -> str:
    if table.info.get("view") or table.fullname in NOT_WRITTEN:
        return "SELECT"
    if table.fullname in APPENDED:
        return "SELECT, INSERT"
    return "SELECT, INSERT, UPDATE, DELETE" + (", TRUNCATE" if table.schema == "staging" else "")


@cache
def grants(role: str, tables: tuple[Table, ...]) -> str:
    """Statements that give a role what is its own of these tables, and nothing else of them."""
    quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    schemas = ", ".join(REACHED[role])
    statements = [f"GRANT USAGE ON SCHEMA {schemas} TO {role}"]
    for table in tables:
        name = quoted.format_table(table)
        statements.append(f"REVOKE ALL ON {name} FROM {role}")
        for _, allowed, columns in (item for item in privileges(table) if item[0] == role):
            only = f" ({', '.join(map(quoted.quote, columns))})" if columns else ""
            statements.append(f"GRANT {allowed}{only} ON {name} TO {role}")
    return ";\n".join(statements)


def all_grants(tables: Iterable[Table]) -> str:
    """The statements for every role: they change where what is granted changes."""
    return "\n".join(grants(role, tuple(tables)) for role in REACHED)


def grant(conn: Connection, tables: Iterable[Table]) -> None:
    """Grant the roles that there are what is theirs of these tables, which the current user owns."""
    tables = tuple(tables)
    for role in existing(conn):
        if role in REACHED:
            conn.exec_driver_sql(grants(role, tables))
            # Earlier versions granted whole tables beforehand.
            conn.exec_driver_sql(
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {', '.join(SERVED)} REVOKE ALL ON TABLES FROM {role}"
            )


def existing(conn: Connection) -> list[str]:
    """Those of the roles that the server has."""
    known = conn.execute(text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)"), {"names": list(ROLES)})
    return sorted(known.scalars(), key=list(ROLES).index)


def make_roles(conn: Connection, names: Iterable[str]) -> None:
    """Make roles that the server lacks, and let the current user take them on.

    Raises:
        ProgrammingError: the user may not make roles.
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
    """Make the roles that the API reads as, where the user of the database may make roles.

    Elsewhere nothing is done: reads are then kept from writing by their transactions alone.
    """
    for name in TAKEN_ON:
        try:
            with conn.begin_nested():
                make_roles(conn, [name])
        except ProgrammingError as error:
            if not is_refused(error):
                raise


def become_owner(conn: Connection) -> None:
    """Be, to the end of the transaction, who owns the platform's schemas, if the user of the database may."""
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
    """Whether the user of the database can take on the roles that read."""
    return set(TAKEN_ON) <= set(existing(conn)) and all(_may_become(conn, name) for name in TAKEN_ON)


def is_refused(error: ProgrammingError) -> bool:
    """Whether the server refused a statement because the user may not do that."""
    return getattr(error.orig, "pgcode", None) == INSUFFICIENT_PRIVILEGE


def _may_become(conn: Connection, name: str) -> bool:
    return bool(conn.scalar(text("SELECT pg_has_role(CAST(:name AS name), 'MEMBER')"), {"name": name}))
