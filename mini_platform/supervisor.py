"""`mini-platform up`, `down` and `status`: the platform's processes as one thing that starts, runs and stops.

Here: the order of start and stop, restarting what dies, the pid file, background operation.
Not here: the command line itself (`cli.py`), one child process (`child_process.py`), Postgres (`warehouse/embedded.py`).

    supervisor ─┬─ code server                    Postgres (embedded) belongs to the home, not to this tree;
                ├─ api (with the dashboard)       it is stopped last, and only if `up` had started it
                ├─ webserver
                └─ daemon ── processes of runs
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from rich.console import Console

from mini_platform import dagster_private
from mini_platform.child_process import ChildProcess, end, marked
from mini_platform.operations import https
from mini_platform.operations.answering import api_answers, dagster_answers
from mini_platform.registry import registry_of
from mini_platform.settings import PROJECT, Settings, load_settings
from mini_platform.warehouse import embedded

READY_SECONDS = 180.0
"""Longest wait for Dagster's UI and the dashboard. It takes about ten seconds on two cores."""
STOP_SECONDS = 90.0
"""How long a supervisor may take to stop everything: three times `KILL_SECONDS`, and Postgres's last checkpoint."""
RESTARTS = 5
"""A process that ends this often within a minute is given up, and everything is stopped."""


class PlatformError(RuntimeError):
    """The platform cannot start; the message says why and what to do."""


class _Stop(Exception):  # noqa: N818 - a request, not an error
    """SIGINT, SIGTERM or SIGHUP was received."""


def up(detach: bool = False) -> int:
    """Start everything and stay until Ctrl-C or SIGTERM; or start it in the background and return when it is ready.

    Returns:
        The exit code: 0 when it ran (or runs already), 1 when it could not start.
    """
    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    if running := _supervisor(settings.home):
        console.print(f"Already running (process {running}): {_places(settings)}")
        return 0
    return _up_in_background(settings, console) if detach else _up_here(settings, console)


def down() -> int:
    """Stop the platform of this home, however it was started, and check that every process is gone.

    Returns:
        The exit code: 0 when nothing runs any more, 1 if a process cannot be ended.
    """
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    state, running = _state(settings.home), _supervisor(settings.home)
    if running:
        console.print("Stopping…")
        with contextlib.suppress(psutil.NoSuchProcess):
            end([psutil.Process(running)], seconds=STOP_SECONDS)
    # What a killed supervisor left behind.
    left = end(marked(settings.home))
    if state.get("owns_postgres") or not running:
        embedded.stop(settings.home, console.print)
    _state_file(settings.home).unlink(missing_ok=True)
    if left:
        console.print(f"[red]These processes cannot be ended: {left}[/red]")
        return 1
    console.print("Stopped." if running else "Nothing was running.")
    return 0


def status() -> dict[str, Any]:
    """What runs: for `mini-platform status`. Primitive values only; no password."""
    settings = load_settings()
    running, state = _supervisor(settings.home), _state(settings.home)
    return {
        "running": running is not None,
        "pid": running,
        "since": state.get("since") if running else None,
        "api_url": settings.api_url,
        "api_answers": api_answers(settings),
        "dagster_url": settings.dagster_url,
        "dagster_answers": dagster_answers(settings),
        "processes": {process.pid: _what(process) for process in marked(settings.home)},
        "postgres": "DATABASE_URL" if settings.database_url else "embedded",
        "postgres_pid": None if settings.database_url else embedded.pid(settings.home),
        "home": str(settings.home),
        "data": str(settings.data),
    }


def _what(process: psutil.Process) -> str:
    """The telling words of a process's command line."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()[1:4])[:60]
    return ""


def _places(settings: Settings) -> str:
    return f"dashboard {settings.api_url}, Dagster {settings.dagster_url}"


def _state_file(home: Path) -> Path:
    return home / "up.json"


def _state(home: Path) -> dict[str, Any]:
    """What the last supervisor wrote about itself."""
    try:
        found: dict[str, Any] = json.loads(_state_file(home).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def _supervisor(home: Path) -> int | None:
    """Process id of the running supervisor, which holds a lock as long as it lives."""
    try:
        with (home / "up.pid").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the pid file. The operating system frees it when this process ends, in whatever way."""
    with (home / "up.pid").open("a+") as file:
        give_up = time.monotonic() + 1
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # perhaps only somebody who looks whether we run
                if time.monotonic() > give_up:
                    raise PlatformError("Another `mini-platform up` is just starting.") from None
                time.sleep(0.02)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _up_in_background(settings: Settings, console: Console) -> int:
    log = settings.home / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mini_platform.supervisor"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shown = 0
    while True:
        ended, ready = process.poll() is not None, _state(settings.home).get("ready") == process.pid
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            console.print(line, markup=False)
        shown = len(lines)
        if ready:
            console.print(f"Runs in the background; log: {log}; stop it with: mini-platform down", markup=False)
            return 0
        if ended:
            return process.returncode or 1
        time.sleep(0.1)


