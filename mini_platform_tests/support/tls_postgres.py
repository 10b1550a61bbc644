"""A real Postgres with TLS: Debian's, as the one of the wheel is built without TLS. Certificates are by trustme."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psycopg2
import pytest
import trustme

from mini_platform_tests.support.ports import free_port

NAME = "db.example.com"
"""Host name in the server's certificate; `hostaddr` makes clients connect to loopback."""
MISSING = "Debian's Postgres is missing, so TLS to the database was not tested: apt-get install postgresql"
ACCESS = """
local   all all                    trust
hostssl all certified 127.0.0.1/32 cert
host    all in_clear  127.0.0.1/32 trust
hostssl all all       127.0.0.1/32 scram-sha-256
"""
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def programs() -> Path:
    """Return the folder of Debian's server; skip the test if it is missing, fail it in continuous integration."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if candidates:
        return candidates[-1].parent
    if os.environ.get("CI"):
        pytest.fail(MISSING)
    warnings.warn(MISSING, stacklevel=1)
    pytest.skip(MISSING)


@dataclass(frozen=True)
class TlsPostgres:
    """A running server; its folder has ca.pem, other_ca.pem and client.pem."""

    folder: Path
    port: int

    def url(self, user: str = "platform:secret", host: str = NAME, **words: object) -> str:
        """Return the URL of its database, with full verification, unless other options of libpq are passed."""
        options = {"hostaddr": "127.0.0.1", "sslmode": "verify-full", "sslrootcert": self.folder / "ca.pem", **words}
        return f"postgresql://{user}@{host}:{self.port}/platform?{urlencode(options)}"

    def execute(self, *statements: str) -> object:
        """Execute statements as superuser by the local socket; return the first value of the last one."""
        conn = psycopg2.connect(host=str(self.folder), port=self.port, user="postgres", dbname="postgres")
        conn.autocommit = True
        with conn.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        conn.close()
        return row and row[0]

    @contextmanager
    def presenting(self, certificate: str = "server", ssl: str = "on") -> Iterator[None]:
        """Use another certificate, or none, within the block."""
        self._configure(certificate, ssl)
        yield
        self._configure()

    def _configure(self, certificate: str = "server", ssl: str = "on") -> None:
        before = self.execute("SELECT pg_conf_load_time()")
        configure(self.folder, self.port, certificate, ssl)
        self.execute("SELECT pg_reload_conf()")
        while self.execute("SELECT pg_conf_load_time()") == before:
            time.sleep(0.02)


def configure(folder: Path, port: int, certificate: str = "server", ssl: str = "on") -> None:
    settings = {
        "ssl": ssl,
        "ssl_cert_file": folder / f"{certificate}.pem",
        "ssl_key_file": folder / f"{certificate}.pem",
        "ssl_ca_file": folder / "ca.pem",
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "fsync": "off",
    }
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    (folder / "data" / "postgresql.auto.conf").write_text(lines)


@contextmanager
def running(folder: Path) -> Iterator[TlsPostgres]:
    """Start one in an empty folder; it ends with this block, or with the process that tests."""
    program, port = programs(), free_port()
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other_ca.pem"))
    for name, certificate in {
        "server": ca.issue_cert(NAME),
        "expired": ca.issue_cert(NAME, not_before=PAST, not_after=PAST + dt.timedelta(days=90)),
        "client": ca.issue_cert("certified", common_name="certified"),
    }.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
        (folder / f"{name}.pem").chmod(0o600)
    # It refuses to run as root, and does so as an ordinary user of a namespace.
    user = [] if os.geteuid() else ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    initdb = [
        *user,
        program / "initdb",
        "-D",
        folder / "data",
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(initdb, check=True, capture_output=True)
    (folder / "data" / "pg_hba.conf").write_text(ACCESS)
    configure(folder, port)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*user, program / "postgres", "-D", folder / "data"], stdout=log, stderr=log)
    watch = ["sh", "-c", f"cat; kill -INT {process.pid}"]  # once its input is closed, by us or by our end
    watching = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    try:
        server = TlsPostgres(folder, port)
        ready = [program / "pg_isready", "-q", "-h", folder, "-p", str(port)]
        while subprocess.run(ready, check=False).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        server.execute(
            "CREATE ROLE platform LOGIN CREATEROLE PASSWORD 'secret'", "CREATE ROLE certified LOGIN",
            "CREATE ROLE in_clear LOGIN", "CREATE DATABASE platform OWNER platform",
        )  # fmt: skip
        yield server
    finally:
        watching.communicate()
        process.wait(timeout=60)
        shutil.rmtree(folder / "data")
