"""Nasty inputs, one by one, with what must come of them. Every case is read in blocks of several sizes."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

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


class Case(NamedTuple):
    """Bytes after the header `a,b`, the rows as `line:a|b`, the malformed records as (line, rule, raw)."""

    name: str
    body: bytes
    rows: list[str]
    malformed: list[tuple[int, str, str]] = []  # noqa: RUF012  # never changed


CASES = [
    Case("LF", b"1,2\n3,4\n", ["2:1|2", "3:3|4"]),
    Case("CRLF", b"1,2\r\n3,4\r\n", ["2:1|2", "3:3|4"]),
    Case("CR", b"1,2\r3,4\r", ["2:1|2", "3:3|4"]),
    Case("mixed line ends", b"1,2\r3,4\r\n5,6\n7,8", ["2:1|2", "3:3|4", "4:5|6", "5:7|8"]),
    Case("no last line end", b"1,2\n3,4", ["2:1|2", "3:3|4"]),
    Case("blank lines", b"\n\n1,2\n\r\n\r\r3,4\n\n", ["4:1|2", "8:3|4"]),
    Case("a line of spaces is a record", b"  \n1,2\n", ["3:1|2"], [(2, FIELDS, "  ")]),
    Case("empty fields", b",\n", ["2:|"]),
    Case("quoted empty fields", b'"",""\n', ["2:|"]),
    Case("space is kept", b" 1 ,\t2\n", ["2: 1 |\t2"]),
    Case("nothing is guessed", b"NA,007\nnull,1e309\nnan,TRUE\n", ["2:NA|007", "3:null|1e309", "4:nan|TRUE"]),
    Case("quoted delimiter", b'"1,5",2\n', ["2:1,5|2"]),
    Case("doubled quotes", b'"say ""hi""",""""\n', ['2:say "hi"|"']),
    Case("literal quotes", b'5" pipe,a"b"c\n', ['2:5" pipe|a"b"c']),
    Case("literal and real quotes", b'5" pipe,"x,""y"""\n', ['2:5" pipe|x,"y"']),
    Case("a quote after a space is literal", b'1, "2"\n', ['2:1| "2"']),
    Case("a backslash is no escape", b'"a\\",b\\"c\n', ['2:a\\|b\\"c']),
    Case("single quotes are text", b"'1,2'\n", ["2:'1|2'"]),
    Case("quoted LF", b'"1\n2",3\n4,5\n', ["2:1\n2|3", "4:4|5"]),
    Case("quoted CRLF", b'"1\r\n2",3\r\n4,5\r\n', ["2:1\r\n2|3", "4:4|5"]),
    Case("quoted CR", b'"1\r2",3\r4,5\r', ["2:1\r2|3", "4:4|5"]),
    Case("quoted line end at the end", b'1,"2\n"', ["2:1|2\n"]),
    Case("quoted blank lines", b'1,"\n\n\n"\n2,3\n', ["2:1|\n\n\n", "6:2|3"]),
    Case("quoted text that looks like rows", b'1,"x\n3,4\n5,6"\n7,8\n', ["2:1|x\n3,4\n5,6", "5:7|8"]),
    Case("literal quote, then a quoted line end", b'5" x,"a\nb"\n7,8\n', ['2:5" x|a\nb', "4:7|8"]),
    Case("too few fields", b"1\n3,4\n", ["3:3|4"], [(2, FIELDS, "1")]),
    Case("too many fields", b"1,2,3\r\n3,4\r\n", ["3:3|4"], [(2, FIELDS, "1,2,3")]),
    Case("trailing delimiter", b"1,2,\n3,4\n", ["3:3|4"], [(2, FIELDS, "1,2,")]),
    Case("only delimiters", b",,,\n3,4\n", ["3:3|4"], [(2, FIELDS, ",,,")]),
    Case("only ragged rows", b"1\n2\n3\n", [], [(2, FIELDS, "1"), (3, FIELDS, "2"), (4, FIELDS, "3")]),
    Case("ragged among blank lines", b"\n1,2\n\n3\n\n5,6\n", ["3:1|2", "7:5|6"], [(5, FIELDS, "3")]),
    Case("ragged with quotes", b'"1,5"\n"3",4\n', ["3:3|4"], [(2, FIELDS, '"1,5"')]),
    Case("ragged over lines", b'"1\nx",2,3\n4,5\n', ["4:4|5"], [(2, FIELDS, '"1\nx",2,3')]),
    Case("ragged over lines, its end like a row", b'1,"x\ny",3\n4,5\n', ["4:4|5"], [(2, FIELDS, '1,"x\ny",3')]),
    Case("NUL", b"1,\0\n3,4\n", ["3:3|4"], [(2, NUL, "1,\u2400")]),
    Case("NULs of a sparse file", b"1,2\n\0\0\0", ["2:1|2"], [(3, NUL, "\u2400" * 3)]),
    Case("NUL in quotes over lines", b'1,"\n\0"\n3,4\n', ["4:3|4"], [(2, NUL, '1,"\n\u2400"')]),
    Case("NUL and ragged", b"1\0\n3,4\n", ["3:3|4"], [(2, NUL, "1\u2400")]),
    Case("open quote", b'1,"2\n3,4\n5,6\n', ["3:3|4", "4:5|6"], [(2, QUOTES, '1,"2')]),
    Case("open quote at the end", b'1,2\n"3,4', ["2:1|2"], [(3, QUOTES, '"3,4')]),
    Case(
        "open quotes on every line",
        b'1,"2\n3,"4\n5,"6\n',
        [],
        [(2, QUOTES, '1,"2'), (3, QUOTES, '3,"4'), (4, QUOTES, '5,"6')],
    ),
    Case("open quote among quoted rows", b'"1","2\n"3","4"\n"5","6"\n', ["3:3|4", "4:5|6"], [(2, QUOTES, '"1","2')]),
    Case("stray quotes that pair up", b'"1\n3,4\n",5\n7,8\n', ["2:1\n3,4\n|5", "5:7|8"]),
    Case(
        "stray quotes that pair up with a wrong number of fields",
        b'"1\n3,4\n",5,6\n7,8\n',
        ["3:3|4", "5:7|8"],
        [(2, QUOTES, '"1'), (4, QUOTES, '",5,6')],
    ),
    Case(
        "two open quotes that close at the same place",
        b'p,"\nx","y\n1,2\n"\n5,6\n',
        ['3:x"|y\n1,2\n', "6:5|6"],
        [(2, QUOTES, 'p,"')],
    ),
    Case("text after a closing quote", b'"1"x,2\n3,4\n', ["3:3|4"], [(2, QUOTES, '"1"x,2')]),
    Case("space after a closing quote", b'"1" ,2\n3,4\n', ["3:3|4"], [(2, QUOTES, '"1" ,2')]),
    Case("text after a quote over lines", b'"1\n2"x,2\n3,4\n', ['3:2"x|2', "4:3|4"], [(2, QUOTES, '"1')]),
    Case("a quote alone", b'"\n3,4\n', ["3:3|4"], [(2, QUOTES, '"')]),
    Case("three quotes", b'""",2\n3,4\n', ["3:3|4"], [(2, QUOTES, '""",2')]),
    Case("header again", b"1,2\na,b\n3,4\n", ["2:1|2", "4:3|4"], [(3, HEADER, "a,b")]),
    Case("header again, quoted", b'1,2\n"a"," B"\n', ["2:1|2"], [(3, HEADER, '"a"," B"')]),
    Case("header again, with its mark", b"1,2\n\xef\xbb\xbfa,b\n", ["2:1|2"], [(3, HEADER, "\ufeffa,b")]),
    Case("header's first name alone is a value", b"a,2\n", ["2:a|2"]),
    Case("a mark inside is text", b"\xef\xbb\xbf1,2\n\xef\xbb\xbf3,4\n", ["2:\ufeff1|2", "3:\ufeff3|4"]),
    Case("other line separators are text", "1,x\u2028y\u0085\x0b\x0c\n".encode(), ["2:1|x\u2028y\u0085\x0b\x0c"]),
    Case("unicode", "é,日本\n🎉,\u202e\n".encode(), ["2:é|日本", "3:🎉|\u202e"]),
    Case("formulas are text", b"=1+1,@x\n", ["2:=1+1|@x"]),
]


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(read: Reader, case: Case, block_bytes: int) -> None:
    result = read(b"a,b\n" + case.body, block_bytes=block_bytes)
    assert [f"{line}:{'|'.join(row)}" for line, row in result.rows] == case.rows
    assert [(one.line, one.rule, one.raw) for one in result.malformed] == case.malformed


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"1,2,3\n", "expected 2 fields, found 3"),
        (b"1\n", "expected 2 fields, found 1"),
        (b"1,\0\0\n", "found 2 NUL bytes"),
        (b'1,"2\n', "a quote is opened and never closed"),
        (b'"1"x,2\n', "text follows a closing quote"),
        (b"a,b\n", "the header is repeated here"),
        (b"12345,2\n", "a field has 5 bytes; at most 4 are allowed"),
        (b'"1234\n",2\n', "a field has 5 bytes; at most 4 are allowed"),
        ("éé,ééé\n".encode(), "a field has 6 bytes; at most 4 are allowed"),
        (b"1,2,3,4,5,6,7,8,9,0,\n", "the record is longer than 18 bytes"),
    ],
)
def test_detail(read: Reader, body: bytes, detail: str) -> None:
    result = read(b"a,b\n" + body, limits=ReadLimits(max_field_bytes=4, max_record_bytes=18))
    assert [one.detail for one in result.malformed] == [detail]
    assert result.rows == []


