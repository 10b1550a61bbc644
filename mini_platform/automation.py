"""Sensors: one per dataset. They ask the ledger and the drop folder, and request one run for all that waits.

https://docs.dagster.io/guides/automate/sensors
"""

import time

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mini_platform.dataset import Dataset
from mini_platform.landing import folder
from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, ledger

DATASET_TAG = "mini_platform/dataset"
"""Of every run: which dataset it loads. `dagster.yaml` allows one run for each value at a time."""
LISTED = 5

TICK_SECONDS = 4.0
"""How long a tick watches. Dagster's daemon looks at its sensors every 5 s: a tick that looked once would let a file wait."""
LOOK_SECONDS = 0.5

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def load_job(dataset: Dataset) -> UnresolvedAssetJobDefinition:
    """The job that brings everything of a dataset up to date."""
    return dg.define_asset_job(
        f"load_{dataset.name}",
        selection=dg.AssetSelection.groups(dataset.name),
        description=f"Loads what is pending of {dataset.name}, and what stands in data/{dataset.name}/.",
        tags={DATASET_TAG: dataset.name},
    )


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


def _look(context: dg.SensorEvaluationContext, dataset: Dataset, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    found = folder.look(platform.settings.data / dataset.name, dataset)
    with platform.engine.connect() as conn:
        new = folder.changed(conn, dataset, found)
        pending = ledger.pending(conn, dataset.name)
        stale = aggregates.stale(conn, dataset)
    if not new and not pending and not stale:
        alone = [f"{file.name} ({file.left_alone})" for file in found if file.left_alone]
        also = f" Left alone: {', '.join(alone[:LISTED])}{' ...' if len(alone) > LISTED else ''}." if alone else ""
        return dg.SkipReason(f"Nothing new in data/{dataset.name}/.{also}")
    if context.instance.get_runs_count(dg.RunsFilter(tags={DATASET_TAG: dataset.name}, statuses=ACTIVE)):
        return dg.SkipReason(f"{len(new)} new and {pending} pending files wait for the run that is under way.")
    context.log.info("%d new and %d pending files", len(new), pending)
    return dg.RunRequest(tags={DATASET_TAG: dataset.name})
