"""The floor: what Postgres alone needs. COPY of the text into an unlogged table, then one upsert into the indexed table.

It does none of what the platform does besides: no results, no quarantine, no ledger, no lines, no aggregates.

    python -m mini_platform_tests.benchmarks.floor URL FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psycopg2

SCHEMA = """
CREATE UNLOGGED TABLE IF NOT EXISTS floor_staging (station_id text, date text, temp_c text, precip_mm text);
CREATE TABLE IF NOT EXISTS floor_production (
    station_id text COLLATE "C" NOT NULL, date date NOT NULL, temp_c float8, precip_mm float8,
    file_id bigint NOT NULL, loaded_at timestamptz NOT NULL, PRIMARY KEY (station_id, date));
CREATE INDEX IF NOT EXISTS floor_date ON floor_production (date);
TRUNCATE floor_staging;
"""
UPSERT = """
INSERT INTO floor_production
SELECT station_id, date::date, temp_c::float8, precip_mm::float8, 1, now() FROM floor_staging
ON CONFLICT (station_id, date) DO UPDATE SET temp_c = excluded.temp_c, precip_mm = excluded.precip_mm,
    file_id = excluded.file_id, loaded_at = excluded.loaded_at
"""


def main(url: str, path: Path) -> float:
    """Load a clean CSV file; returns the seconds it took, connecting aside."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        connection.commit()
        start = time.perf_counter()
        with path.open("rb") as source:
            cursor.copy_expert("COPY floor_staging FROM STDIN (FORMAT csv, HEADER)", source, 2**18)
        cursor.execute(UPSERT)
        connection.commit()
        return time.perf_counter() - start


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], Path(sys.argv[2])):.3f}\n")