def test_header_again_in_another_order_is_no_row(read: Reader) -> None:
    result = read(b"a,b,c\nc,a,b\nb,a,a\n", "abc")
    assert [row for _, row in result.rows] == [("b", "a", "a")]
    assert [(one.line, one.detail) for one in result.malformed] == [
        (2, "the header is repeated here, with its columns in another order")
    ]


def test_a_pair_of_column_names_is_a_row(read: Reader) -> None:
    assert read(b"a,b\nb,a\n").rows == [(2, ("b", "a"))]


def test_bounds_at_the_byte(read: Reader) -> None:
    limits = ReadLimits(max_field_bytes=4, max_record_bytes=9)
    result = read(b"a,b\n1234,1234\n1234,12345\n", limits=limits)
    assert result.rows == [(2, ("1234", "1234"))]
    assert [(one.line, one.rule) for one in result.malformed] == [(3, BOUND)]


@pytest.mark.parametrize("block_bytes", [2**14, 2**22])
def test_a_very_long_line_is_cut_and_the_rest_loads(read: Reader, block_bytes: int) -> None:
    limits = ReadLimits(max_field_bytes=2**10, max_record_bytes=2**16)
    length = 2**14 * 13 - len("a,b\r\n1,2\r\n\r")  # a smaller block ends between CR and LF
    body = b"1,2\r\n" + b"x" * length + b"\r\n3,4\r\n" + b'"' + b"y" * 200_000 + b"\r\n5,6\r\n" + b"z" * 200_000
    result = read(b"a,b\r\n" + body, limits=limits, block_bytes=block_bytes)
    assert result.rows == [(2, ("1", "2")), (4, ("3", "4")), (6, ("5", "6"))]
    assert [(one.line, one.rule, one.raw[:2]) for one in result.malformed] == [
        (3, BOUND, "xx"),
        (5, BOUND, '"y'),
        (7, BOUND, "zz"),
    ]
    assert all(len(one.raw) < 10_100 and one.raw.endswith("in the raw file)") for one in result.malformed)


