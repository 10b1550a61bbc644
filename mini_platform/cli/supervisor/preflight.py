"""Checks and preparations before the processes start: free ports, database tables, API keys, dead runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from mini_platform.cli.supervisor.child import Log
from mini_platform.cli.supervisor.state import PlatformError
from mini_platform.config.project import project
from mini_platform.config.settings import Settings
from mini_platform.operations import https


def check_ports(settings: Settings) -> None:
    """Raise a PlatformError if another program uses one of the ports."""
    for port, setting in ((settings.api_port, "API_PORT"), (settings.dagster_port, "DAGSTER_PORT")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                raise PlatformError(
                    f"Port {port} is used by another program: stop it, or set MINI_PLATFORM_{setting} to a free port."
                ) from None


def api_refusal(settings: Settings) -> str | None:
    """Return why the API would refuse to start, as a sentence; None if it would not."""
    if (refusal := https.refusal(settings)) or not settings.needs_keys:
        return refusal
    from mini_platform.warehouse.connection import database_url, engine
    from mini_platform.web.auth import keys

    db_engine = engine(database_url(settings))
    with db_engine.connect() as connection:
        refusal = keys.refusal(connection, settings)
    db_engine.dispose()
    return refusal


def create_schemas(log: Log) -> list[str]:
    """Create or change the tables of the declared datasets, and log tables that are no longer declared.

    Returns:
        A sentence for each declaration that cannot be used.
    """
    from mini_platform.platform import Platform
    from mini_platform.warehouse.schema import undeclared

    platform = Platform()
    log("INFO", "creating schemas…")
    with platform.engine.connect() as connection:
        invalid = [declaration.message for declaration in platform.invalid]
        # The tables of an invalid dataset are not declared now, and are to stay.
        if not invalid and (sentences := undeclared(connection, platform.datasets.values())):
            log("WARNING", ". ".join(sentences))
    platform.engine.dispose()
    return invalid


def fail_dead_runs(settings: Settings, log: Log) -> None:
    """Mark runs as failed in Dagster that are in progress but have no process: they would block their dataset.

    Dagster is imported only if there are any, in a process of its own.
    """
    from sqlalchemy import text

    from mini_platform.warehouse.connection import database_url, engine

    db_engine = engine(database_url(settings))
    with db_engine.connect() as connection:
        if not connection.scalar(text("SELECT to_regclass('dagster.runs')")):
            return
        count = connection.scalar(
            text("SELECT count(*) FROM dagster.runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')")
        )
    db_engine.dispose()
    if count:
        command = [sys.executable, "-m", "mini_platform.dagster.run_launcher"]
        environment = os.environ | {"DAGSTER_HOME": str(settings.home / "dagster")}
        result = subprocess.run(
            command, cwd=project().folder, env=environment, capture_output=True, text=True, check=False
        )
        for line in result.stdout.splitlines():
            log("WARNING", line)
