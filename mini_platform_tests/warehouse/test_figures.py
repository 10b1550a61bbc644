"""Figures that are counted while a large file is validated, held to what the server says of the same rows."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select, update

from mini_platform import Dataset, Field, RowModel
from mini_platform.datasets import all_datasets
from mini_platform.landing import folder
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse import figures, quality, validated_rows
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.samples import EVERY, sample

RUN = "run"


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validated_rows, "GATHERED_ROWS", 100)


def loaded(platform: Platform, dataset: Dataset, path: Path) -> None:
    dropped_file = folder.DroppedFile(path.name, path, "")
    assert all(row for _, row in folder.land(platform.engine, dataset, platform.store, [dropped_file], "test"))
    process(platform, dataset, run_id=RUN)


def report(platform: Platform, dataset: Dataset, run: str = RUN) -> list[dict[str, Any]]:
    with platform.engine.connect() as conn:
        frame = quality.measure(conn, dataset, run).drop(columns=["run_id", "measured_at"])
    return [{**row, "mean": row["mean"] and pytest.approx(row["mean"])} for row in frame.to_dict("records")]


def counted(platform: Platform) -> dict[str, Any]:
    with platform.engine.connect() as conn:
        return conn.scalar(select(files.c.figures)) or {}


def forgotten(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        conn.execute(update(files).values(figures=None))


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_the_server_measures_the_same(platform: Platform, tmp_path: Path, name: str, form: str) -> None:
    dataset = all_datasets()[name]
    path = tmp_path / f"f.{form}"
    path.write_bytes(sample(dataset, form, 400, dirty=0.3, seed=3).data)  # type: ignore[arg-type]
    loaded(platform, dataset, path)
    assert set(counted(platform)) == {column.name for column in dataset.staged_columns}
    known = report(platform, dataset)
    forgotten(platform)
    assert known == report(platform, dataset)


def test_production_is_measured_where_another_run_asks(platform: Platform, tmp_path: Path) -> None:
    """Somebody may have changed it since."""
    dataset = all_datasets()["weather"]
    path = tmp_path / "f.csv"
    path.write_bytes(sample(dataset, "csv", 400).data)
    loaded(platform, dataset, path)
    with platform.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE production.measurements SET temp_c = 59.5")
    (row,) = [r for r in report(platform, dataset, "later") if (r["table_name"], r["column_name"]) == PRODUCTION]
    assert (row["distinct_values"], row["minimum"]) == (1, "59.5")


PRODUCTION = ("production.measurements", "temp_c")


def test_rows_that_no_file_brought_are_measured_too(platform: Platform, tmp_path: Path) -> None:
    dataset = all_datasets()["weather"]
    path = tmp_path / "f.csv"
    path.write_bytes(sample(dataset, "csv", 400).data)
    with platform.engine.begin() as conn:
        conn.exec_driver_sql(
            "INSERT INTO production.measurements (station_id, date, temp_c, precip_mm, _file_id, _loaded_at)"
            " VALUES ('by hand', '2020-01-01', -59.5, 0, 0, now())"
        )
    loaded(platform, dataset, path)
    (row,) = [r for r in report(platform, dataset) if (r["table_name"], r["column_name"]) == PRODUCTION]
    assert (row["total_rows"], row["minimum"]) == (401, "-59.5")


def blocks(count: int) -> list[pl.DataFrame]:
    """Validated rows of the weather: the stations all differ, of the rest only a few values do."""
    rules = pl.Series("_rules", [None, "{temp_c_in_range}"] * 500, pl.String)
    rows = pl.int_range(1000, eager=True)
    return [
        pl.DataFrame(
            {
                "_rules": rules,
                "station_id": (rows + 1000 * block).cast(pl.String),
                "date": pl.repeat("2024-01-01", 1000, eager=True),
                "temp_c": (rows % 7 + block).cast(pl.String),
                "precip_mm": pl.repeat(None, 1000, dtype=pl.String, eager=True),
            }
        )
        for block in range(count)
    ]


def figures_of(frames: list[pl.DataFrame]) -> figures.Figures:
    weather_figures = figures.Figures(all_datasets()["weather"])
    for block in frames:
        weather_figures.add(block)
    return weather_figures


def test_a_column_of_too_many_texts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures_of(blocks(5))
    monkeypatch.setattr(figures, "KEPT_BYTES", 60_000)
    bounded = figures_of(blocks(5))
    expected = dict(whole.measured())
    assert expected["station_id"]["staged"]["distinct_values"] == 5000
    assert expected["station_id"]["valid"]["distinct_values"] == 2500
    assert expected["temp_c"]["staged"]["distinct_values"] == 11
    assert expected["precip_mm"]["valid"]["nulls"] == 2500
    del expected["station_id"]
    assert bounded.measured() == expected


def test_texts_that_come_again_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures_of(blocks(40))
    monkeypatch.setattr(figures, "ADDED_BYTES", 2000)
    bounded = figures_of(blocks(40))
    assert {name: len(counts) > 20 for name, counts in bounded._counts.items()} == {
        "station_id": True, "date": False, "temp_c": False, "precip_mm": False,
    }  # fmt: skip
    assert bounded.measured() == whole.measured()


def test_a_sum_beyond_any_float_is_left_to_the_server() -> None:
    weather_figures = figures_of([block.with_columns(temp_c=pl.lit("1e308")) for block in blocks(1)])
    assert set(weather_figures.measured()) == {"station_id", "date", "precip_mm"}


class Spelled(RowModel):
    k: Decimal = Field("Key", decimals=2)
    real: float = Field("Float", le=100)
    count: int = Field("Whole number")
    so: bool = Field("Truth")
    at: dt.datetime = Field("Moment")
    items: list[float] = Field("List")
    words: str = Field("Text", str_length={"max_value": 3})


SPELLED = Dataset(
    name="spelled", table="spelled", description="Values spelled in several ways", rows=Spelled, key=("k",)
)
ALIKE = (
    '1,1,7,yes,2026-01-01T00:00:00Z,"[1,2]",a',
    '1.0,1.0,07,true,2026-01-01 00:00Z,"[1.0, 2]",a',
    '1.00,1.00,+7,T,2026-01-01T01:00:00+01:00,"[1,2.0]", a ',
    '2.5,1e0,8,no,2026-01-02T00:00:00Z,"[3]",b',
)
WRONG = (
    "3, 200.0 ,7,yes,2026-01-01T00:00:00Z,[3],a",
    "4,200,7,yes,2026-01-01T00:00:00Z,[3],aaaa",
    "5,x,7,y,2026-01-01T00:00:00Z,[3], aaaa",
)


@pytest.mark.parametrize("large", [True, False])
def test_values_are_counted_and_not_spellings(platform: Platform, tmp_path: Path, large: bool) -> None:
    create_all(platform.engine, [SPELLED])
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(Spelled.__annotations__), *ALIKE, *WRONG]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validated_rows, "GATHERED_ROWS", 1 if large else 1000)
        loaded(platform, SPELLED, path)
    assert bool(counted(platform)) == large
    rows = {row["column_name"]: row for row in report(platform, SPELLED) if row["table_name"] == "staging.spelled"}
    distinct = {name: row["distinct_values"] for name, row in rows.items()}
    # Of real 1, 200 and what is no number; of words a, b, and one that is too long.
    assert distinct == {"k": 5, "real": 3, "count": 2, "so": 2, "at": 2, "items": 2, "words": 3}
    assert {row["duplicates"] for row in rows.values()} == {2}
