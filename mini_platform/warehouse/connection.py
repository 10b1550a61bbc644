"""The way to the database: which server, and an engine over it.

Here: `DATABASE_URL` or else the embedded server, the pool, and the one sentence that says that the database is away.
Not here: the embedded server's life (`embedded.py`), tables and statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from mini_platform.warehouse import tls

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

    from mini_platform.settings import Settings

APPLICATION_NAME = "mini_platform"
"""How our connections are called in `pg_stat_activity`."""
CONNECT_SECONDS = 10


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


def engine(url: str, *, name: str = APPLICATION_NAME, options: str = "", pool: int = 12, **more: Any) -> Engine:
    """Make an engine with a pool, which replaces connections that broke while they lay idle.

    Opening a connection raises `DatabaseAwayError` where SQLAlchemy would raise its `OperationalError`.

    Args:
        url: of the database.
        name: by which its connections are known to the server.
        options: settings of its sessions, as `-c name=value`.
        pool: connections at the same time; a third of them is kept open.
        **more: for `sqlalchemy.create_engine`.
    """
    told: dict[str, Any] = {"application_name": name}
    if "connect_timeout" not in make_url(url).query:
        told["connect_timeout"] = CONNECT_SECONDS
    if options:
        told["options"] = options
    kept = pool // 3
    made = create_engine(url, pool_pre_ping=True, pool_size=kept, max_overflow=pool - kept, connect_args=told, **more)
    event.listen(made, "handle_error", _say_away)
    return made


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
