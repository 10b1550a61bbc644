"""Sales: one row per order, loaded into a star schema; the customers' personal data is protected."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Date,
    Double,
    FromClause,
    Integer,
    Numeric,
    Select,
    Text,
    extract,
    func,
    select,
)

from mini_platform import (
    Aggregate,
    Dataset,
    Field,
    Frequency,
    Measure,
    OverTime,
    Page,
    Ranked,
    Recurring,
    RejectLimit,
    RowModel,
    View,
    rule,
)

if TYPE_CHECKING:
    import polars as pl

COST = Decimal("0.6")
"""Share of the original price that a product costs the shop."""


def _unit_profit(col: Callable[[str], pl.Expr]) -> pl.Expr:
    """Exact: polars keeps as many decimals of a product as its factors have, so they are given one more before."""
    import polars as pl

    thousandths = pl.Decimal(38, 3)
    cost = col("original_price").cast(thousandths) * pl.lit(COST)
    return (col("discounted_price").cast(thousandths) - cost).round(2, mode="half_away_from_zero")


class Order(RowModel):
    """An order of one product."""

    order_id: str = Field("Identifier of the order", str_length={"min_value": 10, "max_value": 10})
    customer_name: str = Field("Who ordered", personal="hash")
    customer_email: str = Field("Address that tells the customers apart", personal="hash", email=True)
    customer_phone: str | None = Field("Telephone number", personal="last4")
    customer_address: str | None = Field("Where to deliver", personal="redact")
    product_title: str = Field("Name of the product", str_length={"min_value": 1, "max_value": 500})
    product_rating: float | None = Field("Mean of its reviews", unit="stars", in_range={"min_value": 1, "max_value": 5})
    discounted_price: Decimal = Field("What was paid for one piece", unit="$", gt=0)
    original_price: Decimal = Field("List price of one piece", unit="$", gt=0)
    discount_percentage: int = Field(
        "Discount on the list price", unit="%", in_range={"min_value": 0, "max_value": 100}
    )
    is_best_seller: bool = Field("Whether the product is marked as a best seller")
    delivery_date: dt.date | None = Field("Day of the delivery")
    data_collected_at: dt.datetime | None = Field("When the shop wrote the row")
    product_category: str = Field("Category of the product", str_length={"min_value": 1, "max_value": 100})
    quantity: int = Field("Pieces ordered", ge=1)
    order_date: dt.date = Field("Day of the order")
    profit_per_unit: Decimal = Field("discounted_price - 0.6 × original_price", unit="$", derived=_unit_profit)
    total_profit: Decimal = Field(
        "profit_per_unit × quantity", unit="$", derived=lambda col: _unit_profit(col) * _whole(col("quantity"))
    )

    @rule("is before the order_date", column="delivery_date", severity="warn")
    def not_before_order(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """The clock of one of the two systems is wrong; the order took place nevertheless."""
        return col("delivery_date") >= col("order_date")

    @rule("is above the original_price", column="discounted_price", severity="warn")
    def not_above_original(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """A surcharge is sold as a discount."""
        return col("discounted_price") <= col("original_price")


def _whole(number: pl.Expr) -> pl.Expr:
    import polars as pl

    return number.cast(pl.Decimal(38, 0))


# The star


def dim_customer(o: FromClause) -> Select[Any]:
    """Customers, told apart by their hashed e-mail address."""
    return select(
        o.c.customer_email.label("email_hash"),
        func.max(o.c.customer_name, type_=Text).label("name_hash"),
        func.min(o.c.order_date).label("first_order"),
        func.max(o.c.order_date).label("last_order"),
        func.count().label("orders"),
    ).group_by(o.c.customer_email)


def dim_product(o: FromClause) -> Select[Any]:
    """Products, told apart by title and category."""
    return select(
        o.c.product_title.label("title"),
        o.c.product_category.label("category"),
        func.max(o.c.original_price, type_=Numeric).label("highest_list_price"),
        func.count().label("orders"),
    ).group_by(o.c.product_title, o.c.product_category)


def dim_date(o: FromClause) -> Select[Any]:
    """Days on which something was ordered."""
    day = o.c.order_date

    def part(name: str) -> Any:
        return extract(name, day).cast(Integer)

    return select(
        day.label("date"),
        part("day").label("day"),
        part("week").label("week"),
        part("month").label("month"),
        part("quarter").label("quarter"),
        part("year").label("year"),
        part("isodow").label("weekday"),
        (extract("isodow", day) >= 6).cast(Boolean).label("is_weekend"),
    ).group_by(day)


def fact_sales(o: FromClause, dim_customer: FromClause, dim_product: FromClause, dim_date: FromClause) -> Select[Any]:
    """Orders with their measures, and who, what and when as keys of the dimensions."""
    return (
        select(
            o.c.order_id,
            dim_customer.c.customer_id,
            dim_product.c.product_id,
            dim_date.c.date.label("order_date"),
            o.c.delivery_date,
            o.c.quantity,
            o.c.discounted_price,
            o.c.original_price,
            (o.c.discounted_price * o.c.quantity).cast(Numeric).label("revenue"),
            o.c.total_profit.label("profit"),
        )
        .join_from(o, dim_customer, o.c.customer_email == dim_customer.c.email_hash)
        .join(
            dim_product,
            (o.c.product_title == dim_product.c.title) & (o.c.product_category == dim_product.c.category),
        )
        .join(dim_date, o.c.order_date == dim_date.c.date)
    )


def _sum(column: Any) -> Any:
    return func.sum(column, type_=Numeric)


def revenue_by_category(_: FromClause, fact_sales: FromClause, dim_product: FromClause) -> Select[Any]:
    """Orders, revenue and profit of each product category, the largest revenue first."""
    revenue = _sum(fact_sales.c.revenue)
    return (
        select(
            dim_product.c.category,
            func.count().label("orders"),
            revenue.label("revenue"),
            _sum(fact_sales.c.profit).label("profit"),
        )
        .join_from(fact_sales, dim_product, fact_sales.c.product_id == dim_product.c.product_id)
        .group_by(dim_product.c.category)
        .order_by(revenue.desc())
    )


def monthly_revenue(_: FromClause, fact_sales: FromClause, dim_date: FromClause) -> Select[Any]:
    """Orders, customers, revenue and profit of each month."""
    month = func.make_date(dim_date.c.year, dim_date.c.month, 1, type_=dim_date.c.date.type)
    return (
        select(
            month.label("month"),
            func.count().label("orders"),
            func.count(fact_sales.c.customer_id.distinct()).label("customers"),
            _sum(fact_sales.c.revenue).label("revenue"),
            _sum(fact_sales.c.profit).label("profit"),
        )
        .join_from(fact_sales, dim_date, fact_sales.c.order_date == dim_date.c.date)
        .group_by(month)
        .order_by(month)
    )


def top_products(_: FromClause, fact_sales: FromClause, dim_product: FromClause) -> Select[Any]:
    """Products by the revenue that they brought."""
    revenue = _sum(fact_sales.c.revenue)
    return (
        select(
            func.rank(type_=BigInteger).over(order_by=revenue.desc()).label("rank"),
            dim_product.c.title,
            dim_product.c.category,
            _sum(fact_sales.c.quantity).label("pieces"),
            revenue.label("revenue"),
            _sum(fact_sales.c.profit).label("profit"),
        )
        .join_from(fact_sales, dim_product, fact_sales.c.product_id == dim_product.c.product_id)
        .group_by(dim_product.c.product_id, dim_product.c.title, dim_product.c.category)
        .order_by(revenue.desc(), dim_product.c.title)
    )


def customer_purchases(_: FromClause, fact_sales: FromClause, dim_customer: FromClause) -> Select[Any]:
    """How each customer buys: how often, how much, how long between two orders; the largest revenue first."""
    revenue = _sum(fact_sales.c.revenue)
    days = (dim_customer.c.last_order - dim_customer.c.first_order).cast(Numeric)
    return (
        select(
            dim_customer.c.customer_id,
            dim_customer.c.first_order,
            dim_customer.c.last_order,
            func.count().label("orders"),
            func.count(fact_sales.c.product_id.distinct()).label("products"),
            revenue.label("revenue"),
            func.round(revenue / func.count(), 2, type_=Numeric).label("revenue_per_order"),
            func.round(days / func.nullif(func.count() - 1, 0), 1, type_=Numeric).label("days_between_orders"),
        )
        .join_from(fact_sales, dim_customer, fact_sales.c.customer_id == dim_customer.c.customer_id)
        .group_by(dim_customer.c.customer_id, dim_customer.c.first_order, dim_customer.c.last_order)
        .order_by(revenue.desc(), dim_customer.c.customer_id)
    )


# Samples

FIRST = ("Ada", "Ben", "Cleo", "Dario", "Elif", "Femi", "Gesa", "Hugo", "Ines", "Jonas", "Kaya", "Liam", "Mira", "Nils")
LAST = (
    "Alder",
    "Birch",
    "Cedar",
    "Dogwood",
    "Elm",
    "Fir",
    "Ginkgo",
    "Hazel",
    "Juniper",
    "Larch",
    "Oak",
    "Pine",
    "Rowan",
)
CITIES = ("Harborview", "Millbrook", "Northfield", "Oakhurst", "Pinecrest")
"""Names of trees and of no city: nobody is meant. Addresses are at domains, and numbers in the range, reserved for examples."""
CATALOGUE: Mapping[str, tuple[tuple[str, int], ...]] = {
    "Books": (("Atlas of Small Islands", 3499), ("Bread in Ten Minutes", 1899), ("A Field Guide to Clouds", 2450)),
    "Electronics": (("Noise-Cancelling Headphones", 19999), ("USB-C Hub, 7 Ports", 4599), ('E-Reader 7"', 13900)),
    "Garden": (("Watering Can, 10 l", 2199), ("Pruning Shears", 2795), ("Raised Bed, Larch", 8900)),
    "Home": (("Linen Bedsheet", 5990), ("Cast-Iron Pan, 26 cm", 4450), ("Desk Lamp", 3725)),
    "Sports": (("Yoga Mat", 2999), ("Trail Running Shoes", 11950), ("Kettlebell, 16 kg", 5480)),
    "Toys": (("Wooden Train Set", 4295), ("Building Bricks, 500 Pieces", 3599), ("Kite", 1650)),
}
PRODUCTS = [(title, category, cents) for category, titles in CATALOGUE.items() for title, cents in titles]
SEASON = (7, 6, 7, 7, 8, 8, 7, 7, 8, 9, 12, 14)
"""Orders of each month, in hundredths of a year's: the year ends with presents."""
FIRST_YEAR, YEARS = 2022, 3
ORDERS_PER_CUSTOMER = 4


