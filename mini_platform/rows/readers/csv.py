"""CSV files -> blocks of text rows.

Here: reading a file in bounded memory, a chunk of whole lines at a time. Each step has its own module:
`unpack` (gzip, zip), `decode` (encodings), `dialect`, `lines`, `records` (quotes), `header`, `parse` (fields). `records`
describes what is accepted and how far a bad record affects its neighbours.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mini_platform.rows.readers import Block, Malformed, ReadLimits, RefusedFileError
from mini_platform.rows.readers.decode import utf8_pieces
from mini_platform.rows.readers.dialect import Dialect, dialect_of
from mini_platform.rows.readers.exports import exported_columns, is_export
from mini_platform.rows.readers.header import ExpectedColumns, by_position, join_names, match_header
from mini_platform.rows.readers.lines import split_lines, whole_lines
from mini_platform.rows.readers.parse import RAW_BYTES, AmbiguousQuotesError, RowParser, raw_text
from mini_platform.rows.readers.records import Chunk
from mini_platform.rows.readers.unpack import Unpacked, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.declare.sources import Csv

BLOCK_BYTES = 2 * 2**20
"""Bytes of text in one block."""
_BLOCK_LINES = 250_000
"""Most lines in one block: each malformed line becomes an object, and very short ones would take 1,000 times their size."""
_SEARCHED_LINES = 1000
"""Number of lines searched for a header."""
_LINE_END = re.compile(rb"[\r\n]")
_BLANK = re.compile(rb"(?:[^\S\r\n]*+(?:\r\n|\r|\n))++|[^\S\r\n]++\Z")


class _Window:
    """The part of a file's text that is in memory.

    Attributes:
        text: text that was read and not yet used; it starts at the start of a line.
        line: number of that line.
        final: True if the text reaches the end of the file.
    """

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self._pieces = pieces
        self._size = size
        self.text = b""
        self.line = 1
        self.final = False

    def fill(self) -> None:
        """Read about one more block; at least as much as is held, so that a long record needs few steps."""
        target = max(self._size, len(self.text))
        pieces, length = [self.text], 0
        while length < target and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            else:
                pieces.append(piece)
                length += len(piece)
        self.text = b"".join(pieces)

    def at_end(self) -> bool:
        """Return True if the whole file was used."""
        if not self.text and not self.final:
            self.fill()
        return not self.text

    def drop(self, length: int, lines: int) -> None:
        """Drop `length` bytes, which end `lines` lines."""
        self.text = self.text[length:]
        self.line += lines

    def drop_line(self) -> None:
        """Drop a line of any length, without holding it in memory."""
        while not (end := _LINE_END.search(self.text)) and not self.final:
            self.text = b""
            self.fill()
        if end and end.end() == len(self.text) and not self.final:  # a CR whose LF may follow
            self.fill()
        stop = end.end() if end else len(self.text)
        self.drop(stop + (self.text[stop - 1 : stop + 1] == b"\r\n"), 1)


@lru_cache(maxsize=16)
def _parser(
    fields: tuple[str, ...] | None, expected: ExpectedColumns, dialect: Dialect, limits: ReadLimits
) -> RowParser:
    """Return the parser for files with this header; cached, as most files of a dataset have the same one."""
    header = by_position(expected.names) if fields is None else match_header(fields, expected)
    return RowParser(header, dialect, limits)


def _drop_blank_lines(window: _Window, dialect: Dialect, limits: ReadLimits) -> None:
    """Drop lines up to the first one that is neither blank nor a comment."""
    while True:
        cut = whole_lines(window.text, final=window.final)
        if cut and (blank := _BLANK.match(window.text[:cut])):
            window.drop(blank.end(), len(split_lines(window.text, blank.end()).starts))
        elif dialect.comment and window.text.startswith(dialect.comment):
            window.drop_line()
        elif cut or window.final or len(window.text) > limits.max_record_bytes:
            return
        else:
            window.fill()


def _first_record(window: _Window, dialect: Dialect, limits: ReadLimits) -> tuple[list[str], int] | str:
    """Return the fields of the record at the start of the window and its end, or a sentence that says what is wrong."""
    too_long = f"The header is longer than {limits.max_record_bytes:,} bytes or has an open quote."
    while True:
        cut = whole_lines(window.text, final=window.final)
        match = dialect.record.match(window.text)
        stop = match.end() if match else 0
        if window.final or (stop < cut and window.text[stop : stop + 1] != dialect.quote):
            break
        if len(window.text) > limits.max_record_bytes:
            return too_long
        window.fill()
    rest = window.text[stop : stop + 2]
    if rest and rest[0] not in b"\r\n":
        opened = dialect.quote and rest.startswith(dialect.quote)
        problem = "a quote is opened and never closed" if opened else "text follows a closing quote"
        hint = " Is another delimiter in use?" if rest[0] in b",;\t|" else ""
        return f"The header cannot be read: {problem}.{hint}"
    if stop > limits.max_record_bytes:
        return too_long
    if b"\0" in window.text[:stop]:
        return "The header has NUL bytes. UTF-16 needs a byte order mark or a declaration."
    fields = [field.decode() for field in dialect.fields(window.text[:stop])]
    if dialect.trailing_delimiter and len(fields) > 1 and not fields[-1]:
        fields.pop()
    return fields, stop + (2 if rest == b"\r\n" else len(rest[:1]))


def _read_header(window: _Window, dialect: Dialect, limits: ReadLimits) -> tuple[str, ...]:
    """Remove the header, the first line that is not blank, from the window; return its fields."""
    _drop_blank_lines(window, dialect, limits)
    if not window.text:
        raise RefusedFileError("The file is empty: it has no header.")
    record = _first_record(window, dialect, limits)
    if isinstance(record, str):
        raise RefusedFileError(record)
    fields, end = record
    window.drop(end, len(split_lines(window.text, end).starts))
    return tuple(fields)


def _find_header(window: _Window, dialect: Dialect, limits: ReadLimits, expected: ExpectedColumns) -> tuple[str, ...]:
    """Drop the lines up to and including the header, the first line with all declared columns; return its fields."""
    nearest, fewest = "", len(expected.names)
    for _ in range(_SEARCHED_LINES):
        if window.at_end():
            break
        record = _first_record(window, dialect, limits)
        if not isinstance(record, str):
            fields, end = record
            if not (missing := expected.missing_from(fields)):
                window.drop(end, len(split_lines(window.text, end).starts))
                return tuple(fields)
            if len(missing) < fewest:
                nearest, fewest = f" Line {window.line} is closest; it lacks {join_names(missing)}.", len(missing)
        window.drop_line()
    raise RefusedFileError(
        f"None of the first {window.line - 1:,} lines is a header with {join_names(expected.names)}.", nearest
    )


def _skip_lines(window: _Window, count: int) -> None:
    for _ in range(count):
        if window.at_end():
            raise RefusedFileError(f"The file ends within the {count:,} lines that are declared to be skipped.")
        window.drop_line()


def read_csv(
    path: Path, source: Csv, columns: Sequence[Column], *, limits: ReadLimits, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Read a CSV file in bounded memory.

    A file without records yields one empty block, so that its columns are known. Columns beyond the declared ones are the
    header's extra columns. The records do not depend on `block_bytes`.

    Args:
        path: the raw file.
        source: the declared format.
        columns: the declared columns.
        limits: limits beyond which the file is refused or a record rejected.
        block_bytes: approximate bytes of text in one block.

    Yields:
        The records in the order of the file.

    Raises:
        RefusedFileError: the file is refused as a whole. It may be raised after blocks were yielded: a damaged end shows
            only when it is reached.
    """
    dialect = dialect_of(source)
    expected = ExpectedColumns.of(columns)
    with unpacked(path, limits) as raw:
        window = _Window(utf8_pieces(raw, source.encoding, block_bytes), block_bytes)
        if window.at_end():
            raise RefusedFileError("The file is empty: it has no header." if source.header else "The file is empty.")
        _skip_lines(window, source.skip_lines)
        fields = None
        if source.header == "find":
            fields = _find_header(window, dialect, limits, expected)
        elif source.header:
            fields = _read_header(window, dialect, limits)
        exported = fields is not None and is_export([field.strip() for field in fields], columns)
        if exported:
            expected = ExpectedColumns.of(exported_columns(columns))
        parser = _parser(fields, expected, dialect, limits)
        missing_columns = [name for name in expected.names if name not in parser.header.ordered]
        empty = True
        for block in _blocks(window, parser, raw):
            empty = False
            yield _with_missing_columns(replace(block, is_export=exported), expected, missing_columns)
        if empty:
            block = replace(_empty_block(parser, [], raw), is_export=exported)
            yield _with_missing_columns(block, expected, missing_columns)


