"""The embedded Postgres on a real server: started by whoever comes first, whatever happened before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import make_url

from mini_platform.warehouse import embedded
from mini_platform_tests.support.command import cli
from mini_platform_tests.support.databases import FAST


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    yield folder
    embedded.stop(folder)


def ask(url: str, statement: str) -> object:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def gone(process: int) -> bool:
    """Return True if a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: object, seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up, "timed out"
        time.sleep(0.01)


def backends(home: Path) -> list[int]:
    data = str(embedded.data_folder(home))
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "cwd").readlink()) == data:
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def test_start_gives_a_durable_utf8_database_in_utc(home: Path) -> None:
    url = embedded.ensure_running(home)
    assert url.startswith("postgresql+psycopg2://")
    assert ask(url, "SELECT current_database()") == "mini_platform"
    for name, value in {
        "server_encoding": "UTF8",
        "fsync": "on",
        "synchronous_commit": "on",
        "TimeZone": "UTC",
    }.items():
        assert ask(url, f"SHOW {name}") == value
    assert ask(url, "SHOW listen_addresses") == ""
    assert ask(url, "SELECT upper('é') || ('B' < 'a')") == "Étrue"
    closed_to_others(home, url)
    second_call_uses_the_same_server_and_is_fast(home, url)


def closed_to_others(home: Path, url: str) -> None:
    folder = make_url(url).query["host"]
    assert Path(str(folder)).stat().st_mode & 0o077 == 0
    assert embedded.data_folder(home).stat().st_mode & 0o077 == 0


def second_call_uses_the_same_server_and_is_fast(home: Path, url: str) -> None:
    process = embedded.pid(home)
    began = time.perf_counter()
    assert embedded.ensure_running(home) == url
    assert time.perf_counter() - began < 0.05
    assert embedded.pid(home) == process


@pytest.mark.faults
def test_processes_that_start_it_at_once_share_one_server(home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mini_platform.warehouse import embedded as e; h = Path(sys.argv[1]);"
        "print(e.ensure_running(h), e.pid(h))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(answers) == 1


@pytest.mark.faults
def test_killed_server_is_started_again_with_its_data(home: Path) -> None:
    url = embedded.ensure_running(home)
    ask(url, "CREATE TABLE kept AS SELECT 42 AS value")
    for _ in range(3):
        process = embedded.pid(home)
        assert process
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: embedded.pid(home) is None)
        assert not embedded.is_running(home)
        assert ask(embedded.ensure_running(home), "SELECT value FROM kept") == 42


@pytest.mark.faults
def test_busy_backend_of_a_killed_server_does_not_prevent_the_start(home: Path) -> None:
    """It does not notice that its postmaster is gone while it computes."""
    url, process = embedded.ensure_running(home), embedded.pid(home)
    assert process
    spin = "DO $$ DECLARE n bigint := 0; BEGIN WHILE true LOOP n := n + 1; END LOOP; END $$"

    def compute() -> None:
        with pytest.raises(psycopg2.Error):
            ask(url, spin)

    thread = threading.Thread(target=compute)
    thread.start()
    time.sleep(0.5)
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: embedded.pid(home) is None)
    time.sleep(0.2)
    assert backends(home), "the backend was to be busy still"
    assert ask(embedded.ensure_running(home), "SELECT 1") == 1
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.faults
def test_pid_file_that_names_a_foreign_process_does_not_prevent_the_start(home: Path) -> None:
    """After a restart of the machine the number in the file may belong to any process."""
    embedded.ensure_running(home)
    process = embedded.pid(home)
    assert process
    file = embedded.data_folder(home) / "postmaster.pid"
    lines = file.read_text().splitlines()
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: not backends(home))
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert embedded.pid(home) is None
    assert ask(embedded.ensure_running(home), "SELECT 1") == 1