def test_an_open_quote_costs_one_line_of_a_large_file(read: Reader) -> None:
    rows = b"1,2\n" * 50_000
    result = read(b"a,b\n" + rows + b'3,"4\n' + rows, limits=ReadLimits(max_record_bytes=2**16), block_bytes=2**15)
    assert len(result.rows) == 100_000
    assert [(one.line, one.rule) for one in result.malformed] == [(50_002, QUOTES)]
    assert result.blocks > 10  # it did not hold the rest of the file to look for the other quote


def test_a_record_of_more_lines_than_a_block_may_have(read: Reader) -> None:
    text = "\n" * 300_000
    result = read(f'a,b\n1,"{text}"\n3,4\n'.encode())
    assert result.rows == [(2, ("1", text)), (300_003, ("3", "4"))]
    limits = ReadLimits(max_record_bytes=300_010)
    assert len(read(f'a,b\n1,"{text}"\n'.encode() + b"3,4\n" * 50_000, limits=limits).rows) == 50_001


def test_many_short_lines_come_in_several_blocks(read: Reader) -> None:
    result = read(b"a,b\n" + b"x\n" * 300_000)
    assert (len(result.malformed), result.malformed[-1].line, result.blocks) == (300_000, 300_001, 2)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", [b'a,"b\n', b'x","\n', b'a,"\n', b'a,"b""\n', b'"\n', b'x,"""\n'])
def test_hostile_quotes_take_linear_time(read: Reader, line: bytes) -> None:
    count = 60_000
    result = read(b"a,b,c,d\n" + line * count, "abcd")
    assert result.rows == []
    lines = sum(one.raw.count("\n") + 1 for one in result.malformed)
    assert lines == count


def test_one_column(read: Reader) -> None:
    """An empty line is no record, even where it could be an empty field; a quoted empty field is one."""
    result = read(b'a\n1\n\n""\n"x\ny"\n', ["a"])
    assert result.rows == [(2, ("1",)), (4, ("",)), (5, ("x\ny",))]
    assert [one.raw for one in read(b'a\n"x\n\ny",z\n', ["a"]).malformed] == ['"x\n\ny",z']


def test_other_delimiters(read: Reader) -> None:
    assert read(b'a;b\n1,5;"x;y"\n', source=Csv(delimiter=";")).rows == [(2, ("1,5", "x;y"))]
    assert read(b"a\tb\n\t\n", source=Csv(delimiter="\t")).rows == [(2, ("", ""))]
    assert read(b"a|b\n1|2\n", source=Csv(delimiter="|")).rows == [(2, ("1", "2"))]


