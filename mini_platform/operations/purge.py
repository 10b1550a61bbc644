"""Purge: what is older than the settings keep it goes, and a look at what would go, by the same selects.

Not here: Dagster's runs, which Dagster has to remove (`dagster/purging.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from sqlalchemy import Engine, Select, func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.operations.place import Purged
from mini_platform.operations.places import FILES
from mini_platform.platform import Platform
from mini_platform.warehouse import retention
from mini_platform.warehouse.places import TABLES
from mini_platform.warehouse.tables import dataset_tables, files, quality_report


def purge(platform: Platform, datasets: list[Dataset], *, dry_run: bool) -> Iterator[Purged]:
    """Remove what is old, of these datasets and of the quality report; yields what was done as it is done.

    Args:
        platform: settings, database and raw store.
        datasets: whose rows and files.
        dry_run: only look.
    """
    made, settings = platform.engine, platform.settings
    for dataset in datasets:
        yield from (place.purge(platform, dataset, dry_run) for place in FILES if place.purge)
        yield _staged(platform, dataset, dry_run=dry_run)
        yield from _old_rows(platform, dataset, dry_run=dry_run)
    if age := days(settings.quality_retention):
        old = retention.old_measures(age)
        found = _found(made, "quality report", None, old)
        yield found if dry_run else _done(found, retention.remove(made, quality_report, old))


def days(number: float) -> dt.timedelta | None:
    """A setting of days; 0 is for ever."""
    return dt.timedelta(days=number) if number else None


def _old_rows(platform: Platform, dataset: Dataset, *, dry_run: bool) -> Iterator[Purged]:
    for place in TABLES:
        if place.kept and (age := days(place.kept.days(platform.settings))):
            for table in place.of(dataset):
                old = retention.older(table, place.kept.moment, age)
                found = _found(platform.engine, place.name, dataset.name, old)
                yield found if dry_run else _done(found, retention.remove(platform.engine, table, old))


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
