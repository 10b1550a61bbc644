"""Quality: each column of each dataset, now and over time, with the rules it is held to and the rows that break them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection, RowMapping, select

from mini_platform.api import relations
from mini_platform.api.guard import allowed, may
from mini_platform.api.problems import NotFoundError, ProblemError
from mini_platform.api.site import TheSite
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.listing import Listing, listing
from mini_platform.dashboard.rendering import moment, percent, render
from mini_platform.dataset import Dataset, Rule
from mini_platform.warehouse.tables import dataset_tables, quality_report

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read"))])
RUNS = 200
"""Measurements that are drawn."""
LOADS = 30


@router.get("/quality")
def quality(request: Request, site: TheSite, dataset: str | None = None, column: str | None = None) -> HTMLResponse:
    """The quality of a dataset, column by column; of a column over time, with its rejects."""
    readable = [one for one in site.datasets.values() if may(request, "read", one)]
    chosen = site.dataset(dataset) if dataset else next(iter(readable), None)
    if chosen is None or chosen not in readable:
        raise ProblemError("This key may not read this dataset.", HTTPStatus.FORBIDDEN)
    if column and column not in {c.name for c in chosen.columns}:
        names = ", ".join(c.name for c in chosen.columns)
        raise NotFoundError(f"{chosen.name} has no column {column!r}. The columns are: {names}.")
    tables = dataset_tables(chosen)
    with site.read() as conn:
        state = reads.state(conn)
        production = reads.latest_quality(conn, tables.production.fullname)
        history = _history(conn, chosen, column)
        counts = _counts(conn, chosen)
        rejects = _rejects(request, conn, chosen, column) if column else None
    return render(
        request, "quality.html",
        dataset=chosen, datasets=readable, column=column, production=production, counts=counts, rejects=rejects,
        trends=_trends(history, tables.production.fullname), state=state, loads=LOADS,
        chart=_chart(history, chosen, column, tables.staging.fullname) if column else None,
        rules=[rule for rule in chosen.rules if not column or rule.column == column],
        broken_names=set(+counts),
    )  # fmt: skip


def _history(conn: Connection, dataset: Dataset, column: str | None) -> Sequence[RowMapping]:
    """Measurements, the oldest first; each once, though several runs may have reported it."""
    q = quality_report
    chosen = select(q.c.table_name, q.c.column_name, q.c.measured_at, q.c.null_rate, q.c.total_rows, q.c.out_of_range)
    chosen = chosen.distinct(q.c.table_name, q.c.column_name, q.c.measured_at).where(q.c.dataset == dataset.name)
    if column:
        chosen = chosen.where(q.c.column_name == column)
    last = select(q.c.measured_at).where(q.c.dataset == dataset.name).distinct().order_by(q.c.measured_at.desc())
    chosen = chosen.where(q.c.measured_at.in_(last.limit(RUNS)))
    return list(conn.execute(chosen.order_by(q.c.table_name, q.c.column_name, q.c.measured_at)).mappings())


def _trends(history: Sequence[RowMapping], table: str) -> dict[str, list[float]]:
    """The share of empty cells of each column over time."""
    trends: dict[str, list[float]] = {}
    for row in history:
        if row["table_name"] == table:
            trends.setdefault(row["column_name"], []).append(row["null_rate"])
    return trends


def _counts(conn: Connection, dataset: Dataset) -> Counter[str]:
    """Rule -> rows that broke it in the last files."""
    counts: Counter[str] = Counter()
    for file in reads.last_files(conn, dataset, LOADS):
        counts.update(file["rule_counts"] or {})
    return counts


def _rejects(request: Request, conn: Connection, dataset: Dataset, column: str) -> Listing:
    return listing(
        request, conn, relations.rejects(dataset), f"/api/datasets/{dataset.name}/rejects", {"column": column},
        own=("dataset", "column"),
    )  # fmt: skip


def _chart(history: Sequence[RowMapping], dataset: Dataset, column: str, staging: str) -> Chart:
    """Rows that broke each rule of a column, load by load."""
    rules: list[Rule] = [rule for rule in dataset.rules if rule.column == column]
    measured = [row for row in history if row["table_name"] == staging]
    x: list[dt.datetime] = [row["measured_at"] for row in measured]
    series = [Series(rule.sentence, [row["out_of_range"].get(rule.name, 0) for row in measured]) for rule in rules]
    names = [f"{at:%Y-%m-%d %H:%M:%S}" for at in x]
    figure = charts.bars(names, series, "rows", stacked=True)
    figure.update_xaxes(type="category", nticks=8)
    broken = sum(sum(one.values) for one in series)
    summary = f"Over {len(x)} measurements, rows broke rules of {column} {broken:,} times."
    table = [
        (moment(row["measured_at"]), row["total_rows"], percent(row["null_rate"]), *(s.values[i] for s in series))
        for i, row in enumerate(measured)
    ]
    columns = ("Measured (UTC)", "Rows read", "Empty", *(rule.sentence for rule in rules))
    return Chart("column-chart", f"{column} over time", summary, charts.as_json(figure), columns, table)
