"""Readers: the bytes of a raw file -> blocks of text rows, in bounded memory.

Here: decompression, encodings, record framing, the match of a header with the declared columns, and what is wrong with
the form of a record. Not here: what a value means (`validation.py`), Dagster, the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


class RefusedFileError(Exception):
    """A file that cannot be taken at all; the message is a sentence for its sender."""


@dataclass(frozen=True)
class Malformed:
    """A record without columns.

    Attributes:
        line: physical line (1-based) on which the record starts.
        rule: name of the rule in `dataset.STRUCTURE_RULES` that it breaks.
        raw: its text, shortened where it is very long; NUL is shown as U+2400, as Postgres cannot hold it.
        detail: what exactly was found, such as `expected 4 fields, found 5`.
    """

    line: int
    rule: str
    raw: str
    detail: str


@dataclass(frozen=True)
class Block:
    """Consecutive records of one file.

    Attributes:
        lines: int64, shape (n,): the physical line (1-based) on which each row starts.
        rows: n rows, every column text (polars String, never null: an empty field is ""), exactly as it stood in the
            file. First the declared columns by their declared names, then the extra ones by the names in the header.
        malformed: the records of this stretch that have no columns.
    """

    lines: np.ndarray
    rows: pl.DataFrame
    malformed: list[Malformed] = field(default_factory=list)
