"""The fast reader and the plain one of `reference.py` agree on random text, whatever the size of a block."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mini_platform.dataset import Csv
from mini_platform.readers import ReadLimits, RefusedFileError
from mini_platform_tests.readers.reference import read_reference

if TYPE_CHECKING:
    from mini_platform_tests.readers.conftest import Reader

many = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = [
    *'",\n\r\0xé ',
    *("\r\n", '""', '","', '"\n', ',"', '",', 'x"', "\ufeff", "\u2028"),
    *("1,2\n", '"1","2"\n', '1,"2\n3"\n', "aa,bb\n", '5" pipe,x\r\n', '1,"\n', "1,2,3\n", "1\r", "0123456789"),
]
garbage = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
block_sizes = st.one_of(st.integers(1, 12), st.integers(13, 200), st.just(2**22))


@many
@given(garbage, block_sizes, st.sampled_from([ReadLimits(), ReadLimits(max_field_bytes=6, max_record_bytes=20)]))
@example('1,"\n1,2\n",3\n', 4, ReadLimits())
@example("x" * 21 + '"\r\n1,2', 5, ReadLimits(max_field_bytes=6, max_record_bytes=20))
def test_two_columns(read: Reader, text: str, block_bytes: int, limits: ReadLimits) -> None:
    found = read(f"aa,bb\n{text}".encode(), ["aa", "bb"], limits=limits, block_bytes=block_bytes)
    rows, malformed = read_reference(text, ("aa", "bb"), ",", limits)
    assert found.rows == rows
    assert [(one.line, one.rule, one.raw) for one in found.malformed] == malformed


@many
@given(garbage, block_sizes, st.sampled_from([1, 3, 4]), st.sampled_from(";\t|"))
def test_other_widths_and_delimiters(read: Reader, text: str, block_bytes: int, width: int, delimiter: str) -> None:
    names = tuple(f"long_name_{number}" for number in range(width))
    text = text.replace(",", delimiter).replace("1" + delimiter, ("1" + delimiter) * (width - 1))
    source = Csv(delimiter=delimiter)
    found = read(f"{delimiter.join(names)}\r\n{text}".encode(), names, source=source, block_bytes=block_bytes)
    if text.startswith("\n"):  # not a CRLF of its own: the header's CRLF is whole
        assert all(line > 2 for line, _ in found.rows)
    rows, malformed = read_reference(text, names, delimiter, ReadLimits())
    assert found.rows == rows
    assert [(one.line, one.rule, one.raw) for one in found.malformed] == malformed


values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6) | st.sampled_from(
    ["", '"', "\n", "\r\n", "a,b", "NA", "null", " 007 ", '5" pipe', "é\n\n", "\ufeff", ";", "x\ry"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(st.tuples(values, values, values), max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    block_bytes=block_sizes,
)
def test_what_python_writes_reads_back_equal(
    read: Reader,
    table: list[tuple[str, str, str]],
    delimiter: str,
    quoting: int,
    end: str,
    encoding: str,
    block_bytes: int,
) -> None:
    if quoting == csv.QUOTE_MINIMAL and len(end) == 1:  # Python then quotes no other line end than its own
        ends = {10: end, 13: end}
        table = [(a.translate(ends), b.translate(ends), c.translate(ends)) for a, b, c in table]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(["first", "second", "third"])
    lines = []
    for row in table:
        lines.append(1 + len(text.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]))
        writer.writerow(row)
    data = text.getvalue().encode(encoding)
    source = Csv(delimiter=delimiter)
    found = read(data, ["first", "second", "third"], source=source, block_bytes=block_bytes)
    assert found.malformed == []
    assert found.rows == list(zip(lines, table, strict=True))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True), st.integers(0, 127), block_sizes)
@example(3, 0.3, 34, 1)
@example(3, 0.32, 10, 1)
def test_a_flipped_byte_costs_only_its_row(read: Reader, rows: int, where: float, byte: int, block_bytes: int) -> None:
    """Where a line end is hit, it joins two rows; every other row is there, whole."""
    whole = [(f"k{number:04}", f"v,{number}", "w") for number in range(rows)]
    body = bytearray("".join(f'{key},"{value}",{more}\n' for key, value, more in whole).encode())
    at = int(where * len(body))
    hit = body[:at].count(b"\n")
    spoiled = {hit, hit + 1} if body[at] == 10 else {hit}
    body[at] = byte
    found = read(b"key,value,more\n" + bytes(body), ["key", "value", "more"], block_bytes=block_bytes)
    survivors = [row for _, row in found.rows]
    assert [row for number, row in enumerate(whole) if number not in spoiled and row not in survivors] == []
    assert 1 <= len(found.rows) + len(found.malformed) <= rows + 1 or (rows == 1 and at == 0)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"\xff\xfe", b"a,b\n"]), block_sizes
)
def test_any_bytes_are_read_or_refused(read: Reader, data: bytes, start: bytes, block_bytes: int) -> None:
    """Nothing but a refusal in words comes out of bytes that are no CSV; what comes does not depend on the blocks."""

    def outcome(size: int) -> object:
        try:
            return read(start + data, block_bytes=size)[:3]
        except RefusedFileError as error:
            return str(error)

    assert outcome(block_bytes) == outcome(2**22)


@pytest.mark.parametrize("block_bytes", [1, 3, 7, 4096])
def test_wide(read: Reader, block_bytes: int) -> None:
    """Ten thousand columns, in another order than declared."""
    names = [f"c{number}" for number in range(10_000)]
    line = ",".join(map(str, range(10_000)))
    data = f"{','.join(names)}\n{line}\n{line},1\n{line}\n".encode()
    found = read(data, names[::-1], block_bytes=max(block_bytes, len(data) // 3) if block_bytes < 9 else block_bytes)
    expected = tuple(map(str, range(9_999, -1, -1)))
    assert found.rows == [(2, expected), (4, expected)]
    assert [one.detail for one in found.malformed] == ["expected 10000 fields, found 10001"]
