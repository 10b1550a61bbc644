"""Names that several datasets would share: in Postgres, in Dagster, among the settings.

Not here: clashes of names within one dataset (`dataset.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset

RESERVED_NAMES = {("analytics", "quality_report"): "the platform's quality report"}
"""Names of the platform that a dataset could clash with, by namespace, with their owner."""
NAMESPACES = {
    "dataset": "dataset",
    "relation": "table or index of the schemas staging, production and quarantine",
    "analytics": "table or view of the schema analytics",
    "job": "job",
    "tick": "sensor or schedule",
    "setting": "setting",
}


def refuse_collisions(datasets: Iterable[Dataset]) -> None:
    """Refuse datasets that would share a name.

    Raises:
        DeclarationError: two of them would have the same name where it must be unique.
    """
    known: dict[tuple[str, str], str] = dict(RESERVED_NAMES)
    for dataset in datasets:
        for namespace, name, owner in _names(dataset):
            if (other := known.setdefault((namespace, name), owner)) is not owner:
                raise DeclarationError(
                    f"{other} and {owner} would have one name, {name}, as a {NAMESPACES[namespace]}; give one of them another"
                )


def _names(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Yield each name of a dataset that must be unique: its namespace, the name, and its owner in words."""
    owner = f"dataset {dataset.name}"
    yield "dataset", dataset.name, owner
    yield "relation", dataset.table, f"the table of {owner}"
    yield "relation", f"{dataset.table}_pkey", f"the primary key of {owner}"
    for column in dataset.indexes:
        yield "relation", f"{dataset.table}_{column}", f"the index on {column} of {owner}"
    for computed in dataset.computed:
        yield "analytics", computed.name, f"the {type(computed).__name__.lower()} {computed.name} of {owner}"
    yield "tick", f"{dataset.name}_files", f"the sensor of {owner}"
    for source in dataset.api_sources:
        source_owner = f"the API source {source.name} of {owner}"
        yield "tick", f"{dataset.name}_sync_{source.name}", source_owner
        yield "job", f"sync_{dataset.name}_{source.name}", source_owner
        yield "setting", f"MINI_PLATFORM_API_SOURCE__{dataset.name}_{source.name}__URL".upper(), source_owner
