"""What a run does, without Dagster's start: land, stage, load, aggregates, quality report; prints the seconds it took.

python -m mini_platform_tests.benchmarks.inside FILE...
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path

from mini_platform.datasets import all_datasets
from mini_platform.landing import folder
from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, ledger, quality
from mini_platform.warehouse.load import load
from mini_platform.warehouse.quarantine import rejects  # noqa: F401  imported as a run does, before the clock starts
from mini_platform.warehouse.staging import stage
from mini_platform.warehouse.tables import dataset_tables, quality_report
from mini_platform.warehouse.upsert import upsert_frame


def main(paths: list[Path]) -> dict[str, float]:
    """Seconds of each stage and of all."""
    platform, dataset = Platform(), all_datasets()[os.environ.get("BENCH_DATASET", "weather")]
    worker = platform.worker(str(uuid.uuid4()))
    laps, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        laps[name] = time.perf_counter() - start - sum(laps.values())

    found = [folder.Found(path.name, path, "") for path in paths]
    ids = [row.file_id for _, row in folder.land(platform.engine, dataset, platform.store, found, "load") if row]
    lap("land")
    with ledger.lease(worker):
        stage(worker, dataset, platform.raw_files(dataset), limit=len(ids))
        lap("stage")
        loaded = load(worker, dataset, limit=len(ids))
        lap("load")
    for aggregate in dataset.aggregates:
        with worker.engine.begin() as conn:
            aggregates.refresh(conn, dataset, aggregate, dataset_tables(dataset).rows(aggregate))
    lap("aggregates")
    with worker.engine.begin() as conn:
        upsert_frame(conn, quality_report, quality.measure(conn, dataset, worker.owner))
    lap("quality")
    if len(loaded) != len(paths):
        raise RuntimeError(f"{len(loaded)} of {len(paths)} files were loaded: there is nothing to measure")
    return {**laps, "all": time.perf_counter() - start}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main([Path(name) for name in sys.argv[1:]])) + "\n")
