"""Nasty JSON, one by one, with what must come of it. Every case is read in blocks of several sizes."""

from __future__ import annotations

import codecs
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mini_platform import Json
from mini_platform.declare.rules import STRUCTURE_RULES
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.json import read_json
from mini_platform_tests.support.json_file import JsonRead, declared, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

JSON, OBJECT, ONCE, NAMES, NUL, BOUND = (
    "row_is_json",
    "row_is_object",
    "row_names_once",
    "row_names_bounded",
    "row_without_nul",
    "row_fields_bounded",
)
SIZES = (1, 2, 5, 17, 2**22)


class Case(NamedTuple):
    """Bytes, and the rows as `line:a|b` with what is beyond as `|name=text`, the malformed as `line rule line:column why`."""

    name: str
    data: bytes
    rows: list[str] = []  # noqa: RUF012  # never changed
    malformed: list[str] = []  # noqa: RUF012


def shown(result: JsonRead) -> tuple[list[str], list[str]]:
    rows = [
        f"{line}:{'|'.join(row)}" + "".join(f"|{name}={text}" for name, text in extra.items())
        for line, row, extra in result.rows
    ]
    places = [re.sub(r"^line ([\d,]+), column ([\d,]+):", r"\1:\2", one.detail) for one in result.malformed]
    return rows, [f"{one.line} {one.rule} {place}" for one, place in zip(result.malformed, places, strict=True)]


