"""Logins for reading: each is a member of one reader role only, so that no statement can assume another role or write.

Here: creating them with their limits, and reading back role, read-only and time limit whenever a connection is used.
Not here: the roles and their privileges (`roles.py`), logins that people create (`initialize.py`).

On the login of the owner, `SET ROLE` protects from mistakes only: a statement may call `set_config('role', …)` and then read
anything, as by `query_to_xml`. The name of a login has the database and a hash of the secret of its password in it, as roles
belong to the server, which several databases, and several homes with secrets of their own, may share.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, encrypt_password
from sqlalchemy import Connection, Engine, event, make_url, text
from sqlalchemy.exc import InvalidatePoolError

from mini_platform.warehouse.connection import DatabaseAwayError, engine
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.roles import may_become

LOG = logging.getLogger(__name__)


class ReadingRefusedError(DatabaseAwayError):
    """A connection for reading cannot be opened, or may do more than it should, so that nothing is read by it."""


@dataclass(frozen=True)
class Access:
    """The login that reads as a role.

    Attributes:
        role: the reader role.
        url: URL of the database with the login.
        own: True if the login is one for reading; False for that of the platform, which then assumes the role.
        assumed: True if that assumes the role; False if it may not, and only read-only transactions are left.
    """

    role: str
    url: str
    own: bool = True
    assumed: bool = False


def access(database: Engine, url: str, role: str, secret: str, seconds: float, *, make: bool = True) -> Access:
    """Return the access to a database as a reader role.

    Its login is created, or its limits are set, if the database user may; if there is none, the user itself reads.

    Args:
        database: the database, as the user of the platform.
        url: URL of that.
        role: the reader role.
        secret: secret from which passwords are derived.
        seconds: time limit of a statement.
        make: False to change nothing.
    """
    with database.begin() as conn:
        oid = conn.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
        login = f"{role}_{oid}_{hashlib.sha256(secret.encode()).hexdigest()[:8]}"
        password = hmac.digest(secret.encode(), login.encode(), "sha256").hex()
        exists = _is_made(conn, login, password, role, limits(seconds)) if make else _limits(conn, login) is not None
        assumed = not exists and may_become(conn, role)
    if not exists:
        return Access(role, url, own=False, assumed=assumed)
    own = make_url(url).difference_update_query(["user", "password"]).set(username=login, password=password)
    return Access(role, own.render_as_string(hide_password=False))


def limits(seconds: float) -> Mapping[str, str]:
    """Return the settings of sessions that read."""
    return {"default_transaction_read_only": "on", "statement_timeout": f"{seconds * 1000:.0f}"}


def may_make(conn: Connection) -> bool:
    """True if the database user may create logins."""
    return bool(conn.scalar(text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = session_user")))


def reading_engine(access: Access, seconds: float, *, name: str, pool: int) -> Engine:
    """Return an engine for reading. Borrowing a connection raises `ReadingRefusedError` if that is not as it should be.

    Args:
        access: access to the database.
        seconds: time limit of a statement.
        name: application name of its connections.
        pool: maximum number of connections.
    """
    role = {"role": access.role} if access.assumed else {}
    new_engine = engine(
        access.url,
        name=name,
        session={**limits(seconds), **role},
        pool=pool,
        isolation_level="REPEATABLE READ",
        pool_pre_ping=False,  # reading back is one
        pool_recycle=RECHECK_SECONDS,
    )

    def read_back(connection: Any, record: Any, _: object) -> None:
        # The whole state is queried once per connection, as it takes ten times as long as what a statement could change in it.
        try:
            if "state" not in record.info:
                deviation = _deviation(_query(connection, WHOLE_STATE, access.role), access, seconds)
                state = record.info["state"] = _query(connection, STATE)
            else:
                state, deviation = _query(connection, STATE), None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise InvalidatePoolError from error  # It broke while it was idle: another one is opened.
        if state != record.info["state"]:
            deviation = f"its role or its limits were changed, from {record.info['state']} to {state}"
        if deviation:
            LOG.error("The connection is closed: %s", deviation)
            raise ReadingRefusedError(f"Nothing is read: {deviation}.")

    event.listen(new_engine, "checkout", read_back)
    return new_engine


def try_login(reading: Engine) -> None:
    """Open a connection for reading to a database that is reachable.

    Raises:
        ReadingRefusedError: the database does not accept the login, or lets it do more than it should.
    """
    try:
        reading.connect().close()
    except ReadingRefusedError:
        raise
    except DatabaseAwayError as error:
        LOG.error("The login %s cannot connect: %s", reading.url.username, error)  # noqa: TRY400 - the sentence says all
        refusal = f"Nothing is read, as the login {reading.url.username} cannot connect. {error}"
        raise ReadingRefusedError(refusal) from error


def refuse_changed(conn: Connection) -> None:
    """Raise `ReadingRefusedError`, and close the connection, if its statements have changed the role or the limits."""
    driver: Any = None if conn.closed or conn.invalidated else conn.connection.driver_connection
    if driver is None or driver.info.transaction_status == TRANSACTION_STATUS_INERROR:
        return
    try:
        state = _one(driver, STATE)
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        conn.invalidate(error)
        raise DatabaseAwayError("The connection to the database was lost.") from error
    if state != (before := conn.info["state"]):
        conn.invalidate()
        LOG.error("The connection is closed, as a statement has changed %s to %s", before, state)
        raise ReadingRefusedError(
            f"Nothing is read: a statement has changed the role or the limits, {before} to {state}."
        )


def _query(connection: Any, query: str, *parameters: str) -> tuple[Any, ...]:
    connection.autocommit = True  # The transaction of the reader begins later.
    try:
        return _one(connection, query, *parameters)
    finally:
        if not connection.closed:
            connection.autocommit = False


def _one(connection: Any, query: str, *parameters: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row: tuple[Any, ...] = cursor.fetchone()
        return row


STATE = """
    SELECT session_user, current_user, current_setting('transaction_read_only'), current_setting('statement_timeout')
