"""Figures: statistics of the columns of a large file, counted while it is validated, so that it need not be read again.

They are exact: the different texts of a column are kept with the number of their rows. A column that has too many of them
is left out, and measured by the server (`quality.py`).
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from mini_platform.declare.columns import Column
from mini_platform.declare.dataset import Dataset
from mini_platform.rows.validation import as_text, read_cells

KEPT_BYTES = 160 * 2**20
"""Size up to which different texts are kept: a million orders take 140 MB."""
ADDED_BYTES = 24 * 2**20
"""Size from which texts of new blocks are merged with the others: in most columns the same ones repeat."""
SLICE_TEXTS = 300_000
"""Texts that are grouped at once."""
VIEW_BYTES = 16
"""Size of the view of a text beside its bytes, which polars does not count."""
NUMBERS = (float, int, Decimal)

ColumnFigures = dict[str, dict[str, Any]]
"""`staged` -> figures of all rows, `valid` -> figures of the valid ones; with the names in `analytics.quality_report`."""


class Figures:
    """The counts of the texts of each column of a file."""

    def __init__(self, dataset: Dataset) -> None:
        """Start with no texts, for each column that staging has."""
        self._columns = {column.name: column for column in dataset.staged_columns}
        self._shaped = dataset.shaped_columns
        self._counts: dict[str, list[_Counts]] = {name: [] for name in self._columns}
        self._bytes = self._added = 0
        self._mostly_distinct: set[str] = set()
        """Columns in which texts seldom repeat, so that merging blocks saves little."""

    def add(self, rows: pl.DataFrame) -> None:
        """Count validated rows, as they are staged; without malformed records."""
        valid = rows["_rules"].is_null()
        counted = [
            rows.filter(part).select(pl.col(name).value_counts(name="_rows").implode() for name in self._counts)
            for part in (valid, ~valid)
        ]
        for name, counts in self._counts.items():
            counts.append(_Counts(*(_unpack(part[name]) for part in counted)))
            self._bytes += counts[-1].bytes
            self._added += 0 if name in self._mostly_distinct else counts[-1].bytes
        if self._bytes > KEPT_BYTES:
            self._shrink()
        elif self._added > ADDED_BYTES:
            self._merge_blocks(self._counts.keys() - self._mostly_distinct)

    def _merge_blocks(self, names: Collection[str]) -> None:
        """Merge the counts of all blocks into one, for each of these columns."""
        for name in names:
            blocks = self._counts[name]
            before = sum(counts.bytes for counts in blocks)
            self._counts[name] = [_sum_counts(blocks)]
            after = self._counts[name][0].bytes
            if len(blocks) > 1 and after > before * 3 / 4:
                self._mostly_distinct.add(name)
            self._bytes += after - before
        self._added = 0

    def _shrink(self) -> None:
        """Merge all blocks, and drop the largest columns until a quarter of the space is free."""
        self._merge_blocks(list(self._counts))
        sizes = {name: counts[0].bytes for name, counts in self._counts.items()}
        while sum(sizes.values()) > KEPT_BYTES * 3 / 4:
            largest = max(sizes, key=lambda name: sizes[name])
            del sizes[largest], self._counts[largest]
        self._bytes = sum(sizes.values())

    def measured(self) -> Mapping[str, ColumnFigures]:
        """Return the figures by column, without the columns that were dropped; the counts are used up."""
        figures_by_column = {}
        for name in list(self._counts):
            counts = self._counts.pop(name)  # Column by column, so that memory is freed.
            if figures := _column_figures(self._columns[name], _sum_counts(counts), shaped=name in self._shaped):
                figures_by_column[name] = figures
        return figures_by_column


@dataclass(frozen=True)
class _Counts:
    """The different `text`s of a column, one of them null, with their numbers of `rows`, by valid and rejected rows."""

    valid: pl.DataFrame
    rejected: pl.DataFrame

    @property
    def bytes(self) -> int:
        return sum(int(part.estimated_size()) + VIEW_BYTES * part.height for part in (self.valid, self.rejected))


def _unpack(counted: pl.Series) -> pl.DataFrame:
    block = counted.explode(empty_as_null=False).struct.unnest()
    block.columns = ["text", "rows"]
    return block.cast({"rows": pl.Int64})


def _sum_counts(counts: list[_Counts]) -> _Counts:
    def summed(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
        # In slices by hash: to group five million texts at once takes 700 MB more.
        whole = pl.concat(parts)
        slices = whole.height // SLICE_TEXTS + 1
        number = whole["text"].hash() % slices
        return pl.concat(
            whole.filter(number == one).group_by("text").agg(pl.col("rows").sum()) for one in range(slices)
        )

    return _Counts(summed(c.valid for c in counts), summed(c.rejected for c in counts))


def _column_figures(column: Column, counts: _Counts, *, shaped: bool) -> ColumnFigures | None:
    valid, rejected = (
        part.with_columns(value=_values(column, part["text"], are_valid=part is counts.valid))
        for part in (counts.valid, counts.rejected)
    )
    texts = [part["text"].drop_nulls() for part in (valid, rejected)]
    if shaped:  # A value that may only be shown as its shape is neither minimum nor maximum.
        rejected = rejected.with_columns(pl.when(pl.col("text").is_in(texts[0].implode())).then("value"))
    valid_values, parsed = (part["value"].drop_nulls() for part in (valid, rejected))
    parsed = parsed.unique()
    if valid_values.dtype != pl.String:  # Valid values that stay text are distinct already.
        valid_values = valid_values.unique()
    unparsed = rejected.filter(pl.col("value").is_null())["text"].drop_nulls().n_unique()
    # Looks up the rejected values, which are few: building a set of all the valid ones takes long.
    staged = len(valid_values) + len(parsed) - int(valid_values.is_in(parsed.implode()).sum()) + unparsed
    try:
        return {
            "staged": _figures(column, pl.concat([valid, rejected]), staged),
            "valid": _figures(column, valid, len(valid_values)),
        }
    except OverflowError:  # A sum of large floats, which the server computes as numeric.
        return None


def _values(column: Column, texts: pl.Series, *, are_valid: bool) -> pl.Series:
    """Return the values of texts, in a type that sorts like them; null where a text cannot be parsed."""
    if column.type is str and column.trim and not are_valid:
        return texts.str.strip_chars()
    if column.type in (str, list[float]) or column.is_protected or (column.type is dt.datetime and are_valid):
        return texts  # Valid times are all in UTC and have one format.
    # Cells of rejected rows are as they arrived.
    _, values = read_cells([column], texts.alias(column.name).to_frame())
    return values.select(as_text(column)).to_series() if column.type is dt.datetime else values.to_series()


def _figures(column: Column, counted: pl.DataFrame, distinct: int) -> dict[str, Any]:
    """Return the figures of texts that have their `value` and number of `rows` beside them."""
    value, rows = counted["value"], counted["rows"]
    figures: dict[str, Any] = {
        "total_rows": int(rows.sum()),
        "nulls": int(rows.filter(counted["text"].is_null()).sum()),
        "distinct_values": distinct,
        "minimum": None,
        "maximum": None,
        "mean": None,
    }
    if column.personal or column.type == list[float]:
        return figures
    figures["minimum"], figures["maximum"] = pl.Series([value.min(), value.max()], dtype=value.dtype).cast(pl.String)
    filled = value.is_not_null()
    if column.type in NUMBERS and filled.any():
        products = value.filter(filled).cast(pl.Float64) * rows.filter(filled)
        figures["mean"] = math.fsum(products.to_list()) / int(rows.filter(filled).sum())
        if not math.isfinite(figures["mean"]):
            raise OverflowError
    return figures
