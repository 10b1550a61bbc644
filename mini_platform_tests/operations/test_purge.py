"""Everything older than its retention goes, and nothing else; the dry run reports the same and does nothing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, func, insert, select, text, update

from mini_platform.dagster.build import build_defs
from mini_platform.dagster.purging import purge_defs, purge_runs
from mini_platform.operations.place import Purged
from mini_platform.operations.purge import purge
from mini_platform.platform import Platform
from mini_platform.warehouse import retention
from mini_platform.warehouse.tables import dataset_tables, files, quality_report, sessions
from mini_platform_tests.support.command import cli
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.pipeline_harness import HEADER, PipelineHarness
from mini_platform_tests.support.repository import PROJECT

QUARANTINE = dataset_tables(weather).quarantine
BAD = "".join(f"OSL,2026-01-{day:02},warm,0\n" for day in range(1, 11))
GOOD = "".join(f"OSL,2026-02-{day:02},1,0\n" for day in range(1, 11))


@pytest.fixture
def retention_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejects for 30 days, reports for 60, raw files for 10."""
    monkeypatch.setenv("MINI_PLATFORM_QUARANTINE_RETENTION", "30")
    monkeypatch.setenv("MINI_PLATFORM_QUALITY_RETENTION", "60")
    monkeypatch.setenv("MINI_PLATFORM_RAW_RETENTION", '{"weather": 10}')


