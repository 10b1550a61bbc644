"""The assets of a dataset: (API sources ->) raw -> staging -> production -> aggregates -> quality report.

Each is wiring around a use case (`operations/`). Raw and staging call theirs; production, aggregates and the report return what
the IO manager's `handle_output` writes. None calls `process`: an asset that is materialized alone does only its own work.

Assets are unpartitioned: a run takes whatever the ledger holds pending, or the files that its config names.

https://docs.dagster.io/guides/build/assets/defining-assets
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import select

from mini_platform.config.sentry import capture
from mini_platform.config.settings import load_settings
from mini_platform.dagster import checks
from mini_platform.dagster.api_sources import api_source_asset, api_source_keys
from mini_platform.dagster.io_manager import IO_MANAGER, StagedFiles
from mini_platform.dagster.metadata import (
    MAX_LISTED,
    column_lineage,
    landed_metadata,
    measured_metadata,
    staged_metadata,
    table_metadata,
)
from mini_platform.dagster.quality_type import QUALITY_TYPE
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.detection import inboxes_down
from mini_platform.operations.landing import Landed, land
from mini_platform.operations.processing import measure, stage
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import columns_read, dataset_tables, quality_report

if TYPE_CHECKING:
    from mini_platform.warehouse.validated_rows import Progress

SENSOR_TAG = "dagster/sensor_name"
"""Tag that Dagster gives to runs that a sensor requested."""
REQUEST_TAG = "mini_platform/request_id"
"""Tag of runs that a request to the API started."""

progress: ContextVar["Progress | None"] = ContextVar("progress", default=None)
"""Callback for bytes and rows as they are read: the command line's progress bar; by default the log of the run."""


class Files(dg.Config):
    """Config of a run: the files that it processes."""

    files: list[int] | None = None
    """Ids in the ledger; None means every pending file, and all files in the drop folder."""


def dataset_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """Return every asset of a dataset, with the checks that are part of an asset."""
    computed = [_computed(dataset, declared) for declared in dataset.computed]
    synced = [api_source_asset(dataset, source) for source in dataset.api_sources]
    return [*synced, _raw(dataset), _staging(dataset), _production(dataset), *computed, _quality_report(dataset)]


@cache
def _hooks() -> frozenset[dg.HookDefinition]:
    """Return hooks for failed steps: one reports to Sentry, if configured. Each step with a hook writes one event more."""
    dsn = load_settings().sentry_dsn
    if dsn is None or not dsn.get_secret_value():
        return frozenset()

    @dg.failure_hook(name="report_to_sentry")
    def report_to_sentry(context: dg.HookContext) -> None:
        if context.op_exception is not None:
            capture(dsn, context.op_exception, flush=True, run_id=context.run_id, step=context.op.name)

    return frozenset({report_to_sentry})


def _common(dataset: Dataset, *kinds: str) -> dict[str, Any]:
    return {
        "hooks": _hooks(),
        "key_prefix": dataset.name,
        "io_manager_key": IO_MANAGER,
        "group_name": dataset.name,
        "owners": list(dataset.owners),
        "kinds": set(kinds),
    }


