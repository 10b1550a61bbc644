"""Erasing: rewriting a file without the records of one person, with every other record on its original line.

Here: finding the records of a person in a file, and writing the file without them. Not here: which files, the ledger, tables
(`operations/forget.py`).

The lines of an erased record become empty, which is not a record in any format that is read by lines. The new file is read
again and compared with the old one: if they do not agree, as with several records on one line, it is not used.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mini_platform.rows.protection import Keyring, normalized, plain, protected
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.readers.unpack import GZIP_MAGIC, ZIP_MAGICS, Unpacked, unpacked
from mini_platform.rows.validation import clean_columns, read_cells

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset

PIECE = 2**20
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
"""Byte order marks of encodings in which a line end is more than one byte."""
REST = 2**62
"""The line after the last one."""


@dataclass(frozen=True)
class Person:
    """The person to be forgotten.

    Attributes:
        text: a value of a hashed column, normalized.
        keys: typed keys of the person's rows in production: a row of somebody else with such a key counts again.
        keyring: hashes keys that are personal themselves.
    """

    text: str
    keys: pl.DataFrame
    keyring: Keyring

    @property
    def mentioned(self) -> re.Pattern[str]:
        """Return a pattern that matches the value within a text, but not as a part of a longer name or address."""
        return re.compile(rf"(?<![\w.+-]){re.escape(self.text)}(?![\w-]|\.\w)")

    def is_mentioned(self, text: str) -> bool:
        """Return True if a text contains the value."""
        return self.text in text.lower() and self.mentioned.search(normalized(text)) is not None


@dataclass
class Search:
    """The result of searching a file for a person.

    Attributes:
        lines: lines on which the person's records start.
        records: number of each among the records that start on its line, as in `Block.records`, or 0.
        ends: the line after each of them.
        shared: those keys of the person's rows that rows of others have, or may have.
        others: digest of all other records, with their lines.
        mentioned: True if a text that cannot be read as records contains the value.
        problem: why the file cannot be read to its end, or cannot be written without the records.
        unread: why the file could not be searched at all.
    """

    lines: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    shared: list[pl.DataFrame] = field(default_factory=list)
    others: str = ""
    mentioned: bool = False
    problem: str | None = None
    unread: str | None = None


def search(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits, person: Person) -> Search:
    """Return the records of a person in a file: those with the value in a hashed column, and those that mention it."""
    result = Search()
    others = hashlib.sha256()
    previous: tuple[int, bool] | None = None  # The previous record: its line, and True if it is the person's.
    try:
        for block in read_rows(dataset, path, name, channel, limits):
            is_person = _is_persons(dataset, block.rows, person)
            result.shared += _shared(dataset, block.rows.filter(~is_person), person)
            hashes = block.rows.hash_rows().to_numpy()
            malformed = [
                (m.line, person.is_mentioned(m.raw), hash((m.rule, m.raw)) & 2**63 - 1) for m in block.malformed
            ]
            lines = np.concatenate([block.lines, np.array([b[0] for b in malformed], np.int64)])
            flags = np.concatenate([is_person.to_numpy(), np.array([b[1] for b in malformed], bool)])
            digests = np.concatenate([hashes, np.array([b[2] for b in malformed], np.uint64)])
            numbers = np.zeros(len(is_person), np.int64) if block.records is None else block.records
            numbers = np.concatenate([numbers, np.array([m.record for m in block.malformed], np.int64)])
            order = np.lexsort((numbers, lines))
            lines, numbers, flags, digests = lines[order], numbers[order], flags[order], digests[order]
            # All records, malformed ones included, in the order of the file. The digest of the others, with their lines, is
            # compared with that of the new file, which proves that nothing else was changed. A record ends where the next one
            # starts; the loop is skipped for blocks without the person, unless the last record before them is the person's.
            others.update(np.column_stack([lines[~flags].astype(np.uint64), digests[~flags]]).tobytes())
            if not flags.any() and not (previous and previous[1]):
                previous = (int(lines[-1]), False) if len(lines) else previous
                continue
            for line, number, flag in zip(lines.tolist(), numbers.tolist(), flags.tolist(), strict=True):
                if previous and previous[1]:
                    result.ends.append(line)
                if previous and previous[0] == line and (flag or previous[1]):
                    result.problem = "several records stand on one line"
                if flag:
                    result.lines.append(line)
                    result.records.append(number)
                previous = (line, flag)
    except RefusedFileError as refusal:
        result.problem = refusal.sentence
    if len(result.ends) < len(result.lines):
        result.ends.append(REST)
    result.others = others.hexdigest()
    return result


def _is_persons(dataset: Dataset, rows: pl.DataFrame, person: Person) -> pl.Series:
    """Return a mask of the rows that are the person's."""
    none = pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    is_person = none
    hashed = [column for column in dataset.read_columns if column.personal == "hash"]
    cleaned = clean_columns(hashed, rows)
    digests = person.keyring.digests(person.text)
    for column in hashed:
        cells = cleaned[column.name]
        is_person = is_person | ((plain(cells) == person.text) | cells.is_in(digests)).fill_null(value=False)
    # A longer name is another person's, but an address within a text is the same address.
    searched = rows if "@" in person.text else rows.drop(cleaned.columns)
    for cells in searched:
        candidates = (
            cells.str.to_lowercase().str.contains(person.text, literal=True).fill_null(value=False) & ~is_person
        )
        if candidates.any():
            indices = candidates.arg_true()
            confirmed = [person.is_mentioned(text) for text in cells.gather(indices)]
            is_person = is_person | none.scatter(indices, confirmed)
    return is_person.rename("is_person")


