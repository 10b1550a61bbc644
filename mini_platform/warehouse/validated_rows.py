"""Validated rows: raw files -> blocks of CSV for COPY, and a tally of every file.

Rows of small files are gathered and validated together: evaluating a rule has a fixed cost of milliseconds.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mini_platform.declare.dataset import Dataset
from mini_platform.rows.protection import Keyring, protect, shape, shapes
from mini_platform.rows.readers import Block, ReadLimits, RefusedFileError
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.stored_values import stored_values
from mini_platform.rows.validation import parse, validate, validate_malformed
from mini_platform.warehouse.figures import Figures

Progress = Callable[[int, int], None]
"""Function called with the numbers of bytes and rows that were read since its last call."""

GATHERED_ROWS = 50_000
SLOW_BYTES = 32 * 2**20
"""A file of more text than this (about half a million rows, one second) is deferred while others wait in its batch."""
MALFORMED_BYTES = 1000
"""Size of well-formed text that takes as long as one malformed record, which is an object of its own."""
UNIQUE_KEYS = 20_000_000
"""Number of rows of a file up to which the hashes of its keys (8 bytes each) are kept, to find out if a key occurs twice."""
KEY_PARTS = 8
PLATFORM_COLUMNS = ("_rules", "_reasons", "_file_id", "_line", "_record", "_raw", "_extra")
"""Columns of staging before the declared ones, in the order of COPY."""


@dataclass(frozen=True)
class RawFiles:
    """The location of raw files, and how they are read.

    Attributes:
        path: SHA-256 -> path of the raw file.
        limits: limits of the readers.
        keyring: keys that hash personal data; required by a dataset that has any to protect.
    """

    path: Callable[[str], Path]
    limits: ReadLimits = field(default_factory=ReadLimits)
    keyring: Keyring | None = None


@dataclass
class Tally:
    """A file, and its counts while it is read."""

    file_id: int
    name: str
    channel: str
    path: Path
    rows_erased: int = 0
    rows_read: int = 0
    rows_rejected: int = 0
    rule_counts: Counter[str] = field(default_factory=Counter)
    unexpected_columns: dict[str, None] = field(default_factory=dict)
    missing_columns: dict[str, None] = field(default_factory=dict)
    keys: list[pl.Series] = field(default_factory=list)
    unique: bool | None = None
    figures: Figures | None = None
    refused: str | None = None
    deferred: bool = False

    def ledger_row(self, dataset: Dataset) -> dict[str, Any]:
        """Return the values of the file for the ledger: staged, or refused with the reason.

        Rows of erased persons count as valid rows that were read, so that their removal does not raise the share of rejected
        rows. Those of them that were rejected count as valid too, as nothing is kept of them.
        """
        reason = self.refused
        if reason is None and dataset.reject_limit.exceeded(self.rows_rejected, self.rows_read + self.rows_erased):
            worst, count = self.rule_counts.most_common(1)[0]
            erased = f" ({self.rows_erased} more were of erased persons)" if self.rows_erased else ""
            reason = (
                f"{self.rows_rejected} of {self.rows_read} rows{erased} are rejected, more than the dataset allows "
                f"({dataset.reject_limit}); most often: {worst} ({count} row{'' if count == 1 else 's'})"
            )
        return {
            "file_id": self.file_id,
            "status": "refused" if reason else "staged",
            "error": reason,
            "rows_read": self.rows_read,
            "rows_rejected": self.rows_rejected,
            "rule_counts": self.rule_counts,
            "keys_unique": self.keys_unique(),
            "figures": self.figures and self.figures.measured(),
            "unexpected_columns": list(self.unexpected_columns),
            "missing_columns": list(self.missing_columns),
        }

    def keys_unique(self) -> bool:
        """Return True if no key occurs twice among the valid rows; False if checking would take too much memory."""
        if self.unique is None:
            self.unique = self._have_unique_keys()
        return self.unique

    def _have_unique_keys(self) -> bool:
        valid = self.rows_read - self.rows_rejected
        if valid == 0 or valid > UNIQUE_KEYS or not self.keys:
            return False
        blocks, self.keys = [hashes.to_numpy() for hashes in self.keys], []
        # Equal hashes are in the same part. Sorting all of them at once would take three times their memory.
        for part in range(KEY_PARTS):
            hashes = np.sort(np.concatenate([block[block % KEY_PARTS == part] for block in blocks]))
            if (hashes[1:] == hashes[:-1]).any():
                return False
        return True


@dataclass(frozen=True)
class _Part:
    """A block of rows, and the id of its file."""

    file_id: int
    block: Block

    @property
    def numbers(self) -> np.ndarray:
        """Return the `_record` of its rows."""
        return np.zeros(self.block.rows.height, np.int64) if self.block.records is None else self.block.records


class ValidatedRows:
    """The validated rows of a batch of files: reads and validates them, and counts them in the tallies."""

    def __init__(
        self,
        dataset: Dataset,
        tallies: dict[int, Tally],
        raw: RawFiles,
        progress: Progress | None,
    ) -> None:
        """Raise ValueError if the dataset has personal data to protect and there is no keyring."""
        if dataset.is_protected and raw.keyring is None:
            raise ValueError(f"dataset {dataset.name} has personal data to protect, but no key is configured")
        self._dataset = dataset
        self._tallies = tallies
        self._raw = raw
        self._progress = progress
        adopted = [column.name for column in dataset.adopted_columns]
        self._columns = [*(column.name for column in dataset.staged_columns if not column.derived), *adopted]
        self._staged = [*(column.name for column in dataset.staged_columns), *adopted]
        self._gathered: list[_Part] = []
        self._rows = 0

    def as_csv(self) -> Iterator[bytes]:
        """Yield rows as CSV: rules, reasons, file id, line, raw text, extra columns, then the declared columns."""
        fast = {tally.file_id for tally in self._tallies.values() if tally.path.stat().st_size <= SLOW_BYTES}
        # A slow file is deferred if fast ones wait in the batch: at once if it is large, or as soon as its text turns out to be
        # long, as that of compressed files. Rows of it that were sent already are deleted from staging in the same transaction.
        for file_id, tally in self._tallies.items():
            others = len(fast) > (file_id in fast)
            if others and file_id not in fast:
                tally.deferred = True
                continue
            bytes_reported, weight = 0, 0.0
            try:
                for block in read_rows(self._dataset, tally.path, tally.name, tally.channel, self._raw.limits):
                    weight += block.rows.estimated_size() + MALFORMED_BYTES * len(block.malformed)
                    if others and weight > SLOW_BYTES:
                        tally.deferred = True
                        fast.discard(file_id)
                        break
                    tally.rows_read += block.rows.height + len(block.malformed)
                    # An undeclared name may be personal, such as an address if objects are used as mappings.
                    extra = map(shape, block.extra) if self._dataset.is_personal else block.extra
                    tally.unexpected_columns.update(dict.fromkeys(extra))
                    tally.missing_columns.update(dict.fromkeys(block.missing_columns))
                    self._gathered.append(_Part(file_id, block))
                    self._rows += block.rows.height + len(block.malformed)
                    if self._progress:
                        self._progress(block.bytes_read - bytes_reported, block.rows.height + len(block.malformed))
                        bytes_reported = block.bytes_read
                    if self._rows >= GATHERED_ROWS:
                        yield from self._validate_gathered()
            except RefusedFileError as error:
                tally.refused = str(error)
        yield from self._validate_gathered()

    def _validate_gathered(self) -> Iterator[bytes]:
        gathered, self._gathered, self._rows = self._gathered, [], 0
        if malformed := [(part.file_id, m) for part in gathered for m in part.block.malformed]:
            for file_id, record in malformed:
                self._tallies[file_id].rows_rejected += 1
                self._tallies[file_id].rule_counts[record.rule] += 1
            ids = pl.Series("_file_id", [file_id for file_id, _ in malformed], pl.Int64)
            rows = validate_malformed([record for _, record in malformed])
            rows = rows.with_columns(ids, pl.Series("_record", [record.record for _, record in malformed], pl.Int64))
            if self._dataset.is_protected:
                rows = rows.with_columns(_raw=shapes(rows["_raw"]))
            yield self._csv(rows)
        for exported in (False, True):
            if filled := [part for part in gathered if part.block.rows.height and part.block.is_export == exported]:
                yield self._csv(self._validate(filled))

    def _validate(self, filled: Sequence[_Part]) -> pl.DataFrame:
        """Return the rows of some blocks validated, with their file and line, and count the rules that they break.

        All of the blocks are of exports, or none is.
        """
        blocks = [part.block for part in filled]
        rows = pl.concat([block.rows[:, : len(self._columns)] for block in blocks], rechunk=True)
        ids = pl.Series(
            "_file_id", np.repeat([part.file_id for part in filled], [block.rows.height for block in blocks]), pl.Int64
        )
        lines = pl.Series("_line", np.concatenate([block.lines for block in blocks]))
        numbers = pl.Series("_record", np.concatenate([part.numbers for part in filled]))
        rows = rows.with_columns(ids, lines, numbers)
        stored: Mapping[str, pl.Series] = {}
        if derived := [block.derived for block in blocks if block.derived is not None]:
            rows = rows.with_columns(pl.concat(derived, rechunk=True).get_columns())
            stored = stored_values(self._dataset, rows, self._raw.keyring)
        results = validate(self._dataset, rows, stored)
        rejected = results.rows["_rules"].is_not_null()
        for rule, fails in results.broken:
            for file_id, count in _count(ids.filter(fails)):
                self._tallies[file_id].rule_counts[rule.name] += count
        for file_id, count in _count(ids.filter(rejected)):
            self._tallies[file_id].rows_rejected += count
        validated = results.rows
        if self._raw.keyring is not None:
            validated = protect(self._dataset, validated, self._raw.keyring)
        if len(self._tallies) == 1:  # Only used for a file that is alone in its batch.
            tally = next(iter(self._tallies.values()))
            if tally.rows_read <= UNIQUE_KEYS:
                tally.keys.append(self._key_hashes(validated, results.keys).filter(~rejected))
            if tally.rows_read >= GATHERED_ROWS:
                tally.figures = tally.figures or Figures(self._dataset)
                tally.figures.add(validated)
        if any(block.rows.width > len(self._columns) for block in blocks):
            validated = validated.with_columns(pl.concat([self._extra(block) for block in blocks], rechunk=True))
        return validated

    def _key_hashes(self, validated: pl.DataFrame, typed: pl.Series) -> pl.Series:
        """Return hashes of the keys as they are stored: protected columns are text, and two texts may have become equal."""
        key = [column for column in self._dataset.columns if column.name in self._dataset.key]
        if not any(column.is_protected for column in key):
            return typed
        return validated.select(map(parse, key)).hash_rows()

    def _extra(self, block: Block) -> pl.Series:
        """Return the undeclared columns, as a JSON object for each row; null if there are none."""
        names = block.rows.columns[len(self._columns) :]
        if not names:
            return pl.repeat(None, block.rows.height, dtype=pl.String, eager=True).alias("_extra")
        if block.extra_as_json:
            return block.extra_as_json(names).alias("_extra")
        return block.rows.select(pl.struct(names).struct.json_encode().alias("_extra")).to_series()

    def _csv(self, rows: pl.DataFrame) -> bytes:
        order = (*PLATFORM_COLUMNS, *self._staged)
        missing = [pl.lit(None, pl.String).alias(name) for name in order if name not in rows.columns]
        buffer = io.BytesIO()  # A str would be decoded, and encoded again.
        rows.with_columns(missing).select(order).write_csv(buffer, include_header=False)
        return buffer.getvalue()


def _count(ids: pl.Series) -> Iterator[tuple[int, int]]:
    yield from ids.value_counts(name="count").iter_rows()
