"""Databases for tests on one server, and the environment that points to one of them."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine, make_url, select

from mini_platform import Dataset
from mini_platform.config.settings import load_settings
from mini_platform.operations.landing import land_files, named_file
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.testing import NOT_DURABLE
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.repository import PROJECT

TEMPLATE, TEMPLATE_WITH_SAMPLES = "template_platform", "template_samples"


FAST = {**NOT_DURABLE, "shared_buffers": "64MB"}
"""Server settings of a database that nobody will miss."""


WATCH = """
import sys; from pathlib import Path; sys.stdin.read()
from mini_platform.warehouse import embedded; embedded.stop(Path(sys.argv[1]))
"""
"""Stops the server once the test process is gone, even if that was killed: its end of the pipe closes then."""


Pipeline = Callable[..., list[int]]


@contextmanager
def copied(server: str, template: str) -> Iterator[str]:
    """Yield the URL of a copy of a database, which is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")  # half of what logging it takes
    yield url_of(server, name)
    with _connection(server) as conn, conn.cursor() as cursor:
        cursor.execute(LOGINS_OF, [name])
        logins = [login for (login,) in cursor.fetchall()]
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        if logins:
            cursor.execute(f"DROP ROLE {', '.join(logins)}")


LOGINS_OF = """
SELECT rolname FROM pg_database d JOIN pg_roles ON rolname ~ concat('_', d.oid, '_[0-9a-f]{8}$') WHERE datname = %s"""
"""The logins by which platforms on a database read it."""


class ReusedDatabase:
    """A database that several tests use one after the other; `restore` takes a fifth of what a new copy takes.

    Attributes:
        url: URL of the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with _connection(url) as conn, conn.cursor() as cursor:
            self._relations = _relations(cursor)
            self._rows = {name: _rows(cursor, name) for name in _tables_with_rows(cursor)}

    def restore(self) -> None:
        """Drop the tables and views that were added, bring back the rows that were there, and restart the numbers."""
        with _connection(self.url) as conn, conn.cursor() as cursor:
            cursor.execute(DISCONNECT_OTHERS)
            cursor.execute("SET session_replication_role = replica")  # The audit trail refuses changes by a trigger.
            for name, kind in sorted(_relations(cursor).items()):
                if name not in self._relations:
                    cursor.execute(f"DROP {kind} IF EXISTS {name} CASCADE")
            if emptied := sorted(_tables_with_rows(cursor) - self._rows.keys()):
                cursor.execute(f"TRUNCATE {', '.join(emptied)} RESTART IDENTITY CASCADE")
            for name, rows in self._rows.items():
                if _rows(cursor, name) != rows:
                    cursor.execute(f"DELETE FROM {name}")  # noqa: S608 - quoted by the server
                    cursor.copy_expert(f"COPY {name} FROM STDIN", io.StringIO(rows))


DISCONNECT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
RELATIONS = """
SELECT format('%I.%I', nspname, relname), CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'v', 'S') AND nspname !~ '^(pg_|information_schema)'"""
"""Quoted names and kinds of all relations but the server's own."""


def _relations(cursor: Any) -> dict[str, str]:
    cursor.execute(RELATIONS)
    return dict(cursor.fetchall())


def _tables_with_rows(cursor: Any) -> set[str]:
    cursor.execute(f"{RELATIONS} AND relkind = 'r' AND pg_relation_size(c.oid) > 0")
    return {name for name, _ in cursor.fetchall()}


def _rows(cursor: Any, table: str) -> str:
    rows = io.StringIO()
    cursor.copy_expert(f"COPY {table} TO STDOUT", rows)
    return rows.getvalue()


def set_environment(patch: pytest.MonkeyPatch, url: str, folder: Path) -> None:
    for name in [n for n in os.environ if n.startswith(("MINI_PLATFORM_", "DAGSTER_", "DATABASE_URL", "VAULT_"))]:
        patch.delenv(name)
    patch.setenv("MINI_PLATFORM_PROJECT", str(PROJECT))  # also for tests that change the folder
    patch.setenv("DATABASE_URL", url)
    patch.setenv("MINI_PLATFORM_HOME", str(folder / "home"))
    patch.setenv("MINI_PLATFORM_DATA", str(folder / "data"))
    patch.setenv(
        "MINI_PLATFORM_DAGSTER_PORT", "1"
    )  # Nobody's: uploads nudge Dagster, and not the one that the user runs.


@contextmanager
def open_platform(server: str, template: str, folder: Path, *, lasting: bool = False) -> Iterator[Platform]:
    """Yield a platform on a copy of a database, with its folders below one folder; for several tests that share it.

    `lasting` leaves its environment set, for what reads that later, as Dagster does.
    """
    with copied(server, template) as url, pytest.MonkeyPatch.context() as patch:
        set_environment(patch, url, folder)
        platform = Platform()
        platform.engine  # noqa: B018 - made while the environment says where
        if not lasting:
            patch.undo()
        yield platform
        platform.engine.dispose()


def platform_on(engine: Engine, folder: Path, **parts: Any) -> Platform:
    """Return a platform on an open database, with its folders below one folder; other parts of it can be passed."""
    settings = load_settings().model_copy(update={"home": folder / "home", "data": folder / "data"})
    platform = Platform()
    platform.__dict__ |= {"engine": engine, "settings": settings, **parts}
    return platform


def url_of(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def execute(server: str, statement: str) -> None:
    """Execute a statement that cannot run in a transaction."""
    with _connection(server) as conn, conn.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def _connection(server: str) -> Iterator[psycopg2.extensions.connection]:
    url = make_url(server)
    conn = psycopg2.connect(dbname=url.database, user=url.username, host=url.query["host"], port=url.query["port"])
    conn.autocommit = True
    try:
        yield conn
    finally:
        conn.close()


def load_files(platform: Platform, dataset: Dataset, *paths: Path) -> list[int]:
    """Land files and process all that wait; return the ids of those."""
    landed = [row for _, row in land_files(platform, dataset, [named_file(path) for path in paths], "test")]
    assert None not in landed
    waiting = select(files.c.file_id).where(files.c.dataset == dataset.name, files.c.status.in_(PENDING))
    with platform.engine.connect() as conn:
        file_ids = conn.scalars(waiting).all()
    return [file["file_id"] for file in process(platform, dataset, file_ids, run_id="test")]
