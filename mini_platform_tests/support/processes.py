"""The web process by itself, and a database that becomes unavailable and available again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import text

from mini_platform.warehouse.connection import engine
from mini_platform_tests.support.repository import PROJECT

AS_A_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
"""Root may read and write everything; in a namespace in which it is an ordinary user it may not."""


@contextmanager
def process(home: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Start `python -m mini_platform.web` on a free port and wait until it is ready; its log is `home/test.log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "test.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "mini_platform.web"],
            cwd=PROJECT,
            env=os.environ | {"MINI_PLATFORM_API_PORT": str(port)} | settings,
            stderr=log,
            stdout=log,
            text=True,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        try:
            while started.poll() is None:
                try:
                    client.get("/api/health/")
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
            yield started, client
        finally:
            started.kill()
            started.wait()


@contextmanager
def away(server: str, name: str) -> Iterator[None]:
    execute(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    execute(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name", name=name)
    try:
        yield
    finally:
        back(server, name)


def back(server: str, name: str) -> None:
    execute(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def execute(server: str, statement: str, **values: str) -> None:
    admin = engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(statement), values)
    admin.dispose()