@pytest.fixture
def loaded(retention_settings: None, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> PipelineHarness:
    """Two loaded files with ten rejects each, of which the first is a year old, and reports of three runs."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 4)
    harness = PipelineHarness(platform.engine, platform.settings.raw_store)
    harness.land(("old.csv", (HEADER + GOOD + BAD).encode()), ("new.csv", (HEADER + GOOD + BAD + "\n").encode()))
    harness.run()
    with platform.engine.begin() as conn:
        conn.execute(text("TRUNCATE staging.measurements"))  # as the next load would
        conn.execute(text("TRUNCATE analytics.quality_report"))
        for table, moment in ((QUARANTINE, "_quarantined_at"), (files, "arrived_at")):
            old = table.c.file_id == 1 if table is files else table.c._file_id == 1
            conn.execute(update(table).where(old).values({moment: text("now() - interval '1 year'")}))
        row = {"dataset": "weather", "total_rows": 1, "nulls": 0, "null_rate": 0, "out_of_range": {}} | {
            "distinct_values": 1,
            "duplicates": 0,
        }
        for run, days_, table_name in (("a", 90, "seen"), ("b", 10, "seen"), ("c", 90, "seen once")):
            at = text(f"now() - interval '{days_} days'")
            measured = row | {"run_id": run, "table_name": table_name, "column_name": "x", "measured_at": at}
            conn.execute(insert(quality_report).values(measured))
        for number, (expires, ended) in enumerate((("1 day", None), ("1 day", text("now()")), ("-1 day", None))):
            at = text(f"now() + interval '{expires}'")
            conn.execute(insert(sessions).values(key_id=1, sha256=str(number), expires_at=at, ended_at=ended))
    return harness


def left(engine: Engine) -> tuple[int, int, int]:
    """Rejects, reports, and raw files that the ledger says are kept."""
    with engine.connect() as conn:
        raw = conn.scalar(select(func.count()).select_from(files).where(files.c.raw_dropped_at.is_(None)))
        return (
            conn.scalar(select(func.count()).select_from(QUARANTINE)) or 0,
            conn.scalar(select(func.count()).select_from(quality_report)) or 0,
            raw or 0,
        )


def amounts(items: Iterator[Purged]) -> dict[str, int]:
    return {item.what: item.items for item in items}


def test_what_would_go_is_what_goes(loaded: PipelineHarness, platform: Platform) -> None:
    expected = {"raw files": 1, "staged rows": 0, "rejected rows": 10, "quality report": 1, "sessions": 2}
    assert amounts(purge(platform, [weather], dry_run=True)) == expected
    assert left(platform.engine) == (20, 3, 2)
    assert amounts(purge(platform, [weather], dry_run=False)) == expected
    assert left(platform.engine) == (10, 2, 1)
    assert len(list(loaded.store.folder.glob("??/*"))) == 1
    with platform.engine.connect() as conn:
        assert conn.execute(select(quality_report.c.run_id).order_by("run_id")).scalars().all() == ["b", "c"]
        assert conn.execute(select(QUARANTINE.c._file_id).distinct()).scalars().all() == [2]
        assert conn.scalar(select(files.c.rows_rejected).where(files.c.file_id == 1)) == 10  # the ledger still says it
    assert set(amounts(purge(platform, [weather], dry_run=False)).values()) == {0}


def test_staged_rows_that_no_file_waits_for_go(loaded: PipelineHarness, platform: Platform) -> None:
    staging = dataset_tables(weather).staging
    with platform.engine.begin() as conn:
        conn.execute(update(files).where(files.c.file_id == 1).values(arrived_at=func.now()))
    loaded.land(("waits.csv", (HEADER + GOOD).encode()))
    loaded.stage()
    with platform.engine.begin() as conn:  # staging swept them: a killed run leaves them again
        conn.execute(insert(staging), [{"_file_id": 1, "_line": line} for line in range(3)])
    assert amounts(purge(platform, [weather], dry_run=True))["staged rows"] == 3
    assert amounts(purge(platform, [weather], dry_run=False))["staged rows"] == 3
    with platform.engine.connect() as conn:
        assert conn.scalar(select(func.count()).select_from(staging)) == 10


def test_nothing_goes_where_everything_is_kept_for_ever(
    loaded: PipelineHarness, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUARANTINE", "QUALITY"):
        monkeypatch.setenv(f"MINI_PLATFORM_{name}_RETENTION", "0")
    monkeypatch.setenv("MINI_PLATFORM_RAW_RETENTION", '{"weather": null}')
    again = Platform()
    removed = amounts(purge(again, [weather], dry_run=False))
    assert {what for what, items in removed.items() if items} == {"sessions"}, "those that are over"
    assert left(platform.engine) == (20, 3, 2)
    again.engine.dispose()


def test_the_command_shows_first_and_does_then(loaded: PipelineHarness, platform: Platform) -> None:
    shown = cli("purge", "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    assert left(platform.engine) == (20, 3, 2)
    result = cli("purge", "--json")
    assert result.stdout == shown.stdout
    assert [json.loads(line)["what"] for line in result.stdout.splitlines()] == [
        "raw files",
        "rejected rows",
        "quality report",
        "sessions",
    ]
    assert left(platform.engine) == (10, 2, 1)
    assert "Nothing is older than its retention" in cli("purge").stderr


@pytest.fixture
def instance(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's own instance on the test's database, as dagster.yaml says."""
    monkeypatch.setenv("DAGSTER_HOME", str(PROJECT))
    with dg.DagsterInstance.get() as dagster_instance:
        yield dagster_instance


@dg.asset
def measured() -> None:
    """Something to materialize."""


@dg.job
def nothing() -> None:
    """A job without steps."""


def test_old_runs_go_with_their_events_but_the_last_of_an_asset(instance: dg.DagsterInstance, engine: Engine) -> None:
    make = dg.Definitions([measured], jobs=[dg.define_asset_job("make")]).resolve_job_def("make")
    runs = [job.execute_in_process(instance=instance).run_id for job in (nothing, make, make, nothing, nothing)]
    with engine.begin() as conn:
        old = "UPDATE dagster.runs SET create_timestamp = now() - interval '100 days' WHERE run_id = ANY(:runs)"
        conn.execute(text(old), {"runs": runs[:4]})
        conn.execute(text("UPDATE dagster.runs SET status = 'STARTED' WHERE run_id = :run"), {"run": runs[3]})
    for dry_run, removed, stay in ((True, 2, runs), (False, 2, runs[2:]), (False, 0, runs[2:])):
        assert purge_runs(instance, dt.timedelta(days=90), dry_run=dry_run).items == removed
        with engine.connect() as conn:
            assert set(conn.execute(text("SELECT run_id FROM dagster.runs")).scalars()) == set(stay)
            assert set(conn.execute(text("SELECT run_id FROM dagster.event_logs")).scalars()) == set(stay)
    event = instance.get_latest_materialization_event(dg.AssetKey("measured"))
    assert event is not None
    assert event.run_id == runs[2]


def test_the_job_purges_all_of_it_every_night(
    loaded: PipelineHarness, platform: Platform, instance: dg.DagsterInstance
) -> None:
    defs = dg.Definitions.merge(build_defs({"weather": weather}), purge_defs({"weather": weather}))
    schedule = next(s for s in defs.get_repository_def().schedule_defs if s.name == "purge_nightly")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = defs.resolve_job_def(schedule.job_name)
    assert job.execute_in_process(instance=instance).success
    assert left(platform.engine) == (10, 2, 1)


def test_the_platform_has_the_job() -> None:
    from mini_platform.definitions import defs

    assert defs.resolve_job_def("purge").name == "purge"
