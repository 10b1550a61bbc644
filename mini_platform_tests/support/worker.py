"""The work of a pipeline's run without Dagster, which takes seconds to start: the process that tests kill.

    python -m mini_platform_tests.support.worker      with the platform's settings in the environment

Lands, stages, loads and refreshes by the functions that the assets and the IO manager call, until nothing waits any more.
Files that a killed worker held are waited for: their lease runs out by itself. Where files cannot be taken and nothing else is
left to do, it says so and exits with 1.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import func, select

from mini_platform import Dataset
from mini_platform.datasets import all_datasets
from mini_platform.landing import folder
from mini_platform.operations import processing
from mini_platform.operations.landing import land
from mini_platform.platform import Platform
from mini_platform.warehouse import ledger
from mini_platform.warehouse.dirty_groups import is_stale
from mini_platform.warehouse.tables import files

LOOK_SECONDS = 0.05
DATASET = "FAULTS_DATASET"
"""Environment variable with the name of another dataset than weather."""


def work(platform: Platform) -> None:
    """Run again and again, until nothing waits and nobody else works on anything."""
    dataset = all_datasets()[os.environ.get(DATASET, "weather")]
    while True:
        free, held = waiting(platform, dataset)
        if free:
            blocked = run(platform, dataset)
            if blocked and not any(waiting(platform, dataset, landed=True)):
                sys.exit("\n".join(f"{file.name}: {file.skip_reason}" for file in blocked))
        elif held:
            time.sleep(LOOK_SECONDS)
        else:
            return


def run(platform: Platform, dataset: Dataset) -> list[folder.DroppedFile]:
    """Execute the assets once, as a sensor's run does; return the files that could not be landed."""
    run_id = str(uuid.uuid4())
    new = {
        file.name for file in _new(platform, dataset)
    }  # Others were left alone before, and the sensor asks for no run.
    landed = land(platform, dataset, run_id, visit_inboxes=False)
    processing.stage(platform, dataset, run_id, others_first=True)
    processing.load(platform, dataset, run_id)
    for aggregate in dataset.aggregates:
        processing.refresh(platform, dataset, aggregate)
    return [file for file in landed.blocked if file.name in new]


def waiting(platform: Platform, dataset: Dataset, *, landed: bool = False) -> tuple[bool, bool]:
    """Return whether there is work for this process, and whether another one holds files; `landed` excludes files to land."""
    new = [] if landed else _new(platform, dataset)
    pending = files.c.status.in_(ledger.PENDING)
    with platform.engine.connect() as conn:
        free = ledger.pending(conn, dataset.name)
        held = conn.scalar(select(func.count()).where(files.c.dataset == dataset.name, pending)) or 0
        stale = is_stale(conn, dataset)
    return bool(new or free or stale), held > 0


def _new(platform: Platform, dataset: Dataset) -> list[folder.DroppedFile]:
    with platform.engine.connect() as conn:
        dropped = folder.changed(conn, platform.settings.data / dataset.name, dataset)
    return [file for file in dropped if not file.skip_reason]


def main(environment: Mapping[str, str], log: Path) -> None:
    """Work in this process, with exactly these settings and its output in a file."""
    prepare(environment, log)
    work(Platform())


def prepare(environment: Mapping[str, str], log: Path) -> None:
    """Redirect the output of this process to a file, and set exactly these settings."""
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    for name in [name for name in os.environ if name.startswith(("MINI_PLATFORM_", "DATABASE_"))]:
        del os.environ[name]
    os.environ.update(environment)


if __name__ == "__main__":
    work(Platform())
