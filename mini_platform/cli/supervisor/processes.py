"""The processes under the supervisor: their commands, starts and restarts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from mini_platform.cli.supervisor.child import ChildProcess, Log, end
from mini_platform.cli.supervisor.log_files import LogFile
from mini_platform.cli.supervisor.state import PlatformError
from mini_platform.config.project import project
from mini_platform.config.settings import Settings
from mini_platform.config.sockets import CODE_SERVER_SOCKET, socket_folder
from mini_platform.dagster import private

WATCHDOG = "watchdog"
RESTARTS = 5
"""If every process ended this often in a row, everything is stopped."""
LONGEST_PAUSE = 300.0
"""Maximum of the seconds until a process is started again: 1, 2, 4, … If it then lives as long, its deaths are forgotten."""


now = partial(dt.datetime.now, dt.UTC)


@dataclass
class Part:
    """A process of the platform, across its restarts.

    Attributes:
        name: its name.
        child: the process; None while the part is down.
        since: when it was started, or ended.
        deaths: number of its ends in a row.
        failing_since: the first of these.
        why: reason for the last one.
        next_start: when it is started again.
    """

    name: str
    child: ChildProcess | None = None
    since: dt.datetime = field(default_factory=now)
    deaths: int = 0
    failing_since: dt.datetime | None = None
    why: str = ""
    next_start: dt.datetime | None = None

    @property
    def pause(self) -> float:
        """Return the seconds from its last end to its next start."""
        return float(min(2 ** (self.deaths - 1), LONGEST_PAUSE))

    def start(self, child: ChildProcess) -> None:
        """Take a new process."""
        self.child, self.since, self.next_start = child, now(), None

    def fail(self, why: str) -> None:
        """Note that it has ended, or could not be started."""
        self.child, self.since, self.why = None, now(), why
        self.deaths += 1
        self.failing_since = self.failing_since or self.since
        self.next_start = self.since + dt.timedelta(seconds=self.pause)

    def forget_deaths(self) -> None:
        """Begin anew: it has lived long enough, or the cause may be corrected."""
        self.deaths, self.failing_since, self.why = 0, None, ""

    def facts(self) -> dict[str, Any]:
        """Return its state as primitive values, for `read_state`."""
        moments = {name: getattr(self, name) for name in ("since", "failing_since", "next_start")}
        written = {name: moment and moment.isoformat(timespec="seconds") for name, moment in moments.items()}
        pid = self.child.pid if self.child else None
        return {"running": self.child is not None, "pid": pid, "deaths": self.deaths, "why": self.why, **written}


class Processes:
    """The processes of a supervisor."""

    def __init__(self, settings: Settings, log: Log) -> None:
        """Create an empty collection."""
        self._settings = settings
        self._log = log
        self._parts: dict[str, Part] = {}
        self._log_files: dict[str, LogFile] = {}

    def __bool__(self) -> bool:
        """Return True if any process was started."""
        return bool(self._parts)

    def launch_all(self) -> None:
        """Start all processes."""
        self.launch(self._commands())

    def launch(self, names: Iterable[str]) -> None:
        """Start the processes with these names."""
        commands, home = self._commands(), self._settings.home
        for name in names:
            if name == "code_server":
                self._socket.unlink(missing_ok=True)
            # One log file for all processes of a name: descendants of one that ended may still write.
            if name not in self._parts:
                self._parts[name], self._log_files[name] = Part(name), LogFile(home / f"{name}.log", self._settings)
            child = ChildProcess(name, commands[name], home, self._log, self._log_files[name])
            self._parts[name].start(child)

    def ended(self) -> list[ChildProcess]:
        """Return the processes that have ended since they were last looked at."""
        return [child for part in self._parts.values() if (child := part.child) and not child.running]

    def pop_ended(self) -> Iterator[Part]:
        """Yield the parts whose processes have ended; they are down from now on, and due after a pause.

        Raises:
            PlatformError: every process keeps ending.
        """
        for part in self._parts.values():
            if part.child and not part.child.running:
                part.fail(f"exit code {part.child.exit_code}")
                yield part
            elif part.child and part.deaths and now() - part.since > dt.timedelta(seconds=LONGEST_PAUSE):
                part.forget_deaths()
        if self._parts and all(part.deaths >= RESTARTS for part in self._parts.values() if part.name != WATCHDOG):
            raise PlatformError(f"Every process keeps ending; see the ends of their logs in {self._settings.home}.")

    def due(self) -> list[Part]:
        """Return the parts that are down and whose pause is over, or lies too far ahead, as the clock was set back."""
        moment, longest = now(), dt.timedelta(seconds=LONGEST_PAUSE)
        parts = self._parts.values()
        return [part for part in parts if part.next_start and not moment < part.next_start <= moment + longest]

    def end(self, names: Collection[str]) -> list[str]:
        """End the processes with these names; return the names of those that were started, down or not."""
        chosen = [part for part in self._parts.values() if part.name in names]
        end(psutil.Process(part.child.pid) for part in chosen if part.child and part.child.running)
        for part in chosen:
            part.child = part.next_start = None
            part.forget_deaths()
        return [part.name for part in chosen]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the states of all parts by name, for `read_state`."""
        return {part.name: part.facts() for part in self._parts.values()}

    @property
    def _socket(self) -> Path:
        return socket_folder(self._settings.home / "socket") / CODE_SERVER_SOCKET

    def _commands(self) -> dict[str, list[str]]:
        """Return name -> arguments of Python, in the order in which the processes start."""
        settings, location = self._settings, project()
        workspace = settings.home / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server: {{socket: {json.dumps(str(self._socket))}, location_name: {location.package}}}\n"
        )
        module = ["--module-name", location.definitions, "--working-directory", str(location.root)]
        return {
            # Not `dagster code-server start`, which puts a second process before this one: two seconds more to start.
            # Lazy: it listens before it has loaded the definitions, and lives on to report an error in them.
            "code_server": [
                "-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--socket", str(self._socket), *module,
                "--location-name", location.package, "--log-level", "warning",
            ],
            "webserver": ["-m", "mini_platform.cli.webserver", str(workspace)],
            "api": ["-m", "mini_platform.web"],
            WATCHDOG: ["-m", "mini_platform.operations.watchdog"],
            "daemon": ["-m", private.DAEMON, "run", "--workspace", str(workspace), "--log-level", "warning"],
        }  # fmt: skip
