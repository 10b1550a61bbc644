"""The definitions as Dagster loads and runs them: on a real Postgres, in this process, on an ephemeral instance."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Double, Engine, FromClause, Select, func, select, text, update

from mini_platform import Aggregate, Dataset, Field, RejectLimit, RowModel, View
from mini_platform.dagster import automation
from mini_platform.dagster.automation import DATASET_TAG
from mini_platform.dagster.checks import USUAL
from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform_tests.support import examples
from mini_platform_tests.support.definitions import drop, materialize, settled, tick
from mini_platform_tests.support.oracle import Oracle, differences
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.sample_files import SAMPLE_FILES

STAGING = dg.AssetKey(["weather", "staging_measurements"])
PRODUCTION = dg.AssetKey(["weather", "measurements"])
CHECKS = [
    "files_accepted",
    "files_not_empty",
    "columns_as_declared",
    "row_has_header_fields",
    "row_quotes_closed",
    "row_without_nul",
    "row_not_header",
    "row_fields_bounded",
    "station_id_required",
    "station_id_str_length",
    "date_required",
    "date_is_date",
    "temp_c_is_number",
    "temp_c_in_range",
    "precip_mm_is_number",
    "precip_mm_in_range",
    "date_not_after_tomorrow",
    "has_a_measurement",
]


@pytest.fixture
def defs(home: Path) -> dg.Definitions:
    """Definitions of their own: they open the database of this test."""
    assert home.parent.exists()
    return build_defs(all_datasets())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as dagster_instance:
        yield dagster_instance


def drop_samples(data: Path) -> None:
    for name in ("seattle.csv", "dirty.csv"):
        settled(Path(shutil.copy(SAMPLE_FILES / "weather" / name, data / "weather" / name)))


def checks(result: Any) -> dict[str, Any]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def table(check: Any, name: str) -> list[dict[str, Any]]:
    """A table that a check shows."""
    return [dict(record.data) for record in check.metadata[name].records]


def metadata(result: Any, *key: str) -> dict[str, Any]:
    """Return the metadata of an asset, as plain values where there are any."""
    (event,) = result.asset_materializations_for_node("__".join(key))
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}


# What there is


def test_assets_of_weather(defs: dg.Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    parents = {
        key.to_user_string(): sorted(parent.path[-1] for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
        if key.path[0] == "weather"
    }
    assert parents == {
        "weather/raw_csv": [],
        "weather/staging_measurements": ["raw_csv"],
        "weather/measurements": ["staging_measurements"],
        "weather/daily_metrics": ["measurements"],
        "weather/summary": ["measurements"],
        "weather/quality_report": ["daily_metrics", "measurements", "staging_measurements", "summary"],
    }
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert node.description
        assert node.kinds
        assert node.owners
        assert not node.is_partitioned


def test_checks_and_sensors(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    asset_checks = [(key.asset_key, key.name) for key in repository.asset_graph.asset_check_keys]
    assert sorted(name for asset, name in asset_checks if asset == STAGING) == sorted(CHECKS)
    assert [name for asset, name in asset_checks if asset == PRODUCTION] == ["every_row_accounted_for"]
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert set(sensors) == {f"{name}_files" for name in all_datasets()}
    assert sensors["weather_files"].default_status == dg.DefaultSensorStatus.RUNNING
    assert repository.asset_graph.executable_asset_keys == repository.asset_graph.get_all_asset_keys()


def test_every_declared_rule_is_a_check() -> None:
    assert set(CHECKS) >= {rule.name for rule in examples.weather.rules}


def test_columns_and_lineage_are_shown(defs: dg.Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    schema = graph.get(PRODUCTION).metadata["dagster/column_schema"]
    assert {c.name: c.description.split(" (")[0] for c in schema.columns}["temp_c"] == "Mean air temperature [°C]"
    assert [c.name for c in schema.columns if "primary key" in c.constraints.other] == ["station_id", "date"]
    lineage = graph.get(dg.AssetKey(["weather", "summary"])).metadata["dagster/column_lineage"]
    used = {name: [d.column_name for d in deps] for name, deps in lineage.deps_by_column.items()}
    assert used["avg_temp_c"] == ["temp_c"]
    assert used["missing_days"] == ["date"]
    assert used["wet_days"] == ["precip_mm"]


def test_loading_the_definitions_opens_nothing(home: Path) -> None:
    """No engine, no folder, no environment: a code server must load while the database is away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        dg.Definitions.validate_loadable(build_defs(all_datasets()))
    assert not home.exists()


