"""The watchdog over what Dagster itself has written into its tables, and over the state of the supervisor."""

from __future__ import annotations

import datetime as dt
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select, text, update

from mini_platform.cli.supervisor.child import marked
from mini_platform.cli.supervisor.processes import Processes
from mini_platform.cli.supervisor.state import pid_file_lock, write_state
from mini_platform.config.settings import invalid, load_settings
from mini_platform.config.sockets import CODE_SERVER_SOCKET, socket_folder
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
from mini_platform.operations import resources, watchdog
from mini_platform.operations.alerts import LEADS
from mini_platform.operations.answering import answers, code_server_answers
from mini_platform.operations.detection import current
from mini_platform.operations.doctor import examine
from mini_platform.operations.incidents import ALERTED_KINDS, open_subjects
from mini_platform.operations.landing import land
from mini_platform.operations.watchdog import Watch
from mini_platform.platform import Platform
from mini_platform.warehouse import connection, run_history
from mini_platform.warehouse.tables import files, incidents

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW, BEFORE = time.time() + 3600, time.time() - 3600
"""Times of signs of life: one that is never late in this test, and one that is."""
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("mini_platform"), "__repository__")
PROBES = {
    "api": lambda settings, seconds: answers(f"{settings.api_url}/api/health/", seconds),
    "webserver": lambda settings, seconds: answers(f"{settings.dagster_url}/server_info", seconds),
    "code_server": code_server_answers,
}
"""How it is seen that parts answer, with a time-out of the test's own."""
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


def ticks_fail(instance: dg.DagsterInstance, _data: Path) -> None:
    ticks = [
        (sensor("weather_files", NOW), ("SKIPPED", "FAILURE")),
        (sensor("sales_files", NOW), ("FAILURE", "SUCCESS")),
    ]
    with connection.engine(str(load_settings().database_url.get_secret_value())).begin() as conn:  # type: ignore[union-attr]
        for state, statuses in ticks:
            for minutes, status in zip((20, 10), statuses, strict=True):
                row = {"selector": state.selector_id, "status": status, "minutes": minutes}
                conn.execute(text(TICK), row)


