"""One process of the platform, as a container of its own runs it: `mini-platform serve webserver` and its likes.

Each takes the place of the command and gets its signals. Restarting it is the container engine's business. Not here: all of
them as one thing on one machine (`supervisor/`).

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
    """What runs a service: arguments for this Python."""
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
    """Become a service."""
    os.chdir(PROJECT)
    # In the background of a script it is ignored, and then Dagster's code server does not end on SIGTERM either.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(sys.executable, [sys.executable, *command(service, settings)], _prepared(settings))  # noqa: S606 - no shell


def _prepared(settings: Settings) -> Mapping[str, str]:
    """The environment of a service, and the files that Dagster reads: not in the project's folder, which is read-only."""
    dagster = settings.home / "dagster"
    dagster.mkdir(parents=True, exist_ok=True)
    server = {"host": settings.code_server_host, "port": settings.code_server_port, "location_name": "mini_platform"}
    for path, text in (
        (dagster / "dagster.yaml", (PROJECT / "dagster.yaml").read_text()),
        (settings.home / "workspace.yaml", f"load_from:\n  - grpc_server: {json.dumps(server)}\n"),
    ):
        new = path.with_name(f".{path.name}.{os.getpid()}.{os.uname().nodename}")
        new.write_text(text)
        shutil.move(new, path)  # the services share the folder, and start at once
    return os.environ | {"DAGSTER_HOME": str(dagster), "PYTHONUNBUFFERED": "1"}
