"""Components: classes that `defs.yaml` can name as its `type`. Its attributes are declared in `from_yaml.py`.

https://docs.dagster.io/guides/build/components
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dagster as dg

from mini_platform.dagster import private
from mini_platform.dagster.build import Shared, dataset_defs
from mini_platform.declare import dataset as declaration
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.from_yaml import Attributes, YamlError, dataset_of
from mini_platform.declare.places import Place
from mini_platform.declare.registry import InvalidDeclaration, Registry

if TYPE_CHECKING:
    from pydantic import BaseModel

COMPONENT_FILES = ("defs.yaml", "defs.yml", "component.yaml")
_SHARED: WeakKeyDictionary[object, Shared] = WeakKeyDictionary()
"""Shared parts by the state of a component tree: it lives as long as the tree, and supports weak references."""


def shared_by(tree: dg.ComponentTree) -> Shared:
    """Return the shared parts of a project's datasets: Dagster merges definitions only if their resources are identical."""
    return _SHARED.setdefault(tree.state_tracker, Shared({}))


def project_defs(
    tree: dg.ComponentTree, datasets: Mapping[str, declaration.Dataset], registry: Registry
) -> tuple[dg.Definitions, list[InvalidDeclaration]]:
    """Return the definitions of these datasets of a registry, and of all that Dagster's component loader finds in a project.

    Dagster loads a tree as a whole. If a part of it cannot be loaded, each folder with components is loaded by itself; for a
    part that is no declaration of a dataset, the reason is returned, too.
    """
    parts: list[dg.Definitions] = []
    failed: list[InvalidDeclaration] = []
    shared = _shared_for(tree, datasets, registry)
    try:
        parts.append(tree.build_defs())
    except Exception:  # Any component may raise anything.
        tree = dg.ComponentTree.from_module(tree.defs_module, tree.project_root)
        shared = _shared_for(tree, datasets, registry)
        known = {declared.file for declared in registry.invalid}
        for path in _component_places(tree.defs_module_path):
            try:
                parts.append(_definitions_at(tree, path))
            except Exception as error:  # likewise
                file = next((path / name for name in COMPONENT_FILES if (path / name).exists()), path)
                if file not in known:
                    cause = _first_cause(error)
                    message = f"{file}: {type(cause).__name__}: {' '.join(str(cause).split())}"
                    failed.append(InvalidDeclaration(path.stem, file, message))
    others = (dataset for name, dataset in datasets.items() if name not in shared.built)
    parts += [dataset_defs(dataset, shared.build_platform) for dataset in others]
    return dg.Definitions.merge(*parts, shared.definitions), failed


def _shared_for(tree: dg.ComponentTree, datasets: Mapping[str, declaration.Dataset], registry: Registry) -> Shared:
    shared = shared_by(tree)
    shared.datasets.update(datasets)
    shared.files = {name: file for name, file in registry.file_of.items() if name in datasets}
    return shared


def _component_places(folder: Path) -> Iterator[Path]:
    """Yield folders with a YAML file of components, and Python files elsewhere, as Dagster's loader walks them."""
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__" or path.name.startswith("."):
            continue
        if path.is_dir() and not any((path / name).exists() for name in COMPONENT_FILES):
            yield from _component_places(path)
        elif path.is_dir() or path.suffix == ".py":
            yield path


def _definitions_at(tree: dg.ComponentTree, path: Path) -> dg.Definitions:
    """Return the definitions of a part of a tree, for which Dagster has only the way by the whole tree."""
    place = private.ComponentPath.from_path(path)
    part = private.build_filesystem_component_decl_from_context(tree.decl_load_context.for_component_loc(place))
    if part is None:
        return dg.Definitions()
    for inner, declared in part.iterate_loc_component_decl_pairs():
        tree.state_tracker.set_cache_data(inner, component_decl=declared)
    return tree.build_defs(part.loc)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Dataset(dg.Component):
    """A dataset: raw files, staging, checks, production table, aggregates, quality report and sensor from one Pandera model."""

    def __init__(self, dataset: declaration.Dataset) -> None:
        """Create the component of this declaration."""
        self.dataset = dataset

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what Dagster's tools show about this component."""
        return dg.ComponentTypeSpec(
            description=cls.__doc__,
            owners=[],
            tags=["postgres", "pandera"],
            produces=["asset", "asset_check", "sensor"],
        )

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model of the attributes in YAML."""
        return Attributes

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Dataset:
        """Build the component from its attributes.

        Raises:
            YamlError: the attributes contradict each other or the model; the message names the file and the line.
        """
        tree = context.resolution_context.source_position_tree

        def places(attribute: str) -> Place:
            if tree is None:
                return Place(str(context.path))
            parent = tree.children.get("attributes", tree)
            position = parent.children.get(attribute, parent).position
            return Place(str(position.filename), position.start.line)

        if attributes is None:
            raise YamlError("attributes are missing", places("attributes"))
        return cls(dataset_of(attributes, places))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the same definitions that `build_defs` returns for this dataset."""
        shared = shared_by(context.component_tree)
        name = self.dataset.name
        if shared.files is not None:
            file = shared.files.get(name)
            if file is None or context.path not in (file, file.parent) or name in shared.built:
                return dg.Definitions()  # It is invalid.
            shared.built.add(name)
            return dg.Definitions.merge(dataset_defs(shared.datasets[name], shared.build_platform), shared.definitions)
        others = [other for other in shared.datasets.values() if other.name != name]
        refuse_collisions([*others, self.dataset])
        shared.datasets[name] = self.dataset
        return dg.Definitions.merge(dataset_defs(self.dataset, shared.build_platform), shared.definitions)