"""
WHOLE_STATE = """
    SELECT session_user, current_user, rolsuper, rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
        ARRAY(
            SELECT DISTINCT roleid::regrole::text FROM pg_auth_members WHERE member IN (login.oid, to_regrole(%s)::oid)
        ),
        current_setting('transaction_read_only'), extract(epoch FROM current_setting('statement_timeout')::interval)
    FROM pg_roles AS login WHERE rolname = session_user
"""
RECHECK_SECONDS = 300
"""Age at which a connection is replaced, as its login may have been granted more since."""


def _deviation(state: tuple[Any, ...], access: Access, seconds: float) -> str | None:
    """Return what a connection may do and should not, as a clause; None if it is as it should be."""
    login, user, is_superuser, has_attributes, roles, read_only, timeout = state
    if is_superuser:
        return f"the login {login} is a superuser's"
    if access.own and (has_attributes or roles != [access.role]):
        return f"the login {login} is not a member of {access.role} only"
    if user != (access.role if access.assumed else login):
        return f"the login {login} acts as {user}"
    if read_only != "on":
        return f"the login {login} may write"
    if round(float(timeout) * 1000) != round(seconds * 1000):
        return f"the login {login} has a time limit of {float(timeout):g} s instead of {seconds:g} s"
    return None


def _is_made(conn: Connection, login: str, password: str, role: str, session: Mapping[str, str]) -> bool:
    """Create a login if it is missing, and set its limits; return True if it exists then."""
    if session.items() <= (_limits(conn, login) or {}).items():
        return True
    advisory_lock(conn, "logins")
    before = _limits(conn, login)  # Another process may have been first.
    raw: Any = conn.connection.driver_connection
    name, verifier = sql.Identifier(login), encrypt_password(password, login, raw, "scram-sha-256")
    statements = [] if before is not None else [CREATE.format(name, sql.Literal(verifier), sql.Identifier(role))]
    for setting, value in session.items():
        statements.append(SET.format(name, sql.Identifier(setting), sql.Literal(value)))
    try:
        with conn.begin_nested(), raw.cursor() as cursor:
            cursor.execute(sql.SQL("; ").join(statements))
    except psycopg2.OperationalError:
        raise
    except psycopg2.Error as error:
        what = "The limits of the login %s cannot be set: %s" if before is not None else NOT_CREATED
        LOG.warning(what, login, error.diag.message_primary)
        return before is not None
    return True


NOT_CREATED = "The login %s cannot be created, so that reading runs on the login of the platform: %s"
CREATE, SET = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}"), sql.SQL("ALTER ROLE {} SET {} = {}")


def _limits(conn: Connection, login: str) -> Mapping[str, str] | None:
    """Return the settings of a login; None if it does not exist."""
    query = """
        SELECT coalesce(setconfig, '{}') FROM pg_roles
        LEFT JOIN pg_db_role_setting ON setrole = pg_roles.oid AND setdatabase = 0 WHERE rolname = :login AND rolcanlogin
    """
    settings = conn.scalar(text(query), {"login": login})
    return None if settings is None else dict(setting.split("=", 1) for setting in settings)
