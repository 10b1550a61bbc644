"""The paths of replaced systems, served over a platform of their own, and bodies that they refuse."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import load_files, open_platform
from mini_platform_tests.support.uploads import form, ledger, loading, stored
from mini_platform_tests.support.web import serving

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Live:
    """A platform that is served, and a client of it."""

    platform: Platform
    client: httpx.Client

    def rows(self, statement: str) -> list[Any]:
        """Return the rows of a query of the database."""
        with self.platform.engine.connect() as conn:
            return list(conn.execute(text(statement)))

    def received(self) -> tuple[list[int], list[str]]:
        """Return the ids of all files in the ledger, and the names of all in the raw store."""
        return [row.file_id for row in ledger(self.platform)], stored(self.platform)

    def loading(self, *datasets: str) -> AbstractContextManager[None]:
        """Load the files of these datasets as they arrive, as Dagster's runs do, during a block."""
        return loading(self.platform, partial(load_files, self.platform), *datasets)


@contextmanager
def live(server: str, template: str, folder: Path) -> Iterator[Live]:
    """Serve a platform on a copy of a database, for the tests of a module."""
    with open_platform(server, template, folder) as platform:
        site = Site(platform)
        with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield Live(platform, client)
        site.close()


@dataclass(frozen=True)
class Body:
    """A request body with its headers."""

    content: bytes
    headers: Mapping[str, str]

    def post(self, client: httpx.Client, path: str) -> httpx.Response:
        return client.post(path, content=self.content, headers=dict(self.headers))


def uploaded(name: str, content: bytes) -> Body:
    """Return a multipart body with one file."""
    return Body(*form((b'name="file"; filename="%s"' % name.encode(), content)))


PROSE = b"Dear platform, the figures of last week are below."
BAD_BODIES = ("none", "empty", "half", "without its end", "prose", "bytes", "another type", "form without a file")


def bad_body(kind: str, good: Body) -> Body:
    """Return a body that a path does not accept, made from one that it accepts."""
    is_form = good.headers["Content-Type"].startswith("multipart/")
    return {
        "none": Body(b"", {}),
        "empty": Body(b"", good.headers),
        "half": Body(good.content[: len(good.content) // 2], good.headers),
        "without its end": Body(good.content[:-6], good.headers),
        "prose": Body(PROSE, {"Content-Type": "text/plain"}),
        "bytes": Body(bytes(range(256)), good.headers),
        "another type": Body(b'{"file": "a.csv"}', JSON) if is_form else uploaded("a.json", good.content),
        "form without a file": Body(*form((b'name="comment"', PROSE))),
    }[kind]


def assert_refused(answer: httpx.Response, status: int | None = None) -> str:
    """Return the sentence of a refusal in the form of a replaced system, with ours beside."""
    assert 400 <= answer.status_code < 500, answer.text
    assert status in (None, answer.status_code), answer.text
    body = answer.json()
    assert body["error"] == body["detail"]
    assert body["status"] == answer.status_code
    assert len(body["error"].split()) > 3, "a sentence"
    return str(body["error"])


def post_half(live: Live, path: str, good: Body) -> bytes:
    """Send half of a body and close this side of the connection; return the response, which may be empty."""
    url = live.client.base_url
    lines = [f"POST {path} HTTP/1.1", f"Host: {url.host}:{url.port}", f"Content-Length: {len(good.content)}"]
    lines += [f"{name}: {value}" for name, value in good.headers.items()]
    with socket.create_connection((url.host, url.port or 80), timeout=30) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + good.content[: len(good.content) // 2])
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(partial(sock.recv, 4096), b""))