# Materializing the samples


def test_the_samples(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine) -> None:
    drop_samples(data)
    result = materialize(defs, instance)
    assert result.success
    oracle = Oracle()
    with engine.connect() as conn:
        for row in conn.execute(select(files).order_by(files.c.file_id)):
            oracle.arrive(row.name, (SAMPLE_FILES / "weather" / row.name).read_bytes(), row.file_id)
        assert differences(conn, oracle) == []
        dirty = conn.execute(select(files).where(files.c.name == "dirty.csv")).one()
    assert {name: getattr(dirty, name) for name in ("rows_read", *COUNTERS)} == {
        "rows_read": 64,
        "rows_inserted": 34,
        "rows_updated": 0,
        "rows_unchanged": 0,
        "rows_superseded": 2,
        "rows_rejected": 28,
    }

    check_results = checks(result)
    assert set(check_results) == {
        *CHECKS,
        "files_taken",
        "every_row_accounted_for",
        *(f"{kind}_as_usual" for kind in USUAL),
    }
    rows = {
        name: check_results[name].metadata["rows_failed"].value
        for name in CHECKS
        if "rows_failed" in check_results[name].metadata
    }
    assert rows == {rule.name: dirty.rule_counts.get(rule.name, 0) for rule in examples.weather.rules}
    assert sum(count > 0 for count in rows.values()) >= 10, "the sample is to show most kinds of dirt"
    assert {name: check.passed for name, check in check_results.items()} == {
        **{name: count == 0 for name, count in rows.items()},
        "files_taken": True,
        "files_accepted": True,
        "files_not_empty": True,
        "columns_as_declared": False,
        "every_row_accounted_for": True,
        **{f"{kind}_as_usual": True for kind in USUAL},
    }
    assert {check.severity for name, check in check_results.items() if not check.passed} == {dg.AssetCheckSeverity.WARN}
    in_range = check_results["temp_c_in_range"]
    read = dirty.rows_read + 1461
    assert in_range.metadata["rows_checked"].value == read
    assert in_range.metadata["rate"].value == pytest.approx(rows["temp_c_in_range"] / read)
    assert [r["temp_c"] for r in table(in_range, "failing_rows")] == ["61.5", "-99.9"]
    assert in_range.description == f"2 of {read} rows: temp_c is outside -90 to 60 °C"
    assert [r["raw"] for r in table(check_results["row_has_header_fields"], "failing_rows")] == [
        "PDX,2024-01-22,8.0",
        "YKM,2024-01-24,0.0,1.4,Lee,see note",
    ]
    assert [r["unexpected_columns"] for r in table(check_results["columns_as_declared"], "affected_files")] == [
        "['observer']"
    ]

    shown = metadata(result, "weather", "measurements")
    assert shown["dagster/row_count"] == 1461 + 34
    assert {name: shown[name] for name in ("files_loaded", "rows_read", "rows_inserted", "rows_rejected")} == {
        "files_loaded": 2,
        "rows_read": read,
        "rows_inserted": 1461 + 34,
        "rows_rejected": 28,
    }
    assert metadata(result, "weather", "raw_csv")["files_arrived"] == 2
    assert metadata(result, "weather", "summary")["rows_written"] == 4
    for asset in ("raw_csv", "staging_measurements", "measurements", "daily_metrics", "summary", "quality_report"):
        assert "data:image/svg+xml;base64," in metadata(result, "weather", asset)["chart"]
    with engine.connect() as conn:
        measured = conn.execute(text("SELECT run_id, count(*) FROM analytics.quality_report GROUP BY 1")).all()
    assert measured == [(result.run_id, 8)]


