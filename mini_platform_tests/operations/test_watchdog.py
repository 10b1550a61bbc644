"""The watchdog over what Dagster itself has written into its tables, and over the state of the supervisor."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Connection, func, insert, select, text, update

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
from mini_platform.operations.watchdog import Watch
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import files, incidents

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
        opened.add_instigator_state(schedule("purge_nightly"))
        yield opened


def beat(instance: dg.DagsterInstance, moment: float) -> None:
    for kind in ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"):
        instance.add_daemon_heartbeat(DaemonHeartbeat(moment, kind, "a", []))


def sensor(name: str, tick: float, status: str = "DECLARED_IN_CODE") -> InstigatorState:
    data = SensorInstigatorData(last_tick_timestamp=tick, last_tick_start_timestamp=tick)
    origin = REPOSITORY.get_instigator_origin(name)
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus(status), data)


def schedule(name: str, status: str = "DECLARED_IN_CODE") -> InstigatorState:
    data = ScheduleInstigatorData("0 3 * * *")
    origin = REPOSITORY.get_instigator_origin(name)
    return InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus(status), data)


def nothing(instance: dg.DagsterInstance, data: Path) -> None:
    """Files that the platform does not take, or has only just got, are no incident either."""
    (data / "weather" / ".hidden").write_text("x")
    (data / "weather" / "notes.pdf").write_text("x")
    instance.add_instigator_state(schedule("of_a_dataset_that_was_removed", "STOPPED"))


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
    instance.update_instigator_state(schedule("purge_nightly", "STOPPED"))


def some_were_never_started(instance: dg.DagsterInstance, _data: Path) -> None:
    for state in (sensor("weather_files", NOW), schedule("purge_nightly")):
        instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)


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
    some_were_never_started: [
        "purge_nightly: Dagster does not run purge_nightly.",
        "weather: Dagster does not run weather_files.",
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
    assert watchdog.look(platform, Watch(dt.datetime.now(dt.UTC))) == []
    with platform.engine.connect() as conn:
        assert [one.message for one in current(conn, platform, platform.datasets)] == [], "it has only just begun"
    monkeypatch.setattr(watchdog, "SILENT", dt.timedelta(seconds=1))
    watchdog.look(platform, Watch(LONG_AGO))
    with platform.engine.connect() as conn:
        shown = [one.message for one in current(conn, platform, platform.datasets)]
    assert sorted(shown) == CASES[wrong]
    doctor = {result.message for result in examine()}
    assert all(message in doctor for message in shown)
    monkeypatch.setattr(watchdog, "SILENT", dt.timedelta(days=10000))
    watchdog.look(platform, Watch(LONG_AGO))
    with platform.engine.connect() as conn:
        assert conn.scalars(select(incidents.c.incident_id).where(incidents.c.closed_at.is_(None))).all() == []


def test_sensors_get_time_after_the_daemon_is_back(
    instance: dg.DagsterInstance, platform: Platform, data: Path
) -> None:
    the_daemon_is_away(instance, data)
    for moment in (BEFORE, NOW):
        beat(instance, moment)
        watchdog.look(platform, Watch(LONG_AGO))
    with platform.engine.connect() as conn:
        assert current(conn, platform, platform.datasets) == []
        assert conn.scalars(select(incidents.c.subject)).all() == ["daemon"]


@pytest.mark.parametrize(
    ("minutes", "progress", "is_stalled"), [(5, 0, False), (15, 0, True), (15, 1, False), (70, 1, True)]
)
def test_a_queue_of_runs_that_does_not_move_is_one_incident_with_the_files_that_wait_for_it(
    instance: dg.DagsterInstance, platform: Platform, minutes: int, progress: int, is_stalled: bool
) -> None:
    for status in [dg.DagsterRunStatus.QUEUED] * 2 + [dg.DagsterRunStatus.STARTED] * progress:
        origin = REPOSITORY.get_job_origin("load_weather")
        instance.run_storage.add_run(dg.DagsterRun("load_weather", status=status, remote_job_origin=origin))
    ago = dt.timedelta(minutes=minutes)
    file = {"dataset": "weather", "name": "a.csv", "version": 1, "sha256": "", "bytes": 0, "channel": "test"}
    with platform.engine.begin() as conn:
        earlier = "UPDATE dagster.runs SET create_timestamp = now() - :ago, update_timestamp = now() - :ago"
        conn.execute(text(earlier), {"ago": ago})
        conn.execute(insert(files).values(file | {"status": "landed", "arrived_at": func.now() - 2 * ago}))
    watchdog.look(platform, Watch(LONG_AGO))
    with platform.engine.connect() as conn:
        (shown,) = current(conn, platform, platform.datasets)
    assert shown.kind == ("queue_stalled" if is_stalled else "files_waiting")
    if is_stalled:
        behind = ", behind 1 run in progress" if progress else ""
        assert shown.message.startswith(f"runs: 2 runs are queued{behind}, and none has started or ended since 20")


def test_files_that_wait_while_others_are_worked_on(platform: Platform) -> None:
    def waiting(conn: Connection) -> bool:
        return [one.kind for one in current(conn, platform, platform.datasets)] == ["files_waiting"]

    ago, soon = func.now() - dt.timedelta(minutes=30), func.now() + dt.timedelta(minutes=1)
    file = {"version": 1, "sha256": "", "bytes": 0, "channel": "test", "status": "landed", "arrived_at": ago}
    with platform.engine.begin() as conn:
        for dataset, name in (("weather", "a.csv"), ("sales", "b.csv")):
            conn.execute(insert(files).values(file | {"dataset": dataset, "name": name, "leased_until": soon}))
        assert not waiting(conn), "both are worked on"
        conn.execute(update(files).where(files.c.dataset == "weather").values(leased_until=ago))
        assert not waiting(conn), "it may be its turn next"
        conn.execute(update(files).where(files.c.dataset == "sales").values(queued_at=func.now(), leased_until=ago))
        assert waiting(conn), "nobody works"
        conn.execute(update(files).where(files.c.dataset == "weather").values(staged_at=func.now(), status="staged"))
        assert not waiting(conn), "it goes on"


def test_a_watchdog_that_has_just_started_ends_no_incident_of_an_earlier_one(
    instance: dg.DagsterInstance, platform: Platform
) -> None:
    instance.update_instigator_state(sensor("weather_files", BEFORE))
    for since, is_open in ((LONG_AGO, True), (dt.datetime.now(dt.UTC), True)):
        watchdog.look(platform, Watch(since))
        with platform.engine.connect() as conn:
            assert conn.scalars(select(incidents.c.closed_at.is_(None))).all() == [is_open]


def test_a_part_that_keeps_dying_is_an_incident(platform: Platform, home: Path) -> None:
    home.mkdir(exist_ok=True)
    part = {"running": False, "why": "exit code 1", "failing_since": "2026-01-01T10:00:00+00:00"}
    write_state(home, parts={"api": part | {"deaths": 3}, "webserver": part | {"deaths": 2}})
    with platform.engine.connect() as conn:
        assert watchdog.wrong(conn, platform, Watch(LONG_AGO)) == [], "no platform runs"
        with pid_file_lock(home):
            (incident,) = watchdog.wrong(conn, platform, Watch(LONG_AGO))
    assert (incident.subject, incident.since) == ("api", dt.datetime(2026, 1, 1, 10, tzinfo=dt.UTC))
    assert incident.message == "api: its process keeps ending (exit code 1), and is restarted after pauses."


def test_every_kind_of_alert_has_a_title() -> None:
    assert set(ALERTED_KINDS) <= LEADS.keys()
