"""HEAD: what GET would answer, without the body."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Middleware that asks the app by GET. A response that streams is told that its client has gone once it has begun."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun = asyncio.Event()

        async def gone() -> Message:
            await begun.wait()
            return {"type": "http.disconnect"}

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                begun.set()

        await self._app({**scope, "method": "GET"}, gone, without_body)
        await send({"type": "http.response.body", "body": b""})
