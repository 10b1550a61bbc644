"""Customers: one row per customer, from CSV exports and from JSON."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Date, FromClause, Select, func, select

from mini_platform import Aggregate, Csv, Dataset, Field, Json, Page, RowModel


class Customer(RowModel):
    """A customer: a line of a CSV export, or a JSON object with nested objects under `user`."""

    index: int | None = Field("Number of the row in the export", aliases=("user_index",), optional=True, ge=0)
    customer_id: str = Field(
        "Identifier of the customer", aliases=("user_id", "id"), str_length={"min_value": 1, "max_value": 64}
    )
    first_name: str = Field("First name", aliases=("user_first_name", "user_name_first"), personal="mask")
    last_name: str = Field("Last name", aliases=("user_last_name", "user_name_last"), personal="mask")
    company: str = Field("Company", aliases=("user_company", "user_company_name"))
    city: str = Field("City", aliases=("user_address_city", "user_city"))
    country: str = Field(
        "Country",
        aliases=("user_address_country", "user_country"),
        str_length={"min_value": 1, "max_value": 100},
    )
    phone_1: str | None = Field(
        "Telephone number", aliases=("user_contact_phone_1", "user_contact_phone"), personal="mask"
    )
    phone_2: str | None = Field("Second telephone number", aliases=("user_contact_phone_2",), personal="mask")
    email: str = Field("E-mail address", aliases=("user_contact_email", "user_email"), personal="mask", email=True)
    subscription_date: dt.date = Field(
        "Day on which the customer subscribed", aliases=("user_subscription_date", "subscription_day")
    )
    website: str | None = Field("Website", aliases=("user_contact_website", "user_website"), personal="mask")
    subscription_month: dt.date = Field(
        "First day of the month of subscription_date", derived=lambda col: col("subscription_date").dt.truncate("1mo")
    )
    source_file: str = Field("File with the latest values of the row", system="file")
    ingested_at: dt.datetime = Field("Time at which the row last changed", system="last_loaded")


def customers_by_country(c: FromClause) -> Select[Any]:
    """Customers by country."""
    return select(
        c.c.country,
        func.count().label("customers"),
        func.count(c.c.phone_1).label("with_phone"),
        func.min(c.c.subscription_date, type_=Date).label("first_subscription"),
        func.max(c.c.subscription_date, type_=Date).label("last_subscription"),
    ).group_by(c.c.country)


def subscriptions_by_month(c: FromClause) -> Select[Any]:
    """Customers by the month in which they subscribed."""
    return select(c.c.subscription_month, func.count().label("customers")).group_by(c.c.subscription_month)


FIRST = ("Ada", "Björn", "Chloé", "Dmitri", "Esra", "Fatima", "Grace", "Hiro", "Inés", "José", "Olga", "Søren")
LAST = ("Abara", "Berg", "Costa", "Dubois", "Fischer", "García", "Haddad", "Ivanova", "Kim", "Novák", "Patel")
PLACES = (
    *(("Norway", "Oslo"), ("Norway", "Bergen"), ("Kenya", "Nairobi"), ("Japan", "Ōsaka"), ("Peru", "Lima")),
    *(("Portugal", "Porto"), ("India", "Pune"), ("Canada", "Québec"), ("Côte d'Ivoire", "Abidjan"), ("Chile", "Arica")),
)
TRADES = ("Bakery", "Bikes", "Books", "Instruments", "Timber", "Travel")
FORMS = ("{0} {1}", "{0}, {2} & Sons {1}", "{0} and {2} {1}")


DAYS = 1800
"""Days on which generated customers subscribe, the last ones more often."""


def realistic(rng: random.Random, row: int, last_day: dt.date) -> Mapping[str, str]:
    """Return an invented person: names from a list, phone numbers (555-01xx) and domains (example.*) for examples."""
    first, last = rng.choice(FIRST), rng.choice(LAST)
    country, city = rng.choice(PLACES)
    company = rng.choice(FORMS).format(rng.choice(LAST), rng.choice(TRADES), rng.choice(LAST))
    day = last_day - dt.timedelta(days=int(rng.random() ** 1.5 * DAYS))
    user = f"{first[0]}{row}".lower().replace("ø", "o")
    domain = rng.choice(("example.com", "example.net", "example.org"))
    return {
        "index": str(row + 1),
        "customer_id": f"C{row:08d}",
        "first_name": first,
        "last_name": last,
        "company": company,
        "city": city,
        "country": country,
        "phone_1": f"+1-{rng.randrange(200, 999)}-555-01{rng.randrange(100):02d}" if rng.random() < 0.9 else "",
        "phone_2": f"({rng.randrange(200, 999)})555-01{rng.randrange(100):02d}x{rng.randrange(1, 999)}"
        if rng.random() < 0.4
        else "",
        "email": f"{user}@{domain}",
        "subscription_date": day.isoformat(),
        "website": f"https://www.{domain}/{user}/" if rng.random() < 0.7 else "",
    }


dataset = Dataset(
    name="customers",
    table="customers",
    description="Customers and their contact data.",
    owners=["team:customers"],
    rows=Customer,
    key=("customer_id",),
    sources=(Csv(), Json()),
    realistic=realistic,
    aggregates=(
        Aggregate(
            customers_by_country,
            key=("country",),
            chart=("country", "customers"),
            columns={
                "country": ("Country",),
                "customers": ("Number of customers in the country",),
                "with_phone": ("Number of customers with a telephone number",),
                "first_subscription": ("Day of the first subscription",),
                "last_subscription": ("Day of the last subscription",),
            },
        ),
        Aggregate(
            subscriptions_by_month,
            key=("subscription_month",),
            chart=("subscription_month", "customers"),
            columns={
                "subscription_month": ("First day of the month",),
                "customers": ("Number of customers who subscribed",),
            },
        ),
    ),
    page=Page(),
)
