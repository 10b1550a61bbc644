"""Build: datasets -> Dagster's definitions. What is loaded is said in `definitions.py`."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from mini_platform.dagster.assets import dataset_assets
from mini_platform.dagster.automation import file_sensor, sync_schedule
from mini_platform.dagster.checks import accounting_check, anomaly_checks
from mini_platform.dagster.io_manager import PostgresIOManager
from mini_platform.dagster.metadata import dashboard_link
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.sources import is_configured
from mini_platform.platform import Platform


class Shared:
    """What the definitions of several datasets share: the platform, the IO manager, the executor.

    Attributes:
        datasets: by name; the platform has the tables of those that are there when it is opened.
        definitions: the resources and the executor.
        now: with the settings as they are when definitions are built: when to sync, whether at all, where the dashboard is;
            the platform of the resources reads them when it is used.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        """Begin with these datasets."""
        self.datasets = dict(datasets)
        self.now = Platform()
        platform = Platform(self.datasets)
        self.definitions = dg.Definitions(
            resources={"platform": platform, "io_manager": PostgresIOManager(platform, self.datasets)},
            executor=dg.in_process_executor,
        )


def dataset_defs(dataset: Dataset, now: Platform) -> dg.Definitions:
    """The assets, checks, sensor and schedules of a dataset, as the settings of a platform have it."""
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.merge_attributes(metadata=dashboard_link(dataset, now.settings)), dataset_assets(dataset)
        ),
        asset_checks=[accounting_check(dataset), anomaly_checks(dataset)],
        sensors=[file_sensor(dataset)],
        schedules=[
            sync_schedule(dataset, source, now.settings.etl_interval, running=is_configured(now, dataset, source))
            for source in dataset.api_sources
        ],
    )


def build_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """Derive the definitions of these datasets.

    Raises:
        DeclarationError: two of them would have one name somewhere.
    """
    refuse_collisions(datasets.values())
    shared = Shared(datasets)
    return dg.Definitions.merge(*(dataset_defs(d, shared.now) for d in datasets.values()), shared.definitions)
