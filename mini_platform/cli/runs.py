"""Runs of the pipeline in this process, as Dagster runs that its UI shows.

Here: the files of a run, waiting for files that another process works on, errors of a run. Dagster is imported only if there
is something to run: that takes three seconds.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mini_platform.cli.output import print_message, progress_bar

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform

WAIT_SECONDS = 0.5
"""Pause between two checks of files that another process works on."""
FRUITLESS_RUNS = 3
"""Maximum number of consecutive runs that succeed and process no file: each may have met another process at work."""


@dataclass(frozen=True)
class RunResult:
    """The files of the runs, and why they ended early, if they did."""

    file_ids: frozenset[int]
    failure: str | None


def process(platform: Platform, dataset: Dataset, file_ids: Collection[int], *, verbose: bool = False) -> RunResult:
    """Run the pipeline until these files are done, and those that it queued again because of them.

    Loading a file late, or again, may queue other loaded files of the dataset (see `warehouse/load.py`).
    """
    known_ids = frozenset(file_ids)
    announced: set[tuple[int, str]] = set()
    fruitless = 0
    while pending := _pending(platform, dataset, known_ids):
        known_ids |= {row.file_id for row in pending}
        free = [row for row in pending if not row.held][: platform.settings.run_files]
        if not free:
            for row in pending:
                if (row.file_id, row.leased_by) not in announced:
                    announced.add((row.file_id, row.leased_by))
                    print_message(f"{row.name} (file {row.file_id}) is processed by run {row.leased_by}; waiting.")
            time.sleep(WAIT_SECONDS)
            continue
        failure = _run(dataset, free, verbose=verbose)
        still_pending = {row.file_id: row for row in _pending(platform, dataset, known_ids)}
        progressed = any(
            row.file_id not in still_pending or still_pending[row.file_id].status != row.status for row in free
        )
        if failure and not any(row.file_id in still_pending and still_pending[row.file_id].held for row in free):
            return RunResult(known_ids, failure)
        fruitless = 0 if progressed else fruitless + 1
        if fruitless >= FRUITLESS_RUNS:
            return RunResult(known_ids, "the runs processed none of the pending files")
    return RunResult(known_ids, None)


def _pending(platform: Platform, dataset: Dataset, file_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Return those of the files that are not done, and loaded ones that wait to be loaded again; `held`: by an active lease."""
    from sqlalchemy import func, or_, select

    from mini_platform.warehouse.ledger import PENDING
    from mini_platform.warehouse.tables import files

    held = func.coalesce(files.c.leased_until >= func.clock_timestamp(), False).label("held")
    relevant = or_(files.c.file_id == func.any(list(file_ids)), files.c.loaded_at.is_not(None))
    statement = select(files, held).where(files.c.dataset == dataset.name, files.c.status.in_(PENDING), relevant)
    with platform.engine.connect() as conn:
        return conn.execute(statement.order_by(files.c.file_id)).all()


def _run(dataset: Dataset, rows: Sequence[Row[Any]], *, verbose: bool) -> str | None:
    """Execute one Dagster run over these files; return its error, or None."""
    from mini_platform.config.settings import load_settings
    from mini_platform.dagster.instance import prepare_instance
    from mini_platform.dagster.upgrade import upgrade

    label = rows[0].name if len(rows) == 1 else f"{len(rows)} files"
    total = sum(row.bytes for row in rows if row.status == "landed")
    settings = load_settings()
    os.environ.setdefault("DAGSTER_HOME", str(prepare_instance(settings)))
    with progress_bar(f"Starting Dagster to load {label}", total or None) as advance, warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
        read = 0

        def report(size: int, _rows: int) -> None:
            nonlocal read
            read += size
            advance(size, f"Reading {label}" if read < total else f"Writing tables of {label}")

        with _without_garbage_collection():
            from mini_platform.dagster.in_process import execute
            from mini_platform.definitions import defs

        upgrade(settings, lambda _: None)
        return execute(defs, dataset, [row.file_id for row in rows], None if verbose else report)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection during imports, whose objects are never freed; saves a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
