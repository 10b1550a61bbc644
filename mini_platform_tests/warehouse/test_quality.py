"""The figures of the quality report, held to plain Python over what the oracle says of the same file."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mini_platform import Dataset, Field, RowModel
from mini_platform.operations.processing import process
from mini_platform.warehouse import quality
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import quality_report
from mini_platform.warehouse.upsert import upsert_frame
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.oracle import COLUMNS, WHITE_SPACE
from mini_platform_tests.support.pipeline_harness import PipelineHarness, csv_of, random_arrivals, sample

Figures = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def harness(engine: Engine, tmp_path: Path) -> PipelineHarness:
    return PipelineHarness(engine, tmp_path / "raw")


def measured(engine: Engine, dataset: Dataset = weather) -> Figures:
    with engine.connect() as conn:
        frame = quality.measure(conn, dataset, "run")
    return {(row["table_name"], row["column_name"]): row for row in frame.to_dict("records")}


def expected_of_production(harness: PipelineHarness) -> Figures:
    rows = [(*key, *row.values) for key, row in harness.oracle.production().items()]
    result = {}
    for n, name in enumerate(COLUMNS):
        filled = [row[n] for row in rows if row[n] is not None]
        result["production.measurements", name] = {
            "total_rows": len(rows),
            "nulls": len(rows) - len(filled),
            "null_rate": (len(rows) - len(filled)) / len(rows),
            "minimum": shown(min(filled, default=None)),
            "maximum": shown(max(filled, default=None)),
            "mean": pytest.approx(sum(filled) / len(filled)) if filled and isinstance(filled[0], float) else None,
            "distinct_values": len(set(filled)),
            "duplicates": 0,
            "out_of_range": dict.fromkeys(rules_of(name), 0),
        }
    return result


def rules_of(column: str) -> list[str]:
    return [rule.name for rule in weather.rules if rule.column == column]


def shown(value: Any) -> str | None:
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("seed", range(2))
def test_figures_of_production(harness: PipelineHarness, seed: int) -> None:
    harness.land(("a.csv", sample(80, 0.2, seed)), ("b.csv", sample(40, 0.2, seed + 1)), *random_arrivals(seed, 3))
    harness.run()
    report = measured(harness.engine)
    for place, figures in expected_of_production(harness).items():
        assert {name: report[place][name] for name in figures} == figures, place


@pytest.mark.parametrize("seed", range(2))
def test_counts_of_staging(harness: PipelineHarness, seed: int) -> None:
    harness.land(*((f"{n}.csv", sample(80, 0.3, seed + n)) for n in range(3)), *random_arrivals(seed, 3))
    harness.run()
    staged = [f for f in harness.oracle.files if f.same_as is None and not f.unreadable]
    rules = sum((f.rule_counts for f in staged), Counter[str]())
    formless = {"row_without_nul", "row_quotes_closed", "row_has_header_fields", "row_not_header"}
    with_columns = [r for f in staged for r in f.rejected.values() if not r & formless] + [
        key for f in staged for key, _ in f.valid.values()
    ]
    keys = Counter(key for f in staged for key, _ in f.valid.values())
    report = measured(harness.engine)
    for name in COLUMNS:
        figures = report["staging.measurements", name]
        assert figures["total_rows"] == len(with_columns)
        assert figures["out_of_range"] == {rule: rules[rule] for rule in rules_of(name)}
        assert figures["duplicates"] == sum(count - 1 for count in keys.values())


def test_figures_of_staging(harness: PipelineHarness) -> None:
    """Minimum and maximum are of the values that could be read, whether valid or not."""
    harness.land(
        (
            "f.csv",
            csv_of(
                "A,2024-01-01,-99,1",
                "A,2024-01-02,20,1",
                "B,2024-02-30,nan,",
                "B,2024-01-02,,3000",
                "B,2024-01-02,9,2",
                "B,2024-01-02,5,2",
                "too,few",
            ),
        )
    )
    harness.run()
    report = {column: figures for (table, column), figures in measured(harness.engine).items() if table[0] == "s"}
    shown = ("total_rows", "nulls", "minimum", "maximum", "mean", "distinct_values", "duplicates")
    assert {column: tuple(figures[name] for name in shown) for column, figures in report.items()} == {
        "station_id": (6, 0, "A", "B", None, 2, 1),
        "date": (6, 0, "2024-01-01", "2024-01-02", None, 3, 1),
        "temp_c": (6, 1, "-99", "20", -16.25, 5, 1),
        "precip_mm": (6, 1, "1", "3000", 601.2, 3, 1),
    }
    assert report["temp_c"]["out_of_range"] == {"temp_c_is_number": 1, "temp_c_in_range": 1}
    assert report["date"]["out_of_range"] == {"date_required": 0, "date_is_date": 1, "date_not_after_tomorrow": 0}


def test_values_out_of_range_with_space_around_them(harness: PipelineHarness) -> None:
    """A cell at fault is staged as it arrived, with space that Postgres does not take for any."""
    bad = [f'A,"{s}2999-01-{n:02}{s}","{s}{100 + n}{s}",1' for n, s in enumerate(WHITE_SPACE, start=1)]
    harness.land(("f.csv", csv_of(*bad, *(f"A,2024-01-{n:02},1,1" for n in range(1, 32)))))
    harness.run()
    harness.check()
    report = measured(harness.engine)
    assert report["staging.measurements", "temp_c"]["maximum"] == str(100 + len(bad))
    assert report["staging.measurements", "date"]["maximum"] == f"2999-01-{len(bad)}"


def test_empty_tables(engine: Engine) -> None:
    for figures in measured(engine).values():
        assert (figures["total_rows"], figures["null_rate"], figures["distinct_values"]) == (0, 0.0, 0)
        assert (figures["minimum"], figures["maximum"]) == (None, None)


def test_the_report_is_kept_over_time(harness: PipelineHarness) -> None:
    harness.land(("f.csv", sample(20, 0.2, seed=1)))
    for run in ("first", "second", "second"):
        process(harness.platform, weather, run_id=run)
    with harness.engine.connect() as conn:
        rows = conn.execute(
            text("SELECT run_id, count(*), count(DISTINCT table_name) FROM analytics.quality_report GROUP BY 1")
        )
        assert sorted(map(tuple, rows)) == [("first", 8, 2), ("second", 8, 2)]


def test_a_large_table_is_measured_again_when_a_fifth_may_have_changed(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "ALWAYS_MEASURED", 50)

    def report(file: bytes | None = None) -> dict[str, Any]:
        if file:
            harness.land((f"{len(file)}.csv", file))
            harness.run()
        with harness.engine.begin() as conn:
            upsert_frame(conn, quality_report, frame := quality.measure(conn, weather, "run"))
        rows = {(row["table_name"], row["column_name"]): row for row in frame.to_dict("records")}
        return rows["production.measurements", "temp_c"]

    first = report(sample(100, 0, seed=1))
    assert first["total_rows"] == 100
    assert report() == first
    few = report(csv_of("A,2024-01-01,-40,1"))
    assert few == first
    many = report(csv_of(*(f"A,2024-01-{day:02},1,1" for day in range(2, 22))))
    assert many["measured_at"] > first["measured_at"]
    assert (many["total_rows"], many["minimum"]) == (121, "-40")


def test_personal_data_is_counted_and_not_shown(engine: Engine, tmp_path: Path) -> None:
    people = Dataset(name="people", table="people", description="People.", rows=Person, key=("name",))
    create_all(engine, [people])
    harness = PipelineHarness(engine, tmp_path / "raw", people)
    harness.land(("f.csv", b"name,town\nAda,Rome\nBob,Oslo\n"))
    harness.run()
    for figures in measured(engine, people).values():
        assert figures["distinct_values"] == 2
        assert (figures["minimum"], figures["maximum"]) == (None, None)


class Person(RowModel):
    """Name and town of a person, masked wherever they are shown."""

    name: str = Field("Name", personal="mask")
    town: str = Field("Town", personal="mask")


class Switch(RowModel):
    """Columns of the other types."""

    name: str = Field("Name")
    on: bool = Field("On or off")
    count: int | None = Field("How often", ge=0)
    power: float | None = Field("Power")
    noise: float | None = Field("Noise")


def test_other_types(engine: Engine, tmp_path: Path) -> None:
    switches = Dataset("switches", "switches", Switch, ("name",), "Switches.")
    create_all(engine, [switches])
    harness = PipelineHarness(engine, tmp_path / "raw", switches)
    harness.land(
        (
            "f.csv",
            b"name,on,count,power,noise\na,yes,7,-1.7976931348623157e308,5e-324\nb,N,,,0\nc,maybe,1,,0\nd,1, -2 ,,0\n",
        )
    )
    harness.run()
    report = measured(engine, switches)
    assert report["production.switches", "power"]["mean"] == -sys.float_info.max
    assert report["staging.switches", "noise"]["mean"] == 0, "a quarter of the smallest float"
    with engine.connect() as conn:
        rows = conn.execute(text('SELECT name, "on", count FROM production.switches ORDER BY 1')).all()
    assert rows == [("a", True, 7), ("b", False, None)]
    assert report["production.switches", "count"]["maximum"] == "7"
    assert report["production.switches", "count"]["mean"] == 7
    assert report["production.switches", "on"]["mean"] is None
    assert report["staging.switches", "count"]["minimum"] == "-2"
    assert report["staging.switches", "on"]["out_of_range"] == {"on_required": 0, "on_is_boolean": 1}
    assert report["production.switches", "on"]["distinct_values"] == 2
