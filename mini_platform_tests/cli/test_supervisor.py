"""`up` and `down` with the real processes, in a home and a data folder of their own, on free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from mini_platform.cli.supervisor.child import worth_showing
from mini_platform.cli.supervisor.preflight import choose_ports
from mini_platform.cli.supervisor.state import PlatformError, pid_file_lock, write_ports
from mini_platform.config.settings import load_settings
from mini_platform.dagster.private import DAEMON
from mini_platform.operations.doctor import examine
from mini_platform.warehouse import embedded
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.supervised import Supervised

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("supervisor")]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Supervised]:
    supervised = Supervised(tmp_path / "home", tmp_path / "data", free_port(), free_port())
    supervised.data.mkdir()
    yield supervised
    if supervised.processes():
        supervised.down()
    for process in supervised.processes():
        process.kill()
    embedded.stop(supervised.home)


DECLARATION = """
from mini_platform import Dataset, Field, RowModel


class Thing(RowModel):
    thing: str = Field("Number of the thing", str_length={"max_value": 20})


dataset = Dataset(name="things", table="things", description="Things.", rows=Thing, key=("thing",))
"""


def bad_declarations_and_corrections_are_taken_up(platform: Supervised) -> None:
    """The dataset of a file that turns bad is left out until the file is corrected."""
    assert platform.datasets
    for content, invalid in (("x = (", ["things"]), (DECLARATION, None)):
        (platform.datasets / "things.py").write_text(content)
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                health = httpx.get(f"http://127.0.0.1:{platform.api_port}/health").json()
                if health.get("declarations_invalid") == invalid:
                    break
            time.sleep(0.2)
        else:
            pytest.fail(f"not taken up: {content}")
    assert "things.py, line 1: SyntaxError" in (platform.home / "up.log").read_text()


@pytest.mark.faults
def test_up_down(platform: Supervised, tmp_path: Path) -> None:
    platform.datasets = tmp_path / "datasets"
    platform.datasets.mkdir()
    for name in ("things", "others"):
        (platform.datasets / f"{name}.py").write_text(DECLARATION.replace('"things"', f'"{name}"'))
    strays = {path.name for path in PROJECT.iterdir()}
    up = platform.up()
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"s: dashboard http://127.0.0.1:{platform.api_port}, Dagster http://127.0.0.1:{platform.port}" in up.stdout
    assert platform.answers()
    assert platform.api_answers(), "the database, too"
    status = platform.status()
    assert status["running"] is True
    assert status["dagster_answers"] is True
    assert status["api_answers"] is True
    assert status["postgres_pid"] == embedded.pid(platform.home)

    listening = {
        tuple(connection.laddr)
        for process in platform.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    guarded = {("127.0.0.1", platform.api_port), ("127.0.0.1", platform.port)}
    assert listening == guarded, "Postgres and the code server have sockets in closed folders"

    second = platform.up()
    assert second.returncode == 0
    assert "Already running" in second.stdout
    assert f"dashboard http://127.0.0.1:{platform.api_port}" in second.stdout

    bad_declarations_and_corrections_are_taken_up(platform)
    what_dies_is_started_again(platform)
    running = platform.processes()
    assert len(running) >= 5
    down = platform.down()
    assert down.returncode == 0, down.stdout + down.stderr
    assert not platform.processes()
    assert not any(process.is_running() for process in running)
    assert embedded.pid(platform.home) is None
    assert not platform.answers()
    assert not platform.api_answers()
    assert platform.status()["running"] is False
    new_names = {path.name for path in PROJECT.iterdir()} - strays
    assert not {
        name for name in new_names if "dagster" in name or "log" in name or name in {"history", "schedules", "storage"}
    }


@pytest.mark.faults
def test_killed_supervisor_is_followed_by_a_clean_start(platform: Supervised) -> None:
    assert platform.up().returncode == 0
    status = platform.status()
    os.kill(int(str(status["pid"])), signal.SIGKILL)
    left = [process for process in platform.processes() if process.pid != status["pid"]]
    assert left, "Dagster's processes outlive a killed supervisor"
    again = platform.up()
    assert again.returncode == 0, again.stdout + again.stderr
    alive = {process.pid for process in left if process.is_running()}
    assert alive <= set(embedded_processes(platform.home))
    assert platform.answers()
    os.kill(int(str(platform.status()["pid"])), signal.SIGKILL)
    assert platform.down().returncode == 0
    assert not platform.processes()
    assert embedded.pid(platform.home) is None, "it was started by `up`, though by the one before"


def embedded_processes(home: Path) -> list[int]:
    server = embedded.pid(home)
    return [server, *(child.pid for child in psutil.Process(server).children())] if server else []


def command_of(process: psutil.Process) -> str:
    """The command line of a process; of one that has just ended, nothing."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def what_dies_is_started_again(platform: Supervised) -> None:
    server = embedded.pid(platform.home)
    assert server
    killed = (DAEMON, "mini_platform.web")
    for process in platform.processes():
        if any(name in command_of(process) for name in killed):
            process.kill()
    os.kill(server, signal.SIGKILL)
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        commands = [command_of(process) for process in platform.processes()]
        back = all(any(name in command for command in commands) for name in killed)
        if back and embedded.pid(platform.home) not in (None, server) and platform.api_answers():
            break
        time.sleep(0.2)
    assert embedded.pid(platform.home) not in (None, server)
    assert back
    assert platform.api_answers()