def files_are_not_taken(_instance: dg.DagsterInstance, data: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (data / "weather" / name).write_text("x")


TICK = """INSERT INTO dagster.job_ticks (selector_id, status, type, timestamp)
    VALUES (:selector, :status, 'SENSOR', now() - make_interval(mins => :minutes))"""
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
    ticks_fail: ["weather: the sensor weather_files fails at each tick."],
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
    sensors = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    states = {state.name: state.instigator_data for state in sensors}
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


def test_a_part_that_runs_but_does_not_answer_is_an_incident_after_a_while(
    instance: dg.DagsterInstance, platform: Platform, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets that nobody accepts on, as those of processes that hang; of their sensors nothing is reported."""
    (home / "socket").mkdir(parents=True)
    instance.update_instigator_state(sensor("weather_files", BEFORE))
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    code_server = socket.socket(socket.AF_UNIX)
    code_server.bind(str(socket_folder(home / "socket") / CODE_SERVER_SOCKET))
    code_server.listen()
    for name, port in zip(("api_port", "dagster_port"), ports, strict=True):
        monkeypatch.setattr(platform.settings, name, port.getsockname()[1])
    monkeypatch.setattr(watchdog, "ANSWERS", {name: partial(ask, seconds=0.5) for name, ask in PROBES.items()})
    part = {"running": True, "deaths": 0}
    write_state(home, parts=dict.fromkeys(("api", "webserver", "code_server", "daemon", "watchdog"), part))
    watch = Watch(LONG_AGO)

    def down() -> set[str]:
        watchdog.look(platform, watch)
        with platform.engine.connect() as conn:
            assert {one.kind for one in current(conn, platform, platform.datasets)} <= {
                "part_down",
                "automation_silent",
            }
            return open_subjects(conn, "part_down")

    with pid_file_lock(home):
        assert down() == set(), "it may only be slow"
        monkeypatch.setitem(watchdog.LASTING, "part_down", 0.0)  # type: ignore[call-overload]
        assert down() == {"api", "webserver", "code_server"}
        monkeypatch.setattr(watchdog, "ANSWERS", {})
        assert down() == set()
    for opened in (*ports, code_server):
        opened.close()


@pytest.mark.slow
def test_a_code_server_that_is_stopped_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_HOME", str(tmp_path))
    settings = load_settings()
    processes = Processes(settings, lambda *_: None)
    processes.launch(["code_server"])
    try:
        give_up = time.monotonic() + 60
        while not code_server_answers(settings, 1.0):
            assert time.monotonic() < give_up
        (running,) = marked(tmp_path)
        running.suspend()
        assert not code_server_answers(settings, 1.0)
        running.resume()
        assert code_server_answers(settings)
    finally:
        processes.end(["code_server"])


def disk_is_low(monkeypatch: pytest.MonkeyPatch, _: Platform, __: Watch) -> None:
    monkeypatch.setattr(resources, "FREE_SHARES", (2.0, 2.0))
    monkeypatch.setattr(resources, "FREE_BYTES", (2**80, 2**80))


def connections_are_low(_: pytest.MonkeyPatch, platform: Platform, __: Watch) -> None:
    with platform.engine.begin() as conn:
        conn.execute(text(f"ALTER DATABASE {platform.engine.url.database} CONNECTION LIMIT 3"))


def clocks_differ(monkeypatch: pytest.MonkeyPatch, _: Platform, __: Watch) -> None:
    monkeypatch.setattr(resources, "SKEW_SECONDS", (-2.0, -1.0))


def clock_was_set_back(_: pytest.MonkeyPatch, __: Platform, watch: Watch) -> None:
    watch._clock = resources.Reading(watch._clock.wall + 3600, watch._clock.monotonic)


def logs_grow(_: pytest.MonkeyPatch, platform: Platform, __: Watch) -> None:
    for name in ("postgres.log", "postgres.log.1", "api.log"):
        (platform.settings.home / name).write_bytes(b"x" * 60)


SHORT: dict[Callable[[pytest.MonkeyPatch, Platform, Watch], None], tuple[str, str]] = {
    disk_is_low: ("disk_low", r"disk: only [\d.]+ GiB and [\d,]+ inodes are free for /.*\."),
    connections_are_low: ("connections_low", r"database: [1-3] of 3 connections are in use\."),
    clocks_differ: ("clock_off", r"clock: this host and the database differ by 0 s\."),
    clock_was_set_back: ("clock_off", r"clock: that of this host was set back by 3600 s\."),
    logs_grow: ("logs_growing", r"postgres\.log: 0 MiB of logs, more than its rotation keeps\."),
}


@pytest.mark.parametrize("wrong", SHORT, ids=lambda wrong: wrong.__name__)
def test_a_resource_that_runs_short_is_one_incident_until_it_does_not(
    wrong: Callable[[pytest.MonkeyPatch, Platform, Watch], None], platform: Platform, data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert data.exists()
    platform.settings.home.mkdir(exist_ok=True)
    monkeypatch.setitem(watchdog.LASTING, "connections_low", 0.0)  # type: ignore[call-overload]
    monkeypatch.setattr(platform.settings, "log_bytes", 10)
    monkeypatch.setattr(platform.settings, "log_files", 4)
    watch, (kind, message) = Watch(LONG_AGO), SHORT[wrong]

    def shown() -> list[str]:
        for _ in range(2):
            assert watchdog.look(platform, watch) == []
        with platform.engine.connect() as conn:
            rows = conn.execute(select(incidents).where(incidents.c.closed_at.is_(None))).all()
        assert {(row.kind, row.times) for row in rows} <= {(kind, 1)}
        return [row.message for row in rows]

    assert shown() == []
    with monkeypatch.context() as during:
        wrong(during, platform, watch)
        assert any(re.fullmatch(message, one) for one in shown())
    for log in platform.settings.home.glob("*.log*"):
        log.unlink()
    with platform.engine.begin() as conn:
        conn.execute(text(f"ALTER DATABASE {platform.engine.url.database} CONNECTION LIMIT -1"))
    monkeypatch.setattr(watchdog, "STEP_SHOWN", 0.0)
    assert shown() == []


def test_a_small_disk_is_low_by_its_share() -> None:
    for free, level in ((2**30, 2), (9 * 2**30, 1), (11 * 2**30, 0)):
        assert resources.Disk(Path(), 0, free - 1, 2**40, 0, 0).level == level
    for free, level in ((4, 2), (19, 1), (21, 0)):
        assert resources.Disk(Path(), 0, free * 2**20, 100 * 2**20, 2**30, 2**30).level == level
    assert resources.Disk(Path(), 0, 2**40, 2**40, 9, 2**30).level == 2


def test_the_heartbeat_is_sent_and_its_url_is_in_no_log(
    platform: Platform, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To a real server, by the process's own loop: each look sends one, and only a change of its result is logged."""
    assert data.exists()
    platform.settings.home.mkdir(exist_ok=True)
    statuses, requests = [200, 200, 500, 500, 500, 302, 200], list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(statuses[len(requests) - 1])
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    class Enough(BaseException): ...

    def pause(_: float) -> None:
        if len(requests) == len(statuses):
            raise Enough

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/T0ken"
    monkeypatch.setenv("MINI_PLATFORM_HEARTBEAT_URL", url)
    monkeypatch.setattr(watchdog.logs, "configure", lambda _: None)
    monkeypatch.setattr(watchdog.time, "sleep", pause)
    caplog.set_level("DEBUG", logger="mini_platform")
    with pytest.raises(Enough):
        watchdog.main()
    server.shutdown()
    server.server_close()
    assert requests == ["/T0ken"] * 7, "redirects are not followed"
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("mini_platform")]
    assert logged == [
        "the heartbeat cannot be sent: it was answered 500",
        "the heartbeat cannot be sent: it was answered 302",
        "the heartbeat is sent",
    ]
    assert watchdog.send_heartbeat(load_settings()) == "ConnectError"


@pytest.mark.parametrize("url", ["T0ken", "ftp://host/T0ken", "https:///T0ken", "http://[T0ken"])
def test_a_url_of_the_heartbeat_that_is_none_is_refused_without_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MINI_PLATFORM_HEARTBEAT_URL", url)
    with pytest.raises(ValidationError) as error:
        load_settings()
    assert "T0ken" not in str(error.value)
    assert [*invalid(error.value)] == [
        ("MINI_PLATFORM_HEARTBEAT_URL", "Value error, it should look like https://hc-ping.com/8d6c…")
    ]


def test_every_kind_of_alert_has_a_title() -> None:
    assert set(ALERTED_KINDS) <= LEADS.keys()
