"""Browser origins: checks of the Host header, and of the site whose page sends a request.

A page of another site can resolve its own name to our address (DNS rebinding) and read our responses, or send forms to us
(CSRF). The first is detected by the Host header, the second by the headers with which browsers describe the sending page.
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
    """Middleware that refuses forged requests of browsers: DNS rebinding and CSRF."""

    def __init__(self, app: ASGIApp, settings: Settings, trusted: str = "") -> None:
        """Wrap an app; `trusted` are other sites whose pages may change something, separated by commas."""
        self._app = app
        named = {name.lower() for name in between_commas(settings.api_hosts)}
        self._hosts = LOCAL | {settings.host} | named if named or not settings.needs_keys else None
        self._origins = set(between_commas(trusted))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
        if scope["type"] == "http" and (refused := self.refusal(scope["method"], Headers(scope=scope))):
            await problem(*refused)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Return status and sentence if a request is refused; any method that is not `SAFE` counts as a change."""
        host = headers.get("host", "").lower()
        form = HOST.fullmatch(host)
        if self._hosts is not None and (form is None or form[1] not in self._hosts):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"The host name {host!r} is not allowed. Use one of {', '.join(sorted(self._hosts))}, or add the name to "
                "MINI_PLATFORM_API_HOSTS."
            )
        if method in SAFE or headers.get("origin") in self._origins or is_same_origin(headers, default=True):
            return None
        return HTTPStatus.FORBIDDEN, "Requests from pages of other sites cannot change anything here."


def is_same_origin(headers: Headers, *, default: bool = False) -> bool:
    """Return True if a browser reports that a page of this site sends the request.

    Args:
        headers: headers of the request.
        default: result for requests without such headers, as from clients that are not browsers.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return False
    if site is None:
        return default or origin is not None
    return site == "same-origin" or (site == "none" and default)


def allow_origins(app: FastAPI, settings: Settings) -> None:
    """Allow pages of the origins in the settings to use the API with keys, but not with sessions; no other origins."""
    if origins := between_commas(settings.api_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["ETag", "Retry-After", "X-Request-ID"],
        )
