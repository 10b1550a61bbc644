"""Declared dialects, one by one, and the declarations that are refused. Every case is read in blocks of several sizes."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mini_platform import Csv
from mini_platform.rows.readers import ReadLimits, RefusedFileError

if TYPE_CHECKING:
    from mini_platform_tests.support.reader import Reader

FIELDS, QUOTES, NUL, HEADER, BOUND = (
    "row_has_header_fields",
    "row_quotes_closed",
    "row_without_nul",
    "row_not_header",
    "row_fields_bounded",
)
SIZES = (1, 2, 5, 17, 2**22)
EMPTY, OPEN = "The file is empty", "a quote is opened and never closed"
SINGLE, NONE, ESCAPED = Csv(quote="'"), Csv(quote=None), Csv(escape="\\")
FIND, HEADLESS = Csv(header="find"), Csv(header=False)
SPACED, COMMENTED, TRAILING = Csv(skip_initial_space=True), Csv(comment="#"), Csv(trailing_delimiter=True)


class Case(NamedTuple):
    """A whole file, the rows as `line:a|b`, the malformed records as (line, rule, raw)."""

    name: str
    source: Csv
    data: bytes
    rows: list[str]
    malformed: list[tuple[int, str, str]] = []  # noqa: RUF012  # never changed


CASES = [
    Case("single quotes", SINGLE, b"'a','b'\n'1,''x',\"2\"\n'3\n4',5\n", ["2:1,'x|\"2\"", "3:3\n4|5"]),
    Case("an open single quote", SINGLE, b"a,b\n'1,2\n3,4\n", ["3:3|4"], [(2, QUOTES, "'1,2")]),
    Case("no quotes", NONE, b'a,b\n"1","2\n"3,4"5"\n', ['2:"1"|"2', '3:"3|4"5"']),
    Case("no quotes, ragged", NONE, b'a,b\n"1,2",3\n4,5\n', ["3:4|5"], [(2, FIELDS, '"1,2",3')]),
    Case("an escaped quote", ESCAPED, b'a,b\n"1\\"2",3\\,4\n\\"5,"6""7"\n', ['2:1"2|3,4', '3:"5|6"7']),
    Case("an escaped letter is the letter", ESCAPED, b"a,b\n\\N,a\\bc\n", ["2:N|abc"]),
    Case("an escaped escape", ESCAPED, b'a,b\n"1\\\\",2\\\\\n', ["2:1\\|2\\"]),
    Case("escaped line ends", ESCAPED, b"a,b\r\n1\\\r\n2,3\\\n4\r\n5,6\n", ["2:1\r\n2|3\n4", "5:5|6"]),
    Case("an escaped line end is a stray one", ESCAPED, b"a,b\n1,2\\\n3,4\n", ["3:3|4"], [(2, QUOTES, "1,2\\")]),
    Case("an escape at the end", ESCAPED, b"a,b\n1,2\n3,4\\", ["2:1|2"], [(3, QUOTES, "3,4\\")]),
    Case("an escaped last line end", ESCAPED, b"a,b\n1,2\n3,4\\\n", ["2:1|2"], [(3, QUOTES, "3,4\\")]),
    Case("an escaped closing quote", ESCAPED, b'a,b\n1,"2\\"\n3,4\n', ["3:3|4"], [(2, QUOTES, '1,"2\\"')]),
    Case("escapes without quotes", Csv(quote=None, escape="\\"), b'a,b\n"1\\,2",3\n', ['2:"1,2"|3']),
    Case("||", Csv(delimiter="||"), b'a||b\n1|2||"3||4"\n5|||6\n7|8\n', ["2:1|2|3||4", "3:5||6"], [(4, FIELDS, "7|8")]),
    Case("comma and space", Csv(delimiter=", "), b'a, b\n1,5, "2, 3"\n, \n', ["2:1,5|2, 3", "3:|"]),
    Case("a written tab", Csv(delimiter="\\t"), b"a\\tb\n1\\t2\n", ["2:1|2"]),
    Case("space after the delimiter", SPACED, b'a,  b\n  1, "2, 3"\n4 , 5 \n"6" ,7\n', ["2:1|2, 3", "3:4 |5 "],
         [(4, QUOTES, '"6" ,7')]),
    Case("space and an open quote", SPACED, b'a,b\n1, "2\n3,4\n', ["3:3|4"], [(2, QUOTES, '1, "2')]),
    Case("comments", COMMENTED, b'# a,"b\n\n#\na,b\n#1,2\n1,"#\n#2"\n#\n #3,4\n', ["6:1|#\n#2", "9: #3|4"]),
    Case("comments among plain rows", COMMENTED, b"a,b\n#1,2\n1,2\n\n3,4\n#", ["3:1|2", "5:3|4"]),
    Case("a longer comment", Csv(comment="//"), b"a,b\n//1,2\n/1,2\n", ["3:/1|2"]),
    Case("a delimiter at the end of rows", TRAILING, b"a,b\n1,2,\n3,4\n5,,\n6,7,8\n9,\n", ["2:1|2", "3:3|4", "4:5|", "6:9|"],
         [(5, FIELDS, "6,7,8")]),
    Case("a delimiter at the end of lines", TRAILING, b'a,b,\n"1\n2",3,\n', ["2:1\n2|3"]),
    Case("skipped lines", Csv(skip_lines=3), b'Orders, "2024\r\n\r\n"x\r\na,b\r\n1,2\r\n', ["5:1|2"]),
    Case("skipped lines and blank ones", Csv(skip_lines=1), b"x\n\n\na,b\n1,2\n", ["5:1|2"]),
    Case("a header found", FIND, b'"Orders\n\xef\xbb\xbf,\n,,\na\n" A",x,B\n1,2,3\n" A",x,B\n', ["6:1|3"],
         [(7, HEADER, '" A",x,B')]),
    Case("a header found at once", FIND, b"a,b\n1,2\n", ["2:1|2"]),
    Case("a header of two lines found", FIND, b'text\na,"b\n"\n1,2\n', ["4:1|2"]),
    Case("no header", HEADLESS, b'1,"2\n3"\n\n4,5\n6,7,8\n', ["1:1|2\n3", "4:4|5"], [(5, FIELDS, "6,7,8")]),
    Case("no header, and yet there is one", HEADLESS, b"a, B\n1,2\n", ["2:1|2"], [(1, HEADER, "a, B")]),
    Case("no header after a preamble", Csv(header=False, skip_lines=2), b"x,y\nz\n1,2\n", ["3:1|2"]),
    Case("no rows either", Csv(header=False, skip_lines=1), b"x\n", []),
    Case("NUL", Csv(delimiter="||"), b"a||b\n1||\0\n3||4\n", ["3:3|4"], [(2, NUL, "1||\u2400")]),
    Case("a mark within", Csv(delimiter="||"), b"\xef\xbb\xbfa||b\n\xef\xbb\xbf1||2\n", ["2:\ufeff1|2"]),
]  # fmt: skip


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(read: Reader, case: Case, block_bytes: int) -> None:
    result = read(case.data, source=case.source, block_bytes=block_bytes)
    assert [f"{line}:{'|'.join(row[:2])}" for line, row in result.rows] == case.rows
    assert [(one.line, one.rule, one.raw) for one in result.malformed] == case.malformed


@pytest.mark.parametrize(
    ("source", "body", "detail"),
    [
        (SINGLE, b"1,'2\n", OPEN),
        (SINGLE, b"'1'x,2\n", "text follows a closing quote"),
        (ESCAPED, b'"1"\\,2\n', "text follows a closing quote"),
        (ESCAPED, b"1,2\\", "nothing follows the escape character"),
        (ESCAPED, b"1,2\\\n", "the line end is escaped, and the record does not continue"),
        (ESCAPED, b'1,"\\2\n', OPEN),
        (TRAILING, b"1,2,,\n", "expected 2 fields, found 4"),
        (ESCAPED, b"1,\\2345\\6\n", "a field has 5 bytes; at most 4 are allowed"),
        (COMMENTED, b"#" + b"x" * 18 + b"\n", "the record is longer than 18 bytes"),
        (HEADLESS, b"", "this is the header"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2**22])
def test_detail(read: Reader, source: Csv, body: bytes, detail: str, block_bytes: int) -> None:
    limits = ReadLimits(max_field_bytes=4, max_record_bytes=18)
    result = read(b"a,b\n" + body, source=source, limits=limits, block_bytes=block_bytes)
    assert [one.detail for one in result.malformed] == [detail]


@pytest.mark.parametrize(
    ("source", "data", "words"),
    [
        (HEADLESS, b"", EMPTY),
        (FIND, b"", EMPTY),
        (Csv(skip_lines=3), b"a,b\n1,2\n", "ends within the 3 lines"),
        (Csv(skip_lines=1), b"a,b\n", "it has no header"),
        (
            FIND,
            b"x\na,c\n\n1,2\n",
            "None of the first 4 lines is a header with a, b. Line 2 is closest; it lacks b.",
        ),
        (FIND, b"x\n" * 2000 + b"a,b\n", "None of the first 1,000 lines"),
        (FIND, b"x\na,b,B\n", "twice: b and B"),
        (SINGLE, b"a,'b\n1,2\n", "never closed"),
        (Csv(delimiter="||"), b"a|b\n", "Is another delimiter in use?"),
    ],
)
@pytest.mark.parametrize("block_bytes", SIZES)
def test_refused(read: Reader, source: Csv, data: bytes, words: str, block_bytes: int) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(data, source=source, block_bytes=block_bytes)
    assert words in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("delimiter", text) for text in ("", "§", '"', "\n", ",\r", "\0", '",', "x\\")),
        *(("quote", text) for text in ("", "''", "§", "\n", "\0", ",", " ", "\\", "#")),
        *(("escape", text) for text in ("", "\\\\", '"', ",", "\r", "#")),
        *(("comment", text) for text in ("", "\n", '"x', ",x", "\\")),
        *(("header", value) for value in ("first", None, 2)),
        ("skip_lines", -1),
        *(("encoding", text) for text in ("utf-9", "hex", "rot13")),
    ],
)
def test_a_declaration_that_cannot_be(option: str, value: Any) -> None:
    base = Csv(escape="\\", comment="#")
    with pytest.raises(ValueError, match=f"Csv: .*{option}"):
        dataclasses.replace(base, **{option: value})


def test_space_cannot_be_skipped_where_it_delimits() -> None:
    with pytest.raises(ValueError, match="skip_initial_space"):
        Csv(delimiter=" ", skip_initial_space=True)


HOSTILE = [b'a,"b\n', b'x","\n', b'a,"\n', b'a,"b""\n', b'"\n', b'x,"""\n', b'1,2,3,"\\"\n', b"a\\\n", b'"\\\n']


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "source", [SINGLE, ESCAPED, SPACED, Csv(delimiter="||")], ids=["quote", "escape", "space", "||"]
)
@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_quotes_take_linear_time(read: Reader, line: bytes, source: Csv) -> None:
    """A way that looks at what is left of the file for each of its lines would take ten times as long."""
    count = 20_000
    line = line.replace(b",", source.delimiter.encode()).replace(b'"', (source.quote or "").encode())
    data = source.delimiter.join("abcd").encode() + b"\n" + line * count
    begun = time.process_time()
    result = read(data, "abcd", source=source)
    assert time.process_time() - begun < 3
    assert len(result.rows) + len(result.malformed) > 0


def test_a_preamble_of_open_quotes_is_searched_in_bounded_memory(read: Reader) -> None:
    preamble = b'"open\n' * 20 + b"x" * 3_000_000 + b"\n"
    result = read(preamble + b"a,b\n1,2\n", source=FIND, limits=ReadLimits(max_record_bytes=2**16), block_bytes=2**15)
    assert result.rows == [(23, ("1", "2"))]
