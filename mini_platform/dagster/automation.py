"""Sensors and schedules. A dataset has one sensor, which reads ledger and drop folder and requests one run for all work.

Remote inboxes are visited in the sensor's process, in threads beside its ticks; a visit lands its files in the ledger itself.

An API source has one schedule. A dropped file does not start a sync.

https://docs.dagster.io/guides/automate/sensors
https://docs.dagster.io/guides/automate/schedules
"""

import datetime as dt
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mini_platform.dagster.api_sources import api_source_keys
from mini_platform.dagster.private import UnresolvedAssetJobDefinition
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import ApiSource
from mini_platform.landing import folder, retention
from mini_platform.operations.raw_files import raw_retention
from mini_platform.operations.sources import inbox_states, remote_inboxes, visit_inbox
from mini_platform.platform import Platform
from mini_platform.storage.names import SETTLE_SECONDS
from mini_platform.warehouse import ledger
from mini_platform.warehouse.dirty_groups import is_stale
from mini_platform.warehouse.run_history import DATASET_TAG

if TYPE_CHECKING:
    from mini_platform.storage.remote import Inbox

API_SOURCE_TAG = "mini_platform/api_source"
"""Tag of every run that a schedule requested: the API source that it syncs."""
MAX_LISTED = 5
"""Skipped files that a tick names at most."""

TICK_SECONDS = 4.0
"""Duration of a tick. Dagster's daemon runs its sensors every 5 s: if a tick checked only once, a file would have to wait."""
CHECK_SECONDS = 0.5
"""Time between two checks of a tick."""
IDLE_SHARE = 4
"""A tick pauses for so many times the duration of its last check, which takes a second in a folder of 100,000 files."""
PAUSES = (5, 10, 20, 40, 80, 160, 300)
"""Seconds until the next run after one, two and more runs in vain. Without pauses, one night would record thousands of runs."""
CODE = Path(__file__).parent.parent
"""Folder of the platform's code: a change in it ends the pauses."""

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def load_selection(dataset: Dataset) -> dg.AssetSelection:
    """Return all assets of a dataset except those of its API sources."""
    assets = dg.AssetSelection.groups(dataset.name)
    return assets - dg.AssetSelection.assets(*api_source_keys(dataset)) if dataset.api_sources else assets


def load_job(dataset: Dataset) -> UnresolvedAssetJobDefinition:
    """Return the job that brings all tables of a dataset up to date."""
    return dg.define_asset_job(
        f"load_{dataset.name}",
        selection=load_selection(dataset),
        description=f"Loads pending files of {dataset.name} and new files in data/{dataset.name}/.",
        tags={DATASET_TAG: dataset.name},
    )


def sync_job(dataset: Dataset, source: ApiSource) -> UnresolvedAssetJobDefinition:
    """Return the job that syncs an API source, and loads its pages and all other pending files."""
    assets = dg.AssetSelection.groups(dataset.name)
    others = [key for key in api_source_keys(dataset) if key.path[-1] != source.asset]
    return dg.define_asset_job(
        f"sync_{dataset.name}_{source.name}",
        selection=assets - dg.AssetSelection.assets(*others) if others else assets,
        description=f"Syncs {source.name} and loads pending files of {dataset.name}.",
        tags={DATASET_TAG: dataset.name, API_SOURCE_TAG: source.name},
    )


def sync_schedule(dataset: Dataset, source: ApiSource, interval: str, *, running: bool) -> dg.ScheduleDefinition:
    """Return the schedule of an API source; it starts no second sync while one is still running.

    Args:
        dataset: dataset that declares the source.
        source: source to sync.
        interval: cron expression, used if the source declares none.
        running: True if the schedule runs by default, which it does if the source is configured.
    """
    tags = {DATASET_TAG: dataset.name, API_SOURCE_TAG: source.name}

    @dg.schedule(
        name=dataset.sync_schedule(source),
        cron_schedule=source.schedule or interval,
        job=sync_job(dataset, source),
        description=f"Syncs {source.name}.",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        tags=tags,
    )
    def sync_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if context.instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=ACTIVE)):
            return dg.SkipReason(f"A run that syncs {source.name} is in progress.")
        return dg.RunRequest(tags=tags)

    return sync_due


