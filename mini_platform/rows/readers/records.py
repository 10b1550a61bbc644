"""A stretch of text -> its records: which lines belong together, and which have quotes that make no sense.

A record is read from the start of a line. A field that begins with a quote ends at the next quote that is not doubled, which
a delimiter or a line end must follow; line ends within it belong to it. In any other field a quote is an ordinary character
(`5" pipe`). Where that fails, the line alone is malformed and reading resumes at the next line, so that a stray quote costs
one line and not the rest of the file. So does a record of several lines with a wrong number of fields, if one of its
later lines is by itself a row with the right number and no literal quote: then the quote is taken for a stray one. Blank
lines are no records, and neither are comments, where they are declared.

Here: records as lines from..to. Not here: their fields (`parse.py`). The result does not depend on where a stretch was cut.
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

Walk = tuple[int, int, int]
"""How a record goes on: one of the three words above, where, and how many fields begin after the first."""


@dataclass(frozen=True)
class Records:
    """The records of a stretch, without blank lines.

    Attributes:
        first: index of each record's first line.
        last: index of its last line.
        stray: lines whose quotes make no sense, with what is wrong.
        lines_used: how many lines were understood; the rest needs more text.
        trusting: whether every quote was well-formed, so that the number of fields was not looked at.
    """

    first: Positions
    last: Positions
    stray: list[tuple[int, str]] = field(default_factory=list)
    lines_used: int = 0
    trusting: bool = False

    @property
    def has_multiline(self) -> bool:
        """Whether any record has more than one line."""
        return bool((self.first != self.last).any())


@dataclass(frozen=True)
class Stretch:
    """Text to be read from the start of a record.

    Attributes:
        text: the text, perhaps with the beginning of a further line.
        lines: its whole lines.
        final: whether nothing follows them in the file.
        reach: up to where a record that is open at the end of the lines is known to go on.
        dialect: how it is written.
        fields: how many fields the header has.
        max_record: bytes of the longest record.
    """

    text: bytes
    lines: Lines
    final: bool
    reach: int
    dialect: Dialect
    fields: int
    max_record: int

    @cached_property
    def end(self) -> int:
        """Where the whole lines end."""
        return int(self.lines.nexts[-1])

    def records(self, *, careful: bool = False) -> Records:
        """Find the records; `careful` looks at the number of fields of those with several lines."""
        count = len(self.lines.starts)
        if self.dialect.has_no_marks(self.text, self.end):
            every = np.flatnonzero(~self.comments) if self.dialect.comment else np.arange(count)
            return _without_blank(self.lines, Records(every, every, lines_used=count))
        if not self.dialect.is_plain:
            return _LineByLine(self).resolving()
        quotes = _Quotes(self)
        return (None if careful else quotes.trusting()) or quotes.resolving()

    @cached_property
    def comments(self) -> npt.NDArray[np.bool_]:
        """Which lines are comments, if they do not belong to a record. One longer than a record may be is none."""
        ranges = zip(self.lines.starts.tolist(), self.lines.stops.tolist(), strict=True)
        prefix, longest = self.dialect.comment, self.max_record
        found = (self.text.startswith(prefix, start, stop) and stop - start <= longest for start, stop in ranges)
        return np.fromiter(found, np.bool_, len(self.lines.starts))


def _without_blank(lines: Lines, records: Records) -> Records:
    filled = lines.stops[records.first] > lines.starts[records.first]
    return records if filled.all() else replace(records, first=records.first[filled], last=records.last[filled])


class _LineByLine:
    """Finds the records of a stretch in any dialect, each from the start of its line."""

    def __init__(self, stretch: Stretch) -> None:
        self.stretch = stretch
        self.text, self.lines, self.end = stretch.text, stretch.lines, stretch.end
        self.dialect = stretch.dialect
        self.memo: dict[int, Walk] = {}
        self.widths = {stretch.fields, stretch.fields + self.dialect.trailing_delimiter}

    def _doubtful(self) -> Positions:
        """The lines that are perhaps no record by themselves."""
        return np.flatnonzero(~self.stretch.comments) if self.dialect.comment else np.arange(len(self.lines.starts))

    @cached_property
    def _rows_before(self) -> Positions:
        """How many lines before each line are by themselves rows with the right number of fields."""
        row, fields = self.dialect.strict_record.fullmatch, self.dialect.fields
        ranges = zip(self.lines.starts.tolist(), self.lines.stops.tolist(), strict=True)
        rows = [
            start < stop
            and row(self.text, start, stop) is not None
            and len(fields(self.text[start:stop])) in self.widths
            for start, stop in ranges
        ]
        return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    def resolving(self) -> Records:
        """The records, line by line where a line is not well-formed by itself."""
        count = len(self.lines.starts)
        begins = np.ones(count, np.bool_)
        is_record = ~self.stretch.comments if self.dialect.comment else np.ones(count, np.bool_)
        stray: list[tuple[int, str]] = []
        resume = 0
        used = count
        one_line = self.dialect.record.fullmatch
        doubtful = self._doubtful()
        ranges = (doubtful.tolist(), self.lines.starts[doubtful].tolist(), self.lines.stops[doubtful].tolist())
        for line, start, stop in zip(*ranges, strict=True):
            if line < resume or one_line(self.text, start, stop):
                continue
            found = self._record_at(line)
            if found is None:
                used = line
                break
            if isinstance(found, str):
                stray.append((line, found))
                is_record[line] = False
                continue
            begins[line + 1 : found + 1] = False
            resume = found + 1
        first = np.flatnonzero(begins[:used])
        last = np.append(first[1:], used) - 1
        kept = is_record[first]
        return _without_blank(self.lines, Records(first[kept], last[kept], stray, used))

    def _record_at(self, line: int) -> int | str | None:
        """The last line of the record that begins at `line`, or what is wrong with it; None if more text must tell."""
        start = int(self.lines.starts[line])
        if self.lines.stops[line] - start > self.stretch.max_record:
            return "the line is too long"
        state, at, more = self.walk(start)
        if state == _OPEN:
            too_long = self.stretch.reach - start > self.stretch.max_record
            return self._unclosed(line) if self.stretch.final or too_long else None
        if state == _FAILED:
            if self.text[at : at + 1] == self.dialect.escape and at + 1 == self.end:
                return "nothing follows the escape character"
            same_line = at <= self.lines.stops[line]
            return "text follows a closing quote" if same_line else self._unclosed(line)
        last = int(np.searchsorted(self.lines.stops, at))
        if last == line:
            return last
        rows = self._rows_before[last + 1] - self._rows_before[line + 1]
        if at - start > self.stretch.max_record or (more + 1 not in self.widths and rows):
            return self._unclosed(line)
        return last

    def _unclosed(self, line: int) -> str:
        """What is wrong with a line that does not end the record."""
        stop = int(self.lines.stops[line])
        if self.dialect.escape and self.text.endswith(self.dialect.escape, int(self.lines.starts[line]), stop):
            return "the line end is escaped, and the record does not go on"
        return "a quote is opened and never closed"

    def walk(self, start: int) -> Walk:
        """Follow the record that begins at `start` to its end.

        From within a quoted field the way on depends only on the next quote, and after an escaped line end only on where it
        is, so it is remembered by that: a file in which every line opens a quote is walked once and not once per line.
        """
        dialect, mark = self.dialect, self.dialect.quote
        text, end = self.text, self.end
        fields = 0
        path: list[tuple[int, int]] = []
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
                key, onward = at, dialect.rest
            elif text[at : at + 1] == mark:
                key, onward = text.find(mark, at + 1, end), dialect.tail
            else:
                result = _FAILED
                break
            if key >= 0 and (known := self.memo.get(key)):
                result, at, fields = known[0], known[1], fields + known[2]
                break
            path.append((key, fields))
            passed = escaped or dialect.closing.match(text, at + 1, end)
            if passed is None or (escaped and passed.end() == end):
                result = _OPEN
                break
            at = passed.end()
            closed = -1 if escaped else at
            match = onward.match(text, at, end)
        for key, before in path:
            self.memo[key] = (result, at, fields - before)
        return result, at, fields


class _Quotes(_LineByLine):
    """Finds the records of a stretch of plain CSV that has quotes, all at once where that can be."""

    def __init__(self, stretch: Stretch) -> None:
        super().__init__(stretch)
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
        """Whether each quote may stand where it does, if those with an even ordinal open and the others close."""
        return np.where(ordinal % 2 == 0, self.may_open, self.may_close)

    def trusting(self) -> Records | None:
        """The records if every quote is well-formed, by the parity of the quotes alone; None otherwise.

        How long a record of several lines is and how many fields it has is left to the parser, which comes back where that
        makes one malformed.
        """
        quotes, lines = self.quotes, self.lines
        quotes_before = np.searchsorted(quotes, lines.stops)
        outside = np.flatnonzero(quotes_before % 2 == 0)
        if not len(outside) or (self.stretch.final and outside[-1] != len(lines.starts) - 1):
            return None
        used = int(quotes_before[outside[-1]])
        if not self._well_formed(np.arange(len(quotes)))[:used].all():
            return None
        first = np.zeros_like(outside)
        first[1:] = outside[:-1] + 1
        return _without_blank(lines, Records(first, outside, lines_used=int(outside[-1]) + 1, trusting=True))

    @cached_property
    def _first_quotes(self) -> Positions:
        return np.searchsorted(self.quotes, self.lines.starts)

    @cached_property
    def _strict(self) -> npt.NDArray[np.bool_]:
        """Whether the quotes of each line stand around whole fields of it, or it has none."""
        line = np.searchsorted(self.lines.nexts, self.quotes, side="right")
        right = self._well_formed(np.arange(len(self.quotes)) - self._first_quotes[line])
        count = len(self.lines.starts)
        even = np.bincount(line, minlength=count) % 2 == 0
        return np.asarray(even & (np.bincount(line[~right], minlength=count) == 0))

    @cached_property
    def _literal(self) -> npt.NDArray[np.bool_]:
        """Whether no field of each line begins with a quote, so that every quote in it is an ordinary character."""
        before = self.codes[np.maximum(self.quotes - 1, 0)]
        at_start = self.starts_field[before] | (self.quotes == 0)
        line = np.searchsorted(self.lines.nexts, self.quotes[at_start], side="right")
        return np.asarray(np.bincount(line, minlength=len(self.lines.starts)) == 0)

    def _doubtful(self) -> Positions:
        return np.flatnonzero(~(self._strict | self._literal))

    @cached_property
    def _rows_before(self) -> Positions:
        """How many lines before each line are by themselves rows with the right number of fields."""
        delimiters = np.flatnonzero(self.codes == self.delimiter[0])
        line = np.searchsorted(self.lines.nexts, delimiters, side="right")
        outside = (np.searchsorted(self.quotes, delimiters) - self._first_quotes[line]) % 2 == 0
        found = np.bincount(line[outside], minlength=len(self.lines.starts)) + 1
        rows = self._strict & (self.lines.stops > self.lines.starts) & (found == self.stretch.fields)
        return np.concatenate([[0], np.cumsum(rows)])
