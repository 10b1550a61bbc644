"""Adopting the table of the replaced records system, from a real database in its shape."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mini_platform.operations import adopt as adopting
from mini_platform.operations.adopt import Adoption, adoption
from mini_platform.operations.landing import land_files
from mini_platform.operations.processing import process
from mini_platform.operations.reprocessing import reprocess
from mini_platform.operations.verify import verify
from mini_platform.platform import Platform
from mini_platform.warehouse import connection
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.command import here, objects
from mini_platform_tests.support.databases import execute, load_files, open_platform, url_of
from mini_platform_tests.support.examples import records

OLD_TABLE = """
    CREATE TABLE normalized_data (
        id SERIAL PRIMARY KEY, source VARCHAR(50) NOT NULL, source_id VARCHAR(255) NOT NULL, name VARCHAR(500), value FLOAT,
        description TEXT, created_at TIMESTAMP DEFAULT now(), updated_at TIMESTAMP, UNIQUE (source, source_id)
    )
"""
OLD_ROWS = """
    INSERT INTO normalized_data VALUES
        (1, 'api', '1', 'lamp', 2.5, E'two\\nlines, "quoted" \\\\ é', '2024-01-05 10:00', '2025-03-01 12:00:00.123456'),
        (2, 'csv', '1', 'crate', NULL, NULL, '2024-02-05 10:00', '2024-02-05 10:00'),
        (7, 'shop', 'x-1', 'pump', 0, '', '2024-03-05 10:00', NULL),
        (9, 'csv', '2', NULL, 1, 'without a name', '2024-04-05 10:00', '2024-04-05 10:00'),
        (12, 'csv', '3', 'no number', 'NaN', NULL, '2024-04-06 10:00', '2024-04-06 10:00'),
        (13, '', '4', 'no source', NULL, NULL, NULL, NULL)