def _with_missing_columns(block: Block, expected: ExpectedColumns, missing_columns: Sequence[str]) -> Block:
    """Return the block with the missing optional columns added, empty."""
    if not missing_columns:
        return block
    extra = [name for name in block.rows.columns if name not in expected.names]
    rows = block.rows.with_columns(pl.lit("").alias(name) for name in missing_columns).select(*expected.names, *extra)
    return replace(block, rows=rows, missing_columns=tuple(missing_columns))


def _empty_block(parser: RowParser, malformed: list[Malformed], raw: Unpacked) -> Block:
    return Block(np.empty(0, np.int64), parser.no_rows(), malformed, raw.bytes_read)


def _blocks(window: _Window, parser: RowParser, raw: Unpacked) -> Iterator[Block]:
    """Yield the blocks after the header.

    A chunk is as many whole lines as the window holds, at most `allowed`. The records of a chunk are found first by the
    parity of its quotes alone; if the parser then finds a malformed record of several lines, they are searched again with
    the number of fields taken into account. Lines of a record that is still open at the end stay in the window.
    """
    max_record = parser.limits.max_record_bytes
    allowed = _BLOCK_LINES
    while window.text or not window.final:
        cut = whole_lines(window.text, final=window.final)
        if not cut:
            length = len(window.text) - window.text.endswith(b"\r")
            if length > max(max_record, RAW_BYTES):
                malformed = parser.too_long(window.line, raw_text(window.text, 0, length))
                window.drop_line()
                yield _empty_block(parser, [malformed], raw)
            else:
                window.fill()
            continue
        all_lines = split_lines(window.text, cut)
        limited = len(all_lines.starts) > allowed
        lines = all_lines.first(allowed) if limited else all_lines
        chunk = Chunk(
            text=window.text,
            lines=lines,
            final=window.final and not limited,
            known_end=int(lines.nexts[-1]) if limited else len(window.text) - 1,
            dialect=parser.dialect,
            fields=len(parser.header.names),
            max_record=max_record,
        )
        records = chunk.records()
        try:
            parsed = parser.parse(chunk, records, window.line)
        except AmbiguousQuotesError:
            records = chunk.records(check_field_counts=True)
            parsed = parser.parse(chunk, records, window.line)
        used = records.lines_used
        if used:
            window.drop(int(lines.nexts[used - 1]), used)
        # A record with more lines than a block may have needs more of them; any other open record needs more text.
        allowed = allowed * 2 if limited and not used else _BLOCK_LINES
        numbers, rows, malformed_records = parsed
        if len(numbers) or malformed_records:
            yield Block(numbers, rows, malformed_records, raw.bytes_read)
        if not limited:
            window.fill()
