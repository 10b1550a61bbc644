"""The outermost middleware: request ids, security headers and the access log.

Unexpected exceptions become responses here, too: those that Starlette makes further out would lack these headers.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Default headers of every response."""
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}
"""Headers of responses over https, except on localhost: browsers would use https on all its ports, other programs included."""

NO_STORE = "no_store"

current_state: ContextVar[dict[str, Any] | None] = ContextVar("current_state", default=None)
"""The state of the request that this task or thread answers."""

access = logging.getLogger("mini_platform.access")


def no_store() -> None:
    """Forbid everybody to store the response to the current request: it may show personal data, a key or a session."""
    state = current_state.get()
    if state is not None:
        state[NO_STORE] = True


class Envelope:
    """Middleware that sets the headers of every response and logs the request."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, and add headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client_id = Headers(scope=scope).get("x-request-id", "")
        request_id = client_id if REQUEST_ID.fullmatch(client_id) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        current_state.set(state)
        began, status = time.perf_counter(), 0
        local = Headers(scope=scope).get("host", "").partition(":")[0] == "localhost"
        carried = HEADERS if scope["scheme"] != "https" or local else HEADERS | HTTPS_ONLY

        async def sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in carried.items():
                    headers.setdefault(name, value)
                if NO_STORE in state or "set-cookie" in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, sealed)
            except Exception as error:  # every request gets a response
                answer = await scope["app"].exception_handlers[Exception](Request(scope), error)
                if status:
                    raise
                await answer(scope, receive, sealed)
            finally:
                milliseconds = round((time.perf_counter() - began) * 1000, 1)
                # Neither the query, which may name a person, nor the key.
                line = {"method": scope["method"], "path": scope["path"], "status": status, "ms": milliseconds}
                access.info("request", extra=line)
