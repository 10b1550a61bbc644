"""A real HTTP server that misbehaves on purpose, in threads of the test's process.

A test passes a function from a request to a `Reply`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request that the server received.

    Attributes:
        path: without the query.
        query: parameters, the first value of each.
        headers: names in lower case.
        at: `time.monotonic()` of its arrival.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True)
class Reply:
    """A response of the server.

    Attributes:
        body: its bytes; anything but bytes is sent as JSON.
        cut: number of bytes of the body after which the connection is closed; the length of the whole body is announced.
        chunked: True if the body is sent in chunks, without its length.
        pause: seconds before anything is sent.
        drip: seconds between single bytes of the body.
        drop: True if the connection is closed without a response.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    chunked: bool = False
    pause: float = 0.0
    drip: float = 0.0
    drop: bool = False


Answer = Callable[[Request], Reply]


class Api:
    """The server: its `url` and the requests so far. `answer`, and `date` for a wrong clock, can be changed at any time."""

    def __init__(self, url: str, answer: Answer) -> None:
        self.url = url
        self.answer = answer
        self.date: str | None = None
        self.requests: list[Request] = []

    @property
    def pages(self) -> list[str | None]:
        """Return the parameter `page` of each request."""
        return [request.query.get("page") for request in self.requests]


@contextmanager
def serving(answer: Answer, host: str = "127.0.0.1") -> Iterator[Api]:
    """Run a server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(parts.path, query, headers, time.monotonic())
            api.requests.append(request)
            self.send(api.answer(request))

        def send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            time.sleep(reply.pause)
            if reply.drop:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif reply.status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if reply.chunked:
                body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:5], body[5:])) + b"0\r\n\r\n"
            if reply.drip:
                for byte in body:
                    self.wfile.write(bytes((byte,)))
                    time.sleep(reply.drip)
            else:
                self.wfile.write(body[: reply.cut])
            self.close_connection = reply.cut is not None

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # The client closed the connection before the response.

        def date_time_string(self, timestamp: float | None = None) -> str:
            return api.date or super().date_time_string(timestamp)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server((host, 0), Handler) as server:
        api = Api(f"http://{host}:{server.server_port}/things", answer)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def things(*ids: int, **more: Any) -> list[dict[str, Any]]:
    """Return rows as the API of records sends them."""
    return [{"userId": 1, "id": n, "title": f"thing {n}", "body": f"about {n}", **more} for n in ids]


def numbered(pages: list[list[Any]]) -> Answer:
    """Return an answer to `?page=n`, counted from 1: these pages, and then empty ones."""

    def answer(request: Request) -> Reply:
        number = int(request.query["page"])
        return Reply(pages[number - 1] if number <= len(pages) else [])

    return answer