def test_each_asset_alone_does_its_own_work(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    drop_samples(data)
    job = defs.resolve_implicit_global_asset_job_def()
    tables = {
        "raw_csv": "ops.files",
        "staging_measurements": "staging.measurements",
        "measurements": "production.measurements",
        "daily_metrics": "analytics.daily_metrics",
        "summary": "analytics.summary",
        "quality_report": "analytics.quality_report",
    }
    rows = []
    for asset in tables:
        assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["weather", asset])]).success
        with engine.connect() as conn:
            rows.append([conn.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables.values()])  # noqa: S608
    with engine.connect() as conn:
        days = conn.scalar(text("SELECT count(DISTINCT date) FROM production.measurements"))
    expected = [2, 1461 + 64, 1461 + 34, days, 4, 8]
    assert rows == [expected[: step + 1] + [0] * (len(expected) - step - 1) for step in range(len(expected))]


def test_again_with_nothing_new(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine) -> None:
    drop_samples(data)
    first = materialize(defs, instance)
    with engine.connect() as conn:
        rows = conn.execute(text("SELECT ctid::text, xmin::text FROM production.measurements ORDER BY ctid")).all()
    second = materialize(defs, instance)
    assert second.success
    before, after = checks(first), checks(second)
    assert {n: (c.passed, c.description, c.metadata) for n, c in after.items()} == {
        n: (c.passed, c.description, c.metadata) for n, c in before.items()
    }
    shown = metadata(second, "weather", "measurements")
    assert (shown["files_loaded"], shown["rows_read"], shown["dagster/row_count"]) == (0, 0, 1461 + 34)
    assert metadata(second, "weather", "summary")["rows_written"] == 0
    with engine.connect() as conn:
        assert (
            conn.execute(text("SELECT ctid::text, xmin::text FROM production.measurements ORDER BY ctid")).all() == rows
        )
        assert conn.scalar(text("SELECT count(DISTINCT run_id) FROM analytics.quality_report")) == 2


def test_nothing_at_all(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path) -> None:
    assert list((data / "weather").iterdir()) == []
    result = materialize(defs, instance)
    assert result.success
    assert all(check.passed for check in checks(result).values())
    assert metadata(result, "weather", "measurements")["dagster/row_count"] == 0


