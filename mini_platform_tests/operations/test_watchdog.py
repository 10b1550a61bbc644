"""The watchdog over what Dagster itself has written into its tables, and over the state of the supervisor."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import select

from mini_platform.cli.supervisor.state import pid_file_lock, write_state
from mini_platform.dagster.instance import prepare_instance
from mini_platform.dagster.private import (
    DaemonHeartbeat,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    RegisteredCodeLocationOrigin,
    RemoteRepositoryOrigin,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from mini_platform.operations import watchdog
from mini_platform.operations.alerts import LEADS
from mini_platform.operations.detection import current
from mini_platform.operations.doctor import examine
from mini_platform.operations.incidents import ALERTED_KINDS
from mini_platform.operations.landing import land
from mini_platform.platform import Platform
from mini_platform.warehouse import run_history
from mini_platform.warehouse.tables import incidents

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW, BEFORE = time.time() + 3600, time.time() - 3600
"""Times of signs of life: one that is never late in this test, and one that is."""
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("mini_platform"), "__repository__")
SENSORS = ("alerts", "weather_files", "sales_files", "signals_files", "customers_files", "records_files")


@pytest.fixture
def instance(platform: Platform, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance on the database of this test, where the daemon has run, and every sensor ticks."""
    assert data.exists()
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_instance(platform.settings)))
    with dg.DagsterInstance.get() as opened:
        beat(opened, NOW)
        for name in SENSORS:
            opened.add_instigator_state(sensor(name, NOW))
        yield opened


def beat(instance: dg.DagsterInstance, moment: float) -> None:
    for kind in ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"):
        instance.add_daemon_heartbeat(DaemonHeartbeat(moment, kind, "a", []))


def sensor(name: str, tick: float, status: str = "DECLARED_IN_CODE") -> InstigatorState:
    data = SensorInstigatorData(last_tick_timestamp=tick, last_tick_start_timestamp=tick)
    origin = REPOSITORY.get_instigator_origin(name)
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus(status), data)


def stopped_schedule(name: str) -> InstigatorState:
    data = ScheduleInstigatorData("0 3 * * *")
    origin = REPOSITORY.get_instigator_origin(name)
    return InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, data)


def nothing(instance: dg.DagsterInstance, data: Path) -> None:
    """Files that the platform does not take, or has only just got, are no incident either."""
    (data / "weather" / ".hidden").write_text("x")
    (data / "weather" / "notes.pdf").write_text("x")
    instance.add_instigator_state(stopped_schedule("of_a_dataset_that_was_removed"))


def the_daemon_is_away(instance: dg.DagsterInstance, data: Path) -> None:
    """Then no sensor ticks and no file is taken: that is the same cause."""
    beat(instance, BEFORE)
    instance.update_instigator_state(sensor("weather_files", BEFORE))
    (data / "weather" / "a.csv").write_text("x")


def a_sensor_does_not_tick(instance: dg.DagsterInstance, data: Path) -> None:
    instance.update_instigator_state(sensor("weather_files", BEFORE))
    (data / "weather" / "a.csv").write_text("x")


def no_sensor_ticks(instance: dg.DagsterInstance, _data: Path) -> None:
    for name in SENSORS:
        instance.update_instigator_state(sensor(name, BEFORE))


def no_sensor_ever_ticked(instance: dg.DagsterInstance, _data: Path) -> None:
    for name in SENSORS:
        state = sensor(name, NOW)
        instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)


def some_are_stopped(instance: dg.DagsterInstance, _data: Path) -> None:
    instance.update_instigator_state(sensor("weather_files", NOW, "STOPPED"))
    instance.add_instigator_state(stopped_schedule("purge_nightly"))


