"""The records of a chunk -> columns of text, and the faults of malformed records.

Here: fields, counted and split by pyarrow. Not here: which lines make a record (`records.py`), what a value means.
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
    from mini_platform.rows.readers.records import Chunk, Records

RAW_CHARACTERS = 10_000
RAW_BYTES = 4 * RAW_CHARACTERS + 4
"""Bytes that are certain to hold at least one character more than is shown."""
RAW_CUT = "… (cut here; the whole is in the raw file)"
_MARK = b"\xef\xbb\xbf"
_FEW_FIELDS = 4000
"""Most fields of a chunk that is split in Python."""
_MIN_HEADER_COLUMNS = 3
"""A row with at least this many column names in another order is a header; two may be a pair such as `source,target`."""

Fault = tuple[int, str, str]
"""Index of a record, the rule that it breaks, the fault in words."""


class AmbiguousQuotesError(Exception):
    """A record of several lines is malformed, perhaps due to a stray quote: records must be searched line by line."""


def raw_text(text: bytes, start: int, stop: int) -> str:
    """Return the text of a record for people: NUL is shown as U+2400, and a very long text is cut."""
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
            check_utf8=False,  # decode.py checked it
        )
        self._header_key = [normalized(text) for text in header.texts]
        self._header_starts = pl.Series([*header.texts, "\ufeff" + header.texts[0]], dtype=pl.String)
        # The longest name that is written the same in every dialect; a file without it has no second header.
        special = dialect.quote + dialect.escape + (dialect.delimiter + b"\r\n" if dialect.escape else b"")
        plain = (text for text in header.texts if not set(text) & set(special.decode()))
        self._header_mark = max(plain, key=len, default="")

    def parse(self, chunk: Chunk, records: Records, first_line: int) -> tuple[Positions, pl.DataFrame, list[Malformed]]:
        """Turn records into rows.

        Args:
            chunk: the text.
            records: the records of the text.
            first_line: number of the first line of the text.

        Returns:
            The line and the fields of each good row, and the malformed records, each by line.

        Raises:
            AmbiguousQuotesError: a record of several lines that was found by parity is malformed, so the records must be
                searched again with their number of fields checked.
        """
        lines = chunk.lines
        starts, stops = lines.starts[records.first], lines.stops[records.last]
        faults = [*self._too_long(chunk, starts, stops), *self._with_nul(chunk, starts, stops)]
        good = np.ones(len(starts), np.bool_)
        good[[fault[0] for fault in faults]] = False
        if records.by_parity and (records.first != records.last)[~good].any():
            raise AmbiguousQuotesError
        retained = np.flatnonzero(good) if faults else np.arange(len(starts))
        if self.dialect.is_plain:
            body = _body(
                chunk, starts[retained], lines.nexts[records.last[retained]], whole=not faults and not records.stray
            )
            rows, ragged = self._columns(body, len(retained))
        else:
            rows, ragged = self._columns_one_by_one(chunk.text, starts[retained], stops[retained])
        for number, count in ragged:
            index = int(retained[number])
            if records.by_parity and records.first[index] != records.last[index]:
                raise AmbiguousQuotesError
            faults.append((index, "row_has_header_fields", f"expected {len(self.header.names)} fields, found {count}"))
            good[index] = False
        retained = np.flatnonzero(good) if faults else retained
        repeated_headers = list(self._repeats_header(chunk, rows))
        if repeated_headers:
            faults += [(int(retained[row]), "row_not_header", detail) for row, detail in repeated_headers]
            data_rows = np.delete(np.arange(len(retained)), [row for row, _ in repeated_headers])
            rows, retained = rows[data_rows], retained[data_rows]
        malformed = [
            Malformed(
                first_line + int(records.first[index]),
                rule,
                raw_text(chunk.text, int(starts[index]), int(stops[index])),
                detail,
            )
            for index, rule, detail in faults
        ]
        malformed += self._stray(chunk, records, first_line)
        malformed.sort(key=lambda record: record.line)
        return records.first[retained] + first_line, rows, malformed

    def no_rows(self) -> pl.DataFrame:
        """Return a frame with the columns and no rows."""
        return pl.DataFrame(schema=self.schema)

    def _stray(self, chunk: Chunk, records: Records, first_line: int) -> Iterator[Malformed]:
        for line, detail in records.stray:
            start, stop = int(chunk.lines.starts[line]), int(chunk.lines.stops[line])
            raw = raw_text(chunk.text, start, stop)
            if stop - start > self.limits.max_record_bytes:
                yield self.too_long(first_line + line, raw)
            else:
                yield Malformed(first_line + line, "row_quotes_closed", raw, detail)

    def too_long(self, line: int, raw: str) -> Malformed:
        """Return the malformed record for one that is longer than allowed."""
        return Malformed(line, "row_fields_bounded", raw, self._too_long_detail)

    @property
    def _too_long_detail(self) -> str:
        return f"the record is longer than {self.limits.max_record_bytes:,} bytes"

    def _with_nul(self, chunk: Chunk, starts: Positions, stops: Positions) -> Iterator[Fault]:
        if not len(starts) or chunk.text.find(b"\0", 0, chunk.end) < 0:
            return
        at = np.flatnonzero(np.frombuffer(chunk.text, np.uint8, chunk.end) == 0)
        record = np.searchsorted(starts, at, side="right") - 1
        inside = (record >= 0) & (at < stops[record]) & (stops[record] - starts[record] <= self.limits.max_record_bytes)
        record_indexes, counts = np.unique(record[inside], return_counts=True)
        for index, count in zip(record_indexes.tolist(), counts.tolist(), strict=True):
            yield index, "row_without_nul", f"found {count} NUL byte{'s' if count > 1 else ''}"

    def _too_long(self, chunk: Chunk, starts: Positions, stops: Positions) -> Iterator[Fault]:
        max_bytes = self.limits.max_field_bytes
        lengths = stops - starts
        for index in np.flatnonzero(lengths > max_bytes).tolist():
            if lengths[index] > self.limits.max_record_bytes:
                yield index, "row_fields_bounded", self._too_long_detail
                continue
            record = chunk.text[starts[index] : stops[index]]
            if b"\0" in record:
                continue  # reported already
            longest = max(map(len, self.dialect.fields(record)))
            if longest > max_bytes:
                yield index, "row_fields_bounded", f"a field has {longest:,} bytes; at most {max_bytes:,} are allowed"

    def _columns(self, body: pa.Buffer, count: int) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
        """Return the fields of `count` records, and (index, number of fields) of those with too many or too few."""
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
            pa.system_memory_pool(),  # Arrow's own allocator does not return freed memory: 15 MB more at the peak.
        )
        return cast("pl.DataFrame", pl.from_arrow(table)), ragged

    def _few_columns(self, text: str) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
        """Return the same as `_columns` for a short text without quotes, split in Python.

        pyarrow and polars pass even 100 rows to other threads and back: 250 µs for such a file when the machine is idle,
        800 µs when it is busy; this takes 70 µs. A thousand small files arriving together are common.
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
        """Return the same as `_columns` for the records from `starts` to `stops` in any dialect."""
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
        series = [pl.Series(name, columns[name], pl.Binary).cast(pl.String) for name in self.header.ordered]
        return pl.DataFrame(series), ragged

    def _repeats_header(self, chunk: Chunk, rows: pl.DataFrame) -> Iterator[tuple[int, str]]:
        """Yield the rows that repeat the header, in the same or another order, with its longest name spelled as in the header.

        A second header in another order would shift the columns of all rows after it, so it must not be read as a row.
        """
        if chunk.text.find(self._header_mark.encode(), 0, chunk.end) < 0:
            return  # nearly always: one fast search instead of a comparison of every row
        candidates = rows[self.header.names[0]].is_in(self._header_starts.implode())
        for index in candidates.arg_true().to_list():
            fields = [str(rows[name][index]).removeprefix("\ufeff") for name in self.header.names]
            key = [normalized(field) for field in fields]
            if not any(self._header_mark in field for field in fields):
                continue
            if key == self._header_key:
                yield index, "the header is repeated here" if self.header.in_file else "this is the header"
            elif len(key) >= _MIN_HEADER_COLUMNS and sorted(key) == sorted(self._header_key):
                yield index, "the header is repeated here, with its columns in another order"


def _body(chunk: Chunk, starts: Positions, nexts: Positions, *, whole: bool) -> pa.Buffer:
    """Return the text of the records that begin at `starts` and end at `nexts`; without a copy if these are all records."""
    if not len(starts):
        return pa.py_buffer(b"")
    if whole:
        begin, end = int(starts[0]), int(nexts[-1])
        if not chunk.text.startswith(_MARK, begin):
            return pa.py_buffer(chunk.text).slice(begin, end - begin)
    gaps = np.flatnonzero(starts[1:] != nexts[:-1])
    begins: Sequence[int] = [int(starts[0]), *starts[gaps + 1].tolist()]
    ends: Sequence[int] = [*nexts[gaps].tolist(), int(nexts[-1])]
    # The blank line in front is ignored, and keeps pyarrow from taking a first U+FEFF for the file's byte order mark.
    pieces = [b"\n", *(chunk.text[begin:end] for begin, end in zip(begins, ends, strict=True))]
    return pa.py_buffer(b"".join(pieces))
