"""Anomalies: the newest load of a dataset against its own recent loads.

A load is what one run loaded. Its figures are in the ledger (rows, rejects) and in the quality report (empty cells and means of
what it staged). Calm by design: nothing is unusual before there are enough loads to compare with, nor within a margin that
people would not look twice at; median and median absolute deviation (MAD) are not moved by a few odd loads.

https://en.wikipedia.org/wiki/Median_absolute_deviation
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.tables import dataset_tables, files, quality_report

FEWEST_LOADS = 8
"""Earlier loads that there must be before anything is called unusual."""
MOST_LOADS = 30
"""Earlier loads that are looked at."""
DEVIATIONS = 6.0
"""Standard deviations from the median that are still usual."""
OF_NORMAL = 1.4826
"""MAD of a normal distribution times this is its standard deviation."""


@dataclass(frozen=True)
class Margin:
    """What is never unusual: this much, or this share of the median, to either side of it."""

    absolute: float = 0.0
    share: float = 0.0


MARGINS = {
    "rows": Margin(absolute=10, share=0.5),
    "rejects": Margin(absolute=0.02),
    "nulls": Margin(absolute=0.05),
    "means": Margin(absolute=1e-9, share=0.1),
}
"""Kind of figure -> its margin: rows of a load, share of rejected rows, share of empty cells, mean of a column."""


@dataclass(frozen=True)
class Figure:
    """One figure of the newest load and the same of the loads before it, the oldest first.

    Attributes:
        kind: as in `MARGINS`.
        name: `rows`, `rejected share`, or that of a column.
        value: of the newest load; None where it has none, as the mean of a column without values.
        history: of the loads before it that have one.
    """

    kind: str
    name: str
    value: float | None
    history: tuple[float, ...]

    @property
    def usual(self) -> tuple[float, float] | None:
        """Lowest and highest usual value; None while there are too few loads to tell."""
        if len(self.history) < FEWEST_LOADS:
            return None
        median = statistics.median(self.history)
        deviation = OF_NORMAL * statistics.median(abs(value - median) for value in self.history)
        margin = MARGINS[self.kind]
        reach = max(DEVIATIONS * deviation, margin.absolute, margin.share * abs(median))
        return median - reach, median + reach

    @property
    def is_unusual(self) -> bool:
        """Whether the newest load is out of the usual range."""
        if self.value is None or self.usual is None:
            return False
        low, high = self.usual
        return not low <= self.value <= high


def figures(conn: Connection, dataset: Dataset) -> list[Figure]:
    """The figures of the newest load with their history; none before the first load."""
    newest = func.max(files.c.staged_at).label("newest")
    loads = conn.execute(
        select(
            files.c.run_id, func.sum(files.c.rows_read).label("rows"), func.sum(files.c.rows_rejected).label("rejected")
        )
        .where(files.c.dataset == dataset.name, files.c.status == "loaded")
        .group_by(files.c.run_id)
        .order_by(newest.desc())
        .limit(MOST_LOADS + 1)
    ).all()
    if not loads:
        return []
    rows = [float(load.rows) for load in loads]
    rejected = [float(load.rejected / load.rows) if load.rows else 0.0 for load in loads]
    found = [_figure("rows", "rows", rows), _figure("rejects", "rejected share", rejected)]
    runs = [load.run_id for load in loads]
    measured = conn.execute(
        select(quality_report).where(
            quality_report.c.table_name == dataset_tables(dataset).staging.fullname, quality_report.c.run_id.in_(runs)
        )
    ).all()
    by_column = {(row.run_id, row.column_name): row for row in measured}
    for column in dataset.staged_columns:
        reports = [by_column.get((run, column.name)) for run in runs]
        found.append(_figure("nulls", column.name, [None if r is None else r.null_rate for r in reports]))
        means = [None if r is None else r.mean for r in reports]
        if any(mean is not None for mean in means):
            found.append(_figure("means", column.name, means))
    return found


def _figure(kind: str, name: str, newest_first: Sequence[float | None]) -> Figure:
    newest, *before = newest_first
    return Figure(kind, name, newest, tuple(value for value in reversed(before) if value is not None))
