"""A second CSV reader, slow and simple, one character at a time: an independent implementation of `readers.records`.

The fast reader is held to it on random input. It shares no code with the reader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mini_platform import Csv
    from mini_platform.rows.readers import ReadLimits

Row = tuple[int, tuple[str, ...]]
Bad = tuple[int, str, str]


class Line(NamedTuple):
    """A physical line: its text and its line end."""

    text: str
    end: str


def physical_lines(text: str) -> list[Line]:
    """Return the lines, split at CRLF, LF and CR."""
    return [Line(m[1], m[2]) for m in re.finditer(r"([^\r\n]*)(\r\n|\r|\n|\Z)", text) if m[0]]


def fields_of(text: str, source: Csv, *, literal_quotes: bool = True) -> list[str] | None:
    """Return the fields of a record that is all of `text`; None if its quotes or escapes are not valid."""
    fields = []
    at = 0
    while True:
        while source.skip_initial_space and text[at : at + 1] == " ":
            at += 1
        parsed = (
            _quoted(text, at, source) if source.quote and text.startswith(source.quote, at) else _bare(text, at, source)
        )
        if parsed is None:
            return None
        value, at, has_quote = parsed
        if has_quote and not literal_quotes:
            return None
        fields.append(value)
        if at == len(text):
            return fields
        if not text.startswith(source.delimiter, at):
            return None
        at += len(source.delimiter)


def _escaped(text: str, at: int, source: Csv) -> str | None:
    """Return the character that is escaped at `at`; None if there is no escape."""
    if source.escape is None or text[at] != source.escape:
        return None
    return "\r\n" if text.startswith("\r\n", at + 1) else text[at + 1 : at + 2]


def _quoted(text: str, at: int, source: Csv) -> tuple[str, int, bool] | None:
    at += 1
    value = ""
    quote = source.quote or ""
    while at < len(text):
        escaped = _escaped(text, at, source)
        if escaped is not None:
            value += escaped
            at += 1 + len(escaped)
        elif text.startswith(quote * 2, at):
            value += quote
            at += 2
        elif text[at] == quote:
            return value, at + 1, False
        else:
            value += text[at]
            at += 1
    return None


def _bare(text: str, at: int, source: Csv) -> tuple[str, int, bool] | None:
    value, has_quote = "", False
    while at < len(text) and text[at] not in "\r\n" and not text.startswith(source.delimiter, at):
        escaped = _escaped(text, at, source)
        if escaped == "":
            return None
        has_quote |= escaped is None and text[at] == source.quote
        value += escaped or text[at]
        at += 1 + len(escaped or "")
    return value, at, has_quote


def read_reference(
    text: str, header: tuple[str, ...], source: Csv, limits: ReadLimits, first_line: int = 2
) -> tuple[list[Row], list[Bad]]:
    """Return rows and malformed records of the text after the header, each with its line."""
    lines = physical_lines(text)
    rows: list[Row] = []
    malformed: list[Bad] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        is_short = len(line.text.encode()) <= limits.max_record_bytes
        if not line.text or (source.comment and line.text.startswith(source.comment) and is_short):
            index += 1
            continue
        here = first_line + index
        count, bad = _record(lines, index, len(header), source, limits)
        record = "".join(one.text + one.end for one in lines[index : index + count - 1]) + lines[index + count - 1].text
        index += count
        fields = fields_of(record, source)
        if fields is not None and source.trailing_delimiter and len(fields) == len(header) + 1 and not fields[-1]:
            fields.pop()
        if not bad and len(record.encode()) > limits.max_record_bytes:
            bad = "row_fields_bounded"
        elif not bad and "\0" in record:
            bad = "row_without_nul"
        elif not bad and fields is not None:
            if any(len(field.encode()) > limits.max_field_bytes for field in fields):
                bad = "row_fields_bounded"
            elif len(fields) != len(header):
                bad = "row_has_header_fields"
            elif fields[0].removeprefix("\ufeff") == header[0] and [f.strip() for f in fields[1:]] == list(header[1:]):
                bad = "row_not_header"
        if bad or fields is None:
            malformed.append((here, bad or "never", record.replace("\0", "\u2400")))
        else:
            rows.append((here, tuple(fields)))
    return rows, malformed


def _record(lines: list[Line], index: int, width: int, source: Csv, limits: ReadLimits) -> tuple[int, str]:
    """Return the number of lines of the record that begins at `index`, and the rule that its quotes break."""
    if len(lines[index].text.encode()) > limits.max_record_bytes:
        return 1, "row_fields_bounded"
    text = ""
    for count, line in enumerate(lines[index:], start=1):
        text += line.text
        fields = fields_of(text, source)
        if fields is not None:
            if count > 1 and len(text.encode()) > limits.max_record_bytes:
                break
            later = lines[index + 1 : index + count]
            widths = {width, width + source.trailing_delimiter}
            if len(fields) not in widths and any(_is_row(one.text, widths, source) for one in later):
                break
            return count, ""
        text += line.end
    return 1, "row_quotes_closed"


def _is_row(text: str, widths: set[int], source: Csv) -> bool:
    fields = fields_of(text, source, literal_quotes=False)
    return bool(text) and fields is not None and len(fields) in widths
