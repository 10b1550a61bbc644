"""Arguments of a column or a dataset beyond type and checks, by themselves and through the real pipeline."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from mini_platform import Column, Csv, Dataset, Field, Json, KeepHighest, RowModel
from mini_platform.definitions import build_defs
from mini_platform.platform import Platform
from mini_platform.rows.validation import PLAIN_EMAIL, clean, read_cells, validate
from mini_platform.warehouse.quarantine import rejects
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables, sql_type
from mini_platform_tests.support.databases import Pipeline

UTC = dt.UTC
FIRST, LAST = dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)  # noqa: DTZ001 - hypothesis adds the zone
OFFSETS = [dt.timezone(dt.timedelta(minutes=minutes)) for minutes in (-720, -210, 0, 1, 330, 840)]
IN_ONE_DATABASE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def column(kind: Any, **options: Any) -> Column:
    return Column(**vars(Field("", **options)), name="x", type=kind, nullable=True)


def values(declared: Column, *texts: str) -> list[Any]:
    """Return the values that texts are read as; None if they are not of the type."""
    return read_cells([declared], pl.DataFrame({"x": texts}))[1]["x"].to_list()


# Types


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", Decimal("0.00")),
        ("12.5", Decimal("12.50")),
        ("+0.05", Decimal("0.05")),
        ("-3", Decimal("-3.00")),
        (" 007.10 ", Decimal("7.10")),
        ("9999999999999999.99", Decimal("9999999999999999.99")),
        *[(bad, None) for bad in ("12.505", "1e-3", "1,5", "10000000000000000", ".", "$5", "nan", "1.2.3", "１")],
    ],
)
def test_decimals(cell: str, value: Decimal | None) -> None:
    assert values(column(Decimal), cell) == [value]


def test_decimals_of_other_sizes() -> None:
    assert values(column(Decimal, decimals=0), "12", "12.5") == [Decimal(12), None]
    assert values(column(Decimal, decimals=4), "0.1234", "0.12345") == [Decimal("0.1234"), None]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("2024-02-29T12:30:45Z", dt.datetime(2024, 2, 29, 12, 30, 45, tzinfo=UTC)),
        ("2024-02-29 12:30:45+02:00", dt.datetime(2024, 2, 29, 10, 30, 45, tzinfo=UTC)),
        ("2024-02-29t12:30-0530", dt.datetime(2024, 2, 29, 18, 0, tzinfo=UTC)),
        ("2024-02-29T12:30:45.5+01", dt.datetime(2024, 2, 29, 11, 30, 45, 500_000, tzinfo=UTC)),
        ("2024-02-29T12:30:45,123456000z", dt.datetime(2024, 2, 29, 12, 30, 45, 123_456, tzinfo=UTC)),
        *[
            (bad, None)
            for bad in (
                "2024-02-29T12:30:45",
                "2024-02-29T12:30:45.1234567Z",
                "2024-02-29T12:30:45.123456001+01:00",
                "2023-02-29T12:30:45Z",
                "2024-02-29",
                "2024-02-29T24:00:00Z",
                "2024-02-29T23:59:60Z",
                "0000-01-01T00:00:00Z",
                "0001-01-01T00:00:00+05:00",
                "9999-12-31T23:59:59-05:00",
                "2024-02-29T12:30:45+15:00",
                "now",
                "infinity",
                "1709209845",
            )
        ],
    ],
)
def test_timestamps(cell: str, value: dt.datetime | None) -> None:
    assert values(column(dt.datetime), cell) == [value]


def test_timestamps_of_several_forms_in_one_column() -> None:
    cells = (
        "2024-02-29T12:30:45Z",
        "",
        "2024-02-29T23:59:60Z",
        "2024-02-29T12:30:45.5+01",
        "0000-01-01T00:00:00Z",
        "now",
    )
    each = [value for cell in cells for value in values(column(dt.datetime), cell)]
    assert values(column(dt.datetime), *cells) == each
    assert [value is None for value in each] == [False, True, True, False, True, True]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("[1, 2.5,-3e2]", [1.0, 2.5, -300.0]),
        ("[0]", [0.0]),
        ("[]", None),
        *[
            (bad, None)
            for bad in ("[1,]", "[true]", '["1"]', "[NaN]", "[1e309]", "[null]", "1", "[[1]]", "[1 2]", "[+1]")
        ],
    ],
)
def test_lists(cell: str, value: list[float] | None) -> None:
    assert values(column(list[float]), cell) == [value]


class Kinds(RowModel):
    """A column of every type."""

    k: int = Field("Key")
    amount: Decimal | None = Field("Amount", decimals=3)
    at: dt.datetime | None = Field("Time")
    numbers: list[float] | None = Field("Numbers")


KINDS = Dataset("kinds", "kinds", Kinds, ("k",), "Every type", sources=(Csv(delimiter=";"),))


@IN_ONE_DATABASE
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "amount": st.one_of(st.just(""), st.decimals(-(10**14), 10**14, places=3).map(str)),
                "at": st.one_of(
                    st.just(""),
                    st.datetimes(FIRST, LAST, timezones=st.sampled_from(OFFSETS)).map(dt.datetime.isoformat),
                ),
                "numbers": st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(repr),
            }
        ),
        min_size=1,
    )
)
@example(rows=[{"amount": "-0.001", "at": "0001-01-01T00:00:00Z", "numbers": "[5e-324, 1.7976931348623157e308]"}])
def test_postgres_reads_what_is_staged_as_we_do(engine: Engine, rows: list[dict[str, str]]) -> None:
    validated = validate(KINDS, pl.DataFrame([{"k": str(n), **row} for n, row in enumerate(rows)]))
    for name, declared in ((c.name, c) for c in KINDS.columns):
        raw = [str(n) if name == "k" else row[name] for n, row in enumerate(rows)]
        read = read_cells([declared], pl.DataFrame({name: raw}))[1][name].to_list()
        kind = sql_type(declared).compile(engine.dialect)
        statement = text(  # the type is our own word
            f"SELECT cast(u AS {kind}) FROM unnest(cast(:t AS text[])) WITH ORDINALITY AS x(u, n) ORDER BY n"  # noqa: S608
        )
        with engine.connect() as conn:
            conn.execute(text("SET timezone = 'UTC'"))
            staged = [None if v is None else cell for v, cell in zip(read, validated.rows[name], strict=True)]
            assert conn.execute(statement, {"t": staged}).scalars().all() == read


# Options of a column


@pytest.mark.parametrize(
    ("options", "cells", "cleaned"),
    [
        ({}, [" a ", "", " "], ["a", None, None]),
        ({"trim": False}, [" a ", "", " "], [" a ", None, " "]),
        ({"case": "lower"}, ["ÄB", "x"], ["äb", "x"]),
        ({"case": "upper"}, ["straße"], ["STRASSE"]),
        ({"null_tokens": ("NA", "-")}, ["NA", " - ", "na", "N"], [None, None, "na", "N"]),
    ],
)
def test_how_text_is_cleaned(options: dict[str, Any], cells: list[str], cleaned: list[str | None]) -> None:
    assert clean(column(str, **options), pl.Series("x", cells, pl.String)).to_list() == cleaned


@pytest.mark.parametrize(
    ("address", "is_valid"),
    [
        ("a@b.org", True),
        ("first.last+tag@sub.example.co.uk", True),
        ("jörg@müller.de", True),
        ("a@test.test", True),
        ("x@host.local", True),
        ("a@localhost", False),
        ("a@host.invalid", False),
        *[
            (bad, False)
            for bad in ("a", "a@", "@b.org", "a@b", "a b@c.org", "a..b@c.org", ".a@c.org", "a@-c.org", "a@c.org.")
        ],
    ],
)
def test_emails(address: str, is_valid: bool) -> None:
    class Person(RowModel):
        email: str = Field("Address", email=True)

    people = Dataset("people", "people", Person, ("email",), "People")
    assert [r.name for r, _ in validate(people, pl.DataFrame({"email": [address]})).broken] == (
        [] if is_valid else ["email_email"]
    )


@settings(max_examples=500, deadline=None)
@given(address=st.from_regex(PLAIN_EMAIL, fullmatch=True))
def test_what_is_taken_without_asking_would_be_taken(address: str) -> None:
    try:
        validate_email(address.removesuffix("\n"), check_deliverability=False)
    except EmailNotValidError as error:
        pytest.fail(f"{address}: {error}")


# A whole dataset


class Order(RowModel):
    """Uses everything that a column may say."""

    origin: str = Field("Where it comes from", system="source")
    number: str = Field("Number", aliases=("order_no", "order_header_no"), case="upper")
    price: Decimal = Field("Price", unit="EUR", gt=0)
    pieces: int = Field("Pieces", ge=1, le=100, warn="le")
    note: str | None = Field("Note", optional=True, null_tokens="-")
    discounts: list[float] | None = Field("Discounts", optional=True, stored=False)
    total: Decimal = Field("Total", derived=lambda col: col("price") * col("pieces"))
    discount: float | None = Field("Mean discount", derived=lambda col: col("discounts").list.mean())
    file: str = Field("File", system="file")
    line: int = Field("Line", system="line")
    created: dt.datetime = Field("First written", system="first_loaded")
    changed: dt.datetime = Field("Last changed", system="last_loaded")


ORDERS = Dataset(
    "orders_of_all_kinds", "orders_of_all_kinds", Order, ("origin", "number"), "Orders", sources=(Csv(), Json())
)


@pytest.fixture
def loaded(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Loads texts as files under their names; returns production, without the columns of the platform."""

    def run(dataset: Dataset, **texts: str) -> list[dict[str, Any]]:
        create_all(platform.engine, [dataset])
        for name, content in texts.items():
            path = tmp_path / name.replace("_", ".")
            path.write_text(content)
            pipeline(dataset, path)
        production = dataset_tables(dataset).production
        with platform.engine.connect() as conn:
            return [dict(row) for row in conn.execute(production.select().order_by(*production.primary_key)).mappings()]

    return run


