"""Figures: what the columns of a large file hold, counted while it is validated, so that nobody need read all of it again.

They are exact: the different texts of a column are kept with the number of their rows. A column that has too many for that
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
from mini_platform.rows.validation import as_text, clean, parse

KEPT_BYTES = 160 * 2**20
"""Size up to which different texts are kept: those of a million orders take 140 MB."""
ADDED_BYTES = 24 * 2**20
"""Texts of new blocks are added to those of the others when they take so much: most columns hold the same ones again."""
VIEW_BYTES = 16
"""What a text takes besides its bytes, which polars does not count."""
NUMBERS = (float, int, Decimal)

ColumnFigures = dict[str, dict[str, Any]]
"""`staged` -> figures of all rows, `valid` -> of the valid ones; named as in `analytics.quality_report`."""


class Figures:
    """Counts the texts of each column of a file."""

    def __init__(self, dataset: Dataset) -> None:
        """Count the columns that staging has."""
        self._columns = {column.name: column for column in dataset.staged_columns}
        self._shaped = dataset.shaped_columns
        self._counts: dict[str, list[_Counts]] = {name: [] for name in self._columns}
        self._bytes = self._added = 0
        self._seldom_again: set[str] = set()
        """Columns in which it saves little to add up."""

    def add(self, rows: pl.DataFrame) -> None:
        """Count validated rows, as they are staged; malformed records aside."""
        valid = rows["_rules"].is_null()
        counted = [
            rows.filter(part).select(pl.col(name).value_counts(name="_rows").implode() for name in self._counts)
            for part in (valid, ~valid)
        ]
        for name, counts in self._counts.items():
            counts.append(_Counts(*(_unpacked(part[name]) for part in counted)))
            self._bytes += counts[-1].bytes
            self._added += 0 if name in self._seldom_again else counts[-1].bytes
        if self._bytes > KEPT_BYTES:
            self._shrink()
        elif self._added > ADDED_BYTES:
            self._add_up(self._counts.keys() - self._seldom_again)

    def _add_up(self, names: Collection[str]) -> None:
        """Make one of the counts of the blocks."""
        for name in names:
            blocks = self._counts[name]
            before = sum(counts.bytes for counts in blocks)
            self._counts[name] = [_summed(blocks)]
            after = self._counts[name][0].bytes
            if len(blocks) > 1 and after > before * 3 / 4:
                self._seldom_again.add(name)
            self._bytes += after - before
        self._added = 0

    def _shrink(self) -> None:
        """Add up, and give up the largest columns until a quarter of the space is free."""
        self._add_up(list(self._counts))
        sizes = {name: counts[0].bytes for name, counts in self._counts.items()}
        while sum(sizes.values()) > KEPT_BYTES * 3 / 4:
            largest = max(sizes, key=lambda name: sizes[name])
            del sizes[largest], self._counts[largest]
        self._bytes = sum(sizes.values())

    def measured(self) -> Mapping[str, ColumnFigures]:
        """Columns with their figures; those that are not known are left out."""
        found = {}
        for name in list(self._counts):
            counts = self._counts.pop(name)  # Column by column: what is done with is given back.
            if figures := _column_figures(self._columns[name], _summed(counts), shaped=name in self._shaped):
                found[name] = figures
        return found


@dataclass(frozen=True)
class _Counts:
    """Different `text`s of a column, one of them null, with their `rows`: of valid rows, and of rejected ones."""

    valid: pl.DataFrame
    rejected: pl.DataFrame

    @property
    def bytes(self) -> int:
        return sum(int(part.estimated_size()) + VIEW_BYTES * part.height for part in (self.valid, self.rejected))


def _unpacked(counted: pl.Series) -> pl.DataFrame:
    block = counted.explode(empty_as_null=False).struct.unnest()
    block.columns = ["text", "rows"]
    return block.cast({"rows": pl.Int64})


def _summed(counts: list[_Counts]) -> _Counts:
    def summed(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat(parts).group_by("text").agg(pl.col("rows").sum())

    return _Counts(summed(c.valid for c in counts), summed(c.rejected for c in counts))


def _column_figures(column: Column, counts: _Counts, *, shaped: bool) -> ColumnFigures | None:
    valid, rejected = (
        part.with_columns(value=_values(column, part["text"], are_valid=part is counts.valid))
        for part in (counts.valid, counts.rejected)
    )
    texts = [part["text"].drop_nulls() for part in (valid, rejected)]
    if shaped:  # What may only be shown by its shape is neither the smallest value nor the largest.
        rejected = rejected.with_columns(pl.when(pl.col("text").is_in(texts[0].implode())).then("value"))
    known, read = (part["value"].drop_nulls() for part in (valid, rejected))
    read = read.unique()
    if known.dtype != pl.String:  # Valid ones that stay text are different already.
        known = known.unique()
    unread = rejected.filter(pl.col("value").is_null())["text"].drop_nulls().n_unique()
    # Of the two the rejected values are looked up, which are few: a set of all the valid ones takes long to make.
    staged = len(known) + len(read) - int(known.is_in(read.implode()).sum()) + unread
    try:
        return {
            "staged": _figures(column, pl.concat([valid, rejected]), staged),
            "valid": _figures(column, valid, len(known)),
        }
    except OverflowError:  # A sum of large floats, which the server has as numeric.
        return None


def _values(column: Column, texts: pl.Series, *, are_valid: bool) -> pl.Series:
    """What texts stand for, as what sorts like it; null where they could not be read."""
    if column.type is str and column.trim and not are_valid:
        return texts.str.strip_chars()
    if column.type in (str, list[float]) or column.is_protected or (column.type is dt.datetime and are_valid):
        return texts  # Valid times all are in UTC and of one form.
    # The cell of a rejected row stands as it arrived.
    values = clean(column, texts.alias(column.name)).to_frame().select(parse(column))
    return values.select(as_text(column)).to_series() if column.type is dt.datetime else values.to_series()


def _figures(column: Column, counted: pl.DataFrame, distinct: int) -> dict[str, Any]:
    """Figures of texts with their `value` and their `rows`."""
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