@pytest.mark.parametrize("header", [b"a,b", b"a,b\n", b"\xef\xbb\xbf\n \n\na,b\r\n\r\n"])
def test_a_header_alone_gives_one_empty_block(read: Reader, header: bytes) -> None:
    result = read(header)
    assert (result.columns, result.rows, result.malformed, result.blocks) == (["a", "b"], [], [], 1)


def test_blank_lines_before_the_header_count(read: Reader) -> None:
    assert read(b"\n \r\n\r\na,b\n1,2\n").rows == [(5, ("1", "2"))]


@pytest.mark.parametrize("block_bytes", SIZES)
def test_a_header_of_several_lines(read: Reader, block_bytes: int) -> None:
    result = read(b'a,"b\n(in K)",b\n1,2,3\n', block_bytes=block_bytes)
    assert (result.columns, result.rows) == (["a", "b", "b\n(in K)"], [(3, ("1", "3", "2"))])


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-32", None),
        ("utf-8-sig", "cp1252"),
        ("utf-16", "cp1252"),
        ("utf-16-be", "utf-16-be"),
        ("cp1252", "cp1252"),
        ("iso-8859-15", "latin9"),
        ("utf-8-sig", "utf-8-sig"),
    ],
)
@pytest.mark.parametrize("block_bytes", SIZES)
def test_encodings(read: Reader, encoding: str, declared: str | None, block_bytes: int) -> None:
    data = "a,b\r\né,€\r\n".encode(encoding)
    assert read(data, source=Csv(encoding=declared), block_bytes=block_bytes).rows == [(2, ("é", "€"))]


def test_utf16_big_endian_and_japanese(read: Reader) -> None:
    assert read(codecs.BOM_UTF16_BE + "a,b\n日,🎉\n".encode("utf-16-be")).rows == [(2, ("日", "🎉"))]
    assert read("a,b\n日,本\n".encode("cp932"), source=Csv(encoding="shift_jis")).rows == [(2, ("日", "本"))]


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"", None, "empty"),
        (b"\xef\xbb\xbf", None, "empty"),
        (b"\xff\xfe", None, "empty"),
        (b" \t\n\r\n\r  ", None, "empty"),
        (b"a,b\n1,\xe9\n", None, "byte 0xE9 at offset 6"),
        (b"\xef\xbb\xbfa,b\n1,\xff", None, "byte 0xFF at offset 9"),
        (b"a,b\n1,\xe6\x97", None, "byte 0xE6 at offset 6"),
        (b"a,b\n1,\xed\xa0\x80\n", None, "byte 0xED at offset 6"),
        (b"a,b\n1,\xc0\x80\n", None, "byte 0xC0 at offset 6"),
        (b"a,b\n1,\x81\n", "cp1252", "byte 0x81 at offset 6"),
        (b"a,b\n1,\x82\n", "shift_jis", "byte 0x82 at offset 6"),
        (b"\xff\xfea\0,\0b\0\n\0\x00\xdc", None, "byte 0x00 at offset 10"),
        (b"\xff\xfea\0,\0b\0\n\0x", None, "byte 0x78 at offset 10"),
        ("a,b\n".encode("utf-16-le"), None, "byte order mark"),
        (b"a\n1\n", None, "lacks b. Expected a, b; found a."),
        (b"a;b\n1;2\n", None, "another delimiter"),
        (b"1,2\n3,4\n", None, "Expected a, b; found 1, 2"),
        (b"a,b,A \n", None, "twice: a and A"),
        (b"a,b,x,x\n", None, "twice: x"),
        (b'a,"b\n1,2\n', None, "never closed"),
        (b'"a"x,b\n1,2\n', None, "text follows a closing quote"),
        (b"a,b\0\n", None, "NUL"),
    ],
)
@pytest.mark.parametrize("block_bytes", SIZES)
def test_refused(read: Reader, data: bytes, encoding: str | None, words: str, block_bytes: int) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(data, source=Csv(encoding=encoding), block_bytes=block_bytes)
    assert words in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


def test_a_header_without_end_is_refused_in_bounded_memory(read: Reader) -> None:
    with pytest.raises(RefusedFileError, match="header is longer than"):
        read(b'"' + b"x\n" * 100_000, limits=ReadLimits(max_record_bytes=1000), block_bytes=100)


def test_a_plain_file_over_the_limit(read: Reader) -> None:
    limits = ReadLimits(max_file_bytes=8)
    assert read(b"a,b\n1,2\n", limits=limits).rows
    with pytest.raises(RefusedFileError, match="larger than the 8 bytes"):
        read(b"a,b\n1,2\n\n", limits=limits)
