"""Browsing: the rows of a dataset with search, facets and filters, and the generic page of any dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from statistics import median
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Double,
    FromClause,
    Numeric,
    Row,
    RowMapping,
    Select,
    case,
    func,
    select,
)  # fmt: skip

from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.rows.wording import number, plain, plural
from mini_platform.warehouse import page_rows
from mini_platform.warehouse.exactness import as_double
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.api import relations
from mini_platform.web.api.personal import InClear, reveals
from mini_platform.web.api.relations import Relation
from mini_platform.web.auth.guard import allowed
from mini_platform.web.pages import charts, reads
from mini_platform.web.pages.charts import Chart, Series
from mini_platform.web.pages.listing import Listing, filtered, listing
from mini_platform.web.pages.rendering import TableData
from mini_platform.web.pages.rendering import render as render_page
from mini_platform.web.site import Site, SiteDep

router = APIRouter(include_in_schema=False)
FACETS, VALUES = 3, 8
FACET_ROWS = 1_000_000
"""Maximum rows for which the values of a column are counted for a page (0.2 s)."""
MOST_DISTINCT = 1000
CHART_POINTS = 300
USUAL = 6
"""Points further apart than this multiple of the usual distance have a gap between them."""
CHART_ROWS = 300_000
"""Maximum rows of a derived table that the generic page draws, as it draws all of them at once."""


@dataclass(frozen=True)
class Facet:
    """The most frequent values of a column, with their numbers of rows among those that other filters choose.

    Attributes:
        column: name of the column, which is the parameter that filters by a value, too.
        values: values with their rows, most frequent first.
    """

    column: str
    values: Sequence[Row[tuple[str, int]]]


def listing_page(request: Request, site: Site, dataset: Dataset, personal: bool | None) -> Response:
    """Return a page that lists the rows of a dataset."""
    if chosen := filtered(request):
        return RedirectResponse(chosen, HTTPStatus.SEE_OTHER)
    clear = reveals(request, dataset, personal)
    with site.read(personal=dataset.is_personal) as conn:
        state = reads.state(conn)
        page, facets = _rows(request, conn, dataset, clear=clear)
        total = reads.rows_of(conn, dataset_tables(dataset).production)
        sampled = reads.sampled(request, conn, [dataset])
    return render_page(
        request, "browse.html", dataset=dataset, state=state, listing=page, facets=facets, total=total, sampled=sampled
    )


@router.get("/datasets/{dataset}", dependencies=[Depends(allowed("read"))])
def dataset_page(request: Request, site: SiteDep, dataset: str, personal: InClear = None) -> Response:
    """Return the page of any dataset: its declaration, derived tables, rows and last files."""
    if address := filtered(request):
        return RedirectResponse(address, HTTPStatus.SEE_OTHER)
    chosen = site.dataset(dataset)
    clear = reveals(request, chosen, personal)
    with site.read(personal=chosen.is_personal) as conn:
        page, facets = _rows(request, conn, chosen, clear=clear)
        context: dict[str, Any] = {
            "state": reads.state(conn),
            "total": reads.rows_of(conn, dataset_tables(chosen).production),
            "charts": [chart for item in chosen.computed if (chart := _chart(conn, chosen, item))],
            "files": reads.last_files(conn, chosen, 5),
            "sampled": reads.sampled(request, conn, [chosen]),
            "quality": reads.latest_quality(conn, dataset_tables(chosen).production.fullname),
        }
    tables = {"columns": _columns(chosen, context["quality"]), "computed": _computed(chosen)}
    return render_page(request, "dataset.html", tables=tables, dataset=chosen, listing=page, facets=facets, **context)


def _columns(dataset: Dataset, quality: Mapping[str, RowMapping]) -> TableData:
    """Return the declaration and the last measurements of each column."""
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
    """Return the aggregates and views."""
    return TableData(("name", "description"), [(item.name, item.description) for item in dataset.computed])


def _rows(request: Request, conn: Connection, dataset: Dataset, *, clear: bool) -> tuple[Listing, list[Facet]]:
    relation = relations.rows(dataset, clear=clear)
    page = listing(request, conn, relation, f"/api/datasets/{dataset.name}/rows", hidden=("_extra", "_file_id"))
    return page, _facets(conn, dataset, relation, page)


def _facets(conn: Connection, dataset: Dataset, relation: Relation, page: Listing) -> list[Facet]:
    """Return the text columns with the fewest distinct values, by the last quality report."""
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
    return [Facet(name, _values(conn, relation, name, page)) for _, name in sorted(known)[:FACETS]]


def _values(conn: Connection, relation: Relation, name: str, page: Listing) -> Sequence[Row[tuple[str, int]]]:
    # Not by its own value: choosing another one takes its place.
    others = page.conditions(name, f"{name}__eq")
    element = relation.columns[name].element
    counted = select(element.label("value"), func.count().label("rows")).select_from(relation.source)
    counted = counted.where(element.is_not(None), *others).group_by(element).order_by(func.count().desc(), element)
    return conn.execute(counted.limit(VALUES)).all()


def _chart(conn: Connection, dataset: Dataset, item: Aggregate | View) -> Chart | None:
    """Return the declared chart of an aggregate or a view: a line over time, else bars; None if it would say nothing."""
    if item.chart is None:
        return None
    tables = dataset_tables(dataset)
    table = (tables.aggregates | tables.views)[item.name]
    read = [tables.aggregates.get(name, tables.production) for name in item.reads or ("",)]
    read = read if isinstance(item, View) else [table]
    if any(reads.rows_of(conn, one).count > CHART_ROWS for one in read):
        return None
    x, y = (table.c[name] for name in item.chart)
    if x.info.get("personal") or y.info.get("personal"):
        return None
    if not page_rows.is_informative(dataset, tables, item):
        return None
    over_time = isinstance(x.type, Date | DateTime)
    groups = _groups(x, y).subquery()
    points = conn.execute(_over_time(groups) if over_time else _first(groups)).all()
    values = [None if point.y is None else float(point.y) for point in points]
    about, *units = item.columns[y.name]
    unit = units[0] if units else y.name
    if over_time:
        y_by_x = {point.x: value for point, value in zip(points, values, strict=True)}
        at = list(y_by_x)
        at = charts.broken(at, USUAL * median(b - a for a, b in pairwise(at))) if len(at) > 2 else at
        figure = charts.lines(at, [Series(y.name, [y_by_x.get(one) for one in at])], unit)
    else:
        figure = charts.bars([_label(point.x) for point in points], [Series(y.name, values)], unit)
        figure.layout["xaxis"]["title"] = {"text": x.name, "standoff": 4}
    mean, shown = _words(x.name, item.key if isinstance(item, Aggregate) else (), points)
    rows = [
        (_label(point.x) if point.x is None else point.x, point.y if point.rows == 1 else number(point.y))
        for point in points
    ]
    return Chart(
        f"chart-{item.name}", item.name, f"{item.description} Here: {about[:1].lower()}{about[1:].rstrip('.')}{mean}.{shown}",
        charts.as_json(figure), (x.name, f"{y.name}{mean or (', mean' if over_time and shown else '')}"), rows,
    )  # fmt: skip


def _value(y: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the mean of several values, or the single value unchanged. It is numeric: a sum of large floats may overflow."""
    one = func.count() == 1
    if isinstance(y.type, Double):
        return case((one, func.min(y)), else_=as_double(func.avg(y.cast(Numeric))))
    return case((one, func.min(y).cast(Numeric)), else_=func.avg(y.cast(Numeric)))


