"""Files of sales."""

from __future__ import annotations

from mini_platform_tests.support.examples import sales

HEADER = ",".join(column.name for column in sales.read_columns)


def order(number: int, email: str, name: str = "Somebody", title: str = "Kite", **cells: str) -> str:
    values = {
        "order_id": f"T{number:09d}",
        "customer_name": name,
        "customer_email": email,
        "customer_phone": "+1 202 555 0199",
        "customer_address": "1 Oak Street",
        "product_title": title,
        "product_rating": "4",
        "discounted_price": "9.00",
        "original_price": "10.00",
        "discount_percentage": "10",
        "is_best_seller": "true",
        "delivery_date": "2024-05-03",
        "data_collected_at": "2024-05-02T10:00:00Z",
        "product_category": "Toys",
        "quantity": "2",
        "order_date": "2024-05-02",
    } | cells
    return ",".join(f'"{value}"' if set(value) & set(',"\n') else value for value in values.values())


def csv_of(*rows: str, end: str = "\n") -> bytes:
    return end.join([HEADER, *rows, ""]).encode()