"""
COLUMNS = "record_id, source, source_id, name, value, description, created_at, updated_at"
ROWS = f"SELECT {COLUMNS} FROM production.records ORDER BY 1"  # noqa: S608 - names from this file


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc]


ADOPTED = [
    (1, "api", "1", "lamp", 2.5, 'two\nlines, "quoted" \\ é', utc(2024, 1, 5, 10), utc(2025, 3, 1, 12, 0, 0, 123456)),
    (2, "csv", "1", "crate", None, None, utc(2024, 2, 5, 10), utc(2024, 2, 5, 10)),
    (7, "shop", "x-1", "pump", 0.0, None, utc(2024, 3, 5, 10), None),
    (13, "adopt", "4", "no source", None, None, None, None),
]
"""Rows of production; None stands for a time of the load."""


@contextmanager
def old_database(server: str, *statements: str) -> Iterator[Engine]:
    name = f"old_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name}")
    engine = connection.engine(url_of(server, name), pool=1)
    with engine.begin() as conn:
        for statement in statements:
            conn.execute(text(statement))
    yield engine
    engine.dispose()
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def old(server: str) -> Iterator[Engine]:
    with old_database(server, OLD_TABLE, OLD_ROWS) as engine:
        yield engine


def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as conn:
        conn.execute(text(statement))


def rows(platform: Platform, query: str = ROWS) -> list[tuple[Any, ...]]:
    with platform.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(query))]


def adopt(platform: Platform, old: Engine) -> tuple[Adoption, list[dict[str, Any]]]:
    """Adopt the rows; return what was shown before, and what became of the files that are not unchanged."""
    with adoption(platform, records, url(old)) as adopted:
        landed = [row for _, row in land_files(platform, records, adopted.files, "adopt")]
    return adopted, process(platform, records, [row.file_id for row in landed if row and row.same_as is None])


def assert_adopted(platform: Platform, started: dt.datetime) -> None:
    present = rows(platform)
    assert len(present) == len(ADOPTED)
    for row, expected in zip(present, ADOPTED, strict=True):
        shown = tuple(None if isinstance(value, dt.datetime) and value >= started else value for value in row)
        assert shown == expected


def test_ids_and_times_stay_and_nothing_is_doubled(
    platform: Platform, old: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(adopting, "FILE_NUMBERS", 5)
    started = dt.datetime.now(dt.UTC)
    adopted, files_taken = adopt(platform, old)
    assert (adopted.rows, adopted.sources, adopted.present) == (6, {"": 1, "api": 1, "csv": 3, "shop": 1}, 0)
    assert (adopted.first, adopted.last) == (utc(2024, 1, 5, 10), utc(2025, 3, 1, 12, 0, 0, 123456))
    assert (adopted.rejected, adopted.reasons) == (2, {"name is empty": 1, "value is not a number": 1})
    accounted = [
        (file["name"], file["rows_read"], file["rows_inserted"], file["rows_rejected"]) for file in files_taken
    ]
    assert accounted == [
        ("normalized_data/000000000000.ndjson", 2, 2, 0),
        ("normalized_data/000000000005.ndjson", 2, 1, 1),
        ("normalized_data/000000000010.ndjson", 2, 1, 1),
    ]
    assert_adopted(platform, started)
    rejected = "SELECT record_id, source_id, created_at FROM quarantine.records ORDER BY _file_id"
    assert rows(platform, rejected) == [
        ("9", "2", "2024-04-05T10:00:00+00:00"),
        ("12", "3", "2024-04-06T10:00:00+00:00"),
    ]

    before = rows(platform)
    again, files_taken = adopt(platform, old)
    assert (again.rows, again.present, files_taken, rows(platform)) == (6, 4, [], before)
    process(platform, records, reprocess(platform, records).file_ids)
    assert rows(platform) == before
    assert all(comparison.ok for comparison in verify(platform, records, deep=True))

    # Rows that the old system wrote meanwhile, and rows that arrive here.
    change(old, "UPDATE normalized_data SET name = 'new lamp', updated_at = '2026-01-01' WHERE id = 1")
    (tmp_path / "a.csv").write_text("id,name\n50,fifty\n")
    load_files(platform, records, tmp_path / "a.csv")
    ((fifty,),) = rows(platform, "SELECT record_id FROM production.records WHERE name = 'fifty'")
    assert fifty > 13, "the numbers go on after those that were taken over"
    change(old, "INSERT INTO normalized_data VALUES (14, 'csv', '14', 'late', 1, NULL, '2026-01-02', '2026-01-02')")
    change(old, f"UPDATE normalized_data SET id = {fifty} WHERE id = 14")  # noqa: S608 - a number
    _, files_taken = adopt(platform, old)
    assert [(file["rows_updated"], file["rows_inserted"]) for file in files_taken] == [(1, 0), (0, 1)]
    (tmp_path / "b.csv").write_text("id,name\n1,changed crate\n")
    load_files(platform, records, tmp_path / "b.csv")
    after = {row[0]: row for row in rows(platform)}
    assert after[1][3] == "new lamp"
    assert after[1][6:] == (utc(2024, 1, 5, 10), utc(2026, 1, 1))
    assert (after[2][3], after[2][6]) == ("changed crate", utc(2024, 2, 5, 10))
    assert after[2][7] >= started
    ((late, created),) = rows(platform, "SELECT record_id, created_at FROM production.records WHERE name = 'late'")
    assert created == utc(2026, 1, 2)
    assert late > fifty, "its number belongs to another row by now"


def test_a_deleted_row_comes_back_with_its_number(platform: Platform, old: Engine) -> None:
    """A rule that rejects a row, and is then taken back, leaves id and times as they were."""
    started = dt.datetime.now(dt.UTC)
    adopt(platform, old)
    stricter = replace(records, reject_limit=replace(records.reject_limit, share=0.1, min_rows=0))
    process(platform, stricter, reprocess(platform, stricter).file_ids)
    assert rows(platform) == []
    process(platform, records, reprocess(platform, records).file_ids)
    assert_adopted(platform, started)


def test_rows_from_before_they_had_numbers_get_them(platform: Platform, tmp_path: Path) -> None:
    """The table of an earlier version has no such column."""
    (tmp_path / "a.csv").write_text("id,name\n1,crate\n2,new\n")
    load_files(platform, records, tmp_path / "a.csv")
    change(platform.engine, "ALTER TABLE production.records DROP COLUMN record_id")
    change(platform.engine, "DELETE FROM ops.fingerprints WHERE name = 'records'")
    create_all(platform.engine, [records])
    (tmp_path / "b.csv").write_text("id,name\n3,newer\n")
    load_files(platform, records, tmp_path / "b.csv")
    assert rows(platform, "SELECT record_id, source_id FROM production.records ORDER BY 1") == [
        (1, "1"),
        (2, "2"),
        (3, "3"),
    ]


def test_a_row_that_is_here_already_keeps_its_number(platform: Platform, old: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,crate\n2,new\n")
    load_files(platform, records, tmp_path / "a.csv")
    ((first, created),) = rows(platform, "SELECT record_id, created_at FROM production.records WHERE source_id = '1'")
    adopted, _ = adopt(platform, old)
    assert adopted.present == 2
    assert ("csv", "1", first, created) in rows(
        platform, "SELECT source, source_id, record_id, created_at FROM production.records"
    )
    numbers = [row[0] for row in rows(platform)]
    assert len(set(numbers)) == len(numbers) == 5


def test_many_rows_fill_an_empty_table(server: str, template: str, tmp_path: Path) -> None:
    many = """
        INSERT INTO normalized_data
        SELECT n, 'api', n::text, 'thing ' || n, n, NULL, timestamp '2024-01-01' + n * interval '1 s', '2025-01-01'
        FROM generate_series(1, 51000) n
    """
    with open_platform(server, template, tmp_path) as platform, old_database(server, OLD_TABLE, many) as old:
        _, files_taken = adopt(platform, old)
        assert [file["rows_inserted"] for file in files_taken] == [49_999, 1_001]
        checked = """
            SELECT count(*), min(record_id), max(record_id), bool_and(record_id::text = source_id), min(created_at)
            FROM production.records
        """
        assert rows(platform, checked) == [(51_000, 1, 51_000, True, utc(2024, 1, 1, 0, 0, 1))]


def test_the_command_shows_and_asks_before_it_writes(platform: Platform, old: Engine) -> None:
    unconfirmed = here("adopt", "records", "--from", url(old))
    assert unconfirmed.exit_code == 1
    for words in (
        "normalized_data has 6 rows (", "csv 3", "The first is of 2024-01-05T10:00:00Z", "2 of them would be rejected",
        "1: name is empty", "Load these rows into records?",
    ):  # fmt: skip
        assert words in unconfirmed.stderr
    assert rows(platform, "SELECT count(*) FROM ops.files") == [(0,)]
    result = here("adopt", "records", "--from", url(old), "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    (file,) = objects(result.stdout)
    assert (file["rows_read"], file["rows_inserted"], file["rows_rejected"]) == (6, 4, 2)
    assert rows(platform, "SELECT channel, status FROM ops.files") == [("adopt", "loaded")]
    again = here("adopt", "records", "--from", url(old), "--yes", "--json")
    assert again.exit_code == 0, again.stderr
    assert [file["status"] for file in objects(again.stdout)] == ["unchanged"]
    change(old, "DELETE FROM normalized_data")
    assert "normalized_data has 0 rows." in here("adopt", "records", "--from", url(old)).stderr


@pytest.mark.parametrize(
    ("dataset", "address", "statement", "words"),
    [
        ("records", "nonsense", None, "is not that of a database, such as postgresql://"),
        ("records", "mysql://u@127.0.0.1/old", None, "names a mysql database; Postgres is required"),
        ("records", "postgresql://u:s3cret@127.0.0.1:1/old", None, "cannot be reached"),
        ("weather", "postgresql://u@127.0.0.1:1/old", None, "weather declares no table that it adopts"),
        ("records", None, "DROP TABLE normalized_data", "has no table normalized_data"),
        (
            "records",
            None,
            "ALTER TABLE normalized_data DROP name, DROP id",
            "lacks name, id; it has source, source_id, value",
        ),
        (
            "records",
            None,
            "ALTER TABLE normalized_data ALTER id TYPE TEXT",
            "The column id of normalized_data has no whole numbers",
        ),
        ("records", None, "UPDATE normalized_data SET id = -1 WHERE id = 1", "are not all from 1 to"),
        (
            "records",
            None,
            "ALTER TABLE normalized_data ALTER updated_at TYPE TEXT USING 'soon'",
            "invalid input syntax for type timestamp",
        ),
    ],
)
def test_a_table_that_cannot_be_adopted(
    platform: Platform, old: Engine, dataset: str, address: str | None, statement: str | None, words: str
) -> None:
    if statement:
        change(old, statement)
    result = here("adopt", dataset, "--from", address or url(old), "--yes")
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (2, 1)
    assert words in result.stderr
    assert "s3cret" not in result.stderr
    with platform.engine.connect() as conn:
        assert conn.execute(files.select()).all() == []
