"""A run whose process is gone is found and marked as failed; one that lives, or may live, is left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import dagster as dg
import pytest

from mini_platform.dagster.private import EngineEventData
from mini_platform.dagster.run_launcher import fail_dead_runs


@dg.job
def nothing() -> None:
    """A job without steps: only its run is looked at."""


def dead_process() -> int:
    """Id of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("process", "status"),
    [
        pytest.param(dead_process, dg.DagsterRunStatus.FAILURE, id="gone"),
        pytest.param(os.getpid, dg.DagsterRunStatus.STARTED, id="alive"),
        pytest.param(None, dg.DagsterRunStatus.STARTED, id="unknown"),
    ],
)
def test_only_runs_without_a_process_are_failed(process: object, status: dg.DagsterRunStatus) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        if callable(process):
            instance.report_engine_event("started", run, EngineEventData({"pid": str(process())}))
        failed = fail_dead_runs(instance)
        assert failed == ([run.run_id] if status == dg.DagsterRunStatus.FAILURE else [])
        stored_run = instance.get_run_by_id(run.run_id)
        assert stored_run is not None
        assert stored_run.status == status
