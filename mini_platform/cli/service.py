"""One service of the platform, as a container runs it: `mini-platform serve webserver` and the others.

A service replaces the process of the command and gets its signals. The container engine restarts it. Not here: all services
together on one machine (`supervisor/`).

    code-server ◄─ gRPC ─ webserver, daemon ── processes of runs          api
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from mini_platform.config.settings import PROJECT, Settings
from mini_platform.dagster import private

SERVICES = ("code-server", "webserver", "daemon", "api")


def command(service: str, settings: Settings) -> list[str]:
    """Return the arguments for this Python that run a service."""
    workspace = ["--workspace", str(settings.home / "workspace.yaml")]
    return {
        "code-server": [
            "-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--host", settings.host,
            "--port", str(settings.code_server_port), "--module-name", "mini_platform.definitions",
            "--working-directory", str(PROJECT), "--location-name", "mini_platform",
        ],
        "webserver": [
            "-m", "dagster_webserver", "--host", settings.host, "--port", str(settings.dagster_port), *workspace,
        ],
        "daemon": ["-m", private.DAEMON, "run", *workspace],
        "api": ["-m", "mini_platform.web"],
    }[service]  # fmt: skip


def serve(service: str, settings: Settings) -> NoReturn:
    """Replace this process by a service."""
    os.chdir(PROJECT)
    # A script ignores SIGINT for its background jobs, and then Dagster's code server does not end on SIGTERM either.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(sys.executable, [sys.executable, *command(service, settings)], _prepare(settings))  # noqa: S606 - no shell


def _prepare(settings: Settings) -> Mapping[str, str]:
    """Write the files that Dagster reads, and return the environment of a service.

    They are in the home: the project's folder is read-only.
    """
    dagster = settings.home / "dagster"
    dagster.mkdir(parents=True, exist_ok=True)
    server = {"host": settings.code_server_host, "port": settings.code_server_port, "location_name": "mini_platform"}
    for path, text in (
        (dagster / "dagster.yaml", (PROJECT / "dagster.yaml").read_text()),
        (settings.home / "workspace.yaml", f"load_from:\n  - grpc_server: {json.dumps(server)}\n"),
    ):
        new = path.with_name(f".{path.name}.{os.getpid()}.{os.uname().nodename}")
        new.write_text(text)
        shutil.move(new, path)  # the services share the folder, and start at the same time
    return os.environ | {"DAGSTER_HOME": str(dagster), "PYTHONUNBUFFERED": "1"}
