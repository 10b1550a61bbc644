"""The platform is driven from Python: what `process` does and says, in an interpreter without Dagster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mini_platform.operations.landing import land
from mini_platform.operations.processing import process, stage
from mini_platform.platform import Platform
from mini_platform_tests.support.examples import weather

HEADER = "station_id,date,temp_c,precip_mm\n"
SCRIPT = """
import json, sys

class NoDagster:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("dagster"):
            raise ImportError(f"{name} is asked for")

sys.meta_path.insert(0, NoDagster())
from mini_platform.datasets import all_datasets
from mini_platform.operations.processing import process
from mini_platform.platform import Platform

print(json.dumps(process(Platform(), all_datasets()["weather"])))
"""


def drop(data: Path, name: str, rows: str) -> None:
    path = data / "weather" / name
    path.write_text(HEADER + rows)
    os.utime(path, (time.time() - 60,) * 2)


def counted(platform: Platform) -> dict[str, int]:
    tables = ("ops.files", "staging.measurements", "production.measurements", "analytics.daily_metrics",
              "analytics.quality_report")  # fmt: skip
    with platform.engine.connect() as conn:
        return {table: conn.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in tables}  # noqa: S608 - ours


def test_dropped_files_are_processed_where_dagster_cannot_be_imported(platform: Platform, data: Path) -> None:
    drop(data, "a.csv", "A,2024-01-01,1,1\nA,2024-01-02,2,1\nA,2024-01-02,3,1\nB,2024-01-01,warm,1\n")
    drop(data, "b.csv", "A,2024-01-01,9,1\n")
    drop(data, "c.csv", "nothing,that,is,expected\n" * 100)
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    accounting: list[dict[str, Any]] = json.loads(result.stdout)
    shown = ("name", "status", "rows_read", "rows_inserted", "rows_updated", "rows_superseded", "rows_rejected")
    assert [tuple(file[name] for name in shown) for file in accounting] == [
        ("a.csv", "loaded", 4, 1, 0, 2, 1),
        ("b.csv", "loaded", 1, 1, 0, 0, 0),
        ("c.csv", "refused", 100, None, None, None, 100),
    ]
    assert counted(platform) == {
        "ops.files": 3,
        "staging.measurements": 105,
        "production.measurements": 2,
        "analytics.daily_metrics": 2,
        "analytics.quality_report": 8,
    }
    assert process(platform, weather) == []


def test_a_file_whose_staged_rows_are_gone_is_staged_again(platform: Platform, data: Path) -> None:
    """A backup has no rows of staging, so this is the state after a restore."""
    drop(data, "a.csv", "A,2024-01-01,1,1\n")
    (file_id,) = land(platform, weather, "earlier").file_ids
    assert stage(platform, weather, "earlier") == [file_id]
    with platform.engine.begin() as conn:
        conn.execute(text("TRUNCATE staging.measurements"))
    assert [file["status"] for file in process(platform, weather)] == ["loaded"]
    assert counted(platform)["production.measurements"] == 1


def test_only_the_files_that_are_named(platform: Platform, data: Path) -> None:
    drop(data, "a.csv", "A,2024-01-01,1,1\n")
    drop(data, "b.csv", "B,2024-01-01,1,1\n")
    landed = land(platform, weather, "a run")
    drop(data, "c.csv", "C,2024-01-01,1,1\n")
    (file,) = process(platform, weather, [landed.file_ids[1]])
    assert (file["file_id"], file["rows_inserted"]) == (landed.file_ids[1], 1)
    assert counted(platform) | {"analytics.quality_report": 0} == {
        "ops.files": 2,
        "staging.measurements": 1,
        "production.measurements": 1,
        "analytics.daily_metrics": 1,
        "analytics.quality_report": 0,
    }
