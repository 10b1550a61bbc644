"""A chunk of text -> its records: which lines belong together, and which lines have misplaced quotes.

A record is read from the start of a line. A field that begins with a quote ends at the next quote that is not doubled, which
a delimiter or a line end must follow; line ends in between belong to it. In any other field a quote is an ordinary character
(`5" pipe`). If that fails, only this line is malformed and reading resumes at the next line, so that a stray quote costs one
line and not the rest of the file. The same holds for a record of several lines with a wrong number of fields, if one of its
later lines is by itself a row with the right number and no literal quote: then the opening quote is taken for a stray one.
Blank lines are not records, nor are comments, if they are declared.

Here: records as ranges of lines. Not here: their fields (`parse.py`). The result does not depend on where a chunk was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mini_platform.rows.readers.dialect import Dialect
    from mini_platform.rows.readers.lines import Lines, Positions

_OPEN, _FAILED, _ENDED = range(3)

Outcome = tuple[int, int, int]
"""Result of following a record: one of the three states above, the offset reached, the number of fields after the first."""


@dataclass(frozen=True)
class Records:
    """The records of a chunk, without blank lines.

    Attributes:
        first: index of each record's first line.
        last: index of each record's last line.
        stray: index of each line with misplaced quotes, and the fault in words.
        lines_used: number of lines that belong to these records; the rest needs more text.
        by_parity: True if the records were found by the parity of quotes alone, without checking the number of fields.
    """

    first: Positions
    last: Positions
    stray: list[tuple[int, str]] = field(default_factory=list)
    lines_used: int = 0
    by_parity: bool = False

    @property
    def has_multiline(self) -> bool:
        """True if any record has more than one line."""
        return bool((self.first != self.last).any())


@dataclass(frozen=True)
class Chunk:
    """Text that starts at the start of a record.

    Attributes:
        text: the text, perhaps with the start of a further line.
        lines: the whole lines of the text.
        final: True if nothing follows them in the file.
        known_end: offset up to which a record that is open at the end of the lines is known to continue.
        dialect: dialect of the text.
        fields: number of fields in the header.
        max_record: bytes of the longest allowed record.
    """

    text: bytes
    lines: Lines
    final: bool
    known_end: int
    dialect: Dialect
    fields: int
    max_record: int

    @cached_property
    def end(self) -> int:
        """Offset of the end of the whole lines."""
        return int(self.lines.nexts[-1])

    def records(self, *, check_field_counts: bool = False) -> Records:
        """Return the records; `check_field_counts` checks the number of fields of records with several lines."""
        count = len(self.lines.starts)
        if self.dialect.has_no_marks(self.text, self.end):
            all_lines = np.flatnonzero(~self.comments) if self.dialect.comment else np.arange(count)
            return _without_blank(self.lines, Records(all_lines, all_lines, lines_used=count))
        if not self.dialect.is_plain:
            return _LineByLine(self).line_by_line()
        quotes = _Quotes(self)
        return (None if check_field_counts else quotes.by_parity()) or quotes.line_by_line()

    @cached_property
    def comments(self) -> npt.NDArray[np.bool_]:
        """True for each line that is a comment, unless it is in a record. A line longer than a record may be is not one."""
        ranges = zip(self.lines.starts.tolist(), self.lines.stops.tolist(), strict=True)
        prefix, max_bytes = self.dialect.comment, self.max_record
        is_comment = (self.text.startswith(prefix, start, stop) and stop - start <= max_bytes for start, stop in ranges)
        return np.fromiter(is_comment, np.bool_, len(self.lines.starts))


def _without_blank(lines: Lines, records: Records) -> Records:
    not_blank = lines.stops[records.first] > lines.starts[records.first]
    return (
        records if not_blank.all() else replace(records, first=records.first[not_blank], last=records.last[not_blank])
    )


class _LineByLine:
    """Finds the records of a chunk in any dialect, each from the start of its line."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.text, self.lines, self.end = chunk.text, chunk.lines, chunk.end
        self.dialect = chunk.dialect
        self.cache: dict[int, Outcome] = {}
        self.widths = {chunk.fields, chunk.fields + self.dialect.trailing_delimiter}

    def _unclear_lines(self) -> Positions:
        """Return the lines that may not be a record by themselves."""
        return np.flatnonzero(~self.chunk.comments) if self.dialect.comment else np.arange(len(self.lines.starts))

    @cached_property
    def _rows_before(self) -> Positions:
        """Number of lines before each line that are by themselves rows with the right number of fields."""
        row, fields = self.dialect.strict_record.fullmatch, self.dialect.fields
        ranges = zip(self.lines.starts.tolist(), self.lines.stops.tolist(), strict=True)
        rows = [
            start < stop
            and row(self.text, start, stop) is not None
            and len(fields(self.text[start:stop])) in self.widths
            for start, stop in ranges
        ]
        return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    def line_by_line(self) -> Records:
        """Return the records, following each record from its first line unless that line is well-formed by itself.

        Every line starts a record at first; the further lines of a record are then unmarked in `begins`. A stray line starts a
        record that is left out at the end, so that the next line starts a record of its own. A record that needs more text
        stops the search: its lines and all after it are not used.
        """
        count = len(self.lines.starts)
        begins = np.ones(count, np.bool_)
        is_record = ~self.chunk.comments if self.dialect.comment else np.ones(count, np.bool_)
        stray: list[tuple[int, str]] = []
        resume = 0
        used = count
        one_line = self.dialect.record.fullmatch
        unclear = self._unclear_lines()
        ranges = (unclear.tolist(), self.lines.starts[unclear].tolist(), self.lines.stops[unclear].tolist())
        for line, start, stop in zip(*ranges, strict=True):
            if line < resume or one_line(self.text, start, stop):
                continue
            last_or_fault = self._record_at(line)
            if last_or_fault is None:
                used = line
                break
            if isinstance(last_or_fault, str):
                stray.append((line, last_or_fault))
                is_record[line] = False
                continue
            begins[line + 1 : last_or_fault + 1] = False
            resume = last_or_fault + 1
        first = np.flatnonzero(begins[:used])
        last = np.append(first[1:], used) - 1
        retained = is_record[first]
        return _without_blank(self.lines, Records(first[retained], last[retained], stray, used))

    def _record_at(self, line: int) -> int | str | None:
        """Return the last line of the record that begins at `line`, or its fault; None if more text is needed."""
        start = int(self.lines.starts[line])
        if self.lines.stops[line] - start > self.chunk.max_record:
            return "the line is too long"
        state, at, more = self.follow(start)
        if state == _OPEN:
            too_long = self.chunk.known_end - start > self.chunk.max_record
            return self._unclosed(line) if self.chunk.final or too_long else None
        if state == _FAILED:
            if self.text[at : at + 1] == self.dialect.escape and at + 1 == self.end:
                return "nothing follows the escape character"
            same_line = at <= self.lines.stops[line]
            return "text follows a closing quote" if same_line else self._unclosed(line)
        last = int(np.searchsorted(self.lines.stops, at))
        if last == line:
            return last
        rows = self._rows_before[last + 1] - self._rows_before[line + 1]
        if at - start > self.chunk.max_record or (more + 1 not in self.widths and rows):
            return self._unclosed(line)
        return last

    def _unclosed(self, line: int) -> str:
        """Return the fault of a line with a record that does not end."""
        stop = int(self.lines.stops[line])
        if self.dialect.escape and self.text.endswith(self.dialect.escape, int(self.lines.starts[line]), stop):
            return "the line end is escaped, and the record does not continue"
        return "a quote is opened and never closed"

    def follow(self, start: int) -> Outcome:
        """Follow the record that begins at `start` to its end.

        From inside a quoted field the rest depends only on the position of the next quote, and after an escaped line end only
        on its position. So results are cached by that position: a file in which every line opens a quote is followed once and
        not once per line.
        """
        dialect, quote = self.dialect, self.dialect.quote
        text, end = self.text, self.end
        fields = 0
        visited: list[tuple[int, int]] = []
        at = start
        closed = -1
        match = dialect.head.match(text, at, end)
        while True:
            after = match.end() if match else at
            fields += dialect.count_delimiters(text, at, after)
            at = after
            if at == end or text[at] in b"\r\n":
                result = _ENDED
                break
            escaped = None if at == closed else dialect.escaped_end.match(text, at, end)
            if escaped:
                key, next_fields = at, dialect.rest
            elif text[at : at + 1] == quote:
                key, next_fields = text.find(quote, at + 1, end), dialect.tail
            else:
                result = _FAILED
                break
            if key >= 0 and (cached := self.cache.get(key)):
                result, at, fields = cached[0], cached[1], fields + cached[2]
                break
            visited.append((key, fields))
            skipped = escaped or dialect.closing.match(text, at + 1, end)
            if skipped is None or (escaped and skipped.end() == end):
                result = _OPEN
                break
            at = skipped.end()
            closed = -1 if escaped else at
            match = next_fields.match(text, at, end)
        for key, before in visited:
            self.cache[key] = (result, at, fields - before)
        return result, at, fields


