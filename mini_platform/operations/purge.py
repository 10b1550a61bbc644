"""Purge: remove files and rows past their retention, or count them by the same selects.

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
from mini_platform.warehouse.tables import dataset_tables, files, quality_report, sessions


def purge(platform: Platform, datasets: list[Dataset], *, dry_run: bool) -> Iterator[Purged]:
    """Remove old files and rows of these datasets, old quality reports and sessions; yield each result as soon as it is done.

    Args:
        platform: settings, database and raw store.
        datasets: datasets whose rows and files are purged.
        dry_run: only count, without removing anything.
    """
    database, settings = platform.engine, platform.settings
    for dataset in datasets:
        if dataset.name in platform.refused:
            continue
        yield from (place.purge(platform, dataset, dry_run) for place in FILES if place.purge)
        yield _staged(platform, dataset, dry_run=dry_run)
        yield from _old_rows(platform, dataset, dry_run=dry_run)
    if age := days(settings.quality_retention):
        old = retention.old_measurements(age)
        candidates = _count_old(database, "quality report", None, old)
        yield candidates if dry_run else _purged(candidates, retention.remove(database, quality_report, old))
    over = retention.ended_sessions()
    candidates = _count_old(database, "sessions", None, over)
    yield candidates if dry_run else _purged(candidates, retention.remove(database, sessions, over))


def days(number: float) -> dt.timedelta | None:
    """Return a number of days as a timedelta; None for 0, which means for ever."""
    return dt.timedelta(days=number) if number else None


def _old_rows(platform: Platform, dataset: Dataset, *, dry_run: bool) -> Iterator[Purged]:
    for place in TABLES:
        if place.retention and (age := days(place.retention.days(platform.settings))):
            for table in place.of(dataset):
                old = retention.rows_older_than(table, place.retention.timestamp, age)
                candidates = _count_old(platform.engine, place.name, dataset.name, old)
                yield candidates if dry_run else _purged(candidates, retention.remove(platform.engine, table, old))


def _staged(platform: Platform, dataset: Dataset, *, dry_run: bool) -> Purged:
    """Remove staged rows that remain from the last load; the next load would remove them, too."""
    from mini_platform.warehouse.staging import purge as empty  # Brings polars and Pandera.

    staging = dataset_tables(dataset).staging
    staged = select(files.c.file_id).where(files.c.dataset == dataset.name, files.c.status == "staged")
    with platform.engine.connect() as conn:
        remaining = conn.scalar(select(func.count()).where(staging.c._file_id.not_in(staged))) or 0
    if remaining and not dry_run and not empty(platform.worker("purge"), dataset):
        remaining = 0  # Another process is working on staging, and removes them itself.
    return Purged("staged rows", dataset.name, remaining)


def _count_old(engine: Engine, what: str, dataset: str | None, old: Select[tuple[dt.datetime]]) -> Purged:
    rows = old.subquery()
    with engine.connect() as conn:
        count, oldest = conn.execute(select(func.count(), func.min(rows.c[0])).select_from(rows)).one()
    return Purged(what, dataset, count, oldest)


def _purged(candidates: Purged, removed: int) -> Purged:
    return Purged(candidates.what, candidates.dataset, removed, candidates.oldest)
