"""Request bodies: written to the raw store in pieces and hashed on the way, raw or multipart.

Here: raw bodies and the part `file` of multipart ones, their names, their maximum size, and clients that send invalid bodies,
too many bytes or parts, too slowly, or that disconnect. Memory holds one or two pieces of a body, whatever its size. A refused
body is not read here: the HTTP server discards it, so that the client gets the response. Not here: landing the file
(`landing/upload.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mini_platform.storage.errors import NoRoomError
from mini_platform.storage.store import Arriving, RawStore
from mini_platform.web.problems import ProblemError

PIECE = 2**20
"""Bytes per write to the disk."""
PIECE_SECONDS = 300.0
"""Maximum time for a piece of a body, as it holds a connection and an unfinished file."""
AROUND_BYTES = 2**20
"""Maximum bytes of a multipart body beside its file."""
MOST_PARTS = 100
"""Maximum parts of a multipart body; all but the file are ignored."""
ESCAPED = re.compile(rb"%(22|[01][0-9A-F])")
"""Escapes that browsers use for characters that would end a name:
https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data"""

Check = Callable[[str], object]
"""Called with the file name before the bytes arrive; raises `ProblemError` if the name is not accepted."""


@dataclass(frozen=True)
class Incoming:
    """A file that was received completely.

    Attributes:
        name: file name as sent, or None. Bytes that are not UTF-8 are surrogates.
        content_type: media type as sent, without parameters, in lower case.
        arriving: bytes of the file, to be kept or dropped.
    """

    name: str | None
    content_type: str
    arriving: Arriving


@asynccontextmanager
async def receive(request: Request, store: RawStore, limit: int, check: Check) -> AsyncIterator[Incoming]:
    """Yield the file of a request. If the caller does not keep it, its bytes are removed.

    Args:
        request: its body is multipart with a part `file`, or the file itself, named by `?name=` or Content-Disposition.
        store: raw store for the bytes.
        limit: maximum bytes of the file.
        check: check of the file name.

    Raises:
        ProblemError: 400 for an invalid upload, 408, 413, or 507 if the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = kind == b"multipart/form-data"
    wrapped = _Form(options.get(b"boundary", b""), check) if form else _Raw(request, kind, check)
    body = _Limited(request, limit + (AROUND_BYTES if form else 0))
    with no_room():
        async with contextmanager_in_threadpool(store.receive()) as arriving:

            def take(piece: bytes) -> None:
                content = wrapped.feed(piece)
                if arriving.size + len(content) > limit:
                    raise _too_large(limit)
                arriving.write(content)

            async for piece in body.pieces():
                await run_in_threadpool(take, piece)
            wrapped.finish()
            if not arriving.size:
                raise ProblemError("The file is empty: there is nothing to load.")
            yield Incoming(wrapped.name, wrapped.content_type, arriving)


@contextmanager
def no_room() -> Iterator[None]:
    """Answer with 507 where the disk is full."""
    try:
        yield
    except NoRoomError as error:
        raise ProblemError(
            "The disk for raw files is full; send the file again later.", HTTPStatus.INSUFFICIENT_STORAGE
        ) from error


async def whole(request: Request, limit: int) -> bytes:
    """Return a raw body that is small enough for memory.

    Raises:
        ProblemError: 400, 408 or 413.
    """
    return b"".join([piece async for piece in _Limited(request, limit).pieces()])


async def form(request: Request, limit: int) -> dict[str, Any]:
    """Return the fields of a form, URL-encoded or multipart, that is small enough for memory.

    Raises:
        ProblemError: 400, 408 or 413.
    """
    body = await whole(request, limit)

    async def replay() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    try:
        async with Request(request.scope, replay).form(max_files=MOST_PARTS, max_fields=MOST_PARTS) as fields:
            return dict(fields)
    except HTTPException as error:
        raise ProblemError(f"The form cannot be read: {error.detail}") from error


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        f"The body is too large: the limit is {limit:,} bytes.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, max_bytes=limit
    )


class _Limited:
    """A request body with a maximum length."""

    def __init__(self, request: Request, limit: int) -> None:
        content_length = request.headers.get("content-length", "")
        if content_length.isdecimal() and int(content_length) > limit:
            raise _too_large(limit)
        self._chunks, self._limit = aiter(request.stream()), limit

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield pieces of the body; all except the last have about `PIECE` bytes."""
        size = 0
        while piece := await self._piece():
            size += len(piece)
            if size > self._limit:
                raise _too_large(self._limit)
            yield piece

    async def _piece(self) -> bytes:
        piece = bytearray()
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                while len(piece) < PIECE:
                    piece += await anext(self._chunks)
        except StopAsyncIteration:
            pass
        except TimeoutError:
            raise ProblemError("The request body arrives too slowly.", HTTPStatus.REQUEST_TIMEOUT) from None
        except ClientDisconnect:
            raise ProblemError("The client disconnected before it had sent the body.") from None
        return bytes(piece)


class _Raw:
    """A raw body: the body is the file."""

    def __init__(self, request: Request, kind: bytes, check: Check) -> None:
        _, options = parse_options_header(request.headers.get("content-disposition"))
        sent = request.query_params.get("name")
        self.name = sent if sent is not None else _text(options.get(b"filename"))
        self.content_type = kind.decode("latin-1")
        if self.name is not None:
            check(self.name)

    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> None:
        """Do nothing: a raw body cannot be incomplete here."""


class _Form:
    """A multipart body; its part `file` is the file, other parts are ignored."""

    def __init__(self, boundary: bytes, check: Check) -> None:
        self.name: str | None = None
        self.content_type = ""
        self._check, self._has_file, self._ended = check, False, False
        self._is_file = False
        self._header, self._value, self._headers = bytearray(), bytearray(), dict[bytes, bytes]()
        self._bytes = bytearray()
        self._parts = self._around = 0
        if not boundary:
            raise ProblemError("The Content-Type of the multipart body names no boundary.")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_end": self._ends,
                },
            )
        except FormParserError as error:
            raise ProblemError(f"The multipart body cannot be read: {error}.") from error

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes of the file in a piece of the body."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise ProblemError(f"The multipart body cannot be read: {error}.") from error
        content = bytes(self._bytes)
        self._bytes.clear()
        self._around += len(piece) - len(content)
        if self._around > AROUND_BYTES:
            raise _too_large(AROUND_BYTES)
        return content

    def finish(self) -> None:
        """Raise if the body is incomplete."""
        if not self._ended:
            raise ProblemError("The multipart body ends too soon: its last boundary is missing.")
        if not self._has_file:
            raise ProblemError("The multipart body has no part with the name `file`.")

    def _part_begins(self) -> None:
        self._headers.clear()
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise ProblemError(f"The multipart body has more than {MOST_PARTS} parts; send one, with the name `file`.")

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._is_file = options.get(b"name") == b"file"
        if not self._is_file:
            return
        if self._has_file:
            raise ProblemError("There are several parts with the name `file`: send one file at a time.")
        self._has_file = True
        kind, _ = parse_options_header(self._headers.get(b"content-type", b""))
        self.content_type = kind.decode("latin-1")
        self.name = _text(options.get(b"filename"))
        if self.name == "":
            raise ProblemError("No file was chosen: the part `file` has an empty file name.")
        if self.name is not None:
            self._check(self.name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._bytes += data[start:end]

    def _ends(self) -> None:
        self._ended = True


def _text(name: bytes | None) -> str | None:
    """Return a file name from a header as text."""
    if name is None:
        return None
    return ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), name).decode("utf-8", "surrogateescape")
