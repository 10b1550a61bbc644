"""Signals: the statistics are those of Python's exact fractions, and what is no payload is rejected with its reason."""

from __future__ import annotations

import json
import math
import os
import random
import time
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from mini_platform.rows.readers import ReadLimits
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.validation import validate
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import signals as dataset

NEARLY = 4e-16
"""Two roundings, relative to the deviation."""
EXACT = Context(prec=60, Emin=-999_999, Emax=999_999)
WHEN = "2024-01-01T12:00:00+02:00"
UTC = "2024-01-01T10:00:00.000000+00:00"


def validated(folder: Path, *payloads: Any) -> list[dict[str, Any]]:
    """Payloads, as objects or as text, on lines of one file; the rows as they are staged."""
    path = folder / "x.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in payloads))
    blocks = list(read_rows(dataset, path, path.name, "test", ReadLimits()))
    rows = [row for block in blocks for row in validate(dataset, block.rows).rows.iter_rows(named=True)]
    malformed = [{"_rules": f'{{"{m.rule}"}}', "_reasons": m.detail} for block in blocks for m in block.malformed]
    return rows + malformed


def statistics_of(folder: Path, series: list[list[float]]) -> list[dict[str, Any]]:
    return validated(folder, *({"time_stamp": WHEN, "data": data} for data in series))


def exactly(data: list[float]) -> tuple[float, Decimal]:
    """Mean and population standard deviation."""
    values = list(map(Fraction, data))
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return float(mean), EXACT.divide(variance.numerator, variance.denominator).sqrt(EXACT)


def check(row: dict[str, Any], data: list[float]) -> None:
    assert row["_rules"] is None, row
    mean, std_dev = exactly(data)
    assert abs(float(row["mean"]) - mean) <= math.ulp(mean)
    assert abs(Decimal(row["std_dev"]) - std_dev) <= Decimal(NEARLY) * 4 * std_dev + Decimal("1e-300")
    assert (int(row["n"]), float(row["min"]), float(row["max"])) == (len(data), min(data), max(data))


def noise(offset: float, scale: float, n: int, seed: int) -> list[float]:
    rng = random.Random(seed)  # noqa: S311 - test data, not secrets
    return [offset + rng.gauss(0, scale) for _ in range(n)]


@pytest.mark.parametrize("offset", [0, 1, -273.15, 1e9, -1e12, 1e15])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_large_offsets_cost_no_digits(tmp_path: Path, offset: float, scale: float) -> None:
    series = [noise(offset, scale, n, seed) for seed, n in enumerate((1, 2, 3, 10, 100, 100, 1000))]
    rows = statistics_of(tmp_path, series)
    for row, data in zip(rows, series, strict=True):
        check(row, data)
    assert [float(row["mean"]) for row in rows] == [exactly(data)[0] for data in series]


def test_what_it_is_better_than(tmp_path: Path) -> None:
    """The obvious expression loses half of the digits: if it no longer does, ours can be simpler."""
    data = noise(1e9, 1e-3, 100, 1)
    obvious = pl.DataFrame({"data": [data]}).select(pl.col("data").list.std(ddof=0)).item()
    exact = exactly(data)[1]
    assert abs(Decimal(obvious) - exact) > Decimal("1e-10") * exact
    check(statistics_of(tmp_path, [data])[0], data)


@pytest.mark.parametrize(
    "data",
    [[5.0], [-0.0], [0.0, -0.0], [1e9] * 7, [0.1] * 10, [1e200, -1e200], [1e308, 1e308, 1.7e308], [1e-300, 2e-300],
     [1e-200, -1e-200], [2**53, 2**53 + 2.0], [1.0, 1e16, -1e16], list(range(100)), [1e308] + [1.0] * 99],
)  # fmt: skip
def test_odd_series(tmp_path: Path, data: list[float]) -> None:
    check(statistics_of(tmp_path, [data])[0], data)


@settings(max_examples=200, deadline=None)
@given(data=st.lists(st.floats(-1e150, 1e150, allow_subnormal=False), min_size=1, max_size=60))
def test_any_series(tmp_path_factory: pytest.TempPathFactory, data: list[float]) -> None:
    check(statistics_of(tmp_path_factory.getbasetemp(), [data])[0], data)