class _Quotes(_LineByLine):
    """Finds the records of a chunk of plain CSV with quotes, all at once if possible.

    All lines are handled by vector operations on the positions of quotes. In a well-formed file the quotes of a record open and
    close alternately, and a doubled quote is a closing one followed by an opening one. So text after an even number of quotes
    is outside quoted fields, and a line end there ends a record (`by_parity`). If a quote is misplaced, parity is only valid
    within single lines, and lines that are not well-formed by themselves are followed one by one.
    """

    def __init__(self, chunk: Chunk) -> None:
        super().__init__(chunk)
        self.delimiter = self.dialect.delimiter
        self.codes = np.frombuffer(self.text, np.uint8, self.end)
        self.quotes = np.flatnonzero(self.codes == self.dialect.quote[0])
        border = np.zeros(256, np.bool_)
        border[list(b"\r\n" + self.delimiter)] = True
        self.starts_field = border.copy()
        border[self.dialect.quote[0]] = True
        before = np.ones(len(self.quotes), np.bool_)
        inner = self.quotes > 0
        before[inner] = border[self.codes[self.quotes[inner] - 1]]
        after = np.ones(len(self.quotes), np.bool_)
        inner = self.quotes < self.end - 1
        after[inner] = border[self.codes[self.quotes[inner] + 1]]
        self.may_open, self.may_close = before, after

    def _well_formed(self, ordinal: Positions) -> npt.NDArray[np.bool_]:
        """Return True for each quote with allowed neighbours, if quotes with an even ordinal open and the others close."""
        return np.where(ordinal % 2 == 0, self.may_open, self.may_close)

    def by_parity(self) -> Records | None:
        """Return the records by the parity of quotes alone; None unless every quote is well-formed.

        The length and the number of fields of a record of several lines are left to the parser, which asks again for a full
        check if they make one malformed.
        """
        quotes, lines = self.quotes, self.lines
        quotes_before = np.searchsorted(quotes, lines.stops)
        outside = np.flatnonzero(quotes_before % 2 == 0)
        if not len(outside) or (self.chunk.final and outside[-1] != len(lines.starts) - 1):
            return None
        used = int(quotes_before[outside[-1]])
        if not self._well_formed(np.arange(len(quotes)))[:used].all():
            return None
        first = np.zeros_like(outside)
        first[1:] = outside[:-1] + 1
        return _without_blank(lines, Records(first, outside, lines_used=int(outside[-1]) + 1, by_parity=True))

    @cached_property
    def _first_quotes(self) -> Positions:
        return np.searchsorted(self.quotes, self.lines.starts)

    @cached_property
    def _strict(self) -> npt.NDArray[np.bool_]:
        """True for each line whose quotes enclose whole fields, or that has no quotes."""
        line = np.searchsorted(self.lines.nexts, self.quotes, side="right")
        well_formed = self._well_formed(np.arange(len(self.quotes)) - self._first_quotes[line])
        count = len(self.lines.starts)
        even = np.bincount(line, minlength=count) % 2 == 0
        return np.asarray(even & (np.bincount(line[~well_formed], minlength=count) == 0))

    @cached_property
    def _literal(self) -> npt.NDArray[np.bool_]:
        """True for each line without a field that begins with a quote, so that its quotes are ordinary characters."""
        before = self.codes[np.maximum(self.quotes - 1, 0)]
        at_start = self.starts_field[before] | (self.quotes == 0)
        line = np.searchsorted(self.lines.nexts, self.quotes[at_start], side="right")
        return np.asarray(np.bincount(line, minlength=len(self.lines.starts)) == 0)

    def _unclear_lines(self) -> Positions:
        return np.flatnonzero(~(self._strict | self._literal))

    @cached_property
    def _rows_before(self) -> Positions:
        """Number of lines before each line that are by themselves rows with the right number of fields."""
        delimiters = np.flatnonzero(self.codes == self.delimiter[0])
        line = np.searchsorted(self.lines.nexts, delimiters, side="right")
        outside = (np.searchsorted(self.quotes, delimiters) - self._first_quotes[line]) % 2 == 0
        field_counts = np.bincount(line[outside], minlength=len(self.lines.starts)) + 1
        rows = self._strict & (self.lines.stops > self.lines.starts) & (field_counts == self.chunk.fields)
        return np.concatenate([[0], np.cumsum(rows)])
