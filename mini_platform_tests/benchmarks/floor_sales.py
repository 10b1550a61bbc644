"""The floor of sales: what Postgres alone needs for the orders and their star, in one transaction.

COPY of the text into an unlogged table, one upsert into the table of orders, then the four tables of the star, each by one
statement, with the keys, indexes and foreign keys that ours have. There are no results, hashes, quarantine, ledger or lines.
Keys and indexes are there before the rows, as by plain SQL, or are built after them, which is the best that Postgres can do:

    python -m mini_platform_tests.benchmarks.floor_sales URL FILE before|after
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psycopg2

TABLES = """
DROP TABLE IF EXISTS floor_staging, floor_orders, floor_customer, floor_product, floor_date, floor_sales;
CREATE UNLOGGED TABLE floor_staging (
    order_id text, customer_name text, customer_email text, customer_phone text, customer_address text,
    product_title text, product_rating text, discounted_price text, original_price text, discount_percentage text,
    is_best_seller text, delivery_date text, data_collected_at text, product_category text, quantity text, order_date text);
CREATE TABLE floor_orders (
    order_id text COLLATE "C" NOT NULL, customer_name text COLLATE "C" NOT NULL,
    customer_email text COLLATE "C" NOT NULL, customer_phone text COLLATE "C", customer_address text COLLATE "C",
    product_title text COLLATE "C" NOT NULL, product_rating float8, discounted_price numeric(38, 2) NOT NULL,
    original_price numeric(38, 2) NOT NULL, discount_percentage bigint NOT NULL, is_best_seller boolean NOT NULL,
    delivery_date date, data_collected_at timestamptz, product_category text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL, order_date date NOT NULL, profit_per_unit numeric(38, 2) NOT NULL,
    total_profit numeric(38, 2) NOT NULL, file_id bigint NOT NULL, loaded_at timestamptz NOT NULL);
CREATE TABLE floor_customer (
    customer_id bigint GENERATED ALWAYS AS IDENTITY, email text COLLATE "C" NOT NULL, name text COLLATE "C",
    first_order date, last_order date, orders bigint);
CREATE TABLE floor_product (
    product_id bigint GENERATED ALWAYS AS IDENTITY, title text COLLATE "C" NOT NULL, category text COLLATE "C" NOT NULL,
    highest_list_price numeric, orders bigint);
CREATE TABLE floor_date (
    date date NOT NULL, day integer, week integer, month integer, quarter integer, year integer, weekday integer,
    is_weekend boolean);
CREATE TABLE floor_sales (
    order_id text COLLATE "C" NOT NULL, customer_id bigint, product_id bigint, order_date date, delivery_date date,
    quantity bigint, discounted_price numeric, original_price numeric, revenue numeric, profit numeric);
"""
KEYS = {
    "floor_orders": """
        ALTER TABLE floor_orders ADD PRIMARY KEY (order_id);
        CREATE INDEX ON floor_orders (order_date);
        CREATE INDEX ON floor_orders (customer_email)""",
    "floor_customer": "ALTER TABLE floor_customer ADD PRIMARY KEY (customer_id), ADD UNIQUE (email)",
    "floor_product": "ALTER TABLE floor_product ADD PRIMARY KEY (product_id), ADD UNIQUE (title, category)",
    "floor_date": "ALTER TABLE floor_date ADD PRIMARY KEY (date)",
    "floor_sales": """
        ALTER TABLE floor_sales ADD PRIMARY KEY (order_id);
        CREATE INDEX ON floor_sales (customer_id);
        CREATE INDEX ON floor_sales (product_id);
        CREATE INDEX ON floor_sales (order_date);
        ALTER TABLE floor_sales ADD FOREIGN KEY (customer_id) REFERENCES floor_customer,
            ADD FOREIGN KEY (product_id) REFERENCES floor_product, ADD FOREIGN KEY (order_date) REFERENCES floor_date""",
}
FILLS = {
    "floor_orders": """
        INSERT INTO floor_orders
        SELECT order_id, customer_name, customer_email, customer_phone, customer_address, product_title,
            product_rating::float8, discounted_price::numeric, original_price::numeric, discount_percentage::bigint,
            is_best_seller::boolean, delivery_date::date, data_collected_at::timestamptz, product_category,
            quantity::bigint, order_date::date, round(discounted_price::numeric - 0.6 * original_price::numeric, 2),
            round(discounted_price::numeric - 0.6 * original_price::numeric, 2) * quantity::bigint, 1, now()
        FROM floor_staging""",
    "floor_customer": """
        INSERT INTO floor_customer (email, name, first_order, last_order, orders)
        SELECT customer_email, max(customer_name), min(order_date), max(order_date), count(*)
        FROM floor_orders GROUP BY customer_email""",
    "floor_product": """
        INSERT INTO floor_product (title, category, highest_list_price, orders)
        SELECT product_title, product_category, max(original_price), count(*)
        FROM floor_orders GROUP BY product_title, product_category""",
    "floor_date": """
        INSERT INTO floor_date
        SELECT order_date, extract(day FROM order_date), extract(week FROM order_date), extract(month FROM order_date),
            extract(quarter FROM order_date), extract(year FROM order_date), extract(isodow FROM order_date),
            extract(isodow FROM order_date) >= 6
        FROM floor_orders GROUP BY order_date""",
    "floor_sales": """
        INSERT INTO floor_sales
        SELECT order_id, customer_id, product_id, date, delivery_date, quantity, discounted_price, original_price,
            discounted_price * quantity, total_profit
        FROM floor_orders JOIN floor_customer ON email = customer_email
        JOIN floor_product ON title = product_title AND category = product_category JOIN floor_date ON date = order_date""",
}
COLUMNS = "customer_name customer_email product_title discounted_price original_price quantity order_date total_profit"
OVERWRITE = " ON CONFLICT (order_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in COLUMNS.split()
)


def main(url: str, path: Path, keys: str) -> float:
    """Load a clean CSV file; returns the seconds it took, connecting aside."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        if keys == "before":
            cursor.execute(";".join(KEYS.values()))
        connection.commit()
        start = time.perf_counter()
        cursor.execute("SET work_mem = '256MB'; SET maintenance_work_mem = '512MB'")
        with path.open("rb") as source:
            cursor.copy_expert("COPY floor_staging FROM STDIN (FORMAT csv, HEADER)", source, 2**18)
        for table, fill in FILLS.items():
            if keys == "before":
                cursor.execute(fill + (OVERWRITE if table == "floor_orders" else ""))
            else:  # TRUNCATE in the same transaction lets the server skip the log.
                cursor.execute(f"TRUNCATE {table}; {fill}; {KEYS[table]}")
            cursor.execute(f"ANALYZE {table}")
        connection.commit()
        return time.perf_counter() - start


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]):.3f}\n")
