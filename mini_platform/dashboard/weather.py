"""Weather: temperature and precipitation of all stations, or of a few of them side by side, over a span of days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection, Date, Double, FromClause, Row, RowMapping, Table, func, select

from mini_platform.api.guard import allowed
from mini_platform.api.query import any_of
from mini_platform.api.site import Site, TheSite
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.rendering import TableData, day, link, render
from mini_platform.dashboard.spans import Span, parse_day, span
from mini_platform.warehouse.tables import DatasetTables, dataset_tables
from mini_platform.wording import number

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", "weather"))])
MOST_STATIONS = 5
SUGGESTED = 500
"""Stations that the picker offers; others are found by typing their name."""


@router.get("/weather")
def weather(
    request: Request,
    site: TheSite,
    station: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
    by: str | None = None,
) -> Response:
    """The page of the weather."""
    tables = _tables(site)
    # No name has U+0000, which Postgres does not take.
    wanted = list(dict.fromkeys(name for words in station if (name := words.replace("\0", "").strip())))
    with site.read() as conn:
        state = reads.state(conn)
        known = _stations(conn, tables.aggregates["summary"], None, SUGGESTED)
        chosen, unknown, near = _choose(conn, tables.aggregates["summary"], wanted)
        held = _held(conn, tables, chosen)
        if held is None:
            return render(request, "weather.html", state=state, empty=True)
        shown = span(parse_day("from", since), parse_day("to", until), by or None, held)
        places: list[str | None] = [*chosen] or [None]
        points = {name: _points(conn, tables, name, shown) for name in places}
        figures = [_figures(conn, tables, name, shown) for name in places]
    return render(
        request, "weather.html",
        state=state, empty=False, chosen=chosen, known=known, unknown=unknown, near=near, span=shown, held=held, by=by,
        most=MOST_STATIONS, dropped=wanted[MOST_STATIONS:], chart=_chart(points, shown), figures=figures,
        twins=_twins(chosen, shown), tables={"stations": _compared(figures)},
    )  # fmt: skip


def _tables(site: Site) -> DatasetTables:
    return dataset_tables(site.dataset("weather"))


def _stations(conn: Connection, summary: Table, like: str | None, limit: int) -> Sequence[Row[Any]]:
    chosen = select(summary.c.station_id, summary.c.rows).order_by(summary.c.station_id).limit(limit)
    if like is not None:
        chosen = chosen.where(summary.c.station_id.icontains(like, autoescape=True))
    return conn.execute(chosen).all()


def _choose(conn: Connection, summary: Table, wanted: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The stations of these names, the names that none has, and stations that have such a text in their name."""
    found = set(conn.scalars(select(summary.c.station_id).where(summary.c.station_id.in_(wanted))))
    unknown = [name for name in wanted if name not in found]
    near = [row.station_id for name in unknown for row in _stations(conn, summary, name, 12)]
    if len(unknown) == 1 and len(near) == 1:
        return list(dict.fromkeys(near[0] if name in unknown else name for name in wanted))[:MOST_STATIONS], [], []
    return [name for name in wanted if name in found][:MOST_STATIONS], unknown, near


def _held(conn: Connection, tables: DatasetTables, stations: list[str]) -> tuple[dt.date, dt.date] | None:
    """The first and the last day with a measurement; None where there is none."""
    if stations:
        summary = tables.aggregates["summary"]
        chosen = select(func.min(summary.c.first_date, type_=Date), func.max(summary.c.last_date, type_=Date))
        first, last = conn.execute(chosen.where(summary.c.station_id.in_(stations))).one()
    else:
        daily = tables.aggregates["daily_metrics"]
        first, last = conn.execute(select(func.min(daily.c.date), func.max(daily.c.date))).one()
    return (first, last) if first else None


def _source(tables: DatasetTables, station: str | None, shown: Span) -> FromClause:
    """Days of a station, or of the mean of all, with the same columns."""
    if station is None:
        d = tables.aggregates["daily_metrics"]
        # Precipitation of a place: the mean over the stations that measured it on the day.
        columns = (
            d.c.date, d.c.avg_temp_c.label("temp"), d.c.min_temp_c.label("low"), d.c.max_temp_c.label("high"),
            (d.c.total_precip_mm / func.nullif(d.c.precip_stations, 0)).label("rain"), d.c.rows.label("rows"),
        )  # fmt: skip
        chosen = select(*columns).where(d.c.date.between(shown.first, shown.last))
    else:
        m = tables.production
        columns = (
            m.c.date, m.c.temp_c.label("temp"), m.c.temp_c.label("low"), m.c.temp_c.label("high"),
            m.c.precip_mm.label("rain"), func.sign(1).label("rows"),
        )  # fmt: skip
        chosen = select(*columns).where(m.c.station_id == station, m.c.date.between(shown.first, shown.last))
    return chosen.subquery()


