"""The web process: the API and the dashboard as one FastAPI app.

Run by `mini-platform up` as `python -m mini_platform.web`. It starts quickly, as it imports neither Dagster nor polars, pandas
or Plotly. It also starts while the database is unreachable, reports that, and recovers automatically.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI

from mini_platform.config import extras, logs
from mini_platform.config.settings import Settings
from mini_platform.operations import https
from mini_platform.warehouse.connection import engine
from mini_platform.warehouse.migrations import NewerDatabaseError, refuse_newer
from mini_platform.warehouse.usable import UnusableDatabaseError, require_usable
from mini_platform.web.api import audit, datasets, health, metrics, reference, uploads
from mini_platform.web.api.openapi import describe
from mini_platform.web.auth import keys
from mini_platform.web.auth.guard import protect
from mini_platform.web.head import Head
from mini_platform.web.pages.routes import add_pages, preload
from mini_platform.web.problems import AWAY, handle_problems
from mini_platform.web.site import Site

ABOUT = (
    "Datasets loaded from files and API sources: their rows, derived tables, and the status of each file. "
    "Times are in UTC, decimals are strings, errors are `application/problem+json`. Where a key is required, send it as "
    "`Authorization: Bearer KEY`, `Authorization: Token KEY` or `x-api-key: KEY`."
)
STOP_SECONDS = 10
"""Time for requests in progress to end after SIGTERM; less than the time until the process is killed."""


def create_app(site: Site | None = None) -> FastAPI:
    """Return the app for a site; by default for the platform of the settings."""
    app = FastAPI(
        title="Mini Platform", version="1", description=ABOUT, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.site = site or Site()
    handle_problems(app)
    add_pages(app)
    app.add_middleware(Head)
    protect(app, app.state.site.settings)
    metrics.measure(app, app.state.site)
    reference.serve_swagger(app)
    for room in (datasets, uploads, health, metrics, audit, reference):
        app.include_router(room.router)
    for router in app.state.site.platform.registry.own_values("routes", "router", APIRouter, app.state.site.datasets):
        app.include_router(router)
    describe(app, app.state.site)
    return app


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; exit with code 1 if other hosts can connect and no valid key exists."""
    site = Site()
    logs.configure(site.settings.logs)
    if refusal := _refusal(site):
        sys.exit(refusal)
    settings = site.settings
    log = logging.getLogger(__name__)
    if settings.in_clear:
        log.warning(settings.in_clear)
    for sentence in extras.refusals(settings):
        log.warning(sentence)
    app = create_app(site)
    threading.Thread(target=_prepare, args=[site], daemon=True).start()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.api_port,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
        **served(settings),
    )


def _prepare(site: Site) -> None:
    """Do what need not delay the start: prepare pages, and log declarations that cannot be used."""
    preload()
    with suppress(*AWAY):
        site.platform.engine  # noqa: B018 - opened: it may refuse datasets
    for invalid in site.platform.invalid:
        logging.getLogger(__name__).warning(invalid.message)


def served(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's options for these settings: https if they name a certificate, and the proxies that they name.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    context = https.context(settings)
    return {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # Otherwise any process on this machine could forge the client address.
        "proxy_headers": bool(settings.api_proxies),
        "forwarded_allow_ips": settings.api_proxies,
        "ssl_context_factory": (lambda *_: context) if context else None,
    }


def _refusal(site: Site) -> str | None:
    """Return why the server must not start; None also while the database is unreachable, when every request is refused."""
    if refusal := https.refusal(site.settings):
        return refusal
    database = engine(site.platform.url)
    try:
        with database.connect() as conn:
            refuse_newer(conn)
        require_usable(database)
        if site.settings.needs_keys:
            with site.platform.engine.connect() as conn:
                return keys.refusal(conn, site.settings)
    except (NewerDatabaseError, UnusableDatabaseError) as error:
        return str(error)
    except AWAY:
        pass
    finally:
        database.dispose()
    return None
