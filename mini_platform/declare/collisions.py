"""Names that several datasets would share: in Postgres, in Dagster, among the settings. One alone has them checked itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset

OURS = {("analytics", "quality_report"): "the platform's quality report"}
"""Names of the platform that a dataset's could take."""
SPACES = {
    "dataset": "dataset",
    "relation": "table or index of the schemas staging, production and quarantine",
    "analytics": "table or view of the schema analytics",
    "job": "job",
    "tick": "sensor or schedule",
    "setting": "setting",
}


def refuse_collisions(datasets: Iterable[Dataset]) -> None:
    """Hold the names of datasets against each other.

    Raises:
        DeclarationError: two of them would have one name where there can be only one.
    """
    known: dict[tuple[str, str], str] = dict(OURS)
    for dataset in datasets:
        for space, name, whose in _names(dataset):
            if (other := known.setdefault((space, name), whose)) is not whose:
                raise DeclarationError(
                    f"{other} and {whose} would have one name, {name}, as a {SPACES[space]}; give one of them another"
                )


def _names(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Each name that nobody else may have: where, the name, and what has it, in words."""
    whose = f"dataset {dataset.name}"
    yield "dataset", dataset.name, whose
    yield "relation", dataset.table, f"the table of {whose}"
    yield "relation", f"{dataset.table}_pkey", f"the primary key of {whose}"
    for column in dataset.indexes:
        yield "relation", f"{dataset.table}_{column}", f"the index on {column} of {whose}"
    for computed in dataset.computed:
        yield "analytics", computed.name, f"the {type(computed).__name__.lower()} {computed.name} of {whose}"
    yield "tick", f"{dataset.name}_files", f"the sensor of {whose}"
    for source in dataset.api_sources:
        whose_source = f"the API source {source.name} of {whose}"
        yield "tick", f"{dataset.name}_sync_{source.name}", whose_source
        yield "job", f"sync_{dataset.name}_{source.name}", whose_source
        yield "setting", f"MINI_PLATFORM_API_SOURCE__{dataset.name}_{source.name}__URL".upper(), whose_source
