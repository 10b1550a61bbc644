"""Sensors: one per dataset. They ask the ledger and the drop folder, and request one run for all that waits.

Remote inboxes are visited from the sensor's process, beside its ticks, and land files in the ledger by themselves.

And schedules: one per source that is synced. A dropped file does not make anybody ask the sources.

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
"""Of every run that a schedule asked for: which source it api_sources."""
LISTED = 5

TICK_SECONDS = 4.0
"""How long a tick watches. Dagster's daemon looks at its sensors every 5 s: a tick that looked once would let a file wait."""
LOOK_SECONDS = 0.5
PAUSES = (5, 10, 20, 40, 80, 160, 300)
"""Seconds until the next run after one, two and more runs in vain. Asking at once would record thousands of them in a night."""
CODE = Path(__file__).parent.parent

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def load_selection(dataset: Dataset) -> dg.AssetSelection:
    """All assets of a dataset but those that sync."""
    everything = dg.AssetSelection.groups(dataset.name)
    return everything - dg.AssetSelection.assets(*api_source_keys(dataset)) if dataset.api_sources else everything


def load_job(dataset: Dataset) -> UnresolvedAssetJobDefinition:
    """The job that brings everything of a dataset up to date."""
    return dg.define_asset_job(
        f"load_{dataset.name}",
        selection=load_selection(dataset),
        description=f"Loads what is pending of {dataset.name}, and what stands in data/{dataset.name}/.",
        tags={DATASET_TAG: dataset.name},
    )


def sync_job(dataset: Dataset, source: ApiSource) -> UnresolvedAssetJobDefinition:
    """The job that api_sources a source and loads what it brought, and what else waits."""
    everything = dg.AssetSelection.groups(dataset.name)
    others = [key for key in api_source_keys(dataset) if key.path[-1] != source.asset]
    return dg.define_asset_job(
        f"sync_{dataset.name}_{source.name}",
        selection=everything - dg.AssetSelection.assets(*others) if others else everything,
        description=f"Syncs {source.name} and loads what is pending of {dataset.name}.",
        tags={DATASET_TAG: dataset.name, API_SOURCE_TAG: source.name},
    )


def sync_schedule(dataset: Dataset, source: ApiSource, interval: str, *, running: bool) -> dg.ScheduleDefinition:
    """The schedule of a source; a sync that takes longer than the interval is left to end.

    Args:
        dataset: whose source.
        source: to be synced.
        interval: cron expression, where the source declares none.
        running: whether it runs by default: where the source is configured.
    """
    tags = {DATASET_TAG: dataset.name, API_SOURCE_TAG: source.name}

    @dg.schedule(
        name=f"{dataset.name}_sync_{source.name}",
        cron_schedule=source.schedule or interval,
        job=sync_job(dataset, source),
        description=f"Syncs {source.name}.",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        tags=tags,
    )
    def sync_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if context.instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=ACTIVE)):
            return dg.SkipReason(f"A run that api_sources {source.name} is under way.")
        return dg.RunRequest(tags=tags)

    return sync_due


