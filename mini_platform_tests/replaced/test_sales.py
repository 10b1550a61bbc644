"""The claims of the sales system, and its files and queries, replayed."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from collections import defaultdict
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from mini_platform.platform import Platform
from mini_platform.warehouse.connection import libpq_url
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support.claims import Claim, different, held, partly
from mini_platform_tests.support.databases import load_files, open_platform
from mini_platform_tests.support.examples import sales

HERE = "replaced/test_sales.py::"
STAR = f"{HERE}test_the_star_has_its_columns"
COMPOSE = "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says"
CLAIMS: list[Claim] = [
    held(
        "files are taken from an S3 bucket",
        "landing/test_inboxes_landing.py::test_files_are_landed_once_and_loaded",
        "landing/test_inboxes_runs.py::test_a_run_by_hand_takes_what_stands_everywhere",
    ),
    held("a sensor watches the bucket", "landing/test_inboxes_runs.py::test_the_sensor_visits_beside_its_ticks"),
    held(
        "loaded files go to processed/ in the bucket, refused ones to quarantine/",
        "landing/test_inboxes_landing.py::test_loaded_files_are_archived_and_refused_ones_lie_beside_their_rejects",
    ),
    held("a sensor watches the drop folder", "faults/test_sensor.py::test_sensor_asks_for_a_run"),
    held("bad rows are quarantined with their reasons", f"{HERE}test_bad_rows_are_rejected_with_their_reasons"),
    held(
        "its own files are valid: dates or times in data_collected_at, midnights, 33.0, True and False",
        f"{HERE}test_the_files_of_its_generator_are_loaded",
    ),
    held(
        "delivery before the order is a warning, as of about half of the generator's rows",
        f"{HERE}test_the_files_of_its_generator_are_loaded",
    ),
    held("e-mail addresses are hashed", f"{HERE}test_personal_data_is_hashed_shortened_and_redacted"),
    held(
        "of telephone numbers the last four digits are shown",
        f"{HERE}test_personal_data_is_hashed_shortened_and_redacted",
    ),
    held("addresses are redacted", f"{HERE}test_personal_data_is_hashed_shortened_and_redacted"),
    held("profit is computed", "datasets/test_sales.py::test_profits_are_exact"),
    held("dim_customer with masked telephone number and address", STAR),
    held("dim_product with rating, best seller and category", STAR),
    held("dim_date with date_id, year and month", STAR),
    held("fact_sales with discount, profit per piece and order_date_id", STAR),
    held("the star has keys and foreign keys", "datasets/test_sales.py::test_foreign_keys"),
    held("revenue by category, as a query of the document", f"{HERE}test_its_queries_run_as_they_are_written"),
    held("profit by month, as a query of the document", f"{HERE}test_its_queries_run_as_they_are_written"),
    held("a view by category", "datasets/test_sales.py::test_views"),
    held("a view by month", "datasets/test_sales.py::test_views"),
    held("an order that changed is updated", "datasets/test_sales.py::test_reloads_updates_and_redrives"),
    held("a file over 1 GB is loaded", f"{HERE}test_a_file_over_1_gb"),
    held("logs", "config/test_logs.py::test_what_became_of_a_file"),
    held(
        "runs are seen in a web interface, here that of Dagster in place of Airflow",
        "dagster/test_definitions.py::test_checks_and_sensors",
    ),
    held("it runs by itself, as files arrive and not at 2 AM", "faults/test_sensor.py::test_sensor_asks_for_a_run"),
    partly(
        "mails of success and of failure",
        "of failures at once; of success there is a daily digest, as a mail for each file is soon not read",
        "operations/test_alerts.py::test_a_refused_file_is_reported_once_and_then_its_correction",
        "operations/test_alerts.py::test_the_digest",
        "operations/test_alerts.py::test_a_run_that_fails",
    ),
    held("secrets are in Vault", "config/test_setting_sources.py::test_vault_by_approle_from_files"),
    held(
        "connections to Postgres are encrypted",
        "warehouse/test_tls.py::test_the_whole_platform_goes_over_verified_connections",
        "warehouse/test_tls.py::test_client_certificates",
    ),
    partly(
        "dashboards in Metabase",
        "no Metabase runs where these tests run: a server speaks the calls of its documentation, and a real Postgres answers "
        "the questions",
        "roles/test_metabase.py::test_an_empty_metabase_gets_its_dashboards_once",
        "roles/test_metabase.py::test_every_question_is_answered_to_the_bi_role",
    ),
    held(
        "a role that only reads",
        "roles/test_privileges.py::test_every_role_may_do_with_every_table_what_is_declared_and_nothing_else",
    ),
    held("backup", "operations/test_backup.py::test_a_lost_machine_comes_back_from_the_backup_alone"),
    partly(
        "Docker Compose",
        "no image is built where these tests run: the files are validated, and what they start is started by hand",
        COMPOSE,
        "operations/test_deployment.py::test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together",
    ),
    different(
        "a script that makes certificates",
        "the platform takes the certificates that a company has (docs/operations/encryption.md)",
    ),
    different(
        "objects are encrypted at rest by KES",
        "disks and buckets encrypt what they store; the platform keeps no keys for that (docs/operations/encryption.md)",
    ),
    held("a generator writes orders", "operations/test_sampling.py::test_same_arguments_give_the_same_bytes"),
]

CATEGORIES = ("Audio", "Laptops", "Phones", "Wearables")
ROWS = 240
"""Rows of a generated file; every twelfth is bad."""


def generated(seed: int = 7) -> list[dict[str, str]]:
    """Return rows as the generator of the sales system writes them: pandas' dates and numbers, deliveries before orders."""
    rng = random.Random(seed)  # noqa: S311 - sample data, not secrets
    rows = []
    for n in range(ROWS):
        day = dt.date(2025, 1, 1) + dt.timedelta(days=rng.randrange(300))
        delivery = day + dt.timedelta(days=rng.randint(-7, 7))
        original = Decimal(rng.randint(500, 90_000)) / 100
        discount = rng.randrange(0, 60, 3)
        customer, product = rng.randrange(40), rng.randrange(12)
        rows.append(
            {
                "order_id": f"ORD{n:07}",
                "customer_name": f"Customer {customer}",
                "customer_email": f"customer{customer}@example.com",
                "customer_phone": f"+1-202-555-{customer:04}",
                "customer_address": f"{customer} Oak Street, Springfield",
                "product_title": f"Product {product}",
                "product_rating": f"{3 + product % 20 / 10:.1f}",
                "discounted_price": str((original * (100 - discount) / 100).quantize(Decimal("0.01"))),
                "original_price": str(original),
                "discount_percentage": f"{discount}.0" if n % 2 else str(discount),
                "is_best_seller": str(product % 3 == 0),
                "delivery_date": str(delivery),
                "data_collected_at": (str(day), f"{day}T00:00:00", f"{day} 06:30:00", f"{day}T06:30:00Z")[n % 4],
                "product_category": CATEGORIES[product % 4],
                "quantity": str(rng.randint(1, 5)),
                "order_date": f"{day}T00:00:00" if n % 3 else str(day),
            }
        )
    for n, (column, value) in enumerate(BAD * (ROWS // 12 // len(BAD))):
        rows[12 * n][column] = value
    return rows


BAD = (
    ("order_id", "ORD1"),
    ("customer_email", "nobody"),
    ("discounted_price", "-1"),
    ("order_date", "10/15/2025"),
    ("quantity", "0"),
)
"""Cells that the generator spoils."""


@pytest.fixture(scope="module")
def generated_orders(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that loaded a generated file; its tests only read."""
    folder = tmp_path_factory.mktemp("sales")
    with open_platform(server, template, folder) as platform:
        create_all(platform.engine, [sales])
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(generated()[0]))
        writer.writeheader()
        writer.writerows(generated())
        (folder / "orders.csv").write_text(file.getvalue())
        load_files(platform, sales, folder / "orders.csv")
        yield platform


def valid_rows() -> list[dict[str, str]]:
    return [row for n, row in enumerate(generated()) if n % 12]


def test_the_files_of_its_generator_are_loaded(generated_orders: Platform) -> None:
    with generated_orders.engine.connect() as conn:
        file = conn.execute(text("SELECT status, rows_inserted, rows_rejected, rule_counts FROM ops.files")).one()
        stored = conn.execute(text("SELECT order_id, order_date, data_collected_at FROM production.orders")).all()
    assert tuple(file)[:3] == ("loaded", len(valid_rows()), ROWS // 12)
    late = [row for row in generated() if row["delivery_date"] < row["order_date"][:10] and row["order_date"][4] == "-"]
    assert file.rule_counts["delivery_date_not_before_order"] == len(late) > ROWS // 4
    assert {row.order_id: (row.order_date, row.data_collected_at) for row in stored} == {
        row["order_id"]: (
            dt.date.fromisoformat(row["order_date"][:10]),
            dt.datetime.fromisoformat(row["data_collected_at"].removesuffix("Z")).replace(tzinfo=dt.UTC),
        )
        for row in valid_rows()
    }


def test_bad_rows_are_rejected_with_their_reasons(generated_orders: Platform) -> None:
    with generated_orders.engine.connect() as conn:
        rejects = conn.execute(text("SELECT _line, _rules FROM quarantine.orders ORDER BY _line")).all()
    rules = ("order_id_str_length", "customer_email_email", "discounted_price_gt", "order_date_is_date")
    rules = (*rules, "quantity_ge")
    assert [(line, rules[n % 5] in broken) for n, (line, broken) in enumerate(rejects)] == [
        (2 + 12 * n, True) for n in range(ROWS // 12)
    ]


def test_personal_data_is_hashed_shortened_and_redacted(generated_orders: Platform) -> None:
    with generated_orders.engine.connect() as conn:
        customers = conn.execute(
            text("SELECT email_hash, customer_phone, customer_address FROM analytics.dim_customer")
        ).all()
    expected = {row["customer_phone"][-4:] for row in valid_rows()}
    assert len({row.email_hash for row in customers}) == len(expected) == len(customers)
    assert {row.customer_phone for row in customers} == {f"***-***-{digits}" for digits in expected}
    assert {row.customer_address for row in customers} == {"[redacted]"}


def test_the_star_has_its_columns(generated_orders: Platform) -> None:
    with generated_orders.engine.connect() as conn:
        products = conn.execute(
            text("SELECT product_title, product_category, product_rating, is_best_seller FROM analytics.dim_product")
        )
        assert {tuple(row) for row in products} == {
            (
                row["product_title"],
                row["product_category"],
                float(row["product_rating"]),
                row["is_best_seller"] == "True",
            )
            for row in valid_rows()
        }
        facts = conn.execute(
            text(
                "SELECT order_id, discount_percentage, quantity, profit, d.date, d.year, d.month "
                "FROM analytics.fact_sales JOIN analytics.dim_date d ON order_date_id = date_id"
            )
        )
        assert {tuple(row) for row in facts} == {
            (
                row["order_id"],
                int(float(row["discount_percentage"])),
                int(row["quantity"]),
                unit_profit(row),
                day := dt.date.fromisoformat(row["order_date"][:10]),
                day.year,
                day.month,
            )
            for row in valid_rows()
        }


def unit_profit(row: dict[str, str]) -> Decimal:
    cost = Decimal("0.6") * Decimal(row["original_price"])
    return (Decimal(row["discounted_price"]) - cost).quantize(Decimal("0.01"), ROUND_HALF_UP)


REVENUE_BY_CATEGORY = """
SELECT p.product_category, SUM(f.discounted_price * f.quantity)
FROM fact_sales f JOIN dim_product p ON f.product_id = p.product_id
GROUP BY p.product_category
"""
PROFIT_BY_MONTH = """
SELECT d.year, d.month, SUM(f.profit)
FROM fact_sales f JOIN dim_date d ON f.order_date_id = d.date_id
GROUP BY d.year, d.month
ORDER BY d.year, d.month
"""


def test_its_queries_run_as_they_are_written(generated_orders: Platform) -> None:
    """The document's two queries, by a client that knows nothing of the platform, have the figures of its rows."""
    revenue: defaultdict[str, Decimal] = defaultdict(Decimal)
    profit: defaultdict[tuple[int, int], Decimal] = defaultdict(Decimal)
    for row in valid_rows():
        day = dt.date.fromisoformat(row["order_date"][:10])
        revenue[row["product_category"]] += Decimal(row["discounted_price"]) * int(row["quantity"])
        profit[day.year, day.month] += unit_profit(row)
    conn = psycopg2.connect(libpq_url(generated_orders.engine.url))
    try:
        with conn.cursor() as cursor:
            cursor.execute(REVENUE_BY_CATEGORY)
            assert dict(cursor.fetchall()) == revenue
            cursor.execute(PROFIT_BY_MONTH)
            assert cursor.fetchall() == [(*month, total) for month, total in sorted(profit.items())]
    finally:
        conn.close()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_file_over_1_gb(platform: Platform, tmp_path: Path) -> None:
    """The addresses are long, as none of the columns that are stored may be."""
    path, wide = tmp_path / "large.csv", " " * 200_000
    rows = valid_rows()[:100]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for n in range(5_500):
            row = rows[n % 100]
            writer.writerow(row | {"order_id": f"L{n:09}", "customer_address": row["customer_address"] + wide})
    assert path.stat().st_size > 2**30
    load_files(platform, sales, path)
    with platform.engine.connect() as conn:
        file_row = conn.execute(text("SELECT status, bytes, rows_inserted, rows_rejected FROM ops.files")).one()
        assert tuple(file_row) == ("loaded", path.stat().st_size, 5_500, 0)
        assert conn.scalar(text("SELECT count(*) FROM analytics.fact_sales")) == 5_500
