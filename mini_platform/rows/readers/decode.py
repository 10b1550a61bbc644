"""Unpacked bytes -> UTF-8 text, checked as it streams.

Here: byte order marks, declared encodings, the offset of the first invalid byte. Not here: lines and records.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from mini_platform.rows.readers import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mini_platform.rows.readers.unpack import Unpacked

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the start of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and their encodings. A mark overrides a declared encoding: no text begins with these bytes by chance."""


def utf8_pieces(source: Unpacked, encoding: str | None, size: int) -> Iterator[bytes]:
    """Yield the text of a file as UTF-8, without its byte order mark, in pieces of about `size` bytes.

    A piece never ends inside a character; it may be empty.

    Args:
        source: the unpacked bytes.
        encoding: the declared encoding; None means UTF-8, unless there is another mark.
        size: number of bytes to read at once.

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


def _decode_error(name: str, error: UnicodeDecodeError, offset: int) -> RefusedFileError:
    byte = error.object[error.start]
    return RefusedFileError(
        f"The file is not valid {name.upper()}: the byte 0x{byte:02X} at offset {offset:,} cannot be decoded "
        f"({error.reason}). To read another encoding, declare it in the dataset."
    )


def _checked(source: Unpacked, piece: bytes, name: str, offset: int, size: int) -> Iterator[bytes]:
    """Yield UTF-8 as it is; `offset` is the position of `piece`."""
    while True:
        if piece.isascii():
            used = len(piece)
        else:
            try:
                used = codecs.utf_8_decode(piece, "strict", False)[1]
            except UnicodeDecodeError as error:
                raise _decode_error(name, error, offset + error.start) from error
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
            raise _decode_error(name, error, offset + error.start) from error


def _transcoded(source: Unpacked, piece: bytes, name: str, offset: int, size: int) -> Iterator[bytes]:
    """Yield another encoding as UTF-8; `offset` is the position of `piece`."""
    decoder = codecs.getincrementaldecoder(name)("strict")
    while True:
        final = not piece
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            # The decoder prepends bytes that it kept from earlier pieces.
            begin = offset - (len(error.object) - len(piece))
            raise _decode_error(name, error, begin + error.start) from error
        if text:
            yield text.encode("utf-8")
        if final:
            break
        offset += len(piece)
        piece = source.read(size)
