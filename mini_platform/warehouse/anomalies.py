"""Anomalies: the newest load of a dataset compared with its recent loads.

A load is all that one run loaded. Its figures are in the ledger (rows, rejects) and in the quality report (empty cells and
means of the staged rows). False alarms are avoided: nothing is unusual before there are enough loads to compare, nor within a
margin that people would ignore; median and median absolute deviation (MAD) are robust to a few outliers.

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
"""Minimum number of earlier loads before anything is reported as unusual."""
MOST_LOADS = 30
"""Maximum number of earlier loads that are compared."""
DEVIATIONS = 6.0
"""Standard deviations from the median that are still usual."""
MAD_SCALE = 1.4826
"""Factor from the MAD of a normal distribution to its standard deviation."""


@dataclass(frozen=True)
class Margin:
    """A deviation from the median that is never unusual: absolute, or as a share of the median, whichever is larger."""

    absolute: float = 0.0
    share: float = 0.0


MARGINS = {
    "rows": Margin(absolute=10, share=0.5),
    "rejects": Margin(absolute=0.02),
    "nulls": Margin(absolute=0.05),
    "means": Margin(absolute=1e-9, share=0.1),
}
"""Kind of figure -> its margin. Kinds: rows of a load, share of rejected rows, share of empty cells, mean of a column."""


@dataclass(frozen=True)
class Figure:
    """One figure of the newest load, with its values in the loads before.

    Attributes:
        kind: a key of `MARGINS`.
        name: `rows`, `rejected share`, or the name of a column.
        value: value in the newest load; None if there is none, such as the mean of a column without values.
        history: values in the loads before it, oldest first, without those that have none.
    """

    kind: str
    name: str
    value: float | None
    history: tuple[float, ...]

    @property
    def usual(self) -> tuple[float, float] | None:
        """Lowest and highest usual value; None while there are too few loads."""
        if len(self.history) < FEWEST_LOADS:
            return None
        median = statistics.median(self.history)
        deviation = MAD_SCALE * statistics.median(abs(value - median) for value in self.history)
        margin = MARGINS[self.kind]
        width = max(DEVIATIONS * deviation, margin.absolute, margin.share * abs(median))
        return median - width, median + width

    @property
    def is_unusual(self) -> bool:
        """True if the newest load is outside of the usual range."""
        if self.value is None or self.usual is None:
            return False
        low, high = self.usual
        return not low <= self.value <= high


def figures(conn: Connection, dataset: Dataset) -> list[Figure]:
    """Return the figures of the newest load with their history; an empty list before the first load."""
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
    loaded_figures = [_figure("rows", "rows", rows), _figure("rejects", "rejected share", rejected)]
    runs = [load.run_id for load in loads]
    measured = conn.execute(
        select(quality_report).where(
            quality_report.c.table_name == dataset_tables(dataset).staging.fullname, quality_report.c.run_id.in_(runs)
        )
    ).all()
    by_column = {(row.run_id, row.column_name): row for row in measured}
    for column in dataset.staged_columns:
        reports = [by_column.get((run, column.name)) for run in runs]
        loaded_figures.append(_figure("nulls", column.name, [None if r is None else r.null_rate for r in reports]))
        means = [None if r is None else r.mean for r in reports]
        if any(mean is not None for mean in means):
            loaded_figures.append(_figure("means", column.name, means))
    return loaded_figures


def _figure(kind: str, name: str, newest_first: Sequence[float | None]) -> Figure:
    newest, *before = newest_first
    return Figure(kind, name, newest, tuple(value for value in reversed(before) if value is not None))
