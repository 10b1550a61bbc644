"""The platform as `mini-platform up` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

from mini_platform.cli.supervisor.child import MARK
from mini_platform_tests.support.repository import PROJECT


@dataclass
class Supervised:
    """The commands, as a user calls them, for one home."""

    home: Path
    data: Path
    port: int | None
    api_port: int | None
    """Ports that are set; None for the default ones, or those that it takes instead."""
    datasets: Path | None = None
    """Folder of the datasets; None for those of the project."""

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MINI_", "DAGSTER", "DATABASE"))
        }
        ports = {"MINI_PLATFORM_DAGSTER_PORT": self.port, "MINI_PLATFORM_API_PORT": self.api_port}
        return (
            inherited
            | {"MINI_PLATFORM_HOME": str(self.home), "MINI_PLATFORM_DATA": str(self.data)}
            | {name: str(port) for name, port in ports.items() if port}
            | ({"MINI_PLATFORM_DATASETS": str(self.datasets)} if self.datasets else {})
        )

    def call(self, expression: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; from mini_platform.cli.supervisor import commands; sys.exit({expression})"
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=200, check=False
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.call("commands.up(detach=True)")

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.call("commands.down()")

    def status(self) -> dict[str, object]:
        answer = self.call("print(__import__('json').dumps(commands.status()))")
        status: dict[str, object] = json.loads(answer.stdout)
        return status

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of this home, found independently of the supervisor's own records."""
        matches = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if process.pid != os.getpid() and str(self.home) in (
                    environment.get("MINI_PLATFORM_HOME"),
                    environment.get(MARK),
                ):
                    matches.append(process)
            except psutil.Error:
                continue
        return matches

    def answers(self) -> bool:
        return answers(f"http://127.0.0.1:{self.port}/server_info")

    def api_answers(self) -> bool:
        return answers(f"http://127.0.0.1:{self.api_port}/health")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http
            return bool(answer.status == 200)
    except OSError:
        return False
