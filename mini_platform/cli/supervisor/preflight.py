"""Checks and preparations before the processes start: free ports, database tables, API keys, dead runs."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from mini_platform.cli.supervisor.child import Log
from mini_platform.cli.supervisor.state import PORTS, PlatformError
from mini_platform.config.project import project
from mini_platform.config.settings import PREFIX, Settings, is_set
from mini_platform.operations import https

if TYPE_CHECKING:
    from mini_platform.platform import Platform

MOST_PORTS = 100
"""Number of ports after a busy default one that are tried."""


def choose_ports(settings: Settings, log: Log) -> tuple[Settings, list[socket.socket]]:
    """Return the settings with a free port for each server, and what reserves them as long as it is not closed.

    A default port that is busy is replaced by the next free one.

    Raises:
        PlatformError: a port that is set is busy.
    """
    reservations = []
    for name, server in PORTS.items():
        first = port = getattr(settings, name)
        while (reservation := _reserve(settings.host, port)) is None:
            if (port == first and is_set(name)) or port >= first + MOST_PORTS:
                variable = f"{PREFIX}{name.upper()}"
                raise PlatformError(
                    f"Port {port} is used by another program: stop it, or set {variable} to a free port."
                )
            port += 1
        reservations.append(reservation)
        settings = settings.model_copy(update={name: port})
        if port != first:
            url = settings.api_url if name == "api_port" else settings.dagster_url
            log("INFO", f"port {first} is busy (another program or project): {server} is at {url}")
    return settings, reservations


def _reserve(host: str, port: int) -> socket.socket | None:
    """Return a socket that reserves a port until it is closed; None if the port is busy or reserved.

    The server of the port listens only seconds later: without a reservation, two platforms that start at the same time would
    choose the same port. The reservation is a name that one process of the machine can have, as a port is a number.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0mini-platform-port-{port}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reservation.close()
            return None
        # Only Linux has such names: elsewhere a port is not reserved.
    return reservation


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


def create_schemas(platform: Platform, log: Log) -> list[str]:
    """Create or change the tables of the declared datasets, and log tables that are no longer declared.

    Returns:
        A sentence for each declaration that cannot be used.
    """
    from mini_platform.warehouse.schema import undeclared

    log("INFO", "creating schemas…")
    with platform.engine.connect() as connection:
        invalid = [declaration.message for declaration in platform.invalid]
        # The tables of an invalid dataset are not declared now, and are to stay.
        if not invalid and (sentences := undeclared(connection, platform.datasets.values())):
            log("WARNING", ". ".join(sentences))
    return invalid


def drop_samples(platform: Platform, log: Log) -> None:
    """Create the drop folders, and put sample data into those of a new platform that wants it."""
    from mini_platform.operations import sample_data

    data, dropped = platform.settings.data, list[str]()
    try:
        with platform.engine.connect() as connection:
            for name in platform.datasets:
                (data / name).mkdir(parents=True, exist_ok=True)
            for dataset in sample_data.without_files(connection, data, platform.datasets.values()):
                try:
                    sample_data.drop_clean(data, dataset)
                    dropped.append(dataset.name)
                except OSError:
                    raise
                except Exception as error:  # `realistic` is a user's code, and the others go on.
                    log("INFO", f"no sample data of {dataset.name}: its function realistic failed, {error}")
    except OSError as error:  # Perhaps the platform may only read the folder.
        log("INFO", f"{data} has no drop folder for every dataset: {error}")
    if dropped:
        samples = data / sample_data.FOLDER
        log("INFO", f"put sample data of {', '.join(dropped)} into {data}; without {samples} it starts empty")


def wake_sensors(settings: Settings) -> None:
    """Let the sensors tick whose last tick lies in the future."""
    from mini_platform.warehouse import run_history
    from mini_platform.warehouse.connection import database_url, engine

    db_engine = engine(database_url(settings))
    with db_engine.begin() as connection:
        run_history.wake_sensors(connection)
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
