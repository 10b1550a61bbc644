"""Exactness of a computed figure, where Postgres itself would rather end the query."""

from __future__ import annotations

import sys

import pytest
from sqlalchemy import Double, Engine, Numeric, column, func, select, values

from mini_platform.warehouse.exactness import as_double
from mini_platform.warehouse.page_rows import _aggregate_floats

LARGEST, SMALLEST = sys.float_info.max, 5e-324


@pytest.mark.parametrize(
    ("floats", "mean"),
    [
        ((LARGEST, LARGEST), LARGEST),
        ((-LARGEST, -LARGEST, -LARGEST), -LARGEST),
        ((LARGEST, -LARGEST), 0.0),
        ((SMALLEST, 0.0, 0.0), 0.0),
        ((SMALLEST, SMALLEST, SMALLEST), SMALLEST),
        ((-SMALLEST, 0.0, 0.0, None), 0.0),
        ((1.5, None, 2.5), 2.0),
        ((None,), None),
    ],
)
def test_a_mean_of_floats_is_one(engine: Engine, floats: tuple[float | None, ...], mean: float | None) -> None:
    rows = values(column("x", Double), name="rows").data([(value,) for value in floats])
    with engine.connect() as conn:
        as_numeric = select(as_double(func.avg(rows.c.x.cast(Double).cast(Numeric)))).select_from(rows)
        assert conn.scalar(as_numeric) == mean
        assert conn.scalar(select(_aggregate_floats("avg", rows.c.x.cast(Double))).select_from(rows)) == mean
