"""Reprocessing: queue files to be validated and loaded again with the current rules, from their raw files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from mini_platform.warehouse import ledger
from mini_platform.warehouse.tables import files

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform


@dataclass(frozen=True)
class Queued:
    """The result of queueing files for reprocessing.

    Attributes:
        file_ids: ids of the versions that are pending now.
        without_raw: ledger rows of files that cannot be reprocessed, as their raw file is no longer kept; their loaded rows
            stay.
    """

    file_ids: list[int]
    without_raw: Sequence[Row[Any]]


def reprocess(platform: Platform, dataset: Dataset, file_id: int | None = None) -> Queued:
    """Queue one file or all files of a dataset, including refused and failed ones; `process` or the next run takes them."""
    versions = select(files).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_not(None)
    )
    if file_id is not None:
        version = select(func.coalesce(files.c.same_as, files.c.file_id)).where(files.c.file_id == file_id)
        versions = versions.where(files.c.file_id == version.scalar_subquery())
    with platform.engine.begin() as conn:
        without_raw = conn.execute(versions.order_by(files.c.file_id)).all()
        return Queued(ledger.reprocess(conn, dataset.name, file_id), without_raw)
