"""The sensor's patience: what fails for its own reasons is tried ever more seldom, and at once where it may go well."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from mini_platform.dagster import automation
from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform.storage.names import SETTLE_SECONDS
from mini_platform_tests.support.definitions import drop, materialize, tick

MESSAGE = re.compile(
    r"1 new and 0 pending files wait\. (The last run|The last \d runs) failed, or did not land all new files; "
    r"the next try is at (\d\d:\d\d:\d\d) UTC\. Materialize the assets to try now\."
)
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as dagster_instance:
        yield dagster_instance


@pytest.fixture
def defs(data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """A file waits, and the raw store cannot keep it: a file stands where its folder should."""
    monkeypatch.setattr(automation, "TICK_SECONDS", 0.0)
    home.mkdir(exist_ok=True)
    (home / "raw").write_text("")
    wait_with(data, "a.csv")
    return build_defs({name: all_datasets()[name] for name in ("weather", "signals")})


def wait_with(data: Path, name: str) -> None:
    """Drop a file, and let it settle: a run that begins now would take it."""
    drop(data, name, b"station_id,date,temp_c,precip_mm\nA,2024-01-01,1,0\n")
    time.sleep(SETTLE_SECONDS + 0.1)


def fail(defs: dg.Definitions, instance: dg.DagsterInstance) -> float:
    """A run that fails; when it ended."""
    assert not materialize(defs, instance, raise_on_error=False).success
    (run,) = instance.get_run_records(limit=1)
    assert run.end_time is not None
    return run.end_time


def reported_pause(answer: Any) -> tuple[str, str]:
    assert isinstance(answer, str), answer
    match = MESSAGE.fullmatch(answer)
    assert match, answer
    return match[1], match[2]


def clock(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%H:%M:%S")


def test_the_pauses_grow(defs: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automation, "PAUSES", (50, 100, 200))
    assert isinstance(tick(defs, instance), dg.RunRequest)
    for runs, seconds in (("run", 50), ("2 runs", 100), ("3 runs", 200), ("3 runs", 200)):
        ended = fail(defs, instance)
        assert reported_pause(tick(defs, instance)) == (f"The last {runs}", clock(ended + seconds))
    monkeypatch.setattr(automation, "PAUSES", (0, 0, 0))
    assert isinstance(tick(defs, instance), dg.RunRequest), "once the pause is over"


def test_the_declared_pauses() -> None:
    assert (automation.PAUSES[0], automation.PAUSES[-1]) == (5, 300)
    assert all(later <= 2 * pause for pause, later in zip(automation.PAUSES, automation.PAUSES[1:], strict=False))


def test_a_clock_that_was_set_back_is_no_pause(
    defs: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automation, "PAUSES", (50,))
    ended = fail(defs, instance)
    clock_of_today = SimpleNamespace(time=lambda: ended - 3600, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(automation, "time", clock_of_today)
    assert isinstance(tick(defs, instance), dg.RunRequest)


def test_a_success_ends_it(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, home: Path) -> None:
    fail(defs, instance)
    fail(defs, instance)
    (home / "raw").unlink()
    assert reported_pause(tick(defs, instance))[0] == "The last 2 runs"
    assert materialize(defs, instance).success, "by hand"
    assert tick(defs, instance) == f"Nothing new in {data}/weather/."
    (data / "weather" / "a.csv").rename(data / "weather" / "b.csv")
    assert isinstance(tick(defs, instance), dg.RunRequest)


def test_a_new_file_is_tried_at_once(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path) -> None:
    fail(defs, instance)
    assert isinstance(tick(defs, instance), str)
    wait_with(data, "a.csv")
    assert isinstance(tick(defs, instance), dg.RunRequest)
    fail(defs, instance)
    assert reported_pause(tick(defs, instance))[0] == "The last run"


def test_changed_code_is_tried_at_once(
    defs: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(defs, instance)
    monkeypatch.setattr(automation, "CODE", tmp_path / "code")
    (tmp_path / "code" / "datasets").mkdir(parents=True)
    assert isinstance(tick(defs, instance), str)
    (tmp_path / "code" / "datasets" / "weather.py").write_text("")
    assert isinstance(tick(defs, instance), dg.RunRequest)


def test_a_run_that_leaves_a_file_standing_counts(
    defs: dg.Definitions, instance: dg.DagsterInstance, home: Path
) -> None:
    """Such a run finds no room for the file: it succeeds nevertheless, with a check that fails."""
    (home / "raw").unlink()
    config = {"ops": {"weather__raw_csv": {"config": {"files": []}}}}
    for runs in ("run", "2 runs"):
        assert materialize(defs, instance, run_config=config).success
        assert reported_pause(tick(defs, instance))[0] == f"The last {runs}"


def test_others_do_not_wait(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path) -> None:
    fail(defs, instance)
    drop(data, "s.json", b'{"time_stamp": "2024-01-01T00:00:00Z", "data": [1]}', "signals")
    assert isinstance(tick(defs, instance, "signals"), dg.RunRequest)
