"""The platform's own tables change by numbered migrations: databases of each earlier version open, and go on."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text

from mini_platform.config.faultpoints import UPGRADING, VARIABLE
from mini_platform.operations.processing import process
from mini_platform.operations.verify import verify
from mini_platform.platform import Platform
from mini_platform.warehouse import connection
from mini_platform.warehouse.migrations import MIGRATIONS, NEWEST, NewerDatabaseError
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import COUNTERS, dataset_tables, files, migrations
from mini_platform_tests.support import dumps
from mini_platform_tests.support.catalog import catalog
from mini_platform_tests.support.databases import copied, set_environment
from mini_platform_tests.support.repository import PROJECT

FIRST = "0000"
EMPTY = "template1"
NAMES = [(migration.number, migration.name) for migration in MIGRATIONS]


@pytest.fixture
def old(
    request: pytest.FixtureRequest, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A platform on a database that an earlier version left; not opened yet."""
    with copied(server, EMPTY) as url:
        set_environment(monkeypatch, url, tmp_path)
        monkeypatch.setenv("MINI_PLATFORM_PII_KEYS", dumps.KEYS)
        platform = Platform(dumps.DATASETS)
        dumps.restore(getattr(request, "param", FIRST), url, platform.store)
        yield platform
        platform.engine.dispose()


@pytest.fixture
def new(server: str) -> Iterator[list[tuple[str, ...]]]:
    """The catalog of a database that was made just now, with the datasets of the dumps."""
    with copied(server, EMPTY) as url:
        engine = connection.engine(url)
        create_all(engine, dumps.DATASETS.values())
        yield catalog(engine)
        engine.dispose()


def recorded(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        query = select(migrations.c.number, migrations.c.name).order_by(migrations.c.number)
        return [tuple(row) for row in conn.execute(query)]


def test_numbers_go_up_by_one() -> None:
    assert [number for number, _ in NAMES] == list(range(1, NEWEST + 1))
    older = [0, *range(2, NEWEST)]  # Number 1 came with number 2.
    assert dumps.numbers() == [f"{number:04}" for number in older], "one of each version before the newest"


@pytest.mark.parametrize("old", dumps.numbers(), indirect=True)
def test_a_database_of_an_earlier_version_opens_and_goes_on(old: Platform) -> None:
    dumps.land(old, dumps.READINGS, "five.csv", "station,day,level\nulm,2024-01-03,10.5\nulm,2024-01-01,7\n")
    for dataset in dumps.DATASETS.values():
        process(old, dataset)
        assert all(comparison.ok for comparison in verify(old, dataset, deep=True))
    days = [dt.date(2024, 1, day) for day in (1, 2, 3)]
    tables, ann = dataset_tables(dumps.READINGS), old.keyring.digests("ann@example.org")
    with old.engine.connect() as conn:
        production = tables.production.c
        rows = select(production.station, production.day, production.level).order_by(production.station, production.day)
        assert conn.execute(rows).all() == [
            ("husum", days[0], 5.5),
            ("kiel", days[0], 1.5),
            ("kiel", days[1], 3.5),
            ("ulm", days[0], 7),
            ("ulm", days[2], 10.5),
        ]
        rejects = select(tables.quarantine.c.station, tables.quarantine.c.level).order_by(tables.quarantine.c.station)
        assert conn.execute(rejects).all() == [("husum", "99"), ("ulm", "high")]
        assert conn.execute(select(tables.aggregates["highest"]).order_by("station")).all() == [
            ("husum", 1, 5.5),
            ("kiel", 2, 3.5),
            ("ulm", 2, 10.5),
        ]
        guests = dataset_tables(dumps.BOOKINGS).aggregates["guests"].c
        assert conn.execute(select(guests.bookings, guests.seats).where(guests.email.in_(ann))).all() == [(2, 5)]
        ledger = conn.execute(select(files).order_by(files.c.file_id)).all()
    assert [row.status for row in ledger] == ["loaded"] * 6
    assert all(row.rows_read == sum(getattr(row, name) for name in COUNTERS) for row in ledger)
    assert recorded(old.engine) == NAMES


@pytest.mark.parametrize("old", dumps.numbers(), indirect=True)
def test_a_database_that_was_brought_up_is_as_a_new_one(old: Platform, new: list[tuple[str, ...]]) -> None:
    """If this fails, a table that belongs to no dataset was changed, and a migration for it is missing or another one."""
    assert catalog(old.engine) == new


ADDED_LATER = """
ALTER TABLE ops.files DROP queued_at, DROP set_aside_at, DROP keys_unique, DROP figures, DROP absent_columns,
    DROP raw_dropped_at, DROP erased_at, DROP rows_erased;
ALTER TABLE analytics.quality_report DROP mean;
DROP INDEX ops.files_loaded, ops.files_refused;
DROP TABLE ops.checkpoints, ops.pages, ops.inboxes, ops.inbox_files, ops.dropping, ops.changes, ops.api_keys, ops.incidents,
    ops.alerts, ops.audit;
"""
"""Makes of the first dump what the first version of all left."""


def test_the_first_database_of_all_is_brought_up(old: Platform, new: list[tuple[str, ...]]) -> None:
    database = connection.engine(old.url)
    with database.begin() as conn:
        conn.execute(text(ADDED_LATER))
    database.dispose()
    assert catalog(old.engine) == new
    with old.engine.connect() as conn:
        assert conn.scalar(select(func.count()).select_from(dataset_tables(dumps.READINGS).production)) == 4


def test_a_new_database_has_every_number(engine: Engine) -> None:
    assert recorded(engine) == NAMES


def test_a_database_of_newer_code_is_refused_in_a_sentence_and_left_alone(home: Path, engine: Engine) -> None:
    before = catalog(engine)
    with engine.begin() as conn:
        conn.execute(insert(migrations).values(number=NEWEST + 1, name="what is not known here"))
        conn.execute(text("UPDATE ops.fingerprints SET sha256 = 'newer'"))
    with pytest.raises(NewerDatabaseError, match="by a newer version") as caught:
        create_all(engine, dumps.DATASETS.values())
    assert catalog(engine) == before
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM ops.fingerprints WHERE sha256 <> 'newer'")) == 0
    for program in (
        "cli files",
        "cli doctor",
        "cli load weather mini_platform_tests/samples/weather/seattle.csv",
        "web",
        "cli up --detach",
    ):
        module, *arguments = program.split()
        command = [sys.executable, "-m", f"mini_platform.{module}", *arguments]
        result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert (result.returncode, str(caught.value) in result.stdout + result.stderr) == (1, True), program
        assert "Traceback" not in result.stdout + result.stderr
    assert catalog(engine) == before


def test_a_process_that_is_killed_leaves_the_rest_to_the_next_one(old: Platform) -> None:
    script = (
        "from mini_platform.platform import Platform; from mini_platform_tests.support.dumps import DATASETS; "
        "Platform(DATASETS).engine"
    )
    environment = {**os.environ, VARIABLE: f"{UPGRADING[0]}:2"}
    killed = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=environment, check=False)
    assert killed.returncode == -9
    database = connection.engine(old.url)
    assert recorded(database) == NAMES[:1]
    database.dispose()
    assert recorded(old.engine) == NAMES
