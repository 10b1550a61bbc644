"""Erasing: a file without the records of one person, every other record on the line on which it stood.

Here: finding the records of a person in a file, and writing the file without them. Not here: which files, the ledger, tables
(`operations/forget.py`).

The lines of an erased record are left empty, which is no record in any format that is read by lines. What was written is read
again and compared with what was there: where it does not agree, as for several records on one line, there is no such file.
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

from mini_platform.rows.protection import PROTECTIONS, Keyring, normalized, plain
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.readers.unpack import GZIP_MAGIC, ZIP_MAGICS, Unpacked, unpacked
from mini_platform.rows.validation import clean_columns, parse

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset

PIECE = 2**20
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
"""Marks of encodings in which a line end is no single byte."""
REST = 2**62
"""The line after the last one."""


@dataclass(frozen=True)
class Person:
    """Who is to be forgotten.

    Attributes:
        text: a value of a hashed column, normalized.
        keys: typed keys of rows that the person has in production: a row of somebody else with such a key counts again.
        keyring: what hashes keys that are personal themselves.
    """

    text: str
    keys: pl.DataFrame
    keyring: Keyring

    @property
    def mentioned(self) -> re.Pattern[str]:
        """The value within a text, and not as a part of a longer name or address."""
        return re.compile(rf"(?<![\w.+-]){re.escape(self.text)}(?![\w-]|\.\w)")

    def is_mentioned(self, text: str) -> bool:
        """Whether a text has the value in it."""
        return self.text in text.lower() and self.mentioned.search(normalized(text)) is not None


@dataclass
class Search:
    """What a file holds of a person.

    Attributes:
        lines: on which the person's records start.
        records: number of each among those that start on its line, as `Block.records` has it, or 0.
        ends: the line after each of them.
        shared: those keys of the person's rows that somebody else's rows have, or may have.
        others: digest of all other records, with their lines.
        mentioned: whether a text that cannot be read as records has the value in it.
        problem: why the file cannot be read to its end, or cannot be written without the records.
        unread: why nothing can be known of it.
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
    """Find the records of a person in a file: those with the value in a hashed column, and those that mention it."""
    found = Search()
    others = hashlib.sha256()
    before: tuple[int, bool] | None = None  # The record before: its line, and whether it is the person's.
    try:
        for block in read_rows(dataset, path, name, channel, limits):
            theirs = _theirs(dataset, block.rows, person)
            found.shared += _shared(dataset, block.rows.filter(~theirs), person)
            hashes = block.rows.hash_rows().to_numpy()
            bad = [(m.line, person.is_mentioned(m.raw), hash((m.rule, m.raw)) & 2**63 - 1) for m in block.malformed]
            lines = np.concatenate([block.lines, np.array([b[0] for b in bad], np.int64)])
            flags = np.concatenate([theirs.to_numpy(), np.array([b[1] for b in bad], bool)])
            marks = np.concatenate([hashes, np.array([b[2] for b in bad], np.uint64)])
            numbers = np.zeros(len(theirs), np.int64) if block.records is None else block.records
            numbers = np.concatenate([numbers, np.array([m.record for m in block.malformed], np.int64)])
            order = np.lexsort((numbers, lines))
            lines, numbers, flags, marks = lines[order], numbers[order], flags[order], marks[order]
            others.update(np.column_stack([lines[~flags].astype(np.uint64), marks[~flags]]).tobytes())
            if not flags.any() and not (before and before[1]):
                before = (int(lines[-1]), False) if len(lines) else before
                continue
            for line, number, flag in zip(lines.tolist(), numbers.tolist(), flags.tolist(), strict=True):
                if before and before[1]:
                    found.ends.append(line)
                if before and before[0] == line and (flag or before[1]):
                    found.problem = "several records stand on one line"
                if flag:
                    found.lines.append(line)
                    found.records.append(number)
                before = (line, flag)
    except RefusedFileError as refusal:
        found.problem = refusal.sentence
    if len(found.ends) < len(found.lines):
        found.ends.append(REST)
    found.others = others.hexdigest()
    return found


