"""The assets of synced sources, upstream of a dataset's raw files: one each. They only land pages; the same run loads them.

A source that fails fails its check and not the run: what other sources landed is loaded all the same.
"""

from typing import Any

import dagster as dg
from sqlalchemy import select

from mini_platform.dagster.metadata import given, records
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import ApiSource
from mini_platform.operations.landing import sync
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import checkpoints

CHECKPOINT = ("sync", "last_started", "last_succeeded", "last_failed", "last_error", "not_before", "pages", "rows")
"""Columns of the checkpoint that are shown."""


def api_source_keys(dataset: Dataset) -> list[dg.AssetKey]:
    """The assets of the dataset's sources."""
    return [dg.AssetKey([dataset.name, source.asset]) for source in dataset.api_sources]


def api_source_asset(dataset: Dataset, source: ApiSource) -> dg.AssetsDefinition:
    """The asset of a source."""
    key = dg.AssetKey([dataset.name, source.asset])
    setting = f"MINI_PLATFORM_API_SOURCE__{dataset.name}_{source.name}__URL".upper()

    @dg.asset(
        name=source.asset,
        key_prefix=dataset.name,
        group_name=dataset.name,
        owners=list(dataset.owners),
        kinds={"http", "json"},
        description=f"Pages of the source {source.name}, landed as raw files. Where it is: {setting}.",
        check_specs=[dg.AssetCheckSpec(source.check, asset=key, description="The source could be synced.")],
    )
    def synced(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        done = sync(platform, dataset, source, context.log.info, run_id=context.run.run_id)
        why = "not configured" if done.state == "not configured" else done.why
        shown = {name: value for name, value in done.as_dict().items() if name not in ("source", "file_ids", "why")}
        check = dg.AssetCheckResult(
            asset_key=key,
            check_name=source.check,
            passed=done.ok,
            severity=dg.AssetCheckSeverity.ERROR,
            description=why,
            metadata={"state": done.state},
        )
        metadata = given({**shown, "why": why, "checkpoint": _checkpoint(platform, dataset, source)})
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return synced


def _checkpoint(platform: Platform, dataset: Dataset, source: ApiSource) -> Any:
    mine = (checkpoints.c.dataset == dataset.name) & (checkpoints.c.source == source.name)
    with platform.engine.connect() as conn:
        row = conn.execute(select(*(checkpoints.c[name] for name in CHECKPOINT)).where(mine)).mappings().first()
    return records([{"is": name, "value": value} for name, value in row.items()]) if row else None
