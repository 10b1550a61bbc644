"""Customers: a row that changed is updated, in whichever form it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mini_platform.platform import Platform
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import customers

HEADER = "Index,Customer Id,First Name,Last Name,Company,City,Country,Phone 1,Phone 2,Email,Subscription Date,Website"
Row = tuple[str, str, str]
"""Customer id, city, telephone."""


def as_csv(*rows: Row) -> str:
    lines = [f"{n},{who},Ada,Berg,Kim Books,{city},Norway,{phone},,ada@example.org,2024-02-03,"
             for n, (who, city, phone) in enumerate(rows, start=1)]  # fmt: skip
    return "\n".join([HEADER, *lines, ""])


def as_json(*rows: Row) -> str:
    people = [
        {
            "index": n,
            "user": {
                "id": who,
                "name": {"first": "Ada", "last": "Berg"},
                "company": {"name": "Kim Books"},
                "address": {"city": city, "country": "Norway"},
                "contact": {"phone": phone, "email": "ada@example.org"},
                "subscription_date": "2024-02-03",
            },
        }
        for n, (who, city, phone) in enumerate(rows, start=1)
    ]
    return json.dumps(people)


def test_a_changed_row_updates_by_csv_and_by_json(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    before: dict[str, Any] = {}

    def load(name: str, content: str) -> tuple[tuple[int, ...], dict[str, str]]:
        """The accounting of a file, and of the rows that were written: the column that is there to change."""
        (tmp_path / name).write_text(content)
        (file_id,) = pipeline(customers, tmp_path / name)
        with platform.engine.connect() as conn:
            counts = (
                "SELECT rows_inserted, rows_updated, rows_unchanged, rows_rejected FROM ops.files WHERE file_id = :id"
            )
            accounting = tuple(conn.execute(text(counts), {"id": file_id}).one())
            rows = {row.customer_id: row for row in conn.execute(text("SELECT * FROM production.customers"))}
        moved = {who for who, row in rows.items() if who not in before or row.ingested_at > before[who].ingested_at}
        for who in rows.keys() - moved:
            assert rows[who] == before[who], "what was not written is as it was"
        before.update(rows)
        assert {rows[who].source_file for who in moved} <= {name}
        return accounting, {who: f"{rows[who].city} {rows[who].phone_1}" for who in moved}

    ada, ben = ("C1", "Oslo", "1"), ("C2", "Bergen", "2")
    assert load("a.csv", as_csv(ada, ben)) == ((2, 0, 0, 0), {"C1": "Oslo 1", "C2": "Bergen 2"})
    moved = ("C1", "Tromsø", "1")
    assert load("b.csv", as_csv(moved, ben)) == ((0, 1, 1, 0), {"C1": "Tromsø 1"})
    called = ("C2", "Bergen", "3")
    assert load("c.json", as_json(moved, called)) == ((0, 1, 1, 0), {"C2": "Bergen 3"})
    assert load("d.json", as_json(moved, called, ("C3", "Oslo", "4"))) == ((1, 0, 2, 0), {"C3": "Oslo 4"})
    assert load("e.csv", as_csv(ada, called)) == ((0, 1, 1, 0), {"C1": "Oslo 1"}), "and back"
