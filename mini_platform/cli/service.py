"""One service of the platform, as a container runs it: `mini-platform serve webserver` and the others.

A service replaces the process of the command and gets its signals. The container engine restarts it. Not here: all services
together on one machine (`supervisor/`).

    code-server ◄─ gRPC ─ webserver, daemon ── processes of runs          api          watchdog
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from mini_platform.config.project import Project, project
from mini_platform.config.settings import Settings
from mini_platform.dagster import private
from mini_platform.dagster.instance import prepare_instance, replace_file

SERVICES = ("code-server", "webserver", "daemon", "api", "watchdog")


def command(service: str, settings: Settings, location: Project) -> list[str]:
    """Return the arguments for this Python that run a service."""
    workspace = str(settings.home / "workspace.yaml")
    return {
        "code-server": [
            "-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--host", settings.host,
            "--port", str(settings.code_server_port), "--module-name", location.definitions,
            "--working-directory", str(location.root), "--location-name", location.package,
        ],
        "webserver": ["-m", "mini_platform.cli.webserver", workspace],
        "daemon": ["-m", private.DAEMON, "run", "--workspace", workspace],
        "api": ["-m", "mini_platform.web"],
        "watchdog": ["-m", "mini_platform.operations.watchdog"],
    }[service]  # fmt: skip


def serve(service: str, settings: Settings) -> NoReturn:
    """Replace this process by a service."""
    location = project()
    os.chdir(location.folder)
    # Ignored signals survive exec: a script ignores SIGINT for its background jobs, and Dagster then ignores SIGTERM as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    arguments = [sys.executable, *command(service, settings, location)]
    os.execve(sys.executable, arguments, _prepare(settings, location))  # noqa: S606 - no shell


def _prepare(settings: Settings, location: Project) -> Mapping[str, str]:
    """Write the files that Dagster reads, and return the environment of a service."""
    server = {"host": settings.code_server_host, "port": settings.code_server_port, "location_name": location.package}
    folder = prepare_instance(settings)
    replace_file(settings.home / "workspace.yaml", f"load_from:\n  - grpc_server: {json.dumps(server)}\n")
    return os.environ | {"DAGSTER_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