def test_stop_leaves_no_process_and_start_finds_the_data(home: Path) -> None:
    url = embedded.ensure_running(home)
    ask(url, "CREATE TABLE kept AS SELECT 42 AS value")
    processes = backends(home)
    assert processes
    assert embedded.stop(home) is True
    wait_for(lambda: all(gone(process) for process in processes))
    assert embedded.pid(home) is None
    assert embedded.stop(home) is False
    assert ask(embedded.ensure_running(home), "SELECT value FROM kept") == 42


@pytest.mark.faults
def test_stop_does_not_wait_for_a_long_recovery(home: Path) -> None:
    """After the crash of a backend the log is replayed, here by a process that never gets on with it."""
    url = embedded.ensure_running(home)
    ask(url, "CREATE TABLE kept AS SELECT g AS value FROM generate_series(1, 100000) g")
    process = embedded.pid(home)
    assert process
    os.kill(next(p.pid for p in psutil.Process(process).children() if "checkpointer" in p.cmdline()[0]), signal.SIGKILL)
    replaying: list[int] = []

    def is_replaying() -> bool:
        with contextlib.suppress(psutil.Error, IndexError):
            children = psutil.Process(process).children()
            replaying[:] = [p.pid for p in children if p.cmdline()[0].startswith("postgres: startup")]
        return bool(replaying)

    wait_for(is_replaying)
    os.kill(replaying[0], signal.SIGSTOP)
    messages: list[str] = []
    begin = time.monotonic()
    assert embedded.stop(home, messages.append) is True
    assert time.monotonic() - begin < embedded.STOP_SECONDS / 2
    assert messages == [
        "Postgres is recovering from a crash after 5 s: it is stopped anyway, and recovers at its next start."
    ]
    assert ask(embedded.ensure_running(home), "SELECT count(*) FROM kept") == 100000


def test_interrupted_creation_is_begun_again(home: Path) -> None:
    """The cluster appears under its name only when it is complete."""
    half = embedded.data_folder(home).with_name("data.new")
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert ask(embedded.ensure_running(home), "SELECT 1") == 1
    assert not half.exists()


def test_a_database_of_another_major_version_is_refused_with_what_to_do(home: Path) -> None:
    data = embedded.data_folder(home)
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(
        embedded.EmbeddedPostgresError, match=r"written by Postgres 17, .* mini-platform restore DIR"
    ) as caught:
        embedded.ensure_running(home)
    result = cli("files", MINI_PLATFORM_HOME=str(home), DATABASE_URL="")
    assert (result.returncode, result.stderr.endswith(f"{caught.value}\n")) == (1, True)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


@pytest.mark.parametrize("name", ["long" * 40, "with space, 'quotes' and $dollar", "ünïcode"])
def test_odd_paths(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    try:
        url = embedded.ensure_running(home)
        assert ask(url, "SELECT 1") == 1
        assert embedded.ensure_running(home) == url
    finally:
        embedded.stop(home)


def test_environment_of_the_user_does_not_steer_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "elsewhere", "LC_ALL": "xx_XX"}.items():
        monkeypatch.setenv(name, value)
    assert ask(embedded.ensure_running(home), "SELECT 1") == 1


@pytest.mark.faults
def test_server_outlives_the_session_of_the_process_that_started_it(home: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from mini_platform.warehouse import embedded as e;"
        "e.ensure_running(Path(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout
    assert starter.stdout.readline() == "up\n"
    os.killpg(starter.pid, signal.SIGINT)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert embedded.is_running(home)


def test_configuration_can_be_overridden(server: str) -> None:
    """The server of all tests has settings of its own."""
    assert ask(server, "SHOW shared_buffers") == FAST["shared_buffers"]


def test_binary() -> None:
    answer = subprocess.run([embedded.binary("psql"), "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("psql (PostgreSQL) 18")
    with pytest.raises(embedded.EmbeddedPostgresError, match="no program nonsense"):
        embedded.binary("nonsense")
