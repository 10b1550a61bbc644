"""Runs whose process is gone: found, and marked as failed.

Here: the run launcher that `dagster.yaml` names, so that Dagster's run monitoring notices a dead run, and the same look at
the start of the platform. Without it a run that was killed stays STARTED for ever and keeps its dataset's only slot.
Not here: the data. What a dead run had claimed is taken up by the ledger's leases, whatever Dagster shows.
"""

from __future__ import annotations

import json
import sys

import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, DefaultRunLauncher, RunsFilter
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
IN_PROGRESS = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


class PlatformRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher (a process per run, below the code server) that can also tell whether a run lives."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: this is what the default launcher lacks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look for the run's process."""
        if process_is_gone(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, "The process of the run is gone: it was killed.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def fail_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark as failed every run in progress whose process is gone.

    Returns:
        The ids of these runs.
    """
    dead = [run for run in instance.get_runs(RunsFilter(statuses=IN_PROGRESS)) if process_is_gone(instance, run)]
    for run in dead:
        instance.report_run_failed(run, "The process of the run is gone: it was killed, or the machine restarted.")
    return [run.run_id for run in dead]


def process_is_gone(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether a run's process no longer exists, as far as this machine can tell.

    A run's events name its process. A process that was born after the event that names it has only inherited the number.
    Of a run that was launched on another machine, or has not named a process yet, nothing is known: it counts as alive.
    """
    where = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if where.get("host", "localhost") not in LOCAL_HOSTS:
        return False
    for record in reversed(instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        metadata = record.get_dagster_event().engine_event_data.metadata
        if "pid" not in metadata:
            continue
        try:
            process = psutil.Process(int(str(metadata["pid"].value)))
            return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > record.timestamp + 1
        except psutil.NoSuchProcess:
            return True
    return False


if __name__ == "__main__":
    with DagsterInstance.get() as found:
        for run_id in fail_dead_runs(found):
            sys.stdout.write(f"run {run_id[:8]} is marked as failed: its process was killed\n")
