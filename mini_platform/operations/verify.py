"""Verify: compute every aggregate from production and compare it, and check every raw file. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from mini_platform.declare.columns import DeclarationError
from mini_platform.warehouse import aggregates
from mini_platform.warehouse.tables import dataset_tables, files

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.computed import Aggregate
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform


@dataclass(frozen=True)
class Comparison:
    """The result of comparing an aggregate or raw files with their expected state.

    Attributes:
        dataset: name of the dataset.
        check: name of the aggregate, or of the asset of raw files.
        compared: number of groups of the aggregate, or of files.
        differences: the differing files, or the first of the differing groups.
        dropped: number of files whose raw file is no longer kept according to the ledger: they are not compared.
    """

    dataset: str
    check: str
    compared: int
    differences: list[dict[str, Any]]
    dropped: int = 0

    @property
    def ok(self) -> bool:
        """True if nothing differs."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as a dict, as commands print it."""
        return {
            "dataset": self.dataset,
            "check": self.check,
            "ok": self.ok,
            "compared": self.compared,
            "differences": self.differences,
        }


def verify(
    platform: Platform, dataset: Dataset, progress: Callable[[int], None] = lambda _: None, *, deep: bool = False
) -> Iterator[Comparison]:
    """Yield comparisons of the aggregates and the raw files of a dataset with their expected state.

    Args:
        platform: database and raw store.
        dataset: the dataset to verify.
        progress: called with the size in bytes of each raw file that was checked.
        deep: read each raw file and compare its bytes with its hash.
    """
    for aggregate in dataset.aggregates:
        yield _aggregate(platform, dataset, aggregate)
    yield _raw_files(platform, dataset, progress, deep=deep)


def raw_bytes(platform: Platform, datasets: Iterable[Dataset]) -> int:
    """Return the total size of the raw files that are kept of these datasets."""
    has_raw_file = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
    names = [dataset.name for dataset in datasets]
    with platform.engine.connect() as conn:
        return int(conn.scalar(select(func.sum(files.c.bytes)).where(files.c.dataset.in_(names), *has_raw_file)) or 0)


def _aggregate(platform: Platform, dataset: Dataset, aggregate: Aggregate) -> Comparison:
    table = dataset_tables(dataset).aggregates[aggregate.name]
    with platform.engine.connect() as conn:
        groups = conn.scalar(select(func.count()).select_from(table)) or 0
        try:
            differences = aggregates.differences(conn, dataset, aggregate)
        except DeclarationError as error:
            differences = [{"error": str(error)}]
    return Comparison(dataset.name, aggregate.name, groups, differences)


def _raw_files(platform: Platform, dataset: Dataset, progress: Callable[[int], None], *, deep: bool) -> Comparison:
    """Check that every version in the ledger has its raw file, with the right size and, if `deep`, the hash of its name."""
    versions = select(files).where(files.c.dataset == dataset.name, files.c.same_as.is_(None))
    with platform.engine.connect() as conn:
        rows = conn.execute(versions.order_by(files.c.file_id)).all()
    with_raw_file = [row for row in rows if row.raw_dropped_at is None]
    differences = []
    for row in with_raw_file:
        if problem := _problem(platform, row, deep=deep):
            place = platform.store.place(row.sha256)
            shown = {"file_id": row.file_id, "name": row.name, "version": row.version, "path": place}
            differences.append({**shown, "problem": problem})
        progress(row.bytes)
    return Comparison(dataset.name, dataset.raw_asset, len(with_raw_file), differences, len(rows) - len(with_raw_file))


def _problem(platform: Platform, row: Row[Any], *, deep: bool) -> str | None:
    """Return what is wrong with the raw file of a ledger row, or None."""
    size = platform.store.size(row.sha256)
    if size is None:
        return "its raw file is missing"
    if size != row.bytes:
        return f"its raw file has {size} bytes instead of {row.bytes}"
    if deep and not platform.store.is_whole(row.sha256):
        return "the bytes of its raw file were changed"
    return None