def _up_here(settings: Settings, console: Console) -> int:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        for further in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(further, signal.SIG_IGN)  # one is enough: the way down must not be interrupted
        raise _Stop(signal.Signals(number).name)

    # Set even where SIGINT was inherited as ignored, as in a script's background: Dagster's processes would inherit that,
    # and with SIGINT ignored they do not end on SIGTERM either.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    platform = _Platform(settings, console)
    try:
        with _only_one(settings.home):
            try:
                platform.start()
                platform.watch()
            except _Stop:
                pass
            finally:
                platform.stop()
    except (PlatformError, embedded.EmbeddedPostgresError, ConnectionError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    return 0


class _Platform:
    """The processes of one `up`."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._children: list[ChildProcess] = []
        self._ends: dict[str, list[float]] = {}
        self._declarations: dict[Path, int] = {}
        self._ready = False
        self._owns_postgres = False
        self._saying = threading.Lock()
        self._began = time.monotonic()

    def _say(self, level: str, message: str) -> None:
        """One line of the log: time, level, message. While they start and stop, processes complain of each other."""
        if not self._ready and level in {"WARNING", "ERROR"}:
            return
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(level, "")
        now = dt.datetime.now().astimezone().strftime("%H:%M:%S")
        with self._saying:
            self._console.print(f"{now} {level:<7} {message}", style=style or None, markup=False)

    def start(self) -> None:
        """Start everything in order, and wait until the dashboard answers, and Dagster's UI with the definitions loaded."""
        settings = self._settings
        before = _state(settings.home)
        if orphans := marked(settings.home):
            self._say("INFO", f"ending {len(orphans)} processes that an earlier, killed start left behind")
            end(orphans)
        self._check_ports()
        if settings.database_url:
            self._say("INFO", "using the Postgres of DATABASE_URL…")
        else:
            self._owns_postgres = bool(before.get("owns_postgres")) or not embedded.is_running(settings.home)
            self._write_state(ready=False)
            self._say("INFO", "starting Postgres…")
        self._create_schemas()
        if refusal := self._refusal():
            raise PlatformError(refusal)
        self._say("INFO", "starting Dagster and the API…")
        (settings.home / "dagster").mkdir(exist_ok=True)
        # Dagster makes folders for its telemetry in DAGSTER_HOME even if telemetry is off: not in the project's folder.
        shutil.copy(PROJECT / "dagster.yaml", settings.home / "dagster" / "dagster.yaml")
        self._declarations = self._find_declarations()
        for name in self._commands():
            self._launch(name)
        self._fail_dead_runs()
        self._wait_until_ready()
        self._ready = True
        self._write_state(ready=True)
        seconds = time.monotonic() - self._began
        self._say("INFO", f"ready after {seconds:.0f} s: {_places(settings)}, drop files in {settings.data}")
        if settings.in_clear:
            self._say("WARNING", settings.in_clear)

    def watch(self) -> None:
        """Restart what ends, until a signal arrives.

        Raises:
            PlatformError: a process ends again and again.
        """
        while True:
            time.sleep(1)
            if not self._settings.database_url and not embedded.is_running(self._settings.home):
                self._say("WARNING", "Postgres was not running and is started again")
                embedded.ensure_running(self._settings.home)
            for child in [child for child in self._children if child.exit_code is not None]:
                self._restart(child)
            self._reload_declarations()

    def _find_declarations(self) -> dict[Path, int]:
        """Return the files that declare datasets, with the times of their last change."""
        return {path: path.stat().st_mtime_ns for path in registry_of(self._settings.datasets).files()}

    def _restart(self, child: ChildProcess) -> None:
        """Start a child again that ended by itself."""
        self._children.remove(child)
        ends = [t for t in self._ends.get(child.name, []) if t > time.monotonic() - 60] + [time.monotonic()]
        self._ends[child.name] = ends
        if len(ends) >= RESTARTS:
            log = self._settings.home / f"{child.name}.log"
            raise PlatformError(f"The process {child.name} ends again and again; the end of its log is in {log}.")
        if child.name == "api" and (refusal := self._refusal()):
            self._say("ERROR", f"the API stays away: {refusal}")
            return
        self._say("WARNING", f"{child.name} ended (exit code {child.exit_code}) and is started again")
        self._launch(child.name)

    def _reload_declarations(self) -> None:
        """Restart what knows the datasets when one was added or changed. Runs are not below it and go on."""
        found = self._find_declarations()
        if found == self._declarations:
            return
        self._say("INFO", "the datasets changed: loading them again")
        self._declarations = found
        old = [child for child in self._children if child.name in {"code_server", "api"}]
        self._children = [child for child in self._children if child not in old]
        end(psutil.Process(child.pid) for child in old if child.running)
        self._create_schemas()
        for child in old:
            self._launch(child.name)

    def stop(self) -> None:
        """Stop Dagster, then Postgres: without its database Dagster does not end by itself."""
        self._say("INFO", "stopping…")
        self._ready = False
        end([psutil.Process(child.pid) for child in self._children if child.name != "code_server" and child.running])
        left = end(marked(self._settings.home))
        if self._children:
            with contextlib.suppress(OSError):  # the database may be what is away
                self._fail_dead_runs()
        if self._owns_postgres:
            embedded.stop(self._settings.home, lambda words: self._say("WARNING", words))
        _state_file(self._settings.home).unlink(missing_ok=True)
        if left:
            raise PlatformError(f"These processes cannot be ended: {left}")
        self._say("INFO", "stopped")

    def _commands(self) -> dict[str, list[str]]:
        settings = self._settings
        server = str(settings.home / "code_server.sock")
        workspace = settings.home / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server: {{socket: {json.dumps(server)}, location_name: mini_platform}}\n"
        )
        module = ["--module-name", "mini_platform.definitions", "--working-directory", str(PROJECT)]
        return {
            # Not `dagster code-server start`, which puts a second process before this one: two seconds more to start.
            # Lazy: it listens before it has loaded the definitions, and lives on to report an error in them.
            "code_server": [
                "-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--socket", server, *module,
                "--location-name", "mini_platform", "--log-level", "warning",
            ],
            "webserver": [
                "-m", "dagster_webserver", "--host", settings.host, "--port", str(settings.dagster_port),
                "--workspace", str(workspace), "--dagster-log-level", "warning",
            ],
            "api": ["-m", "mini_platform.web"],
            "daemon": ["-m", dagster_private.DAEMON, "run", "--workspace", str(workspace), "--log-level", "warning"],
        }  # fmt: skip

    def _launch(self, name: str) -> None:
        if name == "code_server":
            (self._settings.home / "code_server.sock").unlink(missing_ok=True)
        self._children.append(ChildProcess(name, self._commands()[name], self._settings.home, self._say))

    def _check_ports(self) -> None:
        settings = self._settings
        for port, setting in ((settings.api_port, "API_PORT"), (settings.dagster_port, "DAGSTER_PORT")):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((settings.host, port))
                except OSError:
                    raise PlatformError(
                        f"Port {port} is used by another program: stop it, or set MINI_PLATFORM_{setting} to a free port."
                    ) from None

    def _refusal(self) -> str | None:
        """Why the API would refuse to start, as a sentence."""
        if (refusal := https.refusal(self._settings)) or not self._settings.needs_keys:
            return refusal
        from mini_platform.api import keys
        from mini_platform.warehouse.connection import database_url, engine

        made = engine(database_url(self._settings))
        with made.connect() as connection:
            refusal = keys.refusal(connection, self._settings)
        made.dispose()
        return refusal

    def _create_schemas(self) -> None:
        from mini_platform.warehouse.connection import database_url, engine
        from mini_platform.warehouse.schema import create_all, undeclared

        made = engine(database_url(self._settings))
        self._say("INFO", "creating schemas…")
        datasets = registry_of(self._settings.datasets).datasets.values()
        create_all(made, datasets)
        with made.connect() as connection:
            if said := undeclared(connection, datasets):
                self._say("WARNING", ". ".join(said))
        made.dispose()

    def _fail_dead_runs(self) -> None:
        """Runs that were in progress and have no process any more hold their dataset's only slot: end them in Dagster's eyes.

        Dagster is imported only if there are any, in a process of its own.
        """
        from sqlalchemy import text

        from mini_platform.warehouse.connection import database_url, engine

        made = engine(database_url(self._settings))
        with made.connect() as connection:
            if not connection.scalar(text("SELECT to_regclass('dagster.runs')")):
                return
            count = connection.scalar(
                text("SELECT count(*) FROM dagster.runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')")
            )
        made.dispose()
        if count:
            command = [sys.executable, "-m", "mini_platform.run_launcher"]
            environment = os.environ | {"DAGSTER_HOME": str(self._settings.home / "dagster")}
            done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                self._say("WARNING", line)

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_SECONDS
        settings = self._settings
        while not api_answers(settings) or not dagster_answers(settings) or not _loaded(settings):
            for child in self._children:
                if child.exit_code is not None:
                    raise PlatformError(f"The process {child.name} did not start: see {settings.home / child.name}.log")
            if time.monotonic() > give_up:
                raise PlatformError(f"The platform did not get ready: see the logs in {settings.home}")
            time.sleep(0.1)

    def _write_state(self, *, ready: bool) -> None:
        state = {
            "ready": os.getpid() if ready else None,
            "since": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
            "owns_postgres": self._owns_postgres,
        }
        new = _state_file(self._settings.home).with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(_state_file(self._settings.home))


def _loaded(settings: Settings) -> bool:
    """Whether the UI has loaded the definitions."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
    request = urllib.request.Request(  # noqa: S310 - http
        f"{settings.dagster_url}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except (OSError, urllib.error.URLError, KeyError, TypeError, ValueError):
        return False
    return any((entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries)


if __name__ == "__main__":
    sys.exit(_up_here(load_settings(), Console(highlight=False, soft_wrap=True)))
