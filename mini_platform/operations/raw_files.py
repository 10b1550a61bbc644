"""Raw files as a place: files past the retention of their dataset are removed.

Not here: forgetting a person and backups, which process raw files by the ledger (`forget.py`, `backup.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from sqlalchemy import func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.landing import retention
from mini_platform.operations.place import FilePlace, Purged
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import files


def _contents(platform: Platform, dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    has_raw_file = (files.c.dataset == dataset.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
    with platform.engine.connect() as conn:
        hashes = conn.execute(select(files.c.sha256).where(*has_raw_file).distinct()).scalars().all()
    for sha256 in hashes:
        if (path := platform.store.path(sha256)).exists():
            yield platform.store.place(sha256), path.read_bytes()


def raw_retention(platform: Platform, dataset: Dataset) -> dt.timedelta | None:
    """Return how long raw files of a dataset are kept; None means for ever."""
    if dataset.name not in platform.settings.raw_retention:
        return dataset.raw_retention
    days = platform.settings.raw_retention[dataset.name]
    return None if days is None else dt.timedelta(days=days)


def _purge(platform: Platform, dataset: Dataset, dry_run: bool) -> Purged:
    age = raw_retention(platform, dataset)
    if not dry_run:
        rows = retention.drop_old(platform.engine, dataset, platform.store, age)
        retention.sweep_unknown(platform.engine, platform.store)
        oldest = min((row.arrived_at for row in rows), default=None)
        return Purged("raw files", dataset.name, len(rows), oldest, sum(row.bytes for row in rows))
    if age is None:
        return Purged("raw files", dataset.name, 0, bytes=0)
    figures = select(func.count(), func.min(files.c.arrived_at), func.coalesce(func.sum(files.c.bytes), 0))
    with platform.engine.connect() as conn:
        count, oldest, size = conn.execute(figures.where(retention.over_age(dataset, age))).one()
    return Purged("raw files", dataset.name, count, oldest, int(size))


RAW_FILES = FilePlace("raw files", _contents, purge=_purge)