def test_csv_and_json_fill_the_same_columns(platform: Platform, loaded: Callable[..., list[dict[str, Any]]]) -> None:
    rows = loaded(
        ORDERS,
        a_csv="order_no,price,pieces\na1,9.99,3\nb2,1.005,1\n",
        b_json='[{"order": {"header": {"no": "a1"}}, "price": 2, "pieces": 101, "note": "-", "discounts": [1, 2]}]',
    )
    shown = [
        {
            name: row[name]
            for name in ("origin", "number", "price", "pieces", "note", "total", "discount", "file", "line")
        }
        for row in rows
    ]
    assert shown == [
        {
            "origin": "csv",
            "number": "A1",
            "price": Decimal("9.99"),
            "pieces": 3,
            "note": None,
            "total": Decimal("29.97"),
            "discount": None,
            "file": "a.csv",
            "line": 2,
        },
        {
            "origin": "json",
            "number": "A1",
            "price": Decimal("2.00"),
            "pieces": 101,
            "note": None,
            "total": Decimal("202.00"),
            "discount": 1.5,
            "file": "b.json",
            "line": 1,
        },
    ]
    assert "discounts" not in rows[0]
    with platform.engine.connect() as conn:
        rejected = [(r["line"], r["column"], r["value"], r["rule"]) for r in rejects(conn, ORDERS)]
    assert rejected == [(3, "price", "1.005", "price_is_decimal")]


