"""Runs of the pipeline in this process, as Dagster runs that the UI shows.

Here: which files a run takes, waiting for files that another process works on, what went wrong with a run. Dagster is
imported only when there is something to run: that takes three seconds.
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

from mini_platform.cli.output import progress_bar, say

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform

WAIT_SECONDS = 0.5
"""Pause between two looks at a file that another process works on."""
FRUITLESS_RUNS = 3
"""Runs that succeed and move no file, before we give up: each may have met another process at work."""


@dataclass(frozen=True)
class RunResult:
    """What was run: the files it was about, and why it ended early, if it did."""

    file_ids: frozenset[int]
    failure: str | None


def process(platform: Platform, dataset: Dataset, file_ids: Collection[int], *, verbose: bool = False) -> RunResult:
    """Run the pipeline until these files are done, and those that it queued again on their behalf.

    Loading a file late, or again, may queue other loaded files of the dataset (see `warehouse/load.py`).
    """
    seen = frozenset(file_ids)
    told: set[tuple[int, str]] = set()
    fruitless = 0
    while waiting := _pending(platform, dataset, seen):
        seen |= {row.file_id for row in waiting}
        free = [row for row in waiting if not row.held][: platform.settings.run_files]
        if not free:
            for row in waiting:
                if (row.file_id, row.leased_by) not in told:
                    told.add((row.file_id, row.leased_by))
                    say(f"{row.name} (file {row.file_id}): run {row.leased_by} works on it; waiting.")
            time.sleep(WAIT_SECONDS)
            continue
        failure = _run(dataset, free, verbose=verbose)
        after = {row.file_id: row for row in _pending(platform, dataset, seen)}
        moved = any(row.file_id not in after or after[row.file_id].status != row.status for row in free)
        if failure and not any(row.file_id in after and after[row.file_id].held for row in free):
            return RunResult(seen, failure)
        fruitless = 0 if moved else fruitless + 1
        if fruitless >= FRUITLESS_RUNS:
            return RunResult(seen, "the runs took none of the files that wait")
    return RunResult(seen, None)


def _pending(platform: Platform, dataset: Dataset, file_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Those of the files that are not done, and loaded ones that wait to be loaded again; `held`: by a living lease."""
    from sqlalchemy import func, or_, select

    from mini_platform.warehouse.ledger import PENDING
    from mini_platform.warehouse.tables import files

    held = func.coalesce(files.c.leased_until >= func.clock_timestamp(), False).label("held")
    ours = or_(files.c.file_id == func.any(list(file_ids)), files.c.loaded_at.is_not(None))
    statement = select(files, held).where(files.c.dataset == dataset.name, files.c.status.in_(PENDING), ours)
    with platform.engine.connect() as conn:
        return conn.execute(statement.order_by(files.c.file_id)).all()


def _run(dataset: Dataset, waiting: Sequence[Row[Any]], *, verbose: bool) -> str | None:
    """One Dagster run over these files; returns what went wrong, None if nothing did."""
    from mini_platform.config.settings import PROJECT

    what = waiting[0].name if len(waiting) == 1 else f"{len(waiting)} files"
    total = sum(row.bytes for row in waiting if row.status == "landed")
    os.environ.setdefault("DAGSTER_HOME", str(PROJECT))
    with progress_bar(f"Starting a run for {what}", total or None) as advance, warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
        read = 0

        def report(size: int, _rows: int) -> None:
            nonlocal read
            read += size
            advance(size, f"Reading {what}" if read < total else f"Writing tables of {what}")

        with _without_garbage():
            from mini_platform.dagster.in_process import execute
            from mini_platform.definitions import defs

        return execute(defs, dataset, [row.file_id for row in waiting], None if verbose else report)


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Import without looking for garbage, now and later: of all that is imported nothing ever is; saves a sixth of it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