DEEP = b'{"a":' * 64 + b"1" + b"}" * 64
DEEP_NAME = "_".join("a" * 64)
LIST_63 = b"[" * 63 + b"]" * 63
CASES = [
    # Forms
    Case("list", b'[{"a":"1","b":"2"},{"a":"3","b":"4"}]', ["1:1|2", "1:3|4"]),
    Case("list over lines", b'[\n  {"a": "1"},\n\n  {\n"a": "2"\n  }\n]\n', ["2:1|", "4:2|"]),
    Case("empty list", b" [\n] \n"),
    Case("leading commas", b'[{"a":1}\n,{"a":2}\n,{"a":3}]', ["1:1|", "2:2|", "3:3|"]),
    Case("list with CR and CRLF", b'[\r\n{"a":1},\r{"a":2}\r\n,\n{"a":3}\r]\r\n', ["2:1|", "3:2|", "5:3|"]),
    Case("blank run with CRLF", b'[{"a":1},\r\n\r\n\r\n \t\r\n{"a":2}]', ["1:1|", "5:2|"]),
    Case("lines", b'{"a":1}\n{"a":2}\n', ["1:1|", "2:2|"]),
    Case("lines with CRLF and CR", b'{"a":1}\r\n{"a":2}\r{"a":3}\r\n\r\n{"a":4}', ["1:1|", "2:2|", "3:3|", "5:4|"]),
    Case("indented lines", b'\n  {"a":1}  \n\t{"a":2}\t\n\n \n{"a":3}', ["2:1|", "3:2|", "6:3|"]),
    Case("one object", b'{"a":1,"b":2}', ["1:1|2"]),
    Case("one object over lines", b'\n{\n  "a": 1,\n  "b": 2\n}\n', ["2:1|2"]),
    Case("objects over lines", b'{\n"a": 1\n}\n{"a":2}\n{ "a":\n3 }', ["1:1|", "4:2|", "5:3|"]),
    Case("object over lines after {}", b'{"a": {"x": 1},\n "b": 2}\n', ["1:|2|a_x=1"]),
    Case("a mark", codecs.BOM_UTF8 + b'[{"a":1}]', ["1:1|"]),
    Case("UTF-16", codecs.BOM_UTF16_LE + '[{"a":"é🎉"}]'.encode("utf-16-le"), ["1:é🎉|"]),
    Case("gzip", gzip.compress(b'{"a":1}\n{"a":2}'), ["1:1|", "2:2|"]),
    # Cells
    Case("words", b'{"a":true,"b":false}\n{"a":null}', ["1:true|false", "2:|"]),
    Case("numbers as they stand", b'{"a":1e400,"b":-0}\n{"a":1.10,"b":1E+2}', ["1:1e400|-0", "2:1.10|1E+2"]),
    Case("long whole number", b'[{"a":123456789012345678901234567890}]', ["1:123456789012345678901234567890|"]),
    Case("10,000 digits", b'[{"a":' + b"9" * 10_000 + b"}]", [f"1:{'9' * 10_000}|"]),
    Case("a number and a string look alike", b'{"a":1,"b":"1"}', ["1:1|1"]),
    Case("but not in a list", b'{"a":[1,"2", 3.0 ],"b":["1",2]}', ['1:[1,"2",3.0]|["1",2]']),
    Case(
        "list of all",
        b'{"a":[null,true,false,-1e5,"\\"\\u0001",[],{}]}',
        ['1:[null,true,false,-1e5,"\\"\\u0001",[],{}]|'],
    ),
    Case("objects in a list", b'{"a":[{"x": {"y": [1]}}]}', ['1:[{"x":{"y":[1]}}]|']),
    Case("empty object and list", b'{"a":{},"b":[]}', ["1:{}|[]"]),
    Case("no names", b"{}\n[]\n", ["1:|"], ["2 row_is_object 2:1 an object is expected, not a list"]),
    Case("escapes", rb'{"a":"\"\\\/\b\f\n\r\t\u00e9","b":"\ud83c\udf89"}', ['1:"\\/\b\f\n\r\té|🎉']),
    Case("text is not trimmed", b'{"a":" x ","b":"\\n"}', ["1: x |\n"]),
    Case("raw separators", '{"a":"\u2028\u0085\x7f"}'.encode(), ["1:\u2028\u0085\x7f|"]),
    Case("what looks like JSON", b'{"a":"[1,{","b":"}]"}', ["1:[1,{|}]"]),
    Case("escaped backslash, no escape", rb'{"a":"\\u0000","b":"\\ud800"}', ["1:\\u0000|\\ud800"]),
    # Names
    Case("flattened", b'{"a":{"x":{"y":1},"z":2},"b":3}', ["1:|3|a_x_y=1|a_z=2"]),
    Case("names are forgiven case and space", b'{" A ":1,"B":2}', ["1:1|2"]),
    Case("other names and orders", b'[{"b":2,"a":1},{"x":9},{"a":3}]', ["1:1|2", "1:||x=9", "1:3|"]),
    Case("one spelling of an unknown name", b'{"X y":1}\n{"x_Y":2}', ["1:||X y=1", "2:||X y=2"]),
    Case("unknown null", b'{"a":1,"x":null}', ["1:1|"]),
    Case("empty name", b'{"":1,"a":2}', ["1:2||column=1"]),
    Case(
        "a name twice",
        b'[{"a":1,"a":1},{"a":2}]',
        ["1:2|"],
        ["1 row_names_once 1:9 the name occurs twice in the object"],
    ),
    Case(
        "a name twice, escaped",
        rb'{"a":1,"\u0061":1}',
        [],
        ["1 row_names_once 1:8 the name occurs twice in the object"],
    ),
    Case(
        "a name twice within",
        b'{"b":{"a":1,\n"x":{},"a":1}}\n{"a":1}',
        ["3:1|"],
        ["1 row_names_once 2:8 the name occurs twice in the object"],
    ),
    Case(
        "an object twice",
        b'{"a":{"x":1},"a":{"y":2}}',
        [],
        ["1 row_names_once 1:14 the name occurs twice in the object"],
    ),
    Case(
        "a name twice in a list",
        b'[{"a":[{"x":1,"x":1}]}]',
        [],
        ["1 row_names_once 1:15 the name occurs twice in the object"],
    ),
    Case(
        "two paths to one name",
        b'{"a_b":1,"a":{"b":2}}',
        [],
        ["1 row_names_once 1:1 two of its names are one column: one that is not declared"],
    ),
    Case("two spellings", b'\n\n {"A":1,"a":2}', [], ["3 row_names_once 3:2 two of its names are one column: a"]),
    # Strictness
    Case("NaN", b'[{"a":NaN},{"a":1}]', ["1:1|"], ["1 row_is_json 1:7 NaN is not a JSON value"]),
    Case("Infinity", b'{"a":1}\n{"a":1,"b":-Infinity}', ["1:1|"], ["2 row_is_json 2:12 -Infinity is not a JSON value"]),
    Case("NaN deep in a list", b'[\n{"a":[1,[NaN]]}]', [], ["2 row_is_json 2:10 NaN is not a JSON value"]),
    Case("half a pair", rb'{"a":"x\ud800"}', [], ["1 row_is_json 1:8 \\ud800 is half of a surrogate pair"]),
    Case(
        "the other half",
        rb'[{"a":"\uDC00"},{"a":1}]',
        ["1:1|"],
        ["1 row_is_json 1:8 \\uDC00 is half of a surrogate pair"],
    ),
    Case(
        "halves in the wrong order",
        rb'{"a":"\ude00\ud83d"}',
        [],
        ["1 row_is_json 1:7 \\ude00 is half of a surrogate pair"],
    ),
    Case(
        "half behind a backslash",
        rb'{"a":"\\ud83d\ude00"}',
        [],
        ["1 row_is_json 1:14 \\ude00 is half of a surrogate pair"],
    ),
    Case(
        "half a pair in a name",
        rb'{"a":1}' b"\n" rb'{"\ud800":1}',
        ["1:1|"],
        ["2 row_is_json 2:3 \\ud800 is half of a surrogate pair"],
    ),
    Case("half a pair in a list", rb'{"a":["\ud800"]}', [], ["1 row_is_json 1:8 \\ud800 is half of a surrogate pair"]),
    Case(
        "pairs beside a half",
        rb'{"a":"\ud83c\udf89\ud83c","b":"\udf89"}',
        [],
        ["1 row_is_json 1:19 \\ud83c is half of a surrogate pair"],
    ),
    Case("U+0000", rb'[{"a":"x\u0000"},{"a":1}]', ["1:1|"], ["1 row_without_nul 1:9 a string contains U+0000"]),
    Case("U+0000 in a name", rb'{"x\u0000":1}', [], ["1 row_without_nul 1:4 a string contains U+0000"]),
    Case("U+0000 in a list", rb'{"a":{"b":["\u0000"]}}', [], ["1 row_without_nul 1:13 a string contains U+0000"]),
    Case("raw NUL", b'[{"a":"\0"},{"a":1}]', ["1:1|"], ["1 row_without_nul 1:8 a string contains U+0000"]),
    Case(
        "control character",
        b'[{"a":"\x01\t"}]',
        [],
        ["1 row_is_json 1:8 a string contains the control character U+0001"],
    ),
    Case(
        "line end in a string of a list",
        b'[{"a":"x\ny"},\n{"a":1}]',
        ["3:1|"],
        ["1 row_is_json 1:9 a string contains the control character U+000A"],
    ),
    Case(
        "unknown escape",
        rb'[{"a":"\x41"},{"a":1}]',
        ["1:1|"],
        ["1 row_is_json 1:8 a backslash before 'x' is not a JSON escape"],
    ),
    Case("short escape", rb'{"a":"\u12"}', [], ["1 row_is_json 1:7 a backslash before 'u' is not a JSON escape"]),
    Case("deep enough", DEEP, [f"1:||{DEEP_NAME}=1"]),
    Case(
        "too deep",
        b'{"a":' + DEEP + b'}\n{"a":1}',
        ["2:1|"],
        ["1 row_is_json 1:321 it is nested deeper than 64 levels"],
    ),
    Case("a list deep enough", b'{"a":' + LIST_63 + b"}", [f"1:{LIST_63.decode()}|"]),
    Case(
        "a list too deep",
        b'[{"a":[' + LIST_63 + b']},{"a":1}]',
        ["1:1|"],
        ["1 row_is_json 1:70 it is nested deeper than 64 levels"],
    ),
    Case(
        "a depth bomb that closes",
        b'[{"a":1},' + b"[" * 5000 + b"]" * 5000 + b',{"a":2}]',
        ["1:1|", "1:2|"],
        ["1 row_is_json 1:74 it is nested deeper than 64 levels"],
    ),
    Case(
        "a depth bomb in lines",
        b'{"a":1}\n' + b'{"x":' * 100_000 + b'\n{"a":2}',
        ["1:1|", "3:2|"],
        ["2 row_is_json 2:321 it is nested deeper than 64 levels"],
    ),
    Case("a word of Python", b'[{"a":None},{"a":1}]', ["1:1|"], ["1 row_is_json 1:7 None is not a JSON value"]),
    Case(
        "numbers that are none",
        b'{"a":01}\n{"a":1.}\n{"a":.5}\n{"a":+1}\n{"a":0x1F}\n{"a":1_0}\n{"a":-}',
        [],
        [f"{n} row_is_json {n}:6 a number is not in the format of JSON" for n in range(1, 8)],
    ),
    Case(
        "full-width digits",
        '[{"a":１２}]'.encode(),
        [],
        ["1 row_is_json 1:7 an unquoted word is not a JSON value"],
    ),
    Case("single quotes", b"[{'a':'x'},{\"a\":1}]", ["1:1|"], ["1 row_is_json 1:3 a name is not in double quotes"]),
    Case("a name without quotes", b'{"a":1}\n{a:1}', ["1:1|"], ["2 row_is_json 2:2 a name is not in double quotes"]),
    Case("comma before }", b'[{"a":1,},{"a":2}]', ["1:2|"], ["1 row_is_json 1:9 nothing follows the comma before }"]),
    Case("comma before ]", b'{"a":1}\n{"a":[1,]}', ["1:1|"], ["2 row_is_json 2:9 nothing follows the comma before ]"]),
    # Records that are no rows
    Case(
        "values in a list",
        b'[1,"x",null,true,[2],{"a":1},-0.5]',
        ["1:1|"],
        [
            f"1 row_is_object 1:{column} an object is expected, not {what}"
            for column, what in (
                (2, "a number"),
                (4, "a string"),
                (8, "null"),
                (13, "true or false"),
                (18, "a list"),
                (30, "a number"),
            )
        ],
    ),
    Case(
        "values on lines",
        b'1\n"x"\n{"a":1}\nnull',
        ["3:1|"],
        [
            f"{n} row_is_object {n}:1 an object is expected, not {what}"
            for n, what in ((1, "a number"), (2, "a string"), (4, "null"))
        ],
    ),
    Case(
        "garbage on lines",
        b'{"a":1}\ngarbage\n<x/>\n{"a":2}',
        ["1:1|", "4:2|"],
        [
            "2 row_is_json 2:1 an unquoted word is not a JSON value",
            "3 row_is_json 3:1 an unquoted word is not a JSON value",
        ],
    ),
    Case(
        "garbage first",
        b'garbage\n{"a":1}',
        ["2:1|"],
        ["1 row_is_json 1:1 an unquoted word is not a JSON value"],
    ),
    Case(
        "garbage in a list",
        b'[garbage,{"a":1}]',
        ["1:1|"],
        ["1 row_is_json 1:2 an unquoted word is not a JSON value"],
    ),
    Case(
        "lines cut off", b'{"a":1}\n{"a":"x', ["1:1|"], ["2 row_is_json 2:6 a string is opened here and never closed"]
    ),
    Case(
        "first line cut off",
        b'{"a":\n{"a":1}\n',
        ["2:1|"],
        ["1 row_is_json 1:6 a value is expected, but the text ends"],
    ),
    Case("only line cut off", b'{"a":1', [], ["1 row_is_json 1:7 a comma or } is expected, but the text ends"]),
    Case(
        "first line broken",
        b'{"a" 1}\nx\n{"a":1}',
        ["3:1|"],
        [
            "1 row_is_json 1:6 a colon is expected, but '1' follows",
            "2 row_is_json 2:1 an unquoted word is not a JSON value",
        ],
    ),
    Case(
        "text after an object",
        b'{"a":1} x\n{"a":2},\n{"a":3}',
        ["3:3|"],
        [
            "1 row_is_json 1:9 text follows the end of the object",
            "2 row_is_json 2:8 text follows the end of the object",
        ],
    ),
    Case(
        "two objects on a line",
        b'{"a":1}{"a":2}\n{"a":3}',
        ["2:3|"],
        ["1 row_is_json 1:8 text follows the end of the object"],
    ),
    Case(
        "CSV",
        b"a,b\n1,2\n",
        [],
        [
            "1 row_is_json 1:1 an unquoted word is not a JSON value",
            "2 row_is_object 2:1 the line does not begin with an object",
        ],
    ),
    Case(
        "line end in a string of lines",
        b'{"a":1}\n{"a":"x\ny"}\n',
        ["1:1|"],
        [
            "2 row_is_json 2:6 a string is opened here and never closed",
            "3 row_is_json 3:1 an unquoted word is not a JSON value",
        ],
    ),
    Case(
        "a mark in the middle",
        b'{"a":1}\n\xef\xbb\xbf{"a":2}',
        ["1:1|"],
        ["2 row_is_json 2:1 an unquoted word is not a JSON value"],
    ),
    Case(
        "indented and wrong",
        b'  {"a":x}\n\t{"a":y}',
        [],
        [
            "1 row_is_json 1:8 an unquoted word is not a JSON value",
            "2 row_is_json 2:7 an unquoted word is not a JSON value",
        ],
    ),
]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., JsonRead]:
    path: Path = tmp_path_factory.mktemp("json") / "file"
    return lambda data, *names, **more: read_bytes(path, data, *names, **more)


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(read: Callable[..., JsonRead], case: Case, block_bytes: int) -> None:
    rows, malformed = shown(read(case.data, block_bytes=block_bytes))
    assert rows == case.rows
    assert malformed == case.malformed


