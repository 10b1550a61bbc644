"""JSON files -> blocks of text rows.

Here: the forms of a file, read in bounded memory. Each step has its own module: `unpack` (gzip, zip), `decode` (encodings),
`json_window` (the text in memory, the parser), `json_rows` (objects to rows), `json_faults` (what is wrong, and where).

- A list of objects: `[{…}, {…}]`, streamed. It may be nested in an object, if the source declares it.
- JSON lines: each line an object. A file has this form if its first line is a value, or cannot be the start of a longer one.
- Objects over several lines, one or more, each starting on its own line.

An invalid record with a known end is malformed, and the rest is read. In JSON lines that is every invalid line; in the other
forms a missing bracket or comma refuses the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mini_platform.rows.readers import Malformed, ReadLimits, RefusedFileError
from mini_platform.rows.readers.decode import utf8_pieces
from mini_platform.rows.readers.json_faults import Fault, examine, shown
from mini_platform.rows.readers.json_rows import RowBuilder, RowFault
from mini_platform.rows.readers.json_window import BLANK, SCAN_ERRORS, Window, is_longer, scan
from mini_platform.rows.readers.parse import RAW_CHARACTERS, raw_text
from mini_platform.rows.readers.unpack import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.declare.sources import Json
    from mini_platform.rows.readers import Block

BLOCK_BYTES = 4 * 2**20
"""Bytes of text in one block."""
_PIECE_BYTES = 2**16
"""Bytes read at once: on an error the fast parser scans all of the text for line numbers, which are not used here."""
_BLOCK_RECORDS = 100_000
"""Most records in one block, as very short ones take much more memory than their text."""
_TO_NEXT_OBJECT = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+(?=\{)")
_FIRST_LINE = re.compile(r"([^\r\n]*+)[\r\n][ \t\r\n]*+([^ \t\r\n])")


def read_json(
    path: Path, source: Json, columns: Sequence[Column], *, limits: ReadLimits, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Read a JSON file in bounded memory.

    A cell is the text of a string, the literal of a number, `true` or `false`, empty for null and for a missing name, and
    compact JSON for a list and for an empty object. A file without records yields one empty block. Columns beyond the
    declared ones are the undeclared names that have a value in the block. Rows and malformed records do not depend on
    `block_bytes`.

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
        ValueError: two declared columns, or their aliases, have the same normalized name.
    """
    rows = RowBuilder(columns, limits)
    with unpacked(path, limits) as raw:
        size = min(block_bytes, _PIECE_BYTES)
        window = Window(utf8_pieces(raw, None, size), size, limits)
        empty, position = True, 0
        for _ in _records(window, rows, source):
            if len(rows) and (raw.position - position >= block_bytes or len(rows) >= _BLOCK_RECORDS):
                empty, position = False, raw.position
                yield from rows.blocks(raw.bytes_read)
        if empty or len(rows):
            yield from rows.blocks(raw.bytes_read)


def _records(window: Window, rows: RowBuilder, source: Json) -> Iterator[None]:
    """Add the records of a file to the rows; yield after every piece of text."""
    char = window.peek()
    if not char:
        raise RefusedFileError("The file is empty: it has no JSON.")
    if char == "[":
        yield from _list(window, rows)
    elif source.rows is not None:
        if char != "{":
            raise window.refused(window.at, f"an object or a list is expected, but {shown(char)}")
        yield from _envelope(window, rows, source.rows.split("."))
    elif _is_lines(window):
        yield from _lines(window, rows)
    else:
        yield from _multiline_objects(window, rows)
    if window.peek():
        raise window.refused(window.at, "text follows the end of the JSON")


def _is_lines(window: Window) -> bool:
    """Return True if the file is JSON lines: its first line is a value, or cannot be the start of a longer value."""
    max_bytes = window.limits.max_record_bytes
    while not (match := _FIRST_LINE.match(window.text, window.at, window.at + max_bytes)):
        if window.final or len(window.text) - window.at > max_bytes:
            return True
        window.fill()
    line, following = match.groups()
    try:
        scan(line, 0)
    except SCAN_ERRORS:
        examination = examine(line, 0, len(line))
        is_complete = not examination.ended and line.rstrip(BLANK).endswith("}")
        return line[0] != "{" or following == "{" or not examination.broken or is_complete
    return True


def _lines(window: Window, rows: RowBuilder) -> Iterator[None]:
    """Read JSON lines: every line that is not blank is a record, good or malformed."""
    safe_bytes = min(window.limits.max_record_bytes, window.limits.max_field_bytes) // 4
    max_length = max(window.limits.max_record_bytes, RAW_CHARACTERS)
    window.drop()
    while window.text or not window.final:
        stop = window.whole_lines()
        if not stop:
            if len(window.text) - window.text.endswith("\r") > max_length:
                rows.reject(_too_long(window.text, window.line(0), window.limits))
                window.drop_line()
            else:
                window.fill()
            continue
        text = window.text[:stop]
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        first, column = window.place(0)
        hidden = window.hidden
        for number, line in enumerate(text.split("\n"), first):
            try:
                value, end = scan(line, 0)
                if end == len(line) <= safe_bytes:
                    rows.add(value, number, hidden=hidden, long=False)
                    continue
            except (RowFault, *SCAN_ERRORS):
                pass
            if line.strip(BLANK):
                _unusual_line(window, rows, line, number, column if number == first else 1)
        window.at = stop
        window.drop()
        yield


