"""Readers: the bytes of a raw file -> blocks of text rows, in bounded memory.

Here: decompression, encodings, record framing, the match of a header with the declared columns, and what is wrong with
the form of a record. Not here: what a value means (`validation.py`), Dagster, the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import polars as pl


@dataclass(frozen=True)
class ReadLimits:
    """What a reader takes before it refuses a file or rejects a record. Sizes are bytes of unpacked text.

    Attributes:
        max_file_bytes: a larger file is refused.
        max_ratio: a packed file that unpacks to more than this many times its own size is refused as a bomb.
        max_field_bytes: a record with a longer field is malformed.
        max_record_bytes: a longer record is malformed; nothing longer is ever held in memory.
    """

    max_file_bytes: int = 20 * 2**30
    max_ratio: int = 200
    max_field_bytes: int = 2**20
    max_record_bytes: int = 8 * 2**20


class RefusedFileError(Exception):
    """A file that cannot be taken at all; the message is a sentence for its sender.

    Attributes:
        sentence: the message without what stands in the file, which may be personal data.
    """

    def __init__(self, sentence: str, seen: str = "", hint: str = "") -> None:
        """Say what is wrong, then what was seen in the file, then what may help."""
        super().__init__(sentence + seen + hint)
        self.sentence = sentence + hint


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record without columns.

    Attributes:
        line: physical line (1-based) on which the record starts.
        rule: name of the rule in `dataset.STRUCTURE_RULES` that it breaks.
        raw: its text, shortened where it is very long; NUL is shown as U+2400, as Postgres cannot hold it.
        detail: what exactly was found, such as `expected 4 fields, found 5`.
        record: as `Block.records` has it.
    """

    line: int
    rule: str
    raw: str
    detail: str
    record: int = 0


@dataclass(frozen=True)
class Block:
    """Consecutive records of one file.

    Attributes:
        lines: int64, shape (n,): the physical line (1-based) on which each row starts.
        rows: n rows, every column text (polars String, never null: an empty field is ""), exactly as it stood in the
            file. First the declared columns by their declared names, then the extra ones by the names in the header.
        malformed: the records of this stretch that have no columns, by line.
        bytes_read: how much of the raw file (packed, where it is packed) was read when the block was made.
        extra: names of the columns that are not declared, also where they were dropped.
        absent: names of declared columns that the file does not have.
        records: int64, shape (n,): number of each row among the records that start on its line, from 1; None where a format
            begins each on a line of its own.
        extra_as_json: makes n JSON objects of what the rows have in extra columns, null where it is nothing; None where each
            row has each of them, as text.
    """

    lines: np.ndarray
    rows: pl.DataFrame
    malformed: list[Malformed] = field(default_factory=list)
    bytes_read: int = 0
    extra: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    records: np.ndarray | None = None
    extra_as_json: Callable[[], pl.Series] | None = None
