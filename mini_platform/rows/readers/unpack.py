"""A raw file -> its unpacked bytes: plain, gzip or zip, distinguished by the first bytes and never by the name.

Here: decompression and the limits that stop a bomb. Not here: encodings (`decode.py`).
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from mini_platform.rows.readers import ReadLimits, RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""First bytes of a zip: with a member, without one, and split over several files."""
_MAGIC_BYTES = 4
"""Length of the longest magic."""

_PACKED_PIECE = 2**16
"""Packed bytes passed to zlib at once. Small, as the rest of a piece is copied for every member that ends inside it."""
_UNPACKED_PIECE = 2**20
_MAX_DIRECTORY = 2**16
"""Most bytes of a zip's directory. One member needs under 200; `zipfile` creates an object for every entry."""


class Unpacked:
    """The unpacked bytes of a raw file, counted against the limits as they are read.

    Attributes:
        position: number of unpacked bytes that were read.
    """

    def __init__(self, file: BinaryIO, read: Callable[[int], bytes], limits: ReadLimits, *, packed: bool) -> None:
        """Read from `read`, which itself reads from `file`; if `packed` is true, the ratio is limited."""
        self._file = file
        self._read = read
        self._limits = limits
        self._size = os.fstat(file.fileno()).st_size
        self._packed = packed
        self._head = b""
        self.position = 0

    @property
    def bytes_read(self) -> int:
        """Number of bytes of the raw file that were read."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; empty at the end.

        Raises:
            RefusedFileError: the file is larger than the limits allow, is damaged or ends too soon.
        """
        piece = self._read(min(size, _UNPACKED_PIECE) if self._packed else size)
        if self._packed and self.position < _MAGIC_BYTES:
            self._refuse_packed_twice(piece)
        self.position += len(piece)
        if self.position > self._limits.max_file_bytes:
            raise RefusedFileError(
                f"The file is larger than the {self._limits.max_file_bytes:,} bytes that are allowed."
            )
        if self._packed and self.position > self._limits.max_ratio * self._size:
            raise RefusedFileError(
                f"The file unpacks to more than {self._limits.max_ratio} times its own size of {self._size:,} bytes, "
                "which indicates a decompression bomb."
            )
        return piece

    def _refuse_packed_twice(self, piece: bytes) -> None:
        """Refuse a packed file inside a packed file, by its first bytes: decompression bombs are built that way."""
        self._head += piece[:_MAGIC_BYTES]
        for kind, magics in (("a gzip", (GZIP_MAGIC,)), ("a zip", ZIP_MAGICS)):
            if self._head.startswith(magics):
                raise RefusedFileError(
                    f"The file is packed twice: {kind} file is inside it. Pack the text itself, once."
                )


class _GzipMembers:
    """Reads the members of a gzip file one after another."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member: zlib._Decompress | None = None
        self._packed = b""
        self._first = True

    def read(self, size: int) -> bytes:
        while True:
            member = self._member or self._next_member()
            if member is None:
                return b""
            self._member = member
            if not self._packed:
                self._packed = self._file.read(_PACKED_PIECE)
            try:
                # At the end of the file zlib may still buffer output; an empty input flushes it.
                piece = member.decompress(self._packed, size)
            except zlib.error as error:
                raise RefusedFileError(f"The gzip file is damaged ({error}).") from error
            at_end = not self._packed
            self._packed = member.unconsumed_tail
            if member.eof:
                self._packed, self._member = member.unused_data, None
            elif at_end and not piece:
                raise RefusedFileError("The gzip file ends too soon: it was cut off before its end.")
            if piece:
                return piece

    def _next_member(self) -> zlib._Decompress | None:
        """Return a decompressor for the next member, if any; zeros after the last one are padding, as for gzip itself."""
        while len(self._packed) < len(GZIP_MAGIC) and (more := self._file.read(_PACKED_PIECE)):
            self._packed += more
        if not self._first and not self._packed.startswith(GZIP_MAGIC):
            while self._packed:
                if self._packed.strip(b"\0"):
                    raise RefusedFileError("The gzip file is damaged: something else follows its end.")
                self._packed = self._file.read(_PACKED_PIECE)
            return None
        self._first = False
        return zlib.decompressobj(wbits=31)


def _directory_bytes(file: BinaryIO) -> int:
    """Return the size of a zip's directory, from the record at its end (APPNOTE.TXT 4.3.16, for zip64 4.3.14)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 2**16))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return 0
    directory = int(struct.unpack_from("<L", tail, at + 12)[0])
    locator = at - 20
    if locator >= 0 and tail.startswith(b"PK\x06\x07", locator):
        file.seek(min(size, struct.unpack_from("<Q", tail, locator + 8)[0]))
        record = file.read(56)
        if len(record) == 56:
            directory = max(directory if directory != 2**32 - 1 else 0, int(struct.unpack_from("<Q", record, 40)[0]))
    return directory


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the only file in a zip; its name is only shown, never used as a path."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise RefusedFileError(f"The zip holds {len(members)} files; exactly one is expected.")
    member = members[0]
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise RefusedFileError(f"The zip's only member, {member.filename!r}, is not a regular file.")
    if member.flag_bits & 0x1:
        raise RefusedFileError("The zip is encrypted; only zips without a password can be read.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks the other methods without a bound on the output of one step.
        raise RefusedFileError("The zip uses a compression other than deflate.")
    return member


def _zip_reader(file: BinaryIO) -> Callable[[int], bytes]:
    if _directory_bytes(file) > _MAX_DIRECTORY:
        raise RefusedFileError("The zip holds many files; exactly one is expected.")
    try:
        archive = zipfile.ZipFile(file)
        member = archive.open(_only_member(archive))
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError) as error:
        raise RefusedFileError(f"The zip file is damaged or cut off ({error}).") from error

    def read(size: int) -> bytes:
        try:
            return member.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise RefusedFileError(f"The zip file is damaged or cut off ({error}).") from error

    return read


@contextmanager
def unpacked(path: Path, limits: ReadLimits) -> Iterator[Unpacked]:
    """Open a raw file for reading its unpacked bytes.

    Raises:
        RefusedFileError: the file is larger than the limits allow, or is packed in a way that cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(GZIP_MAGIC):
            yield Unpacked(file, _GzipMembers(file).read, limits, packed=True)
        elif magic in ZIP_MAGICS:
            yield Unpacked(file, _zip_reader(file), limits, packed=True)
        else:
            if os.fstat(file.fileno()).st_size > limits.max_file_bytes:
                raise RefusedFileError(f"The file is larger than the {limits.max_file_bytes:,} bytes that are allowed.")
            yield Unpacked(file, file.read, limits, packed=False)
