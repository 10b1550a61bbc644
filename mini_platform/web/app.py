"""The web process: the API and the dashboard as one FastAPI app.

Run by `mini-platform up` as `python -m mini_platform.web`. It starts quickly, as it imports neither Dagster nor polars, pandas
or Plotly. It also starts while the database is unreachable, reports that, and recovers automatically.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress

from fastapi import APIRouter, FastAPI

from mini_platform.config import extras, logs
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
from mini_platform.web.serving import serve
from mini_platform.web.site import Site

ABOUT = (
    "Datasets loaded from files and API sources: their rows, derived tables, and the status of each file. "
    "Times are in UTC, decimals are strings, errors are `application/problem+json`. Where a key is required, send it as "
    "`Authorization: Bearer KEY`, `Authorization: Token KEY` or `x-api-key: KEY`."
)


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
    serve(app, settings, settings.api_port)


def _prepare(site: Site) -> None:
    """Do what need not delay the start: prepare pages, and log declarations that cannot be used."""
    preload()
    with suppress(*AWAY):
        site.platform.engine  # noqa: B018 - opened: it may refuse datasets
    for invalid in site.platform.invalid:
        logging.getLogger(__name__).warning(invalid.message)


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
