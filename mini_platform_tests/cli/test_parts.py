"""The supervisor's processes with tiny ones in their place: restarts, logs, and what `down` says."""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest
from rich.console import Console

from mini_platform.cli.supervisor import commands, lifecycle
from mini_platform.cli.supervisor.child import MARK, ChildProcess
from mini_platform.cli.supervisor.lifecycle import Supervisor
from mini_platform.cli.supervisor.log_files import LogFile, rotate_appended
from mini_platform.cli.supervisor.processes import LONGEST_PAUSE, RESTARTS, Part, Processes
from mini_platform.cli.supervisor.state import PlatformError
from mini_platform.config.settings import Settings, load_settings
from mini_platform.warehouse import embedded
from mini_platform_tests.support.disks import mount

LIVES, DIES = ["-c", "import time; time.sleep(60)"], ["-c", "raise SystemExit(3)"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MINI_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("MINI_PLATFORM_LOG_BYTES", "2000")
    monkeypatch.setenv("MINI_PLATFORM_LOG_FILES", "3")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return load_settings()


def started(settings: Settings, monkeypatch: pytest.MonkeyPatch, **arguments: list[str]) -> Processes:
    monkeypatch.setattr(Processes, "_commands", lambda _: arguments)
    processes = Processes(settings, lambda *_: None)
    processes.launch_all()
    return processes


def die(processes: Processes) -> list[Part]:
    """Return the parts that ended, once one has."""
    give_up = time.monotonic() + 10
    while not processes.ended():
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return list(processes.pop_ended())


def keep_dying(processes: Processes) -> None:
    for _ in range(2 * RESTARTS):
        processes.launch([part.name for part in die(processes)])


def test_a_part_that_keeps_dying_is_left_alone_ever_longer_and_the_rest_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = started(settings, monkeypatch, api=DIES, daemon=LIVES)
    pauses = []
    for _ in range(RESTARTS + 1):
        (api,) = die(processes)
        pauses.append(api.pause)
        assert not processes.due()
        facts = processes.facts()
        assert facts["daemon"]["running"]
        assert not facts["api"]["running"]
        assert f"is down since {facts['api']['since']} (ended {len(pauses)} time" in commands.describe(facts)
        processes.launch(["api"])
    assert pauses == [1, 2, 4, 8, 16, 32]
    assert (facts["api"]["deaths"], facts["api"]["why"]) == (6, "exit code 3")
    api.deaths = 100
    assert api.pause == LONGEST_PAUSE
    processes.end(["api", "daemon"])
    assert not processes.due(), "what was ended is not restarted"


def test_a_clock_that_is_set_back_restarts_the_daemon_and_delays_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken, log = [], io.StringIO()
    monkeypatch.setattr(lifecycle, "wake_sensors", woken.append)  # operations/test_watchdog.py has a real one
    supervisor = Supervisor(settings, Console(file=log, width=1000))
    supervisor._ready, supervisor._processes = True, started(settings, monkeypatch, api=DIES, daemon=LIVES)
    try:
        (api,) = die(supervisor._processes)
        assert api.next_start
        child = supervisor._processes._parts["daemon"].child
        supervisor._notice_clock_step()
        assert supervisor._processes._parts["daemon"].child is child
        supervisor._clock += 3600
        api.next_start += dt.timedelta(hours=1)
        supervisor._notice_clock_step()
        assert "the clock was set back by 3600 s, and the daemon is restarted" in log.getvalue()
        assert child
        assert (child.running, woken, supervisor._processes.facts()["daemon"]["running"]) == (False, [settings], True)
        assert supervisor._processes.due() == [api]
    finally:
        supervisor._processes.end(["api", "daemon"])


def query(home: Path, *statements: str) -> object:
    """Run statements on the embedded Postgres, started if need be; return the first value of the last one."""
    with closing(psycopg2.connect(embedded.ensure_running(home).replace("+psycopg2", ""))) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return (cursor.fetchone() or [None])[0] if cursor.description else None


def test_a_full_disk_ends_nothing_and_postgres_starts_again_once_there_is_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres stops as soon as its log cannot grow; what it has acknowledged by then is there afterwards."""
    home = settings.home
    mount(home, "size=130m", "mode=700")
    log, full = io.StringIO(), Path("/dev/full").open("w")  # noqa: SIM115 - closed below
    supervisor = Supervisor(settings, Console(file=log, width=1000))
    supervisor._ready = True
    try:
        query(home, "CREATE TABLE thing (n int)", "INSERT INTO thing SELECT generate_series(1, 1000)")
        with suppress(OSError), (home / "fills").open("wb") as file:
            while file.write(bytes(2**20)):
                pass
        url = embedded.ensure_running(home).replace("+psycopg2", "")
        switch = "SELECT pg_switch_wal()"  # A new segment of the log, for which there is no room.
        with pytest.raises(psycopg2.OperationalError):
            query(home, *("INSERT INTO thing VALUES (1001)", switch) * 9)
        give_up = time.monotonic() + 60
        while embedded.is_running(home):  # It starts again by itself as long as there is room for that.
            assert time.monotonic() < give_up
            with suppress(psycopg2.OperationalError), closing(psycopg2.connect(url)) as conn, conn.cursor() as cursor:
                cursor.execute(f"INSERT INTO thing VALUES (1001); {switch}")  # noqa: S608 - a constant
            time.sleep(0.05)
        supervisor._restart_postgres()
        supervisor._restart_postgres()  # Not before a while.
        sentence = f"as the disk of {home} is full: free some space there. It is tried again in 30 s"
        assert log.getvalue().count(sentence) == 1
        supervisor._console = Console(file=full)
        supervisor._log("INFO", "a line that no disk takes")
        (home / "fills").unlink()
        monkeypatch.setattr(supervisor, "_postgres_due", 0.0)
        supervisor._restart_postgres()
        assert int(str(query(home, "SELECT count(*) FROM thing"))) >= 1000
    finally:
        with suppress(OSError):
            full.close()
        embedded.stop(home)
        subprocess.run(["umount", "--lazy", home], check=True)


def test_deaths_are_forgotten_after_a_while(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(settings, monkeypatch, api=LIVES)
    api = processes._parts["api"]
    api.fail("exit code 1")
    processes.launch(["api"])
    assert not [*processes.pop_ended()]
    assert api.deaths == 1
    monkeypatch.setattr("mini_platform.cli.supervisor.processes.LONGEST_PAUSE", 0.0)
    assert not [*processes.pop_ended()]
    assert (api.deaths, api.failing_since) == (0, None)
    processes.end(["api"])


def test_all_end_if_every_part_keeps_dying(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(settings, monkeypatch, api=DIES, daemon=DIES)
    with pytest.raises(PlatformError, match="Every process keeps ending"):
        keep_dying(processes)


def test_logs_rotate_and_lose_no_line(settings: Settings, tmp_path: Path) -> None:
    """Two processes of a name write at once, as a daemon that was restarted and a run of the one before."""
    program = "for n in range(400): print({name!r}, n)"
    file = LogFile(tmp_path / "daemon.log", settings)
    children = [
        ChildProcess("daemon", ["-c", program.format(name=name)], tmp_path, lambda *_: None, file)
        for name in ("a", "b")
    ]
    readers = [thread for thread in threading.enumerate() if thread.name == "log of daemon"]
    for thread in readers:
        thread.join(timeout=20)
    psutil.wait_procs([psutil.Process(child.pid) for child in children if child.running], timeout=20)
    assert [child.exit_code for child in children] == [0, 0]
    logs = [tmp_path / f"daemon.log{suffix}" for suffix in (".3", ".2", ".1", "")]
    assert logs[1].exists()
    lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    for name in ("a", "b"):
        assert [line for line in lines if line[0] == name] == [f"{name} {n}" for n in range(400)]
    for n in range(1000):
        file.write(f"c {n}\n")
    file.close()
    assert sorted(path.name for path in tmp_path.glob("daemon.log*")) == [
        "daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3",
    ]  # fmt: skip
    assert all(path.stat().st_size <= settings.log_bytes for path in tmp_path.glob("daemon.log*"))


ROTATES = """
import os, pathlib, subprocess, sys
from mini_platform.cli.supervisor.lifecycle import Supervisor
from mini_platform.cli.supervisor.log_files import rotate_output
from mini_platform.config.settings import load_settings
for n in range(200):
    print(n, flush=True)
    if n == 199:
        os.write(2, b"error\\n")
    rotate_output(pathlib.Path(sys.argv[1]), load_settings())
"""


def test_the_log_of_the_supervisor_rotates_under_it(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    environment = os.environ | {"MINI_PLATFORM_LOG_BYTES": "300"}
    with log.open("a") as output:
        subprocess.run([sys.executable, "-c", ROTATES, log], stdout=output, stderr=output, env=environment, check=True)
    written = [tmp_path / f"up.log{suffix}" for suffix in (".3", ".2", ".1", "")]
    lines = [line for path in written if path.exists() for line in path.read_text().splitlines()]
    assert lines == [*map(str, range(200)), "error"]


def test_the_log_of_postgres_rotates_while_it_is_appended_to(settings: Settings, tmp_path: Path) -> None:
    log, lines = embedded.log_file(tmp_path), [f"line {n}" for n in range(1000)]
    with log.open("a") as server:
        for line in lines:
            print(line, file=server, flush=True)
            rotate_appended(log, settings)
    written = [log.with_name(f"postgres.log{suffix}") for suffix in (".3", ".2", ".1", "")]
    assert not log.with_name("postgres.log.4").exists()
    rest = [line for path in written for line in path.read_text().splitlines()]
    assert rest == lines[-len(rest) :]
    assert all(path.stat().st_size < settings.log_bytes + 10 for path in written)


def test_down_ends_everything_and_says_what(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded.ensure_running(tmp_path)
    left = subprocess.Popen([sys.executable, *LIVES], env=os.environ | {MARK: str(tmp_path)})
    assert commands.down() == 0
    assert capsys.readouterr().out == "1 process that a killed platform left behind stopped.\nPostgres stopped.\n"
    assert embedded.pid(tmp_path) is None
    assert not psutil.pid_exists(left.pid) or left.wait(timeout=5)
    assert commands.down() == 0
    assert capsys.readouterr().out == "Nothing was running.\n"