def _groups(x: Column[Any], y: Column[Any]) -> Select[Any]:
    """Return a select of `x`, `y`, and the number of `rows` whose mean is y."""
    return select(x.label("x"), _value(y).label("y"), func.count().label("rows")).group_by(x)


def _over_time(groups: FromClause) -> Select[Any]:
    """Return at most as many points as a chart can show: more are averaged, `neighbours` at a time, labelled by the first."""
    place = func.ntile(CHART_POINTS).over(order_by=groups.c.x).label("place")
    placed = select(groups, place).where(groups.c.x.is_not(None)).subquery()
    rows, neighbours = func.sum(placed.c.rows).label("rows"), func.count().label("neighbours")
    chosen = select(func.min(placed.c.x).label("x"), _value(placed.c.y).label("y"), rows, neighbours)
    return chosen.group_by(placed.c.place).order_by(placed.c.place)


def _first(groups: FromClause) -> Select[Any]:
    """Return the first points, as values that are not times have no neighbours; and the number of points in `all`."""
    return select(groups, func.count().over().label("all")).order_by(groups.c.x).limit(CHART_POINTS)


def _words(x: str, key: Sequence[str], points: Sequence[Row[Any]]) -> tuple[str, str]:
    """Return the caption of a chart: the mean that its values are, and which points are not shown."""
    neighbours = max((getattr(point, "neighbours", 1) for point in points), default=1)
    total = max((getattr(point, "all", 0) for point in points), default=0)
    is_mean = any(point.rows > getattr(point, "neighbours", 1) for point in points)
    others = " and ".join(name for name in key if name != x)
    mean = f", mean over {others or 'the rows of each'}" if is_mean else ""
    shown = (
        f" Each point is the mean of up to {neighbours} neighbouring points and has the label of the first."
        if neighbours > 1
        else ""
    )
    if total > len(points):
        shown = f" First {len(points)} of {plural(total, 'group')} by {x}."
    return mean, shown


def _label(value: Any) -> str:
    """Return a value under a bar as text."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "yes", False: "no"}[value]
    return str(plain(value))
