"""ValidationResult: which cells are values and which are not, and that Postgres, Pandera and the oracle agree."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, BigInteger, Boolean, Date, Double, Engine, Text, cast, func, select, text
from sqlalchemy.types import TypeEngine

from mini_platform import Column, Dataset, Field, RowModel, rule
from mini_platform.rows.readers import Malformed
from mini_platform.rows.validation import pandera_schema, read_cells, validate, validate_malformed
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.oracle import COLUMNS, Oracle

TODAY = dt.datetime.now(dt.UTC).date()
VALID = {"station_id": "A", "date": "2024-01-01", "temp_c": "1", "precip_mm": "1"}


def listed(words: str) -> list[str]:
    return words.split(" ")


NO_NUMBERS = listed(
    "nan NaN NAN inf -inf +Infinity 1e309 -1e309 1e-400 1_000 0x1F 0b1 １２ ٣ ½ 12° 1,5 NA null None - + . e5 1e 1e+ --5 +-5 "
    "1.5.2 1e5.0 5f 1d0 1\u200b \ufeff1 1\u00a02 true $5 5% 1'000 −5"
)
NO_DATES = listed(
    "2024-02-30 2023-02-29 1900-02-29 2100-02-29 2024-00-01 2024-13-01 2024-01-00 2024-06-31 31/12/2024 20240101 "
    "2024-002-3 24-01-01 now today yesterday epoch infinity -infinity NA 0000-01-01 -2024-01-01 12024-01-01 2024-01-01T00:00Z "
    "２０２４-01-01 2024‐01‐01 2024/01/01 2024.01.01 2024-001 2024-W01-1 2024-Jan-01 2024-01-01T00:00:01 "
    "2024-01-01T00:00:00.0001 2024-01-01T00:00:00+00:00 2024-01-01T00 2024-1-1T01:00 2024-2-30 2024-13-1"
)


def frame(*rows: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame([VALID | row for row in rows], schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def names(literal: str | None) -> list[str]:
    """Items of a Postgres array literal whose items have no quotes."""
    return [] if literal is None else literal.strip('{}"').split('","')


def verdict(**cells: str) -> tuple[list[str], dict[str, str | None]]:
    """Broken rules of one row, and its cells as they are staged."""
    row = validate(weather, frame(cells)).rows.row(0, named=True)
    return names(row["_rules"]), {name: row[name] for name in COLUMNS}


def values(kind: type, texts: Sequence[str]) -> list[Any]:
    """Return the values of texts, None for those that are not of the type."""
    return read(kind, texts)[1].to_list()


def read(kind: type, texts: Sequence[str], **options: Any) -> tuple[pl.Series, pl.Series]:
    """Return cells as they are staged, and their values."""
    column = Column(name="x", type=kind, nullable=True, description="", **options)
    cleaned, typed = read_cells([column], pl.DataFrame({"x": texts}, schema={"x": pl.String}))
    return cleaned["x"], typed["x"]


# Cells


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0.0),
        ("-0", -0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+5", 5.0),
        ("-.5e1", -5.0),
        ("00012", 12.0),
        ("1E1", 10.0),
        ("1e+1", 10.0),
        ("0e-400", 0.0),
        ("5e-324", 5e-324),
        (" 1 ", 1.0),
        ("\u00a01\u3000", 1.0),
        *[(cell, None) for cell in NO_NUMBERS],
        ("1 2", None),
        ("\x1c5", None),
        ("1" * 400, None),
        ("0." + "0" * 400 + "1", None),
    ],
)
def test_numbers(cell: str, value: float | None) -> None:
    rules, staged = verdict(temp_c=cell)
    assert rules == ([] if value is not None else ["temp_c_is_number"])
    assert staged["temp_c"] == (cell.strip() if value is not None else cell)
    assert repr(values(float, [cell])) == repr([value])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("-90", []),
        ("-90.0001", ["temp_c_in_range"]),
        ("60", []),
        ("60.00000000000001", ["temp_c_in_range"]),
        ("1e3", ["temp_c_in_range"]),
        ("", []),
        ("  ", []),
    ],
)
def test_ranges(cell: str, expected: list[str]) -> None:
    assert verdict(temp_c=cell)[0] == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-02-29", []),
        ("2000-02-29", []),
        ("0001-01-01", []),
        (" 2024-01-01\t", []),
        (str(TODAY), []),
        (str(TODAY + dt.timedelta(days=1)), []),
        (str(TODAY + dt.timedelta(days=3)), ["date_not_after_tomorrow"]),
        ("9999-12-31", ["date_not_after_tomorrow"]),
        ("", ["date_required"]),
        (" \u2003 ", ["date_required"]),
        *[(cell, ["date_is_date"]) for cell in NO_DATES],
        ("2024-2-9", []),
        ("2024-02-9T00:00:00.000000000", []),
        ("2024-01-01 00:00", []),
        ("2024-01-01 BC", ["date_is_date"]),
        ("2024-01-01\u200b", ["date_is_date"]),
    ],
)
def test_dates(cell: str, expected: list[str]) -> None:
    assert verdict(date=cell)[0] == expected


@pytest.mark.parametrize(
    ("cell", "staged", "expected"),
    [
        ("\u00a0A\u00a0", "A", []),
        ("A\u00a0B", "A\u00a0B", []),
        ("\u200bA", "\u200bA", []),  # zero width is no space: it stays, and is another station
        ("e\u0301", "é", []),
        ("é", "é", []),
        ("\u1e9b\u0323", "\u1e9b\u0323", []),
        ("007", "007", []),
        ("NA", "NA", []),
        ("null", "null", []),
        ("=1+1", "=1+1", []),
        ("-1", "-1", []),
        ("x" * 64, "x" * 64, []),
        (" " + "x" * 64 + " ", "x" * 64, []),
        ("e\u0301" * 64, "é" * 64, []),  # characters are counted once composed
        ("x" * 65, "x" * 65, ["station_id_str_length"]),
        ("é" * 65, "é" * 65, ["station_id_str_length"]),
        ("", None, ["station_id_required"]),
        ("   ", "   ", ["station_id_required"]),
        ("\u00a0\u3000\t", "\u00a0\u3000\t", ["station_id_required"]),
    ],
)
def test_station_ids(cell: str, staged: str | None, expected: list[str]) -> None:
    rules, cells = verdict(station_id=cell)
    assert rules == expected
    assert cells["station_id"] == staged


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0), ("-7", -7), ("+7", 7), ("007", 7), (str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63)),
        ("1.0", 1), ("33.", 33), ("1E3", 1000), ("-1.20e+01", -12), ("500e-2", 5), ("0e-9", 0), (f"{2**63 - 1}.00", 2**63 - 1),
        *((cell, None) for cell in listed("1.5 1e-3 1e19 1e999 1e99999 . 1_0.0 true 1_0 0x1 １ NA --1")),
        *((cell, None) for cell in (str(2**63), "", "1 1")),
    ],
)  # fmt: skip
def test_whole_numbers(cell: str, value: int | None) -> None:
    assert values(int, [cell]) == [value]


@pytest.mark.parametrize(
    ("cell", "value"),
    [(word, True) for word in ("true", "T", "yes", "Y", "1")]
    + [(word, False) for word in ("FALSE", "f", "No", "n", "0")]
    + [(word, None) for word in ("2", "on", "off", "tr", "wahr", "", "NA", "01")],
)
def test_booleans(cell: str, value: bool | None) -> None:
    assert values(bool, [cell]) == [value]


@pytest.mark.parametrize(
    ("decimals", "cell", "value"),
    [
        (2, ".50", "0.50"), (2, "100.", "100.00"), (2, "1e2", "100.00"), (2, "99.990", "99.99"), (2, "-.5E+1", "-5.00"),
        (2, "00000000000000000001.5", "1.50"), (2, f"{'9' * 16}.990", f"{'9' * 16}.99"), (3, "1E-3", "0.001"),
        (0, "12.0", "12"), (18, ".5", "0.500000000000000000"), (2, "0e-999", "0.00"),
        *[(2, cell, None) for cell in ("99.999", "1E-3", "1e16", ".", "e2", "1_0", "1,5", "nan", "１.0")], (0, "1.5", None),
    ],
)  # fmt: skip
def test_decimals(decimals: int, cell: str, value: str | None) -> None:
    assert read(Decimal, [cell], decimals=decimals)[1].to_list() == [value and Decimal(value)]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("20190508T060000-0400", "2019-05-08T10:00:00"),
        ("20190508T060000.5+01", "2019-05-08T05:00:00.500000"),
        ("20190508t0600z", "2019-05-08T06:00:00"),
        ("20190508T06-04:00", "2019-05-08T10:00:00"),
        ("2019-05-09T06-04:00", "2019-05-09T10:00:00"),
        ("2019-05-09T06Z", "2019-05-09T06:00:00"),
        ("2020-01-20T00:00:00.123456000Z", "2020-01-20T00:00:00.123456"),
        *[
            (cell, None)
            for cell in listed(
                "2020-01-20T00:00:00.1234560001Z 20190508T060000 2019-05-09T06 20190508T06:00:00Z 2019-05-08T060000Z "
                "20190508T24Z 2019-05-08T06:30.5Z 20190508 20190508Z 2019-0508T06Z 20190230T060000Z 2019-5-8T06:00:00Z"
            )
        ],
    ],
)
def test_times(cell: str, value: str | None) -> None:
    assert values(dt.datetime, [cell]) == [value and dt.datetime.fromisoformat(f"{value}+00:00")]


def test_one_verdict_names_every_broken_rule_in_the_order_of_the_declaration() -> None:
    rules, staged = verdict(station_id="", date="2024-02-30", temp_c="61", precip_mm=" -1 ")
    assert rules == ["station_id_required", "date_is_date", "temp_c_in_range", "precip_mm_in_range"]
    assert staged == {"station_id": None, "date": "2024-02-30", "temp_c": "61", "precip_mm": " -1 "}
    reasons = validate(weather, frame({"date": "", "temp_c": "61"})).rows["_reasons"][0]
    assert names(reasons) == ["date is empty", "temp_c is outside -90 to 60 °C"]


# Rules about rows


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"temp_c": "", "precip_mm": ""}, ["has_a_measurement"]),
        ({"temp_c": "", "precip_mm": " "}, ["has_a_measurement"]),
        ({"temp_c": "", "precip_mm": "x"}, ["precip_mm_is_number"]),
        ({"temp_c": "", "precip_mm": "", "date": "x"}, ["date_is_date"]),
        ({"temp_c": "x", "date": "9999-01-01"}, ["temp_c_is_number"]),
        ({"temp_c": "99", "date": "9999-01-01"}, ["temp_c_in_range", "date_not_after_tomorrow"]),
        ({"station_id": "", "date": "9999-01-01"}, ["station_id_required", "date_not_after_tomorrow"]),
        ({"temp_c": "", "precip_mm": "", "date": ""}, ["date_required", "has_a_measurement"]),
    ],
)
def test_a_rule_about_the_row_is_not_applied_where_a_column_could_not_be_read(
    cells: dict[str, str], expected: list[str]
) -> None:
    assert verdict(**cells)[0] == expected


class Warned(RowModel):
    """A model with a rule that only warns."""

    k: str = Field("Key", str_length={"max_value": 9})
    a: int | None = Field("a", ge=0)

    @rule("is odd", column="a", severity="warn")
    def even(col: Any) -> pl.Expr:
        return col("a") % 2 == 0


def test_a_warning_is_counted_and_rejects_nothing() -> None:
    dataset = Dataset("warned", "warned", Warned, ("k",), "Rows that warn")
    results = validate(dataset, pl.DataFrame({"k": ["1", "2", "3", "4"], "a": ["1", "2", "-1", ""]}))
    assert [names(literal) for literal in results.rows["_rules"]] == [[], [], ["a_ge"], []]
    assert {broken.name: fails.to_list() for broken, fails in results.broken} == {
        "a_ge": [False, False, True, False],
        "a_even": [True, False, True, False],
    }


# Blocks


@pytest.mark.parametrize(("bad", "rejected"), [(0, 0), (1, 1), (500, 500), (1000, 1000)])
def test_any_share_of_rejects(bad: int, rejected: int) -> None:
    rows = [{"temp_c": "x"}] * bad + [{}] * (1000 - bad)
    results = validate(weather, frame(*rows))
    assert results.rows.height == 1000
    assert results.rows["_rules"].is_not_null().sum() == rejected
    assert results.rows["_reasons"].is_not_null().sum() == rejected
    assert [broken.name for broken, _ in results.broken] == (["temp_c_is_number"] if bad else [])


def test_no_rows() -> None:
    results = validate(weather, frame())
    assert results.rows.height == 0
    assert results.rows.columns == ["_rules", "_reasons", *COLUMNS]
    assert results.broken == []


def test_other_columns_pass_through() -> None:
    rows = frame({}, {"temp_c": "x"}).with_columns(pl.Series("_line", [2, 3]), pl.Series("note", [" a ", ""]))
    validated = validate(weather, rows).rows
    assert validated["_line"].to_list() == [2, 3]
    assert validated["note"].to_list() == [" a ", ""]


def wide(count: int) -> Dataset:
    """A dataset of so many columns, each a digit."""
    columns = {f"c{n}": Field(f"column {n}", in_range={"min_value": 0, "max_value": 9}) for n in range(count)}
    model = type(
        "Wide", (RowModel,), columns | {"__annotations__": dict.fromkeys(columns, "int"), "__module__": __name__}
    )
    return Dataset("wide", "wide", model, ("c0",), "Many columns")


def test_more_broken_rules_than_bits_of_a_word() -> None:
    dataset = wide(80)
    texts = {"": "required", "x": "is_integer", "10": "in_range", "5": None}
    rng = random.Random(1)  # noqa: S311 - test data, not secrets
    rows = [[rng.choice(list(texts)) for _ in range(80)] for _ in range(200)] + [["5"] * 80, ["x"] * 80]
    validated = validate(dataset, pl.DataFrame(rows, schema=[c.name for c in dataset.columns], orient="row"))
    assert len(validated.broken) == 240
    expected = [[f"c{n}_{texts[cell]}" for n, cell in enumerate(row) if texts[cell]] for row in rows]
    assert [names(literal) for literal in validated.rows["_rules"]] == expected
    sentences = {r.name: r.message for r in dataset.rules}
    assert [names(s) for s in validated.rows["_reasons"]] == [[sentences[name] for name in row] for row in expected]


def test_equal_keys_have_equal_hashes_however_they_are_written() -> None:
    cells = [
        {"station_id": " é"},
        {"station_id": "e\u0301 "},
        {"date": " 2024-01-01 ", "station_id": "é"},
        {"station_id": "e"},
    ]
    keys = validate(weather, frame(*cells)).keys
    assert keys[0] == keys[1] == keys[2] != keys[3]


HOSTILE = ['a"b', "a\\b", "{a,b}", "a,b", "", " ", "NULL", "'", "é😀", "a\nb\tc\rd"]


def test_array_literals_are_read_back_by_postgres(engine: Engine) -> None:
    frames = validate_malformed([Malformed(n, detail, "raw", detail) for n, detail in enumerate(HOSTILE)])
    with engine.connect() as conn:
        for literal, expected in zip(frames["_reasons"], HOSTILE, strict=True):
            assert conn.scalar(text("SELECT cast(:literal AS text[])"), {"literal": literal}) == [expected]


# Agreement with Postgres, Pandera, and the oracle

NUMBERS = st.one_of(
    st.floats().map(repr),
    st.from_regex(r"[ \u00a0]?[+-]{0,2}[0-9]{0,25}[._,]?[0-9]{0,25}([eE][+-]?[0-9]{0,4})?[ \t]?", fullmatch=True),
    st.sampled_from(["1e-400", "5e-324", "1e309", "inf", "nan", "infinity", "0x10", "1_0", "-0", "0e9999999999"]),
    st.text(max_size=6),
)
DATES = st.one_of(
    st.dates().map(str),
    st.from_regex(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", fullmatch=True),
    st.sampled_from(["0000-01-01", "now", "today", "infinity", "2024-02-30", "10000-01-01"]),
    st.text(max_size=10),
)
STORABLE = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
"""The reader rejects rows with NUL, and bytes that are not UTF-8."""
STATIONS = st.one_of(
    st.text(STORABLE, max_size=70), st.sampled_from(["e\u0301", "\u00a0A", "x" * 65, "\u1e9b\u0323", "\x1cA"])
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "station_id": STATIONS,
            "date": st.one_of(st.just("2024-01-01"), st.just(""), DATES),
            "temp_c": st.one_of(st.just(""), st.just("60"), NUMBERS),
            "precip_mm": st.one_of(st.just(""), st.just("2000"), NUMBERS),
        }
    ),
    min_size=1,
    max_size=8,
)
IN_ONE_DATABASE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@IN_ONE_DATABASE
@given(texts=st.lists(NUMBERS.filter(lambda t: "\0" not in t), min_size=1, max_size=60))
@example(texts=["5e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "-0", "5.", ".5", "\u00a01"])
def test_postgres_reads_every_number_as_we_do(engine: Engine, texts: list[str]) -> None:
    same_in_postgres(engine, Double, texts, float)


@IN_ONE_DATABASE
@given(texts=st.lists(st.one_of(DATES, NUMBERS).filter(lambda t: "\0" not in t), min_size=1, max_size=60))
def test_postgres_reads_every_date_as_we_do(engine: Engine, texts: list[str]) -> None:
    same_in_postgres(engine, Date, texts, dt.date)


@IN_ONE_DATABASE
@given(texts=st.lists(st.one_of(st.integers().map(str), NUMBERS).filter(lambda t: "\0" not in t), min_size=1))
def test_postgres_reads_every_whole_number_as_we_do(engine: Engine, texts: list[str]) -> None:
    same_in_postgres(engine, BigInteger, texts, int)


def test_postgres_reads_every_boolean_as_we_do(engine: Engine) -> None:
    texts = ["true", "T", "yes", "Y", "1", "FALSE", "f", "No", "n", "0", " yes "]
    same_in_postgres(engine, Boolean, texts, bool)


def same_in_postgres(engine: Engine, kind: type[TypeEngine[Any]], texts: list[str], python_type: type) -> None:
    """Assert that the server casts each text that we accept, cleaned, to the same value."""
    readable_cells = [(cell, value) for cell, value in zip(*read(python_type, texts), strict=True) if value is not None]
    with engine.connect() as conn:
        cells = (
            func.unnest(cast([cell for cell, _ in readable_cells], ARRAY(Text)))
            .table_valued("cell", with_ordinality="n")
            .render_derived()
        )
        cast_values = conn.execute(select(cast(cells.c.cell, kind)).order_by(cells.c.n)).scalars().all()
    assert list(map(repr, cast_values)) == [repr(value) for _, value in readable_cells]


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
@example(rows=[{"station_id": "\x1c", "date": "9999-12-31", "temp_c": "-0", "precip_mm": "2000.0000000000002"}])
def test_verdicts_are_those_of_the_oracle(rows: list[dict[str, str]]) -> None:
    validated = validate(weather, frame(*rows)).rows
    expected = [Oracle().validate_cells(row)[0] for row in rows]
    assert [frozenset(names(literal)) for literal in validated["_rules"]] == expected


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_pandera_accepts_what_we_accept(rows: list[dict[str, str]]) -> None:
    """A row whose cells could all be read is valid by the schema that the row model stands for, or by neither."""
    schema = pandera_schema(weather)
    validated = validate(weather, frame(*rows)).rows
    for row, literal in zip(rows, validated["_rules"], strict=True):
        cells = frame(row)
        _, typed = read_cells(weather.columns, cells)
        broken = names(literal)
        if any(c.type_rule and c.type_rule.name in broken for c in weather.columns):
            continue  # Pandera sees an empty cell.
        assert accepts(schema, typed) == (not broken)


def accepts(schema: pa.DataFrameSchema, typed: pl.DataFrame) -> bool:
    try:
        schema.validate(typed, lazy=True)
    except pa.errors.SchemaErrors:
        return False
    return True
