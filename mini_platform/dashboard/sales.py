"""Sales: revenue and profit over time and by category, the products that bring them, and how customers buy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Date,
    Double,
    FromClause,
    Numeric,
    RowMapping,
    func,
    select,
)

from mini_platform.api.guard import allowed
from mini_platform.api.site import TheSite
from mini_platform.api.values import TEXT
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.rendering import TableData, day, link, render
from mini_platform.dashboard.spans import Span, parse_day, span, start_of
from mini_platform.warehouse.tables import DatasetTables, dataset_tables
from mini_platform.wording import money, percent, plural

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", "sales"))])
PRODUCTS = 10
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MANY_ORDERS = 8
"""Customers with so many orders or more are one bar."""


@router.get("/sales")
def sales(
    request: Request,
    site: TheSite,
    category: Annotated[str | None, Query(pattern=TEXT)] = None,
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
    by: str | None = None,
) -> Response:
    """The page of the sales."""
    tables = dataset_tables(site.dataset("sales"))
    dates, products = tables.aggregates["dim_date"], tables.aggregates["dim_product"]
    with site.read() as conn:
        state = reads.state(conn)
        held = conn.execute(select(func.min(dates.c.date), func.max(dates.c.date))).one()
        if held[0] is None:
            return render(request, "sales.html", state=state, empty=True)
        categories = conn.scalars(select(products.c.category).distinct().order_by(products.c.category)).all()
        shown = span(parse_day("from", since), parse_day("to", until), by or None, (held[0], held[1]))
        orders = _Orders(conn, tables, shown, category or None)
        days, buyers = orders.by_day(), orders.customers()
        again = sum(row["customers"] for row in buyers if row["orders"] > 1)
        given = {
            "totals": _summed(days, lambda _: None).get(None, {}),
            "over_time": _over_time(_summed(days, lambda row: start_of(shown.step, row["day"])), shown),
            "weekdays": _weekdays(_summed(days, lambda row: row["day"].weekday())),
            "by_category": _by_category(orders.by_category()), "products": orders.top_products(),
            "loyalty": _loyalty({row["orders"]: row["customers"] for row in buyers}),
            "customers": sum(row["customers"] for row in buyers),
            "gap": sum(row["gaps"] or 0 for row in buyers) / again if again else None,
        }  # fmt: skip
    params = [("order_date__gte", shown.first), ("order_date__lte", shown.last), ("product_category", category)]
    base = "/api/datasets/sales/rows"
    return render(
        request, "sales.html",
        state=state, empty=False, span=shown, held=held, by=by, category=category, categories=categories,
        twins={"csv": link(f"{base}.csv", params), "json": link(f"{base}/", params)},
        tables={"products": _products(given["products"])}, **given,
    )  # fmt: skip


class _Orders:
    """What is asked of the orders of a span and, where one is chosen, a category: four scans, whatever is shown."""

    def __init__(self, conn: Connection, tables: DatasetTables, shown: Span, category: str | None) -> None:
        self.conn, self.shown = conn, shown
        self.product = tables.aggregates["dim_product"]
        f, p = tables.aggregates["fact_sales"], self.product
        chosen = select(f).where(f.c.order_date.between(shown.first, shown.last))
        if category is not None:
            chosen = chosen.where(f.c.product_id.in_(select(p.c.product_id).where(p.c.category == category)))
        self.facts = chosen.subquery()

    def _measures(self, source: FromClause) -> list[ColumnElement[Any]]:
        count = func.count() if source is self.facts else func.sum(source.c.orders).cast(BigInteger)
        return [
            count.label("orders"),
            func.sum(source.c.revenue, type_=Numeric).label("revenue"),
            func.sum(source.c.profit, type_=Numeric).label("profit"),
            func.sum(source.c.quantity).cast(BigInteger).label("quantity"),
        ]

    def by_day(self) -> Sequence[RowMapping]:
        """The days on which something was ordered."""
        at = self.facts.c.order_date
        chosen = select(at.label("day"), *self._measures(self.facts)).group_by(at).order_by(at)
        return self.conn.execute(chosen).mappings().all()

    def by_category(self) -> Sequence[RowMapping]:
        """Categories by their revenue."""
        sold = self._by_product()
        chosen = select(sold.c.category, *self._measures(sold)).group_by(sold.c.category)
        return self.conn.execute(chosen.order_by(func.sum(sold.c.revenue).desc())).mappings().all()

    def top_products(self) -> Sequence[RowMapping]:
        """The products that brought most."""
        sold = self._by_product()
        chosen = select(sold).order_by(sold.c.revenue.desc(), sold.c.title).limit(PRODUCTS)
        return self.conn.execute(chosen).mappings().all()

    def _by_product(self) -> FromClause:
        """Summed before it is joined: a product is looked up once."""
        of = self.facts.c.product_id
        sold = select(of, *self._measures(self.facts)).group_by(of).subquery()
        joined = sold.join(self.product, sold.c.product_id == self.product.c.product_id)
        columns = (self.product.c.title, self.product.c.category, sold.c.orders, sold.c.quantity)
        return select(*columns, sold.c.revenue, sold.c.profit).select_from(joined).subquery()

    def customers(self) -> Sequence[RowMapping]:
        """Customers by how often they ordered within the span, and the days from an order to the next, summed over them."""
        f = self.facts
        days = (func.max(f.c.order_date, type_=Date) - func.min(f.c.order_date, type_=Date)).cast(Double)
        orders = func.count()
        gap = days / func.nullif(orders - 1, 0)
        each = select(func.least(orders, MANY_ORDERS).label("orders"), gap.label("gap")).select_from(f)
        each = each.group_by(f.c.customer_id)
        one = each.subquery()
        chosen = select(one.c.orders, func.count().label("customers"), func.sum(one.c.gap, type_=Double).label("gaps"))
        return self.conn.execute(chosen.group_by(one.c.orders).order_by(one.c.orders)).mappings().all()


def _products(rows: Sequence[RowMapping]) -> TableData:
    """The products that are shown."""
    columns = ("title", "category", "orders", "quantity", "revenue", "profit")
    return TableData(columns, [[row[name] for name in columns] for row in rows])


def _summed(rows: Iterable[RowMapping], by: Callable[[RowMapping], Any]) -> dict[Any, dict[str, Any]]:
    """Rows of days as rows of what they belong to."""
    made: dict[Any, dict[str, Any]] = {}
    for row in rows:
        into = made.setdefault(by(row), dict.fromkeys(("orders", "revenue", "profit", "quantity"), 0))
        for name in into:
            into[name] += row[name]
    return made


def _over_time(sums: Mapping[dt.date, Mapping[str, Any]], shown: Span) -> Chart:
    """Whole steps only, where there are any: a week of two days would look like a slump."""
    whole = {start: row for start, row in sums.items() if shown.is_whole(start)} or sums
    series = [Series(name, [float(row[name]) for row in whole.values()]) for name in ("revenue", "profit")]
    summary = f"By {shown.step}, {day(shown.first)} to {day(shown.last)}."
    if whole:
        best = max(whole, key=lambda start: whole[start]["revenue"])
        summary += f" Most in the {shown.step} from {day(best)}: {money(whole[best]['revenue'])}."
    if parts := [day(start) for start in sums if start not in whole]:
        left = " and from ".join(parts)
        summary += f" Left to the table, as these days hold only a part of it: the {shown.step} from {left}."
    table = [(start, r["orders"], money(r["revenue"]), money(r["profit"])) for start, r in sums.items()]
    columns = (shown.step.capitalize(), "Orders", "Revenue", "Profit")
    figure = charts.as_json(charts.lines(list(whole), series, "$", to_zero=True))
    return Chart("over-time", "Revenue and profit", summary, figure, columns, table)


def _by_category(rows: Sequence[RowMapping]) -> Chart:
    names = [row["category"] for row in rows]
    series = [Series(name, [float(row[name]) for row in rows]) for name in ("revenue", "profit")]
    revenue = sum(row["revenue"] for row in rows)
    first = f"{names[0]} brings {percent(float(rows[0]['revenue'] / revenue))} of the revenue." if revenue else ""
    table = [(r["category"], r["orders"], r["quantity"], money(r["revenue"]), money(r["profit"])) for r in rows]
    columns = ("Category", "Orders", "Pieces", "Revenue", "Profit")
    figure = charts.as_json(charts.across(names, series, "$"))
    return Chart("by-category", "By category", first, figure, columns, table)


def _weekdays(sums: Mapping[int, Mapping[str, Any]]) -> Chart:
    found = {WEEKDAYS[number]: sums[number] for number in sorted(sums)}
    best = max(found, key=lambda name: found[name]["orders"], default=None)
    summary = f"Most orders on a {best}: {found[best]['orders']:,}." if best else ""
    orders = Series("orders", [row["orders"] for row in found.values()])
    figure = charts.as_json(charts.bars([name[:3] for name in found], [orders], "orders"))
    table = [(name, row["orders"], money(row["revenue"])) for name, row in found.items()]
    return Chart("weekdays", "By day of the week", summary, figure, ("Day", "Orders", "Revenue"), table)


def _loyalty(customers: dict[int, int]) -> Chart:
    names = [f"{orders}{' or more' if orders == MANY_ORDERS else ''}" for orders in customers]
    total = sum(customers.values())
    again = percent(1 - customers.get(1, 0) / total) if total else "–"
    figure = charts.bars(names, [Series("customers", list(customers.values()))], "customers")
    figure.layout["xaxis"]["title"] = {"text": "orders of a customer", "standoff": 4}
    summary = f"{again} of {plural(total, 'customer')} ordered more than once."
    table = list(zip(names, customers.values(), strict=True))
    return Chart("loyalty", "Purchase patterns", summary, charts.as_json(figure), ("Orders", "Customers"), table)
