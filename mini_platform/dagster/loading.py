"""Loading: the definitions of all declared datasets, which `definitions.py` passes to Dagster."""

from __future__ import annotations

import dagster as dg

from mini_platform.config.project import project
from mini_platform.dagster.alerting import alert_defs
from mini_platform.dagster.build import build_defs, dataset_defs
from mini_platform.dagster.purging import purge_defs
from mini_platform.declare.registry import Registry, configured


def load_defs() -> dg.Definitions:
    """Return the definitions of all declared datasets, with the nightly purge and the alerts."""
    registry = configured()
    return dg.Definitions.merge(_dataset_defs(registry), purge_defs(registry.datasets), alert_defs(registry.datasets))


def _dataset_defs(registry: Registry) -> dg.Definitions:
    """Return the definitions of the datasets; with YAML, also all that Dagster's component loader finds beside it."""
    if not registry.yaml_files:
        return build_defs(registry.datasets)
    from mini_platform.dagster.components import (
        shared_by,  # Takes half a second: only imported if there are components.
    )

    tree = dg.ComponentTree.for_project(project().folder)
    loaded_by_tree = {d for d, path in registry.in_yaml.items() if path.is_relative_to(tree.defs_module_path)}
    if not loaded_by_tree:
        return build_defs(registry.datasets)
    shared = shared_by(tree)
    shared.datasets.update(registry.datasets)
    others = [dataset for dataset in registry.datasets.values() if dataset not in loaded_by_tree]
    return dg.Definitions.merge(
        *(dataset_defs(dataset, shared.build_platform) for dataset in others), tree.build_defs(), shared.definitions
    )