def _theirs(dataset: Dataset, rows: pl.DataFrame, person: Person) -> pl.Series:
    """Which rows are the person's."""
    nobody = pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    theirs = nobody
    hashed = [column for column in dataset.read_columns if column.personal == "hash"]
    cleaned = clean_columns(hashed, rows)
    for column in hashed:
        theirs = theirs | (plain(cleaned[column.name]) == person.text).fill_null(value=False)
    # A longer name is another person's; an address within a text is the same address.
    free = rows if "@" in person.text else rows.drop(cleaned.columns)
    for cells in free:
        hits = cells.str.to_lowercase().str.contains(person.text, literal=True).fill_null(value=False) & ~theirs
        if hits.any():
            at = hits.arg_true()
            named = [person.is_mentioned(text) for text in cells.gather(at)]
            theirs = theirs | nobody.scatter(at, named)
    return theirs.rename("theirs")


def _shared(dataset: Dataset, others: pl.DataFrame, person: Person) -> list[pl.DataFrame]:
    """Keys of the person that rows of others have too; nothing where there are none."""
    if person.keys.is_empty() or others.is_empty():
        return []
    columns = [next(c for c in dataset.columns if c.name == name) for name in dataset.key]
    hashed_before = len(person.keyring.keys) > 1 and any(column.is_protected for column in columns)
    if hashed_before or not all(column.is_read for column in columns):
        return [person.keys]  # Not in the file, or not as in the table: it may be any.
    keys = clean_columns(columns, others)
    stored = [
        PROTECTIONS[str(column.personal)](keys[column.name], person.keyring).alias(column.name)
        for column in columns
        if column.is_protected
    ]
    found = person.keys.join(keys.with_columns(stored).select(map(parse, columns)), on=list(dataset.key), how="semi")
    return [] if found.is_empty() else [found]


def erase(
    dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits, person: Person, target: Path
) -> tuple[Search, bool]:
    """Write a file without the records of a person.

    Args:
        dataset: whose file.
        path: of the file.
        name: as it arrived.
        channel: by which it came in.
        limits: of the readers.
        person: to be forgotten.
        target: a new file.

    Returns:
        What was found, and whether the target now is the file without it.
    """
    found = search(dataset, path, name, channel, limits, person)
    if found.problem and not found.lines:
        found.mentioned = _mentions(path, limits, person, found)
    if not found.lines or found.problem:
        return found, False
    encoding = getattr(format_of(name, dataset.sources), "encoding", None) or "utf-8"
    with unpacked(path, limits) as source:
        head = source.read(4)
    if head.startswith(WIDE) or "\r\n".encode(encoding) != b"\r\n":
        found.problem = "its encoding is not written line by line"
        return found, False
    _write_without(path, limits, found, target)
    again = search(dataset, target, name, channel, limits, replace(person, keys=person.keys.clear()))
    if again.problem or again.lines or again.others != found.others:
        found.problem = "its records cannot be taken apart by lines"
        return found, False
    return found, True


def _mentions(path: Path, limits: ReadLimits, person: Person, found: Search) -> bool:
    """Whether the text of a file that cannot be read as rows has the value in it."""
    try:
        with unpacked(path, limits) as source:
            tail = ""
            while piece := source.read(PIECE):
                text = tail + piece.replace(b"\0", b"").decode("utf-8", "replace")  # UTF-16, too, for the most part.
                if person.is_mentioned(text):
                    return True
                tail = text[-2 * len(person.text) :]
    except RefusedFileError as refusal:
        found.unread = refusal.sentence
    return False


def _write_without(path: Path, limits: ReadLimits, found: Search, target: Path) -> None:
    """Copy a file, packed as it is, the lines of the found records empty."""
    erased = iter(zip(found.lines, found.ends, strict=True))
    start, end = next(erased)
    with unpacked(path, limits) as source, _packed_as(path, target) as out:
        for number, (text, line_end) in enumerate(_lines(source), start=1):
            while number >= end:
                start, end = next(erased, (REST, REST + 1))
            out.write(line_end if start <= number else text + line_end)


def _lines(source: Unpacked) -> Iterator[tuple[bytes, bytes]]:
    """The lines of a file, each with what ends it: CR, LF or CRLF."""
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
    """A file to write to that is packed as another one is; equal content makes equal bytes."""
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
