"""The processes of runs: started warm, and marked as failed when they are gone.

Here: the run launcher that `dagster.yaml` names. Dagster's run monitoring asks it for dead runs, and the start of the
platform looks for them too: a run that was killed would stay STARTED for ever and keep its dataset's only slot.
Not here: the data. What a dead run had claimed is taken up by the ledger's leases, whatever Dagster shows.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys

import psutil
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterInvariantViolationError,
    DagsterRun,
    DagsterRunStatus,
    DefaultRunLauncher,
    RunsFilter,
)

from mini_platform.dagster import private
from mini_platform.dagster.private import (
    CheckRunHealthResult,
    EngineEventData,
    ExecuteRunArgs,
    LaunchRunContext,
    WorkerStatus,
)

IN_PROGRESS = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


WARM_MODULES = [
    private.COMMAND,
    "dagster_pandas",
    "dagster_postgres",
    "pandera.polars",
    "polars",
    "psycopg2.extras",
    "pyarrow.csv",
    "sqlalchemy.dialects.postgresql",
    "typer",
]
"""Imported once, in the process from which runs are forked. Not our own modules: an edited dataset must be read anew."""


def _run(arguments: list[str], run_id: str) -> None:
    """In the process of a run: the same as the command `dagster api execute_run ...`; our own logs have its id."""
    import structlog

    from mini_platform.config import logs
    from mini_platform.config.settings import load_settings

    logs.configure(load_settings().logs)
    structlog.contextvars.bind_contextvars(run_id=run_id)
    private.cli(arguments)


class PlatformRunLauncher(DefaultRunLauncher):
    """A process for each run, forked from one that has imported the libraries.

    From the request of a run to its start it takes 1.2 to 1.7 s, half of it in the queue, instead of 4.5 s.

    The fork server is a fresh process without threads, started by the daemon with its first run. It also tells whether a
    run lives, which Dagster's default launcher does not.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process."""
        run = context.dagster_run
        origin = run.job_code_origin
        if origin is None:
            raise DagsterInvariantViolationError(f"Run {run.run_id} does not say where its code is.")
        command = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True)
        preload = multiprocessing.get_context("forkserver")
        preload.set_forkserver_preload(WARM_MODULES)
        process = preload.Process(
            target=_run, args=(list(command.get_command_args())[1:], run.run_id), name=f"run {run.run_id[:8]}"
        )
        process.start()
        message = f"Launched run in process {process.pid}."
        self._instance.report_engine_event(message, run, EngineEventData({"pid": str(process.pid)}))

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process; Dagster marks the run as canceled when it has wound up."""
        run = self._instance.get_run_by_id(run_id)
        process = None if run is None else process_of(self._instance, run)
        if run is None or run.is_finished or process is None:
            return False
        self._instance.report_run_canceling(run)
        process.send_signal(signal.SIGINT)
        return True

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

    Of a run that has not named a process yet nothing is known: it counts as alive.
    """
    return _pid(instance, run) is not None and process_of(instance, run) is None


def process_of(instance: DagsterInstance, run: DagsterRun) -> psutil.Process | None:
    """The living process of a run; one that was born after the event that names it has only inherited the number."""
    named = _pid(instance, run)
    if named is None:
        return None
    pid, moment = named
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= moment + 1
    except psutil.NoSuchProcess:
        return None
    return process if alive else None


def _pid(instance: DagsterInstance, run: DagsterRun) -> tuple[int, float] | None:
    """Number of a run's process and when an event named it."""
    for record in reversed(instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        metadata = record.get_dagster_event().engine_event_data.metadata
        if "pid" in metadata:
            return int(str(metadata["pid"].value)), record.timestamp
    return None


if __name__ == "__main__":
    with DagsterInstance.get() as found:
        for run_id in fail_dead_runs(found):
            sys.stdout.write(f"run {run_id[:8]} is marked as failed: its process was killed\n")
