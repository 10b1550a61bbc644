"""Databases as earlier versions left them: how one is written, and how a test gets it back.

A folder here is named by the number of the last migration that its database has: `database.sql.gz`, written by pg_dump, and
the raw files of its ledger. Whoever adds a migration first has the code before it write one, with the number that it is at:

    python -m mini_platform_tests.support.dumps 2

Two datasets are in it, in the midst of their work: files that are loaded, one whose rows are in no aggregate yet, one that
waits to be validated again, one that waits to be loaded. Every table of the schema `ops` has rows.
"""

from __future__ import annotations

import datetime as dt
import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, FromClause, Select, func, make_url, select, text

from mini_platform import Aggregate, Dataset, Field, RowModel
from mini_platform.operations.landing import land_files, named_file
from mini_platform.operations.processing import load, process, stage
from mini_platform.platform import Platform
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import embedded, ledger
from mini_platform.warehouse.connection import libpq_url

FOLDER = Path(__file__).parent
KEYS = "k1:of the dumps only"
"""The value of the setting MINI_PLATFORM_PII_KEYS: the e-mail addresses are hashed by it."""
SCHEMAS = ("ops", "staging", "production", "quarantine", "analytics")


class Reading(RowModel):
    """A level that was read."""

    station: str = Field("Where", str_length={"min_value": 1, "max_value": 20})
    day: dt.date = Field("When")
    level: float | None = Field("Level of the water", unit="m", in_range={"min_value": -5, "max_value": 50})
    first_seen: dt.datetime = Field("When it was first loaded", system="first_loaded")


def highest(r: FromClause) -> Select[Any]:
    """The highest level of each station."""
    days = func.count().label("days")
    return select(r.c.station, days, func.max(r.c.level).label("level")).group_by(r.c.station)


class Booking(RowModel):
    """A booking of somebody."""

    booking: int = Field("Its number")
    email: str = Field("Whose", personal="hash", email=True)
    seats: int = Field("How many", gt=0)


def guests(b: FromClause) -> Select[Any]:
    """Who booked."""
    return select(b.c.email, func.count().label("bookings"), func.sum(b.c.seats).label("seats")).group_by(b.c.email)


READINGS = Dataset(
    name="readings",
    table="readings",
    description="Levels of the water",
    rows=Reading,
    key=("station", "day"),
    aggregates=(
        Aggregate(
            highest,
            key=("station",),
            chart=("station", "level"),
            columns={"station": ("Where",), "days": ("Days that were read",), "level": ("Highest level", "m")},
        ),
    ),
)
BOOKINGS = Dataset(
    name="bookings",
    table="bookings",
    description="Bookings",
    rows=Booking,
    key=("booking",),
    unexpected_columns="refuse",
    aggregates=(
        Aggregate(
            guests,
            key=("email",),
            chart=("email", "seats"),
            columns={"email": ("Whose",), "bookings": ("How many",), "seats": ("Seats in all",)},
            surrogate="guest",
        ),
    ),
)
DATASETS = {dataset.name: dataset for dataset in (READINGS, BOOKINGS)}

FILES = {
    "one.csv": "station,day,level\nkiel,2024-01-01,1.5\nkiel,2024-01-02,2.5\nulm,2024-01-01,0.5\nulm,2024-01-02,high\n",
    "two.csv": "station,day,level\nkiel,2024-01-02,3.5\nhusum,2024-01-01,4.5\n",
    "three.csv": "station,day,level\nulm,2024-01-01,9.5\n",
    "four.csv": "station,day,level\nhusum,2024-01-01,5.5\nhusum,2024-01-02,99\n",
}
BOOKED = "booking,email,seats\n1,ann@example.org,2\n2,bob@example.org,1\n3,nobody,1\n4,ann@example.org,3\n"

EXAMPLES = {
    "text": "'elsewhere'",
    "integer": "1",
    "bigint": "1",
    "boolean": "false",
    "date": "'2024-01-01'",
    "timestamp with time zone": "'2024-01-01Z'",
    "jsonb": "'{}'",
    "bytea": "'elsewhere'",
    "ARRAY": "'{elsewhere}'",
}
"""A value of each type of a column of `ops`, which stands in tables where the work above leaves nothing."""


def numbers() -> list[str]:
    """Return the names of the dumps, the oldest first."""
    return sorted(path.parent.name for path in FOLDER.glob("*/database.sql.gz"))


def restore(name: str, url: str, store: RawStore) -> None:
    """Fill an empty database and an empty raw store from a dump."""
    script = gzip.decompress((FOLDER / name / "database.sql.gz").read_bytes())
    command = [embedded.binary("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", libpq_url(make_url(url))]
    subprocess.run(command, input=script, check=True, stdout=subprocess.DEVNULL)
    for path in (FOLDER / name / "raw").iterdir():
        with path.open("rb") as source:
            store.put(source)


def land(platform: Platform, dataset: Dataset, name: str, content: str) -> None:
    """Let a file arrive."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(content)
        assert [row for _, row in land_files(platform, dataset, [named_file(path)])] != [None]


def _write(target: Path) -> None:
    platform = Platform(DATASETS)
    for name in ("one.csv", "two.csv"):
        land(platform, READINGS, name, FILES[name])
        process(platform, READINGS)
    land(platform, BOOKINGS, "booked.csv", BOOKED)
    process(platform, BOOKINGS)
    land(platform, READINGS, "three.csv", FILES["three.csv"])
    stage(platform, READINGS, "dump")
    load(platform, READINGS, "dump")
    land(platform, READINGS, "four.csv", FILES["four.csv"])
    with platform.engine.begin() as conn:
        ledger.reprocess(conn, "bookings")
        _fill_empty_tables(conn)
    script = subprocess.run(
        [
            *(embedded.binary("pg_dump"), "--no-owner", "--no-acl", *(f"--schema={name}" for name in SCHEMAS)),
            libpq_url(make_url(platform.url)),
        ],
        check=True,
        capture_output=True,
    ).stdout
    # What servers and psql of other versions do not know.
    later = (b"\\restrict", b"\\unrestrict", b"SET transaction_timeout")
    dump = b"".join(line for line in script.splitlines(keepends=True) if not line.startswith(later))
    (target / "raw").mkdir(parents=True)
    (target / "database.sql.gz").write_bytes(gzip.compress(dump, mtime=0))
    for name, content in (FILES | {"booked.csv": BOOKED}).items():
        (target / "raw" / name).write_text(content)


def _fill_empty_tables(conn: Connection) -> None:
    """Put a row into each table of `ops` that has none."""
    columns = text(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'ops' AND is_identity = 'NO' ORDER BY 1, 2"
    )
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in conn.execute(columns).tuples().all():
        tables.setdefault(table, {})[column] = EXAMPLES[kind]
    for table, values in tables.items():
        if not conn.scalar(text(f"SELECT count(*) FROM ops.{table}")):  # noqa: S608 - names of our own
            names = ", ".join(f'"{name}"' for name in values)
            conn.execute(text(f"INSERT INTO ops.{table} ({names}) VALUES ({', '.join(values.values())})"))  # noqa: S608


def main() -> None:
    """Write a dump; its number is the argument."""
    target = FOLDER / sys.argv[1].rjust(4, "0")
    with tempfile.TemporaryDirectory() as home:
        environment = {"MINI_PLATFORM_HOME": home, "MINI_PLATFORM_DATA": f"{home}/data", "MINI_PLATFORM_PII_KEYS": KEYS}
        os.environ.update(environment)
        os.environ.pop("DATABASE_URL", None)
        try:
            _write(target)
        finally:
            embedded.stop(Path(home))
