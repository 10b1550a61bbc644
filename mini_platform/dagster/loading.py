"""Loading: the definitions of all declared datasets, which `definitions.py` passes to Dagster.

A declaration that is invalid is an asset that nothing materializes, and whose description says why. The other definitions are
as they are without it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby

import dagster as dg

from mini_platform.config.project import project
from mini_platform.dagster.alerting import alert_defs
from mini_platform.dagster.build import build_defs
from mini_platform.dagster.io_manager import PostgresIOManager
from mini_platform.dagster.purging import purge_defs
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.registry import InvalidDeclaration, Registry
from mini_platform.platform import Platform

DEFAULT_IO_MANAGER = "io_manager"
INVALID = "invalid_declaration"
"""Last part of the key of the asset that stands for an invalid declaration."""


def load_defs() -> dg.Definitions:
    """Return the definitions of all valid datasets, with the nightly purge, the alerts, and the IO manager as the default."""
    platform = Platform()
    datasets, invalid = platform.datasets, platform.invalid
    defs, failed = _dataset_defs(datasets, platform.registry)
    for declaration in (*invalid, *failed):
        logging.getLogger(__name__).warning(declaration.message)
    # Assets of the project return DataFrames to the default IO manager, unless the project has declared another one.
    if DEFAULT_IO_MANAGER not in (defs.resources or {}):
        manager = PostgresIOManager(platform, datasets)
        defs = dg.Definitions.merge(defs, dg.Definitions(resources={DEFAULT_IO_MANAGER: manager}))
    return dg.Definitions.merge(
        defs,
        purge_defs(datasets),
        alert_defs(datasets),
        invalid_defs([*invalid, *failed], datasets),
    )


def invalid_defs(declarations: Iterable[InvalidDeclaration], datasets: Collection[str]) -> dg.Definitions:
    """Return an asset for each name of invalid declarations, in the group that its dataset would have.

    The groups of valid datasets are what their jobs select, and stay as they are.
    """

    def group_of(declaration: InvalidDeclaration) -> str:
        return re.sub(r"\W", "_", declaration.name, flags=re.ASCII)

    specs = []
    for group, alike in groupby(sorted(declarations, key=group_of), key=group_of):
        several = list(alike)
        places = {"file": str(several[0].file), "line": several[0].line}
        specs.append(
            dg.AssetSpec(
                [group, INVALID],
                description="\n\n".join(declaration.message for declaration in several),
                metadata={name: value for name, value in places.items() if value},
                group_name=INVALID if group in datasets else group,
                kinds={"invalid"},
            )
        )
    return dg.Definitions(assets=specs)


def _dataset_defs(
    datasets: Mapping[str, Dataset], registry: Registry
) -> tuple[dg.Definitions, list[InvalidDeclaration]]:
    """Return the definitions of the datasets; with YAML, also all that Dagster's component loader finds beside it."""
    if not registry.yaml_files:
        return build_defs(datasets), []
    from mini_platform.dagster.components import project_defs  # Takes half a second: only if there are components.

    tree = dg.ComponentTree.for_project(project().folder)
    of_datasets = {*registry.file_of.values(), *(declaration.file for declaration in registry.invalid)}
    if not any(path in of_datasets and path.is_relative_to(tree.defs_module_path) for path in registry.yaml_files):
        return build_defs(datasets), []
    return project_defs(tree, datasets, registry)
