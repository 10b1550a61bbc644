"""Unpacked bytes -> UTF-8 text, checked as it streams.

Here: byte order marks, declared encodings, the offset of the first byte that is not text. Not here: lines and records.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from mini_platform.rows.readers import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mini_platform.rows.readers.unpack import Unpacked

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and what they say. A mark wins over a declared encoding: no text begins with these bytes by chance."""


def utf8_pieces(source: Unpacked, encoding: str | None, size: int) -> Iterator[bytes]:
    """Yield the text of a file as UTF-8, without its byte order mark, in pieces of about `size` bytes.

    A piece never ends within a character; it may be empty.

    Args:
        source: the unpacked bytes.
        encoding: the declared encoding; None means UTF-8, unless a mark says otherwise.
        size: bytes to read at once.

    Raises:
        RefusedFileError: a byte cannot be decoded; the message names its offset in the unpacked bytes.
        LookupError: the declared encoding does not exist.
    """
    declared = codecs.lookup(encoding or "utf-8").name
    head = b""
    while len(head) <= 4 and (more := source.read(size)):
        head += more
    mark, name = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", declared))
    head = head[len(mark) :]
    pieces = _checked if name == "utf-8" else _transcoded
    yield from pieces(source, head, name, len(mark), size)


def _refusal(name: str, error: UnicodeDecodeError, offset: int) -> RefusedFileError:
    byte = error.object[error.start]
    return RefusedFileError(
        f"The file is not valid {name.upper()}: the byte 0x{byte:02X} at offset {offset:,} cannot be decoded "
        f"({error.reason}). A file in another encoding is read where the dataset declares it."
    )


def _checked(source: Unpacked, piece: bytes, name: str, offset: int, size: int) -> Iterator[bytes]:
    """Pass UTF-8 through; `offset` is where `piece` begins."""
    while True:
        if piece.isascii():
            used = len(piece)
        else:
            try:
                used = codecs.utf_8_decode(piece, "strict", False)[1]
            except UnicodeDecodeError as error:
                raise _refusal(name, error, offset + error.start) from error
        yield piece if used == len(piece) else piece[:used]
        offset += used
        more = source.read(size)
        rest, piece = piece[used:], more if used == len(piece) else piece[used:] + more
        if not more:
            break
    if rest:
        try:
            rest.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _refusal(name, error, offset + error.start) from error


def _transcoded(source: Unpacked, piece: bytes, name: str, offset: int, size: int) -> Iterator[bytes]:
    """Turn another encoding into UTF-8; `offset` is where `piece` begins."""
    decoder = codecs.getincrementaldecoder(name)("strict")
    while True:
        final = not piece
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            # The decoder prepends what it kept of the pieces before.
            begin = offset - (len(error.object) - len(piece))
            raise _refusal(name, error, begin + error.start) from error
        if text:
            yield text.encode("utf-8")
        if final:
            break
        offset += len(piece)
        piece = source.read(size)
