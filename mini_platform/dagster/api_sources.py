"""Assets of API sources, one per source, upstream of a dataset's raw files. They only land pages; the same run loads them.

A source that cannot be synced fails its check and not the run: what other sources landed is loaded all the same.
"""

from typing import Any

import dagster as dg
from sqlalchemy import select

from mini_platform.dagster.io_manager import IO_MANAGER
from mini_platform.dagster.metadata import table_value, without_none
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import ApiSource
from mini_platform.operations.landing import sync
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import checkpoints

CHECKPOINT_COLUMNS = (
    "sync",
    "last_started",
    "last_succeeded",
    "last_failed",
    "last_error",
    "not_before",
    "pages",
    "rows",
)
"""Columns of the checkpoint that are shown."""


def api_source_keys(dataset: Dataset) -> list[dg.AssetKey]:
    """Return the keys of the assets of a dataset's API sources."""
    return [dg.AssetKey([dataset.name, source.asset]) for source in dataset.api_sources]


def api_source_asset(dataset: Dataset, source: ApiSource) -> dg.AssetsDefinition:
    """Return the asset of an API source, with its check."""
    key = dg.AssetKey([dataset.name, source.asset])
    setting = f"MINI_PLATFORM_API_SOURCE__{dataset.name}_{source.name}__URL".upper()

    @dg.asset(
        name=source.asset,
        key_prefix=dataset.name,
        io_manager_key=IO_MANAGER,
        group_name=dataset.name,
        owners=list(dataset.owners),
        kinds={"http", "json"},
        description=f"Pages of the source {source.name}, landed as raw files. Its URL is set by {setting}.",
        check_specs=[dg.AssetCheckSpec(source.check, asset=key, description="The source could be synced.")],
    )
    def synced(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        result = sync(platform, dataset, source, context.log.info, run_id=context.run.run_id)
        reason = "not configured" if result.state == "not configured" else result.why
        shown = {name: value for name, value in result.as_dict().items() if name not in ("source", "file_ids", "why")}
        check = dg.AssetCheckResult(
            asset_key=key,
            check_name=source.check,
            passed=result.ok,
            severity=dg.AssetCheckSeverity.ERROR,
            description=reason,
            metadata={"state": result.state},
        )
        metadata = without_none({**shown, "reason": reason, "checkpoint": _checkpoint(platform, dataset, source)})
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return synced


def _checkpoint(platform: Platform, dataset: Dataset, source: ApiSource) -> Any:
    of_source = (checkpoints.c.dataset == dataset.name) & (checkpoints.c.source == source.name)
    with platform.engine.connect() as conn:
        row = (
            conn.execute(select(*(checkpoints.c[name] for name in CHECKPOINT_COLUMNS)).where(of_source))
            .mappings()
            .first()
        )
    return table_value([{"field": name, "value": value} for name, value in row.items()]) if row else None
