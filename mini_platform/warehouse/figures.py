"""Figures: what the columns of a large file hold, counted while it is judged, so that nobody need read all of it again.

They are exact: the different texts of a column are kept with the number of their rows. A column that has too many for that
is left out, and measured by the server (`quality.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import polars as pl

from mini_platform.dataset import Column, Dataset
from mini_platform.validation import as_text, clean, parse

KEPT_BYTES = 128 * 2**20
"""Size up to which different texts are kept: those of a million orders take 100 MB."""
NUMBERS = (float, int, Decimal)

ColumnFigures = dict[str, dict[str, Any]]
"""`staged` -> figures of all rows, `valid` -> of the valid ones; named as in `analytics.quality_report`."""


class Figures:
    """Counts the texts of each column of a file."""

    def __init__(self, dataset: Dataset) -> None:
        """Count the columns that staging has."""
        self._columns = {column.name: column for column in dataset.staged_columns}
        self._counts: dict[str, list[pl.DataFrame]] = {name: [] for name in self._columns}
        self._bytes = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Count judged rows, as they are staged; malformed records aside."""
        valid = rows["_rules"].is_null()
        for part, are_valid in ((rows.filter(valid), True), (rows.filter(~valid), False)):
            if not part.height or not self._counts:
                continue
            counted = part.select(pl.col(name).value_counts(name="_rows").implode() for name in self._counts)
            for name, counts in self._counts.items():
                block = counted[name].explode().struct.unnest()
                block.columns = ["text", "rows"]
                counts.append(block.with_columns(valid=pl.lit(are_valid)))
                self._bytes += int(block.estimated_size())
        if self._bytes > KEPT_BYTES:
            self._shrink()

    def _shrink(self) -> None:
        """Add up the counts of the blocks, and give up the columns with the most texts until half of the space is free."""
        self._counts = {name: [_summed(counts)] for name, counts in self._counts.items() if counts}
        sizes = {name: int(counts[0].estimated_size()) for name, counts in self._counts.items()}
        while sum(sizes.values()) > KEPT_BYTES / 2:
            largest = max(sizes, key=lambda name: sizes[name])
            del sizes[largest], self._counts[largest]
        self._bytes = sum(sizes.values())

    def measured(self) -> Mapping[str, ColumnFigures]:
        """Columns with their figures; those that are not known are left out."""
        found = {}
        for name in list(self._counts):
            counts = self._counts.pop(name)  # Column by column: what is done with is given back.
            if counts and (figures := _column_figures(self._columns[name], _summed(counts))):
                found[name] = figures
        return found


def _summed(counts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("text", "valid").agg(pl.col("rows").cast(pl.Int64).sum())


def _column_figures(column: Column, counted: pl.DataFrame) -> ColumnFigures | None:
    values = counted["text"].alias(column.name)
    if column.type is not str and not column.personal:
        # The cell of a rejected row stands as it arrived.
        values = clean(column, values).to_frame().select(parse(column)).to_series()
    counted = counted.with_columns(values.alias("value"))
    valid = counted.filter("valid")
    try:
        return {"staged": _figures(column, counted, "text"), "valid": _figures(column, valid, "value")}
    except OverflowError:  # A sum of large floats, which the server has as numeric.
        return None


def _figures(column: Column, counted: pl.DataFrame, different: str) -> dict[str, Any]:
    """Figures of texts with their `value` and their `rows`; `different` says which of the two are counted as distinct."""
    value, rows = counted["value"], counted["rows"]
    figures: dict[str, Any] = {
        "total_rows": int(rows.sum()),
        "nulls": int(rows.filter(counted["text"].is_null()).sum()),
        "distinct_values": counted[different].drop_nulls().n_unique(),
        "minimum": None,
        "maximum": None,
        "mean": None,
    }
    if column.personal or column.type == list[float]:
        return figures
    ends = pl.DataFrame({column.name: [value.min(), value.max()]}, {column.name: value.dtype}).select(as_text(column))
    figures["minimum"], figures["maximum"] = ends.to_series()
    filled = value.is_not_null()
    if column.type in NUMBERS and filled.any():
        products = value.filter(filled).cast(pl.Float64) * rows.filter(filled)
        figures["mean"] = math.fsum(products) / int(rows.filter(filled).sum())
        if not math.isfinite(figures["mean"]):
            raise OverflowError
    return figures
