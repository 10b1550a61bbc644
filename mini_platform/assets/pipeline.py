"""The assets of a dataset: (pulls ->) raw -> staging -> production -> aggregates -> quality report. Each is wiring.

Assets are unpartitioned: a run takes whatever the ledger holds pending, or the files that its config names.

https://docs.dagster.io/guides/build/assets/defining-assets
"""

import time
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import Connection, func, select

from mini_platform.assets import checks
from mini_platform.assets.metadata import bars, column_lineage, files_chart, given, preview, records, table_metadata
from mini_platform.assets.pulls import pull_asset, pull_keys
from mini_platform.dataset import Aggregate, Dataset, View
from mini_platform.io_manager import StagedFiles
from mini_platform.landing import folder, retention
from mini_platform.platform import Platform
from mini_platform.sentry import capture
from mini_platform.settings import load_settings
from mini_platform.warehouse import audit, ledger, quality
from mini_platform.warehouse.tables import among, columns_read, dataset_tables, files, quality_report

if TYPE_CHECKING:
    from mini_platform.warehouse.judged_rows import Progress

TAKEN = "files_taken"
LISTED = 50
"""Rows of a listing in the metadata at most."""

SENSOR_TAG = "dagster/sensor_name"
"""Dagster gives it to the runs that a sensor asked for."""
REQUEST_TAG = "mini_platform/request_id"
"""Of runs that a request to the API asked for."""

progress: ContextVar["Progress | None"] = ContextVar("progress", default=None)
"""Who is told of bytes and rows as they are read: the command line's progress bar; by default the log of the run."""


class Files(dg.Config):
    """Which files a run takes."""

    files: list[int] | None = None
    """Ids in the ledger; nothing means every pending file, and whatever stands in the drop folder."""


def dataset_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """Every asset of a dataset, with the checks that belong to one."""
    computed = [_computed(dataset, declared) for declared in dataset.computed]
    pulled = [pull_asset(dataset, source) for source in dataset.pulls]
    return [*pulled, _raw(dataset), _staging(dataset), _production(dataset), *computed, _quality_report(dataset)]


@cache
def _hooks() -> frozenset[dg.HookDefinition]:
    """What is done when a step fails: Sentry is told, where it is set. Each step with a hook writes one event more."""
    dsn = load_settings().sentry_dsn
    if dsn is None or not dsn.get_secret_value():
        return frozenset()

    @dg.failure_hook(name="tell_sentry")
    def tell_sentry(context: dg.HookContext) -> None:
        if context.op_exception is not None:
            capture(dsn, context.op_exception, flush=True, run_id=context.run_id, step=context.op.name)

    return frozenset({tell_sentry})


def _common(dataset: Dataset, *kinds: str) -> dict[str, Any]:
    return {
        "hooks": _hooks(),
        "key_prefix": dataset.name,
        "group_name": dataset.name,
        "owners": list(dataset.owners),
        "kinds": set(kinds),
    }


