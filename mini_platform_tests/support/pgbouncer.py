"""A real pooler before a server of the tests: Debian's PgBouncer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

PORT = 6432
"""A part of its socket's name; it listens on no network address."""
MISSING = "PgBouncer is missing, so poolers were not tested: apt-get install pgbouncer"
CONFIGURATION = """
[databases]
* = host={server} port={port}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = {listen}
auth_type = trust
auth_user = {user}
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = {ignored}
query_wait_timeout = 20
"""


def program() -> str:
    """Return the program; skip the test if it is missing, fail it in continuous integration."""
    if path := shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"):
        return path
    if os.environ.get("CI"):
        pytest.fail(MISSING)
    warnings.warn(MISSING, stacklevel=1)
    pytest.skip(MISSING)


@contextmanager
def pooled(url: str, mode: str, size: int = 20, ignored: str = "") -> Iterator[str]:
    """Yield the URL of a database by a pooler in this mode.

    Args:
        url: URL of the database, on a local socket.
        mode: session, transaction or statement.
        size: number of connections to the server.
        ignored: parameters of a start that are ignored instead of refused.
    """
    server = make_url(url)
    with tempfile.TemporaryDirectory(prefix="pool") as name:
        folder = Path(name)
        (folder / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                server=server.query["host"],
                port=server.query["port"],
                user=server.username,
                folder=folder,
                listen=PORT,
                mode=mode,
                size=size,
                ignored=ignored,
            )
        )
        # It refuses to run as root, and does so as an ordinary user of a namespace.
        user = [] if os.geteuid() else ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
        command = [*user, program(), folder / "pgbouncer.ini"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            while not (folder / f".s.PGSQL.{PORT}").exists():
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                time.sleep(0.02)
            yield server.set(query={"host": name, "port": str(PORT)}).render_as_string(hide_password=False)
        finally:
            process.kill()
            process.communicate()