def files_are_not_taken(_instance: dg.DagsterInstance, data: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (data / "weather" / name).write_text("x")


CASES: dict[Callable[[dg.DagsterInstance, Path], None], list[str]] = {
    nothing: [],
    the_daemon_is_away: ["daemon: it shows no sign of life."],
    a_sensor_does_not_tick: ["weather: the sensor weather_files does not tick."],
    no_sensor_ticks: ["code_server: no sensor ticks, as if the code server did not answer."],
    no_sensor_ever_ticked: ["code_server: no sensor ticks, as if the code server did not answer."],
    some_are_stopped: [
        "purge_nightly: the schedule purge_nightly is stopped.",
        "weather: the sensor weather_files is stopped.",
    ],
    files_are_not_taken: ["weather: 2 files in its drop folder not taken."],
}


@pytest.mark.parametrize("wrong", CASES, ids=lambda wrong: wrong.__name__)
def test_silence_is_one_incident_that_every_view_shows(
    wrong: Callable[[dg.DagsterInstance, Path], None],
    instance: dg.DagsterInstance,
    platform: Platform,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong(instance, data)
    time.sleep(1.1)  # Until then a dropped file may still be growing.
    assert watchdog.look(platform, dt.datetime.now(dt.UTC)) == []
    with platform.engine.connect() as conn:
        assert [one.message for one in current(conn, platform, platform.datasets)] == [], "it has only just begun"
    monkeypatch.setattr(watchdog, "SILENT", dt.timedelta(seconds=1))
    watchdog.look(platform, LONG_AGO)
    with platform.engine.connect() as conn:
        shown = [one.message for one in current(conn, platform, platform.datasets)]
    assert sorted(shown) == CASES[wrong]
    doctor = {result.message for result in examine()}
    assert all(message in doctor for message in shown)
    monkeypatch.setattr(watchdog, "SILENT", dt.timedelta(days=10000))
    watchdog.look(platform, LONG_AGO)
    with platform.engine.connect() as conn:
        assert conn.scalars(select(incidents.c.incident_id).where(incidents.c.closed_at.is_(None))).all() == []


def test_a_drop_folder_that_cannot_be_listed(
    platform: Platform, instance: dg.DagsterInstance, data: Path, tmp_path: Path
) -> None:
    """An error of a network mount is one incident, while uploads and other datasets go on; and it recovers."""
    weather, signals = (platform.datasets[name] for name in ("weather", "signals"))
    folder, away = data / "weather", tmp_path / "away"
    (folder / "a.csv").write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\n")
    os.utime(folder / "a.csv", (BEFORE, BEFORE))
    folder.rename(away)
    folder.write_text("no folder")
    landed = land(platform, weather, "test")
    assert [file.skip_reason for file in landed.blocked] == [f"{folder} cannot be listed: Not a directory"]
    assert land(platform, signals, "test").blocked == []
    later = dt.timedelta(minutes=10)
    with platform.engine.connect() as conn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "SILENT", -later)  # what is new counts as if it stood there for long
        (incident,) = watchdog._unseen(conn, platform, LONG_AGO, set())
        sentence = (
            f"weather: 1 file in its drop folder not taken. weather/: {folder} cannot be listed: Not a directory."
        )
        assert (incident.subject, incident.message) == ("weather", sentence)
        folder.unlink()
        away.rename(folder)
        assert len(land(platform, weather, "test").file_ids) == 1
        assert list(watchdog._unseen(conn, platform, LONG_AGO, set())) == []


def test_sensors_that_ticked_in_the_future_tick_again(platform: Platform, instance: dg.DagsterInstance) -> None:
    """The clock was set back: Dagster would wait until it has caught up."""
    instance.add_instigator_state(sensor("another", BEFORE))
    with platform.engine.begin() as conn:
        run_history.wake_sensors(conn)
    states = {state.name: state.instigator_data for state in instance.all_instigator_state()}
    ticks = {name: (data.last_tick_start_timestamp, data.last_tick_timestamp) for name, data in states.items()}
    assert ticks.pop("another") == (BEFORE, BEFORE)
    assert set(ticks) == set(SENSORS)
    assert all(time.time() - 60 < moment < time.time() for pair in ticks.values() for moment in pair)


def test_sensors_get_time_after_the_daemon_is_back(
    instance: dg.DagsterInstance, platform: Platform, data: Path
) -> None:
    the_daemon_is_away(instance, data)
    for moment in (BEFORE, NOW):
        beat(instance, moment)
        watchdog.look(platform, LONG_AGO)
    with platform.engine.connect() as conn:
        assert current(conn, platform, platform.datasets) == []
        assert conn.scalars(select(incidents.c.subject)).all() == ["daemon"]


def test_a_part_that_keeps_dying_is_an_incident(platform: Platform, home: Path) -> None:
    home.mkdir(exist_ok=True)
    part = {"running": False, "why": "exit code 1", "failing_since": "2026-01-01T10:00:00+00:00"}
    write_state(home, parts={"api": part | {"deaths": 3}, "webserver": part | {"deaths": 2}})
    with platform.engine.connect() as conn:
        assert watchdog.silences(conn, platform, LONG_AGO) == [], "no platform runs"
        with pid_file_lock(home):
            (incident,) = watchdog.silences(conn, platform, LONG_AGO)
    assert (incident.subject, incident.since) == ("api", dt.datetime(2026, 1, 1, 10, tzinfo=dt.UTC))
    assert incident.message == "api: its process keeps ending (exit code 1), and is restarted after pauses."


def test_every_kind_of_alert_has_a_title() -> None:
    assert set(ALERTED_KINDS) <= LEADS.keys()