def _raw(dataset: Dataset) -> dg.AssetsDefinition:
    key = dg.AssetKey([dataset.name, dataset.raw_asset])

    @dg.asset(
        name=dataset.raw_asset,
        deps=pull_keys(dataset),
        description=f"Files as they arrived, byte for byte, named by their SHA-256. {dataset.description}",
        check_specs=[dg.AssetCheckSpec(TAKEN, asset=key, description="Every dropped file could be read and kept.")],
        **_common(dataset, *(source.name for source in dataset.sources)),
    )
    def raw(
        context: dg.AssetExecutionContext, config: Files, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with audit.on_behalf_of(platform.worker(context.run.run_id).actor):
            landed, alone = [], []
            if config.files is None:
                found = folder.look(platform.settings.data / dataset.name, dataset)
                alone = [file for file in found if file.left_alone]
                with platform.engine.connect() as conn:
                    new = folder.changed(conn, dataset, found)
                for file, row in folder.land(platform.engine, dataset, platform.store, new):
                    if row is None:
                        alone.append(file)
                    else:
                        landed.append(row.file_id)
                # The sensor's process visits the inboxes all the time; who starts a run by hand wants everything now.
                if SENSOR_TAG not in context.run.tags:
                    landed += _visited(platform, dataset)
            alone.sort(key=lambda file: not file.stuck)
            for file in alone[:LISTED]:
                log = context.log.error if file.stuck else context.log.info
                log("left alone: %s: %s", file.name, file.left_alone)
            skipped = [{"file": file.name, "left alone because": file.left_alone} for file in alone]
            for old in retention.drop_old(platform.engine, dataset, platform.store, platform.raw_retention(dataset)):
                context.log.info(
                    "raw file removed, older than such files are kept: %s (file %d)", old.name, old.file_id
                )
            with platform.engine.connect() as conn:
                return dg.MaterializeResult(
                    metadata=_raw_metadata(conn, dataset, config.files or landed, skipped),
                    check_results=[
                        _taken(key, [file for file in alone if file.stuck], _dead_inboxes(platform, dataset))
                    ],
                )

    return raw


def _visited(platform: Platform, dataset: Dataset) -> list[int]:
    """Visit the remote inboxes; ids of the files that were landed."""
    chosen = platform.inboxes(dataset)
    if not chosen:
        return []
    from mini_platform.landing.inboxes import visit_all

    visits = [partial(platform.visit, dataset, inbox, at_once=True) for inbox in chosen]
    return [file_id for done in visit_all(visits) for file_id in done.file_ids]


def _dead_inboxes(platform: Platform, dataset: Dataset) -> list[dict[str, Any]]:
    """The remote inboxes that cannot be used."""
    with platform.engine.connect() as conn:
        rows = [row for row in platform.inbox_states(conn, [dataset]) if row.last_error]
    return [{"inbox": row.inbox, "since": str(row.failing_since), "why": row.last_error} for row in rows]


def _taken(
    asset: dg.AssetKey, stuck: Sequence[folder.Found], dead: Sequence[dict[str, Any]] = ()
) -> dg.AssetCheckResult:
    """Fails where files wait for somebody's help. The run goes on: what was landed before is not to wait with them."""
    shown = [{"file": file.name, "left alone because": file.left_alone} for file in stuck[:LISTED]]
    first = f": {stuck[0].name}: {stuck[0].left_alone}" if stuck else ""
    inboxes = "".join(f"; inbox {row['inbox']}: {row['why']}" for row in dead)
    return dg.AssetCheckResult(
        check_name=TAKEN,
        asset_key=asset,
        passed=not stuck and not dead,
        description=f"{len(stuck)} file{'' if len(stuck) == 1 else 's'} cannot be taken{first}{inboxes}",
        metadata=given({"files": len(stuck), "left_alone": records(shown), "inboxes": records(dead) if dead else None}),
    )


def _raw_metadata(
    conn: Connection, dataset: Dataset, file_ids: Sequence[int], skipped: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    shown = (files.c.file_id, files.c.name, files.c.version, files.c.bytes, files.c.status, files.c.arrived_at)
    arrived = select(*shown).where(among(files.c.file_id, file_ids)).order_by(files.c.file_id.desc())
    versions = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None)
    )
    count, size = conn.execute(versions).one()
    return given(
        {
            "dagster/row_count": count,
            "bytes": int(size),
            "files_arrived": len(file_ids),
            "arrived": records(conn.execute(arrived.limit(LISTED)).mappings()),
            "left_alone": records(skipped[:LISTED]),
            "chart": files_chart(conn, dataset, ["bytes"]),
        }
    )