@pytest.mark.parametrize("block_bytes", SIZES)
def test_no_declared_columns(read: Callable[..., JsonRead], block_bytes: int) -> None:
    """Everything is extra."""
    result = read(b'{"a":1,"b":{"c":"x"}}\n3\n{"a":2}', (), block_bytes=block_bytes)
    assert result.rows == [(1, (), {"a": "1", "b_c": "x"}), (3, (), {"a": "2"})]
    assert [(one.line, one.rule) for one in result.malformed] == [(2, "row_is_object")]
    assert read(b"[]", (), block_bytes=block_bytes).rows == []


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "The file is empty: it has no JSON."),
        (b"\n \r\n\t", "The file is empty: it has no JSON."),
        (b"[", "The file cannot be read at JSON line 1, column 2: a value is expected, but the file ends."),
        (b'[{"a":1}', "The file cannot be read at JSON line 1, column 9: a comma or ] is expected, but the file ends."),
        (b'[{"a":1},\n', "The file cannot be read at JSON line 2, column 1: a value is expected, but the file ends."),
        (
            b'[{"a":1},\n{"a":',
            "The file cannot be read at JSON line 2, column 6: a value is expected, but the text ends.",
        ),
        (
            b'[{"a":1},\r\n{"a":"x',
            "The file cannot be read at JSON line 2, column 6: a string is opened here and never closed.",
        ),
        (b'[{"a":1},]', "The file cannot be read at JSON line 1, column 10: nothing follows the comma before ]."),
        (b"[,]", "The file cannot be read at JSON line 1, column 2: a value is expected, but ',' follows."),
        (
            b'[{"a":1}\n{"a":2}]',
            "The file cannot be read at JSON line 2, column 1: a comma or ] is expected, but '{' follows.",
        ),
        (b'[{"a":1}}]', "The file cannot be read at JSON line 1, column 9: a comma or ] is expected, but '}' follows."),
        (b'[\n\n  {"a" 1}]', "The file cannot be read at JSON line 3, column 8: a colon is expected, but '1' follows."),
        (
            b'[{"a":1 "b":2}]',
            "The file cannot be read at JSON line 1, column 9: a comma or } is expected, but '\"' follows.",
        ),
        (b'[{"a":[1}]', "The file cannot be read at JSON line 1, column 9: a comma or ] is expected, but '}' follows."),
        (b"[{'a':'it,s'}]", "The file cannot be read at JSON line 1, column 3: a name is not in double quotes."),
        (b'[{"a":1}] x', "The file cannot be read at JSON line 1, column 11: text follows the end of the JSON."),
        (b'[1]\n[{"a":1}]', "The file cannot be read at JSON line 2, column 1: text follows the end of the JSON."),
        (b'[{"a":1}]\0', "The file cannot be read at JSON line 1, column 10: text follows the end of the JSON."),
        (b"[" * 5000, "The file cannot be read at JSON line 1, column 66: it is nested deeper than 64 levels."),
        (
            b'{\n"a": 1\n"b": 2\n}',
            "The file cannot be read at JSON line 3, column 1: a comma or } is expected, but '\"' follows.",
        ),
        (
            b'{\n"a": 1',
            "The file cannot be read at JSON line 2, column 7: a comma or } is expected, but the text ends.",
        ),
        (
            b'{\n"a": 1\n} {\n"a": 2\n}',
            "The file cannot be read at JSON line 3, column 3: text follows the end of the object on its line.",
        ),
        (b'[{"a":1}]\xe9', "The file is not valid UTF-8: the byte 0xE9 at offset 9 cannot be decoded"),
        (b'[{"a":"\xed\xa0\x80"}]', "The file is not valid UTF-8: the byte 0xED at offset 7 cannot be decoded"),
        (
            '[{"a":1}]'.encode("utf-16-le"),
            "The file cannot be read at JSON line 1, column 2: a value is expected, but U+0000 follows",
        ),
        (gzip.compress(b'[{"a":1}]', mtime=0)[:-3], "The gzip file ends too soon: it was cut off before its end."),
    ],
)
def test_refused(read: Callable[..., JsonRead], data: bytes, words: str, block_bytes: int) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(data, block_bytes=block_bytes)
    assert str(refusal.value).startswith(words)


