"""The dashboard as a whole: routes, shared layout, and errors as pages for browsers.

Each page has its own module with its selects; `rendering.py` renders the HTML.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.middleware.gzip import GZipMiddleware

from mini_platform.web.auth.guard import allowed
from mini_platform.web.pages import (
    browse,
    declared_page,
    files,
    login,
    overview,
    quality,
    reads,
    runs,
    static_files,
)
from mini_platform.web.pages.help import Help
from mini_platform.web.pages.rendering import environment, link, render
from mini_platform.web.pages.svg import accounting_bar, spark_line
from mini_platform.web.problems import HANDLERS
from mini_platform.web.site import SiteDep

ROUTERS = tuple(
    page.router
    for page in (
        static_files,
        overview,
        browse,
        quality,
        files,
        runs,
        login,
    )
)


def add_pages(app: FastAPI) -> None:
    """Add the routes of the dashboard to the app."""
    environment().globals.update(accounting_bar=accounting_bar, spark_line=spark_line)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/help", Help(), name="help")
    declared_page.add_declared_pages(app, app.state.site.datasets)
    invalid = {declaration.name for declaration in app.state.site.platform.invalid}
    declared_page.add_invalid_pages(app, sorted(invalid - app.state.site.datasets.keys()))
    app.add_api_route("/state", state, include_in_schema=False, dependencies=[Depends(allowed("read", several=True))])
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    for kind, handler in HANDLERS.items():
        app.exception_handler(kind)(_as_page(handler))


def preload() -> None:
    """Compress Plotly's script before the first page needs it."""
    static_files.static_file(static_files.PLOTLY).packed  # noqa: B018 - kept


def state(site: SiteDep) -> dict[str, str]:
    """Return a text that changes whenever the ledger changes; open pages poll it to know when to refresh."""
    with site.read() as conn:
        return {"state": reads.state(conn)}


def _as_page(
    handler: Callable[[Request, Any], Awaitable[JSONResponse]],
) -> Callable[[Request, Any], Awaitable[Response]]:
    """Return an error handler that answers browsers with a page, and other clients as before."""

    async def answer(request: Request, error: Exception) -> Response:
        response = await handler(request, error)
        wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
        if not wants_page:
            return response
        if response.status_code == HTTPStatus.UNAUTHORIZED and request.method == "GET":
            then = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
            return RedirectResponse(link("/login", [("then", then)]), HTTPStatus.SEE_OTHER)
        problem = json.loads(bytes(response.body))
        headers = {
            name: response.headers[name] for name in ("Retry-After", "WWW-Authenticate") if name in response.headers
        }
        return render(request, "error.html", response.status_code, headers, problem=problem)

    return answer
