"""Runs and ticks of Dagster in this process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dagster as dg


def settled(path: Path) -> Path:
    """Return the file with a time in the past, as if it was written a while ago."""
    os.utime(path, (time.time() - 60,) * 2)
    return path


def drop(data: Path, name: str, content: bytes, dataset: str = "weather") -> None:
    (data / dataset / name).write_bytes(content)
    settled(data / dataset / name)


def materialize(defs: dg.Definitions, instance: dg.DagsterInstance, group: str = "weather", **options: Any) -> Any:
    """Materialize all assets of a dataset, as *Materialize all* does."""
    return defs.resolve_job_def(f"load_{group}").execute_in_process(instance=instance, **options)


def tick(defs: dg.Definitions, instance: dg.DagsterInstance, dataset: str = "weather") -> Any:
    """Return the result of one tick, as the daemon runs it: a run request or a reason to skip."""
    repository = defs.get_repository_def()
    resources = {"platform": (defs.resources or {})["platform"]}
    with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
        data = repository.get_sensor_def(f"{dataset}_files").evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message
