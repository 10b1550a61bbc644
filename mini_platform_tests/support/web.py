"""Apps served over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.serving import served
from mini_platform.web.site import Site


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app of ours, by https and behind proxies as its settings say; yields its URL."""
    settings = app.state.site.settings
    with listening(app, **served(settings)) as address:
        yield f"http{'s' if settings.api_tls_cert else ''}://{address}"


@contextmanager
def serving_platform(platform: Platform) -> Iterator[str]:
    """Serve the web process's app on a platform; yields its URL."""
    site = Site(platform)
    with serving(create_app(site)) as url:
        yield url
    site.close()


def endpoints_of(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route, of included routers, too."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{route.path}/"
        elif isinstance(route, Route | APIRoute):
            yield from ((method, route.path) for method in sorted(route.methods or ()) if method != "HEAD")
        else:
            yield from endpoints_of(route.original_router.routes)  # type: ignore[attr-defined]


@contextmanager
def listening(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Serve any app over real sockets; yields its host and port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