def test_created_never_moves_and_changed_moves_only_with_the_row(loaded: Callable[..., list[dict[str, Any]]]) -> None:
    header = "order_no,price,pieces\n"
    first = loaded(ORDERS, a_csv=header + "a,1,1\nb,1,1\n")
    second = loaded(ORDERS, b_csv=header + "a,1,1\nb,2,1\n")
    assert [row["created"] for row in second] == [row["created"] for row in first]
    assert second[0]["changed"] == first[0]["changed"]
    assert second[0]["file"] == "a.csv"
    assert second[1]["changed"] > first[1]["changed"]
    assert second[1]["file"] == "b.csv"


class Reading(RowModel):
    """A key and a value."""

    k: str = Field("Key", str_length={"max_value": 9})
    v: int | None = Field("Value")


READINGS = Dataset("readings", "readings", Reading, ("k",), "Readings")


@pytest.mark.parametrize(
    ("duplicates", "winner", "rejected"),
    [("last", 2, []), ("first", 1, []), (KeepHighest("v"), 9, []), ("reject", None, [2, 3, 4])],
)
def test_which_of_several_rows_of_a_key_counts(
    platform: Platform,
    loaded: Callable[..., list[dict[str, Any]]],
    duplicates: Any,
    winner: int | None,
    rejected: list[int],
) -> None:
    dataset = replace(READINGS, duplicates=duplicates)
    rows = loaded(dataset, a_csv="k,v\na,1\na,9\na,2\nb,5\nc,\nd,\n")
    assert {row["k"]: row["v"] for row in rows} == ({"a": winner} if winner else {}) | {"b": 5, "c": None, "d": None}
    with platform.engine.connect() as conn:
        assert [r["line"] for r in rejects(conn, dataset) if r["rule"] == "key_once"] == rejected
        counts = conn.execute(
            text("SELECT rows_read, rows_inserted, rows_superseded, rows_rejected FROM ops.files")
        ).one()
    assert counts == ((6, 3, 0, 3) if rejected else (6, 4, 2, 0))


