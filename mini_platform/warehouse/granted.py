"""What the server grants in fact, held against what `roles.py` declares: for the doctor. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Table, text

from mini_platform.warehouse.roles import LOADER, OWNER, REACHED, ROLES, TAKEN_ON, existing, privileges
from mini_platform.warehouse.tables import SCHEMAS


def excess_privileges(conn: Connection, tables: Iterable[Table]) -> Iterator[str]:
    """What roles may do beyond what is theirs, a phrase each."""
    for row in conn.execute(ATTRIBUTES, {"names": list(ROLES)}):
        yield f"{row.rolname} is no mere group: it may log in, make roles or databases, or pass over grants"
    for row in conn.execute(MEMBERSHIPS, {"names": list(ROLES)}):
        if row.member != LOADER or row.role not in TAKEN_ON:
            yield f"{row.member} is a member of {row.role}"
    for row in conn.execute(CREATES, {"names": [*REACHED], "schemas": [*SCHEMAS, "public"]}):
        yield f"{row.role} may make tables in the schema {row.schema}"
    for role, name, more, _ in _differences(conn, tables):
        if more:
            yield f"{role} may {_listed(more)} {name}"


def missing_privileges(conn: Connection, tables: Iterable[Table]) -> Iterator[str]:
    """What roles lack of what is theirs, a phrase each."""
    yield from (f"there is no role {name}" for name in ROLES if name not in existing(conn))
    for role, name, _, less in _differences(conn, tables):
        if less:
            yield f"{role} may not {_listed(less)} {name}"


def may_own(conn: Connection) -> bool:
    """Whether the user of the database may do all that the owner may."""
    return OWNER in existing(conn) and bool(
        conn.scalar(text("SELECT pg_has_role(CAST(:owner AS name), 'MEMBER')"), {"owner": OWNER})
    )


Rights = set[tuple[str, str]]
"""Privileges, each with the column that it is for: an empty one where it is for the whole table."""


def _differences(conn: Connection, tables: Iterable[Table]) -> Iterator[tuple[str, str, Rights, Rights]]:
    """Of each role and table: what may be done beyond what is declared, and what may not."""
    tables = list(tables)
    found: dict[tuple[str, str], Rights] = {}
    roles = [role for role in existing(conn) if role in REACHED]
    for row in conn.execute(ACTUAL, {"roles": roles, "tables": [table.fullname for table in tables]}):
        found.setdefault((row.role, row.name), set()).add((row.privilege, row.column))
    for table in tables:
        declared = _declared(table)
        for role in roles:
            actual, wanted = found.get((role, table.fullname), set()), declared.get(role, set())
            yield role, table.fullname, actual - wanted, wanted - actual


def _declared(table: Table) -> dict[str, Rights]:
    """As the server has it: reading is of columns, all else of tables."""
    rights: dict[str, Rights] = {}
    for role, allowed, columns in privileges(table):
        for privilege in allowed.split(", "):
            of = columns or [column.name for column in table.columns] if privilege == "SELECT" else ("",)
            rights.setdefault(role, set()).update((privilege, column) for column in of)
    return rights


def _listed(rights: Rights) -> str:
    words: dict[str, list[Any]] = {}
    for privilege, column in sorted(rights):
        words.setdefault(privilege, []).append(column)
    return ", ".join(f"{p} ({', '.join(columns)})" if any(columns) else p for p, columns in words.items())


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
