"""Weather: one row per station and day, with temperature and precipitation."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Date, Double, FromClause, Integer, Select, func, select

from mini_platform import Aggregate, Dataset, Field, Measure, OverTime, Page, RejectLimit, RowModel, rule

if TYPE_CHECKING:
    import polars as pl

WMO = "just outside the records in the WMO World Weather and Climate Extremes Archive"


class Measurement(RowModel):
    """A day's weather at one station."""

    station_id: str = Field("Identifier of the station", str_length={"min_value": 1, "max_value": 64})
    date: dt.date = Field("Day of the observation, in the station's own time")
    temp_c: float | None = Field(
        "Mean air temperature",
        unit="°C",
        source=f"{WMO}: -89.2 at Vostok, 1983; 56.7 at Furnace Creek, 1913",
        in_range={"min_value": -90, "max_value": 60},
    )
    precip_mm: float | None = Field(
        "Precipitation",
        unit="mm/day",
        source=f"{WMO}: 1825 in 24 hours at Foc-Foc, La Reunion, 1966",
        in_range={"min_value": 0, "max_value": 2000},
    )

    @rule("is after tomorrow", column="date")
    def not_after_tomorrow(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Reject dates after tomorrow (UTC): tomorrow has already begun in some time zones, later dates are errors."""
        return col("date") <= dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)

    @rule("temp_c and precip_mm are both empty")
    def has_a_measurement(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Reject rows without any measurement."""
        return col("temp_c").is_not_null() | col("precip_mm").is_not_null()


def daily_metrics(m: FromClause) -> Select[Any]:
    """Weather by day, over all stations."""
    return select(
        m.c.date,
        func.count().label("stations"),  # The key is station and day: each station has at most one row per day.
        func.count().label("rows"),
        func.avg(m.c.temp_c, type_=Double).label("avg_temp_c"),
        func.min(m.c.temp_c).label("min_temp_c"),
        func.max(m.c.temp_c).label("max_temp_c"),
        func.sum(m.c.precip_mm).label("total_precip_mm"),
        func.max(m.c.precip_mm).label("max_precip_mm"),
        func.count(m.c.precip_mm).label("precip_stations"),
    ).group_by(m.c.date)


def summary(m: FromClause) -> Select[Any]:
    """Weather by station, over all days."""
    days = func.max(m.c.date, type_=Date) - func.min(m.c.date, type_=Date) + 1
    return select(
        m.c.station_id,
        func.count().label("rows"),
        func.min(m.c.date).label("first_date"),
        func.max(m.c.date).label("last_date"),
        (days - func.count()).cast(Integer).label("missing_days"),
        func.avg(m.c.temp_c, type_=Double).label("avg_temp_c"),
        func.min(m.c.temp_c).label("min_temp_c"),
        func.max(m.c.temp_c).label("max_temp_c"),
        func.sum(m.c.precip_mm).label("total_precip_mm"),
        func.count().filter(m.c.precip_mm >= 1).label("wet_days"),
    ).group_by(m.c.station_id)


RAINY, MISSING = 0.4, 0.005
"""Share of generated days with rain, and share of days on which a value is missing, for each of the two values."""
STATIONS, DAYS = 3, 20_000
"""Generated stations that report side by side, and days on which they do; then rows of as many other stations follow."""
LATITUDES = (60, 48, 36, 24, 12, 0, -12, -24, -36, -48)
"""Latitudes of the generated stations, in turn."""
MID_JANUARY = dt.date(2000, 1, 15).toordinal()


@lru_cache(maxsize=1)
def _day(date: dt.date) -> tuple[str, float]:
    """Return a date as text, and its season: -1 in mid-January, 1 in mid-July."""
    return date.isoformat(), -math.cos(2 * math.pi * (date.toordinal() - MID_JANUARY) / 365.2425)


def realistic(rng: random.Random, row: int, last_day: dt.date) -> Mapping[str, str]:
    """Return a plausible day of one of three stations, the newest first, with seasons, and rain on four days in ten."""
    group, row = divmod(row, STATIONS * DAYS)
    day, station = divmod(row, STATIONS)
    station += group * STATIONS
    date, season = _day(last_day - dt.timedelta(days=day))
    latitude = LATITUDES[station % len(LATITUDES)]
    temperature = 28 - latitude**2 / 160 + season * latitude / 5 + rng.gauss(0, 2)
    draw = rng.random()
    rain = rng.expovariate(1 / 6) if draw < RAINY else 0.0
    return {
        "station_id": f"ST{station:03d}",
        "date": date,
        "temp_c": f"{temperature:z.1f}" if draw < 1 - MISSING else "",
        "precip_mm": f"{rain:.1f}" if not 1 - 2 * MISSING < draw < 1 - MISSING else "",
    }


def rain(d: FromClause) -> ColumnElement[Any]:
    """Return the precipitation of a day: the mean over the stations that measured it."""
    return d.c.total_precip_mm / func.nullif(d.c.precip_stations, 0)


page = Page(
    of="daily_metrics",
    compare="station_id",
    measures={
        "mean_temp_c": Measure("avg(avg_temp_c)", "Mean temperature", digits=1),
        "lowest_temp_c": Measure("min(min_temp_c)", "Lowest", digits=1),
        "highest_temp_c": Measure("max(max_temp_c)", "Highest", digits=1),
        "total_precip_mm": Measure(
            lambda d: func.sum(rain(d), type_=Double),
            "Precipitation",
            "mm",
            0,
            ("over all days", "mean over stations, summed"),
        ),
        "wet_days": Measure(lambda d: func.count().filter(rain(d) >= 1), note="at least 1 mm"),
        "measurements": Measure("sum(rows)", note="{coverage}"),
    },
    figures=("mean_temp_c", "lowest_temp_c", "highest_temp_c", "total_precip_mm", "wet_days", "measurements"),
    charts={
        "weather-chart": OverTime(
            lines=("mean_temp_c",),
            band=("lowest_temp_c", "highest_temp_c"),
            bars=("total_precip_mm",),
            title="Temperature and precipitation",
            caption="mean temperature and sum of precipitation",
        )
    },
)

dataset = Dataset(
    name="weather",
    table="measurements",
    description="Daily temperature and precipitation by station.",
    owners=["team:weather"],
    rows=Measurement,
    key=("station_id", "date"),
    indexes=("date",),
    warn_limit=RejectLimit(rows=0),
    reject_limit=RejectLimit(share=0.5),
    realistic=realistic,
    aggregates=(
        Aggregate(
            daily_metrics,
            key=("date",),
            chart=("date", "avg_temp_c"),
            columns={
                "date": ("Day",),
                "stations": ("Number of stations that reported",),
                "rows": ("Number of measurements on the day",),
                "avg_temp_c": ("Mean of the stations' temperatures", "°C"),
                "min_temp_c": ("Lowest temperature of a station", "°C"),
                "max_temp_c": ("Highest temperature of a station", "°C"),
                "total_precip_mm": ("Precipitation summed over the stations", "mm"),
                "max_precip_mm": ("Highest precipitation of a station", "mm"),
                "precip_stations": ("Number of stations that measured precipitation",),
            },
        ),
        Aggregate(
            summary,
            key=("station_id",),
            chart=("station_id", "avg_temp_c"),
            columns={
                "station_id": ("Identifier of the station",),
                "rows": ("Number of measurements of the station",),
                "first_date": ("First day with a measurement",),
                "last_date": ("Last day with a measurement",),
                "missing_days": ("Days without a measurement between the first and the last one", "days"),
                "avg_temp_c": ("Mean temperature", "°C"),
                "min_temp_c": ("Lowest temperature", "°C"),
                "max_temp_c": ("Highest temperature", "°C"),
                "total_precip_mm": ("Precipitation over all days", "mm"),
                "wet_days": ("Days with at least 1 mm of precipitation", "days"),
            },
        ),
    ),
    page=page,
)