@pytest.mark.parametrize(
    ("unexpected_columns", "extra", "error"),
    [
        ("keep", {"w": " x "}, None),
        ("ignore", None, None),
        ("refuse", None, "The file has columns that the dataset does not declare: w."),
    ],
)
def test_columns_that_nobody_declared(
    platform: Platform,
    loaded: Callable[..., list[dict[str, Any]]],
    unexpected_columns: Any,
    extra: Any,
    error: str | None,
) -> None:
    rows = loaded(replace(READINGS, unexpected_columns=unexpected_columns), a_csv="k,v,w\na,1, x \n")
    assert [row.get("_extra") for row in rows] == ([] if error else [extra])
    with platform.engine.connect() as conn:
        assert conn.execute(text("SELECT error FROM ops.files")).scalars().all() == [error]


def test_contradictions_of_a_dataset() -> None:
    class Secret(RowModel):
        k: str = Field("Key")
        who: str = Field("Person", personal="hash")

    with pytest.raises(ValueError, match="cannot be kept: they would be stored unprotected"):
        Dataset("secret", "secret", Secret, ("k",), "Secrets")
    with pytest.raises(ValueError, match="not stored"):
        Dataset("orders", "orders", Order, ("number",), "Orders", indexes=("discounts",))
    with pytest.raises(ValueError, match="needs a key"):
        replace(READINGS, key=())
    with pytest.raises(ValueError, match="duplicates names"):
        replace(READINGS, duplicates=KeepHighest("nothing"))