def _unusual_line(window: Window, rows: RowBuilder, line: str, number: int, column: int) -> None:
    """Add a line that needs a closer look: long, indented, or malformed."""
    if is_longer(line, 0, len(line), window.limits.max_record_bytes):
        rows.reject(_too_long(line, number, window.limits))
        return
    start = len(line) - len(line.lstrip(BLANK))
    fault: Fault | RowFault
    try:
        value, end = scan(line, start)
        rest = line[end:].lstrip(BLANK)
        if rest and type(value) is tuple:
            fault = Fault(len(line) - len(rest), "row_is_json", "text follows the end of the object")
        elif rest:
            fault = Fault(start, "row_is_object", "the line does not begin with an object")
        else:
            rows.add(value, number, hidden=window.hidden, long=True)
            return
    except RowFault as error:
        fault = error
    except SCAN_ERRORS:
        fault = Fault(start, "row_is_json", "it cannot be parsed")
    fault = examine(line, start, len(line)).fault or fault
    at = fault.at if isinstance(fault, Fault) else start
    rows.reject(_malformed(line, number, fault, (number, column + at)))


def _list(window: Window, rows: RowBuilder) -> Iterator[None]:
    """Read a list, from its opening bracket."""
    safe_bytes = min(window.limits.max_record_bytes, window.limits.max_field_bytes) // 4
    window.at += 1
    if window.peek() == "]":
        window.at += 1
        return
    while True:
        # Fast path: while an object is a valid row and another one follows it in the same text, add it without looking closer.
        # Anything else (an error, the end of the text, a long row) goes through `_add`, which reads more text if needed.
        text, at = window.text, window.at
        line, hidden, ends = window.line(at), window.hidden, window.ends
        try:
            for _ in range(_BLOCK_RECORDS):
                value, stop = scan(text, at)
                following = _TO_NEXT_OBJECT.match(text, stop)
                if not following or stop - at > safe_bytes:
                    break
                rows.add(value, line, hidden=hidden, long=False)
                line += ends(at, following.end())
                at = following.end()
        except (RowFault, *SCAN_ERRORS):
            pass
        window.at = at
        _add(window, rows)
        yield
        char = window.peek()
        if char not in ("]", ","):
            raise window.refused(window.at, f"a comma or ] is expected, but {shown(char)}")
        window.at += 1
        if char == "]":
            return
        if window.peek() == "]":
            raise window.refused(window.at, "nothing follows the comma before ]")


def _multiline_objects(window: Window, rows: RowBuilder) -> Iterator[None]:
    """Read objects over several lines, each starting on its own line."""
    while window.peek():
        _add(window, rows)
        yield
        line = window.line(window.at)
        if window.peek() and window.line(window.at) == line:
            raise window.refused(window.at, "text follows the end of the object on its line")


def _envelope(window: Window, rows: RowBuilder, path: Sequence[str]) -> Iterator[None]:
    """Read an object that contains the list, from its opening bracket; `path` leads to the list."""
    start = window.place(window.at)
    has_rows = False
    for name in _members(window):
        if name != path[0]:
            window.at = window.value()[1]
            continue
        has_rows = True
        char = window.peek()
        if char != ("{" if path[1:] else "["):
            expected = "an object" if path[1:] else "the list of rows"
            raise window.refused(window.at, f"{name} should be {expected}, but {shown(char)}")
        yield from _envelope(window, rows, path[1:]) if path[1:] else _list(window, rows)
    if not has_rows:
        raise window.refused_at(start, f"the object has no {path[0]}")


def _members(window: Window) -> Iterator[str]:
    """Yield the member names of an object, from its opening bracket; the caller moves past each value."""
    names: set[str] = set()
    window.at += 1
    char = window.peek()
    while char != "}":
        if char != '"':
            raise window.refused(window.at, f"a name in double quotes is expected, but {shown(char)}")
        name, stop = window.value()
        if isinstance(name, Fault):
            raise window.refused(name.at, name.why)
        if name in names:
            raise window.refused(window.at, "the name occurs twice in the object")
        names.add(name)
        window.at = stop
        if (char := window.peek()) != ":":
            raise window.refused(window.at, f"a colon is expected, but {shown(char)}")
        window.at += 1
        if not window.peek():
            raise window.refused(window.at, f"a value is expected, but {shown('')}")
        yield name
        if (char := window.peek()) not in ("}", ","):
            raise window.refused(window.at, f"a comma or }} is expected, but {shown(char)}")
        if char == ",":
            window.at += 1
            if (char := window.peek()) == "}":
                raise window.refused(window.at, "nothing follows the comma before }")
    window.at += 1


def _add(window: Window, rows: RowBuilder) -> None:
    """Add the value at `at`, which may need more text, as a row or as a malformed record, and move past it."""
    if not window.peek():
        raise window.refused(window.at, f"a value is expected, but {shown('')}")
    value, stop = window.value()
    start = window.at
    line = window.line(start)
    fault: Fault | RowFault | None = None
    if isinstance(value, Fault):
        fault = value
    else:
        try:
            rows.add(value, line, hidden=window.hidden, long=True)
        except RowFault as error:
            fault = examine(window.text, start, stop).fault or error
    if fault:
        place = window.place(fault.at if isinstance(fault, Fault) else start)
        rows.reject(_malformed(window.text[start:stop], line, fault, place))
    window.at = stop


def _malformed(text: str, line: int, fault: Fault | RowFault, place: tuple[int, int]) -> Malformed:
    return Malformed(line, fault.rule, _raw(text), f"line {place[0]:,}, column {place[1]:,}: {fault.why}")


def _too_long(text: str, line: int, limits: ReadLimits) -> Malformed:
    detail = f"line {line:,}, column 1: the line is longer than {limits.max_record_bytes:,} bytes"
    return Malformed(line, "row_fields_bounded", _raw(text), detail)


def _raw(text: str) -> str:
    head = text[: RAW_CHARACTERS + 1].encode()
    return raw_text(head, 0, len(head))
