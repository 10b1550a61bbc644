"""The fast reader and the plain one of `reference.py` agree on random text, whatever the size of a block."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mini_platform import Csv
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform_tests.support.csv_reference import read_reference

if TYPE_CHECKING:
    from mini_platform_tests.support.reader import Reader

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
    result = read(f"aa,bb\n{text}".encode(), ["aa", "bb"], limits=limits, block_bytes=block_bytes)
    rows, malformed = read_reference(text, ("aa", "bb"), Csv(), limits)
    assert result.rows == rows
    assert [(one.line, one.rule, one.raw) for one in result.malformed] == malformed


@many
@given(garbage, block_sizes, st.sampled_from([1, 3, 4]), st.sampled_from(";\t|"))
def test_other_widths_and_delimiters(read: Reader, text: str, block_bytes: int, width: int, delimiter: str) -> None:
    names = tuple(f"long_name_{number}" for number in range(width))
    text = text.replace(",", delimiter).replace("1" + delimiter, ("1" + delimiter) * (width - 1))
    source = Csv(delimiter=delimiter)
    result = read(f"{delimiter.join(names)}\r\n{text}".encode(), names, source=source, block_bytes=block_bytes)
    if text.startswith("\n"):  # not a CRLF of its own: the header's CRLF is whole
        assert all(line > 2 for line, _ in result.rows)
    rows, malformed = read_reference(text, names, source, ReadLimits())
    assert result.rows == rows
    assert [(one.line, one.rule, one.raw) for one in result.malformed] == malformed


ODD = [
    Csv(quote="'"),
    Csv(quote=None),
    Csv(escape="\\"),
    Csv(quote=None, escape="\\"),
    Csv(delimiter="||"),
    Csv(delimiter=", "),
    Csv(skip_initial_space=True),
    Csv(delimiter=", ", skip_initial_space=True),
    Csv(comment="#"),
    Csv(trailing_delimiter=True),
    Csv("-+", quote="'", escape="^", comment="]x", skip_initial_space=True, trailing_delimiter=True),
]
MARKS = ["E", "E\r\n", 'E"', "EE", "E,", "#", "\n#x", "\n# 1,2\n", "  ", ' "', "1,2,\n", "E\n1,2\n", '"a""E""b"']
"""What only other dialects know; E stands for the escape."""


@many
@given(
    st.lists(st.sampled_from(PIECES + MARKS), max_size=40).map("".join),
    block_sizes,
    st.sampled_from([ReadLimits(), ReadLimits(max_field_bytes=6, max_record_bytes=20)]),
    st.sampled_from(ODD),
)
@example('""E\r\n"', 2**22, ReadLimits(), Csv(escape="\\"))
def test_odd_dialects(read: Reader, text: str, block_bytes: int, limits: ReadLimits, source: Csv) -> None:
    for mark, written in {"#": source.comment, '"': source.quote, "E": source.escape, ",": source.delimiter}.items():
        text = text.replace(mark, written or mark)
    result = read(
        f"aa{source.delimiter}bb\n{text}".encode(), ["aa", "bb"], source=source, limits=limits, block_bytes=block_bytes
    )
    rows, malformed = read_reference(text, ("aa", "bb"), source, limits)
    assert result.rows == rows
    assert [(one.line, one.rule, one.raw) for one in result.malformed] == malformed


values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6) | st.sampled_from(
    [
        "",
        '"',
        "\n",
        "\r\n",
        "a,b",
        "NA",
        "null",
        " 007 ",
        '5" pipe',
        "é\n\n",
        "\ufeff",
        ";",
        "x\ry",
        "'",
        "\\",
        "\\n",
        "\\\\",
        "||",
    ]
)
tables = st.lists(st.tuples(values, values, values), max_size=12)
ends = st.sampled_from(["\n", "\r\n", "\r"])
NAMES = ("first", "second", "third")


def after(text: str) -> int:
    """Number of the line that follows a text of whole lines."""
    return 1 + len(re.findall("\r\n|\r|\n", text))


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables,
    source=st.builds(
        Csv, st.sampled_from(",;\t|"), quote=st.sampled_from("\"'~"), escape=st.sampled_from([None, "\\", "^"])
    ),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
    doubled=st.booleans(),
    end=ends,
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    block_bytes=block_sizes,
)
def test_what_python_writes_reads_back_equal(  # noqa: PLR0917 - by keyword
    read: Reader,
    table: list[tuple[str, str, str]],
    source: Csv,
    quoting: int,
    doubled: bool,
    end: str,
    encoding: str,
    block_bytes: int,
) -> None:
    if quoting == csv.QUOTE_NONE:
        source = replace(source, escape=source.escape or "\\", quote=source.quote if doubled else None)
    if (
        quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE) and len(end) == 1
    ):  # Python then minds no other line end than its own
        ends = {10: end, 13: end}
        table = [(a.translate(ends), b.translate(ends), c.translate(ends)) for a, b, c in table]
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=source.delimiter,
        quoting=quoting,  # type: ignore[arg-type]
        quotechar=source.quote,
        escapechar=source.escape,
        doublequote=doubled or source.escape is None,
        lineterminator=end,
    )
    writer.writerow(NAMES)
    lines = []
    for row in table:
        lines.append(after(text.getvalue()))
        writer.writerow(row)
    result = read(text.getvalue().encode(encoding), NAMES, source=source, block_bytes=block_bytes)
    assert result.malformed == []
    assert result.rows == list(zip(lines, table, strict=True))


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables,
    source=st.builds(
        Csv,
        st.sampled_from(["||", ", ", "\t\t", "\\t", ";", "<->"]),
        quote=st.sampled_from("\"'"),
        header=st.sampled_from([True, False, "find"]),
        skip_lines=st.integers(0, 3),
        skip_initial_space=st.booleans(),
        trailing_delimiter=st.booleans(),
        comment=st.sampled_from([None, "#", "//"]),
    ),
    noise=st.lists(
        st.sampled_from(["", " ", "words", "a;b", '"open', "first, second||third", "\ufeff\x00\t"]), min_size=3
    ),
    spaces=st.integers(0, 2),
    end=ends,
    block_bytes=block_sizes,
)
def test_what_python_cannot_write_reads_back_equal(
    read: Reader,
    table: list[tuple[str, str, str]],
    source: Csv,
    noise: list[str],
    spaces: int,
    end: str,
    block_bytes: int,
) -> None:
    """Preambles, longer delimiters, space before quotes, comments, a header somewhere or nowhere."""
    text = "".join(line + end for line in noise[: None if source.header == "find" else source.skip_lines])
    quote = source.quote or ""
    front = " " * spaces if source.skip_initial_space else ""
    lines = []
    for row in [NAMES, *table] if source.header else table:
        if source.comment:
            text += f"{source.comment}{source.delimiter}{quote}{end}"
        lines.append(after(text))
        text += source.delimiter.join(front + quote + cell.replace(quote, quote * 2) + quote for cell in row)
        text += (source.delimiter if source.trailing_delimiter else "") + end
    assume(text)
    result = read(text.encode(), NAMES, source=source, block_bytes=block_bytes)
    assert result.malformed == []
    assert result.rows == list(zip(lines[bool(source.header) :], table, strict=True))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True), st.integers(0, 127), block_sizes)
@example(3, 0.3, 34, 1)
@example(3, 0.32, 10, 1)
def test_a_flipped_byte_costs_only_its_row(read: Reader, rows: int, where: float, byte: int, block_bytes: int) -> None:
    """If a line end is hit, two rows are joined; every other row is there, whole."""
    whole = [(f"k{number:04}", f"v,{number}", "w") for number in range(rows)]
    body = bytearray("".join(f'{key},"{value}",{more}\n' for key, value, more in whole).encode())
    at = int(where * len(body))
    hit = body[:at].count(b"\n")
    spoiled = {hit, hit + 1} if body[at] == 10 else {hit}
    body[at] = byte
    result = read(b"key,value,more\n" + bytes(body), ["key", "value", "more"], block_bytes=block_bytes)
    survivors = [row for _, row in result.rows]
    assert [row for number, row in enumerate(whole) if number not in spoiled and row not in survivors] == []
    assert 1 <= len(result.rows) + len(result.malformed) <= rows + 1 or (rows == 1 and at == 0)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"\xff\xfe", b"a,b\n"]), block_sizes
)
def test_any_bytes_are_read_or_refused(read: Reader, data: bytes, start: bytes, block_bytes: int) -> None:
    """Nothing but a refusal in words comes out of bytes that are no CSV; what comes does not depend on the blocks.

    Of two reasons to refuse a file, a larger block may meet the later one first.
    """

    def outcome(size: int) -> object:
        try:
            return read(start + data, block_bytes=size)[:3]
        except RefusedFileError:
            return None

    assert outcome(block_bytes) == outcome(2**22)


@pytest.mark.parametrize("block_bytes", [1, 3, 7, 4096])
def test_wide(read: Reader, block_bytes: int) -> None:
    """Ten thousand columns, in another order than declared."""
    names = [f"c{number}" for number in range(10_000)]
    line = ",".join(map(str, range(10_000)))
    data = f"{','.join(names)}\n{line}\n{line},1\n{line}\n".encode()
    result = read(data, names[::-1], block_bytes=max(block_bytes, len(data) // 3) if block_bytes < 9 else block_bytes)
    expected = tuple(map(str, range(9_999, -1, -1)))
    assert result.rows == [(2, expected), (4, expected)]
    assert [one.detail for one in result.malformed] == ["expected 10000 fields, found 10001"]
