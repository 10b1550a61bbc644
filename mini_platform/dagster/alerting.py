"""Alerting: the sensor that compares what is wrong with the incidents that are known, and has people told.

Here: runs and checks that failed, which only Dagster knows, and the tick. Not here: what the ledger knows to be wrong
(`operations/detection.py`), who is told and how (`operations/alerts.py`).

https://docs.dagster.io/guides/automate/sensors
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote

import dagster as dg

from mini_platform.config.settings import Settings
from mini_platform.dagster.checks import ACCEPTED, TAKEN
from mini_platform.dagster.private import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.detection import detect, waiting
from mini_platform.operations.incidents import Incident, open_subjects, reconcile
from mini_platform.platform import Platform
from mini_platform.warehouse.run_history import DATASET_TAG

SECONDS = 30
"""From one look to the next."""
RUNS = 200
"""Finished runs that a look goes back: more do not end between two."""
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
"""Of a run that somebody canceled there is nothing to tell."""
DECIDED = (AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED)
"""Other checks are under way, or died with their run."""


def alert_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """The sensor `alerts` over these datasets, which runs by default."""

    @dg.sensor(
        name="alerts",
        description="Looks for what is wrong, keeps ops.incidents, and tells whom MINI_PLATFORM_ALERTS names.",
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def alerts(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
        checks = context.repository_def.asset_graph.asset_check_keys if context.repository_def else set()
        return dg.SkipReason(" ".join(tick(context.instance, platform, datasets, checks)) or "All are told.")

    return dg.Definitions(sensors=[alerts])


def tick(
    instance: dg.DagsterInstance,
    platform: Platform,
    datasets: Mapping[str, Dataset],
    checks: Collection[dg.AssetCheckKey],
) -> list[str]:
    """Look once, and tell of what is new.

    Returns:
        Sentences about who could not be told.
    """
    look(instance, platform, datasets, checks)
    from mini_platform.operations.alerts import AlertsError, deliver, digest, services

    try:
        told = services(platform.settings)
    except AlertsError as error:
        return [str(error)]
    if platform.settings.alerts_digest is not None:
        digest(platform.engine, platform.settings, told)
    return deliver(platform.engine, told)


def look(
    instance: dg.DagsterInstance,
    platform: Platform,
    datasets: Mapping[str, Dataset],
    checks: Collection[dg.AssetCheckKey],
) -> None:
    """Bring `ops.incidents` to what is wrong now."""
    settings = platform.settings
    with platform.engine.begin() as conn:
        found, undecided = detect(conn, platform, datasets)
        runs, seen = _runs(instance, datasets, settings)
        undecided |= {("run_failed", subject) for subject in open_subjects(conn, "run_failed") - seen}
        refused = {incident.dataset for incident in found if incident.kind == "file_refused"}
        busy = waiting(conn)
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [key for key in checks if not _is_told_otherwise(key, datasets)]
        )
        for key, record in records.items():
            name = key.asset_key.path[0]
            staged = name in datasets and key.asset_key.path[-1] == datasets[name].staging_asset
            if staged and name in refused:
                continue  # for the same reason
            if record.status not in DECIDED or (staged and name in busy):
                undecided.add(("check_failed", _subject(key)))
            else:
                found += _failed_check(key, record, settings)
        reconcile(conn, [*found, *runs], undecided)


def _is_told_otherwise(key: dg.AssetCheckKey, datasets: Mapping[str, Dataset]) -> bool:
    """Whether a check says that a file was refused or that a source is down: the ledger says it better."""
    dataset = datasets.get(key.asset_key.path[0])
    return key.name == ACCEPTED or (
        dataset is not None and key.name in {source.check for source in dataset.api_sources}
    )


def _runs(
    instance: dg.DagsterInstance, datasets: Mapping[str, Dataset], settings: Settings
) -> tuple[list[Incident], set[str]]:
    """The datasets, and the jobs of none, whose last run failed; and all that had a run lately."""
    last: dict[str, dg.RunRecord] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=ENDED), limit=RUNS):
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
        # Not what the error says: it may quote a row.
        steps.append(f"{event.step_key}{f' ({error.cls_name})' if error else ''}")
    return Incident(
        "run_failed",
        subject,
        subject if subject in datasets else None,
        run.run_id,
        f"{subject}: run {run.run_id[:8]} failed{' in ' if steps else ''}{', '.join(steps)}.",
        "Its page says why. What it had taken is still pending, and the next run takes it.",
        f"{settings.dagster_url}/runs/{run.run_id}",
        record.update_timestamp,
    )


def _subject(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}:{key.name}"


def _failed_check(key: dg.AssetCheckKey, record: AssetCheckExecutionRecord, settings: Settings) -> Iterator[Incident]:
    """The incident that a check of severity error found."""
    event = record.event.dagster_event if record.event else None
    if record.status is AssetCheckExecutionRecordStatus.SUCCEEDED or event is None:
        return
    evaluation = event.asset_check_evaluation_data
    if key.name == TAKEN and evaluation.metadata["files"].value == 0:
        return  # An inbox is down, which the database says better.
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
