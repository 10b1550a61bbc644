"""Comparison of the server's actual grants with those declared in `roles.py`, for the doctor. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Table, text

from mini_platform.warehouse.roles import LOADER, OWNER, READER_ROLES, ROLE_SCHEMAS, ROLES, existing, privileges
from mini_platform.warehouse.tables import SCHEMAS


def excess_privileges(conn: Connection, tables: Iterable[Table]) -> Iterator[str]:
    """Yield a phrase for each privilege that a role has beyond its declared ones."""
    for row in conn.execute(ATTRIBUTES, {"names": list(ROLES)}):
        yield f"{row.rolname} is more than a group: it may log in, create roles or databases, replicate, or bypass grants"
    for row in conn.execute(MEMBERSHIPS, {"names": list(ROLES)}):
        if row.member != LOADER or row.role not in READER_ROLES:
            yield f"{row.member} is a member of {row.role}"
    for row in conn.execute(CREATES, {"names": [*ROLE_SCHEMAS], "schemas": [*SCHEMAS, "public"]}):
        yield f"{row.role} may create tables in the schema {row.schema}"
    for role, name, excess, _ in _differences(conn, tables):
        if excess:
            yield f"{role} may {_format_rights(excess)} {name}"


def missing_privileges(conn: Connection, tables: Iterable[Table]) -> Iterator[str]:
    """Yield a phrase for each declared role or privilege that is missing."""
    yield from (f"the role {name} does not exist" for name in ROLES if name not in existing(conn))
    for role, name, _, missing in _differences(conn, tables):
        if missing:
            yield f"{role} may not {_format_rights(missing)} {name}"


def may_own(conn: Connection) -> bool:
    """True if the database user is a member of the owner role."""
    return OWNER in existing(conn) and bool(
        conn.scalar(text("SELECT pg_has_role(CAST(:owner AS name), 'MEMBER')"), {"owner": OWNER})
    )


Rights = set[tuple[str, str]]
"""Privileges, each with its column; the column is empty where the privilege is for the whole table."""


def _differences(conn: Connection, tables: Iterable[Table]) -> Iterator[tuple[str, str, Rights, Rights]]:
    """Yield each role and table with the privileges beyond the declared ones, and the missing ones."""
    tables = list(tables)
    actual_rights: dict[tuple[str, str], Rights] = {}
    roles = [role for role in existing(conn) if role in ROLE_SCHEMAS]
    for row in conn.execute(ACTUAL, {"roles": roles, "tables": [table.fullname for table in tables]}):
        actual_rights.setdefault((row.role, row.name), set()).add((row.privilege, row.column))
    for table in tables:
        declared = _declared(table)
        for role in roles:
            actual, expected = actual_rights.get((role, table.fullname), set()), declared.get(role, set())
            yield role, table.fullname, actual - expected, expected - actual


def _declared(table: Table) -> dict[str, Rights]:
    """Return role -> declared rights in the server's form: SELECT per column, all others per table."""
    rights: dict[str, Rights] = {}
    for role, actions, columns in privileges(table):
        for privilege in actions.split(", "):
            of_columns = columns or [column.name for column in table.columns] if privilege == "SELECT" else ("",)
            rights.setdefault(role, set()).update((privilege, column) for column in of_columns)
    return rights


def _format_rights(rights: Rights) -> str:
    by_privilege: dict[str, list[Any]] = {}
    for privilege, column in sorted(rights):
        by_privilege.setdefault(privilege, []).append(column)
    return ", ".join(f"{p} ({', '.join(columns)})" if any(columns) else p for p, columns in by_privilege.items())


ATTRIBUTES = text(
    """
    SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)
    AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    """
)
MEMBERSHIPS = text(
    """
    SELECT member::regrole::text AS member, roleid::regrole::text AS role FROM pg_auth_members
    WHERE member::regrole::text = ANY (:names) ORDER BY 1, 2
    """
)
CREATES = text(
    """
    SELECT role, nspname AS schema FROM unnest(CAST(:names AS name[])) AS role JOIN pg_roles ON rolname = role, pg_namespace n
    WHERE nspname = ANY (:schemas) AND has_schema_privilege(rolname, n.oid, 'CREATE')
    """
)
ACTUAL = text(
    """
    WITH relation AS (
        SELECT c.oid, nspname || '.' || relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname || '.' || relname = ANY (:tables)
    )
    SELECT role, name, 'SELECT' AS privilege, attname::text AS column
    FROM unnest(CAST(:roles AS text[])) AS role, relation JOIN pg_attribute ON attrelid = oid
    WHERE attnum > 0 AND NOT attisdropped AND has_column_privilege(role, oid, attnum, 'SELECT')
    UNION ALL
    SELECT role, name, privilege, '' FROM unnest(CAST(:roles AS text[])) AS role, relation,
        unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
    WHERE CASE WHEN privilege IN ('INSERT', 'UPDATE', 'REFERENCES') THEN has_any_column_privilege(role, oid, privilege)
        ELSE has_table_privilege(role, oid, privilege) END
    """
)
