"""Connecting to the database: the URL of the server, and an engine for it.

Here: `DATABASE_URL` or else the embedded server, the pool, session settings, and the message for a database that cannot be
reached.
Not here: the life cycle of the embedded server (`embedded.py`), tables and statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg2
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from mini_platform.warehouse import tls
from mini_platform.warehouse.database_errors import without_values

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

    from mini_platform.config.settings import Settings

APPLICATION_NAME = "mini_platform"
"""Name of our connections in `pg_stat_activity`."""
CONNECT_SECONDS = 10
CLOSED = "server closed the connection unexpectedly"
SESSION: Mapping[str, str] = {
    # Text form of values, and the day of a timestamp.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "lc_time": "C",
    # Meaning of statements.
    "search_path": "public",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    # Timeouts: loading a large file, or waiting for the one before it, may take long. See `locks.py` for who is ended.
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}
"""Settings of each of our sessions. They override those of the server, the database, the role, libpq's environment and the
`options` of `DATABASE_URL`, on which results, keys and limits would depend otherwise. A read-only database stays read-only. The
encoding is not set here but when connecting, as the driver must know it too."""


class DatabaseAwayError(ConnectionError):
    """No connection to the database could be opened. The message never contains a password."""


def database_url(settings: Settings) -> str:
    """Return the URL of the database for SQLAlchemy; start the embedded server if no URL is set.

    Raises:
        EmbeddedPostgresError: the embedded server could not be started.
    """
    if settings.database_url:
        return settings.database_url.get_secret_value()
    from mini_platform.warehouse import embedded  # Imports psutil, which is not needed with DATABASE_URL.

    return embedded.ensure_running(settings.home)


def libpq_url(database: URL) -> str:
    """Return a SQLAlchemy URL as one for libpq: without the driver, every part percent-encoded."""
    login = quote(database.username or "", safe="")
    if database.password is not None:
        login += f":{quote(str(database.password), safe='')}"
    host = f"[{database.host}]" if database.host and ":" in database.host else quote(database.host or "", safe="")
    port = f":{database.port}" if database.port else ""
    query = f"?{urlencode(database.query, doseq=True, quote_via=quote)}" if database.query else ""
    separator = "@" if login else ""
    return f"postgresql://{login}{separator}{host}{port}/{quote(database.database or '', safe='')}{query}"


def engine(
    url: str, *, name: str = APPLICATION_NAME, session: Mapping[str, str] | None = None, pool: int = 12, **options: Any
) -> Engine:
    """Return an engine with a pool, which replaces connections that broke while they were idle.

    Opening a connection raises `DatabaseAwayError` where SQLAlchemy would raise its `OperationalError`.

    Args:
        url: URL of the database.
        name: application name of its connections.
        session: further session settings, which take precedence over `SESSION`.
        pool: maximum number of connections; a third of them is kept open.
        **options: further arguments of `sqlalchemy.create_engine`.
    """
    connect_args: dict[str, Any] = {"application_name": name, "client_encoding": "utf8"}
    if "connect_timeout" not in make_url(url).query:
        connect_args["connect_timeout"] = CONNECT_SECONDS
    kept_open = pool // 3
    new_engine = create_engine(
        url,
        hide_parameters=True,  # values of rows, in errors of the driver's, too
        pool_size=kept_open,
        max_overflow=pool - kept_open,
        connect_args=connect_args,
        **{"pool_pre_ping": True, **options},
    )
    settings = {**SESSION, **(session or {})}
    event.listen(new_engine, "connect", lambda connection, _: set_up_session(connection, settings))
    event.listen(new_engine, "handle_error", _translate_error)
    return new_engine


def set_up_session(connection: Any, settings: Mapping[str, str]) -> None:
    """Apply session settings in one statement, outside of a transaction, as the first rollback would undo them otherwise.

    libpq's `options` are not used, as poolers refuse them and libpq's environment overrides them. Settings that an older
    server does not know are skipped.
    """
    was_transactional, connection.autocommit = not connection.autocommit, True
    set_one = "CASE WHEN current_setting(%s, true) IS NOT NULL THEN set_config(%s, %s, false) END"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join([set_one] * len(settings))}",
            [parameter for name, value in settings.items() for parameter in (name, name, value)],
        )
    connection.autocommit = not was_transactional


def _translate_error(context: ExceptionContext) -> None:
    """Raise `DatabaseAwayError` for a connection that could not be opened (the error then has no connection).

    The error of a lost connection is raised as an `OperationalError`, whatever class the driver chose.
    """
    hide_values(context)
    if context.is_disconnect and context.connection is not None:
        lost = context.original_exception
        if not isinstance(context.sqlalchemy_exception, OperationalError):
            raise OperationalError(context.statement, None, lost, connection_invalidated=True) from lost
        return
    if context.connection is not None or context.is_pre_ping or context.engine is None:
        return
    url = context.engine.url
    address = f"{url.host}:{url.port or 5432}" if url.host else str(url.query.get("host", "the local socket"))
    message = str(context.original_exception)
    check = "Check that the server runs and that DATABASE_URL is right"
    if CLOSED in message:  # As PgBouncer does in statement mode, when a transaction begins.
        check = f"{check}, and that a pooler in between is in session mode"
    reason, advice = tls.explain(message, url) or (message, f"{check}.")
    raise DatabaseAwayError(
        f"The database {url.database or ''} at {address} cannot be reached: {' '.join(reason.split()).rstrip('.?')}. {advice}"
    ) from context.original_exception


def hide_values(context: ExceptionContext) -> None:
    """Replace the message of an error of a statement by one that quotes no row, and hide the statement's parameters."""
    wrapped = context.sqlalchemy_exception
    if wrapped is not None:
        wrapped.hide_parameters = True
    if isinstance(error := context.original_exception, psycopg2.Error) and context.connection is not None:
        without_values(error)
        if wrapped is not None:
            kind = type(error)
            wrapped.args = (f"({kind.__module__}.{kind.__name__}) {error}", *wrapped.args[1:])
