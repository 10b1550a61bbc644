"""The way to the database: which server, and an engine over it.

Here: `DATABASE_URL` or else the embedded server, the pool, what its sessions speak, and the one sentence that says that the
database is away.
Not here: the embedded server's life (`embedded.py`), tables and statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from mini_platform.warehouse import tls

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

    from mini_platform.config.settings import Settings

APPLICATION_NAME = "mini_platform"
"""How our connections are called in `pg_stat_activity`."""
CONNECT_SECONDS = 10
SESSION: Mapping[str, str] = {
    # What a value is as text, and which day a moment falls on.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "lc_time": "C",
    # What a statement means.
    "search_path": "public",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    # How long it may take: a file of any size is loaded, and waits for the one before it. `locks.py` says who is ended.
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}
"""What each of our sessions is set to, whatever the server, the database, the role, libpq's environment or the `options` of
`DATABASE_URL` say: results, keys and limits would follow them. That a database is read-only is not overruled. The encoding,
which the driver must know of too, is given when the connection is made."""


class DatabaseAwayError(ConnectionError):
    """No connection to the database could be opened. The message never contains a password."""


def database_url(settings: Settings) -> str:
    """URL of the database as SQLAlchemy takes it; starts the embedded server if none is set.

    Raises:
        EmbeddedPostgresError: the embedded server could not be started.
    """
    if settings.database_url:
        return settings.database_url.get_secret_value()
    from mini_platform.warehouse import embedded  # Brings psutil, which a database of one's own has no need of.

    return embedded.ensure_running(settings.home)


def libpq_url(database: URL) -> str:
    """A SQLAlchemy URL as libpq takes it: without the driver, every part percent-encoded."""
    login = quote(database.username or "", safe="")
    if database.password is not None:
        login += f":{quote(str(database.password), safe='')}"
    host = f"[{database.host}]" if database.host and ":" in database.host else quote(database.host or "", safe="")
    port = f":{database.port}" if database.port else ""
    query = f"?{urlencode(database.query, doseq=True, quote_via=quote)}" if database.query else ""
    at = "@" if login else ""
    return f"postgresql://{login}{at}{host}{port}/{quote(database.database or '', safe='')}{query}"


def engine(
    url: str, *, name: str = APPLICATION_NAME, session: Mapping[str, str] | None = None, pool: int = 12, **more: Any
) -> Engine:
    """Make an engine with a pool, which replaces connections that broke while they lay idle.

    Opening a connection raises `DatabaseAwayError` where SQLAlchemy would raise its `OperationalError`.

    Args:
        url: of the database.
        name: by which its connections are known to the server.
        session: settings of its sessions, beside `SESSION` and before it.
        pool: connections at the same time; a third of them is kept open.
        **more: for `sqlalchemy.create_engine`.
    """
    told: dict[str, Any] = {"application_name": name, "client_encoding": "utf8"}
    if "connect_timeout" not in make_url(url).query:
        told["connect_timeout"] = CONNECT_SECONDS
    kept = pool // 3
    made = create_engine(url, pool_pre_ping=True, pool_size=kept, max_overflow=pool - kept, connect_args=told, **more)
    settings = {**SESSION, **(session or {})}
    event.listen(made, "connect", lambda connection, _: _speak(connection, settings))
    event.listen(made, "handle_error", _say_away)
    return made


def _speak(connection: Any, settings: Mapping[str, str]) -> None:
    """Set up a session in one statement and outside of a transaction, or its first rollback would undo it.

    Settings are made here and not by libpq's `options`, which poolers refuse and libpq's environment overrules. One that
    the server is too old to know is left out.
    """
    transactional, connection.autocommit = not connection.autocommit, True
    one = "CASE WHEN current_setting(%s, true) IS NOT NULL THEN set_config(%s, %s, false) END"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join([one] * len(settings))}",
            [word for name, value in settings.items() for word in (name, name, value)],
        )
    connection.autocommit = not transactional


def _say_away(context: ExceptionContext) -> None:
    """Replace the error of a connection that could not be opened (one without a connection) by a sentence.

    That of a connection that was lost becomes an `OperationalError`, whatever the driver takes it for.
    """
    if context.is_disconnect and context.connection is not None:
        lost = context.original_exception
        if not isinstance(context.sqlalchemy_exception, OperationalError):
            raise OperationalError(context.statement, None, lost, connection_invalidated=True) from lost
        return
    if context.connection is not None or context.is_pre_ping or context.engine is None:
        return
    url = context.engine.url
    where = f"{url.host}:{url.port or 5432}" if url.host else str(url.query.get("host", "the local socket"))
    said = str(context.original_exception)
    reason, advice = tls.explained(said, url) or (said, "Check that the server runs and that DATABASE_URL is right.")
    raise DatabaseAwayError(
        f"The database {url.database or ''} at {where} cannot be reached: {' '.join(reason.split()).rstrip('.?')}. {advice}"
    ) from context.original_exception
