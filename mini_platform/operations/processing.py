"""Processing: staging, loading, refreshing and measuring, each a step that is safe to repeat, and `process`: all of them.

    from mini_platform.operations.processing import process
    from mini_platform.platform import Platform

    platform = Platform()
    process(platform, platform.datasets["stations"])

Here: a step on the platform as it is set up, as an asset, a command, a test or a notebook takes it. Not here: what a step does
to the tables (`warehouse/`), what has arrived (`landing.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from mini_platform.config.faultpoints import failpoint
from mini_platform.operations.landing import land
from mini_platform.warehouse import aggregates, ledger, quality
from mini_platform.warehouse.load import load as load_staged
from mini_platform.warehouse.tables import among, dataset_tables, quality_report
from mini_platform.warehouse.tables import files as ledger_files
from mini_platform.warehouse.upsert import upsert_frame

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import CompoundSelect, Select

    from mini_platform.declare.computed import Aggregate
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform
    from mini_platform.warehouse.aggregates import Refreshed
    from mini_platform.warehouse.validated_rows import Progress


def process(
    platform: Platform, dataset: Dataset, files: Sequence[int] | None = None, *, run_id: str | None = None
) -> list[dict[str, Any]]:
    """Land, stage, load, refresh and measure, until nothing waits that is free to be taken.

    Args:
        platform: settings, database and raw store.
        dataset: whose files.
        files: ids of landed files to take, and nothing else is landed; None means everything that has arrived or waits.
        run_id: what the ledger calls this run; a new id by default.

    Returns:
        The accounting of each file that was taken, in the order of arrival: its status and what became of its rows.
    """
    run_id = run_id or str(uuid.uuid4())
    file_ids = set(land(platform, dataset, run_id).file_ids if files is None else ())
    # Loading a file late may queue others again: they wait to be staged by now.
    while batch := stage(platform, dataset, run_id, files) + load(platform, dataset, run_id, files):
        file_ids |= set(batch)
    for aggregate in dataset.aggregates:
        refresh(platform, dataset, aggregate)
    save_report(platform, measure(platform, dataset, run_id))
    return accounting(platform, file_ids)


def stage(
    platform: Platform,
    dataset: Dataset,
    run_id: str,
    files: Sequence[int] | None = None,
    *,
    others_first: bool = False,
    progress: Progress | None = None,
) -> list[int]:
    """Stage landed files that nobody else works on, as many as a run takes.

    Args:
        platform: settings, database and raw store.
        dataset: whose files.
        run_id: owner of the leases.
        files: ids to choose from; None means all.
        others_first: whether to leave a slow file to a later run while rows of others wait to be loaded.
        progress: called as bytes and rows are read.

    Returns:
        Ids of the files that were taken, whatever became of them.
    """
    from mini_platform.warehouse.staging import stage as stage_landed  # Brings polars and Pandera: 2 s.

    worker = replace(platform.worker(run_id), others_first=others_first)
    limit, raw = platform.settings.run_files, platform.raw_files(dataset)
    with ledger.lease(worker):
        return stage_landed(worker, dataset, raw, limit=limit, only=files, progress=progress)


def load(platform: Platform, dataset: Dataset, run_id: str, files: Sequence[int] | None = None) -> list[int]:
    """Upsert staged files into production, as many as a run takes; return the ids of those that were loaded."""
    worker = platform.worker(run_id)
    with ledger.lease(worker):
        return load_staged(worker, dataset, limit=platform.settings.run_files, only=files)


def refresh(
    platform: Platform,
    dataset: Dataset,
    aggregate: Aggregate,
    rows: Select[Any] | CompoundSelect[Any] | None = None,
) -> Refreshed:
    """Bring the table of an aggregate up to date with production; `rows` is its select by default."""
    chosen: Any = dataset_tables(dataset).rows(aggregate) if rows is None else rows
    with platform.engine.begin() as conn:
        refreshed = aggregates.refresh(conn, dataset, aggregate, chosen)
        failpoint("aggregate.before_commit")
    failpoint("aggregate.after_commit")
    return refreshed


def measure(platform: Platform, dataset: Dataset, run_id: str) -> pd.DataFrame:
    """Return the quality report of staging and production, a row per column."""
    with platform.engine.connect() as conn:
        return quality.measure(conn, dataset, run_id)


def save_report(platform: Platform, report: pd.DataFrame) -> int:
    """Upsert a quality report, which is kept over time; return how many rows were written."""
    with platform.engine.begin() as conn:
        return upsert_frame(conn, quality_report, report)


def accounting(platform: Platform, file_ids: Collection[int]) -> list[dict[str, Any]]:
    """Return the accounting of files, in the order of arrival."""
    rows = select(ledger_files).where(among(ledger_files.c.file_id, sorted(file_ids)))
    with platform.engine.connect() as conn:
        return [ledger.accounting(row) for row in conn.execute(rows.order_by(ledger_files.c.file_id))]
