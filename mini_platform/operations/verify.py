"""Verify: every aggregate is computed anew from production and compared, every raw file is looked for. Nothing is written."""

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
    """What was compared with what it should be.

    Attributes:
        dataset: name.
        check: name of the aggregate, or of the asset of raw files.
        compared: groups of the aggregate, or files.
        differences: of the groups that differ only the first.
        dropped: files whose raw file is no longer kept, as the ledger says: they are not compared.
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
        """Return what people and programs are shown."""
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
    """Compare the aggregates and the raw files of a dataset with what they should be.

    Args:
        platform: database and raw store.
        dataset: whose.
        progress: called with bytes of raw files as they are looked at.
        deep: whether to read each raw file and compare its bytes with its hash.
    """
    for aggregate in dataset.aggregates:
        yield _aggregate(platform, dataset, aggregate)
    yield _raw_files(platform, dataset, progress, deep=deep)


def raw_bytes(platform: Platform, datasets: Iterable[Dataset]) -> int:
    """Return the size of all raw files that are kept of datasets."""
    kept = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
    names = [dataset.name for dataset in datasets]
    with platform.engine.connect() as conn:
        return int(conn.scalar(select(func.sum(files.c.bytes)).where(files.c.dataset.in_(names), *kept)) or 0)


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
    """Every version in the ledger must have its raw file, and that the size and, if asked, the hash that it is named by."""
    versions = select(files).where(files.c.dataset == dataset.name, files.c.same_as.is_(None))
    with platform.engine.connect() as conn:
        known = conn.execute(versions.order_by(files.c.file_id)).all()
    kept = [row for row in known if row.raw_dropped_at is None]
    differences = []
    for row in kept:
        if problem := _problem(platform, row, deep=deep):
            place = platform.store.place(row.sha256)
            shown = {"file_id": row.file_id, "name": row.name, "version": row.version, "path": place}
            differences.append({**shown, "problem": problem})
        progress(row.bytes)
    return Comparison(dataset.name, dataset.raw_asset, len(kept), differences, len(known) - len(kept))


def _problem(platform: Platform, row: Row[Any], *, deep: bool) -> str | None:
    """Return what is wrong with the raw file of a ledger row; None if nothing is."""
    size = platform.store.size(row.sha256)
    if size is None:
        return "its raw file is missing"
    if size != row.bytes:
        return f"its raw file has {size} bytes instead of {row.bytes}"
    if deep and not platform.store.is_whole(row.sha256):
        return "the bytes of its raw file were changed"
    return None
