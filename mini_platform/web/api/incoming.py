"""Bodies on their way in: piece by piece into the raw store, hashed meanwhile, whatever they are wrapped in.

Here: raw bodies and the part `file` of multipart ones, what they are called, how long they may be, and clients that send
nonsense, too much, too slowly, or go away. Memory holds a piece or two of a body, however large it is. A body that is not
wanted is not read: the HTTP server reads it on and forgets it, so that its client gets the answer.
Not here: what becomes of the file (`landing/upload.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from mini_platform.storage.errors import NoRoomError
from mini_platform.storage.store import Arriving, RawStore
from mini_platform.web.problems import ProblemError

PIECE = 2**20
"""Bytes that are handed to the disk at a time."""
PIECE_SECONDS = 300.0
"""A body that takes longer for a piece is given up: it holds a connection and an unfinished file."""
AROUND_BYTES = 2**20
"""Of a multipart body, beside its file."""
ESCAPED = re.compile(rb"%(22|[01][0-9A-F])")
"""How browsers write the characters that would end a name:
https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data"""

Check = Callable[[str], object]
"""Told of a name before the bytes come; raises `ProblemError` where a file cannot be taken under it."""


@dataclass(frozen=True)
class Incoming:
    """A file that came in whole.

    Attributes:
        name: as it was sent; None if it was sent without one. Bytes that are not UTF-8 are surrogates.
        content_type: as it was sent, without parameters, in lower case.
        arriving: its bytes, to be kept or not.
    """

    name: str | None
    content_type: str
    arriving: Arriving


@asynccontextmanager
async def receive(request: Request, store: RawStore, limit: int, check: Check) -> AsyncIterator[Incoming]:
    """The file that a request brings. Where the body does not keep it, nothing is left of it.

    Args:
        request: its body is multipart with a part `file`, or the file itself, named by `?name=` or Content-Disposition.
        store: that it arrives in.
        limit: longest file, in bytes.
        check: of its name.

    Raises:
        ProblemError: 400 for what is no upload, 408, 413, or 507 where the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = kind == b"multipart/form-data"
    wrapped = _Form(options.get(b"boundary", b""), check) if form else _Raw(request, kind, check)
    body = _Limited(request, limit + (AROUND_BYTES if form else 0))
    with no_room():
        async with contextmanager_in_threadpool(store.receive()) as arriving:

            def take(piece: bytes) -> None:
                found = wrapped.feed(piece)
                if arriving.size + len(found) > limit:
                    raise _too_large(limit)
                arriving.write(found)

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
            "The disk that files are kept on is full: send it again later.", HTTPStatus.INSUFFICIENT_STORAGE
        ) from error


async def whole(request: Request, limit: int) -> bytes:
    """A raw body that may be held in memory.

    Raises:
        ProblemError: 400, 408 or 413.
    """
    return b"".join([piece async for piece in _Limited(request, limit).pieces()])


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        f"At most {limit:,} bytes can be sent at once.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, max_bytes=limit
    )


class _Limited:
    """The bytes of a body, of which there may not be more than so many."""

    def __init__(self, request: Request, limit: int) -> None:
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > limit:
            raise _too_large(limit)
        self._chunks, self._limit = aiter(request.stream()), limit

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they come, but none is much smaller than `PIECE` except the last."""
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
            raise ProblemError("The body comes too slowly.", HTTPStatus.REQUEST_TIMEOUT) from None
        except ClientDisconnect:
            raise ProblemError("The client went away before it had sent the body.") from None
        return bytes(piece)


class _Raw:
    """A body that is the file."""

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
        """Nothing can be missing."""


class _Form:
    """A multipart body, of which the part `file` is the file; fields beside it are left out."""

    def __init__(self, boundary: bytes, check: Check) -> None:
        self.name: str | None = None
        self.content_type = ""
        self._check, self._found, self._ended = check, False, False
        self._is_file = False
        self._header, self._value, self._headers = bytearray(), bytearray(), dict[bytes, bytes]()
        self._bytes = bytearray()
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
        """The file's bytes in a piece of the body."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise ProblemError(f"The multipart body cannot be read: {error}.") from error
        found = bytes(self._bytes)
        self._bytes.clear()
        return found

    def finish(self) -> None:
        """Say what is missing."""
        if not self._ended:
            raise ProblemError("The multipart body ends too soon: its last boundary is missing.")
        if not self._found:
            raise ProblemError("The multipart body has no part with the name `file`.")

    def _part_begins(self) -> None:
        self._headers.clear()

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._is_file = options.get(b"name") == b"file"
        if not self._is_file:
            return
        if self._found:
            raise ProblemError("There are several parts with the name `file`: send one file at a time.")
        self._found = True
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
    """A file name that was sent in a header."""
    if name is None:
        return None
    return ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), name).decode("utf-8", "surrogateescape")
