"""Marks of dirty groups: each consumer has its own, by whatever it groups, and takes away those that it has seen to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Integer, Select, extract, insert, select

from mini_platform.warehouse import changes, dirty_groups
from mini_platform.warehouse.dirty_groups import Consumer, acknowledge, is_stale, mark, pending, take
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.examples import weather

PRODUCTION = dataset_tables(weather).production
YEARS = Consumer("years", lambda rows: [extract("year", rows.c.date).cast(Integer).label("year")])
WHOLE = Consumer("whole", None)
CONSUMERS = [*dirty_groups.consumers(weather), YEARS, WHOLE]
SUMMARY = changes.aggregate("summary")


@pytest.fixture
def rows(engine: Engine) -> None:
    """Two stations in three years."""
    days = ("2023-12-31", "2024-01-01", "2024-01-02", "2025-01-01")
    measured = [
        {"station_id": name, "date": day, "_file_id": 1, "_loaded_at": "2025-01-02"} for name in "AB" for day in days
    ]
    with engine.begin() as conn:
        conn.execute(insert(PRODUCTION), measured)


def of(station: str, year: int) -> Select[Any]:
    return select(PRODUCTION).where(PRODUCTION.c.station_id == station, extract("year", PRODUCTION.c.date) == year)


def groups(conn: Connection, consumer: str) -> list[Mapping[str, Any]] | None:
    """Return the keys of the groups that a consumer has to compute again; None: all."""
    keys = pending(conn, weather, consumer).groups
    return None if keys is None else sorted(map(json.loads, keys), key=str)


def test_a_change_marks_the_groups_of_each_consumer_that_it_touches(engine: Engine, rows: None) -> None:
    with engine.begin() as conn:
        mark(conn, weather, of("A", 2024), CONSUMERS)
    with engine.connect() as conn:
        assert groups(conn, SUMMARY) == [{"station_id": "A"}]
        assert groups(conn, "years") == [{"year": 2024}]
        assert groups(conn, "whole") is None
    with engine.begin() as conn:
        mark(conn, weather, None, [YEARS])
        assert groups(conn, "years") is None


def test_a_change_of_no_row_marks_nothing(engine: Engine, rows: None) -> None:
    with engine.begin() as conn:
        mark(conn, weather, of("C", 2024), CONSUMERS)
        assert [groups(conn, consumer.name) for consumer in CONSUMERS] == [[]] * len(CONSUMERS)


def test_one_consumer_that_falls_behind_holds_up_nobody(engine: Engine, rows: None) -> None:
    with engine.begin() as conn:
        mark(conn, weather, of("A", 2024), CONSUMERS)
        for aggregate in weather.aggregates:
            take(conn, weather, changes.aggregate(aggregate.name))
    with engine.begin() as conn:
        mark(conn, weather, of("B", 2025), [YEARS])
        assert not is_stale(conn, weather), "no aggregate waits"
        assert groups(conn, "years") == [{"year": 2024}, {"year": 2025}]


def test_what_was_marked_since_it_was_read_stays(engine: Engine, rows: None) -> None:
    with engine.begin() as conn:
        mark(conn, weather, of("A", 2024), [YEARS])
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as reading:
        marks = pending(reading, weather, "years")
        with engine.begin() as conn:
            mark(conn, weather, of("A", 2024), [YEARS])
            mark(conn, weather, of("A", 2023), [YEARS])
        assert pending(reading, weather, "years") == marks
    with engine.begin() as conn:
        acknowledge(conn, marks)
        assert groups(conn, "years") == [{"year": 2023}, {"year": 2024}]
        acknowledge(conn, pending(conn, weather, "years"))
        assert groups(conn, "years") == []


def test_too_many_groups_are_all(engine: Engine, monkeypatch: pytest.MonkeyPatch, rows: None) -> None:
    monkeypatch.setattr(dirty_groups, "MOST_GROUPS", 1)
    with engine.begin() as conn:
        mark(conn, weather, of("A", 2024), [YEARS])
        assert groups(conn, "years") == [{"year": 2024}]
        mark(conn, weather, select(PRODUCTION), [YEARS])
        assert groups(conn, "years") is None
