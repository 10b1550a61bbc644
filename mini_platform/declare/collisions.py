"""Names that several datasets would share: in Postgres, in Dagster, among the settings.

Not here: clashes of names within one dataset (`dataset.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
    for collision in collisions(datasets).values():
        raise DeclarationError(collision.message)


@dataclass(frozen=True)
class Collision:
    """A name that a dataset would share: the sentence about it, and the other dataset; None if the platform has the name."""

    message: str
    other: Dataset | None


def collisions(datasets: Iterable[Dataset]) -> dict[Dataset, Collision]:
    """Return the datasets that would share a name with an earlier one, which keeps it, or with the platform."""
    used: dict[tuple[str, str], tuple[str, Dataset | None]] = {
        name: (owner, None) for name, owner in RESERVED_NAMES.items()
    }
    refused: dict[Dataset, Collision] = {}
    for dataset in datasets:
        own: dict[tuple[str, str], tuple[str, Dataset | None]] = {}
        for namespace, name, owner in _names(dataset):
            other_owner, other = used.get((namespace, name)) or own.setdefault((namespace, name), (owner, dataset))
            if other_owner is not owner:
                refused[dataset] = Collision(
                    f"{other_owner} and {owner} would have one name, {name}, as a {NAMESPACES[namespace]}; give one of them "
                    "another",
                    other,
                )
                break
        else:
            used |= own
    return refused


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
    yield "tick", dataset.files_sensor, f"the sensor of {owner}"
    for source in dataset.api_sources:
        source_owner = f"the API source {source.name} of {owner}"
        yield "tick", dataset.sync_schedule(source), source_owner
        yield "job", f"sync_{dataset.name}_{source.name}", source_owner
        yield "setting", f"MINI_PLATFORM_API_SOURCE__{dataset.name}_{source.name}__URL".upper(), source_owner
