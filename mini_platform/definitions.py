"""What Dagster loads: the assets, checks, sensors and schedules of every declared dataset."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from mini_platform.assets.checks import accounting_check, anomaly_checks
from mini_platform.assets.pipeline import dataset_assets
from mini_platform.automation import file_sensor, pull_schedule
from mini_platform.dataset import Dataset
from mini_platform.datasets import all_datasets
from mini_platform.io_manager import PostgresIOManager
from mini_platform.platform import Platform


def build_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """Derive the definitions of these datasets."""
    platform = Platform()
    now = Platform()  # When to pull, and whether at all, is read now; the other one reads its settings when it is used.
    return dg.Definitions(
        assets=[asset for dataset in datasets.values() for asset in dataset_assets(dataset)],
        asset_checks=[make(dataset) for dataset in datasets.values() for make in (accounting_check, anomaly_checks)],
        sensors=[file_sensor(dataset) for dataset in datasets.values()],
        schedules=[
            pull_schedule(dataset, source, now.settings.etl_interval, running=now.is_configured(dataset, source))
            for dataset in datasets.values()
            for source in dataset.pulls
        ],
        resources={"platform": platform, "io_manager": PostgresIOManager(platform, datasets)},
        executor=dg.in_process_executor,
    )


defs = build_defs(all_datasets())