def _shared(dataset: Dataset, others: pl.DataFrame, person: Person) -> list[pl.DataFrame]:
    """Return keys of the person that rows of others have too; an empty list if there are none."""
    if person.keys.is_empty() or others.is_empty():
        return []
    columns = [next(c for c in dataset.columns if c.name == name) for name in dataset.key]
    hashed_before = len(person.keyring.keys) > 1 and any(column.is_protected for column in columns)
    if hashed_before or not all(column.is_read for column in columns):
        return [person.keys]  # The key is not in the file, or not as in the table: any of them may be shared.
    _, keys = read_cells(columns, others)
    stored = [protected(column, keys[column.name], person.keyring) for column in columns if column.is_protected]
    shared = person.keys.join(keys.with_columns(stored), on=list(dataset.key), how="semi")
    return [] if shared.is_empty() else [shared]


def erase(
    dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits, person: Person, target: Path
) -> tuple[Search, bool]:
    """Write a file without the records of a person.

    Args:
        dataset: dataset of the file.
        path: path of the file.
        name: name under which it arrived.
        channel: channel by which it arrived.
        limits: limits of the readers.
        person: person to be forgotten.
        target: path of the new file.

    Returns:
        The search's result, and True if the target was written without the person's records.
    """
    result = search(dataset, path, name, channel, limits, person)
    if result.problem and not result.lines:
        result.mentioned = _mentions(path, limits, person, result)
    if not result.lines or result.problem:
        return result, False
    encoding = getattr(format_of(name, dataset.sources), "encoding", None) or "utf-8"
    with unpacked(path, limits) as source:
        head = source.read(4)
    if head.startswith(WIDE) or "\r\n".encode(encoding) != b"\r\n":
        result.problem = "its encoding is not written line by line"
        return result, False
    _write_without(path, limits, result, target)
    check = search(dataset, target, name, channel, limits, replace(person, keys=person.keys.clear()))
    if check.problem or check.lines or check.others != result.others:
        result.problem = "its records cannot be separated by lines"
        return result, False
    return result, True


def _mentions(path: Path, limits: ReadLimits, person: Person, result: Search) -> bool:
    """Return True if the text of a file that cannot be read as rows contains the value."""
    try:
        with unpacked(path, limits) as source:
            tail = ""
            while piece := source.read(PIECE):
                text = tail + piece.replace(b"\0", b"").decode("utf-8", "replace")  # Covers most of UTF-16, too.
                if person.is_mentioned(text):
                    return True
                tail = text[-2 * len(person.text) :]
    except RefusedFileError as refusal:
        result.unread = refusal.sentence
    return False


def _write_without(path: Path, limits: ReadLimits, result: Search, target: Path) -> None:
    """Copy a file, with its compression, and leave the lines of the records empty."""
    erased = iter(zip(result.lines, result.ends, strict=True))
    start, end = next(erased)
    with unpacked(path, limits) as source, _packed_as(path, target) as out:
        for number, (text, line_end) in enumerate(_lines(source), start=1):
            while number >= end:
                start, end = next(erased, (REST, REST + 1))
            out.write(line_end if start <= number else text + line_end)


def _lines(source: Unpacked) -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines of a file, each with its line end: CR, LF or CRLF."""
    rest = b""
    while piece := source.read(PIECE):
        text = rest + piece
        cut = 0
        for match in re.finditer(rb"\r\n|\r(?!\Z)|\n", text):
            yield text[cut : match.start()], match[0]
            cut = match.end()
        rest = text[cut:]
    if rest.endswith(b"\r"):
        yield rest[:-1], b"\r"
    elif rest:
        yield rest, b""


@contextmanager
def _packed_as(path: Path, target: Path) -> Iterator[Any]:
    """Open a file for writing with the compression of another one; equal content makes equal bytes."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(GZIP_MAGIC):
        with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            yield packed
    elif magic in ZIP_MAGICS:
        with zipfile.ZipFile(path) as archive:
            (name,) = (member.filename for member in archive.infolist() if not member.is_dir())
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as packed:
                yield packed
    else:
        with target.open("wb") as plain_file:
            yield plain_file