@pytest.mark.parametrize("name", ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"])
def test_names_that_postgres_keeps_for_itself(name: str, engine: Engine) -> None:
    rows = type("Rows", (RowModel,), {"__annotations__": {name: "str"}, name: Field("x")})
    with pytest.raises(ValueError, match=f"dataset taken: every table of Postgres has a column called {name} of"):
        Dataset("taken", "taken", rows, (name,), "Taken")
    with engine.connect() as conn, pytest.raises(ProgrammingError, match="system column"):
        conn.execute(text(f"CREATE TEMPORARY TABLE taken ({name} text)"))


def test_names_that_postgres_would_cut() -> None:
    def rows(name: str) -> type[RowModel]:
        return type("Rows", (RowModel,), {"__annotations__": {name: "str"}, name: Field("x")})

    assert Dataset("d", "t" * 63, rows("k" * 63), ("k" * 63,), "Long").columns[0].name == "k" * 63
    for overrides in (
        {"rows": rows("k" * 64), "key": ("k" * 64,)},
        {"rows": rows("ä" * 32), "key": ("ä" * 32,)},
        {"table": "t" * 64},
    ):
        with pytest.raises(ValueError, match=r"dataset d: Postgres takes names of up to 63 bytes: (k|ä|t)+ is longer"):
            Dataset(**({"name": "d", "table": "t", "rows": rows("k"), "key": ("k",), "description": "x"} | overrides))


def test_the_contract_is_compared_with_the_declaration_and_with_the_last_load(
    defs_of: Callable[[Dataset], Any],
) -> None:
    class Point(RowModel):
        k: str = Field("Key", str_length={"max_value": 9})
        v: int | None = Field("Value", optional=True)

    dataset = Dataset("points_of_contract", "points_of_contract", Point, ("k",), "Points")
    assert contract(defs_of(dataset), "k,v,w\na,1,2\n") == {
        "k": ("yes", 1, "", ""),
        "v": ("yes", 1, "", ""),
        "w": ("no", 1, "", ""),
    }
    assert contract(defs_of(dataset), "k,x\nb,2\n") == {
        "k": ("yes", 1, 1, ""),
        "v": ("yes", 0, 1, "gone"),
        "x": ("no", 1, 0, "new"),
        "w": ("no", 0, 1, "gone"),
    }


def test_rows_that_fail_in_different_ways_are_shown_in_one_table(defs_of: Callable[[Dataset], Any]) -> None:
    class Point(RowModel):
        k: str = Field("Key", str_length={"max_value": 9})
        v: int = Field("Value")

    dataset = Dataset("points_that_fail", "points_that_fail", Point, ("k",), "Points", sources=(Json(),))
    lines = '{"k": "a", "v": 1}\n' * 9 + '{"k": "b"}\n{"v": 2}\n{"k": "c", "v": "x"}\n{\n'
    result = defs_of(dataset)(lines, "jsonl")
    assert result.success
    shown = {check.check_name: check.metadata.get("failing_rows") for check in result.get_asset_check_evaluations()}
    assert [dict(r.data) for r in shown["v_required"].records] == [{"file": "0.jsonl", "line": 10}]
    assert [dict(r.data) for r in shown["k_required"].records] == [{"file": "0.jsonl", "line": 11}]
    assert [dict(r.data) for r in shown["row_is_json"].records] == [{"file": "0.jsonl", "line": 13, "raw": "{"}]


@pytest.fixture
def defs_of(data: Path) -> Callable[[Dataset], Callable[..., dg.ExecuteInProcessResult]]:
    """Return, for a dataset, a function that materializes everything after a file of this text was dropped."""

    def of(dataset: Dataset) -> Callable[..., dg.ExecuteInProcessResult]:
        def run(content: str, suffix: str = "csv") -> dg.ExecuteInProcessResult:
            create_all(Platform().engine, [dataset])
            folder = data / dataset.name
            folder.mkdir(exist_ok=True)
            path = folder / f"{len(list(folder.iterdir()))}.{suffix}"
            path.write_text(content)
            os.utime(path, (1, 1))
            job = build_defs({dataset.name: dataset}).resolve_job_def(f"load_{dataset.name}")
            return job.execute_in_process()

        return run

    return of


def contract(run: Callable[[str], dg.ExecuteInProcessResult], content: str) -> dict[str, tuple[Any, ...]]:
    """Column -> declared, files that have it, files of the last load that had it, change."""
    checks = {check.check_name: check for check in run(content).get_asset_check_evaluations()}
    records = [record.data for record in checks["columns_as_declared"].metadata["contract"].records]
    return {str(r["column"]): (r["declared"], r["files"], r["files_of_last_load"], r["change"]) for r in records}