@lru_cache(maxsize=1)
def _days() -> tuple[list[str], list[str], list[float]]:
    """Days of some years as text, the text of a week later, and how many orders fall on the days up to each."""
    first = dt.date(FIRST_YEAR, 1, 1)
    days = [first + dt.timedelta(days=n) for n in range((dt.date(FIRST_YEAR + YEARS, 1, 1) - first).days + 8)]
    weights = accumulate(SEASON[day.month - 1] for day in days[:-8])
    return [day.isoformat() for day in days[:-8]], [day.isoformat() for day in days], list(weights)


def realistic(rng: random.Random, row: int) -> Mapping[str, str]:
    """A plausible order: customers come back, the year has its season, the cheaper sells more often."""
    days, later, weights = _days()
    (day,) = rng.choices(range(len(days)), cum_weights=weights)
    luck = rng.random()
    # The first customers are the most faithful; of each four orders one is, on average, by somebody new.
    customer = int(luck**1.5 * (1 + row // ORDERS_PER_CUSTOMER))
    first, last = FIRST[customer % len(FIRST)], LAST[customer // len(FIRST) % len(LAST)]
    title, category, original = PRODUCTS[int(rng.random() ** 1.3 * len(PRODUCTS))]
    discount = int(luck * 997) % 8 * 5
    discounted = (original * (100 - discount) + 50) // 100
    best = rng.random()
    return {
        "order_id": f"S{row:09d}",
        "customer_name": f"{first} {last}",
        "customer_email": f"{first}.{last}{customer}@example.{'org' if customer % 3 else 'com'}".lower(),
        "customer_phone": f"+1 202 555 01{customer % 100:02d}",
        "customer_address": f"{1 + customer % 990} {last} Street, {CITIES[customer % len(CITIES)]}",
        "product_title": title,
        "product_rating": f"{3 + len(title) * 7 % 20 / 10:.1f}",
        "discounted_price": f"{discounted // 100}.{discounted % 100:02d}",
        "original_price": f"{original // 100}.{original % 100:02d}",
        "discount_percentage": str(discount),
        "is_best_seller": "true" if len(title) % 4 == 0 else "false",
        "delivery_date": later[day + 1 + int(best * 7)],
        "data_collected_at": f"{days[day]}T{int(best * 24):02d}:{int(luck * 60):02d}:00Z",
        "product_category": category,
        "quantity": str(1 + int(best**4 * 5)),
        "order_date": days[day],
    }


def _days_between(f: FromClause) -> ColumnElement[Any]:
    """Days from one order to the next on average; NULL of one order."""
    days = (func.max(f.c.order_date, type_=Date) - func.min(f.c.order_date, type_=Date)).cast(Double)
    return days / func.nullif(func.count() - 1, 0)


page = Page(
    of="fact_sales",
    filters=("dim_product.category",),
    measures={
        "revenue": "sum(revenue)",
        "profit": Measure("sum(profit)", note="{margin:%} of the revenue"),
        "margin": "sum(profit) / sum(revenue)",
        "orders": Measure("count()", note="{quantity:piece}"),
        "quantity": Measure("sum(quantity)", "Pieces"),
        "per_order": Measure("sum(revenue) / count()", unit="$"),
        "customers": "distinct(customer_id)",
        "between_orders": Measure(
            _days_between, unit="days", digits=0, note="of customers who order again", each="customer_id"
        ),
    },
    figures=("revenue", "profit", "orders", "per_order", "customers", "between_orders"),
    charts={
        "over-time": OverTime(lines=("revenue", "profit"), table=("orders", "revenue", "profit")),
        "by-category": Ranked(
            "dim_product.category",
            bars=("revenue", "profit"),
            table=("orders", "quantity", "revenue", "profit"),
            caption="{first} brings {share} of the revenue.",
        ),
        "products": Ranked(
            ("dim_product.title", "dim_product.category"),
            table=("quantity", "revenue", "profit"),
            order="revenue",
            most=10,
            label="Product",
            title="Top products",
        ),
        "loyalty": Frequency(
            "customer_id",
            value="customer",
            row="order",
            title="Purchase patterns",
            caption="{again} of {values} ordered more than once.",
        ),
        "weekdays": Recurring("weekday", bars=("orders",), table=("orders", "revenue")),
    },
    empty="Nothing was ordered in these days.",
)

REVENUE, PROFIT = ("What was paid", "$"), ("What is left of it after the cost of the products", "$")

dataset = Dataset(
    name="sales",
    table="orders",
    description="Orders of the shop, the personal data of the customers replaced by hashes.",
    owners=["team:sales"],
    rows=Order,
    key=("order_id",),
    indexes=("order_date", "customer_email"),
    unexpected_columns="refuse",
    freshness=dt.timedelta(days=2),
    warn_limit=RejectLimit(share=0),
    reject_limit=RejectLimit(share=0.5),
    raw_retention=dt.timedelta(days=90),
    realistic=realistic,
    aggregates=(
        Aggregate(
            dim_customer,
            key=("email_hash",),
            surrogate="customer_id",
            chart=("first_order", "orders"),
            columns={
                "email_hash": ("HMAC-SHA-256 of the e-mail address, its key's id before it",),
                "name_hash": ("The same of the name, of one of them where there are several",),
                "first_order": ("Day of the first order",),
                "last_order": ("Day of the last order",),
                "orders": ("Orders of the customer",),
            },
        ),
        Aggregate(
            dim_product,
            key=("title", "category"),
            surrogate="product_id",
            chart=("product_id", "orders"),
            columns={
                "title": ("Name of the product",),
                "category": ("Category of the product",),
                "highest_list_price": ("Highest list price that it had", "$"),
                "orders": ("Orders of the product",),
            },
        ),
        Aggregate(
            dim_date,
            key=("date",),
            chart=("date", "week"),
            columns={
                "date": ("Day",),
                "day": ("Day of the month",),
                "week": ("Week of the year, by ISO 8601",),
                "month": ("Month, 1 to 12",),
                "quarter": ("Quarter, 1 to 4",),
                "year": ("Year",),
                "weekday": ("Day of the week, 1 for Monday to 7",),
                "is_weekend": ("Whether it is a Saturday or a Sunday",),
            },
        ),
        Aggregate(
            fact_sales,
            key=("order_id",),
            chart=("order_date", "revenue"),
            columns={
                "order_id": ("Identifier of the order",),
                "customer_id": ("Who ordered",),
                "product_id": ("What was ordered",),
                "order_date": ("Day of the order",),
                "delivery_date": ("Day of the delivery",),
                "quantity": ("Pieces ordered",),
                "discounted_price": ("What was paid for one piece", "$"),
                "original_price": ("List price of one piece", "$"),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
    ),
    views=(
        View(
            revenue_by_category,
            chart=("category", "revenue"),
            columns={
                "category": ("Category of the products",),
                "orders": ("Orders",),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
        View(
            monthly_revenue,
            chart=("month", "revenue"),
            columns={
                "month": ("First day of the month",),
                "orders": ("Orders",),
                "customers": ("Customers who ordered",),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
        View(
            top_products,
            chart=("rank", "revenue"),
            columns={
                "rank": ("Place by revenue",),
                "title": ("Name of the product",),
                "category": ("Its category",),
                "pieces": ("Pieces sold",),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
        View(
            customer_purchases,
            chart=("first_order", "revenue"),
            columns={
                "customer_id": ("Customer, as in dim_customer",),
                "first_order": ("Day of the first order",),
                "last_order": ("Day of the last order",),
                "orders": ("Orders",),
                "products": ("Different products ordered",),
                "revenue": REVENUE,
                "revenue_per_order": ("What an order brought on average", "$"),
                "days_between_orders": ("Days from one order to the next on average; empty after one order", "days"),
            },
        ),
    ),
    page=page,
)
