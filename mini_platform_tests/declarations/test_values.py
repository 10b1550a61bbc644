"""Values: what a cell, a derived column and a rule come to, whatever the type; and limits by share."""

from __future__ import annotations

import datetime as dt
import operator
import time
import unicodedata
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_platform import Column, Dataset, DeclarationError, Field, RejectLimit, RowModel, rule
from mini_platform.operations.explain import KeyTextError, parse_key
from mini_platform.rows.protection import normalized
from mini_platform.rows.validation import clean, refuse_expressions, validate
from mini_platform.warehouse.quality import measure
from mini_platform_tests.support.trial import Declared


def column(**options: Any) -> Column:
    return Column(**({"name": "x", "type": str, "nullable": True, "description": "x"} | options))


def cleaned(cell: str, **options: Any) -> str | None:
    text: str | None = clean(column(**options), pl.Series("x", [cell], pl.String))[0]
    return text


def dataset(rows: type[RowModel], key: tuple[str, ...] = ("id",), **options: Any) -> Dataset:
    return Dataset(**({"name": "val", "table": "val", "description": "x", "rows": rows, "key": key} | options))


# Cleaning


@pytest.mark.parametrize(
    ("cell", "options", "expected"),
    [
        ("NA", {"null_tokens": ("NA",), "case": "lower"}, None),
        (" NA\u00a0", {"null_tokens": ("NA",), "case": "lower"}, None),
        ("na", {"null_tokens": ("NA",), "case": "lower"}, "na"),  # As written there.
        ("NA", {"null_tokens": ("na",), "case": "lower"}, None),  # What is stored is no token either.
        ("n/a", {"null_tokens": ("n/a",), "case": "upper"}, None),
        ("Red", {"null_tokens": ("NA",), "case": "lower"}, "red"),
        ("na", {"null_tokens": ("NA",)}, "na"),
        ("not known", {"null_tokens": (" not known ",)}, None),
        (" - ", {"null_tokens": (" - ",), "trim": False}, None),
        ("-", {"null_tokens": (" - ",), "trim": False}, "-"),
        (" ", {"trim": False}, " "),
        ("ne\u0301ant", {"null_tokens": ("n\u00e9ant",)}, None),
        ("n\u00e9ant", {"null_tokens": ("ne\u0301ant",)}, None),
        ("n\u00e9ant", {"null_tokens": ("ne\u0301ant",), "type": float}, None),
        *(("NA", {"null_tokens": ("NA",), "type": kind}, None) for kind in (int, float, bool, list[float])),
        ("[ ]", {"type": list[float]}, None),
        ("\u0390", {"case": "upper"}, "\u03aa\u0301"),
        ("\u01f0", {"case": "upper"}, "J\u030c"),
        ("J\u030c", {"case": "lower"}, "\u01f0"),
        ("\u0149", {"case": "upper"}, "\u02bcN"),
        ("\u00df", {"case": "upper"}, "SS"),
        ("\u0130", {"case": "lower"}, "i\u0307"),
    ],
)
def test_blanks_then_normal_form_then_null_tokens_then_case(
    cell: str, options: dict[str, Any], expected: str | None
) -> None:
    assert cleaned(cell, **options) == expected


