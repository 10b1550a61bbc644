"""Sales: revenue and profit over time and by category, the products that bring them, and how customers buy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import ColumnElement, Connection, Date, Double, Integer, Numeric, RowMapping, case, func, select

from mini_platform.api.site import TheSite
from mini_platform.dashboard import charts, reads
from mini_platform.dashboard.charts import Chart, Series
from mini_platform.dashboard.rendering import day, link, money, percent, render
from mini_platform.dashboard.spans import Span, parse_day, span
from mini_platform.warehouse.tables import DatasetTables, dataset_tables

router = APIRouter(include_in_schema=False)
PRODUCTS = 10
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MANY_ORDERS = 8
"""Customers with so many orders or more are one bar."""


@router.get("/sales")
def sales(
    request: Request,
    site: TheSite,
    category: str | None = None,
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
    by: str | None = None,
) -> HTMLResponse:
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
        given = {
            "totals": orders.total(), "over_time": _over_time(orders.over_time(), shown),
            "by_category": _by_category(orders.by_category()), "products": orders.by_product(),
            "weekdays": _weekdays(orders.by_weekday()), "loyalty": _loyalty(orders.customers_by_orders()),
            "gap": orders.days_between(),
        }  # fmt: skip
    params = [("order_date__gte", shown.first), ("order_date__lte", shown.last), ("product_category", category)]
    base = "/api/datasets/sales/rows"
    return render(
        request, "sales.html",
        state=state, empty=False, span=shown, held=held, by=by, category=category, categories=categories,
        twins={"csv": link(f"{base}.csv", params), "json": link(f"{base}/", params)}, **given,
    )  # fmt: skip


class _Orders:
    """What is asked of the orders of a span and, where one is chosen, a category."""

    def __init__(self, conn: Connection, tables: DatasetTables, shown: Span, category: str | None) -> None:
        self.conn, self.shown = conn, shown
        self.customer = tables.aggregates["dim_customer"]
        f, p = tables.aggregates["fact_sales"], tables.aggregates["dim_product"]
        joined = f.join(p, f.c.product_id == p.c.product_id)
        chosen = select(
            f.c.customer_id, f.c.order_date, f.c.quantity, f.c.revenue, f.c.profit, p.c.title, p.c.category, p.c.product_id
        ).select_from(joined)
        chosen = chosen.where(f.c.order_date.between(shown.first, shown.last))
        self.facts = (chosen if category is None else chosen.where(p.c.category == category)).subquery()

    def _measures(self) -> list[ColumnElement[Any]]:
        f = self.facts
        return [
            func.count().label("orders"),
            func.coalesce(func.sum(f.c.revenue, type_=Numeric), 0).label("revenue"),
            func.coalesce(func.sum(f.c.profit, type_=Numeric), 0).label("profit"),
            func.coalesce(func.sum(f.c.quantity, type_=Integer), 0).label("pieces"),
        ]

    def total(self) -> RowMapping:
        customers = func.count(self.facts.c.customer_id.distinct()).label("customers")
        return self.conn.execute(select(*self._measures(), customers)).mappings().one()

    def over_time(self) -> Sequence[RowMapping]:
        start = func.date_trunc(self.shown.step, self.facts.c.order_date).cast(Date)
        chosen = select(start.label("start"), *self._measures()).group_by(start).order_by(start)
        return self.conn.execute(chosen).mappings().all()

    def by_category(self) -> Sequence[RowMapping]:
        chosen = select(self.facts.c.category, *self._measures()).group_by(self.facts.c.category)
        return self.conn.execute(chosen.order_by(func.sum(self.facts.c.revenue).desc())).mappings().all()

    def by_product(self) -> Sequence[RowMapping]:
        f = self.facts
        chosen = select(f.c.title, f.c.category, *self._measures()).group_by(f.c.product_id, f.c.title, f.c.category)
        chosen = chosen.order_by(func.sum(f.c.revenue).desc(), f.c.title).limit(PRODUCTS)
        return self.conn.execute(chosen).mappings().all()

    def by_weekday(self) -> Sequence[RowMapping]:
        weekday = func.extract("isodow", self.facts.c.order_date).cast(Integer)
        chosen = select(weekday.label("weekday"), *self._measures()).group_by(weekday).order_by(weekday)
        return self.conn.execute(chosen).mappings().all()

    def customers_by_orders(self) -> dict[int, int]:
        """Orders of a customer within the span -> customers with so many."""
        each = select(func.count().label("orders")).group_by(self.facts.c.customer_id).subquery()
        bucket = case((each.c.orders > MANY_ORDERS, MANY_ORDERS), else_=each.c.orders)
        chosen = select(bucket.label("orders"), func.count().label("customers")).group_by(bucket).order_by(bucket)
        return {orders: customers for orders, customers in self.conn.execute(chosen)}

    def days_between(self) -> float | None:
        """Days from one order of a customer to the next, on average over those with several."""
        f = self.facts
        days = (func.max(f.c.order_date, type_=Date) - func.min(f.c.order_date, type_=Date)).cast(Double)
        each = select((days / (func.count() - 1)).label("days")).group_by(f.c.customer_id).having(func.count() > 1)
        return self.conn.scalar(select(func.avg(each.subquery().c.days, type_=Double)))


def _over_time(rows: Sequence[RowMapping], shown: Span) -> Chart:
    x: list[dt.date] = [row["start"] for row in rows]
    series = [Series(name, [float(row[name]) for row in rows]) for name in ("revenue", "profit")]
    best = max(rows, key=lambda row: row["revenue"], default=None)
    summary = f"By {shown.step}, {day(shown.first)} to {day(shown.last)}."
    if best is not None:
        summary += f" Most in the {shown.step} from {day(best['start'])}: {money(best['revenue'])}."
    figure = charts.lines(x, series, "$", to_zero=True)
    figure.update_yaxes(tickprefix="$", tickformat="~s", title=None)
    figure.update_traces(hovertemplate="$%{y:,.0f}")
    table = [(r["start"], r["orders"], money(r["revenue"]), money(r["profit"])) for r in rows]
    columns = (shown.step.capitalize(), "Orders", "Revenue", "Profit")
    return Chart("over-time", "Revenue and profit", summary, charts.as_json(figure), columns, table)


def _by_category(rows: Sequence[RowMapping]) -> Chart:
    names = [row["category"] for row in rows]
    series = [Series(name, [float(row[name]) for row in rows]) for name in ("revenue", "profit")]
    revenue = sum(row["revenue"] for row in rows)
    first = f"{names[0]} brings {percent(float(rows[0]['revenue'] / revenue))} of the revenue." if revenue else ""
    table = [(r["category"], r["orders"], r["pieces"], money(r["revenue"]), money(r["profit"])) for r in rows]
    columns = ("Category", "Orders", "Pieces", "Revenue", "Profit")
    figure = charts.as_json(charts.across(names, series, "$"))
    return Chart("by-category", "By category", first, figure, columns, table)


def _weekdays(rows: Sequence[RowMapping]) -> Chart:
    names = [WEEKDAYS[row["weekday"] - 1] for row in rows]
    best = max(rows, key=lambda row: row["orders"], default=None)
    summary = f"Most orders on a {WEEKDAYS[best['weekday'] - 1]}: {best['orders']:,}." if best else ""
    figure = charts.bars([name[:3] for name in names], [Series("orders", [row["orders"] for row in rows])], "orders")
    table = [(n, r["orders"], money(r["revenue"])) for n, r in zip(names, rows, strict=True)]
    return Chart("weekdays", "By day of the week", summary, charts.as_json(figure), ("Day", "Orders", "Revenue"), table)


def _loyalty(customers: dict[int, int]) -> Chart:
    names = [f"{orders}{' or more' if orders == MANY_ORDERS else ''}" for orders in customers]
    total = sum(customers.values())
    again = percent(1 - customers.get(1, 0) / total) if total else "–"
    figure = charts.bars(names, [Series("customers", list(customers.values()))], "customers")
    figure.update_xaxes(type="category", title={"text": "orders of a customer", "standoff": 4})
    summary = f"{again} of {total:,} customers ordered more than once."
    table = list(zip(names, customers.values(), strict=True))
    return Chart("loyalty", "Purchase patterns", summary, charts.as_json(figure), ("Orders", "Customers"), table)