def test_faults_are_reported_without_text_of_the_file(read: Callable[..., JsonRead]) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(b'[\n{"a":1,secret 2}]')
    assert refusal.value.sentence.startswith("The file cannot be read at JSON line 2, column 8: ")
    assert "secret" not in str(refusal.value)
    words = (
        b'{"secret":1,"secret":2}',
        b'{"secret":1,"SECRET":2}',
        b"{secret:1}",
        b'{"a":secret}',
        b"secret",
        b'"secret"',
    )
    more = (
        b'{"a":"secret',
        b'{"a":"\\usecret"}',
        b'{"%b":1}' % (b"secret" * 200),
        b'{"a":1} secret',
        b"{'a':'secret'}",
    )
    result = read(b"\n".join((*words, *more)))
    assert len(result.malformed) == len(words + more)
    assert not any("secret" in one.detail.lower() for one in result.malformed)


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize(
    ("data", "path", "rows"),
    [
        (b'{"results":[{"a":1},\n{"a":2}]}', "results", ["1:1|", "2:2|"]),
        (b'{"n":[{"a":9}],"results" :\n [ ] ,"next":null}\n', "results", []),
        (b'{"n":{"results":[{"a":9}]},"d":{"x":1,"items":[{"a":1}],"y":[]},"z":"}"}', "d.items", ["1:1|"]),
        (b'{"\\u0064":[{"a":1}]}', "d", ["1:1|"]),
        (b'[{"a":1}]', "d", ["1:1|"]),
    ],
)
def test_rows_within_an_object(
    read: Callable[..., JsonRead], data: bytes, path: str, rows: list[str], block_bytes: int
) -> None:
    assert shown(read(data, rows=path, block_bytes=block_bytes)) == (rows, [])


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"x":1}', "The file cannot be read at JSON line 1, column 1: the object has no d."),
        (b'\n {"d":{"x":1}}', "The file cannot be read at JSON line 2, column 7: the object has no rows."),
        (b'{"d":null}', "The file cannot be read at JSON line 1, column 6: d should be an object, but 'n' follows."),
        (
            b'{"d":{"rows":{}}}',
            "The file cannot be read at JSON line 1, column 14: rows should be the list of rows, but '{' follows.",
        ),
        (
            b'{"d":{"rows":[{"a":1}]}',
            "The file cannot be read at JSON line 1, column 24: a comma or } is expected, but the file ends.",
        ),
        (
            b'{"d":{"rows":[{"a":1}]}} {}',
            "The file cannot be read at JSON line 1, column 26: text follows the end of the JSON.",
        ),
        (
            b'{"d":{"rows":[{"a":1}]},"d":1}',
            "The file cannot be read at JSON line 1, column 25: the name occurs twice in the object.",
        ),
        (b'{"x":1,}', "The file cannot be read at JSON line 1, column 8: nothing follows the comma before }."),
        (b'{"x" 1}', "The file cannot be read at JSON line 1, column 6: a colon is expected, but '1' follows."),
        (b'{"x":', "The file cannot be read at JSON line 1, column 6: a value is expected, but the file ends."),
        (b'{"x":"', "The file cannot be read at JSON line 1, column 6: a string is opened here and never closed."),
        (
            b"{x:1}",
            "The file cannot be read at JSON line 1, column 2: a name in double quotes is expected, but 'x' follows.",
        ),
        (
            b'{"\\x":1}',
            "The file cannot be read at JSON line 1, column 3: a backslash before 'x' is not a JSON escape.",
        ),
        (b'{"x":1 2}', "The file cannot be read at JSON line 1, column 8: a comma or } is expected, but '2' follows."),
        (
            b'"d"',
            "The file cannot be read at JSON line 1, column 1: an object or a list is expected, but '\"' follows.",
        ),
    ],
)
def test_rows_within_an_object_refused(
    read: Callable[..., JsonRead], data: bytes, words: str, block_bytes: int
) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        read(data, rows="d.rows", block_bytes=block_bytes)
    assert str(refusal.value) == words


