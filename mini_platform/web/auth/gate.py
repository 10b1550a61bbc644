"""The guard of a web app that has none of its own, such as Dagster's UI: it wraps any ASGI app, HTTP and WebSockets.

    browser ──► Host, Origin, Sec-Fetch-*: 403 ──► key or session: 401, 403, or the log-in form ──► the app

The rules and sessions are those of our own app (`origins.py`, `guard.py`); the scope is `admin`: such an app knows no dataset.
Not a `BaseHTTPMiddleware`, which never sees WebSockets.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import quote, urlencode

from starlette import status
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, State
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mini_platform.warehouse import audit
from mini_platform.web.auth.guard import Guard, require
from mini_platform.web.auth.keys import ApiKey
from mini_platform.web.auth.origins import SAFE, Origins, is_same_origin
from mini_platform.web.problems import ProblemError, response_to
from mini_platform.web.secret import is_own
from mini_platform.web.site import Site

DASHBOARD_PATH = "/dagster"
"""Path of the dashboard that leads to the app, to which the log-in form returns."""
CHECK_SECONDS = 5.0
"""Time after which a WebSocket that sends something is checked again, as its session may have ended."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every response, for what the app does not say itself."""


class Gate:
    """An ASGI app that forwards to another one what may enter."""

    def __init__(self, app: ASGIApp, site: Site, *, public: Collection[str] = (), posted: Collection[str] = ()) -> None:
        """Wrap an app.

        Args:
            app: the app to guard.
            site: settings, and the database with the keys.
            public: paths that take no key.
            posted: paths where a query string could make a change by GET: queries must be sent by POST.
        """
        self._app = app
        self._settings = site.settings
        self._public, self._posted = public, posted
        self._origins = Origins(app, site.settings)
        self._guard = Guard(site.settings)
        self.state = State({"site": site, "guard": self._guard})  # As of our own app, for handlers of errors.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request or a WebSocket, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # A WebSocket counts as a request that changes something: CONNECT is its method in HTTP/2.
        request = Request({**scope, "type": "http", "method": scope.get("method", "CONNECT"), "app": self})
        try:
            await self._admit(request)
        except Exception as error:  # every request gets a response
            answer = await self._answer(request, error)
            if scope["type"] == "http":
                await answer(scope, receive, send)
            else:  # 403, whatever the answer: uvicorn logs an error for any other, and no page can read it.
                await send({"type": "websocket.close"})
            return

        checked_at = time.monotonic()

        async def sealed(message: Message) -> None:
            nonlocal checked_at
            if message["type"] == "websocket.send" and time.monotonic() - checked_at >= CHECK_SECONDS:
                checked_at = time.monotonic()
                try:
                    await self._admit(request)
                except Exception:  # the session or its key has ended, or perhaps has: the page connects again
                    message = {"type": "websocket.close", "code": status.WS_1008_POLICY_VIOLATION}
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sealed)

    async def _admit(self, request: Request) -> None:
        """Do nothing if a request may enter.

        Raises:
            ProblemError: access is refused (401, 403), or too many invalid keys were tried (429).
            DatabaseAwayError: the database cannot be reached.
        """
        if refused := self._forged(request):
            raise ProblemError(refused, HTTPStatus.FORBIDDEN)
        if request.scope["path"] in self._public or is_own(self._settings, request.headers):
            return
        if self._settings.needs_keys:
            caller = request.state.caller = await run_in_threadpool(self._caller, request)
            require(request, "admin")
            audit.current_actor.set(f"key {caller.prefix}")
        else:
            audit.current_actor.set("anybody on this machine")

    def _caller(self, request: Request) -> ApiKey:
        return self._guard.caller(request, Guard.site(request).platform.engine)

    def _forged(self, request: Request) -> str | None:
        """Return why a request cannot be one that a user intends, as a sentence; None if it can be."""
        if refused := self._origins.refusal(request.method, request.headers):
            return refused[1]
        # The path and query of the scope are what is served: those of `request.url` begin with what the Host header says.
        path, query = request.scope["path"], request.scope["query_string"]
        if request.method in SAFE and path.rstrip("/") in self._posted and query:
            return "Queries are accepted by POST only: a link or an image of any page could send this one."
        if not is_same_origin(request.headers, default=True) and not _is_visit(request.headers):
            return "Pages of other sites can link here, but not embed or read anything."
        return None

    async def _answer(self, request: Request, error: Exception) -> Response:
        """Return the response to an error; the log-in form of the dashboard for browsers without a session."""
        response = await response_to(request, error)
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if response.status_code != HTTPStatus.UNAUTHORIZED or not is_page:
            return response
        query = request.scope["query_string"].decode("latin-1")
        back = DASHBOARD_PATH + quote(request.scope["path"]) + (f"?{query}" if query else "")
        same_host = request.url.replace(port=self._settings.api_port, path="", query="", fragment="")
        dashboard = (self._settings.public_url or str(same_host)).rstrip("/")
        return RedirectResponse(f"{dashboard}/login?{urlencode({'then': back})}", HTTPStatus.SEE_OTHER)


def _is_visit(headers: Headers) -> bool:
    """Return True if a browser reports that somebody opens a page, as by a link."""
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
