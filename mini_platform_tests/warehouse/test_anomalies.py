"""Loads against the loads before them: what is unusual, and that ordinary weeks raise nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mini_platform import Dataset
from mini_platform.datasets import all_datasets
from mini_platform.landing import folder
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse import anomalies

Load = Callable[..., None]


@pytest.fixture
def weather() -> Dataset:
    return all_datasets()["weather"]


@pytest.fixture
def load_day(platform: Platform, weather: Dataset, tmp_path: Path) -> Load:
    """Load one file as one run: so many rows, some of them bad, with temperatures around a mean, some of them empty."""
    days = iter(range(1000))
    rng = random.Random(1)  # noqa: S311 - sample data, not secrets

    def run(rows: int = 200, bad: int = 2, mean: float = 10.0, empty: int = 4) -> None:
        day = next(days)
        lines = ["station_id,date,temp_c,precip_mm"]
        for row in range(rows):
            temperature = "warm" if row < bad else "" if row < bad + empty else f"{rng.gauss(mean, 3):.1f}"
            lines.append(f"S{row},{2000 + day // 300}-{1 + day // 25 % 12:02}-{1 + day % 25:02},{temperature},1.0")
        path = tmp_path / f"day-{day}.csv"
        path.write_text("\n".join(lines) + "\n")
        dropped_file = folder.DroppedFile(path.name, path, "")
        assert all(row for _, row in folder.land(platform.engine, weather, platform.store, [dropped_file], "test"))
        process(platform, weather, run_id=f"run-{day}")

    return run


def unusual(platform: Platform, dataset: Dataset) -> set[tuple[str, str]]:
    with platform.engine.connect() as conn:
        return {(figure.kind, figure.name) for figure in anomalies.figures(conn, dataset) if figure.is_unusual}


def test_before_the_first_load_there_is_nothing_to_compare(platform: Platform, weather: Dataset) -> None:
    with platform.engine.connect() as conn:
        assert anomalies.figures(conn, weather) == []


def test_too_few_loads_say_nothing(platform: Platform, weather: Dataset, load_day: Load) -> None:
    for _ in range(anomalies.FEWEST_LOADS - 1):
        load_day()
    load_day(rows=5000, mean=40, empty=3000)
    assert unusual(platform, weather) == set()


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({}, set()),
        ({"rows": 240, "bad": 4, "mean": 10.5, "empty": 9}, set()),
        ({"rows": 20, "bad": 0, "empty": 0}, {("rows", "rows")}),
        ({"rows": 900, "bad": 9, "empty": 18}, {("rows", "rows")}),
        ({"bad": 40}, {("rejects", "rejected share")}),
        ({"empty": 100}, {("nulls", "temp_c")}),
        ({"mean": 40}, {("means", "temp_c")}),
    ],
)
def test_what_is_out_of_the_usual_range(
    platform: Platform, weather: Dataset, load_day: Load, odd: dict[str, int], expected: set[tuple[str, str]]
) -> None:
    for size in (180, 190, 200, 200, 205, 210, 220, 200, 195):
        load_day(rows=size)
    load_day(**odd)
    assert unusual(platform, weather) == expected


def test_a_few_odd_loads_do_not_move_what_is_usual(platform: Platform, weather: Dataset, load_day: Load) -> None:
    for number in range(12):
        load_day(mean=40 if number in (3, 7) else 10)
    load_day(mean=40)
    assert unusual(platform, weather) == {("means", "temp_c")}


def test_what_is_usual_follows(platform: Platform, weather: Dataset, load_day: Load) -> None:
    for number in range(24):
        load_day(mean=10 if number < 8 else 40)
    assert unusual(platform, weather) == set()
