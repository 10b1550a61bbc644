"""Alerting: the sensor that compares what is wrong with the known incidents, and notifies people.

Here: failed runs and checks, which only Dagster knows, and the tick of the sensor. Not here: incidents that the ledger shows
(`operations/detection.py`), who is notified and how (`operations/alerts.py`).

https://docs.dagster.io/guides/automate/sensors
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote

import dagster as dg

from mini_platform.config.settings import Settings
from mini_platform.dagster.checks import FILES_ACCEPTED, FILES_TAKEN
from mini_platform.dagster.private import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.detection import detect, pending_datasets
from mini_platform.operations.incidents import KINDS, WATCHDOG_KINDS, Incident, open_subjects, reconcile
from mini_platform.platform import Platform
from mini_platform.warehouse.run_history import ALERTS_SENSOR, DATASET_TAG

INTERVAL_SECONDS = 30
"""Seconds from one tick to the next."""
RUN_LOOKBACK = 200
"""Number of finished runs that a tick reads: no more than that end between two ticks."""
ENDED_STATUSES = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
"""Statuses of runs that are examined; a run that somebody canceled is not an incident."""
CONCLUSIVE_STATUSES = (AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED)
"""Statuses of checks that have a result; the others are in progress, or ended with their run."""


def alert_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """Return the sensor `alerts` for these datasets; it runs by default."""

    @dg.sensor(
        name=ALERTS_SENSOR,
        description="Detects incidents, updates ops.incidents, and notifies the services in MINI_PLATFORM_ALERTS.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def alerts(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
        checks = context.repository_def.asset_graph.asset_check_keys if context.repository_def else set()
        return dg.SkipReason(
            " ".join(tick(context.instance, platform, datasets, checks)) or "All alerts are delivered."
        )

    return dg.Definitions(sensors=[alerts])


def tick(
    instance: dg.DagsterInstance,
    platform: Platform,
    datasets: Mapping[str, Dataset],
    checks: Collection[dg.AssetCheckKey],
) -> list[str]:
    """Update the incidents once, and send alerts about what is new.

    Returns:
        One sentence for each service that could not be notified.
    """
    update_incidents(instance, platform, datasets, checks)
    from mini_platform.operations.alerts import notify

    return notify(platform.engine, platform.settings)


def update_incidents(
    instance: dg.DagsterInstance,
    platform: Platform,
    datasets: Mapping[str, Dataset],
    checks: Collection[dg.AssetCheckKey],
) -> None:
    """Update `ops.incidents` to what is wrong now.

    `undecided` are the incidents of which nothing is known at this tick, such as those of a check that is in progress:
    `reconcile` leaves them as they are instead of closing them. Failed checks of a dataset's staging are not incidents while
    one of its files is refused: that is an incident already.
    """
    settings = platform.settings
    with platform.engine.begin() as conn:
        incidents, undecided = detect(conn, platform, datasets)
        failed_runs, recent_subjects = _failed_runs(instance, datasets, settings)
        undecided |= {("run_failed", subject) for subject in open_subjects(conn, "run_failed") - recent_subjects}
        refused = {incident.dataset for incident in incidents if incident.kind == "file_refused"}
        waiting_datasets = pending_datasets(conn)
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [key for key in checks if not _is_covered_by_ledger(key, datasets)]
        )
        for key, record in records.items():
            name = key.asset_key.path[0]
            is_staging = name in datasets and key.asset_key.path[-1] == datasets[name].staging_asset
            if is_staging and name in refused:
                continue  # The refused file is the incident.
            if record.status not in CONCLUSIVE_STATUSES or (is_staging and name in waiting_datasets):
                undecided.add(("check_failed", _subject(key)))
            else:
                incidents += _failed_check(key, record, settings)
        kinds = [kind for kind in KINDS if kind not in WATCHDOG_KINDS]
        reconcile(conn, [*incidents, *failed_runs], undecided, kinds)


def _is_covered_by_ledger(key: dg.AssetCheckKey, datasets: Mapping[str, Dataset]) -> bool:
    """Return True if a check reports a refused file or a source that is down: the ledger has more details about these."""
    dataset = datasets.get(key.asset_key.path[0])
    return key.name == FILES_ACCEPTED or (
        dataset is not None and key.name in {source.check for source in dataset.api_sources}
    )


def _failed_runs(
    instance: dg.DagsterInstance, datasets: Mapping[str, Dataset], settings: Settings
) -> tuple[list[Incident], set[str]]:
    """Return incidents of the datasets, and of jobs without a dataset, whose last run failed; and all that had a recent run."""
    last: dict[str, dg.RunRecord] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=ENDED_STATUSES), limit=RUN_LOOKBACK):
        run = record.dagster_run
        last.setdefault(run.tags.get(DATASET_TAG, run.job_name), record)
    failed = {
        subject: record for subject, record in last.items() if record.dagster_run.status is dg.DagsterRunStatus.FAILURE
    }
    return [_failed_run(instance, subject, record, datasets, settings) for subject, record in failed.items()], set(last)


def _failed_run(
    instance: dg.DagsterInstance,
    subject: str,
    record: dg.RunRecord,
    datasets: Mapping[str, Dataset],
    settings: Settings,
) -> Incident:
    run = record.dagster_run
    steps = []
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.get_dagster_event()
        error = event.step_failure_data.error
        while error and error.cause:
            error = error.cause
        # Without the message of the error: it may quote a row.
        steps.append(f"{event.step_key}{f' ({error.cls_name})' if error else ''}")
    return Incident(
        "run_failed",
        subject,
        subject if subject in datasets else None,
        run.run_id,
        f"{subject}: run {run.run_id[:8]} failed{' in ' if steps else ''}{', '.join(steps)}.",
        "Its page says why. Its files are still pending; the next run processes them.",
        f"{settings.dagster_url}/runs/{run.run_id}",
        record.update_timestamp,
    )


def _subject(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}:{key.name}"


def _failed_check(key: dg.AssetCheckKey, record: AssetCheckExecutionRecord, settings: Settings) -> Iterator[Incident]:
    """Yield the incident of a failed check whose severity is error."""
    event = record.event.dagster_event if record.event else None
    if record.status is AssetCheckExecutionRecordStatus.SUCCEEDED or event is None:
        return
    evaluation = event.asset_check_evaluation_data
    if key.name == FILES_TAKEN and evaluation.metadata["files"].value == 0:
        return  # An inbox is down: the database has more details.
    if evaluation.severity is dg.AssetCheckSeverity.ERROR:
        asset = key.asset_key.to_user_string()
        yield Incident(
            "check_failed",
            _subject(key),
            key.asset_key.path[0],
            record.run_id,
            f"{asset}: the check {key.name} failed.",
            "Its page says why.",
            f"{settings.dagster_url}/assets/{quote(asset)}?view=checks&checkDetail={quote(key.name)}",
            dt.datetime.fromtimestamp(record.create_timestamp, dt.UTC),
        )
