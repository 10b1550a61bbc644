"""Gzip and zip, whole, damaged and hostile."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from mini_platform.rows.readers import ReadLimits, RefusedFileError

if TYPE_CHECKING:
    from mini_platform_tests.support.reader import Reader

TEXT = b"a,b\n" + b"".join(b"%d,%d\n" % (number, number * 7919 % 1000) for number in range(2000))
ROWS = [(number + 2, (str(number), str(number * 7919 % 1000))) for number in range(2000)]
BOMB = b"a,b\n" + b"1,2\n" * 5_000_000


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            if mode is not None:
                member.external_attr = mode << 16
            archive.writestr(member, data)
    return file.getvalue()


def encrypted() -> bytes:
    """A zip whose flags say that its member needs a password."""
    data = bytearray(zipped(("x.csv", TEXT)))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    return bytes(data)


def lying() -> bytes:
    """A zip that unpacks to more than it says."""
    data = bytearray(zipped(("x.csv", TEXT)))
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.index(magic) + offset, 100)
    return bytes(data)


PACKED = gzip.compress(TEXT)
HALF = len(TEXT) // 2


@pytest.mark.parametrize("block_bytes", [100, 2**22])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PACKED, id="gzip"),
        pytest.param(gzip.compress(TEXT[:HALF]) + gzip.compress(TEXT[HALF:]), id="two members"),
        pytest.param(b"".join(gzip.compress(TEXT[at : at + 7]) for at in range(0, len(TEXT), 7)), id="many members"),
        pytest.param(gzip.compress(b"") * 50_000 + PACKED, id="empty members"),
        pytest.param(PACKED + bytes(100_000), id="padded with zeros"),
        pytest.param(gzip.compress(TEXT, compresslevel=0), id="stored gzip"),
        pytest.param(zipped(("x.csv", TEXT)), id="zip"),
        pytest.param(zipped(("x.csv", TEXT), method=zipfile.ZIP_STORED), id="stored zip"),
        pytest.param(zipped(("../../etc/x", TEXT)), id="a path that climbs"),
        pytest.param(zipped(("folder/", b""), ("folder/x", TEXT)), id="a folder"),
        pytest.param(zipped(("x", TEXT), mode=0o100644), id="a mode"),
    ],
)
def test_read(read: Reader, data: bytes, block_bytes: int) -> None:
    assert read(data, block_bytes=block_bytes).rows == ROWS


@pytest.mark.parametrize("block_bytes", [100, 2**22])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(PACKED[:-9], "ends too soon", id="cut gzip"),
        pytest.param(PACKED[:-1], "ends too soon", id="cut trailer"),
        pytest.param(PACKED[:5], "ends too soon", id="cut head"),
        pytest.param(PACKED + PACKED[:30], "ends too soon", id="cut second member"),
        pytest.param(PACKED[:-8] + bytes(8), "damaged", id="wrong checksum"),
        pytest.param(PACKED[:500] + b"xx" + PACKED[502:], "damaged", id="damaged gzip"),
        pytest.param(PACKED + b"more", "something else follows", id="gzip and more"),
        pytest.param(PACKED + bytes(100_000) + b"x", "something else follows", id="gzip, zeros and more"),
        pytest.param(gzip.compress(b""), "empty", id="empty gzip"),
        pytest.param(gzip.compress(PACKED), "packed twice: a gzip", id="gzip in gzip"),
        pytest.param(gzip.compress(zipped(("x.csv", TEXT))), "packed twice: a zip", id="zip in gzip"),
        pytest.param(zipped(("x.csv.gz", PACKED)), "packed twice: a gzip", id="gzip in zip"),
        pytest.param(zipped(("x.zip", zipped(("x.csv", TEXT)))), "packed twice: a zip", id="zip in zip"),
        pytest.param(zipped(("x.csv", TEXT))[:-30], "damaged or cut off", id="cut zip"),
        pytest.param(b"PK\x03\x04", "damaged or cut off", id="zip's magic"),
        pytest.param(zipped(), "holds 0 files", id="empty zip"),
        pytest.param(zipped(("folder/", b"")), "holds 0 files", id="a folder alone"),
        pytest.param(zipped(("x", TEXT), ("y", TEXT)), "holds 2 files", id="two files"),
        pytest.param(zipped(*((str(n), b"") for n in range(2000))), "holds many files", id="many files"),
        pytest.param(zipped(("x", TEXT), method=zipfile.ZIP_BZIP2), "other than deflate", id="bzip2 in zip"),
        pytest.param(zipped(("x", b"/etc/passwd"), mode=0o120777), "not a regular file", id="a link"),
        pytest.param(encrypted(), "encrypted", id="encrypted"),
        pytest.param(lying(), "damaged or cut off", id="a size that lies"),
    ],
)
def test_refused(read: Reader, data: bytes, words: str, block_bytes: int) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(data, block_bytes=block_bytes)
    assert words in str(refusal.value)


def test_packed_twice_is_seen_byte_by_byte(read: Reader) -> None:
    with pytest.raises(RefusedFileError, match="packed twice: a zip"):
        read(zipped(("x.zip", zipped(("x.csv", TEXT)))), block_bytes=1)


@pytest.mark.parametrize("data", [gzip.compress(BOMB), zipped(("x", BOMB))], ids=["gzip", "zip"])
def test_a_bomb_stops_in_bounded_memory(read: Reader, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RefusedFileError, match="more than 50 times its own size"):
            read(data, limits=ReadLimits(max_ratio=50), block_bytes=2**16)
        assert tracemalloc.get_traced_memory()[1] < len(BOMB)
        with pytest.raises(RefusedFileError, match="larger than the 1,000 bytes"):
            read(data, limits=ReadLimits(max_file_bytes=1000))
    finally:
        tracemalloc.stop()


def test_a_bomb_without_line_ends_is_not_held(read: Reader) -> None:
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(b"a,b\n") + b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
    limits = ReadLimits(max_ratio=5000, max_record_bytes=2**16)
    tracemalloc.start()
    try:
        result = read(data, limits=limits, block_bytes=2**16)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert [(one.line, one.rule) for one in result.malformed] == [(2, "row_fields_bounded")]