def _points(conn: Connection, tables: DatasetTables, station: str | None, shown: Span) -> dict[dt.date, RowMapping]:
    days = _source(tables, station, shown)
    start = func.date_trunc(shown.step, days.c.date).cast(Date)
    chosen = select(
        start.label("start"),
        func.avg(days.c.temp, type_=Double).label("temp"),
        func.min(days.c.low).label("low"),
        func.max(days.c.high).label("high"),
        func.sum(days.c.rain).label("rain"),
    ).group_by(start)
    return {row["start"]: row for row in conn.execute(chosen.order_by(start)).mappings()}


def _figures(conn: Connection, tables: DatasetTables, station: str | None, shown: Span) -> dict[str, Any]:
    """What a span amounts to at a station, or over all."""
    days = _source(tables, station, shown)
    chosen = select(
        func.sum(days.c.rows).label("rows"),
        func.count().label("days"),
        func.avg(days.c.temp, type_=Double).label("mean"),
        func.min(days.c.low).label("lowest"),
        func.max(days.c.high).label("highest"),
        func.sum(days.c.rain).label("rain"),
        func.count().filter(days.c.rain >= 1).label("wet"),
    )
    row = dict(conn.execute(chosen).mappings().one())
    return row | {"station": station, "missing": shown.days - row["days"]}


def _compared(figures: Sequence[dict[str, Any]]) -> TableData:
    """The stations that are shown, side by side."""
    named = {
        "station_id": "station", "mean_temp_c": "mean", "lowest_temp_c": "lowest", "highest_temp_c": "highest",
        "total_precip_mm": "rain", "wet_days": "wet", "days": "days",
    }  # fmt: skip
    return TableData(list(named), [[of[name] for name in named.values()] for of in figures])


def _chart(points: dict[str | None, dict[dt.date, RowMapping]], shown: Span) -> Chart:
    steps = sorted({start for one in points.values() for start in one})
    x = charts.broken(steps, shown.gap)
    stations = list(points)
    one = len(stations) == 1

    def column(name: str | None, figure: str) -> list[Any]:
        return [points[name][start][figure] if start in points[name] else None for start in x]

    temperature = [
        Series(
            name or "mean of all stations",
            column(name, "temp"),
            column(name, "low") if one else None,
            column(name, "high") if one else None,
        )
        for name in stations
    ]
    rain = [Series(name or "precipitation", column(name, "rain")) for name in stations]
    who = ", ".join(name or "All stations" for name in stations)
    summary = (
        f"{who}, {day(shown.first)} to {day(shown.last)}, by {shown.step}; mean temperature and sum of precipitation"
    )
    band = f"; the band is the lowest to the highest of the {shown.step}" if one and _has_band(points) else ""
    columns = [shown.step.capitalize()]
    for name in stations:
        prefix = "" if one else f"{name} "
        columns += [f"{prefix}°C", f"{prefix}mm"]
    values = zip(*(v for t, r in zip(temperature, rain, strict=True) for v in (t.values, r.values)), strict=True)
    known = set(steps)
    rows = [
        (start, *(None if v is None else number(v, 1) for v in row))
        for start, row in zip(x, values, strict=True)
        if start in known
    ]
    pale = [start in known and not shown.is_whole(start) for start in x]
    if any(pale):
        band += f"; pale bars are sums of a {shown.step} of which not all days are shown"
    figure = charts.as_json(charts.weather(x, temperature, rain, pale))
    return Chart(
        "weather-chart", "Temperature and precipitation", f"{summary}{band}.", figure, columns, rows, tall=True
    )


def _has_band(points: dict[str | None, dict[dt.date, RowMapping]]) -> bool:
    (only,) = points.values()
    return any(point["low"] != point["high"] for point in only.values())


def _twins(stations: list[str], shown: Span) -> dict[str, str]:
    """Where the data behind the page is: rows of the stations, or the days of all."""
    chosen: list[tuple[str, object]] = [("date__gte", shown.first), ("date__lte", shown.last)]
    base = "/api/datasets/weather/analytics/daily_metrics"
    if stations:
        chosen += any_of("station_id", stations)
        base = "/api/datasets/weather/rows"
    return {"csv": link(f"{base}.csv", chosen), "json": link(f"{base}/", chosen)}
