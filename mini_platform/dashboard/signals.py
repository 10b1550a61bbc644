"""Signals: the mean of what was sent over time, with its standard deviation as a band."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Double,
    Interval,
    Numeric,
    RowMapping,
    Table,
    func,
    literal,
    select,
)  # fmt: skip

from mini_platform.api.guard import allowed
from mini_platform.api.problems import ProblemError
from mini_platform.api.site import TheSite
from mini_platform.api.values import read
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.rendering import duration, link, moment, render
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.wording import number

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", "signals"))])
POINTS = 300
STEPS = tuple(dt.timedelta(seconds=s) for s in (
    1, 5, 10, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400,
))  # fmt: skip
"""Lengths of a step; the shortest is taken of which the span has at most POINTS."""


@router.get("/signals")
def signals(
    request: Request,
    site: TheSite,
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
) -> Response:
    """The page of the signals."""
    table = dataset_tables(site.dataset("signals")).production
    when = table.c.timestamp_utc
    with site.read() as conn:
        state = reads.state(conn)
        held = conn.execute(select(func.min(when), func.max(when))).one()
        if held[0] is None:
            return render(request, "signals.html", state=state, empty=True)
        first = parse_moment("from", since) or held[0]
        last = parse_moment("to", until) or held[1]
        if first > last:
            raise ProblemError("from is after to; swap them.")
        step = next((s for s in STEPS if (last - first) / s <= POINTS), max(STEPS[-1], (last - first) / POINTS))
        points = _points(conn, table, first, last, step)
        total = _pooled(conn, table, first, last)
    base, params = (
        "/api/datasets/signals/rows",
        [
            ("timestamp_utc__gte", since and first.isoformat()),
            ("timestamp_utc__lte", until and last.isoformat()),
        ],
    )
    return render(
        request, "signals.html",
        state=state, empty=False, first=first, last=last, held=held, total=total, second=dt.timedelta(seconds=1),
        chart=_chart(points, step),
        twins={"csv": link(f"{base}.csv", params), "json": link(f"{base}/", params)},
    )  # fmt: skip


def parse_moment(name: str, value: str | None) -> dt.datetime | None:
    """A moment that a form gave, in UTC unless it says otherwise; None where it was left empty.

    Raises:
        ProblemError: it is no moment.
    """
    try:
        moment: dt.datetime | None = read(dt.datetime, value) if value else None
    except ValueError:
        raise ProblemError(f"{name} is {value!r}; it should be a time, such as 2026-01-31T12:00.") from None
    return moment


def _figures(table: Table) -> list[ColumnElement[Any]]:
    """The numbers of all series as one: mean and population standard deviation pooled by the counts.

    As numerics: a square of a double overflows from 1e155 on, and a sum of large ones may, too.
    """
    n, mean, deviation = (table.c[name].cast(Numeric) for name in ("n", "mean", "std_dev"))
    total = func.sum(n, type_=Numeric)
    middle = func.sum(mean * n, type_=Numeric) / func.nullif(total, 0)
    squares = func.sum((deviation * deviation + mean * mean) * n, type_=Numeric) / func.nullif(total, 0)
    spread = func.sqrt(func.greatest(squares - middle * middle, 0))
    return [
        func.count().label("series"), total.cast(BigInteger).label("n"), middle.cast(Double).label("mean"),
        spread.cast(Double).label("std_dev"), func.min(table.c.min).label("min"), func.max(table.c.max).label("max"),
    ]  # fmt: skip


def _points(
    conn: Connection, table: Table, first: dt.datetime, last: dt.datetime, step: dt.timedelta
) -> Sequence[RowMapping]:
    when = table.c.timestamp_utc
    origin = literal(dt.datetime(2001, 1, 1, tzinfo=dt.UTC), DateTime(timezone=True))  # A Monday, for weeks.
    start = func.date_bin(literal(step, Interval), when, origin, type_=DateTime(timezone=True))
    chosen = select(start.label("start"), *_figures(table)).where(when.between(first, last))
    return list(conn.execute(chosen.group_by(start).order_by(start)).mappings())


def _pooled(conn: Connection, table: Table, first: dt.datetime, last: dt.datetime) -> RowMapping:
    chosen = select(*_figures(table)).where(table.c.timestamp_utc.between(first, last))
    return conn.execute(chosen).mappings().one()


def _chart(points: Sequence[RowMapping], step: dt.timedelta) -> Chart:
    by_start = {point["start"]: point for point in points}
    x = charts.broken(list(by_start), step * 1.6)

    def column(name: str, deviations: int = 0) -> list[float | None]:
        found = (by_start.get(start) for start in x)
        return [None if p is None else p[name] + deviations * p["std_dev"] for p in found]

    series = Series("mean", column("mean"), column("mean", -1), column("mean", 1))
    figure = charts.lines(x, [series, Series("highest", column("max")), Series("lowest", column("min"))], "value")
    for extreme in figure.data[-2:]:
        extreme["line"] = {"color": "var(--strong-line)", "width": 1, "dash": "dot"}
    each = duration(step)
    summary = f"In steps of {each}: the mean, one standard deviation to either side, and the extremes, dotted."
    rows = [
        (moment(p["start"]), p["series"], *(number(p[name], 3) for name in ("mean", "std_dev", "min", "max")))
        for p in points
    ]
    columns = ("From (UTC)", "Series", "Mean", "Standard deviation", "Lowest", "Highest")
    return Chart("signals-chart", "Mean and deviation", summary, charts.as_json(figure), columns, rows)
