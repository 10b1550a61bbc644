"""Nasty changes to a file of any dataset, and the expected result of each.

A case takes the lines of a clean sample of six rows. Unless it says otherwise, all of them must be in production afterwards; a
bad record, put between the third and the fourth, must cost itself and nothing else. Here: CSV and JSON in general. Not here:
values and keys, which are a matter of a dataset (`cases.py` for weather), and dirt of every rule (`test_every_dataset.py`).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mini_platform.operations.sampling import Form
from mini_platform_tests.support.cases import zipped

ROWS = 6
BEFORE = 3
"""Good records before the bad one."""
Lines = list[str]


@dataclass(frozen=True)
class Pollution:
    """A change to a file, and its expected result.

    Attributes:
        name: name of the change.
        form: form of the files to which it applies.
        make: lines of the clean file -> bytes; the dataset's encoding is UTF-8.
        rejects: rules by which one record is rejected, on the line after the third good one; none if all are good.
        refused: part of the error for which the file is refused; None if the file is loaded.
        rows: number of good rows that are loaded: all or none.
        superseded: rows that another row of the file replaces.
        extra: True if it has columns that are not declared.
        file: suffix of its name.
    """

    name: str
    form: Form
    make: Callable[[Lines], bytes]
    rejects: tuple[str, ...] = ()
    refused: str | None = None
    rows: int = ROWS
    superseded: int = 0
    extra: bool = False
    file: str = ""


def text(lines: Lines, end: str = "\n") -> str:
    return "".join(line + end for line in lines)


def plain(lines: Lines) -> bytes:
    return text(lines).encode()


def as_text(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Lines], bytes]:
    return lambda lines: change(text(lines)).encode(encoding)


def packed(change: Callable[[bytes], bytes]) -> Callable[[Lines], bytes]:
    return lambda lines: change(plain(lines))


def constant(content: bytes) -> Callable[[Lines], bytes]:
    return lambda _: content


def refused(name: str, form: Form, make: Callable[[Lines], bytes], why: str) -> Pollution:
    return Pollution(name, form, make, refused=why, rows=0)


BAD_BYTES = b"\xff\xfe\xfa"


def whole_files(form: Form) -> list[Pollution]:
    """Return changes to any text: encodings, line ends, compression."""
    return [
        Pollution("nothing", form, plain),
        Pollution("a BOM", form, as_text(lambda t: "\ufeff" + t)),
        Pollution("UTF-16 LE", form, as_text(lambda t: "\ufeff" + t, "utf-16-le")),
        Pollution("UTF-16 BE", form, as_text(lambda t: "\ufeff" + t, "utf-16-be")),
        Pollution("UTF-32 LE", form, as_text(lambda t: "\ufeff" + t, "utf-32-le")),
        Pollution("CRLF", form, as_text(lambda t: t.replace("\n", "\r\n"))),
        Pollution("CR", form, as_text(lambda t: t.replace("\n", "\r"))),
        Pollution("no last line end", form, as_text(lambda t: t.rstrip("\n"))),
        Pollution("blank lines everywhere", form, as_text(lambda t: "\n\r\n" + t.replace("\n", "\n\n\r\n"))),
        Pollution("gzip", form, packed(gzip.compress)),
        Pollution("gzip, by its name", form, packed(gzip.compress), file=".gz"),
        Pollution("gzip of two members", form, packed(lambda d: gzip.compress(d[:20]) + gzip.compress(d[20:]))),
        Pollution("zip", form, packed(lambda d: zipped(("x", d))), file=".zip"),
        Pollution("zip named as gzip", form, packed(lambda d: zipped(("../../x", d))), file=".gz"),
        refused("nothing at all", form, constant(b""), "empty"),
        refused("a BOM alone", form, constant(b"\xef\xbb\xbf"), "empty"),
        refused("blank lines alone", form, constant(b"\n\r\n  \n\t\r\r"), "empty"),
        refused("a gzip of nothing", form, constant(gzip.compress(b"")), "empty"),
        refused("bad bytes at the end", form, packed(lambda d: d + BAD_BYTES), "the byte 0xFF at offset"),
        refused("cut within a character", form, packed(lambda d: d + "é".encode()[:1]), "the byte 0xC3 at offset"),
        refused("a surrogate in UTF-8", form, packed(lambda d: d + b"\xed\xa0\x80\n"), "the byte 0xED at offset"),
        refused("a picture", form, constant(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "the byte 0x89 at offset 0"),
        refused("UTF-16 of odd length", form, packed(lambda d: b"\xff\xfe" + d.decode().encode("utf-16-le") + b"x"),
                "cannot be decoded"),
        refused("a truncated gzip", form, packed(lambda d: gzip.compress(d)[:-12]), "ends too soon"),
        refused("a gzip with a wrong checksum", form, packed(lambda d: gzip.compress(d)[:-8] + bytes(8)), "damaged"),
        refused("a gzip with something behind", form, packed(lambda d: gzip.compress(d) + d), "something else follows"),
        refused("a gzip in a gzip", form, packed(lambda d: gzip.compress(gzip.compress(d))), "packed twice"),
        refused("a gzip bomb", form, packed(lambda d: gzip.compress(d + b"\n" * 9_000_000)), "decompression bomb"),
        refused("a truncated zip", form, packed(lambda d: zipped(("x", d))[:-30]), "damaged or cut off"),
        refused("an encrypted zip", form, packed(lambda d: zipped(("x", d), encrypted=True)), "without a password"),
        refused("a zip of two files", form, packed(lambda d: zipped(("a", d), ("b", d))), "holds 2 files"),
        refused("an empty zip", form, constant(zipped()), "holds 0 files"),
    ]  # fmt: skip


# CSV


def cells_of(lines: Lines) -> list[list[str]]:
    return list(csv.reader(lines))


def written(rows: list[list[str]], **dialect: Any) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n", **dialect).writerows(rows)
    return out.getvalue()


def csv_rows(change: Callable[[list[list[str]]], list[list[str]]], **dialect: Any) -> Callable[[Lines], bytes]:
    """Return a change of the cells of a CSV file, or of its quoting and delimiters."""
    return lambda lines: written(change(cells_of(lines)), **dialect).encode()


def shuffled(rows: list[list[str]]) -> list[list[str]]:
    order = list(range(len(rows[0])))
    random.Random(1).shuffle(order)  # noqa: S311 - test data, not secrets
    return [[row[position] for position in order] for row in rows]


def bad_line(name: str, rule: str, line: Callable[[Lines], str]) -> Pollution:
    """Return a case with a malformed record between good ones; `line` creates it from the header and the rows."""

    def make(lines: Lines) -> bytes:
        return plain([*lines[: BEFORE + 1], line(lines), *lines[BEFORE + 1 :]])

    return Pollution(name, "csv", make, (f"row_{rule}",))


def unquoted(lines: Lines) -> str:
    """Return a row without quotes, with some text in each cell."""
    return ",".join(["x"] * len(cells_of(lines)[0]))


CSV = [
    *whole_files("csv"),
    Pollution("the header alone", "csv", lambda lines: plain(lines[:1]), rows=0),
    Pollution("every cell quoted", "csv", csv_rows(lambda rows: rows, quoting=csv.QUOTE_ALL)),
    Pollution("columns in another order", "csv", csv_rows(shuffled)),
    Pollution("a header in capitals", "csv", csv_rows(lambda rows: [[c.upper() for c in rows[0]], *rows[1:]])),
    Pollution("a header with spaces for joints", "csv",
              csv_rows(lambda rows: [[f" {c.title().replace('_', ' ')} " for c in rows[0]], *rows[1:]])),
    Pollution("space around every cell", "csv", csv_rows(lambda rows: [rows[0], *([f" {c}\t" for c in r] for r in rows[1:])])),
    Pollution("every row twice", "csv", lambda lines: plain([*lines, *lines[1:]]), superseded=ROWS),
    Pollution("a column more", "csv", csv_rows(lambda rows: [[*row, "surplus"] for row in rows]), extra=True),
    Pollution("a column without a name", "csv", csv_rows(lambda rows: [[*row, "" if row is rows[0] else "x"] for row in rows]),
              extra=True),
    refused("one column is left", "csv", csv_rows(lambda rows: [row[:1] for row in rows]), "The header lacks"),
    refused("a column twice", "csv", csv_rows(lambda rows: [[*row, row[0]] for row in rows]), "twice"),
    refused("no header", "csv", lambda lines: plain(lines[1:]), "The header lacks"),
    refused("another delimiter", "csv", csv_rows(lambda rows: rows, delimiter=";"), "The header lacks"),
    refused("UTF-16 without BOM", "csv", lambda lines: lines[0].encode("utf-16-le"), "UTF-16 needs a byte order mark"),
    refused("a header with an open quote", "csv", as_text(lambda t: '"' + t.replace('"', "")), "never closed"),
    refused("a header with a NUL", "csv", as_text(lambda t: "\0" + t), "NUL"),
    refused("zeros", "csv", constant(bytes(512)), "NUL"),
    refused("a page to log in", "csv", constant(b"<!DOCTYPE html>\n<html><body>Log in</body></html>\n"), "The header lacks"),
    bad_line("a short row", "has_header_fields", lambda lines: unquoted(lines)[:-2]),
    bad_line("a long row", "has_header_fields", lambda lines: unquoted(lines) + ",x"),
    bad_line("a delimiter at the end", "has_header_fields", lambda lines: unquoted(lines) + ","),
    bad_line("only delimiters", "has_header_fields", lambda lines: "," * len(unquoted(lines))),
    bad_line("a line of prose", "has_header_fields", lambda _: "Total: 17 rows"),
    bad_line("a line of spaces", "has_header_fields", lambda _: "   "),
    bad_line("the end of a DOS file", "has_header_fields", lambda _: "\x1a"),
    bad_line("another delimiter in one line", "has_header_fields", lambda lines: unquoted(lines).replace(",", ";")),
    bad_line("a NUL", "without_nul", lambda lines: unquoted(lines) + "\0"),
    bad_line("an open quote", "quotes_closed", lambda lines: '"' + unquoted(lines)),
    bad_line("an open quote at the end", "quotes_closed", lambda lines: unquoted(lines)[:-1] + '"x'),
    bad_line("text after a quote", "quotes_closed", lambda lines: '"x"' + unquoted(lines)),
    bad_line("a quote alone", "quotes_closed", lambda _: '"'),
    bad_line("the header again", "not_header", lambda lines: lines[0]),
    bad_line("the header again, in another order", "not_header", lambda lines: ",".join(reversed(lines[0].split(",")))),
    bad_line("a field over a megabyte", "fields_bounded", lambda lines: "x" * 2**20 + unquoted(lines)),
    bad_line("a line over eight megabytes", "fields_bounded", lambda _: '"' + "x" * (8 * 2**20 + 1)),
]  # fmt: skip


# JSON


def objects_of(lines: Lines) -> list[Any]:
    return [json.loads(line) for line in lines]


def json_lines(change: Callable[[dict[str, Any]], Any], **how: Any) -> Callable[[Lines], bytes]:
    return lambda lines: text([json.dumps(change(one), **how) for one in objects_of(lines)]).encode()


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flattened: dict[str, Any] = {}
    for name, item in value.items():
        flattened |= flat(item, f"{prefix}{name}_") if isinstance(item, dict) else {prefix + name: item}
    return flattened


def as_list(lines: Lines) -> str:
    return "[\n" + ",\n".join(lines) + "\n]\n"


def bad_object(name: str, rule: str, record: str | Callable[[str], str]) -> Pollution:
    """Return a case with a bad record between good ones in JSON lines; it is text, or created from a good one."""

    def make(lines: Lines) -> bytes:
        bad = record if isinstance(record, str) else record(lines[0])
        return plain([*lines[:BEFORE], bad, *lines[BEFORE:]])

    return Pollution(name, "jsonl", make, (f"row_{rule}",))


def with_member(member: str) -> Callable[[str], str]:
    return lambda line: f"{{{member}, {line[1:]}"


def in_a_list(case: Pollution) -> Pollution:
    """Return the same case as a list of records."""

    def make(lines: Lines) -> bytes:
        return as_list(case.make(lines).decode().removesuffix("\n").split("\n")).encode()

    return replace(case, form="json", make=make)


ENDS_ITSELF = [
    bad_object("NaN", "is_json", with_member('"x": NaN')),
    bad_object("Infinity", "is_json", with_member('"x": Infinity')),
    bad_object("-Infinity within a list", "is_json", with_member('"x": [1, -Infinity]')),
    bad_object("a name twice", "names_once", with_member('"x": 1, "x": 2')),
    bad_object("a name twice, within", "names_once", with_member('"x": {"y": 1, "y": 2}')),
    bad_object("half of a surrogate pair", "is_json", with_member('"x": "\\ud800"')),
    bad_object("half of a surrogate pair in a name", "is_json", with_member('"\\udfff": 1')),
    bad_object("U+0000", "without_nul", with_member('"x": "a\\u0000b"')),
    bad_object("U+0000 in a name", "without_nul", with_member('"\\u0000": 1')),
    bad_object("a name of a thousand characters", "names_bounded", with_member(f'"{"x" * 1001}": 1')),
    bad_object("a thousand names", "names_bounded", with_member(", ".join(f'"x{n}": 1' for n in range(1001)))),
    bad_object("nested deeply", "is_json", with_member('"x": ' + '{"y":' * 200 + "1" + "}" * 200)),
    bad_object("a bomb of brackets", "is_json", with_member('"x": ' + "[" * 10_000 + "]" * 10_000)),
    bad_object("a list", "is_object", "[1, 2]"),
    bad_object("an empty list", "is_object", "[]"),
    bad_object("a number", "is_object", "17"),
    bad_object("a text", "is_object", '"text"'),
    bad_object("null", "is_object", "null"),
    bad_object("true", "is_object", "true"),
    bad_object("a field over a megabyte", "fields_bounded", with_member(f'"x": "{"x" * (2**20 + 1)}"')),
]
"""Bad records whose end can be recognized."""

JSON_LINES = [
    *whole_files("jsonl"),
    Pollution("rows in a list", "jsonl", lambda lines: as_list(lines).encode()),
    Pollution("a list on one line", "jsonl", lambda lines: f"[{','.join(lines)}]".encode()),
    Pollution("a list over many lines", "jsonl", lambda lines: json.dumps(objects_of(lines), indent=2).encode()),
    Pollution("objects over many lines", "jsonl",
              lambda lines: text([json.dumps(one, indent=4) for one in objects_of(lines)]).encode()),
    Pollution("an empty list of rows", "jsonl", constant(b" [ ] \n"), rows=0),
    Pollution("no spaces", "jsonl", json_lines(lambda one: one, separators=(",", ":"))),
    Pollution("every character escaped", "jsonl", json_lines(lambda one: one, ensure_ascii=True)),
    Pollution("names in another order", "jsonl", json_lines(lambda one: dict(reversed(one.items())))),
    Pollution("flat names", "jsonl", json_lines(flat)),
    Pollution("names in capitals", "jsonl", json_lines(lambda one: {name.upper(): v for name, v in flat(one).items()})),
    Pollution("lines indented", "jsonl", as_text(lambda t: "  " + t.replace("\n", " \t\n  ").rstrip(" "))),
    Pollution("every row twice", "jsonl", lambda lines: plain([*lines, *lines]), superseded=ROWS),
    Pollution("a name more", "jsonl", json_lines(lambda one: one | {"surplus": 1}), extra=True),
    Pollution("an object more", "jsonl", json_lines(lambda one: one | {"surplus": {"a": [1], "b": "x"}}), extra=True),
    Pollution("null under a name more", "jsonl", json_lines(lambda one: one | {"surplus": None})),
    refused("a list that is not closed", "jsonl", lambda lines: as_list(lines)[:-3].encode(), "line"),
    refused("a list cut within a row", "jsonl", lambda lines: as_list(lines)[:-20].encode(), "line"),
    refused("a list closed by a brace", "jsonl", lambda lines: as_list(lines).replace("\n]\n", "\n}\n").encode(), "line"),
    refused("a comma missing in a list", "jsonl", lambda lines: as_list(lines).replace("},\n{", "}\n{", 1).encode(), "line"),
    refused("a comma too many in a list", "jsonl", lambda lines: as_list(lines).replace("\n]", ",\n]").encode(), "line"),
    refused("text after a list", "jsonl", lambda lines: (as_list(lines) + "x").encode(), "follows the end"),
    refused("two lists", "jsonl", lambda lines: (as_list(lines) * 2).encode(), "follows the end"),
    *ENDS_ITSELF,
    bad_object("cut", "is_json", lambda line: line[:-5]),
    bad_object("a brace too many", "is_json", lambda line: line + "}"),
    bad_object("two objects on a line", "is_json", lambda line: f"{line} {line}"),
    bad_object("text behind", "is_json", lambda line: line + " x"),
    bad_object("a comma at the end", "is_json", lambda line: line[:-1] + ",}"),
    bad_object("single quotes", "is_json", "{'x': 1}"),
    bad_object("no quotes", "is_json", "{x: 1}"),
    bad_object("no colon", "is_json", '{"x" 1}'),
    bad_object("a comment", "is_json", "// {}"),
    bad_object("a comment within", "is_json", with_member('"x": 1 /* one */')),
    bad_object("prose", "is_json", "Total: 17 rows"),
    bad_object("a number with a zero in front", "is_json", with_member('"x": 01')),
    bad_object("a number with a plus", "is_json", with_member('"x": +1')),
    bad_object("a number without a digit in front", "is_json", with_member('"x": .5')),
    bad_object("a number without a digit behind", "is_json", with_member('"x": 1.')),
    bad_object("a hexadecimal number", "is_json", with_member('"x": 0x10')),
    bad_object("True", "is_json", with_member('"x": True')),
    bad_object("a tab in a text", "is_json", with_member('"x": "\t"')),
    bad_object("an unknown escape", "is_json", with_member('"x": "\\x41"')),
    bad_object("an open quote", "is_json", with_member('"x": "')),
    bad_object("a NUL byte", "without_nul", with_member('"x": "\0"')),
    bad_object("a BOM in a line", "is_json", lambda line: "\ufeff" + line),
    bad_object("a line over eight megabytes", "fields_bounded", with_member(f'"x": "{"x" * (8 * 2**20 + 1)}"')),
]  # fmt: skip

JSON_LIST = [in_a_list(case) for case in ENDS_ITSELF]

POLLUTION = [*CSV, *JSON_LINES, *JSON_LIST]
