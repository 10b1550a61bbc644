"""What Dagster loads: the assets, checks, sensors and schedules of every declared dataset, the nightly purge, alerts."""

from __future__ import annotations

import dagster as dg

from mini_platform.alerting import alert_defs
from mini_platform.build import build_defs, dataset_defs
from mini_platform.datasets import all_datasets, python_datasets, yaml_files
from mini_platform.purging import purge_defs
from mini_platform.settings import PROJECT

__all__ = ["build_defs", "defs"]


def load_defs() -> dg.Definitions:
    """What the datasets declare; where there is YAML, also whatever else Dagster's component loader finds beside it."""
    datasets = all_datasets()
    common = (purge_defs(datasets), alert_defs(datasets))
    if not yaml_files():
        return dg.Definitions.merge(build_defs(datasets), *common)
    from mini_platform.components import shared_by  # Components cost half a second: only for those who have some.

    tree = dg.ComponentTree.for_project(PROJECT)
    shared = shared_by(tree)
    shared.datasets.update(datasets)
    return dg.Definitions.merge(
        *(dataset_defs(dataset, shared.now) for dataset in python_datasets().values()),
        tree.build_defs(),
        shared.definitions,
        *common,
    )


defs = load_defs()
