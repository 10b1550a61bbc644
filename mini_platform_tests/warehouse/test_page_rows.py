"""Queries of a declared page: figures that follow from those of days are those of the rows."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from sqlalchemy import Engine, insert, select

from mini_platform import Dataset, Field, Measure, OverTime, Page, RowModel
from mini_platform.warehouse.page_rows import PageRows
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables


class Sale(RowModel):
    number: int = Field("Number")
    day: dt.date = Field("Day")
    pieces: int | None = Field("Pieces")
    price: Decimal | None = Field("Price", decimals=2)
    weight: float | None = Field("Weight")


FORMULAS = [
    *("count()", "count(price)", "sum(pieces)", "sum(price)", "sum(weight)", "sum(price) / count()"),
    *(f"{function}({column})" for function in ("min", "max") for column in ("day", "pieces", "price", "weight")),
]
SUMMED = {f"m{place}": formula for place, formula in enumerate(FORMULAS)}
SALES = Dataset(
    "shop_sales", "shop_sales", Sale, ("number",), "Sales.",
    page=Page(
        measures=SUMMED | {"mean": "avg(price)", "days": "distinct(day)", "each": Measure("sum(price)", each="pieces")},
        figures=("m0",), charts={"over-time": OverTime(bars=("m0",))},
    ),
)  # fmt: skip
DAYS = [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]
ROWS = [
    (1, DAYS[0], 2**62, Decimal("0.10"), 1e308),
    (2, DAYS[0], 2**62, None, 1e308),
    (3, DAYS[1], 2**62, Decimal("-7.00"), None),
    (4, DAYS[1], None, Decimal("9.99"), -0.5),
]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[3:], []], ids=["rows", "one", "empty cells", "none"])
def test_figures_of_days_amount_to_those_of_rows(engine: Engine, rows: list[tuple[object, ...]]) -> None:
    create_all(engine, [SALES])
    tables = dataset_tables(SALES)
    assert SALES.page is not None
    page = PageRows(SALES, SALES.page, tables)
    assert [name for name in SALES.page.measures if page.is_summed_up(name)] == list(SUMMED)
    names = ("number", "day", "pieces", "price", "weight")
    with engine.begin() as conn:
        written = {"_file_id": 1, "_loaded_at": dt.datetime.now(dt.UTC), "_line": 1}
        stored = [
            dict(zip(names, row, strict=True)) | {k: v for k, v in written.items() if k in tables.production.c}
            for row in rows
        ]
        if stored:
            conn.execute(insert(tables.production), stored)
        direct = page.rows({})
        days = page.summed_up(conn.execute(page.days_of(direct)).all(), direct)
        from_days, expected = (
            page.read(conn.execute(select(*page.measures(of, SUMMED)).select_from(of)).mappings().one(), SUMMED)
            for of in (days, direct)
        )
    assert {SUMMED[name]: value for name, value in from_days.items()} == {SUMMED[n]: v for n, v in expected.items()}
