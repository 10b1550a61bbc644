"""Readings: the energy that electricity meters counted, a row per meter and day. An example to read, change and delete."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import FromClause, Select, func, select

from mini_platform import Aggregate, Dataset, Field, OverTime, Page, RowModel, rule

if TYPE_CHECKING:
    import polars as pl


class Reading(RowModel):
    """A valid row: the columns of a file by their names, each with its type and its checks."""

    meter: str = Field("Number of the meter", str_matches="^[A-Z][0-9]{3}$")
    day: dt.date = Field("Day of the reading")
    kwh: float = Field("Energy that was used on the day", unit="kWh", in_range={"min_value": 0, "max_value": 500})

    @rule("is after today", column="day")
    def not_in_the_future(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Reject days that have not begun."""
        return col("day") <= dt.datetime.now(dt.UTC).date()


def daily_energy(readings: FromClause) -> Select[Any]:
    """Energy by day, over all meters."""
    return select(
        readings.c.day, func.count().label("meters"), func.sum(readings.c.kwh).label("kwh")
    ).group_by(readings.c.day)  # fmt: skip


def realistic(rng: random.Random, row: int, last_day: dt.date) -> Mapping[str, str]:
    """Return a plausible row for the sample: its number and the last day in, texts out."""
    day, meter = divmod(row, 5)
    date = last_day - dt.timedelta(days=day)
    use = (8 + 2 * meter) * (0.8 if date.weekday() < 5 else 1.2) * rng.uniform(0.8, 1.2)
    return {"meter": f"M{meter:03}", "day": date.isoformat(), "kwh": f"{use:.2f}"}


dataset = Dataset(
    name="readings",
    table="readings",
    description="Daily readings of electricity meters.",
    rows=Reading,
    key=("meter", "day"),
    aggregates=(
        Aggregate(
            daily_energy,
            key=("day",),
            chart=("day", "kwh"),
            columns={
                "day": ("Day",),
                "meters": ("Number of meters that were read",),
                "kwh": ("Energy that was used", "kWh"),
            },
        ),
    ),
    page=Page(
        of="daily_energy",
        measures={"energy": "sum(kwh)"},
        figures=("energy",),
        charts={"energy": OverTime(lines=("energy",))},
    ),
    realistic=realistic,
)