def _staging(dataset: Dataset) -> dg.AssetsDefinition:
    key = dg.AssetKey([dataset.name, dataset.staging_asset])
    table = dataset_tables(dataset).staging

    @dg.asset(
        name=dataset.staging_asset,
        deps=[dg.AssetKey([dataset.name, dataset.raw_asset])],
        description=str(table.comment),
        check_specs=checks.specs(dataset, key),
        metadata=table_metadata(table),
        **_common(dataset, "polars", "pandera", "postgres"),
    )
    def staging(
        context: dg.AssetExecutionContext, config: Files, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from mini_platform.warehouse.staging import (
            stage,  # Brings polars and Pandera: 2 s, not needed to load this module.
        )

        # The sensor asks for another run for what is left; who starts one by hand wants everything now.
        by_itself = not {SENSOR_TAG, REQUEST_TAG}.isdisjoint(context.run.tags)
        worker = replace(platform.worker(context.run.run_id), others_first=by_itself)
        with ledger.lease(worker):
            taken = stage(
                worker,
                dataset,
                platform.raw_files(dataset),
                limit=platform.settings.run_files,
                only=config.files,
                progress=progress.get() or _to_log(context.log.info),
            )
        with worker.engine.connect() as conn:
            # With nothing new, the checks speak of what is in staging: the files of the last load.
            ids = taken or list(conn.execute(select(table.c._file_id).distinct()).scalars())
            return dg.MaterializeResult(
                metadata=given(
                    {
                        **preview(conn, table, [table.c._rules.is_(None)]),
                        "files_staged": len(taken),
                        "files_set_aside": conn.scalar(select(func.count()).where(ledger.waits_aside(dataset.name))),
                        "chart": files_chart(conn, dataset, ["rows_read", "rows_rejected"]),
                    }
                ),
                check_results=checks.results(conn, dataset, key, ids),
            )

    return staging


def _to_log(log: Callable[[str], None], seconds: float = 5.0) -> "Progress":
    """Progress as a line in the log of the run, every few seconds."""
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
    def production(config: Files, platform: dg.ResourceParam[Platform]) -> StagedFiles:
        return StagedFiles(config.files, platform.settings.run_files)

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


def _quality_type() -> dg.DagsterType:
    """The dagster-pandas type of the quality report, which is built when the first report is checked: pandas is slow."""

    def check(context: dg.TypeCheckContext, value: Any) -> dg.TypeCheck | bool:
        from dagster_pandas import PandasColumn, create_dagster_pandas_dataframe_type

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # All of dagster-pandas is marked as beta.
            made = create_dagster_pandas_dataframe_type(
                name="QualityFrame",
                columns=[
                    PandasColumn.string_column("table_name", non_nullable=True),
                    PandasColumn.string_column("column_name", non_nullable=True),
                    PandasColumn.integer_column("total_rows", non_nullable=True, min_value=0),
                    PandasColumn.integer_column("nulls", non_nullable=True, min_value=0),
                    PandasColumn.float_column("null_rate", non_nullable=True, min_value=0.0, max_value=1.0),
                    PandasColumn.integer_column("distinct_values", non_nullable=True, min_value=0),
                    PandasColumn.integer_column("duplicates", non_nullable=True, min_value=0),
                ],
            )
        return made.type_check(context, value)

    return dg.DagsterType(
        check, name="QualityReport", description="A row per table and column, see the table's schema."
    )


QUALITY_TYPE = _quality_type()


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
        with platform.engine.connect() as conn:
            frame = quality.measure(conn, dataset, context.run.run_id)
        broken = [[float(sum(rules.values()))] for rules in frame["out_of_range"]]
        labels = [f"{t} {c}" for t, c in zip(frame["table_name"], frame["column_name"], strict=True)]
        shown = frame.drop(columns=["run_id", "dataset", "measured_at"]).to_dict("records")
        parts = [[float(n), *b] for n, b in zip(frame["nulls"], broken, strict=True)]
        context.add_output_metadata(
            given({"report": records(shown), "chart": bars(labels, ["nulls", "out of range"], parts)})
        )
        return frame

    return report
