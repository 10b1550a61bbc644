"""Processing: staging, loading, refreshing and measuring, each a repeatable step, and `process`, which runs all steps.

    from mini_platform.operations.processing import process
    from mini_platform.platform import Platform

    platform = Platform()
    process(platform, platform.datasets["stations"])

Here: each step as a function of the configured platform, for assets, commands, tests and notebooks. Not here: what a step does
to the tables (`warehouse/`), landing (`landing.py`).
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
    """Land, stage, load, refresh and measure, until no pending file is free to take.

    Args:
        platform: settings, database and raw store.
        dataset: dataset of the files.
        files: ids of landed files to take, without landing others; None means all that have arrived or are pending.
        run_id: id of this run in the ledger; a new id by default.

    Returns:
        The accounting of each file that was taken, in the order of arrival: its status and row counts.
    """
    run_id = run_id or str(uuid.uuid4())
    file_ids = set(land(platform, dataset, run_id).file_ids if files is None else ())
    # Loading may queue files again, which are then pending: others that a late file affects, and those whose staged rows are
    # gone, as after a restore, though it loads nothing then. So staging, too, must find nothing more after it.
    while batch := (stage(platform, dataset, run_id, files) + load(platform, dataset, run_id, files)) or stage(
        platform, dataset, run_id, files
    ):
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
    """Stage landed files that no other process works on, as many as a run takes.

    Args:
        platform: settings, database and raw store.
        dataset: dataset of the files.
        run_id: owner of the leases.
        files: ids of files to choose from; None means all.
        others_first: leave a slow file to a later run while rows of other files are staged.
        progress: called as bytes and rows are read.

    Returns:
        Ids of the files that were taken, whatever their status.
    """
    from mini_platform.warehouse.staging import stage as stage_landed  # Brings polars and Pandera: 2 s.

    platform.require(dataset)
    worker = replace(platform.worker(run_id), others_first=others_first)
    limit, raw = platform.settings.run_files, platform.raw_files(dataset)
    with ledger.lease(worker):
        return stage_landed(worker, dataset, raw, limit=limit, only=files, progress=progress)


def load(platform: Platform, dataset: Dataset, run_id: str, files: Sequence[int] | None = None) -> list[int]:
    """Upsert staged files into production, as many as a run takes; return the ids of those that were loaded."""
    platform.require(dataset)
    worker = platform.worker(run_id)
    with ledger.lease(worker):
        return load_staged(worker, dataset, limit=platform.settings.run_files, only=files)


def refresh(
    platform: Platform,
    dataset: Dataset,
    aggregate: Aggregate,
    rows: Select[Any] | CompoundSelect[Any] | None = None,
) -> Refreshed:
    """Update the table of an aggregate from production; `rows` is its select by default."""
    platform.require(dataset)
    selected: Any = dataset_tables(dataset).rows(aggregate) if rows is None else rows
    with platform.engine.begin() as conn:
        refreshed = aggregates.refresh(conn, dataset, aggregate, selected)
        failpoint("aggregate.before_commit")
    failpoint("aggregate.after_commit")
    return refreshed


def measure(platform: Platform, dataset: Dataset, run_id: str) -> pd.DataFrame:
    """Return the quality report of staging and production, a row per column."""
    platform.require(dataset)
    with platform.engine.connect() as conn:
        return quality.measure(conn, dataset, run_id)


def save_report(platform: Platform, report: pd.DataFrame) -> int:
    """Upsert a quality report, which is kept over time; return the number of rows written."""
    with platform.engine.begin() as conn:
        return upsert_frame(conn, quality_report, report)


def accounting(platform: Platform, file_ids: Collection[int]) -> list[dict[str, Any]]:
    """Return the accounting of files, in the order of arrival."""
    rows = select(ledger_files).where(among(ledger_files.c.file_id, sorted(file_ids)))
    with platform.engine.connect() as conn:
        return [ledger.accounting(row) for row in conn.execute(rows.order_by(ledger_files.c.file_id))]
