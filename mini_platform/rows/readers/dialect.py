"""How a CSV file is written: the declaration `Csv` as patterns, and the fields of one record.

Here: what a field, a quote and an escape are. Not here: which lines make a record (`records.py`).

Most files are plain: a delimiter of one character, perhaps a quote, and nothing else. They go the fast way through `records`
and `parse`. Every other dialect goes a way through the same rooms that looks at each line with the patterns below: slower,
with the same promises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mini_platform.declare.sources import Csv

Pattern = re.Pattern[bytes]


@dataclass(frozen=True)
class Dialect:
    """What `Csv` says about the form of a record, in UTF-8; empty where there is none.

    Attributes:
        delimiter: one or more ASCII characters.
        quote: one ASCII character.
        escape: one ASCII character, which makes the next one an ordinary one, within quotes and without.
        skip_initial_space: whether spaces in front of a field do not belong to it.
        trailing_delimiter: whether a delimiter at the end of a record begins no field.
        comment: what a line that is no record begins with.
    """

    delimiter: bytes
    quote: bytes = b'"'
    escape: bytes = b""
    skip_initial_space: bool = False
    trailing_delimiter: bool = False
    comment: bytes = b""

    @cached_property
    def is_plain(self) -> bool:
        """Whether the fast way can be taken."""
        return len(self.delimiter) == 1 and self == Dialect(self.delimiter, self.quote)

    @cached_property
    def _escaped(self) -> bytes:
        """An escape and what it makes ordinary: a CRLF is one line end."""
        return rb"%b(?:\r\n|[\s\S])" % re.escape(self.escape)

    @cached_property
    def _space(self) -> bytes:
        return b"\x20*+" if self.skip_initial_space else b""

    @cached_property
    def _within(self) -> bytes:
        """What stands between two quotes."""
        q, escaped = re.escape(self.quote), b"|" + self._escaped if self.escape else b""
        return rb"(?:[^%b%b]++|%b%b%b)*+" % (q, re.escape(self.escape), q, q, escaped)

    def _body(self, escaped: bytes, without: bytes = b"") -> bytes:
        """What stands in a field without quotes around it."""
        first, rest = re.escape(self.delimiter[:1]), len(self.delimiter) > 1
        ways = [rb"[^%b\r\n%b%b]++" % (first, re.escape(self.escape), re.escape(without))]
        if rest:
            ways.append(rb"(?!%b)%b" % (re.escape(self.delimiter), first))
        if self.escape:
            ways.append(escaped)
        if len(ways) == 1:
            return ways[0][:-2] + b"*+"
        return rb"(?:%b)%b" % (b"|".join(ways), b"*" if rest else b"*+")  # For the reason see `_bare`.

    def _bare(self, body: bytes) -> bytes:
        """A field without quotes around it; empty where a quote stands, which begins another kind of field.

        Not `(?:...)?+`: up to Python 3.11.4 a possessive group that fails in its middle does not go back to its start
        (https://github.com/python/cpython/issues/106052).
        """
        return rb"(?:(?!%b)%b|)" % (re.escape(self.quote), body) if self.quote else body

    def _record(self, bare: bytes) -> Pattern:
        q, d = re.escape(self.quote), re.escape(self.delimiter)
        quoted = rb"%b%b%b|" % (q, self._within, q) if self.quote else b""
        field = rb"%b(?:%b%b)" % (self._space, quoted, bare)
        return re.compile(rb"%b(?:%b%b)*+" % (field, d, field))

    @cached_property
    def record(self) -> Pattern:
        """A record up to its line end, or up to what is wrong with its quotes."""
        return self._record(self._bare(self._body(self._escaped)))

    @cached_property
    def strict_record(self) -> Pattern:
        """A record in which every quote stands around a whole field."""
        return self._record(self._bare(self._body(self._escaped, without=self.quote)))

    @cached_property
    def _line_body(self) -> bytes:
        return self._body(rb"%b[^\r\n]" % re.escape(self.escape))

    @cached_property
    def tail(self) -> Pattern:
        """The unquoted fields after a field, up to a line end, also an escaped one."""
        return re.compile(rb"(?:%b%b%b)*+" % (re.escape(self.delimiter), self._space, self._bare(self._line_body)))

    @cached_property
    def head(self) -> Pattern:
        """The unquoted fields at the start of a record, likewise."""
        return re.compile(self._space + self._bare(self._line_body) + self.tail.pattern)

    @cached_property
    def rest(self) -> Pattern:
        """The unquoted fields after an escaped line end, likewise."""
        return re.compile(self._line_body + self.tail.pattern)

    @cached_property
    def escaped_end(self) -> Pattern:
        """An escaped line end."""
        return re.compile(rb"%b(?:\r\n|\r|\n)" % re.escape(self.escape) if self.escape else b"(?!)")

    @cached_property
    def closing(self) -> Pattern:
        """From behind an opening quote to behind the one that closes it."""
        return re.compile(self._within + re.escape(self.quote))

    @cached_property
    def _delimiters(self) -> Pattern:
        return re.compile(rb"%b|(%b)" % (self._escaped, re.escape(self.delimiter)))

    def count_delimiters(self, text: bytes, start: int, stop: int) -> int:
        """How many there are in text without quoted fields."""
        if not self.escape:
            return text.count(self.delimiter, start, stop)
        return sum(found[1] is not None for found in self._delimiters.finditer(text, start, stop))

    def has_no_marks(self, text: bytes, stop: int) -> bool:
        """Whether there is neither quote nor escape, so that every line is a record and every delimiter one."""
        return not any(mark and text.find(mark, 0, stop) >= 0 for mark in (self.quote, self.escape))

    @cached_property
    def _field(self) -> Pattern:
        q = re.escape(self.quote)
        quoted = rb"%b(%b)%b|" % (q, self._within, q) if self.quote else b"(?!)()|"
        return re.compile(
            rb"%b%b(?:%b(%b))" % (re.escape(self.delimiter), self._space, quoted, self._bare(self._body(self._escaped)))
        )

    @cached_property
    def _marks(self) -> Pattern:
        """An escape with what it makes ordinary, or two quotes."""
        q = re.escape(self.quote)
        return re.compile(rb"%b(\r\n|[\s\S])|%b%b" % (re.escape(self.escape), q, q or b"(?!)"))

    def _value(self, field: re.Match[bytes]) -> bytes:
        quoted, bare = field.groups()
        if quoted is None:
            return self._marks.sub(lambda found: found[1] or found[0], bare) if self.escape else bare
        if self.escape:
            return self._marks.sub(lambda found: found[1] or self.quote, quoted)
        return quoted.replace(self.quote * 2, self.quote)

    def fields(self, record: bytes) -> list[bytes]:
        """The fields of one well-formed record, quotes and escapes removed."""
        if self.has_no_marks(record, len(record)):
            found = record.split(self.delimiter)
            return [field.lstrip(b" ") for field in found] if self.skip_initial_space else found
        return [self._value(match) for match in self._field.finditer(self.delimiter + record)]


@lru_cache(maxsize=16)
def dialect_of(source: Csv) -> Dialect:
    """The dialect that is declared."""
    return Dialect(
        source.delimiter.encode(),
        (source.quote or "").encode(),
        (source.escape or "").encode(),
        source.skip_initial_space,
        source.trailing_delimiter,
        (source.comment or "").encode(),
    )
