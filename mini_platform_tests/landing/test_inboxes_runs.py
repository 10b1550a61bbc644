"""Remote inboxes by settings, as the sensor and a run of Dagster see them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError
from sqlalchemy import select

from mini_platform.config.settings import load_settings
from mini_platform.dagster import automation
from mini_platform.dagster.automation import _evaluate
from mini_platform.dagster.build import build_defs
from mini_platform.datasets import all_datasets
from mini_platform.operations.sources import remote_inboxes
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import audit
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.inbox_harness import CHANGED, GOOD, INBOX, InboxHarness
from mini_platform_tests.support.repository import PROJECT


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    assert home.parent.exists()
    with dg.DagsterInstance.ephemeral() as dagster_instance:
        yield dagster_instance


def run(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> Any:
    job = build_defs({"weather": weather}).resolve_job_def("load_weather")
    result = job.execute_in_process(instance=instance, tags=tags)
    assert result.success
    return result


def files_check(result: Any) -> Any:
    (check,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "files_taken")
    return check


def wait_for_visits() -> None:
    for thread in list(automation._visits.values()):
        thread.join(60)


def test_a_run_by_hand_takes_what_stands_everywhere(set_up: InboxHarness, instance: dg.DagsterInstance) -> None:
    result = run(instance)
    check = files_check(result)
    names = sorted((name, status) for name, _, status in set_up.ledger())
    assert names == [("dropped.csv", "loaded"), ("partner/a.csv", "loaded")]
    with set_up.platform.engine.connect() as conn:
        who = conn.scalars(select(audit.c.actor).where(audit.c.action == "landed")).all()
    assert who == [f"run {result.run_id}"] * 2
    assert not check.passed, "the dead inbox shows, and nothing waits for it"
    assert "0 files cannot be landed; inbox sftp: 127.0.0.1:" in check.description
    assert "cannot be reached" in check.description
    run(instance)
    assert set_up.stands() == ["processed/2/a.csv"] or set_up.stands() == ["processed/1/a.csv"]


def test_the_sensor_visits_beside_its_ticks(
    set_up: InboxHarness, instance: dg.DagsterInstance, platform: Platform
) -> None:
    began = time.monotonic()
    with dg.build_sensor_context(instance=instance) as context:
        first = _evaluate(context, weather, platform)
    assert isinstance(first, dg.RunRequest), "the dropped file waits for nobody"
    assert time.monotonic() - began < 10
    wait_for_visits()
    assert set_up.ledger() == [("partner/a.csv", 1, "landed")]
    sensor_run = {"dagster/sensor_name": "weather_files"}
    run(instance, sensor_run)
    assert {status for *_, status in set_up.ledger()} == {"loaded"}
    with dg.build_sensor_context(instance=instance) as context:
        idle = _evaluate(context, weather, platform)
    assert isinstance(idle, dg.SkipReason)
    assert "Inbox sftp, since " in str(idle.skip_message)
    assert "cannot be reached" in str(idle.skip_message)
    assert not files_check(run(instance, sensor_run)).passed


def test_inboxes_by_their_settings(set_up: InboxHarness) -> None:
    by_name = {inbox.name: inbox for inbox in remote_inboxes(set_up.platform, weather)}
    assert set(by_name) == {"sftp", "partner"}
    assert by_name["sftp"].setting("password") == "MINI_PLATFORM_INBOX__WEATHER__PASSWORD"
    assert by_name["partner"].channel == "inbox:partner"
    assert remote_inboxes(set_up.platform, all_datasets()["sales"]) == []


def test_two_inboxes_of_one_name(set_up: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{INBOX}_SFTP__URL", "sftp://x@example.com/in")
    set_up.platform.__dict__.pop("settings", None)
    with pytest.raises(ValueError, match="two inboxes of weather have the same name"):
        remote_inboxes(set_up.platform, weather)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "it should look like s3://bucket/prefix, sftp://user@host/path or file:///folder"),
        ("s3:///x", "it should look like s3://bucket/prefix"),
        ("sftp://user:secret@host/x", "it contains credentials: use the settings for them instead"),
        ("s3://key:secret@bucket/x", "it contains credentials"),
        ("sftp://host/x", "it should name the user"),
        ("sftp://u@host:port/x", "it is not a URL"),
        ("file:///", "it should look like"),
        ("file://host/x", "it should look like"),
    ],
)
def test_urls_that_are_wrong(home: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    assert home.parent.exists()
    monkeypatch.setenv(f"{INBOX}__URL", url)
    with pytest.raises(ValidationError, match=words):
        load_settings()
    completed = subprocess.run(
        [sys.executable, "-m", "mini_platform.cli", "files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 2
    assert f"{INBOX}__URL is not valid: " in completed.stderr
    assert "secret" not in completed.stderr


def test_a_folder_that_is_watched_already(home: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (data / "weather", home / "raw"):
        monkeypatch.setenv(f"{INBOX}__URL", f"file://{folder}")
        with pytest.raises(ValidationError, match="which the platform already uses"):
            load_settings()


def test_nothing_of_it_is_imported_before_an_inbox_needs_it() -> None:
    code = (
        "import sys, mini_platform.definitions, mini_platform.landing.inbox_state;"
        "print([m for m in ('s3fs', 'fsspec', 'botocore', 'aiohttp', 'asyncssh') if m in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"


def test_raw_files_are_those_of_the_inbox(set_up: InboxHarness, instance: dg.DagsterInstance) -> None:
    run(instance)
    assert set_up.raw() == sorted([GOOD, CHANGED])
