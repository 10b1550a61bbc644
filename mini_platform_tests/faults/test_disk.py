"""No room left: where raw files are kept, where Postgres keeps staged rows, where it keeps production."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import PATIENT, CrashHarness
from mini_platform_tests.support.disks import mount
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

ATTEMPTS = 7
"""More runs than a file has attempts: a full disk must not use them up."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    mount(folder, "size=1m", "mode=700")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def give_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)


def unfinished(harness: CrashHarness) -> set[str]:
    """Names of what stands in the folder, and is not in production."""
    query = text("SELECT sha256 FROM ops.files WHERE status IN ('loaded', 'refused')")
    with harness.engine.connect() as conn:
        finished = set(conn.execute(query).scalars())
    return {name for name, sha256 in harness.standing().items() if sha256 not in finished}


def test_raw_store(harness: CrashHarness, small: Path, fault: Survives) -> None:
    fault("disk full where raw files are kept")
    (small / "raw").mkdir()
    harness.home.mkdir(exist_ok=True)
    (harness.home / "raw").symlink_to(small / "raw")
    harness.drop(waves.first("disk"))
    harness.finish()
    harness.drop(waves.second("disk") | {"big.csv": waves.padded("disk", megabytes=3)})
    for _ in range(ATTEMPTS):
        victim = harness.start(**PATIENT)
        assert victim.wait() == 1
        message = f"big.csv: there is no space left in {harness.home / 'raw'}: new files wait until there is"
        assert victim.output.splitlines()[-1:] == [message]
        assert unfinished(harness) == {"big.csv"}, "the others do not wait for room for one"
    assert not list((harness.home / "raw").glob(".arriving-*")), "what was copied before the disk was full takes room"
    give_room(small)
    harness.finish()
    assert harness.wrong() == []


def test_run_goes_on(harness: CrashHarness, small: Path, fault: Survives) -> None:
    """In a run of Dagster: the raw asset's check says what is wrong, and all that was landed is loaded."""
    fault("disk full where raw files are kept")
    harness.home.mkdir(exist_ok=True)
    (harness.home / "raw").symlink_to(small)
    harness.drop(waves.first("goes on") | {"big.csv": waves.padded("disk", megabytes=3)})
    job = build_defs(all_datasets()).resolve_job_def("load_weather")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
    assert result.success
    assert unfinished(harness) == {"big.csv"}
    (check,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "files_taken")
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    message = f"1 file cannot be landed: big.csv: there is no space left in {harness.home / 'raw'}"
    assert str(check.description).startswith(message)
    give_room(small)
    harness.finish()
    assert harness.wrong() == []


@pytest.fixture
def tablespace(harness: CrashHarness, small: Path) -> Iterator[str]:
    """A tablespace on it."""
    if os.geteuid() != 0:
        pytest.skip("the server's user could not write into what root mounts")
    name = f"small_{harness.engine.url.database}"
    with harness.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text(f"CREATE TABLESPACE {name} LOCATION '{small}'"))
    yield name
    with harness.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for table in ("staging.measurements", "production.measurements"):
            conn.execute(text(f"ALTER TABLE {table} SET TABLESPACE pg_default"))
        conn.execute(text(f"DROP TABLESPACE {name}"))


@pytest.mark.parametrize("table", ["staging", "production"])
def test_postgres(table: str, harness: CrashHarness, small: Path, tablespace: str, fault: Survives) -> None:
    fault(f"disk full where Postgres keeps {table}")
    with harness.engine.begin() as conn:
        conn.execute(text(f"ALTER TABLE {table}.measurements SET TABLESPACE {tablespace}"))
    harness.drop(waves.first("tablespace", big=True))
    for _ in range(ATTEMPTS):
        victim = harness.start(**PATIENT)
        assert victim.wait() == 1, victim.output
        assert "No space left on device" in victim.output
    give_room(small)
    harness.finish()
    assert harness.wrong() == []
