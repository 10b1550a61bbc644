"""Purge: what is older than the settings keep it goes, and a look at what would go, by the same selects.

Not here: Dagster's runs, which Dagster has to remove (`mini_platform/purging.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine, Select, func, select

from mini_platform.dataset import Dataset
from mini_platform.landing import retention as raw
from mini_platform.platform import Platform
from mini_platform.warehouse import retention
from mini_platform.warehouse.tables import dataset_tables, files, quality_report


@dataclass(frozen=True)
class Purged:
    """What goes, or went.

    Attributes:
        what: raw files, staged rows, rejected rows, quality report or runs.
        dataset: whose; None where it is not of one.
        items: how many files or rows.
        oldest: when the oldest of them arrived or was written; None where that is not known.
        bytes: of files.
    """

    what: str
    dataset: str | None
    items: int
    oldest: dt.datetime | None = None
    bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


def purge(platform: Platform, datasets: list[Dataset], *, dry_run: bool) -> Iterator[Purged]:
    """Remove what is old, of these datasets and of the quality report; yields what was done as it is done.

    Args:
        platform: settings, database and raw store.
        datasets: whose rows and files.
        dry_run: only look.
    """
    made, settings = platform.engine, platform.settings
    for dataset in datasets:
        yield _raw(platform, dataset, dry_run=dry_run)
        yield _staged(platform, dataset, dry_run=dry_run)
        if age := days(settings.quarantine_retention):
            table = dataset_tables(dataset).quarantine
            old = retention.old_rejects(dataset, age)
            found = _found(made, "rejected rows", dataset.name, old)
            yield found if dry_run else _done(found, retention.remove(made, table, old))
    if age := days(settings.quality_retention):
        old = retention.old_measures(age)
        found = _found(made, "quality report", None, old)
        yield found if dry_run else _done(found, retention.remove(made, quality_report, old))


def days(number: float) -> dt.timedelta | None:
    """A setting of days; 0 is for ever."""
    return dt.timedelta(days=number) if number else None


def _raw(platform: Platform, dataset: Dataset, *, dry_run: bool) -> Purged:
    age = platform.raw_retention(dataset)
    if not dry_run:
        rows = raw.drop_old(platform.engine, dataset, platform.store, age)
        raw.sweep_unknown(platform.engine, platform.store)
        oldest = min((row.arrived_at for row in rows), default=None)
        return Purged("raw files", dataset.name, len(rows), oldest, sum(row.bytes for row in rows))
    if age is None:
        return Purged("raw files", dataset.name, 0, bytes=0)
    figures = select(func.count(), func.min(files.c.arrived_at), func.coalesce(func.sum(files.c.bytes), 0))
    with platform.engine.connect() as conn:
        count, oldest, size = conn.execute(figures.where(raw.over_age(dataset, age))).one()
    return Purged("raw files", dataset.name, count, oldest, int(size))


def _staged(platform: Platform, dataset: Dataset, *, dry_run: bool) -> Purged:
    """What is left of the last load: the next one would take it away, too."""
    from mini_platform.warehouse.staging import purge as empty  # Brings polars and Pandera.

    staging = dataset_tables(dataset).staging
    waiting = select(files.c.file_id).where(files.c.dataset == dataset.name, files.c.status == "staged")
    with platform.engine.connect() as conn:
        left = conn.scalar(select(func.count()).where(staging.c._file_id.not_in(waiting))) or 0
    if left and not dry_run and not empty(platform.worker("purge"), dataset):
        left = 0  # Somebody works on it, and takes it away.
    return Purged("staged rows", dataset.name, left)


def _found(engine: Engine, what: str, dataset: str | None, old: Select[tuple[dt.datetime]]) -> Purged:
    rows = old.subquery()
    with engine.connect() as conn:
        count, oldest = conn.execute(select(func.count(), func.min(rows.c[0])).select_from(rows)).one()
    return Purged(what, dataset, count, oldest)


def _done(found: Purged, removed: int) -> Purged:
    return Purged(found.what, found.dataset, removed, found.oldest)