@pytest.mark.faults
def test_interrupt_in_the_foreground(platform: Supervised) -> None:
    """Started as by a script in the background, which leaves SIGINT ignored: it must stop all the same."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from mini_platform.cli.supervisor import commands; sys.exit(commands.up())"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, env=platform.environment, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout
    lines = []
    for line in started.stdout:
        lines.append(line)
        if "ready after" in line:
            break
    assert any("starting Postgres" in line for line in lines)
    started.send_signal(signal.SIGINT)
    assert "stopped" in started.stdout.read()
    assert started.wait(timeout=60) == 0
    started.stdout.close()
    assert not platform.processes()
    assert embedded.pid(platform.home) is None


@pytest.mark.faults
def test_two_projects_that_start_together_do_not_meet(tmp_path: Path) -> None:
    """Both with the default ports, which are busy, and in a folder whose path is too long for a socket."""
    deep = tmp_path / ("a folder " + "x" * 80)
    with contextlib.ExitStack() as stack:
        for port in (8000, 3000):
            with contextlib.suppress(OSError):  # busy already
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        projects = [Supervised(deep / name / "home", deep / name / "data", None, None) for name in ("one", "two")]
        for project in projects:
            project.data.mkdir(parents=True)
            stack.callback(embedded.stop, project.home)
            stack.callback(project.down)
        with ThreadPoolExecutor() as threads:
            starts = list(threads.map(Supervised.up, projects))
        assert [up.returncode for up in starts] == [0, 0], [up.stdout + up.stderr for up in starts]
        states = [project.status() for project in projects]
        urls = [str(state[name]) for state in states for name in ("api_url", "dagster_url")]
        assert len({*urls, "http://127.0.0.1:8000", "http://127.0.0.1:3000"}) == 6
        assert all(state["api_answers"] and state["dagster_answers"] for state in states)
        for up, state in zip(starts, states, strict=True):
            assert (
                f"port 8000 is busy (another program or project): the dashboard is at {state['api_url']}" in up.stdout
            )
            assert (
                f"port 3000 is busy (another program or project): Dagster's UI is at {state['dagster_url']}"
                in up.stdout
            )
        os.kill(int(str(states[0]["pid"])), signal.SIGKILL)
        assert projects[0].status()["api_url"] == "http://127.0.0.1:8000", "what a killed one wrote counts no more"
        assert [project.down().returncode for project in projects] == [0, 0]


def test_a_busy_default_port_is_replaced_by_one_that_every_process_knows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINI_PLATFORM_DAGSTER_PORT")
    home.mkdir(exist_ok=True)
    messages: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other, pid_file_lock(home):
        busy = other.getsockname()[1]
        default = load_settings().model_copy(update={"api_port": busy, "dagster_port": busy})
        chosen, reservations = choose_ports(default, lambda _, message: messages.append(message))
        other_project, more = choose_ports(default, lambda *_: None)  # at the same time
        ports = [settings for one in (chosen, other_project) for settings in (one.api_port, one.dagster_port)]
        assert len({busy, *ports}) == 5
        assert messages[0].endswith(f"the dashboard is at {chosen.api_url}")
        write_ports(chosen)
        known = load_settings()
        assert (known.api_url, known.dagster_url) == (chosen.api_url, chosen.dagster_url)
        place = (
            f"from the platform that runs (process {os.getpid()}): MINI_PLATFORM_API_PORT, MINI_PLATFORM_DAGSTER_PORT"
        )
        assert place in [result.message for result in examine()]
        monkeypatch.setenv("MINI_PLATFORM_API_PORT", str(busy))
        with pytest.raises(PlatformError, match=f"Port {busy} is used .* set MINI_PLATFORM_API_PORT"):
            choose_ports(load_settings(), lambda *_: None)
        monkeypatch.delenv("MINI_PLATFORM_API_PORT")
        for reservation in (*reservations, *more):
            reservation.close()
    assert load_settings().api_port == 8000, "it runs no more"


@pytest.mark.parametrize("setting", ["MINI_PLATFORM_DAGSTER_PORT", "MINI_PLATFORM_API_PORT"])
def test_taken_port_is_reported_with_its_setting(platform: Supervised, setting: str) -> None:
    port = int(platform.environment[setting])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        up = platform.up()
    assert up.returncode == 1
    assert f"Port {port} is used by another program" in up.stdout
    assert setting in up.stdout
    assert not platform.processes()


def test_others_reach_it_only_with_keys(platform: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervised, "environment", platform.environment | {"MINI_PLATFORM_HOST": "0.0.0.0"})  # noqa: S104 - refused
    up = platform.up()
    assert up.returncode == 1
    assert "no valid key exists. Create one, for example: mini-platform key create" in up.stdout
    assert up.stdout.count("mini-platform key create") == 1
    assert not platform.processes()


def test_database_that_is_away_is_reported(platform: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from mini_platform.cli.supervisor import commands; sys.exit(commands.up(detach=True))"
    environment = platform.environment | {"DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/db"}
    up = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert up.returncode == 1
    assert "The database db at 127.0.0.1:1 cannot be reached" in up.stdout
    assert "secret" not in up.stdout + up.stderr
    assert not platform.processes()


RUN = "2026-01-01 10:00:00 +0000 - dagster - DEBUG - weather - e6cc03ff-c63b-4f93-8006-6925bbfe8911 - 135"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"{RUN} - RUN_SUCCESS - Finished.", ("INFO", "run success e6cc03ff: Finished.")),
        (f"{RUN} - a_step - STEP_START - Started.", None),
        ("2026-01-01 10:00:00 +0000 - dagster.daemon - INFO - Sensor skipped", None),
        (
            "\x1b[32m2026-01-01 10:00:00 +0000\x1b[0m - dagster.daemon - \x1b[33mWARNING\x1b[0m - Odd",
            ("WARNING", "Odd"),
        ),
        ("  File nonsense.py, line 1", None),
        ('{"event": "GET / failed", "level": "error"}', ("ERROR", "GET / failed")),
        ('{"event": "request", "level": "info"}', None),
        ("{", None),
    ],
)
def test_log_lines(line: str, shown: tuple[str, str] | None) -> None:
    assert worth_showing(line) == shown
