"""Runs of the pipeline in this process, as Dagster runs that its UI shows. Not here: which files one takes (`cli/runs.py`)."""

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
"""Longest statement of Dagster's own."""


def execute(
    defs: dg.Definitions, dataset: Dataset, file_ids: Sequence[int], progress: Progress | None = None
) -> str | None:
    """Make one Dagster run over these files.

    Args:
        defs: what Dagster loads.
        dataset: whose files.
        file_ids: of landed or staged files.
        progress: called as bytes and rows are read; without it the log is shown.

    Returns:
        What went wrong, as a sentence; None if nothing did.
    """
    takes = {"config": {"files": list(file_ids)}}
    steps = (dataset.raw_asset, dataset.staging_asset, dataset.table)
    job = defs.get_implicit_global_asset_job_def()
    context = assets.progress.set(progress)
    try:
        with dg.DagsterInstance.get() as instance:
            # Dagster connects anew for each of the 250 things it writes of a run, unless it serves its web pages.
            instance.optimize_for_webserver(STATEMENT_SECONDS * 1000, pool_recycle=3600, max_overflow=10)
            result = job.execute_in_process(
                instance=instance,
                asset_selection=sorted(load_selection(dataset).resolve(job.asset_layer.asset_graph)),
                run_config={
                    "ops": {f"{dataset.name}__{step}": takes for step in steps},
                    "loggers": {"console": {"config": {"log_level": "CRITICAL" if progress else "DEBUG"}}},
                },
                tags={DATASET_TAG: dataset.name},
                raise_on_error=False,
            )
            return None if result.success else _why(result)
    except dg.DagsterInvariantViolationError as error:
        return f"Dagster cannot start: {error}"
    finally:
        assets.progress.reset(context)


def _why(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed: its first failed step, and the innermost error of it."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            while error.cause:
                error = error.cause
            if error.cls_name == "DagsterExecutionInterruptedError":
                return f"run {result.run_id} was interrupted in {event.step_key}"
            return f"run {result.run_id} failed in {event.step_key}: {' '.join(error.message.split())}"
    return f"run {result.run_id} failed; see the Dagster UI"
