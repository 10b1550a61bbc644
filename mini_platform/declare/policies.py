"""Policies for undeclared columns, for several rows with one key, and for files with many rejected rows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from mini_platform.declare.columns import DeclarationError, report_bad_arguments

UnexpectedColumns = Literal["keep", "refuse", "ignore"]
"""Policy for columns that are not declared: "keep" stores them as JSON in `_extra`, "refuse" refuses the file, "ignore"
drops them."""


@report_bad_arguments
@dataclass(frozen=True)
class KeepHighest:
    """The policy that of several rows of one file with the same key, the one with the highest value of a column is loaded.

    Attributes:
        column: column whose highest value decides; of rows with equal values the last one is loaded.
    """

    column: str


@report_bad_arguments
@dataclass(frozen=True)
class RejectLimit:
    """A limit on the rejected rows of one file: a share of its rows, a number, or both; exceeding either is enough.

    Attributes:
        share: largest share of rejected rows, from 0 to 1; a file with a larger one exceeds the limit. None means no limit.
        rows: largest number of rejected rows; a file with more exceeds the limit. None means no limit.
        min_rows: smallest number of rows of a file from which `share` counts; in smaller files few rows make a large share.
            `rows` counts in every file.
    """

    share: float | None = None
    rows: int | None = None
    min_rows: int = 100

    def __post_init__(self) -> None:
        """Refuse a share outside 0 to 1, and numbers of rows below 0."""
        if self.share is not None and (isinstance(self.share, bool) or not 0 <= self.share <= 1):
            raise DeclarationError(
                f"RejectLimit: share is {self.share!r}; it takes a share from 0 to 1, such as 0.05 for 5%"
            )
        for option in ("rows", "min_rows"):
            value = getattr(self, option)
            if (type(value) is not int or value < 0) and not (option == "rows" and value is None):
                raise DeclarationError(f"RejectLimit: {option} is {value!r}; it takes a whole number from 0 on")

    def exceeded(self, rejected: int, read: int) -> bool:
        """Return True if the rejected rows, of those read, exceed it; 29 of 100 do not exceed a share of 0.29."""
        share = self._exact_share if read >= self.min_rows else None
        return (share is not None and rejected > share * read) or (self.rows is not None and rejected > self.rows)

    @cached_property
    def _exact_share(self) -> Fraction | None:
        return None if self.share is None else Fraction(str(self.share))

    def __str__(self) -> str:
        """Return the limit in words: `1,000 rows or 50% of at least 100 rows`."""
        rows = [] if self.rows is None else [f"{self.rows:,} row{'' if self.rows == 1 else 's'}"]
        least = f" of at least {self.min_rows:,} rows" if self.min_rows > 1 else ""
        share = [] if self._exact_share is None else [f"{float(100 * self._exact_share):.15g}%{least}"]
        return " or ".join(rows + share) or "no limit"
