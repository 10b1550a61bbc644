"""The four processes under the supervisor: their commands, starts and restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import psutil

from mini_platform.cli.supervisor.child import ChildProcess, Log, end
from mini_platform.cli.supervisor.state import PlatformError
from mini_platform.config.project import project
from mini_platform.config.settings import Settings
from mini_platform.config.sockets import socket_folder
from mini_platform.dagster import private

RESTARTS = 5
"""A process that ends this often within a minute is not restarted, and everything is stopped."""


class Processes:
    """The running children of a supervisor."""

    def __init__(self, settings: Settings, log: Log) -> None:
        """Create an empty collection."""
        self._settings = settings
        self._log = log
        self._children: list[ChildProcess] = []
        self._ends: dict[str, list[float]] = {}

    def __bool__(self) -> bool:
        """Return True if there is any process."""
        return bool(self._children)

    def launch_all(self) -> None:
        """Start all processes."""
        self.launch(self._commands())

    def launch(self, names: Iterable[str]) -> None:
        """Start the processes with these names."""
        commands = self._commands()
        for name in names:
            if name == "code_server":
                self._socket.unlink(missing_ok=True)
            self._children.append(ChildProcess(name, commands[name], self._settings.home, self._log))

    def ended(self) -> list[ChildProcess]:
        """Return the processes that have ended."""
        return [child for child in self._children if child.exit_code is not None]

    def pop_ended(self) -> Iterator[ChildProcess]:
        """Remove and yield the processes that have ended.

        Raises:
            PlatformError: a process keeps ending.
        """
        for child in self.ended():
            self._children.remove(child)
            ends = [t for t in self._ends.get(child.name, []) if t > time.monotonic() - 60] + [time.monotonic()]
            self._ends[child.name] = ends
            if len(ends) >= RESTARTS:
                log = self._settings.home / f"{child.name}.log"
                raise PlatformError(f"The process {child.name} keeps ending; see the end of its log {log}.")
            yield child

    def end(self, names: Collection[str]) -> list[str]:
        """End the processes with these names; return the names of those that existed."""
        chosen = [child for child in self._children if child.name in names]
        self._children = [child for child in self._children if child not in chosen]
        end(psutil.Process(child.pid) for child in chosen if child.running)
        return [child.name for child in chosen]

    @property
    def _socket(self) -> Path:
        return socket_folder(self._settings.home / "socket") / "code_server.sock"

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
            "webserver": [
                "-m", "dagster_webserver", "--host", settings.host, "--port", str(settings.dagster_port),
                "--workspace", str(workspace), "--dagster-log-level", "warning",
            ],
            "api": ["-m", "mini_platform.web"],
            "daemon": ["-m", private.DAEMON, "run", "--workspace", str(workspace), "--log-level", "warning"],
        }  # fmt: skip
