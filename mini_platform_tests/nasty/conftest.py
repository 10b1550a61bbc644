"""A bench for nasty files: a database of its own, a drop folder, and what became of each file as words to compare."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from mini_platform.storage.store import RawStore
from mini_platform.warehouse import connection
from mini_platform_tests.support.bench import Bench


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[Engine]:
    """A database for all tests of a module: each clears it, which costs a tenth of a new one."""
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"nasty_{uuid.uuid4().hex}"
    with admin.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine = connection.engine(make_url(server).set(database=name).render_as_string(hide_password=False))
    yield engine
    engine.dispose()
    with admin.connect() as conn:
        conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def bench(database: Engine, tmp_path: Path) -> Bench:
    nasty_bench = Bench(database, tmp_path / "inbox", RawStore(tmp_path / "raw"))
    nasty_bench.clear()
    return nasty_bench
