"""The matrix of privileges, walked by real connections: each role, with each table, by each kind of statement.

The table below is said by hand, and shares nothing with the grants: it is what the roles promise.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import Engine, make_url, text

from mini_platform.datasets import all_datasets
from mini_platform.warehouse.connection import engine as engine_of
from mini_platform.warehouse.connection import libpq_url
from mini_platform.warehouse.schema import all_tables
from mini_platform_tests.support.roles import GROUPS, RolesPlatform

READ, OPEN, INSERT, UPDATE, DELETE, TRUNCATE, CREATE, ALTER, DROP, GRANT = "RrIUDTCAXG"
ALL = {READ, OPEN, INSERT, UPDATE, DELETE, TRUNCATE, CREATE, ALTER, DROP, GRANT}
STATEMENTS = {
    READ: "SELECT * FROM {table}",
    OPEN: "SELECT {open} FROM {table}",
    INSERT: "INSERT INTO {table} DEFAULT VALUES",
    UPDATE: "UPDATE {table} SET {plain} = DEFAULT WHERE false",
    DELETE: "DELETE FROM {table}",
    TRUNCATE: "TRUNCATE {table} CASCADE",
    CREATE: "CREATE TABLE {schema}.made_by_a_test (a integer)",
    ALTER: "ALTER {kind} {table} RENAME TO called_otherwise",
    DROP: "DROP {kind} {table} CASCADE",
    GRANT: "GRANT SELECT ON {table} TO PUBLIC",
}
PERSONAL = {
    "production.customers": {"first_name", "last_name", "phone_1", "phone_2", "email", "website", "_extra"},
    "production.orders": {"customer_name", "customer_email"},
    "analytics.dim_customer": {"email_hash", "name_hash"},
    "analytics.customers_by_country": {"with_phone"},
    "ops.surrogates_dim_customer": {"email_hash"},
    "ops.dirty_groups": {"group_key"},
    "quarantine.customers": {"first_name", "company", "_raw", "_extra"},
    "quarantine.orders": {"customer_name", "product_title"},
}
"""Columns that neither the plain reader nor BI may read; of the quarantine, some of them."""
KINDS = {
    #                      loader    reader  personal  bi
    "keys":               ("RrIUD",  "",     "",       ""),
    "fingerprints":       ("Rr",     "Rr",   "Rr",     ""),
    "audit":              ("RrI",    "Rr",   "Rr",     ""),
    "ops":                ("RrIUD",  "Rr",   "Rr",     ""),
    "ops, personal":      ("RrIUD",  "r",    "Rr",     ""),
    "staging":            ("RrIUDT", "",     "",       ""),
    "quarantine":         ("RrIUD",  "Rr",   "Rr",     ""),
    "quarantine, personal": ("RrIUD", "r",   "Rr",     ""),
    "data":               ("RrIUD",  "Rr",   "Rr",     "Rr"),
    "data, personal":     ("RrIUD",  "r",    "Rr",     "r"),
    "views":              ("Rr",     "Rr",   "Rr",     "Rr"),
    "dagster":            ("RrIUD",  "",     "",       ""),
}  # fmt: skip
"""What each role may do with each kind of table. The owner may do everything."""


def kind(name: str, *, view: bool) -> str:
    schema, table = name.split(".")
    if name in ("ops.api_keys", "ops.sessions", "ops.pages"):
        return "keys"
    if name in ("ops.fingerprints", "ops.migrations", "ops.audit"):
        return "audit" if table == "audit" else "fingerprints"
    if schema in ("staging", "dagster"):
        return schema
    if view:
        return "views"
    group = schema if schema in ("ops", "quarantine") else "data"
    return f"{group}, personal" if name in PERSONAL else group


TABLES = {table.fullname: table for table in all_tables(all_datasets().values())}
EVERY = [(name, "VIEW" if table.info.get("view") else "TABLE") for name, table in TABLES.items()] + [
    ("dagster.runs", "TABLE"),
    ("dagster.event_logs", "TABLE"),
]
REFUSED = ("42501",)
NOT_FOR_VIEWS = ("42809", "55000", "0A000")
"""What the server says of a view before it looks at privileges."""


@pytest.fixture(scope="module", params=GROUPS)
def connection(
    roles: RolesPlatform, request: pytest.FixtureRequest
) -> Iterator[tuple[str, psycopg2.extensions.connection]]:
    conn = psycopg2.connect(libpq_url(make_url(roles.urls[request.param])))
    yield request.param, conn
    conn.close()


def outcome(conn: psycopg2.extensions.connection, name: str, relation: str, operation: str) -> bool:
    """Return True if the server lets this be done; it is undone. That it fails for other reasons, later, is no refusal."""
    schema, table = name.split(".")
    columns = [c.name for c in TABLES[name].columns if c.identity is None] if name in TABLES else ["id"]
    hidden = PERSONAL.get(name, set())
    if schema == "quarantine" and hidden:
        columns = ["_file_id", "_line"]
    words = sql.SQL(STATEMENTS[operation]).format(
        table=sql.Identifier(schema, table),
        schema=sql.Identifier(schema),
        kind=sql.SQL(relation),
        plain=sql.Identifier(columns[-1]),
        open=sql.SQL(", ").join(sql.Identifier(column) for column in columns if column not in hidden),
    )
    try:
        with conn.cursor() as cursor:
            cursor.execute(words)
            if operation == GRANT:  # Who may not, is only warned.
                cursor.execute("SELECT has_table_privilege('public', %s, 'SELECT')", [name])
                return bool(cursor.fetchone()[0])
    except psycopg2.Error as error:
        if relation == "VIEW" and error.pgcode in NOT_FOR_VIEWS:
            return False
        return error.pgcode not in REFUSED
    finally:
        conn.rollback()
    return True


def test_every_role_may_do_with_every_table_what_is_declared_and_nothing_else(
    connection: tuple[str, psycopg2.extensions.connection],
) -> None:
    group, conn = connection
    wrong = []
    for name, relation in EVERY:
        declared = ALL if group == "owner" else set(KINDS[kind(name, view=relation == "VIEW")][GROUPS.index(group) - 1])
        if relation == "VIEW":
            declared = declared - {INSERT, UPDATE, DELETE, TRUNCATE}
        allowed = {operation for operation in STATEMENTS if outcome(conn, name, relation, operation)}
        if allowed != declared:
            wrong.append((name, "".join(sorted(allowed)), "".join(sorted(declared))))
    assert wrong == []


@pytest.mark.parametrize("group", ["reader", "bi"])
def test_no_personal_column_can_be_read_alone(roles: RolesPlatform, group: str) -> None:
    conn = psycopg2.connect(libpq_url(make_url(roles.urls[group])))
    for name, columns in PERSONAL.items():
        for column in columns:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege), conn.cursor() as cursor:
                cursor.execute(
                    sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(*name.split(".")))
                )
            conn.rollback()
    conn.close()


@pytest.mark.parametrize("group", ["loader", "reader", "personal", "bi"])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine (a integer)",
        "CREATE ROLE mine",
        "SET ROLE mini_platform_owner",
        "GRANT mini_platform_owner TO CURRENT_USER",
        "ALTER ROLE the_owner PASSWORD 'stolen'",
        "SELECT * FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "CREATE INDEX ON production.measurements (temp_c)",
        "ALTER TABLE ops.files DISABLE TRIGGER ALL",
        "ALTER TABLE ops.files DROP CONSTRAINT every_row_accounted_for",
    ],
)
def test_nobody_but_the_owner_and_administrators_gets_further(roles: RolesPlatform, group: str, statement: str) -> None:
    conn = psycopg2.connect(libpq_url(make_url(roles.urls[group])))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), conn.cursor() as cursor:
        cursor.execute(statement)
    conn.close()


def test_passwords_are_required_and_in_no_log_of_the_server(roles: RolesPlatform) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(libpq_url(make_url(roles.urls["bi"]).set(password="chosen by somebody else")))
    logs = [path for path in roles.server.home.rglob("*") if path.is_file() and path.suffix == ".log"]
    log = "".join(path.read_text(errors="replace") for path in logs)
    assert 'CREATE ROLE "the_bi" LOGIN PASSWORD' in log  # every statement is logged here
    for password in roles.passwords.values():
        assert password not in log + roles.output
    with _engine(roles.server.superuser) as engine, engine.connect() as conn:
        verifiers = conn.execute(text("SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'the\\_%'")).scalars().all()
    assert [verifier[:14] for verifier in verifiers] == ["SCRAM-SHA-256$"] * len(GROUPS)


class _engine:  # noqa: N801 - a context manager
    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)

    def __enter__(self) -> Engine:
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()