def test_a_single_value_does_not_deviate(tmp_path: Path) -> None:
    (row,) = statistics_of(tmp_path, [[math.pi]])
    assert (row["std_dev"], row["mean"], row["n"]) == ("0.0", repr(math.pi), "1")


REQUIRED, TIME, DATA = "timestamp_utc_required", "timestamp_utc_is_timestamp", "data_is_numbers"
GOOD = {"time_stamp": WHEN, "data": [1]}


def raw(data: str) -> str:
    return f'{{"time_stamp": "{WHEN}", "data": {data}}}'


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ({"data": [1]}, REQUIRED),
        ({"time_stamp": None, "data": [1]}, REQUIRED),
        ({"time_stamp": " ", "data": [1]}, REQUIRED),
        *(
            ({"time_stamp": when, "data": [1]}, TIME)
            for when in (
                *("2024-01-01T12:00:00", "2024-01-01 12:00", "2024-01-01", "2024-02-30T12:00:00Z", "2024-01-01T24:00:00Z"),
                *("2024-01-01T12:00:60Z", "2024-01-01T12:00:00+99:00", "2024-01-01T12:00:00 Europe/Oslo", "12:00:00Z"),
                *("now", "infinity", "yesterday", 1704067200, 1704067200.5, True, [WHEN]),
            )
        ),
        ({"time_stamp": WHEN}, "data_required"),
        ({"time_stamp": WHEN, "data": None}, "data_required"),
        ({"time_stamp": WHEN, "data": []}, "data_required"),
        *(
            ({"time_stamp": WHEN, "data": data}, DATA)
            for data in (
                *([1, "2"], ["1"], [True], [1, False], [None], [1, None], [[1]], [{}], [1, {"a": 1}], "[1, 2]", "1"),
                *(1, True, "", "NaN"),
            )
        ),
        (raw('[1e400]'), DATA),
        (raw('[1, -1e999]'), DATA),
        (raw('[NaN]'), "row_is_json"),
        (raw('[1, Infinity]'), "row_is_json"),
        (raw('[1, -Infinity]'), "row_is_json"),
        (raw('[1,]'), "row_is_json"),
        (raw('[1], "data": [2]'), "row_names_once"),
        (GOOD | {"timestamp_utc": WHEN}, "row_names_once"),
        ("[1, 2, 3]", "row_is_object"),
    ],
    ids=str,
)  # fmt: skip
def test_rejected_with_a_reason(tmp_path: Path, payload: Any, rule: str) -> None:
    good, *rows = validated(tmp_path, GOOD, payload)
    assert good["_rules"] is None
    (bad,) = rows
    assert bad["_rules"] == f'{{"{rule}"}}'
    assert len(bad["_reasons"].split()) > 2


@pytest.mark.parametrize(
    ("when", "utc"),
    [
        (WHEN, UTC),
        ("2024-01-01T10:00:00Z", UTC),
        ("2024-01-01t10:00:00z", UTC),
        ("2024-01-01T04:30:00-05:30", UTC),
        ("2024-01-01T12:00+0200", UTC),
        ("2024-01-01 12:00:00+02", UTC),
        ("2024-01-01T10:00:00.25Z", "2024-01-01T10:00:00.250000+00:00"),
        ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00.000000+00:00"),
    ],
)
def test_times_are_in_utc(tmp_path: Path, when: str, utc: str) -> None:
    (row,) = validated(tmp_path, {"time_stamp": when, "data": [1]})
    assert (row["_rules"], row["timestamp_utc"]) == (None, utc)


def test_the_last_arrival_of_a_time_wins(pipeline: Pipeline, engine: Engine, tmp_path: Path) -> None:
    """In one file, in a later one, under another offset; and a rejected one takes nothing away."""

    def arrive(name: str, *payloads: dict[str, Any]) -> list[Any]:
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, payloads)))
        os.utime(path, (time.time() - 60,) * 2)
        pipeline(dataset, path)
        with engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text("SELECT n, mean FROM production.signal_stats"))]

    assert arrive("a.json", GOOD) == [(1, 1.0)]
    assert arrive("b.jsonl", GOOD | {"data": [1, 2]}, GOOD | {"data": [1, 2, 6]}) == [(3, 3.0)]
    assert arrive("c.json", {"time_stamp": "2024-01-01T10:00:00Z", "data": [5, 5]}) == [(2, 5.0)]
    assert arrive("d.json", GOOD | {"data": [True]}) == [(2, 5.0)]
