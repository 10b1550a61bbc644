"""Support for HEAD: the response of GET, without the body."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Middleware that calls the app by GET. A streaming response sees a disconnect once it has started."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request; of HEAD without the body."""
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
