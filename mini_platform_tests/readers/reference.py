"""A second CSV reader, slow and plain, one character at a time: what `readers.records` promises, said again in other words.

The fast reader is held to it on random input. It shares no code with the reader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mini_platform.readers import ReadLimits

Row = tuple[int, tuple[str, ...]]
Bad = tuple[int, str, str]


class Line(NamedTuple):
    """A physical line: its text and its line end."""

    text: str
    end: str


def physical_lines(text: str) -> list[Line]:
    """Split at CRLF, LF and CR."""
    return [Line(m[1], m[2]) for m in re.finditer(r"([^\r\n]*)(\r\n|\r|\n|\Z)", text) if m[0]]


def fields_of(text: str, delimiter: str, *, literal_quotes: bool = True) -> list[str] | None:
    """The fields of a record that is all of `text`; None where its quotes make no sense."""
    fields = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            at += 1
            value = ""
            while True:
                if at == len(text):
                    return None
                if text[at : at + 2] == '""':
                    value += '"'
                    at += 2
                elif text[at] == '"':
                    at += 1
                    break
                else:
                    value += text[at]
                    at += 1
        else:
            value = ""
            while at < len(text) and text[at] not in delimiter + "\r\n":
                value += text[at]
                at += 1
            if '"' in value and not literal_quotes:
                return None
        fields.append(value)
        if at == len(text):
            return fields
        if text[at] != delimiter:
            return None
        at += 1


def read_reference(
    text: str, header: tuple[str, ...], delimiter: str, limits: ReadLimits, first_line: int = 2
) -> tuple[list[Row], list[Bad]]:
    """Rows and malformed records of the text after the header, each with its line."""
    lines = physical_lines(text)
    rows: list[Row] = []
    malformed: list[Bad] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.text:
            index += 1
            continue
        here = first_line + index
        count, bad = _record(lines, index, len(header), delimiter, limits)
        record = "".join(one.text + one.end for one in lines[index : index + count - 1]) + lines[index + count - 1].text
        index += count
        fields = fields_of(record, delimiter)
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


def _record(lines: list[Line], index: int, width: int, delimiter: str, limits: ReadLimits) -> tuple[int, str]:
    """How many lines the record has that begins at `index`, and the rule it breaks by its quotes alone."""
    if len(lines[index].text.encode()) > limits.max_record_bytes:
        return 1, "row_fields_bounded"
    text = ""
    for count, line in enumerate(lines[index:], start=1):
        text += line.text
        fields = fields_of(text, delimiter)
        if fields is not None:
            if count > 1 and len(text.encode()) > limits.max_record_bytes:
                break
            later = lines[index + 1 : index + count]
            if len(fields) != width and any(_is_row(one.text, width, delimiter) for one in later):
                break
            return count, ""
        text += line.end
    return 1, "row_quotes_closed"


def _is_row(text: str, width: int, delimiter: str) -> bool:
    fields = fields_of(text, delimiter, literal_quotes=False)
    return bool(text) and fields is not None and len(fields) == width
