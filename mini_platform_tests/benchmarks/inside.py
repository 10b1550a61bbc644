"""The work of a run without Dagster's start: land, stage, load, aggregates, quality report; prints the seconds it took.

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
from mini_platform.operations import processing
from mini_platform.platform import Platform
from mini_platform.warehouse import staging  # noqa: F401  imported as a run does, before the clock starts
from mini_platform.warehouse.quarantine import rejects  # noqa: F401


def main(paths: list[Path]) -> dict[str, float]:
    """Seconds of each stage and of all."""
    platform, dataset = Platform(), all_datasets()[os.environ.get("BENCH_DATASET", "weather")]
    run_id, laps, start = str(uuid.uuid4()), {}, time.perf_counter()

    def lap(name: str) -> None:
        laps[name] = time.perf_counter() - start - sum(laps.values())

    dropped = [folder.DroppedFile(path.name, path, "") for path in paths]
    list(folder.land(platform.engine, dataset, platform.store, dropped, "load"))
    lap("land")
    processing.stage(platform, dataset, run_id)
    lap("stage")
    loaded = processing.load(platform, dataset, run_id)
    lap("load")
    for aggregate in dataset.aggregates:
        processing.refresh(platform, dataset, aggregate)
    lap("aggregates")
    processing.save_report(platform, processing.measure(platform, dataset, run_id))
    lap("quality")
    if len(loaded) != len(paths):
        raise RuntimeError(f"{len(loaded)} of {len(paths)} files were loaded: there is nothing to measure")
    return {**laps, "all": time.perf_counter() - start}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main([Path(name) for name in sys.argv[1:]])) + "\n")
