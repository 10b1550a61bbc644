"""The web process: the API and the dashboard as one FastAPI app.

Run by `mini-platform up` as `python -m mini_platform.web`. Its start is quick: it imports neither Dagster nor polars, pandas
or Plotly. Where the database is away it starts all the same, says so, and is well again by itself.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI

from mini_platform.config import logs
from mini_platform.config.settings import Settings
from mini_platform.declare.registry import own_value
from mini_platform.operations import https
from mini_platform.web.api import audit, datasets, health, metrics, reference, uploads
from mini_platform.web.api.openapi import describe
from mini_platform.web.auth import keys
from mini_platform.web.auth.guard import protect
from mini_platform.web.head import Head
from mini_platform.web.pages.routes import add_pages, preload
from mini_platform.web.problems import AWAY, handle_problems
from mini_platform.web.site import Site

ABOUT = (
    "Datasets that files and sources are loaded into: their rows, what is computed from them, and what became of each file. "
    "Times are in UTC, decimals are strings, errors are `application/problem+json`. Where a key is asked for, send it as "
    "`Authorization: Bearer KEY`, `Authorization: Token KEY` or `x-api-key: KEY`."
)
STOP_SECONDS = 10
"""How long requests that are under way may take to end, once the process is told to; less than until it is killed."""


def create_app(site: Site | None = None) -> FastAPI:
    """The app over a site; without one, over the platform that the settings name.

    Raises:
        RegistryError: the routes that a dataset has of its own cannot be had.
    """
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
    for own in app.state.site.platform.registry.own_modules("routes", app.state.site.datasets):
        app.include_router(own_value(own, "router", APIRouter))
    describe(app, app.state.site)
    return app


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; exit code 1 and a sentence where others could ask and nobody has a key."""
    site = Site()
    logs.configure(site.settings.logs)
    if refusal := _refusal(site):
        sys.exit(refusal)
    settings = site.settings
    if settings.in_clear:
        logging.getLogger(__name__).warning(settings.in_clear)
    threading.Thread(target=preload, daemon=True).start()
    uvicorn.run(
        create_app(site),
        host=settings.host,
        port=settings.api_port,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
        **served(settings),
    )


def served(settings: Settings) -> dict[str, Any]:
    """How uvicorn serves with these settings: by https if they name a certificate, behind the proxies that they name.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    context = https.context(settings)
    return {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # Else everybody on this machine could give a request the address that they like.
        "proxy_headers": bool(settings.api_proxies),
        "forwarded_allow_ips": settings.api_proxies,
        "ssl_context_factory": (lambda *_: context) if context else None,
    }


def _refusal(site: Site) -> str | None:
    """Why not to serve; None also while the database is away, when nobody is let in."""
    if (refusal := https.refusal(site.settings)) or not site.settings.needs_keys:
        return refusal  # without asking the database
    try:
        with site.platform.engine.connect() as conn:
            return keys.refusal(conn, site.settings)
    except AWAY:
        return None
