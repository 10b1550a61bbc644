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
from mini_platform.declare.registry import registry_of
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


def create_schemas(settings: Settings, log: Log) -> None:
    """Create or change the tables of the declared datasets, and log tables that are no longer declared."""
    from mini_platform.warehouse.connection import database_url, engine
    from mini_platform.warehouse.schema import create_all, undeclared

    db_engine = engine(database_url(settings))
    log("INFO", "creating schemas…")
    datasets = registry_of(settings.datasets).datasets.values()
    create_all(db_engine, datasets)
    with db_engine.connect() as connection:
        if sentences := undeclared(connection, datasets):
            log("WARNING", ". ".join(sentences))
    db_engine.dispose()


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
