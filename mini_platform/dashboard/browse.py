"""Browsing: the rows of a dataset with search, facets and filters; and the page of any dataset, whatever it is about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from statistics import median
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection, Row, RowMapping, func, select

from mini_platform.api import relations
from mini_platform.api.guard import allowed
from mini_platform.api.relations import Relation
from mini_platform.api.site import Site, TheSite
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.listing import Listing, filtered, listing
from mini_platform.dashboard.rendering import TableData, number
from mini_platform.dashboard.rendering import render as render_page
from mini_platform.dataset import Aggregate, Dataset, View
from mini_platform.warehouse.tables import dataset_tables

router = APIRouter(include_in_schema=False)
FACETS, VALUES = 3, 8
FACET_ROWS = 1_000_000
"""Rows up to which the values of a column are counted for a page (0.2 s)."""
MOST_DISTINCT = 1000
CHART_POINTS = 300
USUAL = 6
"""Points that are so many times as far apart as usual have a gap between them."""
CHART_ROWS = 300_000
"""Rows up to which what is computed is drawn on the generic page, which draws all of it at once."""


@dataclass(frozen=True)
class Facet:
    """The most frequent values of a column, each with its rows."""

    column: str
    values: Sequence[Row[tuple[str, int]]]


@router.get("/customers", dependencies=[Depends(allowed("read", "customers"))])
def customers(request: Request, site: TheSite) -> Response:
    """Browse the customers, as they are: who sees this page may read them."""
    return _browse(request, site, "customers", clear=True)


@router.get("/records", dependencies=[Depends(allowed("read", "records"))])
def records(request: Request, site: TheSite) -> Response:
    """Browse the records."""
    return _browse(request, site, "records")


def _browse(request: Request, site: Site, name: str, *, clear: bool = False) -> Response:
    if chosen := filtered(request):
        return RedirectResponse(chosen, HTTPStatus.SEE_OTHER)
    dataset = site.dataset(name)
    with site.read(personal=dataset.is_personal) as conn:
        state = reads.state(conn)
        listed, facets = _rows(request, conn, dataset, relations.rows(dataset, clear=clear))
        total = reads.rows_of(conn, dataset_tables(dataset).production)
    return render_page(
        request, "browse.html", dataset=dataset, state=state, listing=listed, facets=facets, total=total, clear=clear
    )


@router.get("/datasets/{dataset}", dependencies=[Depends(allowed("read"))])
def dataset_page(request: Request, site: TheSite, dataset: str) -> Response:
    """The page of any dataset: what is declared, what is computed, the rows and the last files."""
    if address := filtered(request):
        return RedirectResponse(address, HTTPStatus.SEE_OTHER)
    chosen = site.dataset(dataset)
    with site.read(personal=chosen.is_personal) as conn:
        listed, facets = _rows(request, conn, chosen, relations.rows(chosen))
        given: dict[str, Any] = {
            "state": reads.state(conn),
            "total": reads.rows_of(conn, dataset_tables(chosen).production),
            "charts": [chart for item in chosen.computed if (chart := _chart(conn, chosen, item))],
            "files": reads.last_files(conn, chosen, 5),
            "quality": reads.latest_quality(conn, dataset_tables(chosen).production.fullname),
        }
    tables = {"columns": _columns(chosen, given["quality"]), "computed": _computed(chosen)}
    return render_page(request, "dataset.html", tables=tables, dataset=chosen, listing=listed, facets=facets, **given)


def _columns(dataset: Dataset, quality: Mapping[str, RowMapping]) -> TableData:
    """What is declared of each column, and how it was measured last."""
    names = ("column", "type", "unit", "key", "description", "personal", "rules", "null_rate", "distinct_values")
    rows = [
        (
            column.name, getattr(column.type, "__name__", str(column.type)), column.unit, column.name in dataset.key,
            column.description, column.personal, [rule.name for rule in dataset.rules if rule.column == column.name],
            *(quality[column.name][figure] if column.name in quality else None for figure in names[-2:]),
        )
        for column in dataset.columns
    ]  # fmt: skip
    return TableData(names, rows)


def _computed(dataset: Dataset) -> TableData:
    """The aggregates and views."""
    return TableData(("name", "description"), [(item.name, item.description) for item in dataset.computed])


def _rows(request: Request, conn: Connection, dataset: Dataset, relation: Relation) -> tuple[Listing, list[Facet]]:
    listed = listing(request, conn, relation, f"/api/datasets/{dataset.name}/rows", hidden=("_extra", "_file_id"))
    return listed, _facets(conn, dataset, relation)


def _facets(conn: Connection, dataset: Dataset, relation: Relation) -> list[Facet]:
    """The columns of text with the fewest different values, by the last quality report."""
    measured = reads.latest_quality(conn, dataset_tables(dataset).production.fullname)
    personal = {column.name for column in dataset.columns if column.personal}
    known = [
        (measured[name]["distinct_values"], name)
        for name, column in relation.columns.items()
        if name in measured and column.type is str and not column.personal and name not in personal
        # A column that has few values, each on many rows: what else it holds could not be chosen from.
        and 2 <= measured[name]["distinct_values"] <= min(MOST_DISTINCT, measured[name]["total_rows"] / 3)
        and measured[name]["total_rows"] <= FACET_ROWS
    ]  # fmt: skip
    return [Facet(name, _values(conn, relation, name)) for _, name in sorted(known)[:FACETS]]


def _values(conn: Connection, relation: Relation, name: str) -> Sequence[Row[tuple[str, int]]]:
    element = relation.columns[name].element
    counted = select(element.label("value"), func.count().label("rows")).select_from(relation.source)
    counted = counted.where(element.is_not(None)).group_by(element).order_by(func.count().desc(), element)
    return conn.execute(counted.limit(VALUES)).all()


def _chart(conn: Connection, dataset: Dataset, item: Aggregate | View) -> Chart | None:
    """An aggregate by its declared chart: a line over days, bars over anything else."""
    tables = dataset_tables(dataset)
    table = (tables.aggregates | tables.views)[item.name]
    read = [tables.aggregates.get(name, tables.production) for name in item.reads or ("",)]
    read = read if isinstance(item, View) else [table]
    if any(reads.rows_of(conn, one).count > CHART_ROWS for one in read):
        return None
    x, y = (table.c[name] for name in item.chart)
    if x.info.get("personal"):
        return None
    means = select(x.label("x"), func.avg(y).label("y")).where(x.is_not(None)).group_by(x).order_by(x)
    steps = means.subquery()
    place = func.ntile(CHART_POINTS).over(order_by=steps.c.x)
    numbered = select(steps.c.x, steps.c.y, place.label("place")).subquery()
    points = (
        select(func.min(numbered.c.x), func.avg(numbered.c.y)).group_by(numbered.c.place).order_by(numbered.c.place)
    )
    rows = [(first, None if value is None else float(value)) for first, value in conn.execute(points)]
    unit = (item.columns[y.name][1:] or (y.name,))[0]
    names = [first for first, _ in rows]
    if rows and not isinstance(names[0], dt.date):
        figure = charts.bars([str(name)[:30] for name in names], [Series(y.name, [value for _, value in rows])], unit)
        figure.update_xaxes(type="category", nticks=12, title={"text": x.name, "standoff": 4})
    else:
        found = dict(rows)
        names = charts.broken(names, USUAL * median(b - a for a, b in pairwise(names))) if len(names) > 2 else names
        figure = charts.lines(names, [Series(y.name, [found.get(name) for name in names])], unit)
    about = item.columns[y.name][0]
    table_rows = [(name, number(value)) for name, value in rows]
    return Chart(
        f"chart-{item.name}", item.name, f"{item.description} Here: {about[:1].lower()}{about[1:]}.",
        charts.as_json(figure), (x.name, y.name), table_rows,
    )  # fmt: skip