@pytest.mark.parametrize("block_bytes", SIZES)
def test_aliases(read: Callable[..., JsonRead], block_bytes: int) -> None:
    data = (
        b'{"id":1,"user":{"contact":{"email":"x"}}}\n{"Mail":"y","ID":2}\n{"id":3,"mail":"z","e-mail":null}\n'
        b'{"id":4,"mail":"","user":{"contact":{"email":"v"}}}\n{"id":5,"mail":"p","E Mail":"p"}\n'
    )
    aliases = {"email": ("mail", "user_contact_email", "e_mail")}
    rows, malformed = shown(read(data, ("id", "email"), aliases=aliases, block_bytes=block_bytes))
    assert rows == ["1:1|x", "2:2|y", "3:3|z", "4:4|v"]
    assert malformed == ["5 row_names_once 5:1 two of its names have a value for email: mail and e_mail"]


def test_aliases_that_clash() -> None:
    with pytest.raises(ValueError, match="cannot be told apart: both are called b"):
        list(read_json(Path("unread"), Json(), declared(("a", "b"), {"a": ("B",)}), limits=ReadLimits()))


def test_raw_text_of_malformed_records(read: Callable[..., JsonRead]) -> None:
    result = read(b'[{"a":1},\r\n {"a":\r\nNaN} , "x\0"]')
    assert [one.raw for one in result.malformed] == ['{"a":\r\nNaN}', '"x\u2400"']
    result = read(b'{"a":1}\r\n  {"a":NaN}  \r\n' + b"y" * 20_000)
    assert [one.raw[:13] for one in result.malformed] == ['  {"a":NaN}  ', "y" * 13]
    assert result.malformed[1].raw.endswith("y… (cut here; the whole is in the raw file)")
    assert len(result.malformed[1].raw) < 10_100


