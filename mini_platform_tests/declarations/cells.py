"""Files for a drawn declaration: good cells, the ends of each type, and what breaks a rule; and what was written of each row.

A `Written` knows its records by line and place, so that the model need not read files: readers have tests of their own.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mini_platform_tests.declarations.draw import Col, Format, Plan

GOOD: Mapping[str, Sequence[str]] = {
    "str": ("a", "b", "Ab", "ab", "é", "c d", "A"),
    "int": ("0", "1", "2", "3", "4", "-7"),
    "float": ("0", "1.5", "2", "-0.25", "4e2", "3"),
    "Decimal": ("0", "1", "3", "{h}", "-{h}", "7", "{f}", "-{f}"),
    "dt.date": ("2026-01-01", "2026-01-02", "2024-02-29", "1999-12-31"),
    "dt.datetime": (
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2024-02-29 23:59:59.5Z",
        "2026-01-01T23:30:00-02:30",
    ),
    "bool": ("true", "false", "t", "N", "1"),
    "list[float]": ("[1, 2.5]", "[0]", "[-3e2,4]", "[]"),
}
EXTREME: Mapping[str, Sequence[str]] = {
    "str": (
        "e\u0301",
        "A\u030a",
        "İ",
        "ß",
        "ΑΣ",
        "ﬁ",
        "\u0390",
        "\u01f0",
        "\u1e96",
        "NA",
        "na",
        "n/a",
        "null",
        "NULL",
        "-",
        "0",
        " a",
        "\u2003a\u00a0",
        "\u3000",
        "x\x1c",
        'q"q',
        "it's",
        '"',
        "a,b;c|d\te",
        "l\nb",
        "l\r\nb",
        "l\rb",
        "\\N",
        "a\\",
        "{a}",
        "%s",
        "#a",
        "😀",
        "\ufeffa",
        "NaN",
        "l" * 700,
        "ö" * 3000,
        "'; DROP TABLE x",
    ),
    "int": (
        "9223372036854775807",
        "-9223372036854775808",
        "007",
        "+5",
        "9007199254740993",
        "-0",
        " 8 ",
        "NA",
        "3037000500",
        "3.0",
        "1.",
        "2E0",
        "40e-1",
        "9223372036854775807.00",
    ),
    "float": (
        "1e308",
        "-1.7976931348623157e308",
        "5e-324",
        "-0.0",
        "0.1",
        "1e-7",
        ".5",
        "7.",
        "123456789012345678",
        " 8 ",
        "NA",
    ),
    "Decimal": (
        "9" * 18,
        "-" + "9" * 18,
        "0.{d}",
        "-0.{d}",
        "+1",
        "007",
        "{w}.{d}",
        "0.5",
        "1.25",
        " 8 ",
        "NA",
        "-0",
        ".50",
        "1.",
        "3E0",
        "70e-1",
        "{h}00",
    ),
    "dt.date": (
        "9999-12-31",
        "0001-01-01",
        "1900-03-01",
        " 2026-01-01 ",
        "NA",
        "2026-1-1",
        "2026-01-2",
        "1999-12-31T00:00:00",
        "2026-01-01 00:00:00.000000000",
        "2024-2-29 00:00",
    ),
    "dt.datetime": (
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00Z",
        "2026-03-29T02:30+01:00",
        "2026-01-01t00:00z",
        "2026-01-01T00:00:00.1234560000Z",
        "20260101T000000Z",
        "20260101T010000.000000000+0100",
        "2026-01-01T01+01:00",
        "20260101t00Z",
        "2026-01-01T00:00:00,5Z",
        "NA",
    ),
    "bool": ("TRUE", "Yes", "f", "0", " true ", "NA"),
    "list[float]": ("[1e308]", "[5e-324,-0.0]", "[ ]", "[0.1,0.2,0.30000000000000004]", "[9007199254740993]", "NA"),
}
BAD: Mapping[str, Sequence[str]] = {
    "str": ("", "zzz", "1" * 25),
    "int": ("", "x", "1.5", "9223372036854775808", "1e-3", "1e19", "1_0", "0x1", "1 2", "١", "99999"),
    "float": ("", "x", "NaN", "inf", "1e999", "1e-999", "1,5", "0x1p3", "1_000"),
    "Decimal": ("", "x", "1e-19", "1e18", "9" * 19, "NaN", ".", "1_0", "0.{d}1", "99999"),
    "dt.date": (
        "",
        "x",
        "2026-02-30",
        "0000-01-01",
        "26-01-01",
        "20260101",
        "2026-001-01",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:01",
        "infinity",
        "today",
    ),
    "dt.datetime": (
        "",
        "2026-01-01",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00",
        "9999-12-31T23:00:00-05:00",
        "0001-01-01T00:00:00+05:00",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.1234567Z",
        "2026-01-01T00:30.5Z",
        "20260101T000000",
        "20260101T00:00:00Z",
        "now",
    ),
    "bool": ("", "maybe", "2", "wahr"),
    "list[float]": ("", "[1e999]", "[NaN]", "[1e-999]", "[1,]", "1", "[null]", '["1"]', "[[1]]", "[01]"),
}
UNKNOWN = ("extra", "Größer", "another one")
"""Names of columns that no declaration has."""
CELL_KINDS = (0.86, 0.10)
"""Shares of good cells and of extremes; the rest is bad."""


@dataclass
class Record:
    """A row as it was written: its cells by column, and those that nobody declared; or the rule that its form breaks.

    `number` is its place among the records of its line, from 1; 0 where each has a line of its own, as in CSV.
    """

    line: int
    number: int
    cells: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    malformed: str | None = None


Rows = Sequence[tuple[dict[str, str], dict[str, str]]]
"""Cells by declared column, and by unknown one."""


@dataclass
class Written:
    """A file.

    Attributes:
        name: of it.
        seed: of what its writing leaves open: quotes, encodings, spellings.
        format: how it is written.
        shown: declared columns that it has.
        unknown: columns that are not read: nobody declared them, or the platform fills them in or derives them.
        rows: what is written.
        data: its bytes.
        records: the rows as they stand in it.
        refused: it cannot be read as a whole.
        remaining_records: the records that are left of it, where a person was erased.
    """

    name: str
    seed: int
    format: Format
    shown: tuple[Col, ...]
    unknown: tuple[str, ...]
    rows: Rows
    data: bytes = b""
    records: list[Record] = field(default_factory=list)
    refused: bool = False
    remaining_records: list[Record] | None = None

    def __post_init__(self) -> None:
        if self.remaining_records is not None:
            self.records, self.data = self.remaining_records, b"written without a person"
            return
        rng = random.Random(self.seed)  # noqa: S311
        (_as_json if self.format.kind == "Json" else _as_csv)(rng, self)

    def keeping(self, rows: Rows, columns: Sequence[Col]) -> Written:
        """The file with only these of its rows and columns."""
        shown = tuple(c for c in self.shown if c in columns)
        return replace(self, rows=rows, shown=shown, data=b"", records=[], refused=False)


PERSONS = ("ann@example.org", "Ann@Example.ORG ", "bob@example.org")
"""Persons who may stand in a hashed column, and nowhere else."""


def cell(rng: random.Random, column: Col, good: Sequence[str]) -> str:
    """The text of a cell; `good` are those that are good in its file."""
    if column.protection == "hash" and rng.random() < 0.3:
        return rng.choice(PERSONS)
    if (tokens := column.tokens) and rng.random() < 0.15:
        token = rng.choice(tokens)
        return rng.choice((token, token, token.lower(), f" {token}"))
    kind = rng.random()
    pools = (good, EXTREME[column.type], BAD[column.type])
    text = rng.choice(pools[0 if kind < CELL_KINDS[0] else 1 if kind < sum(CELL_KINDS) else 2])
    if "{" in text and column.type == "Decimal":
        text = text.format(
            h="2.5" if column.decimals else "2",
            f=f"0.{'5'.rjust(column.decimals, '0')}" if column.decimals else "5",
            d="1" * max(1, column.decimals),
            w="8" * max(1, 18 - column.decimals),
        )
    if kind < CELL_KINDS[0] and column.nullable and rng.random() < 0.2:
        return ""
    return text


def write(rng: random.Random, plan: Plan, name: str) -> Written:
    """Draw a file for a declaration; `name` is without its ending."""
    chosen = rng.choice(plan.formats)
    lacks = {c.name for c in plan.read if c.options.get("optional") and rng.random() < 0.4}
    if rng.random() < 0.02 and chosen.kind == "Csv":
        lacks.add(rng.choice(plan.read).name)
    unknown: list[str] = []
    if chosen.options.get("header", True) and rng.random() < (0.05 if plan.unexpected_columns == "refuse" else 0.25):
        aliases = {alias.lower() for c in plan.read for alias in c.options.get("aliases", ())}
        own = [
            rng.choice((c.name, c.name.upper()))
            for c in plan.columns
            if not c.is_read and c.name.lower() not in aliases
        ]
        unknown = rng.sample((*UNKNOWN, *own), rng.randint(1, 2))
    if chosen.options.get("header", True) is not True:
        lacks = set()
    shown = [c for c in plan.read if c.name not in lacks] or list(plan.read)
    good = {c.name: GOOD[c.type] for c in shown}
    if rng.random() < 0.5:  # A file that has rows of some groups only, and says nothing of the others.
        good = {name: rng.sample(texts, rng.choice((2, len(texts)))) for name, texts in good.items()}
    rows: list[tuple[dict[str, str], dict[str, str]]] = []
    for _ in range(rng.choice((0, 1, 2, 3, 5, 8, 13))):
        cells = {c.name: cell(rng, c, good[c.name]) for c in shown}
        if rows and rng.random() < 0.15:  # A doubled key, with other values beside it.
            cells |= {n: v for n, v in rng.choice(rows)[0].items() if n in plan.key}
        extra = {n: rng.choice(("", "u", "7", 'v"', " w ")) for n in unknown}
        if chosen.kind == "Json":
            extra = {n: v for n, v in extra.items() if rng.random() < 0.7}
        rows.append((cells, extra))
    if chosen.options.get("header") is not False:
        rng.shuffle(shown)
    return Written(name + chosen.suffix, rng.randrange(2**32), chosen, tuple(shown), tuple(unknown), rows)


def _spelled(rng: random.Random, column: Col) -> str:
    """A name for a column in a file: its own, an alias, or another spelling that is forgiven."""
    names = [column.name, column.name, *column.options.get("aliases", ()), column.name.upper(), f" {column.name}"]
    return rng.choice(names)


def _as_csv(rng: random.Random, file: Written) -> None:
    options = file.format.options
    delimiter, quote, escape = options.get("delimiter", ","), options.get("quote", '"'), options.get("escape")
    end = rng.choice(("\n", "\n", "\r\n"))
    header = options.get("header", True)

    def put(text: str, *, first: bool = False) -> str:
        if escape:
            text = text.replace(escape, escape * 2)
        marked = any(mark in text for mark in (delimiter[0], quote, "\n", "\r")) or (
            first and text[:1] in ("#", "\ufeff", "")
        )
        return quote + text.replace(quote, quote * 2) + quote if marked or rng.random() < 0.05 else text

    lines = [end.join(["skipped", "me"]) + end] if options.get("skip_lines") else []
    if header == "find":
        lines.append(f"Report of today{end}")
    tail = (delimiter if options.get("trailing_delimiter") else "") + end
    names = [*(c.name for c in file.shown), *file.unknown]
    if header is not False:
        names = [*(_spelled(rng, c) for c in file.shown), *file.unknown]
        lines.append(delimiter.join(put(n, first=i == 0) for i, n in enumerate(names)) + tail)
    for cells, extra in file.rows:
        at = 1 + sum(len(re.findall(r"\r\n|\r|\n", line)) for line in lines)
        texts = [*(cells[c.name] for c in file.shown), *(extra.get(n, "") for n in file.unknown)]
        if len(texts) > 1 and tail == end and rng.random() < 0.02:
            lines.append(delimiter.join("r" for _ in (*texts, "one too many")) + end)
            file.records.append(Record(at, 0, malformed="row_has_header_fields"))
            continue
        lines.append(delimiter.join(put(t, first=i == 0) for i, t in enumerate(texts)) + tail)
        again = [t.strip().lower() for t in texts] == [n.strip().lower() for n in names]
        if again and any(max(names, key=len).strip() in text for text in texts):
            file.records.append(Record(at, 0, malformed="row_not_header"))
        else:
            file.records.append(Record(at, 0, cells, extra))
    text = "".join(lines)
    if not file.rows and rng.random() < 0.3:
        text = ""
    file.refused = not text
    encoding = options.get("encoding") or rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16"))
    file.data = text.encode(encoding) if text else b""


def _as_json(rng: random.Random, file: Written) -> None:
    lines = rng.random() < 0.4
    spelled = {c.name: _spelled(rng, c).strip() for c in file.shown}
    between = "\n" if lines else rng.choice((",", ",\n", ", "))
    texts = []
    for number, (cells, extra) in enumerate(file.rows):
        members = {c.name: _json_value(rng, c, cells[c.name]) for c in file.shown}
        members = {n: v for n, v in members.items() if v is not None}
        named = {spelled[n]: v for n, v in members.items()} | {n: json.dumps(v) for n, v in extra.items()}
        texts.append("{" + ", ".join(f"{json.dumps(n)}: {v}" for n, v in named.items()) + "}")
        at, place = (1 + number, 1) if "\n" in between else (1, 1 + number)
        stands = {c.name: _json_cell(c, members.get(c.name)) for c in file.shown}
        file.records.append(Record(at, place, stands, extra))
    text = between.join(texts)
    file.unknown = tuple(n for n in file.unknown if any(n in extra for _, extra in file.rows))
    if not lines:
        text = f"[{text}]"
    file.data = text.encode()
    file.refused = not file.data


def _json_value(rng: random.Random, column: Col, text: str) -> str | None:
    """A cell as JSON text; None where it is left out."""
    is_list = column.type == "list[float]"
    if text == "" or (is_list and text.strip().upper() in ("NA", "-", "N/A", "NULL", "0")):
        return rng.choice((None, "null") if is_list else (None, "null", '""'))
    number = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
    if column.type in ("int", "float", "Decimal", "str") and number and rng.random() < 0.5:
        return text
    if column.type == "bool" and text in ("true", "false"):
        return text
    if is_list and re.fullmatch(r"\[[-0-9eE.+, ]*\]", text) and "01" not in text and ",]" not in text:
        return text
    return json.dumps(text, ensure_ascii=rng.random() < 0.5)


def _json_cell(column: Col, value: str | None) -> str:
    """Return the cell of a JSON value; a string is no list, and a list is written compactly."""
    if value is None or value == "null":
        return ""
    if column.type == "list[float]":
        return re.sub(r"\s", "", value) if value.startswith("[") else value
    return str(json.loads(value)) if value.startswith('"') else value
