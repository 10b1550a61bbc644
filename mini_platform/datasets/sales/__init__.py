"""Sales: one row per order, loaded into a star schema; personal data of customers is hashed, shortened or redacted."""

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
"""Cost of a product to the shop, as a fraction of its list price."""


def _unit_profit(col: Callable[[str], pl.Expr]) -> pl.Expr:
    """Return the profit per piece, rounded exactly.

    The product of two decimals in polars has only as many decimals as its factors: they are cast to one more before.
    """
    import polars as pl

    thousandths = pl.Decimal(38, 3)
    cost = col("original_price").cast(thousandths) * pl.lit(COST)
    return (col("discounted_price").cast(thousandths) - cost).round(2, mode="half_away_from_zero")


class Order(RowModel):
    """An order of one product."""

    order_id: str = Field("Identifier of the order", str_length={"min_value": 10, "max_value": 10})
    customer_name: str = Field("Name of the customer", personal="hash")
    customer_email: str = Field("E-mail address, which identifies the customer", personal="hash", email=True)
    customer_phone: str | None = Field("Telephone number", personal="last4")
    customer_address: str | None = Field("Delivery address", personal="redact")
    product_title: str = Field("Name of the product", str_length={"min_value": 1, "max_value": 500})
    product_rating: float | None = Field(
        "Mean rating in the reviews", unit="stars", in_range={"min_value": 1, "max_value": 5}
    )
    discounted_price: Decimal = Field("Price paid per piece", unit="$", gt=0)
    original_price: Decimal = Field("List price per piece", unit="$", gt=0)
    discount_percentage: int = Field(
        "Discount on the list price", unit="%", in_range={"min_value": 0, "max_value": 100}
    )
    is_best_seller: bool = Field("True if the product is marked as a best seller")
    delivery_date: dt.date | None = Field("Day of the delivery")
    data_collected_at: dt.datetime | None = Field("Day or time at which the shop wrote the row", timezone="UTC")
    product_category: str = Field("Category of the product", str_length={"min_value": 1, "max_value": 100})
    quantity: int = Field("Number of pieces ordered", ge=1)
    order_date: dt.date = Field("Day of the order")
    profit_per_unit: Decimal = Field("discounted_price - 0.6 × original_price", unit="$", derived=_unit_profit)
    total_profit: Decimal = Field(
        "profit_per_unit × quantity", unit="$", derived=lambda col: _unit_profit(col) * _whole(col("quantity"))
    )

    @rule("is before the order_date", column="delivery_date", severity="warn")
    def not_before_order(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Warn about rows with a wrong clock in one of the two systems; the order itself is valid."""
        return col("delivery_date") >= col("order_date")

    @rule("is above the original_price", column="discounted_price", severity="warn")
    def not_above_original(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Warn about rows whose discount is in fact a surcharge."""
        return col("discounted_price") <= col("original_price")


def _whole(number: pl.Expr) -> pl.Expr:
    """Return whole numbers as decimals, so that their products are exact."""
    import polars as pl

    return number.cast(pl.Decimal(38, 0))


# The star


def dim_customer(o: FromClause) -> Select[Any]:
    """Customers, identified by their hashed e-mail address."""
    return select(
        o.c.customer_email.label("email_hash"),
        func.max(o.c.customer_name, type_=Text).label("name_hash"),
        func.max(o.c.customer_phone, type_=Text).label("customer_phone"),
        func.max(o.c.customer_address, type_=Text).label("customer_address"),
        func.min(o.c.order_date).label("first_order"),
        func.max(o.c.order_date).label("last_order"),
        func.count().label("orders"),
    ).group_by(o.c.customer_email)


def dim_product(o: FromClause) -> Select[Any]:
    """Products, identified by title and category."""
    return select(
        o.c.product_title,
        o.c.product_category,
        func.max(o.c.product_rating, type_=Double).label("product_rating"),
        func.bool_or(o.c.is_best_seller, type_=Boolean).label("is_best_seller"),
        func.max(o.c.original_price, type_=Numeric).label("highest_list_price"),
        func.count().label("orders"),
    ).group_by(o.c.product_title, o.c.product_category)


def dim_date(o: FromClause) -> Select[Any]:
    """Days with at least one order."""
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
    """Orders with their measures, and keys of the dimensions: customer, product and date."""
    return (
        select(
            o.c.order_id,
            dim_customer.c.customer_id,
            dim_product.c.product_id,
            dim_date.c.date_id.label("order_date_id"),
            dim_date.c.date.label("order_date"),
            o.c.delivery_date,
            o.c.quantity,
            o.c.discounted_price,
            o.c.original_price,
            o.c.discount_percentage,
            (o.c.discounted_price * o.c.quantity).cast(Numeric).label("revenue"),
            o.c.profit_per_unit.label("profit"),
            o.c.total_profit,
        )
        .join_from(o, dim_customer, o.c.customer_email == dim_customer.c.email_hash)
        .join(
            dim_product,
            (o.c.product_title == dim_product.c.product_title)
            & (o.c.product_category == dim_product.c.product_category),
        )
        .join(dim_date, o.c.order_date == dim_date.c.date)
    )


def _sum(column: Any) -> Any:
    return func.sum(column, type_=Numeric)


def revenue_by_category(_: FromClause, fact_sales: FromClause, dim_product: FromClause) -> Select[Any]:
    """Orders, revenue and profit by product category, the largest revenue first."""
    revenue = _sum(fact_sales.c.revenue)
    return (
        select(
            dim_product.c.product_category.label("category"),
            func.count().label("orders"),
            revenue.label("revenue"),
            _sum(fact_sales.c.total_profit).label("profit"),
        )
        .join_from(fact_sales, dim_product, fact_sales.c.product_id == dim_product.c.product_id)
        .group_by(dim_product.c.product_category)
        .order_by(revenue.desc())
    )


def monthly_revenue(_: FromClause, fact_sales: FromClause, dim_date: FromClause) -> Select[Any]:
    """Orders, customers, revenue and profit by month."""
    month = func.make_date(dim_date.c.year, dim_date.c.month, 1, type_=dim_date.c.date.type)
    return (
        select(
            month.label("month"),
            func.count().label("orders"),
            func.count(fact_sales.c.customer_id.distinct()).label("customers"),
            _sum(fact_sales.c.revenue).label("revenue"),
            _sum(fact_sales.c.total_profit).label("profit"),
        )
        .join_from(fact_sales, dim_date, fact_sales.c.order_date == dim_date.c.date)
        .group_by(month)
        .order_by(month)
    )


def top_products(_: FromClause, fact_sales: FromClause, dim_product: FromClause) -> Select[Any]:
    """Products ranked by revenue."""
    revenue = _sum(fact_sales.c.revenue)
    return (
        select(
            func.rank(type_=BigInteger).over(order_by=revenue.desc()).label("rank"),
            dim_product.c.product_title.label("title"),
            dim_product.c.product_category.label("category"),
            _sum(fact_sales.c.quantity).label("pieces"),
            revenue.label("revenue"),
            _sum(fact_sales.c.total_profit).label("profit"),
        )
        .join_from(fact_sales, dim_product, fact_sales.c.product_id == dim_product.c.product_id)
        .group_by(dim_product.c.product_id, dim_product.c.product_title, dim_product.c.product_category)
        .order_by(revenue.desc(), dim_product.c.product_title)
    )


def customer_purchases(_: FromClause, fact_sales: FromClause, dim_customer: FromClause) -> Select[Any]:
    """Purchases by customer: orders, revenue and days between orders; the largest revenue first."""
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
"""Invented cities, and trees as last names: these people do not exist. Domains and phone numbers are reserved for examples."""
PRICES: Mapping[str, tuple[tuple[str, int], ...]] = {
    "Books": (("Atlas of Small Islands", 3499), ("Bread in Ten Minutes", 1899), ("A Field Guide to Clouds", 2450)),
    "Electronics": (("Noise-Cancelling Headphones", 19999), ("USB-C Hub, 7 Ports", 4599), ('E-Reader 7"', 13900)),
    "Garden": (("Watering Can, 10 l", 2199), ("Pruning Shears", 2795), ("Raised Bed, Larch", 8900)),
    "Home": (("Linen Bedsheet", 5990), ("Cast-Iron Pan, 26 cm", 4450), ("Desk Lamp", 3725)),
    "Sports": (("Yoga Mat", 2999), ("Trail Running Shoes", 11950), ("Kettlebell, 16 kg", 5480)),
    "Toys": (("Wooden Train Set", 4295), ("Building Bricks, 500 Pieces", 3599), ("Kite", 1650)),
}
PRODUCTS = [(title, category, cents) for category, titles in PRICES.items() for title, cents in titles]
MONTH_SHARES = (7, 6, 7, 7, 8, 8, 7, 7, 8, 9, 12, 14)
"""Share of each month in the orders of a year, in percent: there are more orders before Christmas."""
ORDER_DAYS, DELIVERY_DAYS, ORDERS_PER_CUSTOMER = 2 * 365, 8, 4


@lru_cache(maxsize=1)
def _days(last_day: dt.date) -> tuple[list[str], list[float]]:
    """Return order days as text, with the days of delivery after them, and cumulative weights of the order days."""
    days = [last_day + dt.timedelta(days=n + 1) for n in range(-ORDER_DAYS, DELIVERY_DAYS)]
    return [day.isoformat() for day in days], list(accumulate(MONTH_SHARES[day.month - 1] for day in days[:ORDER_DAYS]))


def realistic(rng: random.Random, row: int, last_day: dt.date) -> Mapping[str, str]:
    """Return a plausible order: with returning customers, seasons, and more sales of cheaper products."""
    days, weights = _days(last_day)
    (day,) = rng.choices(range(ORDER_DAYS), cum_weights=weights)
    draw = rng.random()
    # Earlier customers order more often; on average, one of four orders is by a new customer.
    customer = int(draw**1.5 * (1 + row // ORDERS_PER_CUSTOMER))
    first, last = FIRST[customer % len(FIRST)], LAST[customer // len(FIRST) % len(LAST)]
    title, category, original = PRODUCTS[int(rng.random() ** 1.3 * len(PRODUCTS))]
    discount = int(draw * 997) % 8 * 5
    discounted = (original * (100 - discount) + 50) // 100
    second_draw = rng.random()
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
        "delivery_date": days[day + 1 + int(second_draw * 7)],
        "data_collected_at": f"{days[day]}T{int(second_draw * 24):02d}:{int(draw * 60):02d}:00Z",
        "product_category": category,
        "quantity": str(1 + int(second_draw**4 * 5)),
        "order_date": days[day],
    }


def _days_between(f: FromClause) -> ColumnElement[Any]:
    """Return the mean number of days between two orders; NULL for a single order."""
    days = (func.max(f.c.order_date, type_=Date) - func.min(f.c.order_date, type_=Date)).cast(Double)
    return days / func.nullif(func.count() - 1, 0)


page = Page(
    of="fact_sales",
    filters=("dim_product.product_category",),
    measures={
        "revenue": "sum(revenue)",
        "profit": Measure("sum(total_profit)", note="{margin:%} of the revenue"),
        "margin": "sum(total_profit) / sum(revenue)",
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
            "dim_product.product_category",
            bars=("revenue", "profit"),
            table=("orders", "quantity", "revenue", "profit"),
            caption="{first} brings {share} of the revenue.",
        ),
        "products": Ranked(
            ("dim_product.product_title", "dim_product.product_category"),
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
    empty="There are no orders on these days.",
)

REVENUE, PROFIT = ("Amount paid", "$"), ("Revenue minus the cost of the products", "$")

dataset = Dataset(
    name="sales",
    table="orders",
    description="Orders of the shop; personal data of customers is hashed, shortened or redacted.",
    owners=["team:sales"],
    rows=Order,
    key=("order_id",),
    indexes=("order_date", "customer_email"),
    unexpected_columns="refuse",
    freshness=dt.timedelta(days=2),
    warn_limit=RejectLimit(rows=0),
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
                "email_hash": ("HMAC-SHA-256 of the e-mail address, prefixed with the id of its key",),
                "name_hash": ("HMAC-SHA-256 of the name; of one name if the customer has several",),
                "customer_phone": ("Last digits of the telephone number; of one number if the customer has several",),
                "customer_address": ("Delivery address, which is redacted",),
                "first_order": ("Day of the first order",),
                "last_order": ("Day of the last order",),
                "orders": ("Number of orders of the customer",),
            },
        ),
        Aggregate(
            dim_product,
            key=("product_title", "product_category"),
            surrogate="product_id",
            chart=("product_id", "orders"),
            columns={
                "product_title": ("Name of the product",),
                "product_category": ("Category of the product",),
                "product_rating": ("Highest mean rating in an order of the product", "stars"),
                "is_best_seller": ("True if an order marks the product as a best seller",),
                "highest_list_price": ("Highest list price of the product", "$"),
                "orders": ("Number of orders of the product",),
            },
        ),
        Aggregate(
            dim_date,
            key=("date",),
            surrogate="date_id",
            chart=("date", "week"),
            columns={
                "date": ("Day",),
                "day": ("Day of the month",),
                "week": ("Week of the year (ISO 8601)",),
                "month": ("Month, 1 to 12",),
                "quarter": ("Quarter, 1 to 4",),
                "year": ("Year",),
                "weekday": ("Day of the week, 1 (Monday) to 7 (Sunday)",),
                "is_weekend": ("True for Saturdays and Sundays",),
            },
        ),
        Aggregate(
            fact_sales,
            key=("order_id",),
            chart=("order_date", "revenue"),
            columns={
                "order_id": ("Identifier of the order",),
                "customer_id": ("Customer, as in dim_customer",),
                "product_id": ("Product, as in dim_product",),
                "order_date_id": ("Day of the order, as in dim_date",),
                "order_date": ("Day of the order",),
                "delivery_date": ("Day of the delivery",),
                "quantity": ("Number of pieces ordered",),
                "discounted_price": ("Price paid per piece", "$"),
                "original_price": ("List price per piece", "$"),
                "discount_percentage": ("Discount on the list price", "%"),
                "revenue": REVENUE,
                "profit": ("Profit per piece", "$"),
                "total_profit": PROFIT,
            },
        ),
    ),
    views=(
        View(
            revenue_by_category,
            chart=("category", "revenue"),
            columns={
                "category": ("Category of the products",),
                "orders": ("Number of orders",),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
        View(
            monthly_revenue,
            chart=("month", "revenue"),
            columns={
                "month": ("First day of the month",),
                "orders": ("Number of orders",),
                "customers": ("Number of customers who ordered",),
                "revenue": REVENUE,
                "profit": PROFIT,
            },
        ),
        View(
            top_products,
            chart=("rank", "revenue"),
            columns={
                "rank": ("Rank by revenue",),
                "title": ("Name of the product",),
                "category": ("Category of the product",),
                "pieces": ("Number of pieces sold",),
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
                "orders": ("Number of orders",),
                "products": ("Number of different products ordered",),
                "revenue": REVENUE,
                "revenue_per_order": ("Mean revenue per order", "$"),
                "days_between_orders": ("Mean number of days between two orders; empty for a single order", "days"),
            },
        ),
    ),
    page=page,
)
