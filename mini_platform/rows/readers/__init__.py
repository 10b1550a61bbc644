"""Readers: the bytes of a raw file -> blocks of text rows, in bounded memory.

Here: decompression, encodings, record framing, matching a header with the declared columns, and faults in the form of a
record. Not here: what a value means (`validation.py`), Dagster, the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import polars as pl


@dataclass(frozen=True)
class ReadLimits:
    """Limits beyond which a reader refuses a file or rejects a record. Sizes are bytes of unpacked text.

    Attributes:
        max_file_bytes: size above which a file is refused.
        max_ratio: a packed file that unpacks to more than this many times its own size is refused as a bomb.
        max_field_bytes: a record with a longer field is malformed.
        max_record_bytes: a longer record is malformed; nothing longer is ever held in memory.
    """

    max_file_bytes: int = 20 * 2**30
    max_ratio: int = 200
    max_field_bytes: int = 2**20
    max_record_bytes: int = 8 * 2**20


class RefusedFileError(Exception):
    """A file is refused as a whole; the message is a sentence for its sender.

    Attributes:
        sentence: the message without content of the file, which may be personal data.
    """

    def __init__(self, sentence: str, content: str = "", hint: str = "") -> None:
        """Join what is wrong, the content of the file that shows it, and what may help."""
        super().__init__(sentence + content + hint)
        self.sentence = sentence + hint


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be split into columns.

    Attributes:
        line: physical line (1-based) on which the record starts.
        rule: name of the rule in `dataset.STRUCTURE_RULES` that the record breaks.
        raw: text of the record, shortened where it is very long; NUL is shown as U+2400, as Postgres cannot hold it.
        detail: the exact fault, such as `expected 4 fields, found 5`.
        record: number of the record among those that start on its line, as in `Block.records`.
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
        rows: n rows, every column text (polars String, never null: an empty field is ""), exactly as in the file.
            First the declared columns by their declared names, then the extra ones by the names in the header.
        malformed: the malformed records of this part of the file, by line.
        bytes_read: number of bytes of the raw file (packed, if it is packed) read when the block was built.
        extra: names of the undeclared columns, including dropped ones.
        missing_columns: names of declared columns that the file does not have.
        records: int64, shape (n,): number of each row among the records that start on its line, from 1; None if the
            format starts each record on its own line.
        extra_as_json: takes names of extra columns and returns n JSON objects with those of each row, null if a row has
            none; None if every row has every extra column, as text.
        is_export: True if the file is an export of the platform.
        derived: the derived columns of an export as text, "" where it has no value; None if the file is no export.
    """

    lines: np.ndarray
    rows: pl.DataFrame
    malformed: list[Malformed] = field(default_factory=list)
    bytes_read: int = 0
    extra: tuple[str, ...] = ()
    missing_columns: tuple[str, ...] = ()
    records: np.ndarray | None = None
    extra_as_json: Callable[[Sequence[str]], pl.Series] | None = None
    is_export: bool = False
    derived: pl.DataFrame | None = None