def test_a_refused_file_fails_its_check_and_not_the_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    drop(data, "bad.csv", b"station_id,date,temp_c,precip_mm\nC,2024-01-01,1,1\n" + b"A,x,1,1\n" * 99)
    drop(data, "header.csv", b"station,day\n")
    drop(data, "none.csv", b"station_id,date,temp_c,precip_mm\n")
    drop(data, "good.csv", b"station_id,date,temp_c,precip_mm\nD,2024-01-01,1,1\n")
    result = materialize(defs, instance)
    assert result.success
    check_results = checks(result)
    accepted = check_results["files_accepted"]
    assert (accepted.passed, accepted.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert {r["file"]: r["error"] for r in table(accepted, "affected_files")} == {
        "bad.csv": "99 of 100 rows are rejected, more than the dataset allows (50% of at least 100 rows); "
        "most often: date_is_date (99 rows)",
        "header.csv": "The header lacks station_id, date, temp_c, precip_mm. "
        "Expected station_id, date, temp_c, precip_mm; found station, day.",
    }
    assert [r["file"] for r in table(check_results["files_not_empty"], "affected_files")] == ["none.csv"]
    by_date = check_results["date_is_date"]
    assert (by_date.passed, by_date.severity) == (False, dg.AssetCheckSeverity.ERROR)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT station_id FROM production.measurements")).scalars().all() == ["D"]


def test_small_files_of_rejects_alone_are_loaded_and_their_check_warns(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    """Together they have more rows than the limit's `min_rows`, each by itself has less."""
    for name in ("a.csv", "b.csv"):
        drop(data, name, b"station_id,date,temp_c,precip_mm\n" + f"{name},x,1,1\n".encode() * 60)
    result = materialize(defs, instance)
    assert result.success
    check_results = checks(result)
    assert check_results["files_accepted"].passed
    by_date = check_results["date_is_date"]
    assert by_date.metadata["rows_failed"].value == 120
    assert (by_date.passed, by_date.severity) == (False, dg.AssetCheckSeverity.WARN)
    with engine.connect() as conn:
        loaded = conn.execute(select(files.c.status, files.c.rows_inserted, files.c.rows_rejected)).all()
    assert loaded == [("loaded", 0, 60)] * 2


def test_the_files_that_the_config_names(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    header = b"station_id,date,temp_c,precip_mm\n"
    drop(data, "a.csv", header + b"A,2024-01-01,1,1\n")
    drop(data, "b.csv", header + b"B,2024-01-01,1,1\n")
    assert materialize(defs, instance).success
    with engine.begin() as conn:
        conn.execute(text("UPDATE ops.files SET status = 'landed'"))
        (chosen,) = conn.execute(select(files.c.file_id).where(files.c.name == "b.csv")).scalars()
    drop(data, "c.csv", header + b"C,2024-01-01,1,1\n")
    takes = {"config": {"files": [chosen]}}
    ops = {f"weather__{step}": takes for step in ("raw_csv", "staging_measurements", "measurements")}
    assert materialize(defs, instance, run_config={"ops": ops}).success
    with engine.connect() as conn:
        statuses = dict(conn.execute(select(files.c.name, files.c.status)).all())
    assert statuses == {"a.csv": "landed", "b.csv": "loaded"}


def test_a_table_downstream_is_a_frame(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    """The IO manager gives a frame to an asset that has one of ours as an argument."""
    drop_samples(data)
    assert materialize(defs, instance).success
    frames: dict[str, Any] = {}

    @dg.asset(
        ins={"summary": dg.AssetIn(["weather", "summary"]), "measurements": dg.AssetIn(["weather", "measurements"])}
    )
    def report(summary: Any, measurements: Any) -> None:
        frames.update(summary=summary, measurements=measurements)

    both = dg.Definitions.merge(defs, dg.Definitions(assets=[report]))
    job = both.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("report")]).success
    assert list(frames["summary"]["station_id"]) != []
    assert len(frames["measurements"]) == 1461 + 34
    assert list(frames["measurements"].columns[:2]) == ["station_id", "date"]


# The sensor


@pytest.fixture
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automation, "TICK_SECONDS", 0.0)


def test_a_file_that_waits_is_requested_until_it_is_loaded(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, short_ticks: None
) -> None:
    drop_samples(data)
    for _ in range(2):
        request = tick(defs, instance)
        assert request.run_key is None, "a key is remembered for ever, and a lost run never made up for"
        assert request.tags[DATASET_TAG] == "weather"
    materialize(defs, instance)
    assert tick(defs, instance) == f"Nothing new in {data}/weather/."
    drop(data, "more.csv", b"station_id,date,temp_c,precip_mm\n")
    assert isinstance(tick(defs, instance), dg.RunRequest)


def test_what_the_sensor_requests_is_everything_of_its_dataset(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    job = repository.get_job(repository.get_sensor_def("weather_files").job_name)
    assert job.name == "load_weather"
    assert job.tags[DATASET_TAG] == "weather"
    everything = {key for key in repository.asset_graph.get_all_asset_keys() if key.path[0] == "weather"}
    assert job.asset_layer.selected_asset_keys == everything
    assert len(job.asset_layer.asset_graph.asset_check_keys) >= len(CHECKS)


def test_nothing_to_do_is_reported_with_what_is_skipped(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, short_ticks: None
) -> None:
    assert tick(defs, instance) == f"Nothing new in {data}/weather/."
    drop(data, ".hidden.csv", b"")
    (data / "weather" / "link.csv").symlink_to("nowhere")
    assert tick(defs, instance) == (
        f"Nothing new in {data}/weather/. Skipped: .hidden.csv (its name starts with a dot), link.csv (it is a link)."
    )
    for n in range(10):
        drop(data, f".{n}", b"")
    assert tick(defs, instance).endswith(" ...."), "not more than a few are named"


def test_a_tick_watches_for_a_while(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path) -> None:
    """A file that is still young when the tick begins is noticed before it ends."""
    drop(data, "a.csv", b"station_id,date,temp_c,precip_mm\n")
    (data / "weather" / "a.csv").touch()
    started = time.monotonic()
    assert isinstance(tick(defs, instance), dg.RunRequest)
    assert 0.5 < time.monotonic() - started < automation.TICK_SECONDS


@pytest.mark.parametrize("status", ["landed", "staged"])
def test_what_an_earlier_run_left_behind_is_requested(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine, status: str, short_ticks: None
) -> None:
    drop_samples(data)
    materialize(defs, instance)
    assert isinstance(tick(defs, instance), str)
    with engine.begin() as conn:
        conn.execute(update(files).where(files.c.file_id == 1).values(status=status))
    assert isinstance(tick(defs, instance), dg.RunRequest)
    with engine.begin() as conn:
        held = {"leased_by": "x", "leased_until": func.now() + dt.timedelta(minutes=1)}
        conn.execute(update(files).where(files.c.file_id == 1).values(held))
    assert tick(defs, instance) == f"Nothing new in {data}/weather/.", "somebody works on it"


@pytest.mark.parametrize("status", [*automation.ACTIVE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
def test_not_while_a_run_is_under_way(
    defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, status: dg.DagsterRunStatus, short_ticks: None
) -> None:
    drop_samples(data)
    for dataset, its_status in (("weather", status), ("other", dg.DagsterRunStatus.STARTED)):
        run = dg.DagsterRun(job_name="job", tags={DATASET_TAG: dataset})
        instance.add_run(run._replace(status=its_status))
    answer = tick(defs, instance)
    if status in automation.ACTIVE:
        assert answer == "2 new and 0 pending files wait for the run that is in progress."
    else:
        assert isinstance(answer, dg.RunRequest)


# A further dataset


class Reading(RowModel):
    """A reading of a meter."""

    meter: str = Field("Number of the meter", str_length={"min_value": 1, "max_value": 20})
    month: dt.date = Field("First day of the month")
    kwh: float = Field("Energy", unit="kWh", ge=0)
    estimated: bool | None = Field("Whether nobody has looked")


def by_meter(m: FromClause) -> Select[Any]:
    """Energy of a meter over all months."""
    return select(
        m.c.meter, func.sum(m.c.kwh).label("kwh"), func.avg(m.c.kwh, type_=Double).label("mean_kwh")
    ).group_by(m.c.meter)


METERS = Dataset(
    name="meters",
    table="readings",
    rows=Reading,
    key=("meter", "month"),
    description="Monthly readings of meters.",
    aggregates=(
        Aggregate(
            by_meter,
            ("meter",),
            {"meter": ("Meter",), "kwh": ("Energy", "kWh"), "mean_kwh": ("Mean of a month", "kWh")},
            ("meter", "kwh"),
        ),
    ),
)


def test_a_dataset_is_its_declaration(
    data: Path, instance: dg.DagsterInstance, engine: Engine, short_ticks: None
) -> None:
    """Everything follows from the declaration above: assets, checks, sensor, tables, quarantine, aggregate, report."""
    create_all(engine, [METERS])
    defs = build_defs({"meters": METERS})
    (data / "meters").mkdir()
    assert tick(defs, instance, "meters") == f"Nothing new in {data}/meters/."
    rows = (
        b"Meter;\nx\n",
        b"kWh,METER,month,estimated,note\n1.5,007,2024-01-01,yes,\n-1,007,2024-02-01,,\n2.5,007,2024-03-01,,x\n",
    )
    drop(data, "wrong.csv", rows[0], "meters")
    drop(data, "right.csv", rows[1], "meters")
    assert tick(defs, instance, "meters").tags[DATASET_TAG] == "meters"
    result = materialize(defs, instance, "meters")
    assert result.success
    check_results = checks(result)
    assert {name for name, check in check_results.items() if not check.passed} == {
        "files_accepted",
        "columns_as_declared",
        "kwh_ge",
    }
    assert check_results["kwh_ge"].description == "1 of 3 rows: kwh is below 0 kWh"
    with engine.connect() as conn:
        production = conn.execute(text("SELECT meter, month, kwh, estimated FROM production.readings ORDER BY 2")).all()
        computed = conn.execute(text("TABLE analytics.by_meter")).all()
        rejected = conn.execute(text("SELECT kwh, _rules FROM quarantine.readings")).all()
    assert production == [("007", dt.date(2024, 1, 1), 1.5, True), ("007", dt.date(2024, 3, 1), 2.5, None)]
    assert computed == [("007", 4.0, 2.0)]
    assert rejected == [("-1", ["kwh_ge"])]
    assert len(metadata(result, "meters", "quality_report")["report"].records) == 8
    assert tick(defs, instance, "meters") == f"Nothing new in {data}/meters/."


def test_what_warns_and_what_is_drawn_are_what_is_declared(
    data: Path, instance: dg.DagsterInstance, engine: Engine
) -> None:
    def by_month(m: FromClause) -> Select[Any]:
        return select(m.c.month, func.sum(m.c.kwh).label("kwh")).group_by(m.c.month)

    view = View(by_month, {"month": ("Month",), "kwh": ("Energy", "kWh")}, ("month", "kwh"))
    declared = replace(METERS, warn_limit=RejectLimit(rows=1), reject_limit=RejectLimit(), views=(view,))
    create_all(engine, [declared])
    (data / "meters").mkdir()
    rows = "a,2024-01-01,1\nb,2024-02-01,2\nc,2024-03-01,-1\n,2024-01-01,1\n,2024-01-01,2\n"
    drop(data, "a.csv", ("METER,month,kwh,estimated\n" + rows.replace("\n", ",\n")).encode(), "meters")
    result = materialize(build_defs({"meters": declared}), instance, "meters")
    validated = {name: check for name, check in checks(result).items() if "rows_failed" in check.metadata}
    assert {name: check.metadata["rows_failed"].value for name, check in validated.items() if not check.passed} == {
        "meter_required": 2
    }
    assert validated["kwh_ge"].metadata["rows_failed"].value == 1
    for name, title in (("by_meter", "mean of kwh over meter"), ("by_month", "mean of kwh over month")):
        assert metadata(result, "meters", name)["chart"].startswith(f"![{title}](data:image/svg+xml;")


def test_an_aggregate_that_fails_for_the_rows_stops_no_other(
    data: Path, instance: dg.DagsterInstance, engine: Engine
) -> None:
    def inverse(m: FromClause) -> Select[Any]:
        return select(m.c.meter, func.max(1 / m.c.kwh, type_=Double).label("most")).group_by(m.c.meter)

    failing = Aggregate(inverse, ("meter",), {"meter": ("Meter",), "most": ("Most",)}, ("meter", "most"))
    declared = replace(METERS, aggregates=(failing, *METERS.aggregates))
    create_all(engine, [declared])
    (data / "meters").mkdir()
    drop(data, "a.csv", b"kWh,METER,month,estimated\n0,007,2024-01-01,\n", "meters")
    result = materialize(build_defs({"meters": declared}), instance, "meters", raise_on_error=False)
    assert [event.node_name for event in result.get_step_failure_events()] == ["meters__inverse"]
    (failed,) = result.get_step_failure_events()
    assert "meters.inverse: Postgres cannot compute its select" in str(failed.step_failure_data.error)
    with engine.connect() as conn:
        assert conn.execute(text("TABLE analytics.by_meter")).all() == [("007", 0.0, 0.0)]


def test_own_assets_of_the_documentation_read_what_datasets_have(samples: None, engine: Engine) -> None:
    page = (PROJECT / "docs" / "how-to" / "your-own-assets.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "definitions"}
    exec(compile(example, "definitions.py", "exec"), names)  # noqa: S102 - our own example
    job = names["defs"].resolve_implicit_global_asset_job_def()
    own = [dg.AssetKey("monthly_weather"), dg.AssetKey("warm_months")]
    assert job.execute_in_process(asset_selection=own).success
    with engine.connect() as conn:
        months, warm = (conn.scalar(text(f"SELECT count(*) FROM analytics.{key.path[-1]}")) for key in own)  # noqa: S608
    assert months > warm > 0
