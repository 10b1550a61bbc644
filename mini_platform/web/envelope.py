"""What every response carries, whoever made it: the id of its request and headers for security; and its line in the log.

A mistake of ours becomes a response here, too: one made further out, by Starlette, would carry none of this.
"""

from __future__ import annotations

import logging
import re
import time
import uuid

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
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every response that has not its own."""
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}
"""Of those over https, but to localhost: a browser would ask for https on each of its ports, of Dagster too."""

access = logging.getLogger("mini_platform.access")


class Envelope:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and write on the response what it is to carry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("x-request-id", "")
        request_id = told if REQUEST_ID.fullmatch(told) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
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
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, sealed)
            except Exception as error:  # whatever it is, who asked is answered
                answer = await scope["app"].exception_handlers[Exception](Request(scope), error)
                if status:
                    raise
                await answer(scope, receive, sealed)
            finally:
                milliseconds = round((time.perf_counter() - began) * 1000, 1)
                # Neither the query, which may name a person, nor the key.
                line = {"method": scope["method"], "path": scope["path"], "status": status, "ms": milliseconds}
                access.info("request", extra=line)
