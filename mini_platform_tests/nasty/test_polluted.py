"""Polluted files of a fresh dataset, cell by cell, in the spirit of public collections such as the Pollock benchmark.

The dataset is declared here: text columns and a key, nothing else. Every cell of production is compared with what a careful
reader of the file would write down, with the options declared that the file needs. Where a row is rejected or a file refused,
the case says why that is right.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from mini_platform import Csv, Dataset, Field, RowModel
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.bench import Bench, explained


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


def redelimited(delimiter: str, quote: str = '"', escaped: str = '""', space: str = "") -> str:
    """The clean rows with every cell quoted, with another delimiter, quote, or text for a quote within quotes."""
    quoted = [
        delimiter.join(f"{quote}{space}{cell.replace(quote, escaped)}{space}{quote}" if cell else "" for cell in row)
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
    *(
        Polluted(f"declared {delimiter!r}", redelimited(delimiter), source=Csv(delimiter=delimiter))
        for delimiter in (":", "\t\t", ", ", "||", "\\t")
    ),
    Polluted("undeclared ;", redelimited(";"), (), refused="Is another delimiter in use?", why="never guessed"),
    Polluted("comma and space", lines("1, a, 2, 3, x"), (("1", "a", "2", "3", "x"),)),
    Polluted("comma, space and quotes", redelimited(",  "), source=Csv(skip_initial_space=True)),
    Polluted(
        "undeclared space before quotes", lines(*LINES[2:], '5, "a, b", 2, 3, "x"', '6, "a", 2, 3, "x"'),
        (THREE, FOUR, ("6", '"a"', "2", "3", '"x"')), (f"4 {FIELDS}",), why="a quote after a space is a character",
    ),
    Polluted("space within the quotes", redelimited(",", space=" ")),
    Polluted("single quotes", redelimited(",", "'", "''"), source=Csv(quote="'")),
    Polluted("single quotes, where they are needed", lines(*LINES[2:], "1,'Widget, large',10,'1.234,50',first"),
             (ONE, THREE, FOUR), source=Csv(quote="'")),
    Polluted("undeclared single quotes", lines(*LINES[2:], "5,'a, b',2,3,x", "6,'a',2,3,x"),
             (THREE, FOUR, ("6", "'a'", "2", "3", "x")), (f"4 {FIELDS}",), why="never guessed"),
    Polluted("no quotes", lines(*LINES[2:], '1,"a",5" pipe,",').replace(",", "\t"),
             (("1", '"a"', '5" pipe', '"', None), THREE, FOUR), source=Csv(delimiter="\t", quote=None)),
    Polluted("backslash as escape", redelimited(",", escaped='\\"'), source=Csv(escape="\\")),
    Polluted("backslash as escape of anything", lines(*LINES, r"6,a\,b,\\,3,x", "7,a\\b,2,3\\", "8,y"),
             (*ROWS, ("6", "a,b", "\\", "3", "x"), ("7", "ab", "2", "3\n8", "y")), source=Csv(escape="\\")),
    Polluted("undeclared escapes", lines(*LINES[2:], r'5,"a\"b",2,3,x', r"7,a\b,2,3,x"),
             (THREE, FOUR, ("7", r"a\b", "2", "3", "x")), (f"4 {QUOTES}",), why="never guessed"),
    *(
        Polluted(f"preamble {number}, {name}", preamble + lines(), source=source)
        for number, preamble in enumerate((
            "Orders of 2024\nprinted,today\n\n", "PREAMBLE,,,,\n" * 3, "PREAMBLE\n" * 3, "PREAMBLE,,,,\n,,,,\n\n",
        ))
        for name, source in (("skipped", Csv(skip_lines=3)), ("found", Csv(header="find")))
    ),
    Polluted("an undeclared preamble", "Orders of 2024\n\n" + lines(), (), refused="found Orders of 2024",
             why="never guessed"),
    Polluted("comments", lines("# one", *LINES[:2], '# "two', *LINES[2:]), source=Csv(comment="#")),
    Polluted("footer", lines(*LINES, "", "Total,,,5", "(c) Example Ltd"), ROWS, (f"8 {FIELDS}", f"9 {FIELDS}"),
             why="a footer is no row: rejected"),
    Polluted("footer as wide as the table", lines(*LINES, "Total,,12,5,"), (*ROWS, ("Total", None, "12", "5", None)),
             why="nothing in a text dataset tells it from a row; a rule of the row model would, or the next case"),
    Polluted("declared footer", lines(*LINES, ",,,,", "FOOTNOTE,,,,", "FOOTNOTE"), ROWS, ("7 id_required",),
             source=Csv(comment="FOOTNOTE"), why="a row of nothing has no key: rejected"),
    Polluted("a header of two rows", lines(",,pieces,EUR,", *LINES), ROWS, ("2 id_required",),
             why="rejected for its empty key; otherwise as the footer"),
    Polluted("a header with rows above it", ",,HEADER,,\n,,HEADER,,\n" + lines(), source=Csv(header="find")),
    Polluted("no header", lines()[len(HEADER) + 1 :], source=Csv(header=False)),
    Polluted("undeclared: no header", lines()[len(HEADER) + 1 :], (), refused="found 1, Widget, large, 10",
             why="never guessed"),
    *(
        Polluted(f"a header that says {name}, skipped", lines(header=header), source=Csv(header=False, skip_lines=1))
        for name, header in {
            "a name twice": "id,id,quantity,price,comment", "nothing of a column": "id,,quantity,price,comment",
            "other names": "HEAD/%R,product,quantity,price,comment", "600,000 bytes": "HEADER" * 100_000 + ",a,b,c,d",
            "it with other marks": HEADER.replace(",", ";"), "it in single quotes": "'id','product','quantity','price','x'",
            "too few names": "id,product", "too many": HEADER + ",x,y", "nothing": "",
        }.items()
    ),
    Polluted("a name twice", lines(header="id,product,quantity,price,comment,ID"), (), refused="twice: id and ID",
             why="which of them is meant is not known"),
    Polluted("one column of five", "id\n1\n", (), refused="lacks product, quantity", why="the others are declared"),
    Polluted("nothing", "", (), refused="The file is empty", why="not even a header"),
    *(
        Polluted(f"{count} columns more", lines(
            *(line + ",x" * count for line in LINES), header=HEADER + "".join(f",c{n}" for n in range(count))
        ))
        for count in (1_019, 16_995)
    ),
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
    Polluted("a delimiter at the end of every row", lines(*(f"{line}," for line in LINES)),
             source=Csv(trailing_delimiter=True)),
    Polluted("an undeclared delimiter at the end of every row", lines(*(f"{line}," for line in LINES)), (),
             tuple(f"{n} {FIELDS}" for n in (2, 3, 5, 6)), why="never guessed"),
    Polluted("a row of nothing", lines(*LINES[:2], "", *LINES[2:]), ROWS),
    Polluted("a row of delimiters", lines(*LINES[:2], ",,,,", *LINES[2:]), ROWS, ("5 id_required",), why="no key"),
    Polluted("a row of single quotes", with_line(4, "'4','plain','007','1e3','NA'"),
             (("'4'", "'plain'", "'007'", "'1e3'", "'NA'"), *ROWS[:3]),
             why="nothing tells them from quotes that belong to the text"),
    Polluted("an escape in one row", with_line(4, r'"4\"","plain\"",007,1e3,NA'), ROWS[:3], (f"6 {QUOTES}",),
             why="never guessed"),
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
             why="cells are trimmed, unless Field(trim=False), and composed (NFC); an empty cell is NULL, quoted or not"),
    Polluted("a long cell", lines(f"1,{LONG},,,"), (("1", LONG, None, None, None),)),
    Polluted("a key that says two things", lines(*LINES, "4,other,1,2,x"), (*ROWS[:3], ("4", "other", "1", "2", "x")),
             why="the last row of a key wins, unless duplicates says otherwise"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tables(database: Engine) -> None:
    create_all(database, [dataset])


@pytest.fixture
def bench(database: Engine, tables: None, tmp_path: Path) -> Bench:
    nasty_bench = Bench(database, tmp_path / "inbox", RawStore(tmp_path / "raw"), [dataset])
    nasty_bench.clear()
    return nasty_bench


@pytest.mark.parametrize("file", POLLUTED, ids=[file.name for file in POLLUTED])
def test_every_cell(bench: Bench, file: Polluted) -> None:
    declared = dataset if file.source == Csv() else replace(dataset, sources=(file.source,))
    bench.drop(("polluted.csv", file.data if isinstance(file.data, bytes) else file.data.encode()))
    (got,) = bench.run(declared)
    table = dataset_tables(declared).production
    with bench.engine.connect() as conn:
        result = conn.execute(select(*(table.c[c.name] for c in declared.columns)).order_by(table.c.id))
        cells = tuple(tuple(row) for row in result)
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