TEXTS = st.one_of(
    st.text(max_size=6),
    st.text(
        st.sampled_from("aA\u00e9E\u0301\u0390\u01f0J\u030c\u0149\u00df\u0130\u0345\u1fbc \u00a0\u03a3\u212a-"),
        max_size=4,
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    cell=TEXTS,
    case=st.sampled_from((None, "lower", "upper")),
    tokens=st.lists(TEXTS, max_size=2),
    trim=st.booleans(),
)
def test_what_was_cleaned_is_clean(cell: str, case: Any, tokens: list[str], trim: bool) -> None:
    options = {"case": case, "null_tokens": tuple(tokens), "trim": trim}
    once = cleaned(cell, **options)
    if once is None:
        return
    assert cleaned(once, **options) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == (once.strip() if trim and once.isprintable() else once)
    assert normalized(normalized(once)) == normalized(once)
    assert normalized(unicodedata.normalize("NFD", once)) == normalized(once)


def test_a_requested_key_is_cleaned_as_a_cell() -> None:
    class Rows(RowModel):
        id: str = Field("Id", case="upper", null_tokens=("none",))

    declaration = dataset(Rows)
    assert parse_key(declaration, [" \u0390 "]) == {"id": "\u03aa\u0301"}
    for text in ("none", "", " "):
        with pytest.raises(KeyTextError, match="is empty"):
            parse_key(declaration, [text])


def test_a_null_token_that_is_missed_is_shown_as_it_arrived_and_measured_as_nothing(declared: Declared) -> None:
    class Rows(RowModel):
        id: str = Field("Id")
        n: int = Field("N", null_tokens=("NA",))
        day: dt.date = Field("Day", null_tokens=("never",))

    trial = declared(dataset(Rows, reject_limit=RejectLimit(share=1)))
    trial.load("a.csv", "id,n,day\n1,7,2026-01-01\n2, NA,never\n3,  ,2026-01-02\n")
    assert [(reject["line"], reject["column"], reject["value"]) for reject in trial.rejects()] == [
        (3, "n", " NA"), (3, "day", "never"), (4, "n", "  ")
    ]  # fmt: skip
    with trial.platform.engine.connect() as conn:
        figures = measure(conn, trial.dataset, "test").set_index(["table_name", "column_name"])
    assert figures.loc[("staging.val", "n"), ["minimum", "maximum"]].to_list() == ["7", "7"]
    assert figures.loc[("staging.val", "day"), ["minimum", "maximum"]].to_list() == ["2026-01-01", "2026-01-02"]


# Arithmetic


def declared_rows(columns: dict[str, Any], types: dict[str, str], **rules: Any) -> Dataset:
    body = {"id": Field("Id"), **columns, **rules}
    model = type("Rows", (RowModel,), body | {"__annotations__": {"id": "str", **types}, "__module__": __name__})
    return dataset(model)


INPUTS = {
    "x": "Decimal | None", "y": "Decimal | None", "n": "int | None", "f": "float | None", "day": "dt.date | None",
    "at": "dt.datetime | None", "t": "str | None", "l": "list[float] | None",
}  # fmt: skip


def validated(derived: str, cells: list[dict[str, str]], value: Any, **options: Any) -> list[str | None]:
    """A derived column of this type, over cells of the inputs, as it is staged."""
    columns = {name: Field(name) for name in INPUTS} | {"r": Field("r", derived=value, **options)}
    rows = [{"id": str(i)} | dict.fromkeys(INPUTS, "") | row for i, row in enumerate(cells)]
    staged = validate(declared_rows(columns, INPUTS | {"r": derived + " | None"}), pl.DataFrame(rows)).rows
    assert staged["_rules"].null_count() == len(rows)
    return staged["r"].to_list()


MOST, MAX = "9999999999999999.99", str(2**63 - 1)
COMPUTED: list[tuple[str, str, dict[str, Any], Any, list[tuple[dict[str, str], str | None]]]] = [
    (
        "a quotient", "Decimal", {"decimals": 4}, lambda col: col("x") / col("y"),
        [
            ({"x": "1", "y": "3"}, "0.3333"), ({"x": "-1", "y": "3"}, "-0.3333"), ({"x": "1", "y": "200"}, "0.0050"),
            ({"x": "0.01", "y": "200"}, "0.0001"), ({"x": "-0.01", "y": "200"}, "-0.0001"), ({"x": "1", "y": "0"}, None),
            ({"x": MOST, "y": "0.01"}, None), ({"x": MOST, "y": MOST}, "1.0000"), ({"x": "1"}, None),
        ],
    ),
    ("a quotient as float", "float", {}, lambda col: col("x") / col("y"),
     [({"x": "1.11", "y": "1.50"}, "0.74"), ({"x": "0.01", "y": MOST}, "1e-18"), ({"x": "1", "y": "0"}, None)]),
    ("a product", "Decimal", {"decimals": 3}, lambda col: col("x") * col("y"),
     [({"x": "1.11", "y": "1.50"}, "1.665"), ({"x": "-0.05", "y": "0.01"}, "-0.001"), ({"x": MOST, "y": MOST}, None)]),
    ("a product of three", "Decimal", {}, lambda col: col("x") * col("y") * col("x"),
     [({"x": "1.11", "y": "1.50"}, "1.85"), ({"x": MOST, "y": MOST}, None), ({"x": MOST, "y": "0"}, "0.00")]),
    ("a share of a product", "Decimal", {}, lambda col: col("x") / col("y") * 100,
     [({"x": "1", "y": "3"}, "33.33"), ({"x": "1", "y": "8"}, "12.50"), ({"x": MOST, "y": "100"}, MOST)]),
    ("a product that is divided", "Decimal", {"decimals": 4}, lambda col: col("x") * col("y") / col("n"),
     [({"x": "0.07", "y": "0.05", "n": "70"}, "0.0001"),
      ({"x": "99999999999.99", "y": "99999999999.99", "n": MAX}, "1084.2022")]),
    ("a literal", "Decimal", {}, lambda col: col("x") * 1.005, [({"x": "1"}, "1.01"), ({"x": "-1"}, "-1.01")]),
    ("whole numbers beside a literal", "Decimal", {}, lambda col: col("n") * 0.1 + 0.005, [({"n": "3"}, "0.31")]),
    ("a Decimal by a whole number", "Decimal", {}, lambda col: col("x") * col("n"),
     [({"x": "1.01", "n": "3"}, "3.03"), ({"x": MOST, "n": MAX}, None)]),
    ("a quotient of whole numbers", "Decimal", {}, lambda col: col("n") / 40, [({"n": "107"}, "2.68"),
      ({"n": "-107"}, "-2.68")]),
    ("a float as a Decimal", "Decimal", {}, lambda col: col("f"),
     [({"f": "2.675"}, "2.68"), ({"f": "1e17"}, None), ({"f": "1e300"}, None), ({"f": "4.5"}, "4.50"),
      ({"f": "1e-7"}, "0.00")]),
    ("a float divided", "float", {}, lambda col: col("f") / col("n"), [({"f": "1", "n": "0"}, None),
      ({"f": "1", "n": "2"}, "0.5")]),
    ("a square", "int", {}, lambda col: col("n") * col("n"), [({"n": "3"}, "9"), ({"n": MAX}, None),
      ({"n": "3037000500"}, None)]),
    ("a fourth power", "int", {}, lambda col: col("n") * col("n") * col("n") * col("n"),
     [({"n": "-3"}, "81"), ({"n": str(2**33)}, None), ({"n": MAX}, None)]),
    ("a sum of columns", "int", {}, lambda col: pl.sum_horizontal(col("n"), col("n")), [({"n": MAX}, None), ({"n": "2"}, "4")]),
    ("a sum of a list", "int", {}, lambda col: pl.concat_list(col("n"), col("n")).list.sum(),
     [({"n": MAX}, None), ({"n": "-2"}, "-4")]),
    ("half of a whole number", "int", {}, lambda col: col("n") / 2,
     [({"n": "3"}, None), ({"n": "9223372036854775806"}, "4611686018427387903"), ({"n": "-2"}, "-1")]),
    ("a float that is whole", "int", {}, lambda col: col("f") * 2, [({"f": "1.5"}, "3"), ({"f": "0.1"}, None)]),
    ("text that is a number", "int", {}, lambda col: col("t").str.slice(1), [({"t": "a7"}, "7"), ({"t": "ab"}, None)]),
    ("a span in nanoseconds", "int", {},
     lambda col: (col("at") - dt.datetime(2026, 1, 1, tzinfo=dt.UTC)).dt.total_nanoseconds(),
     [({"at": "9999-12-31T00:00:00Z"}, None), ({"at": "2026-01-01T00:00:01Z"}, "1000000000")]),
    ("a literal for every row", "int", {}, lambda col: pl.lit(5), [({}, "5"), ({}, "5")]),
    ("a power", "int", {}, lambda col: col("n") ** 3, [({"n": "-3"}, "-27"), ({"n": str(2**43)}, None)]),
    ("a sum and back", "int", {}, lambda col: col("n") + col("n") - col("n"), [({"n": MAX}, MAX)]),
    ("the negative", "int", {}, lambda col: -col("n"), [({"n": str(-(2**63))}, None), ({"n": "1"}, "-1")]),
    ("the absolute", "int", {}, lambda col: col("n").abs(), [({"n": str(-(2**63))}, None), ({"n": "-1"}, "1")]),
    ("a remainder", "int", {}, lambda col: 7 % col("n"), [({"n": "0"}, None), ({"n": "4"}, "3")]),
    ("a remainder of a Decimal", "Decimal", {}, lambda col: col("x") % col("y"), [({"x": "5", "y": "0"}, None),
      ({"x": "5", "y": "3"}, "2.00")]),
    ("a length less", "int", {}, lambda col: col("t").str.len_chars() - 5, [({"t": "abc"}, "-2")]),
    ("a day as a number", "int", {},
     lambda col: col("day").dt.year() * 10000 + col("day").dt.month() * 100 + col("day").dt.day(),
     [({"day": "2024-12-31"}, "20241231"), ({"day": "9999-12-31"}, "99991231")]),
    ("a chosen one", "int", {}, lambda col: pl.when(col("n") > 0).then(col("n") * 2).otherwise(col("n").abs() - 1),
     [({"n": "4"}, "8"), ({"n": MAX}, None), ({"n": "-4"}, "3")]),
    ("thirty days later", "dt.date", {}, lambda col: col("day") + pl.duration(days=30),
     [({"day": "9999-12-31"}, None), ({"day": "2026-01-01"}, "2026-01-31")]),
    ("days before", "dt.date", {}, lambda col: col("day") - pl.duration(days=col("n")),
     [({"day": "0001-01-01", "n": "1"}, None), ({"day": "2026-01-02", "n": "1"}, "2026-01-01"),
      ({"day": "2026-01-01", "n": "213503982335"}, None)]),
    ("days by a number", "dt.date", {}, lambda col: col("day") + pl.duration(days=1) * col("n"),
     [({"day": "2026-01-01", "n": "-1"}, "2025-12-31"), ({"day": "2026-01-01", "n": MAX}, None)]),
    ("an hour later", "dt.datetime", {}, lambda col: col("at") + pl.duration(hours=1),
     [({"at": "9999-12-31T23:30:00Z"}, None),
      ({"at": "2026-01-01T00:30:00+01:00"}, "2026-01-01T00:30:00.000000+00:00")]),
    ("a time of Tokyo", "dt.datetime", {}, lambda col: col("at").dt.convert_time_zone("Asia/Tokyo"),
     [({"at": "2026-01-01T00:30:00Z"}, "2026-01-01T00:30:00.000000+00:00")]),
    ("a time in nanoseconds", "dt.datetime", {}, lambda col: pl.from_epoch(col("n"), time_unit="ns"),
     [({"n": "1001"}, None), ({"n": "1000"}, "1970-01-01T00:00:00.000001+00:00")]),
    ("a day of the calendar", "dt.date", {}, lambda col: pl.date(col("n"), 2, 29),
     [({"n": "2023"}, None), ({"n": "2024"}, "2024-02-29"), ({"n": "1900"}, None), ({"n": "20240"}, None), ({}, None)]),
    ("text that is cast", "int", {}, lambda col: col("t").cast(pl.Int64), [({"t": "x"}, None), ({"t": "7"}, "7")]),
    ("text that is a day", "dt.date", {}, lambda col: col("t").str.to_date("%d.%m.%Y"), [({"t": "x"}, None),
      ({"t": "01.02.2026"}, "2026-02-01")]),
    ("an item", "float", {}, lambda col: col("l").list.get(1), [({"l": "[1]"}, None), ({"l": "[1,2]"}, "2.0")]),
    ("a list", "list[float]", {}, lambda col: pl.concat_list(col("f"), col("f") * 1e300),
     [({"f": "1e10"}, None), ({"f": "-0.5"}, "{-0.5,-5e+299}"), ({}, None)]),
    ("a truth", "bool", {}, lambda col: col("x") / col("y") > 1, [({"x": "1", "y": "0"}, None),
      ({"x": "2", "y": "1"}, "true")]),
    ("text", "str", {"case": "upper", "null_tokens": ("none",)}, lambda col: pl.concat_str(col("t"), pl.lit(" ")),
     [({"t": "\u0390"}, "\u03aa\u0301"), ({"t": "none"}, None)]),
    ("text of a Decimal", "str", {}, lambda col: pl.format("{} EUR", col("x")), [({"x": "1.5"}, "1.50 EUR")]),
    ("text that is empty", "str", {}, lambda col: col("t").str.replace("a", ""), [({"t": "a"}, None),
      ({"t": "ab"}, "b")]),
    ("text with NUL", "str", {}, lambda col: col("t").str.replace("a", "\0"), [({"t": "a"}, None), ({"t": "b"}, "b")]),
    ("a function of Python", "int", {}, lambda col: col("n").map_elements(lambda n: 6 // n, return_dtype=pl.Int64),
     [({"n": "0"}, None), ({"n": "2"}, "3")]),
    ("what such a function should not return", "int", {}, lambda col: col("n").map_elements(lambda n: n / 2 if n > 2 else n,
     return_dtype=pl.Int64), [({"n": "3"}, None), ({"n": "2"}, "2")]),
    ("a mapping", "int", {}, lambda col: col("t").replace_strict({"a": 1}), [({"t": "b"}, None), ({"t": "a"}, "1")]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
@pytest.mark.parametrize(
    ("kind", "options", "value", "rows"), [case[1:] for case in COMPUTED], ids=[case[0] for case in COMPUTED]
)
def test_a_derived_value_is_exact_or_empty(kind: str, options: dict[str, Any], value: Any, rows: list[Any]) -> None:
    cells, expected = zip(*rows, strict=True)
    assert validated(kind, list(cells), value, **options) == list(expected)
    # A row alone is computed by another way than one beside a row that cannot be computed.
    assert [validated(kind, [row], value, **options)[0] for row in cells] == list(expected)


AMOUNTS = st.decimals(min_value=-(10**6), max_value=10**6, places=2, allow_nan=False)
OPERATIONS = (operator.add, operator.sub, operator.mul, operator.truediv)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=5),
    places=st.integers(0, 6),
    how=st.sampled_from(OPERATIONS),
)
def test_decimals_are_computed_as_fractions_are(pairs: list[tuple[Decimal, Decimal]], places: int, how: Any) -> None:
    def expected(x: Decimal, y: Decimal) -> str | None:
        if how is operator.truediv and not y:
            return None
        value = how(Fraction(x), Fraction(y)) * 10**places
        digits = int(abs(value) + Fraction(1, 2)) * (1 if value > 0 else -1)  # Half away from zero.
        return None if abs(digits) >= 10**18 else f"{Decimal(digits).scaleb(-places):.{places}f}"

    cells = [{"x": str(x), "y": str(y)} for x, y in pairs]
    computed = validated("Decimal", cells, lambda col: how(col("x"), col("y")), decimals=places)
    assert computed == [expected(x, y) for x, y in pairs]


@pytest.mark.parametrize(
    ("holds", "cells", "broken"),
    [
        (lambda col: col("x") == col("y") * col("f"), {"x": "1.5", "y": "1", "f": "1.5"}, False),
        (lambda col: col("x") == col("y") * col("y"), {"x": "0.01", "y": "0.1"}, False),
        (lambda col: col("x") == col("y") * col("y"), {"x": "0.01", "y": "0.11"}, True),
        (lambda col: col("x") == col("y") * 1.1, {"x": "1.21", "y": "1.10"}, False),
        (lambda col: col("n") * col("n") > 0, {"n": "3037000500"}, False),
        (lambda col: col("n") * col("n") < 0, {"n": "3037000500"}, True),
        (lambda col: col("n") - col("t").str.len_chars() > 0, {"n": "1", "t": "abc"}, True),
        (lambda col: col("x") / col("y") > 1, {"x": "1", "y": "0"}, False),
        (lambda col: col("x") * col("x") * col("x") * col("x") < 0, {"x": MOST}, True),
        (lambda col: col("n") * col("n") * col("n") * col("n") < 0, {"n": MAX}, True),
        (lambda col: col("t").cast(pl.Int64) > 0, {"t": "x"}, False),
        (lambda col: col("t").cast(pl.Int64) > 0, {"t": "0"}, True),
        (lambda col: col("t").replace_strict({"a": 1}) > 1, {"t": "b"}, False),
    ],
)
def test_a_rule_is_exact_and_costs_no_more_than_its_row(holds: Any, cells: dict[str, str], broken: bool) -> None:
    columns = {name: Field(name) for name in INPUTS}
    ruled = declared_rows(columns, INPUTS, ruled=rule("is wrong")(holds))
    rows = [{"id": str(i)} | dict.fromkeys(INPUTS, "") | row for i, row in enumerate([{}, cells, {}])]
    results = validate(ruled, pl.DataFrame(rows))
    assert [fails.to_list() for _, fails in results.broken] == ([[False, True, False]] if broken else [])


@pytest.mark.parametrize(
    "divided",
    [
        lambda col: col("x") / col("y"),
        lambda col: col("y").map_elements(lambda y: float(1 / y), return_dtype=pl.Float64),
        lambda col: col("y").map_elements(lambda y: 1 if y else "nothing", return_dtype=pl.Int64),
    ],
)
def test_a_hundred_thousand_values_that_cannot_be_computed_take_no_longer(divided: Any) -> None:
    columns = {"x": Field("x"), "y": Field("y"), "r": Field("r", derived=divided)}
    divided = declared_rows(columns, {"x": "Decimal", "y": "Decimal", "r": "Decimal | None"})
    seconds = []
    for y in ("1", "0"):
        rows = pl.select(pl.int_range(100_000).cast(pl.String).alias("id"), x=pl.lit("1.00"), y=pl.lit(y))
        started = time.process_time()
        assert validate(divided, rows).rows["r"].null_count() == (0 if y == "1" else 100_000)
        seconds.append(time.process_time() - started)
    assert seconds[1] < 5 * seconds[0] + 5


AT = "2025-10-15T10:00:00"
LOCAL: dict[str, str | None] = {
    AT: "08:00:00",
    "2025-10-15 10:00": "08:00:00",
    "20251015T100000": "08:00:00",
    f"{AT}+05:30": "04:30:00",
    f"{AT}.123456": "08:00:00.123456",
    "2025-10-15": "22:00:00",
    "2025-1-5": "23:00:00",
    f"{AT}Z": "10:00:00",
    # Its clock repeats this hour, and skips that one.
    **dict.fromkeys(["2025-10-26T02:30", "2025-03-30T02:30", "20251015", "2025-02-30", f"{AT}.1234567", "now"]),
}
"""Cells, and the times in UTC that they are in Vienna; None if they are none."""


def test_a_time_zone_is_that_of_times_without_an_offset() -> None:
    zoned = declared_rows({"at": Field("At", timezone="Europe/Vienna")}, {"at": "dt.datetime | None"})
    results = validate(zoned, pl.DataFrame([{"id": cell, "at": cell} for cell in LOCAL]))
    (fails,) = [fails for rule, fails in results.broken if rule.name == "at_is_timestamp"]
    staged = results.rows["at"].str.to_datetime(strict=False, time_zone="UTC").dt.time()
    times = [None if failed else str(time) for failed, time in zip(fails, staged, strict=True)]
    assert dict(zip(LOCAL, times, strict=True)) == LOCAL


OF_ITS_ROW: list[Any] = [
    lambda col: pl.concat_list("n", "f").list.eval(pl.element() - pl.element().min()).list.sum().cast(pl.Int64),
    lambda col: col("n").is_in(pl.Series([1, 2])).cast(pl.Int64),
    lambda col: pl.sum_horizontal("n", "f").cast(pl.Int64),
    lambda col: col("n").map_batches(lambda n: n * 2, return_dtype=pl.Int64),
    lambda col: pl.when(col("t").str.to_date("%Y-%m-%d").is_null()).then(pl.lit("a").str.len_chars()),
]
OF_OTHERS: list[tuple[Any, str]] = [
    (lambda col: col("n") - col("n").mean(), r'col\("n"\)\.mean\(\)'),
    *((lambda col, name=name: getattr(col("n"), name)(), rf'col\("n"\)\.{name}\(') for name in (
        "sum", "diff", "shift", "cum_sum", "rank", "is_duplicated", "first", "drop_nulls", "reverse", "shuffle")),
    (lambda col: col("n").forward_fill(), "fill_null_with_strategy"),
    (lambda col: col("n").sort_by("x"), "sort_by"),
    (lambda col: pl.when(col("f") > 0).then(col("n").max().over("t")), r"over\("),
    (lambda col: col("n").filter(col("n") > 1), "filter"),
    (lambda col: col("n").is_in(col("n").implode()).cast(pl.Int64), "implode"),
    (lambda col: pl.row_index() + col("n"), "int_range"),
    (lambda col: col("n") + pl.lit(pl.Series([1, 2])), "Series"),
    (lambda col: col("t").str.to_datetime().dt.year(), "strptime"),  # By a format that the first rows tell.
    (lambda col: col("n").map_batches(lambda n: n - n.min(), return_dtype=pl.Int64), "a Python function"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "by"), [*((value, None) for value in OF_ITS_ROW), *OF_OTHERS])
def test_what_looks_at_other_rows_is_refused(value: Any, by: str | None) -> None:
    inputs = {name: Field(name) for name in INPUTS}
    derived = declared_rows(inputs | {"r": Field("r", derived=value)}, INPUTS | {"r": "int | None"})
    ruled = declared_rows(inputs, INPUTS, ruled=rule("is wrong")(lambda col: value(col) != 0))
    if by is None:
        refuse_expressions(derived)
        refuse_expressions(ruled)
        return
    with pytest.raises(DeclarationError, match=f"dataset val: r is derived from other rows, by .*{by}"):
        validate(derived, pl.DataFrame([{"id": "1"} | dict.fromkeys(INPUTS, "")]))
    with pytest.raises(DeclarationError, match=f"dataset val: the rule .* looks at other rows, by .*{by}"):
        refuse_expressions(ruled)


def test_a_dataset_that_looks_at_other_rows_gets_no_table(declared: Declared) -> None:
    running = Field("r", derived=lambda col: col("n").cum_sum())
    with pytest.raises(DeclarationError, match="r is derived from other rows"):
        declared(declared_rows({"n": Field("n"), "r": running}, {"n": "int", "r": "int"}))


@pytest.mark.parametrize(
    "value", [lambda col: col("nothing") + 1, lambda col: col("day") * col("day"), lambda col: col("x") ** 2]
)
def test_an_expression_that_is_wrong_for_every_row_is_a_sentence(value: Any) -> None:
    wrong = r"(is not an expression over its columns: |names nothing, which \w+ lacks)"
    with pytest.raises(DeclarationError, match=f"dataset val: r {wrong}"):
        validated("int", [{"x": "1"}], value)
    ruled = declared_rows(
        {name: Field(name) for name in INPUTS}, INPUTS, ruled=rule("is wrong")(lambda col: value(col) > 0)
    )
    with pytest.raises(DeclarationError, match=f"dataset val: the rule .* {wrong}"):
        validate(ruled, pl.DataFrame([{"id": "1"} | dict.fromkeys(INPUTS, "")]))


FLOATS = (
    "5e-324",
    "-0.0",
    "1e308",
    "1.7976931348623157e308",
    "2.2250738585072011e-308",
    "0.1",
    "12345678901234567",
    "0.30000000000000004",
)


def test_postgres_reads_what_was_computed_as_the_same(declared: Declared) -> None:
    columns = {
        "f": Field("f"), "x": Field("x", decimals=18), "g": Field("g", derived=lambda col: col("f")), "at": Field("at"),
        "l": Field("l", derived=lambda col: pl.concat_list(col("f"), col("f"))),
        "d": Field("d", decimals=18, derived=lambda col: -col("x")),
        "t": Field("t", derived=lambda col: col("at").dt.replace_time_zone(None)),
    }  # fmt: skip
    types = {
        "f": "float",
        "x": "Decimal",
        "g": "float",
        "at": "dt.datetime",
        "l": "list[float]",
        "d": "Decimal",
        "t": "dt.datetime",
    }
    trial = declared(declared_rows(columns, types))
    small = "0.000000000000000001"
    loaded = trial.load(
        "a.csv", "id,f,x,at\n" + "".join(f"{i},{f},{small},0001-01-01T00:00:00Z\n" for i, f in enumerate(FLOATS))
    )
    assert (loaded.status, loaded.error, loaded.rows_rejected) == ("loaded", None, 0)
    for i, f, g, items, d, at, t in trial.rows("id", "f", "g", "l", "d", "at", "t"):
        assert [repr(f), repr(g), repr(items)] == [
            repr(number := float(FLOATS[int(i)])),
            repr(number),
            repr([number, number]),
        ]
        assert (d, t) == (-Decimal(small), at)


@pytest.mark.parametrize(
    ("cell", "rejected"),
    [
        ("[1e-400]", True),
        ("[1, -1e-400]", True),
        ("[0e-400, 0.0]", False),
        ("[1e309]", True),
        ("[5e-324]", False),
        (f"[0.{'0' * 400}1]", True),
    ],
)
def test_numbers_of_a_list_are_held_to_what_a_number_is(cell: str, rejected: bool) -> None:
    numbers = declared_rows({"l": Field("l")}, {"l": "list[float]"})
    assert validate(numbers, pl.DataFrame({"id": ["1"], "l": [cell]})).rows["_rules"].null_count() == (
        0 if rejected else 1
    )


# Limits


@pytest.mark.parametrize("share", [0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58, 1e-05, 0, 1])
def test_a_limit_by_share_is_compared_exactly(share: float) -> None:
    read = 10_000_000
    limit = RejectLimit(share=share)
    most = round(share * read)
    assert not limit.exceeded(most, read)
    assert limit.exceeded(most + 1, read)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (RejectLimit(share=0.29, min_rows=0), "29%"),
        (RejectLimit(share=1e-05, min_rows=1), "0.001%"),
        (RejectLimit(share=0.123456789, min_rows=2), "12.3456789% of at least 2 rows"),
        (RejectLimit(share=0.5), "50% of at least 100 rows"),
        (RejectLimit(share=0.5, rows=1000), "1,000 rows or 50% of at least 100 rows"),
        (RejectLimit(rows=1, min_rows=5), "1 row"),
        (RejectLimit(), "no limit"),
    ],
)
def test_a_limit_is_shown_as_it_was_declared(limit: RejectLimit, words: str) -> None:
    assert str(limit) == words
