"""Purging: the nightly job that removes data older than the retention settings, including Dagster's old runs.

Here: runs with their events and logs, which only Dagster can remove; the job and its schedule. Not here: rows and raw files
(`operations/purge.py`); old ticks, which Dagster itself removes (`retention` in dagster.yaml).

https://docs.dagster.io/guides/operate/run-retention
"""

import datetime as dt
from collections.abc import Mapping

import dagster as dg

from mini_platform.dagster.private import FINISHED_STATUSES
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.place import Purged
from mini_platform.operations.purge import days, purge
from mini_platform.platform import Platform
from mini_platform.warehouse.run_history import PURGE_SCHEDULE

BATCH_RUNS = 100
"""Number of runs per query."""
NIGHTLY = "30 3 * * *"


def purge_runs(instance: dg.DagsterInstance, age: dt.timedelta, *, dry_run: bool) -> Purged:
    """Remove finished runs that are older than this, with their events and the output of their steps.

    The run that last materialized an asset is kept, however old: without it, the UI would show the asset as never materialized.
    """
    before = dt.datetime.now(dt.UTC) - age
    last_runs = _last_runs(instance)
    filters = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before)
    removed, oldest, cursor = 0, None, None
    while records := instance.get_run_records(filters, limit=BATCH_RUNS, cursor=cursor, ascending=True):
        cursor = records[-1].dagster_run.run_id
        for record in records:
            run_id = record.dagster_run.run_id
            if run_id in last_runs:
                continue
            oldest, removed = oldest or record.create_timestamp, removed + 1
            if not dry_run:
                # Events first: if the process is killed, the run remains without events, and the next purge finds it.
                instance.event_log_storage.delete_events(run_id)
                instance.compute_log_manager.delete_logs(prefix=[run_id])
                instance.delete_run(run_id)
    return Purged("runs", None, removed, oldest)


def purge_runs_here(age: dt.timedelta, *, dry_run: bool) -> Purged:
    """Remove finished runs of the instance that DAGSTER_HOME names."""
    with dg.DagsterInstance.get() as instance:
        return purge_runs(instance, age, dry_run=dry_run)


def _last_runs(instance: dg.DagsterInstance) -> set[str]:
    """Return ids of the runs in which the assets were last materialized."""
    entries = [record.asset_entry for record in instance.get_asset_records()]
    last = (entry.last_materialization_record for entry in entries)
    return {record.run_id for record in last if record} | {entry.last_run_id for entry in entries if entry.last_run_id}


def purge_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """Return the job `purge` for these datasets, and its schedule, which runs by default."""

    @dg.op(
        description="Removes raw files, rejected rows, quality reports and runs that are older than the retention settings."
    )
    def remove_old(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        results = list(purge(platform, list(datasets.values()), dry_run=False))
        if age := days(platform.settings.run_retention):
            results.append(purge_runs(context.instance, age, dry_run=False))
        for purged in results:
            if purged.items:
                context.log.info(
                    "removed: %d %s%s", purged.items, purged.what, f" of {purged.dataset}" if purged.dataset else ""
                )

    @dg.job(
        name="purge",
        description="Removes data that is older than the retention settings.",
        executor_def=dg.in_process_executor,
    )
    def purge_job() -> None:
        remove_old()

    nightly = dg.ScheduleDefinition(
        name=PURGE_SCHEDULE, job=purge_job, cron_schedule=NIGHTLY, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(jobs=[purge_job], schedules=[nightly])
