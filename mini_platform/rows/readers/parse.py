"""The records of a stretch -> columns of text, and what is wrong with the form of those that have none.

Here: fields, counted and taken apart by pyarrow. Not here: which lines make a record (`records.py`), what a value means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from mini_platform.declare.columns import normalized
from mini_platform.rows.readers import Malformed, ReadLimits
from mini_platform.rows.readers.header import Header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mini_platform.rows.readers.dialect import Dialect
    from mini_platform.rows.readers.lines import Positions
    from mini_platform.rows.readers.records import Records, Stretch

RAW_CHARACTERS = 10_000
RAW_BYTES = 4 * RAW_CHARACTERS + 4
"""Bytes that are certain to hold one character more than is shown."""
RAW_CUT = "… (cut here; the whole is in the raw file)"
_MARK = b"\xef\xbb\xbf"
_FEW_FIELDS = 4000
"""Up to so many fields, a stretch is taken apart by hand."""
_TELLING_COLUMNS = 3
"""A row with the names of so many columns in another order is a header; with two, it may be a pair such as `source,target`."""

Fault = tuple[int, str, str]
"""Index of a record, the rule that it breaks, what was found."""


class TrustMisplacedError(Exception):
    """A record of several lines is malformed: perhaps a stray quote made it; look at the quotes line by line."""


def raw_text(text: bytes, start: int, stop: int) -> str:
    """The text of a record for people: NUL is shown as U+2400, and a very long text is cut."""
    shown = text[start : min(stop, start + RAW_BYTES)].decode("utf-8", "ignore").replace("\0", "\u2400")
    return shown if len(shown) <= RAW_CHARACTERS else shown[:RAW_CHARACTERS] + RAW_CUT


class RowParser:
    """Parses the records of one file."""

    def __init__(self, header: Header, dialect: Dialect, limits: ReadLimits) -> None:
        self.header = header
        self.dialect = dialect
        self.delimiter = dialect.delimiter.decode()
        self.limits = limits
        self.schema = dict.fromkeys(header.ordered, pl.String)
        self._convert = pc.ConvertOptions(
            column_types=dict.fromkeys(header.names, pa.string()),
            include_columns=list(header.ordered),
            strings_can_be_null=False,
            check_utf8=False,  # decode.py did
        )
        self._header_key = [normalized(text) for text in header.texts]
        self._header_starts = pl.Series([*header.texts, "\ufeff" + header.texts[0]], dtype=pl.String)
        # Of the texts that stand in a file as they are, whatever the dialect.
        special = dialect.quote + dialect.escape + (dialect.delimiter + b"\r\n" if dialect.escape else b"")
        plain = (text for text in header.texts if not set(text) & set(special.decode()))
        self._header_mark = max(plain, key=len, default="")

    def parse(
        self, stretch: Stretch, records: Records, first_line: int
    ) -> tuple[Positions, pl.DataFrame, list[Malformed]]:
        """Turn records into rows.

        Args:
            stretch: the text.
            records: its records.
            first_line: number of its first line.

        Returns:
            The line and the fields of each good row, and the malformed records, each by line.

        Raises:
            TrustMisplacedError: a record of several lines is malformed, so the records must be found again, carefully.
        """
        lines = stretch.lines
        starts, stops = lines.starts[records.first], lines.stops[records.last]
        faults = [*self._too_long(stretch, starts, stops), *self._with_nul(stretch, starts, stops)]
        good = np.ones(len(starts), np.bool_)
        good[[fault[0] for fault in faults]] = False
        if records.trusting and (records.first != records.last)[~good].any():
            raise TrustMisplacedError
        kept = np.flatnonzero(good) if faults else np.arange(len(starts))
        if self.dialect.is_plain:
            body = _body(stretch, starts[kept], lines.nexts[records.last[kept]], whole=not faults and not records.stray)
            rows, ragged = self._columns(body, len(kept))
        else:
            rows, ragged = self._columns_one_by_one(stretch.text, starts[kept], stops[kept])
        for number, found in ragged:
            index = int(kept[number])
            if records.trusting and records.first[index] != records.last[index]:
                raise TrustMisplacedError
            faults.append((index, "row_has_header_fields", f"expected {len(self.header.names)} fields, found {found}"))
            good[index] = False
        kept = np.flatnonzero(good) if faults else kept
        headers = list(self._repeats_header(stretch, rows))
        if headers:
            faults += [(int(kept[row]), "row_not_header", detail) for row, detail in headers]
            others = np.delete(np.arange(len(kept)), [row for row, _ in headers])
            rows, kept = rows[others], kept[others]
        malformed = [
            Malformed(
                first_line + int(records.first[index]),
                rule,
                raw_text(stretch.text, int(starts[index]), int(stops[index])),
                detail,
            )
            for index, rule, detail in faults
        ]
        malformed += self._stray(stretch, records, first_line)
        malformed.sort(key=lambda record: record.line)
        return records.first[kept] + first_line, rows, malformed

    def no_rows(self) -> pl.DataFrame:
        """The columns alone."""
        return pl.DataFrame(schema=self.schema)

    def _stray(self, stretch: Stretch, records: Records, first_line: int) -> Iterator[Malformed]:
        for line, detail in records.stray:
            start, stop = int(stretch.lines.starts[line]), int(stretch.lines.stops[line])
            raw = raw_text(stretch.text, start, stop)
            if stop - start > self.limits.max_record_bytes:
                yield self.too_long(first_line + line, raw)
            else:
                yield Malformed(first_line + line, "row_quotes_closed", raw, detail)

    def too_long(self, line: int, raw: str) -> Malformed:
        """A record that is longer than any record may be."""
        return Malformed(line, "row_fields_bounded", raw, self._too_long_detail)

    @property
    def _too_long_detail(self) -> str:
        return f"the record is longer than {self.limits.max_record_bytes:,} bytes"

    def _with_nul(self, stretch: Stretch, starts: Positions, stops: Positions) -> Iterator[Fault]:
        if not len(starts) or stretch.text.find(b"\0", 0, stretch.end) < 0:
            return
        at = np.flatnonzero(np.frombuffer(stretch.text, np.uint8, stretch.end) == 0)
        record = np.searchsorted(starts, at, side="right") - 1
        inside = (record >= 0) & (at < stops[record]) & (stops[record] - starts[record] <= self.limits.max_record_bytes)
        found, counts = np.unique(record[inside], return_counts=True)
        for index, count in zip(found.tolist(), counts.tolist(), strict=True):
            yield index, "row_without_nul", f"found {count} NUL byte{'s' if count > 1 else ''}"

    def _too_long(self, stretch: Stretch, starts: Positions, stops: Positions) -> Iterator[Fault]:
        most = self.limits.max_field_bytes
        lengths = stops - starts
        for index in np.flatnonzero(lengths > most).tolist():
            if lengths[index] > self.limits.max_record_bytes:
                yield index, "row_fields_bounded", self._too_long_detail
                continue
            record = stretch.text[starts[index] : stops[index]]
            if b"\0" in record:
                continue  # is told of already
            longest = max(map(len, self.dialect.fields(record)))
            if longest > most:
                yield index, "row_fields_bounded", f"a field has {longest:,} bytes; at most {most:,} are allowed"

    def _columns(self, body: pa.Buffer, count: int) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
        """The fields of `count` records, and (index, number of fields) of those with too many or too few."""
        if not count:
            return self.no_rows(), []
        if count * len(self.header.names) <= _FEW_FIELDS:
            text = body.to_pybytes()
            if self.dialect.has_no_marks(text, len(text)) and b"\r" not in text:
                return self._few_columns(text.decode())
        ragged: list[tuple[int, int]] = []

        def skip(row: pc.InvalidRow) -> str:
            ragged.append((row.number - 1, row.actual_columns))  # pyarrow counts from 1, without blank lines
            return "skip"

        table = pc.read_csv(
            pa.BufferReader(body),
            pc.ReadOptions(column_names=self.header.names, use_threads=False, block_size=body.size + 1),
            pc.ParseOptions(
                delimiter=self.delimiter,
                quote_char=self.dialect.quote.decode() or False,
                newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            self._convert,
            pa.system_memory_pool(),  # Arrow's own allocator keeps what it was given: 15 MB more at the peak.
        )
        return cast("pl.DataFrame", pl.from_arrow(table)), ragged

    def _few_columns(self, text: str) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
        """The same for a little text without quotes, by hand.

        pyarrow and polars hand even 100 rows to other threads and back: 250 µs for such a file when the machine is idle,
        800 µs when it is busy; this takes 70 µs. A thousand small files are a common arrival.
        """
        width = len(self.header.names)
        records = [line.split(self.delimiter) for line in text.split("\n") if line]
        ragged = [(index, len(fields)) for index, fields in enumerate(records) if len(fields) != width]
        if ragged:
            records = [fields for fields in records if len(fields) == width]
        if not records:
            return self.no_rows(), ragged
        columns = dict(zip(self.header.names, zip(*records, strict=True), strict=True))
        return pl.DataFrame([pl.Series(name, columns[name], pl.String) for name in self.header.ordered]), ragged

    def _columns_one_by_one(
        self, text: bytes, starts: Positions, stops: Positions
    ) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
        """The same for the records from `starts` to `stops` in any dialect."""
        width = len(self.header.names)
        records: list[list[bytes]] = []
        ragged: list[tuple[int, int]] = []
        for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            fields = self.dialect.fields(text[start:stop])
            if self.dialect.trailing_delimiter and len(fields) == width + 1 and not fields[-1]:
                fields.pop()
            if len(fields) == width:
                records.append(fields)
            else:
                ragged.append((index, len(fields)))
        if not records:
            return self.no_rows(), ragged
        columns = dict(zip(self.header.names, zip(*records, strict=True), strict=True))
        made = [pl.Series(name, columns[name], pl.Binary).cast(pl.String) for name in self.header.ordered]
        return pl.DataFrame(made), ragged

    def _repeats_header(self, stretch: Stretch, rows: pl.DataFrame) -> Iterator[tuple[int, str]]:
        """The rows that are the header again, in the same or another order, its longest name spelled as in the header.

        A second header in another order would shift the columns of all that follows: it must not pass for a row.
        """
        if stretch.text.find(self._header_mark.encode(), 0, stretch.end) < 0:
            return  # nearly always: one fast search instead of a comparison of every row
        likely = rows[self.header.names[0]].is_in(self._header_starts.implode())
        for index in likely.arg_true().to_list():
            fields = [str(rows[name][index]).removeprefix("\ufeff") for name in self.header.names]
            key = [normalized(field) for field in fields]
            if not any(self._header_mark in field for field in fields):
                continue
            if key == self._header_key:
                yield index, "the header stands here again" if self.header.stands else "the header stands here"
            elif len(key) >= _TELLING_COLUMNS and sorted(key) == sorted(self._header_key):
                yield index, "the header stands here again, its columns in another order"


def _body(stretch: Stretch, starts: Positions, nexts: Positions, *, whole: bool) -> pa.Buffer:
    """The text of the records that begin at `starts` and end at `nexts`; without a copy where that is all there is."""
    if not len(starts):
        return pa.py_buffer(b"")
    if whole:
        begin, end = int(starts[0]), int(nexts[-1])
        if not stretch.text.startswith(_MARK, begin):
            return pa.py_buffer(stretch.text).slice(begin, end - begin)
    gaps = np.flatnonzero(starts[1:] != nexts[:-1])
    begins: Sequence[int] = [int(starts[0]), *starts[gaps + 1].tolist()]
    ends: Sequence[int] = [*nexts[gaps].tolist(), int(nexts[-1])]
    # The blank line in front is ignored, and keeps pyarrow from taking a first U+FEFF for the file's byte order mark.
    pieces = [b"\n", *(stretch.text[begin:end] for begin, end in zip(begins, ends, strict=True))]
    return pa.py_buffer(b"".join(pieces))
