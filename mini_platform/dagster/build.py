"""Build: datasets -> Dagster's definitions. Dagster loads them from `definitions.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from mini_platform.dagster.assets import dataset_assets
from mini_platform.dagster.automation import file_sensor, sync_schedule
from mini_platform.dagster.checks import accounting_check, anomaly_checks
from mini_platform.dagster.io_manager import IO_MANAGER, PostgresIOManager
from mini_platform.dagster.metadata import dashboard_link
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.sources import is_configured
from mini_platform.platform import Platform


class Shared:
    """Parts that the definitions of several datasets share: the platform, the IO manager, the executor.

    Attributes:
        datasets: datasets by name; the platform has the tables of those that are declared when it is opened.
        files: the file of each dataset that components may build; None if any component may.
        built: names of the datasets among them that were built.
        definitions: the resources and the executor.
        build_platform: platform with the settings at the time definitions are built: schedules of syncs, URL of the dashboard.
            The platform of the resources reads the settings when it is used.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        """Create the resources for these datasets; more can be added to `datasets`."""
        self.datasets = dict(datasets)
        self.files: Mapping[str, Path] | None = None
        self.built: set[str] = set()
        self.build_platform = Platform()
        platform = Platform(self.datasets)
        self.definitions = dg.Definitions(
            resources={"platform": platform, IO_MANAGER: PostgresIOManager(platform, self.datasets)},
            executor=dg.in_process_executor,
        )


def dataset_defs(dataset: Dataset, platform: Platform) -> dg.Definitions:
    """Return the assets, checks, sensor and schedules of a dataset, by the settings of a platform."""
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.merge_attributes(metadata=dashboard_link(dataset, platform.settings)),
            dataset_assets(dataset),
        ),
        asset_checks=[accounting_check(dataset), anomaly_checks(dataset)],
        sensors=[file_sensor(dataset)],
        schedules=[
            sync_schedule(
                dataset, source, platform.settings.etl_interval, running=is_configured(platform, dataset, source)
            )
            for source in dataset.api_sources
        ],
    )


def build_defs(datasets: Mapping[str, Dataset]) -> dg.Definitions:
    """Return the definitions of these datasets.

    Raises:
        DeclarationError: two of them would use the same name for a table, asset or the like.
    """
    refuse_collisions(datasets.values())
    shared = Shared(datasets)
    return dg.Definitions.merge(
        *(dataset_defs(d, shared.build_platform) for d in datasets.values()), shared.definitions
    )