@pytest.mark.parametrize("block_bytes", SIZES)
@pytest.mark.parametrize("letter", ["x", "é", "🎉"])
def test_fields_are_bounded_at_the_byte(read: Callable[..., JsonRead], letter: str, block_bytes: int) -> None:
    limits = ReadLimits(max_field_bytes=8)
    good, bad = letter * (8 // len(letter.encode())), letter * (8 // len(letter.encode()) + 1)
    for frame in ('{{"a":"{}"}}\n{{"a":"{}"}}', '[{{"a":"{}"}},{{"a":"{}"}}]'):
        data = frame.format(good, bad).encode()
        result = read(data, limits=limits, block_bytes=block_bytes)
        assert [row for _, row, _ in result.rows] == [(good, "")]
        size = len(bad.encode())
        assert [(one.rule, one.detail.split(": ")[1]) for one in result.malformed] == [
            (BOUND, f"a field has {size} bytes; at most 8 are allowed")
        ]
    assert [one.rule for one in read(b'{"a":[1,2,3,4]}', limits=limits).malformed] == [BOUND]
    assert read(b'{"a":[ 1 , 2 , 3 ],"b":"\\u00e9\\u00e9"}', limits=limits).malformed == []


@pytest.mark.parametrize("block_bytes", SIZES)
def test_records_are_bounded_at_the_byte(read: Callable[..., JsonRead], block_bytes: int) -> None:
    limits = ReadLimits(max_record_bytes=20)
    good, bad = '{"a":"é23456789012"}', '{"a":"é234567890123"}'
    assert (len(good.encode()), len(bad.encode())) == (21, 22)
    good, bad = good.replace("2", "", 1), bad.replace("2", "", 1)
    result = read(f"{good}\r\n{bad}\r\n{good}".encode(), limits=limits, block_bytes=block_bytes)
    assert [line for line, _, _ in result.rows] == [1, 3]
    assert [(one.line, one.rule, one.detail) for one in result.malformed] == [
        (2, BOUND, "line 2, column 1: the line is longer than 20 bytes")
    ]
    assert len(read(f"[{good},{good}]".encode(), limits=limits, block_bytes=block_bytes).rows) == 2
    words = r"at JSON line 2, column 2: the value that begins here is longer than the 20 bytes that are allowed\."
    with pytest.raises(RefusedFileError, match=words):
        read(f"[{good},\n {bad}]".encode(), limits=limits, block_bytes=block_bytes)


@pytest.mark.parametrize("block_bytes", [64, 2**12, 2**22])
def test_a_very_long_line_is_cut_and_the_rest_is_read(read: Callable[..., JsonRead], block_bytes: int) -> None:
    limits = ReadLimits(max_record_bytes=2**14)
    long = b"[" * (2**12 * 5 - 11)  # a smaller block ends between CR and LF
    result = read(
        b'{"a":1}\r\n' + long + b"\r\n" + b'{"a":2}\r' + b"x" * 50_000, limits=limits, block_bytes=block_bytes
    )
    assert [line for line, _, _ in result.rows] == [1, 3]
    assert [(one.line, one.rule, one.raw[:1]) for one in result.malformed] == [(2, BOUND, "["), (4, BOUND, "x")]


@pytest.mark.parametrize("block_bytes", [100, 2**12, 2**22])
def test_unknown_names_are_bounded(read: Callable[..., JsonRead], block_bytes: int) -> None:
    one_each = b"\n".join(b'{"a":%d,"x%d":1}' % (n, n) for n in range(1002))
    result = read(one_each, block_bytes=block_bytes)
    assert len(result.rows) == 1000
    assert result.rows[7] == (8, ("7", ""), {"x7": "1"})
    why = "with it the file has more than 1,000 names that no column declares"
    assert [(one.line, one.rule) for one in result.malformed] == [(1001, NAMES), (1002, NAMES)]
    assert result.malformed[0].detail == f"line 1,001, column 1: {why}"
    for prefix in (b'{"x":[],', b'{"x":{'):
        many = prefix + b",".join(b'"n%d":1' % n for n in range(10_000)) + b"}" * prefix.count(b"{")
        result = read(b'{"a":1}\n' + many + b'\n{"a":2,"y":3}', block_bytes=block_bytes)
        assert [(one.line, one.rule, one.detail) for one in result.malformed] == [
            (2, NAMES, f"line 2, column 1: {why}")
        ]
        assert result.rows[1] == (3, ("2", ""), {"y": "3"})


def test_long_names_are_bounded(read: Callable[..., JsonRead]) -> None:
    """A long name around many short ones would be many long ones."""
    name = b"n" * 1001
    within = b",".join(b'"%d":1' % n for n in range(900))
    result = read(b'{"%b":{"a":{%b}}}\n{"a":{"%b":1}}\n{"%b":1}' % (name, within, name[1:], name[1:]))
    assert [line for line, _, _ in result.rows] == [3]
    assert [(one.line, one.rule) for one in result.malformed] == [(1, NAMES), (2, NAMES)]


def test_every_rule_is_declared() -> None:
    assert {JSON, OBJECT, ONCE, NAMES, NUL, BOUND} == set(Json.structure_rules) <= set(STRUCTURE_RULES)
