"""Syncs as Dagster runs them and as the command line does: assets, checks, schedules, settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from mini_platform.config.settings import load_settings
from mini_platform.dagster import automation
from mini_platform.dagster.automation import API_SOURCE_TAG, DATASET_TAG
from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform.operations.sources import access_to
from mini_platform.platform import Platform
from mini_platform_tests.support.api_server import Api, Reply, numbered, serving, things

if TYPE_CHECKING:
    from pathlib import Path

URL, NETWORKS = "MINI_PLATFORM_API_SOURCE__RECORDS_API__URL", "MINI_PLATFORM_API_SOURCE_NETWORKS"
PAGES = dg.AssetKey(["records", "api_pages"])


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(numbered([things(1, 2), things(3)])) as server:
        yield server


@pytest.fixture
def configured(api: Api, home: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    assert home.parent.exists()
    monkeypatch.setenv(URL, api.url)
    monkeypatch.setenv(NETWORKS, "127.0.0.0/8, ::1/128")
    return api


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as dagster_instance:
        yield dagster_instance


def defs() -> dg.Definitions:
    return build_defs({"records": all_datasets()["records"]})


def run(instance: dg.DagsterInstance, job: str = "sync_records_api") -> Any:
    result = defs().resolve_job_def(job).execute_in_process(instance=instance)
    assert result.success
    return result


def synced(result: Any) -> tuple[dict[str, Any], Any]:
    """Return the metadata of the asset, and its check."""
    (event,) = result.asset_materializations_for_node("records__api_pages")
    (check,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "api_reachable")
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}, check


def ids(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT source_id FROM production.records ORDER BY source_id")).scalars())


def test_the_asset_stands_upstream_of_the_raw_files(home: Path) -> None:
    assert not home.exists()
    graph = defs().get_repository_def().asset_graph
    node = graph.get(PAGES)
    assert node.child_keys == {dg.AssetKey(["records", "raw_files"])}
    assert (node.group_name, node.kinds) == ("records", {"http", "json"})
    assert URL in (node.description or "")


def test_a_source_that_is_not_configured(instance: dg.DagsterInstance, data: Path) -> None:
    assert data.exists()
    shown, check = synced(run(instance))
    assert (shown["state"], shown["reason"], check.passed, check.description) == (
        "not configured",
        "not configured",
        True,
        "not configured",
    )
    schedule = defs().get_repository_def().get_schedule_def("records_sync_api")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_what_is_synced_is_loaded_by_the_same_run(
    configured: Api, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    assert data.exists()
    shown, check = synced(run(instance))
    assert (shown["state"], shown["pages"], shown["rows"], shown["sync"]) == ("succeeded", 3, 3, 1)
    assert check.passed
    assert ids(engine) == ["1", "2", "3"]
    again, _ = synced(run(instance))
    assert (again["unchanged"], again["rows"]) == (3, 0)


def test_a_source_that_fails_fails_its_check_and_not_the_run(
    configured: Api, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    """The pages before the failure, and the dropped file, are loaded all the same."""
    well = numbered([things(1, 2), things(3)])
    configured.answer = lambda request: well(request) if request.query["page"] == "1" else Reply(status=404)
    (data / "records" / "a.csv").write_text("id,name\n9,nine\n")
    os.utime(data / "records" / "a.csv", (1, 1))
    shown, check = synced(run(instance))
    assert (shown["state"], check.passed, check.severity) == ("failed", False, dg.AssetCheckSeverity.ERROR)
    assert check.description == shown["reason"]
    assert "Page 2" in check.description
    assert ids(engine) == ["1", "2", "9"]


def test_a_dropped_file_makes_nobody_ask_the_source(
    configured: Api, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    (data / "records" / "a.csv").write_text("id,name\n9,nine\n")
    os.utime(data / "records" / "a.csv", (1, 1))
    run(instance, "load_records")
    assert ids(engine) == ["9"]
    assert configured.requests == []


def test_the_schedule(configured: Api, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.local_temp(str(tmp_path))  # A schedule's context takes no ephemeral one.
    assert configured.requests == []
    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def("records_sync_api")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "*/15 * * * *"
    assert repository.get_job(schedule.job_name).asset_layer.selected_asset_keys >= {PAGES}

    def tick() -> Any:
        with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
            data = schedule.evaluate_tick(context)
        return data.run_requests[0] if data.run_requests else data.skip_message

    request = tick()
    assert (request.tags[DATASET_TAG], request.tags[API_SOURCE_TAG], request.run_key) == ("records", "api", None)
    tags = {DATASET_TAG: "records", API_SOURCE_TAG: "api"}
    active = dg.DagsterRun(job_name="sync_records_api", tags=tags)
    instance.add_run(active._replace(status=automation.ACTIVE[0]))
    assert tick() == "A run that syncs api is in progress."


# Settings


@pytest.mark.parametrize(
    ("interval", "cron"),
    [
        ("60", "*/1 * * * *"),
        ("900", "*/15 * * * *"),
        ("3600", "0 */1 * * *"),
        ("21600", "0 */6 * * *"),
        ("86400", "0 0 * * *"),
        ("5 4 * * 1-5", "5 4 * * 1-5"),
    ],
)
@pytest.mark.parametrize("name", ["ETL_INTERVAL", "MINI_PLATFORM_ETL_INTERVAL"])
def test_intervals(name: str, interval: str, cron: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not home.exists()
    monkeypatch.setenv(name, interval)
    assert load_settings().etl_interval == cron
    assert defs().get_repository_def().get_schedule_def("records_sync_api").cron_schedule == cron


def test_where_a_source_is(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    records = all_datasets()["records"]
    monkeypatch.setenv(URL, "https://api.example.com/posts")
    monkeypatch.setenv(URL.replace("URL", "HEADER"), "Authorization: Bearer s3cr3t")
    monkeypatch.setenv("MINI_PLATFORM_API_SOURCE_HOSTS", "api.example.com, cdn.example.com")
    access = access_to(Platform(), records, records.api_sources[0])
    assert (access.url, access.header) == ("https://api.example.com/posts", ("Authorization", "Bearer s3cr3t"))
    assert access.hosts == {"api.example.com", "cdn.example.com"}
    assert access.networks == ()
    assert "s3cr3t" not in repr(load_settings()) + repr(access)
    assert platform.engine is not None


# The command line


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    completed = subprocess.run(
        [sys.executable, "-m", "mini_platform.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in completed.stderr, completed.stderr
    return completed


def test_sync_and_sources(configured: Api, data: Path, engine: Engine) -> None:
    assert data.exists()
    completed = cli("sync", "records", "--json")
    assert completed.returncode == 0, completed.stderr
    one, other = map(json.loads, completed.stdout.splitlines())
    assert (other["source"], other["state"]) == ("csv", "not configured")
    assert (one["source"], one["state"], one["pages"], one["rows"]) == ("api", "succeeded", 3, 3)
    assert ids(engine) == ["1", "2", "3"]
    configured.answer = lambda _: Reply(status=404)
    failed = cli("sync", "records", "api")
    assert failed.returncode == 1
    assert "answered 404" in failed.stdout
    listed = cli("sources", "--json")
    row, other = map(json.loads, listed.stdout.splitlines())
    assert (other["source"], other["configured"]) == ("csv", False)
    assert (row["dataset"], row["source"], row["configured"], row["sync"]) == ("records", "api", True, 2)
    assert "answered 404" in row["last_error"]
    assert row["last_succeeded"] is not None
    assert "answered 404" in cli("sources", "records").stdout


def test_sync_without_a_url_and_of_what_there_is_not(home: Path) -> None:
    assert not home.exists()
    completed = cli("sync", "records")
    assert (completed.returncode, "not configured" in completed.stdout) == (0, True)
    unknown = cli("sync", "records", "ftp")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1] == "records has no source 'ftp'. Its sources are: api, csv."
    assert cli("sync", "weather").stderr.splitlines()[-1] == "weather has no API sources."


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ETL_INTERVAL", "1000", "MINI_PLATFORM_ETL_INTERVAL is not valid: Value error, it should be whole minutes"),
        ("MINI_PLATFORM_ETL_INTERVAL", "soon", "MINI_PLATFORM_ETL_INTERVAL is not valid"),
        ("MINI_PLATFORM_ETL_INTERVAL", "420", "divide an hour or a day evenly"),
        (NETWORKS, "10.0.0.1/8", f"{NETWORKS} is not valid"),
        (
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER",
            "s3cr3t",
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER is not valid",
        ),
        (
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__URI",
            "http://x",
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__URI is not valid",
        ),
    ],
)
def test_wrong_settings(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    assert not home.exists()
    monkeypatch.setenv(name, value)
    completed = cli("sources")
    assert completed.returncode == 2
    assert words in completed.stderr
    assert "s3cr3t" not in completed.stderr
