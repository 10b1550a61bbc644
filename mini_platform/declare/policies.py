"""Policies: what becomes of columns that nobody declared, of several rows with one key, and of files with many rejects."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from mini_platform.declare.columns import DeclarationError, spelled

UnexpectedColumns = Literal["keep", "refuse", "ignore"]
"""What becomes of columns that are not declared: kept as JSON in `_extra`, a reason to refuse the file, or dropped."""


@spelled
@dataclass(frozen=True)
class KeepHighest:
    """Of several rows of one file with the same key, the one with the highest value of a column wins.

    Attributes:
        column: of them the one with the highest value in this column wins; of equal ones the last.
    """

    column: str


@spelled
@dataclass(frozen=True)
class RejectLimit:
    """A limit on the rejected rows of one file, as a share of its rows, as a count, or as both: either one is enough.

    Attributes:
        share: a file is above it if more than this share of its rows, from 0 to 1, are rejected; None: no share is too much.
        rows: a file is above it if more than this number of its rows are rejected; None: no number is too much.
    """

    share: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no share, and no number of rows."""
        if self.share is not None and (isinstance(self.share, bool) or not 0 <= self.share <= 1):
            raise DeclarationError(
                f"RejectLimit: share is {self.share!r}; it takes a share from 0 to 1, such as 0.05 for 5 %"
            )
        if self.rows is not None and (type(self.rows) is not int or self.rows < 0):
            raise DeclarationError(f"RejectLimit: rows is {self.rows!r}; it takes a whole number from 0 on")

    def exceeded(self, rejected: int, read: int) -> bool:
        """True if so many rejected rows of so many read are above it; 29 of 100 are not above a share of 0.29."""
        over_share = self._exact_share is not None and rejected > self._exact_share * read
        return over_share or (self.rows is not None and rejected > self.rows)

    @cached_property
    def _exact_share(self) -> Fraction | None:
        return None if self.share is None else Fraction(str(self.share))

    def __str__(self) -> str:
        """As words: `50% or 1,000 rows`."""
        share = [] if self._exact_share is None else [f"{float(100 * self._exact_share):.15g}%"]
        rows = [] if self.rows is None else [f"{self.rows:,} rows"]
        return " or ".join(share + rows) or "no limit"
