"""The reasons why a database is unusable: queried before anything is written, and by the doctor.

Here: encoding, version, read-only servers, poolers, limits of connections, rights and schemas that others have. Not here: a
database that cannot be reached (`connection.py`), tables that differ from their declaration (`schema.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from mini_platform.warehouse.connection import DatabaseAwayError
from mini_platform.warehouse.initialize import DAGSTER
from mini_platform.warehouse.tables import SCHEMAS

LEAST_POSTGRES, NEWEST_POSTGRES = 14, 18
"""Major versions between which the platform was tried: `make test-servers`."""
ENCODING = "UTF8"
LEAST_CONNECTIONS = 24
"""Connections that the platform keeps open: 9 of the API's 31, about 7 of Dagster's three processes, and about 8 of a run."""


class UnusableDatabaseError(DatabaseAwayError):
    """The database answers, but the platform cannot use it. The message is a sentence for each reason."""


def require_usable(database: Engine) -> None:
    """Raise UnusableDatabaseError unless the platform can use a database; this costs one query, and writes nothing."""
    if reasons := [f"{problem[0].upper()}{problem[1:]}. {advice}" for problem, advice in problems(database)]:
        raise UnusableDatabaseError(f"The database {database.url.database} cannot be used. {' '.join(reasons)}")


def problems(database: Engine) -> Iterator[tuple[str, str]]:
    """Yield what makes a database unusable, each as a phrase and a sentence that says what to do."""
    with database.connect() as conn:
        facts = conn.execute(FACTS, {"schemas": [*SCHEMAS, DAGSTER]}).one()
        driver: Any = conn.connection.driver_connection
        is_direct = driver.info.backend_pid == facts.pid
    yield from _problems(facts)
    if not is_direct and _is_shared(database):
        yield (
            "a pooler in between gives sessions another connection in each transaction, so that locks and settings are lost",
            "Name the server itself in DATABASE_URL, or a pool in session mode (PgBouncer: pool_mode=session).",
        )


def _problems(facts: Row[Any]) -> Iterator[tuple[str, str]]:
    if facts.major < LEAST_POSTGRES:
        yield (
            f"the server is Postgres {facts.major}",
            f"Use {LEAST_POSTGRES} or later; up to {NEWEST_POSTGRES} was tried.",
        )
    if facts.encoding != ENCODING:
        yield (
            f"its encoding is {facts.encoding}, which cannot hold every text",
            f"Make another one, as by CREATE DATABASE name TEMPLATE template0 ENCODING '{ENCODING}', for DATABASE_URL.",
        )
    if facts.is_standby:
        yield "the server is a standby, which is read-only", "Name the primary in DATABASE_URL."
    elif facts.is_read_only:
        yield (
            "it is read-only by default_transaction_read_only",
            f"Reset it where it is set, as by ALTER DATABASE {facts.name} RESET default_transaction_read_only.",
        )
    if facts.connections < LEAST_CONNECTIONS:
        yield (
            f"it allows {facts.username} {facts.connections} connections, and the platform needs {LEAST_CONNECTIONS}",
            f"Raise {facts.limited_by}.",
        )
    if facts.foreign_table:
        yield (
            f"its schema ops is another program's, and has the table {facts.foreign_table}",
            "Use another database: CREATE DATABASE name, and name it in DATABASE_URL.",
        )
    elif facts.missing and not facts.may_create:
        yield (
            f"the user {facts.username} may not create schemas, and {facts.missing} are missing",
            f"As its owner: GRANT CREATE ON DATABASE {facts.name} TO {facts.username}, or run mini-platform db init.",
        )
    elif facts.locked:
        yield (
            f"the user {facts.username} has no rights in {facts.locked}",
            "Use the DATABASE_URL of the owner or of a member of mini_platform_loader, or another database.",
        )


LIMITS = """
    SELECT 'user' AS subject, rolconnlimit AS amount,
        format('the limit of the user: ALTER ROLE %I CONNECTION LIMIT -1', rolname) AS name
    FROM pg_roles WHERE rolname = session_user AND rolconnlimit >= 0 AND NOT rolsuper
    UNION ALL
    SELECT 'database', datconnlimit, format('the limit of the database: ALTER DATABASE %I CONNECTION LIMIT -1', datname)
    FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0
    UNION ALL
    SELECT 'server', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0), 'max_connections of the server'
    """
USE = text(
    f"""
    SELECT subject, amount, name, (
        SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND CASE subject
            WHEN 'user' THEN usename = session_user WHEN 'database' THEN datname = current_database() ELSE true END
    ) AS used
    FROM ({LIMITS}) AS limits
    """  # noqa: S608 - two constants
)


def connection_use(conn: Connection) -> Sequence[Row[Any]]:
    """Return each limit of connections that counts for this user: `subject`, `amount`, `name`, and how many are `used`."""
    return conn.execute(USE).all()


FACTS = text(
    f"""
    WITH ours AS (
        SELECT oid, nspname, nspowner, pg_has_role(nspowner, 'MEMBER') OR has_schema_privilege(oid, 'USAGE') AS may_use
        FROM pg_namespace WHERE nspname = ANY (:schemas)
    ), limits AS ({LIMITS})
    SELECT pg_backend_pid() AS pid, quote_ident(current_database()) AS name, quote_ident(session_user) AS username,
        current_setting('server_version_num')::int / 10000 AS major, current_setting('server_encoding') AS encoding,
        pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only')::bool AS is_read_only,
        amount AS connections, limits.name AS limited_by,
        (SELECT string_agg(name, ', ') FROM unnest(:schemas) AS name WHERE to_regnamespace(name) IS NULL) AS missing,
        (
            SELECT bool_or(has_database_privilege(oid, current_database(), 'CREATE')) FROM pg_roles
            WHERE pg_has_role(oid, 'MEMBER')
        ) AS may_create,
        (
            SELECT string_agg(format('the schema %I of %s', nspname, nspowner::regrole), ', ') FROM ours WHERE NOT may_use
        ) AS locked,
        (
            SELECT min(relname::text) FROM pg_class WHERE relnamespace = to_regnamespace('ops') AND relkind IN ('r', 'p', 'v')
            AND NOT EXISTS (
                SELECT FROM pg_attribute WHERE attrelid = to_regclass('ops.files') AND attname IN ('file_id', 'id')
            )
        ) AS foreign_table
    FROM limits ORDER BY amount LIMIT 1
    """  # noqa: S608 - two constants
)
"""One query, as every process of the platform asks it when it starts."""


def _is_shared(database: Engine) -> bool:
    """True if an idle session's connection of the server is given to another session meanwhile."""
    # Two sessions hold a transaction each. Without sharing, neither is on the connection of the first, idle one, and that is
    # still on it afterwards. In turn, as a pool with one connection would make the second of them wait.
    pid = text("SELECT pg_backend_pid()")
    with database.connect() as idle, database.connect() as one, database.connect() as other:
        first = idle.scalar(pid)
        idle.commit()
        return any(conn.scalar(pid) == first for conn in (one, other)) or idle.scalar(pid) != first
