"""Runs of the pipeline in this process, recorded as runs that Dagster's UI shows. Not here: which files (`cli/runs.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

import mini_platform.warehouse.staging  # noqa: F401  needed anyway, and as slow to import as Dagster
from mini_platform.dagster import assets
from mini_platform.dagster.automation import load_selection
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.run_history import DATASET_TAG
from mini_platform.warehouse.validated_rows import Progress

STATEMENT_SECONDS = 300
"""Time limit of the SQL statements that Dagster itself executes."""


def execute(
    defs: dg.Definitions, dataset: Dataset, file_ids: Sequence[int], progress: Progress | None = None
) -> str | None:
    """Execute one Dagster run over these files.

    Args:
        defs: definitions that Dagster loads.
        dataset: dataset of the files.
        file_ids: ids of landed or staged files.
        progress: callback for bytes and rows as they are read; without it the log is shown.

    Returns:
        The error as a sentence; None if the run succeeded.
    """
    step_config = {"config": {"files": list(file_ids)}}
    steps = (dataset.raw_asset, dataset.staging_asset, dataset.table)
    job = defs.get_implicit_global_asset_job_def()
    token = assets.progress.set(progress)
    try:
        with dg.DagsterInstance.get() as instance:
            # Otherwise Dagster opens a connection for each of the 250 writes of a run; only its web server keeps a pool.
            instance.optimize_for_webserver(STATEMENT_SECONDS * 1000, pool_recycle=3600, max_overflow=10)
            result = job.execute_in_process(
                instance=instance,
                asset_selection=sorted(load_selection(dataset).resolve(job.asset_layer.asset_graph)),
                run_config={
                    "ops": {f"{dataset.name}__{step}": step_config for step in steps},
                    "loggers": {"console": {"config": {"log_level": "CRITICAL" if progress else "DEBUG"}}},
                },
                tags={DATASET_TAG: dataset.name},
                raise_on_error=False,
            )
            return None if result.success else _failure(result)
    except dg.DagsterInvariantViolationError as error:
        return f"Dagster cannot start: {error}"
    finally:
        assets.progress.reset(token)


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """Return why a run failed: its first failed step, and the innermost error of that step."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            while error.cause:
                error = error.cause
            if error.cls_name == "DagsterExecutionInterruptedError":
                return f"run {result.run_id} was interrupted in {event.step_key}"
            return f"run {result.run_id} failed in {event.step_key}: {' '.join(error.message.split())}"
    return f"run {result.run_id} failed; see the Dagster UI"
