"""The CSV dialect: the declaration `Csv` as regular expressions, and splitting one record into fields.

Here: fields, quotes and escapes. Not here: which lines make a record (`records.py`).

Most files are plain: a delimiter of one character, perhaps a quote, and nothing else. They take the fast path through
`records` and `parse`. Every other dialect takes a slower path through the same modules, which matches each line with the
patterns below and gives the same guarantees.
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
    """The form of a record as declared by `Csv`, in UTF-8; an empty value means that there is none.

    Attributes:
        delimiter: one or more ASCII characters.
        quote: one ASCII character.
        escape: one ASCII character, which makes the next one an ordinary one, inside and outside quotes.
        skip_initial_space: True if spaces in front of a field do not belong to it.
        trailing_delimiter: True if a delimiter at the end of a record does not begin another field.
        comment: prefix of a line that is a comment.
    """

    delimiter: bytes
    quote: bytes = b'"'
    escape: bytes = b""
    skip_initial_space: bool = False
    trailing_delimiter: bool = False
    comment: bytes = b""

    @cached_property
    def is_plain(self) -> bool:
        """True if the fast path can be taken."""
        return len(self.delimiter) == 1 and self == Dialect(self.delimiter, self.quote)

    @cached_property
    def _escaped(self) -> bytes:
        """Pattern of an escape and the character that it escapes; a CRLF is one line end."""
        return rb"%b(?:\r\n|[\s\S])" % re.escape(self.escape)

    @cached_property
    def _space(self) -> bytes:
        return b"\x20*+" if self.skip_initial_space else b""

    @cached_property
    def _within(self) -> bytes:
        """Pattern of the text between two quotes."""
        q, escaped = re.escape(self.quote), b"|" + self._escaped if self.escape else b""
        return rb"(?:[^%b%b]++|%b%b%b)*+" % (q, re.escape(self.escape), q, q, escaped)

    def _body(self, escaped: bytes, without: bytes = b"") -> bytes:
        """Return the pattern of a field without quotes around it."""
        first, rest = re.escape(self.delimiter[:1]), len(self.delimiter) > 1
        alternatives = [rb"[^%b\r\n%b%b]++" % (first, re.escape(self.escape), re.escape(without))]
        if rest:
            alternatives.append(rb"(?!%b)%b" % (re.escape(self.delimiter), first))
        if self.escape:
            alternatives.append(escaped)
        if len(alternatives) == 1:
            return alternatives[0][:-2] + b"*+"
        return rb"(?:%b)%b" % (b"|".join(alternatives), b"*" if rest else b"*+")  # For the reason see `_bare`.

    def _bare(self, body: bytes) -> bytes:
        """Return the pattern of a field without quotes around it; empty in front of a quote, which starts a quoted field.

        Not `(?:...)?+`: up to Python 3.11.4 a possessive group that fails in its middle does not backtrack to its start
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
        """Pattern of a record up to its line end, or up to a misplaced quote."""
        return self._record(self._bare(self._body(self._escaped)))

    @cached_property
    def strict_record(self) -> Pattern:
        """Pattern of a record in which quotes only enclose whole fields."""
        return self._record(self._bare(self._body(self._escaped, without=self.quote)))

    @cached_property
    def _line_body(self) -> bytes:
        return self._body(rb"%b[^\r\n]" % re.escape(self.escape))

    @cached_property
    def tail(self) -> Pattern:
        """Pattern of the unquoted fields after a field, up to a line end or an escaped line end."""
        return re.compile(rb"(?:%b%b%b)*+" % (re.escape(self.delimiter), self._space, self._bare(self._line_body)))

    @cached_property
    def head(self) -> Pattern:
        """Pattern of the unquoted fields at the start of a record, up to a line end or an escaped line end."""
        return re.compile(self._space + self._bare(self._line_body) + self.tail.pattern)

    @cached_property
    def rest(self) -> Pattern:
        """Pattern of the unquoted fields after an escaped line end, up to the next line end or escaped line end."""
        return re.compile(self._line_body + self.tail.pattern)

    @cached_property
    def escaped_end(self) -> Pattern:
        """Pattern of an escaped line end."""
        return re.compile(rb"%b(?:\r\n|\r|\n)" % re.escape(self.escape) if self.escape else b"(?!)")

    @cached_property
    def closing(self) -> Pattern:
        """Pattern from after an opening quote to after the quote that closes it."""
        return re.compile(self._within + re.escape(self.quote))

    @cached_property
    def _delimiters(self) -> Pattern:
        return re.compile(rb"%b|(%b)" % (self._escaped, re.escape(self.delimiter)))

    def count_delimiters(self, text: bytes, start: int, stop: int) -> int:
        """Return the number of delimiters in text without quoted fields."""
        if not self.escape:
            return text.count(self.delimiter, start, stop)
        return sum(match[1] is not None for match in self._delimiters.finditer(text, start, stop))

    def has_no_marks(self, text: bytes, stop: int) -> bool:
        """Return True if there is neither quote nor escape, so that every line is a record and every delimiter ends a field."""
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
        """Pattern of an escape with the character that it escapes, or of two quotes."""
        q = re.escape(self.quote)
        return re.compile(rb"%b(\r\n|[\s\S])|%b%b" % (re.escape(self.escape), q, q or b"(?!)"))

    def _value(self, field: re.Match[bytes]) -> bytes:
        quoted, bare = field.groups()
        if quoted is None:
            return self._marks.sub(lambda match: match[1] or match[0], bare) if self.escape else bare
        if self.escape:
            return self._marks.sub(lambda match: match[1] or self.quote, quoted)
        return quoted.replace(self.quote * 2, self.quote)

    def fields(self, record: bytes) -> list[bytes]:
        """Return the fields of one well-formed record, quotes and escapes removed."""
        if self.has_no_marks(record, len(record)):
            fields = record.split(self.delimiter)
            return [field.lstrip(b" ") for field in fields] if self.skip_initial_space else fields
        return [self._value(match) for match in self._field.finditer(self.delimiter + record)]


@lru_cache(maxsize=16)
def dialect_of(source: Csv) -> Dialect:
    """Return the declared dialect."""
    return Dialect(
        source.delimiter.encode(),
        (source.quote or "").encode(),
        (source.escape or "").encode(),
        source.skip_initial_space,
        source.trailing_delimiter,
        (source.comment or "").encode(),
    )