def file_sensor(dataset: Dataset) -> dg.SensorDefinition:
    """Return the sensor that detects new files in a dataset's drop folder, and files that an earlier run left pending.

    Its requests have no run key: Dagster never forgets a key, so a lost run would never be repeated. It requests no run twice,
    because the ledger shows what is loaded, and because it requests none while its last one is in progress.
    """

    @dg.sensor(
        name=dataset.files_sensor,
        description=f"Watches data/{dataset.name}/ for new files and the ledger for pending work.",
        job=load_job(dataset),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags={DATASET_TAG: dataset.name},
    )
    def files_arrived(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.RunRequest | dg.SkipReason:
        if sentence := platform.refusal(dataset.name):
            return dg.SkipReason(sentence)
        start = time.monotonic()
        end = start + TICK_SECONDS
        while isinstance(result := _evaluate(context, dataset, platform), dg.SkipReason):
            checked = time.monotonic()
            pause = max(CHECK_SECONDS, IDLE_SHARE * (checked - start))
            if checked + pause > end:
                break
            time.sleep(pause)
            start = time.monotonic()
        return result

    return files_arrived


_visits: dict[tuple[str, str], threading.Thread] = {}
"""Threads in this process that visit remote inboxes, by dataset and name of the inbox."""


def _visit_inboxes(dataset: Dataset, platform: Platform) -> None:
    """Start the visits that are due, each in its own thread: no tick waits for a server that may not respond.

    Files that a visit lands are pending in the ledger; its errors are in `ops.inboxes`.
    """
    from mini_platform.landing import inbox_state  # Not needed without remote inboxes.

    def visit(inbox: "Inbox") -> None:
        with suppress(*ledger.AWAY):  # The sensor's own queries report it.
            visit_inbox(platform, dataset, inbox)

    idle = [i for i in remote_inboxes(platform, dataset) if not _is_alive(_visits.get((i.dataset, i.name)))]
    with platform.engine.connect() as conn:
        due = inbox_state.due(conn, idle)
    for inbox in due:
        thread = threading.Thread(target=visit, args=[inbox], name=f"visit {inbox.dataset} {inbox.name}", daemon=True)
        _visits[(inbox.dataset, inbox.name)] = thread
        thread.start()


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()


def _inbox_errors(dataset: Dataset, platform: Platform) -> str:
    """Return the errors of remote inboxes as sentences."""
    with platform.engine.connect() as conn:
        rows = [row for row in inbox_states(platform, conn, [dataset]) if row.last_error]
    return "".join(f" Inbox {row.inbox}, since {row.failing_since:%Y-%m-%d %H:%M %Z}: {row.last_error}" for row in rows)


def _evaluate(
    context: dg.SensorEvaluationContext, dataset: Dataset, platform: Platform
) -> dg.RunRequest | dg.SkipReason:
    """Check once whether a run is needed.

    A run is requested for new files in the drop folder, pending files, aggregates that are out of date and raw files that are
    past their retention. Not while a run of the dataset is in progress, as one run does all the work; and not yet, if the last
    runs were in vain: the pause grows with their number, see `_runs_in_vain`.
    """
    if platform.settings.inbox:
        _visit_inboxes(dataset, platform)
    drop_folder = platform.settings.data / dataset.name
    with platform.engine.connect() as conn:
        dropped = folder.changed(conn, drop_folder, dataset)
        pending = ledger.pending(conn, dataset.name)
        stale = is_stale(conn, dataset)
        expired = retention.due(conn, dataset, raw_retention(platform, dataset))
    new = [file for file in dropped if not file.skip_reason]
    if not new and not pending and not stale and not expired:
        skipped = [f"{file.name} ({file.skip_reason})" for file in dropped if file.skip_reason]
        also = (
            f" Skipped: {', '.join(skipped[:MAX_LISTED])}{' ...' if len(skipped) > MAX_LISTED else ''}."
            if skipped
            else ""
        )
        return dg.SkipReason(f"Nothing new in {drop_folder}/.{also}{_inbox_errors(dataset, platform)}")
    work = f"{len(new)} new and {pending} pending files"
    if context.instance.get_runs_count(dg.RunsFilter(tags={DATASET_TAG: dataset.name}, statuses=ACTIVE)):
        return dg.SkipReason(f"{work} wait for the run that is in progress.")
    if vain_runs := _runs_in_vain(context.instance, dataset, platform, new):
        ended = _timestamp(vain_runs[0].end_time, vain_runs[0].update_timestamp)
        next_try = ended + PAUSES[len(vain_runs) - 1]
        if ended <= time.time() < next_try:  # An end in the future is one of a clock that was set back since.
            runs = f"The last {len(vain_runs)} runs" if len(vain_runs) > 1 else "The last run"
            at = dt.datetime.fromtimestamp(next_try, dt.UTC)
            return dg.SkipReason(
                f"{work} wait. {runs} failed, or did not land all new files; the next try is at {at:%H:%M:%S} UTC. "
                "Materialize the assets to try now."
            )
    context.log.info("%s", work)
    return dg.RunRequest(tags={DATASET_TAG: dataset.name})


def _runs_in_vain(
    instance: dg.DagsterInstance, dataset: Dataset, platform: Platform, new: Sequence[folder.DroppedFile]
) -> list[dg.RunRecord]:
    """Return the last runs in vain, newest first: they failed, or succeeded without landing all new files.

    Runs that started before the last file arrived, or before the code was changed, do not count: the next one may succeed.
    A run that has no disk space for a file succeeds, with a failed check.
    """
    runs = instance.get_run_records(dg.RunsFilter(tags={DATASET_TAG: dataset.name}), limit=len(PAUSES))
    if not runs:
        return []
    with platform.engine.connect() as conn:
        last_arrival = ledger.last_arrival(conn, dataset.name)
    settled = [file.changed_at + SETTLE_SECONDS for file in new]
    code_changes = [path.stat().st_mtime for path in CODE.rglob("*") if path.suffix in (".py", ".yaml")]
    last_change = max([*settled, *code_changes, last_arrival.timestamp() if last_arrival else 0.0])

    def in_vain(run: dg.RunRecord) -> bool:
        succeeded = run.dagster_run.status is dg.DagsterRunStatus.SUCCESS
        return _timestamp(run.start_time, run.create_timestamp) > last_change and not (succeeded and not new)

    return list(takewhile(in_vain, runs))


def _timestamp(known: float | None, fallback: dt.datetime) -> float:
    """Return when a run started or ended; if that is unknown, as of a run that never started, the fallback."""
    return fallback.timestamp() if known is None else known
