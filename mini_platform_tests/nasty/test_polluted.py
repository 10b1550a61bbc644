"""Polluted files of a fresh dataset, cell by cell, in the spirit of public collections such as the Pollock benchmark.

The dataset is declared here: text columns and a key, nothing else. Every cell of production is compared with what a careful
reader of the file would write down. Where a row is rejected or a file refused, the case says why that is right, or which
option of the declaration is missing (GAP).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from mini_platform.dataset import Csv, Dataset, Field, RowModel
from mini_platform.landing.store import RawStore
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.nasty.conftest import Bench, explained


class Order(RowModel):
    id: str = Field("Number of the order")
    product: str | None = Field("What was ordered")
    quantity: str | None = Field("How many")
    price: str | None = Field("Of one")
    comment: str | None = Field("Anything")


dataset = Dataset(name="polluted", table="polluted", description="Orders.", rows=Order, key=("id",))

HEADER = "id,product,quantity,price,comment"
LINES = (
    '1,"Widget, large",10,"1.234,50",first',
    '2,"5"" pipe",2,0.99,"two\nlines"',
    "3,Ünïcode,0,-1,",
    "4,plain,007,1e3,NA",
)
ONE, TWO, THREE, FOUR = ROWS = (
    ("1", "Widget, large", "10", "1.234,50", "first"),
    ("2", '5" pipe', "2", "0.99", "two\nlines"),
    ("3", "Ünïcode", "0", "-1", None),
    ("4", "plain", "007", "1e3", "NA"),
)

Cells = tuple[str | None, ...]


@dataclass(frozen=True)
class Polluted:
    """A file, the cells that it says, and the lines that are rejected.

    Attributes:
        name: of the pollution.
        data: text of the file.
        rows: what must be in production.
        rejects: `line rule`.
        refused: part of the reason, if the file is refused.
        why: why rows are missing or otherwise than a person would read them; empty if none is.
        source: how the dataset declares its files.
    """

    name: str
    data: str | bytes
    rows: tuple[Cells, ...] = ROWS
    rejects: tuple[str, ...] = ()
    refused: str = ""
    why: str = ""
    source: Csv = field(default_factory=Csv)


def lines(*body: str, header: str = HEADER, end: str = "\n") -> str:
    return end.join((header, *(body or LINES), ""))


def with_line(at: int, line: str) -> str:
    """The clean file with one of its lines replaced."""
    return lines(*LINES[: at - 1], line, *LINES[at:])


def redelimited(delimiter: str) -> str:
    """The clean rows, with another delimiter."""
    quoted = [
        delimiter.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' if cell else "" for cell in row)
        for row in (HEADER.split(","), *ROWS)
    ]
    return "\n".join(quoted)


SALT = random.Random(1)  # noqa: S311 - test data, not secrets
LONG = "".join(SALT.choices(string.ascii_letters, k=5_000))
FIELDS, QUOTES, HEADERS = "row_has_header_fields", "row_quotes_closed", "row_not_header"

POLLUTED = [
    Polluted("clean", lines()),
    Polluted("no last line end", lines()[:-1]),
    Polluted("two last line ends", lines() + "\n"),
    Polluted("CRLF", lines(end="\r\n")),
    Polluted("CR", lines(end="\r")),
    Polluted("CR, LF and CRLF in turn", f"{HEADER}\r{LINES[0]}\n{LINES[1]}\r\n{LINES[2]}\r\r{LINES[3]}"),
    Polluted("LF CR", lines(end="\n\r")),
    Polluted("blank lines between the rows", lines(*"\n\n".join(LINES).split("\x00"))),
    Polluted("BOM", b"\xef\xbb\xbf" + lines().encode()),
    Polluted("UTF-16", lines().encode("utf-16")),
    Polluted("declared windows-1252", lines().encode("cp1252"), source=Csv(encoding="cp1252")),
    Polluted("undeclared windows-1252", lines().encode("cp1252"), (), refused="0xDC at offset", why="never guessed"),
    Polluted("declared DOS code page", lines().encode("cp437"), source=Csv(encoding="cp437")),
    Polluted("every cell quoted", redelimited(",")),
    Polluted("declared ;", redelimited(";"), source=Csv(delimiter=";")),
    Polluted("declared tab", redelimited("\t"), source=Csv(delimiter="\t")),
    Polluted("declared |", redelimited("|"), source=Csv(delimiter="|")),
    Polluted("declared space", redelimited(" "), source=Csv(delimiter=" ")),
    Polluted("undeclared ;", redelimited(";"), (), refused="Is another delimiter in use?", why="never guessed"),
    Polluted("comma and space", lines("1, a, 2, 3, x"), (("1", "a", "2", "3", "x"),)),
    Polluted(
        "comma, space and quotes", lines(*LINES[2:], '5, "a, b", 2, 3, "x"', '6, "a", 2, 3, "x"'),
        (THREE, FOUR, ("6", '"a"', "2", "3", '"x"')), (f"4 {FIELDS}",),
        why="GAP: Csv(skip_initial_space=True); a quote after a space is a character",
    ),
    Polluted(
        "single quotes", lines(*LINES[2:], "5,'a, b',2,3,x", "6,'a',2,3,x"), (THREE, FOUR, ("6", "'a'", "2", "3", "x")),
        (f"4 {FIELDS}",), why='GAP: Csv(quote="\'")',
    ),
    Polluted(
        "backslash as escape", lines(*LINES[2:], r'5,"a\"b",2,3,x', r"6,a\,b,2,3,x", r"7,a\b,2,3,x"),
        (THREE, FOUR, ("7", r"a\b", "2", "3", "x")), (f"4 {QUOTES}", f"5 {FIELDS}"), why=r'GAP: Csv(escape="\\")',
    ),
    Polluted("preamble", "Orders of 2024\nprinted,today\n\n" + lines(), (), refused="found Orders of 2024",
             why="GAP: Csv(skip_lines=3), or to look for the header among the first lines"),
    Polluted("footer", lines(*LINES, "", "Total,,,5", "(c) Example Ltd"), ROWS, (f"8 {FIELDS}", f"9 {FIELDS}"),
             why="a footer is no row: rejected"),
    Polluted("footer as wide as the table", lines(*LINES, "Total,,12,5,"), (*ROWS, ("Total", None, "12", "5", None)),
             why="nothing in a text dataset tells it from a row; a rule of the row model would"),
    Polluted("a header of two rows", lines(",,pieces,EUR,", *LINES), ROWS, ("2 id_required",),
             why="rejected for its empty key; otherwise as the footer"),
    Polluted("no header", lines()[len(HEADER) + 1 :], (), refused="found 1, Widget, large, 10",
             why="GAP: Csv(header=False), columns by position"),
    Polluted("header alone", HEADER, ()),
    Polluted("one row", lines(LINES[0]), (ONE,)),
    Polluted("a second table with the same header", lines(*LINES[:2], "", HEADER, *LINES[2:]), ROWS, (f"6 {HEADERS}",)),
    Polluted("a second table with fewer columns", lines(*LINES, "", "name,city", "A,B"), ROWS, (f"8 {FIELDS}", f"9 {FIELDS}"),
             why="rows of another table: rejected"),
    Polluted("a second table with more columns", lines(*LINES, "a,b,c,d,e,f", "1,2,3,4,5,6"), ROWS,
             (f"7 {FIELDS}", f"8 {FIELDS}"), why="rows of another table: rejected"),
    Polluted("the header's columns in another order further down", lines(*LINES, "comment,price,quantity,product,id"), ROWS,
             (f"7 {HEADERS}",)),
    Polluted("one delimiter more in a row", with_line(4, "4,plain,,007,1e3,NA"), ROWS[:3], (f"6 {FIELDS}",),
             why="where the cells belong is not known: rejected, never shifted"),
    Polluted("one delimiter less in a row", with_line(1, "1,Widget10,9,first"), ROWS[1:], (f"2 {FIELDS}",),
             why="where the cells belong is not known: rejected, never padded"),
    Polluted("another delimiter in a row", with_line(4, "4;plain;007;1e3;NA"), ROWS[:3], (f"6 {FIELDS}",)),
    Polluted("a delimiter at the end of every row", lines(*(f"{line}," for line in LINES)), (),
             tuple(f"{n} {FIELDS}" for n in (2, 3, 5, 6)), refused="4 of 4 rows",
             why="GAP: trailing delimiters that the header has not"),
    Polluted("a delimiter at the end of every line", lines(*(f"{line}," for line in LINES), header=HEADER + ",")),
    Polluted("an empty column in front", lines(*(f",{line}" for line in LINES), header="," + HEADER)),
    Polluted("a header over two lines", lines(header='id,product,quantity,price,"comment\n"')),
    Polluted("a header in capitals, quoted, shuffled", 'COMMENT,"Id", Price ,PRODUCT,Quantity\nx,1,2,a,3\n',
             (("1", "a", "3", "2", "x"),)),
    Polluted("a quote more within a cell", with_line(4, '4,pl"ain,007,1e3,NA'), (*ROWS[:3], ("4", 'pl"ain', *FOUR[2:]))),
    Polluted("a quote more at the end of a cell", with_line(4, '4,plain",007,1e3,NA'), (*ROWS[:3], ("4", 'plain"', *FOUR[2:]))),
    Polluted("a quote more at the start of a cell", with_line(3, '3,"Ünïcode,0,-1,'), (ONE, TWO, FOUR), (f"5 {QUOTES}",),
             why="where the cell ends is not known: the line is rejected, and no other"),
    Polluted("a quote more in a quoted cell", with_line(1, '1,"Wid"get, large",10,"1.234,50",first'), ROWS[1:],
             (f"2 {QUOTES}",)),
    Polluted("a quote less", with_line(1, '1,"Widget, large,10,"1.234,50",first'), ROWS[1:], (f"2 {QUOTES}",)),
    Polluted("quotes that were not doubled", with_line(2, '2,"5" pipe",2,0.99,x'), (ONE, *ROWS[2:]), (f"3 {QUOTES}",)),
    Polluted("a line end in a cell without quotes", with_line(4, "4,pl\nain,007,1e3,NA"), ROWS[:3],
             (f"6 {FIELDS}", f"7 {FIELDS}")),
    Polluted("a CR in a cell without quotes", with_line(4, "4,pl\rain,007,1e3,NA"), ROWS[:3], (f"6 {FIELDS}", f"7 {FIELDS}")),
    Polluted("cells of any kind", lines('1, x ,"",\t,"  "', "2,a\tb,\\N,{},NULL", "3,\x01\x7f,\u200b,🎉,e\u0301"),
             (("1", "x", None, None, None), ("2", "a\tb", "\\N", "{}", "NULL"), ("3", "\x01\x7f", "\u200b", "🎉", "é")),
             why="GAP: cells are trimmed and composed (NFC), and an empty cell is NULL, quoted or not"),
    Polluted("a long cell", lines(f"1,{LONG},,,"), (("1", LONG, None, None, None),)),
    Polluted("a key that says two things", lines(*LINES, "4,other,1,2,x"), (*ROWS[:3], ("4", "other", "1", "2", "x")),
             why="the last row of a key wins; GAP: a dataset without a key"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tables(database: Engine) -> None:
    create_all(database, [dataset])


@pytest.fixture
def bench(database: Engine, tables: None, tmp_path: Path) -> Bench:
    made = Bench(database, tmp_path / "inbox", RawStore(tmp_path / "raw"), [dataset])
    made.clear()
    return made


@pytest.mark.parametrize("file", POLLUTED, ids=[file.name for file in POLLUTED])
def test_every_cell(bench: Bench, file: Polluted) -> None:
    declared = dataset if file.source == Csv() else replace(dataset, sources=(file.source,))
    bench.drop(("polluted.csv", file.data if isinstance(file.data, bytes) else file.data.encode()))
    (got,) = bench.run(declared)
    table = dataset_tables(declared).production
    with bench.engine.connect() as conn:
        found = conn.execute(select(*(table.c[c.name] for c in declared.columns)).order_by(table.c.id))
        cells = tuple(tuple(row) for row in found)
    wrong = explained(
        [
            ("cells", file.rows, cells),
            ("rejects", file.rejects, tuple(" ".join(one.split()[:2]) for one in got.rejects)),
            ("status", "refused" if file.refused else "loaded", got.summary.split(":")[0]),
            ("sentence", True, file.refused in got.error or got.error),
        ]
    )
    if wrong:
        pytest.fail(f"{file.name}{wrong}", pytrace=False)
    assert bench.wrong(declared) == []


def test_a_key_longer_than_an_index_takes(bench: Bench) -> None:
    """It costs its row, or its file, and not the files beside it."""
    bench.drop(("a.csv", lines(f"{LONG},x,,,", "5,x,,,").encode()), ("b.csv", lines().encode()))
    long, other = bench.run(dataset)
    assert other.summary == "loaded: 4 read, 4 inserted"
    assert long.summary == "loaded: 2 read, 1 inserted, 1 rejected"
    assert long.rejects == (f"2 id_indexable {LONG[:80]!r}",)
    assert bench.wrong(dataset) == []