def file_sensor(dataset: Dataset) -> dg.SensorDefinition:
    """The sensor that sees files arrive in the dataset's drop folder, and what an earlier run left behind.

    It gives no run key: a key is remembered for ever, so that a lost run would never be made up for. What keeps it from
    asking twice is the ledger, and the run that it asked for, while that is under way.
    """

    @dg.sensor(
        name=f"{dataset.name}_files",
        description=f"Watches data/{dataset.name}/ for new files and the ledger for pending work.",
        job=load_job(dataset),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags={DATASET_TAG: dataset.name},
    )
    def files_arrived(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.RunRequest | dg.SkipReason:
        end = time.monotonic() + TICK_SECONDS
        while isinstance(answer := _look(context, dataset, platform), dg.SkipReason) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return answer

    return files_arrived


_visits: dict[tuple[str, str], threading.Thread] = {}
"""The visits to remote inboxes that are under way in this process."""


def _visit_inboxes(dataset: Dataset, platform: Platform) -> None:
    """Begin the visits that are due, each in a thread of its own: no tick waits for a server that may be dead.

    What a visit lands is pending in the ledger, and what goes wrong stands in `ops.inboxes`.
    """
    from mini_platform.landing import inbox_state  # Not needed without remote inboxes.

    def visit(inbox: "Inbox") -> None:
        with suppress(*ledger.AWAY):  # The sensor's own queries say so.
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


def _failing(dataset: Dataset, platform: Platform) -> str:
    """What is wrong with remote inboxes, as sentences."""
    with platform.engine.connect() as conn:
        rows = [row for row in inbox_states(platform, conn, [dataset]) if row.last_error]
    return "".join(f" Inbox {row.inbox}, since {row.failing_since:%Y-%m-%d %H:%M %Z}: {row.last_error}" for row in rows)


def _look(context: dg.SensorEvaluationContext, dataset: Dataset, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    if platform.settings.inbox:
        _visit_inboxes(dataset, platform)
    found = folder.look(platform.settings.data / dataset.name, dataset)
    with platform.engine.connect() as conn:
        new = folder.changed(conn, dataset, found)
        pending = ledger.pending(conn, dataset.name)
        stale = is_stale(conn, dataset)
        old = retention.due(conn, dataset, raw_retention(platform, dataset))
    if not new and not pending and not stale and not old:
        alone = [f"{file.name} ({file.skip_reason})" for file in found if file.skip_reason]
        also = f" Left alone: {', '.join(alone[:LISTED])}{' ...' if len(alone) > LISTED else ''}." if alone else ""
        return dg.SkipReason(f"Nothing new in data/{dataset.name}/.{also}{_failing(dataset, platform)}")
    waiting = f"{len(new)} new and {pending} pending files"
    if context.instance.get_runs_count(dg.RunsFilter(tags={DATASET_TAG: dataset.name}, statuses=ACTIVE)):
        return dg.SkipReason(f"{waiting} wait for the run that is under way.")
    if vain := _in_vain(context.instance, dataset, platform, new):
        next_try = _moment(vain[0].end_time, vain[0].update_timestamp) + PAUSES[len(vain) - 1]
        if time.time() < next_try:
            runs = f"The last {len(vain)} runs" if len(vain) > 1 else "The last run"
            at = dt.datetime.fromtimestamp(next_try, dt.UTC)
            return dg.SkipReason(
                f"{waiting} wait. {runs} failed, or left files standing; the next try is at {at:%H:%M:%S} UTC. "
                "Materialize by hand to try now."
            )
    context.log.info("%s", waiting)
    return dg.RunRequest(tags={DATASET_TAG: dataset.name})


def _in_vain(
    instance: dg.DagsterInstance, dataset: Dataset, platform: Platform, new: Sequence[folder.DroppedFile]
) -> list[dg.RunRecord]:
    """The last runs, newest first, that failed or left new files standing, since anything arrived or the code was changed.

    A run that finds no room for a file succeeds nevertheless, with a check that fails.
    """
    runs = instance.get_run_records(dg.RunsFilter(tags={DATASET_TAG: dataset.name}), limit=len(PAUSES))
    if not runs:
        return []
    with platform.engine.connect() as conn:
        arrived = ledger.last_arrival(conn, dataset.name)
    dropped = [file.changed_at + SETTLE_SECONDS for file in new]
    written = [path.stat().st_mtime for path in CODE.rglob("*") if path.suffix in (".py", ".yaml")]
    changed = max([*dropped, *written, arrived.timestamp() if arrived else 0.0])

    def in_vain(run: dg.RunRecord) -> bool:
        succeeded = run.dagster_run.status is dg.DagsterRunStatus.SUCCESS
        return _moment(run.start_time, run.create_timestamp) > changed and not (succeeded and not new)

    return list(takewhile(in_vain, runs))


def _moment(known: float | None, otherwise: dt.datetime) -> float:
    """When a run started or ended; a run that never started was at least created."""
    return otherwise.timestamp() if known is None else known