def _raw(dataset: Dataset) -> dg.AssetsDefinition:
    key = dg.AssetKey([dataset.name, dataset.raw_asset])

    @dg.asset(
        name=dataset.raw_asset,
        deps=api_source_keys(dataset),
        description=f"Files as they arrived, byte for byte, named by their SHA-256. {dataset.description}",
        check_specs=[checks.files_taken_spec(key)],
        **_common(dataset, *(source.name for source in dataset.sources)),
    )
    def raw(
        context: dg.AssetExecutionContext, config: Files, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        # The sensor's process visits the inboxes anyway; a run that is started by hand visits them now.
        by_hand = SENSOR_TAG not in context.run.tags
        landed = land(platform, dataset, context.run.run_id, config.files, visit_inboxes=by_hand)
        _log_landed(context.log, landed)
        with platform.engine.connect() as conn:
            return dg.MaterializeResult(
                metadata=landed_metadata(conn, dataset, config.files or landed.file_ids, landed.skipped),
                check_results=[checks.files_taken_result(key, landed.blocked, inboxes_down(conn, platform, dataset))],
            )

    return raw


def _log_landed(log: dg.DagsterLogManager, landed: Landed) -> None:
    """Write to the log of the run which files were skipped, and which raw files were removed."""
    for file in landed.skipped[:MAX_LISTED]:
        (log.error if file.blocked else log.info)("skipped: %s: %s", file.name, file.skip_reason)
    for row in landed.expired:
        log.info("raw file removed, older than the retention: %s (file %d)", row.name, row.file_id)


def _staging(dataset: Dataset) -> dg.AssetsDefinition:
    key = dg.AssetKey([dataset.name, dataset.staging_asset])
    table = dataset_tables(dataset).staging

    @dg.asset(
        name=dataset.staging_asset,
        deps=[dg.AssetKey([dataset.name, dataset.raw_asset])],
        description=str(table.comment),
        check_specs=checks.staging_specs(dataset, key),
        metadata=table_metadata(table),
        **_common(dataset, "polars", "pandera", "postgres"),
    )
    def staging(
        context: dg.AssetExecutionContext, config: Files, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        # Deferred files wait for the sensor's next run; a run that is started by hand stages everything now.
        is_automatic = not {SENSOR_TAG, REQUEST_TAG}.isdisjoint(context.run.tags)
        report = progress.get() or _to_log(context.log.info)
        staged = stage(platform, dataset, context.run.run_id, config.files, others_first=is_automatic, progress=report)
        with platform.engine.connect() as conn:
            # With nothing new, the checks are about what is in staging: the files of the last load.
            file_ids = staged or list(conn.scalars(select(table.c._file_id).distinct()))
            return dg.MaterializeResult(
                metadata=staged_metadata(conn, dataset, staged),
                check_results=checks.staging_results(conn, dataset, key, file_ids),
            )

    return staging


def _to_log(log: Callable[[str], None], seconds: float = 5.0) -> "Progress":
    """Return a callback that logs the progress every few seconds."""
    total = [0, 0]
    last = time.monotonic()

    def report(read: int, rows: int) -> None:
        nonlocal last
        total[0] += read
        total[1] += rows
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            log(f"read {total[1]:,} rows, {total[0] / 2**20:,.1f} MB")

    return report


def _production(dataset: Dataset) -> dg.AssetsDefinition:
    table = dataset_tables(dataset).production

    @dg.asset(
        name=dataset.table,
        deps=[dg.AssetKey([dataset.name, dataset.staging_asset])],
        description=f"{dataset.description} Valid rows, the last arrival of each key ({', '.join(dataset.key)}).",
        metadata=table_metadata(table),
        freshness_policy=dataset.freshness and dg.FreshnessPolicy.time_window(dataset.freshness),
        **_common(dataset, "postgres", "table"),
    )
    def production(config: Files) -> StagedFiles:
        return StagedFiles(config.files)

    return production


def _computed(dataset: Dataset, declared: Aggregate | View) -> dg.AssetsDefinition:
    tables = dataset_tables(dataset)
    rows = tables.rows(declared)
    read = {column.table.name for column in columns_read(rows)} | set(declared.reads)
    table = (tables.aggregates | tables.views)[declared.name]

    @dg.asset(
        name=declared.name,
        deps=[
            dg.AssetKey([dataset.name, name]) for name in sorted(read or {dataset.table})
        ],  # count(*) names no column
        description=declared.description,
        metadata={**table_metadata(table), "dagster/column_lineage": column_lineage(dataset, declared)},
        **_common(dataset, "postgres", "view" if isinstance(declared, View) else "table"),
    )
    def computed() -> Any:
        return rows

    return computed


def _quality_report(dataset: Dataset) -> dg.AssetsDefinition:
    upstream = [dataset.staging_asset, dataset.table, *(computed.name for computed in dataset.computed)]

    @dg.asset(
        name="quality_report",
        deps=[dg.AssetKey([dataset.name, name]) for name in upstream],
        description="Nulls, ranges, distinct values and duplicates of staging and production, column by column, by run.",
        metadata=table_metadata(quality_report),
        dagster_type=QUALITY_TYPE,
        **_common(dataset, "pandas", "postgres"),
    )
    def report(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Any:  # A pandas.DataFrame; its type is QUALITY_TYPE.
        frame = measure(platform, dataset, context.run.run_id)
        context.add_output_metadata(measured_metadata(frame))
        return frame

    return report
