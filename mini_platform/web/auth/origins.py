"""From where a browser may ask: the name in its Host header, and the site whose page sends a request.

A page of another site can let its own name lead to our address (DNS rebinding) and read what we answer, or send forms to
us (CSRF): the first is seen by the name that it asks, the second by what the browser says of the page.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mini_platform.config.sections import between_commas
from mini_platform.config.settings import Settings
from mini_platform.web.problems import problem

SAFE = {"GET", "HEAD", "OPTIONS"}
"""Methods that change nothing."""
LOCAL = {"localhost", "127.0.0.1", "[::1]"}
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:]*)(:\d+)?")


class Origins:
    """Middleware that refuses what a browser should not have been made to send."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Stand before an app."""
        self._app = app
        named = {name.lower() for name in between_commas(settings.api_hosts)}
        self._hosts = LOCAL | {settings.host} | named if named or not settings.needs_keys else None
        self._origins = set(between_commas(settings.api_origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and (refused := self._refusal(scope["method"], Headers(scope=scope))):
            await problem(*refused)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        form = HOST.fullmatch(host)
        if self._hosts is not None and (form is None or form[1] not in self._hosts):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"This server is not called {host!r}. Ask it by one of {', '.join(sorted(self._hosts))}, or add the name to "
                "MINI_PLATFORM_API_HOSTS."
            )
        if method in SAFE or headers.get("origin") in self._origins or from_here(headers, unless_said=True):
            return None
        return HTTPStatus.FORBIDDEN, "Pages of other sites may not change anything here."


def from_here(headers: Headers, *, unless_said: bool = False) -> bool:
    """Whether a browser says that one of our own pages sends a request.

    Args:
        headers: of the request.
        unless_said: what holds where nothing is said, as by programs that are no browsers.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return False
    if site is None:
        return unless_said or origin is not None
    return site == "same-origin" or (site == "none" and unless_said)


def allow_origins(app: FastAPI, settings: Settings) -> None:
    """Let pages of the sites in the settings use the API, with keys and never with a session; of others none."""
    if origins := between_commas(settings.api_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["ETag", "Retry-After", "X-Request-ID"],
        )
