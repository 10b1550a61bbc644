"""Signals: statistics of series of numbers, one row per series and time."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Double, FromClause, Numeric, func

from mini_platform import Dataset, Field, Json, Measure, OverTime, Page, RowModel

if TYPE_CHECKING:
    import polars as pl

    Col = Callable[[str], pl.Expr]


TINY = sys.float_info.min
"""Smallest normal float: smaller deviations have lost digits, and dividing by them is not exact."""


def _exact_mean(series: pl.Series) -> float | None:
    """Return the mean of a series; None for an empty one.

    `fsum` rounds once, and the quotient once more: what remains of the exact sum corrects it. The result is the nearest float,
    unless the exact mean lies next to the middle between two. Sums that overflow are fractions.
    """
    numbers = series.to_list()
    if not numbers:
        return None
    try:
        mean = math.fsum(numbers) / len(numbers)
        return mean + math.fsum([*numbers, *repeat(-mean, len(numbers))]) / len(numbers)
    except OverflowError:
        return float(sum(map(Fraction, numbers)) / len(numbers))


def _mean(col: Col) -> pl.Expr:
    """Return the mean of a series."""
    import polars as pl

    return col("data").map_elements(_exact_mean, return_dtype=pl.Float64)


def _std_dev(col: Col) -> pl.Expr:
    """Return the population standard deviation of a series.

    It is computed from the deviations from the mean, scaled to at most 1, so that neither an offset nor the magnitude of the
    values costs digits. `list.std` of the original values is wrong in the eighth digit for noise of 0.001 on an offset of 1e9.
    """
    import polars as pl

    value = pl.element()
    deviation = value - (value / value.len()).sum()
    scale = deviation.abs().max()
    spread = pl.when(scale < TINY).then(0.0).otherwise(scale * (deviation / scale).std(ddof=0))
    return col("data").list.agg(spread)


class Signal(RowModel):
    """A series in a JSON payload: `{"time_stamp": "2024-01-01T12:00:00+01:00", "data": [1, 2.5, 3]}`."""

    timestamp_utc: dt.datetime = Field("Time of the series", aliases=("time_stamp",))
    data: list[float] = Field("Numbers of the series; only their statistics are stored", stored=False)
    mean: float = Field("Arithmetic mean of the series", derived=_mean)
    std_dev: float = Field("Population standard deviation, 0 for a single value", derived=_std_dev)
    n: int = Field("Number of values in the series", derived=lambda col: col("data").list.len())
    min: float = Field("Lowest value of the series", derived=lambda col: col("data").list.min())
    max: float = Field("Highest value of the series", derived=lambda col: col("data").list.max())


SERIES_PER_DAY, NUMBERS = 288, 100
"""Generated series of a day, which are five minutes apart, and numbers of each."""


def realistic(rng: random.Random, row: int, last_day: dt.date) -> Mapping[str, str]:
    """Return a series of a daily wave with noise, in one of three time zones, the newest first."""
    zone = dt.timezone(dt.timedelta(hours=row % 3))
    midnight = dt.datetime.combine(last_day + dt.timedelta(days=1), dt.time(), dt.UTC)
    time = midnight - dt.timedelta(days=1) / SERIES_PER_DAY * (row + 1)
    phases = (2 * math.pi * (i / NUMBERS - row - 1) / SERIES_PER_DAY for i in range(NUMBERS))
    data = [round(20 + 5 * math.sin(phase) + rng.gauss(0, 0.3), 3) for phase in phases]
    return {"timestamp_utc": time.astimezone(zone).isoformat(), "data": json.dumps(data)}


def _pooled_mean(s: FromClause) -> ColumnElement[Any]:
    """Return the mean of the numbers of all series. Computed as numeric: a sum of large doubles may overflow."""
    n, mean = s.c.n.cast(Numeric), s.c.mean.cast(Numeric)
    return (func.sum(mean * n, type_=Numeric) / func.nullif(func.sum(n, type_=Numeric), 0)).cast(Double)


def _pooled_deviation(s: FromClause) -> ColumnElement[Any]:
    """Return the population standard deviation of the numbers of all series.

    A series contributes its sum of squares, n * (deviation² + mean²); from their total, the square of the common mean is
    subtracted. Computed as numeric: a square of a double overflows from 1e155 on.
    """
    n, mean, deviation = (s.c[name].cast(Numeric) for name in ("n", "mean", "std_dev"))
    total = func.nullif(func.sum(n, type_=Numeric), 0)
    pooled_mean = func.sum(mean * n, type_=Numeric) / total
    squares = func.sum((deviation * deviation + mean * mean) * n, type_=Numeric) / total
    return func.sqrt(func.greatest(squares - pooled_mean * pooled_mean, 0), type_=Numeric).cast(Double)


page = Page(
    measures={
        "series": "count()",
        "numbers": "sum(n)",
        "mean": Measure(_pooled_mean, digits=3),
        "std_dev": Measure(_pooled_deviation, "Standard deviation", digits=3),
        "min": Measure("min(min)", "Lowest", digits=3),
        "max": Measure("max(max)", "Highest", digits=3),
    },
    figures=("series", "numbers", "mean", "std_dev", "min", "max"),
    charts={
        "signals-chart": OverTime(
            lines=("mean",),
            band="std_dev",
            dotted=("max", "min"),
            table=("series", "mean", "std_dev", "min", "max"),
            title="Mean and deviation",
            caption="the mean, one standard deviation to either side, and the extremes, dotted",
        )
    },
)

dataset = Dataset(
    name="signals",
    table="signal_stats",
    description="Statistics of series of numbers, by time.",
    owners=["team:signals"],
    rows=Signal,
    key=("timestamp_utc",),
    sources=(Json(),),
    realistic=realistic,
    page=page,
)
