"""Components: classes that `defs.yaml` can name as its `type`. Its attributes are declared in `from_yaml.py`.

https://docs.dagster.io/guides/build/components
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dagster as dg

from mini_platform.dagster.build import Shared, dataset_defs
from mini_platform.declare import dataset as declaration
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.from_yaml import Attributes, YamlError, dataset_of
from mini_platform.declare.places import Place

if TYPE_CHECKING:
    from pydantic import BaseModel

_SHARED: WeakKeyDictionary[object, Shared] = WeakKeyDictionary()
"""Shared parts by the state of a component tree: it lives as long as the tree, and supports weak references."""


def shared_by(tree: dg.ComponentTree) -> Shared:
    """Return the shared parts of a project's datasets: Dagster merges definitions only if their resources are identical."""
    return _SHARED.setdefault(tree.state_tracker, Shared({}))


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
        others = [other for other in shared.datasets.values() if other.name != self.dataset.name]
        refuse_collisions([*others, self.dataset])
        shared.datasets[self.dataset.name] = self.dataset
        return dg.Definitions.merge(dataset_defs(self.dataset, shared.build_platform), shared.definitions)
