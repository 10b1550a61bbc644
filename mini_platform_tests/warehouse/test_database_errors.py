"""No message of the database shows a row: each kind of error is provoked with a canary, and every output is searched for it."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import Engine, literal, select, text
from sqlalchemy.exc import DBAPIError

from mini_platform.cli.errors import sentence
from mini_platform.config import logs
from mini_platform.dagster.storage import PlatformStorage
from mini_platform.datasets import all_datasets
from mini_platform.operations.alerts import message
from mini_platform.operations.detection import update_incidents
from mini_platform.platform import Platform
from mini_platform.warehouse.connection import engine as new_engine
from mini_platform.warehouse.tables import incidents
from mini_platform.warehouse.upsert import copy_in
from mini_platform_tests.support.command import here
from mini_platform_tests.support.databases import ReusedDatabase

CANARY = "canary77"
NUMBER = 7777777
"""A canary where a number is needed."""
TABLES = f"""
CREATE TABLE shelf (id text PRIMARY KEY, amount int, size numeric(3), word varchar(3), day date, kind text REFERENCES shelf,
    CONSTRAINT no_canary CHECK (word <> '{CANARY[:3]}'), CONSTRAINT one_at_a_time EXCLUDE USING hash (day WITH =));
CREATE TYPE mood AS ENUM ('good');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.amount = 1 THEN RAISE EXCEPTION 'not this one: %', NEW.id; END IF;
    IF NEW.amount = 2 THEN RAISE insufficient_privilege USING MESSAGE = NEW.id; END IF;
    IF NEW.amount = 3 THEN EXECUTE 'SELECT ' || NEW.id; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON shelf FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE late (id text UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO shelf (id, day) VALUES ('{CANARY}', '2026-01-01');
"""  # noqa: S608 - constants
FILE = "/api/datasets/weather/files/"
PAGES_OF_A_FILE = ("/", "/files", "/files/2", FILE, f"{FILE}2/")
PAGES = (
    *PAGES_OF_A_FILE,
    "/files/1",
    f"{FILE}1/",
    "/runs",
    "/weather",
    "/quality",
    "/api/audit/",
    "/health",
    "/metrics",
)
INSERT = "INSERT INTO shelf ({}) VALUES ({})"
KINDS = {
    "unique": (INSERT.format("id", ":canary"), "constraint shelf_pkey, table public.shelf"),
    "unique at commit": ("INSERT INTO late VALUES (:canary), (:canary)", "must be unique: constraint late_id_key"),
    "check": (INSERT.format("id, word", f":canary || 1, '{CANARY[:3]}'"), "check constraint: constraint no_canary"),
    "not null": (INSERT.format("kind", ":canary"), "may not be empty: column id, table public.shelf"),
    "foreign key": (
        INSERT.format("id, kind", "'a', :canary || 1"),
        "does not exist, or others refer to it: constraint",
    ),
    "exclusion": (
        INSERT.format("id, day", ":canary || 1, '2026-01-01'"),
        "exclude each other: constraint one_at_a_time",
    ),
    "numeric overflow": (INSERT.format("id, size", f":canary || 1, {NUMBER}"), "numeric field overflow"),
    "integer out of range": (f"SELECT CAST('{NUMBER * 1000}' AS int), :canary", "numeric value out of range"),
    "text representation": ("SELECT CAST(:canary AS int)", "invalid input syntax for type integer"),
    "enum": ("SELECT CAST(:canary AS mood)", "invalid input value for enum mood"),
    "date": ("SELECT CAST(:canary AS date)", "invalid input syntax for type date"),
    "json": ("SELECT CAST(:canary AS jsonb)", "invalid input syntax for type json"),
    "too long": (INSERT.format("id, word", ":canary || 1, :canary"), r"value too long for type character varying\(3\)"),
    "division by zero": ("SELECT length(:canary) / 0", "division by zero"),
    "a trigger": (INSERT.format("id, amount", ":canary || 1, 1"), "raise exception: function refuse"),
    "a trigger with a state": (
        INSERT.format("id, amount", ":canary || 1, 2"),
        "insufficient privilege: function refuse",
    ),
    "a trigger's statement": (INSERT.format("id, amount", ":canary || 1, 3"), "undefined column: function refuse"),
    "no such column": ("SELECT missing FROM shelf WHERE id = :canary", 'column "missing" does not exist'),
    "time": ("SELECT pg_sleep(9), :canary", "canceling statement due to statement timeout"),
}
"""Kind of error -> a statement, and the words that remain."""


@pytest.fixture(scope="module")
def database_url(reused_database: ReusedDatabase) -> str:
    return reused_database.url


@pytest.fixture(scope="module")
def shelf(database_url: str) -> Iterator[Engine]:
    db_engine = new_engine(database_url, session={"statement_timeout": "800"})
    with db_engine.begin() as conn:
        conn.execute(text(TABLES))
    yield db_engine
    db_engine.dispose()


def everything_shown(error: BaseException) -> str:
    """Return the traceback, the line of a log and the sentence of the command line."""
    log = io.StringIO()
    logs.configure("json")
    (handler,) = logging.getLogger().handlers
    handler.setStream(log)
    logging.getLogger("canary").error("failed", exc_info=error)
    return f"{''.join(traceback.format_exception(error))} {log.getvalue()} {sentence(error)}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_statement(shelf: Engine, kind: str) -> None:
    statement, words = KINDS[kind]
    with pytest.raises(DBAPIError, match=words) as caught, shelf.begin() as conn:
        conn.execute(text(statement), {"canary": CANARY})
    shown = everything_shown(caught.value)
    assert CANARY not in shown
    assert str(NUMBER) not in shown.partition("[SQL: ")[0]


def test_a_value_that_the_driver_refuses(shelf: Engine) -> None:
    with pytest.raises(ValueError, match="NUL") as caught, shelf.begin() as conn:
        conn.execute(text("SELECT :canary"), {"canary": f"{CANARY}\0"})
    assert CANARY not in everything_shown(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"a,{CANARY}", "invalid input syntax for type integer: line 1, column amount of what is copied to shelf"),
        (f"{CANARY},", "must be unique: constraint shelf_pkey"),
        (f"a,,{CANARY}", "extra data after last expected column"),
        (f"{CANARY}1,1", "raise exception: function refuse"),
    ],
)
def test_a_copy(shelf: Engine, line: str, words: str) -> None:
    copy = sql.SQL("COPY shelf (id, amount) FROM STDIN (FORMAT csv)")
    with pytest.raises(psycopg2.Error, match=words) as caught, shelf.begin() as conn:
        copy_in(conn, copy, io.StringIO(line))
    assert CANARY not in everything_shown(caught.value)


def test_an_error_of_what_is_copied(shelf: Engine) -> None:
    class Source:
        def read(self, _: int) -> str:
            raise ValueError(CANARY)

    with pytest.raises(psycopg2.Error, match="COPY from stdin failed") as caught, shelf.begin() as conn:
        copy_in(conn, sql.SQL("COPY shelf (id) FROM STDIN"), Source())
    assert CANARY not in str(caught.value)


def test_an_event_that_dagster_cannot_write(home: Path) -> None:
    assert home.parent.exists()
    storage = PlatformStorage.from_config_value(None, {})
    with pytest.raises(DBAPIError, match="parameters hidden") as caught, storage.run_storage.connect() as conn:  # type: ignore[attr-defined]
        conn.execute(text("INSERT INTO runs (id) VALUES (CAST(:event AS int))"), {"event": CANARY})
    assert CANARY not in everything_shown(caught.value)


@pytest.mark.slow  # Two runs of Dagster.
def test_a_row_that_the_database_refuses_is_shown_nowhere(
    platform: Platform, client: httpx.Client, tmp_path: Path
) -> None:
    """In the answer of a command, in the ledger, in Dagster's event log, in incidents and alerts, and in no page.

    Requests that write, their log and Sentry: `operations/test_sentry.py`.
    """
    with platform.engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE production.measurements ADD CHECK (station_id <> '{CANARY}')")
        conn.exec_driver_sql(f"ALTER TABLE staging.measurements ADD CHECK (station_id <> '{CANARY}2')")
    for name in (CANARY, f"{CANARY}2"):
        (tmp_path / f"{len(name)}.csv").write_text(f"station_id,date,temp_c,precip_mm\n{name},2026-01-01,1,0\n")
    result = here("load", "weather", str(tmp_path / "8.csv"), str(tmp_path / "9.csv"), "--json")
    assert result.exit_code == 1
    assert "a row is not allowed by a check constraint: constraint measurements_station_id_check" in result.output
    assert CANARY not in result.output
    with platform.engine.connect() as conn:
        # Other events have previews of rows.
        failures = "SELECT event FROM dagster.event_logs WHERE dagster_event_type ~ 'FAILURE'"
        for statement in ("SELECT error FROM ops.files", failures):
            shown = "\n".join(filter(None, conn.execute(text(statement)).scalars()))
            assert "a row is not allowed by a check constraint" in shown
            assert CANARY not in shown
        conn.rollback()
        update_incidents(conn, platform, all_datasets())
        opened = conn.execute(select(incidents, literal("opened").label("event"))).all()
    title, body = message(opened)
    assert "9.csv" in body
    assert CANARY not in title + body
    assert CANARY not in here("doctor", "--json").output
    shown = {page: client.get(page).text for page in PAGES}
    assert [page for page, text_ in shown.items() if CANARY in text_] == []
    assert {page for page, text_ in shown.items() if "check constraint" in text_} >= {*PAGES_OF_A_FILE}
