"""JSON files -> blocks of text rows.

Here: the forms of a file and the way through it in bounded memory. Each step has its own module: `unpack` (gzip, zip), `decode`
(encodings), `json_window` (the text in memory, the parser), `json_rows` (objects to rows), `json_faults` (what is wrong where).

- A list of objects: `[{…}, {…}]`, streamed. It may stand within an object, where the source says so.
- JSON lines: each line an object. A file is that if its first line is a value, or at least no beginning of a longer one.
- Objects over several lines, one or more, each beginning on a line of its own.

A record that is wrong, but whose end can be told, is malformed, and the rest is read. In JSON lines that is every line; in the
other forms a missing bracket or comma refuses the file.
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
"""Text of one block."""
_PIECE_BYTES = 2**16
"""Text that is taken at once: an error costs the fast parser a look at all of it, to find line numbers that we do not use."""
_BLOCK_RECORDS = 100_000
"""Records of one block, as very short ones take much more memory than their text."""
_TO_NEXT_OBJECT = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+(?=\{)")
_FIRST_LINE = re.compile(r"([^\r\n]*+)[\r\n][ \t\r\n]*+([^ \t\r\n])")


def read_json(
    path: Path, source: Json, columns: Sequence[Column], *, limits: ReadLimits, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Read a JSON file in bounded memory.

    A cell is a string's text, a number's literal as it stands, `true` or `false`, nothing for null and for a missing name,
    and compact JSON for a list and for an empty object. A file without records gives one empty block. Columns beyond the
    declared ones are the names that no column declares and that have a value in the block; a block has none where no row
    of it has one. Rows and malformed records do not depend on `block_bytes`.

    Args:
        path: the raw file.
        source: how it is declared to be written.
        columns: the declared columns.
        limits: what is taken before the file is refused or a record rejected.
        block_bytes: bytes of text of one block, more or less.

    Yields:
        The records in the order of the file.

    Raises:
        RefusedFileError: the file cannot be taken as a whole. It may come after blocks were given: a damaged end shows
            only when it is reached.
        ValueError: two declared columns, or their aliases, differ only in what a name is forgiven.
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
    """Add the records of a file to the rows, with a stop after every piece of text."""
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
        yield from _objects(window, rows)
    if window.peek():
        raise window.refused(window.at, "text follows the end of the JSON")


def _is_lines(window: Window) -> bool:
    """Whether the file is JSON lines, by its first line: a value, or what no value that goes on can begin with."""
    most = window.limits.max_record_bytes
    while not (found := _FIRST_LINE.match(window.text, window.at, window.at + most)):
        if window.final or len(window.text) - window.at > most:
            return True
        window.fill()
    line, following = found.groups()
    try:
        scan(line, 0)
    except SCAN_ERRORS:
        examined = examine(line, 0, len(line))
        ends_itself = not examined.ended and line.rstrip(BLANK).endswith("}")
        return line[0] != "{" or following == "{" or not examined.broken or ends_itself
    return True


def _lines(window: Window, rows: RowBuilder) -> Iterator[None]:
    """JSON lines: whatever stands on a line is a record, good or malformed."""
    whole = min(window.limits.max_record_bytes, window.limits.max_field_bytes) // 4
    longest = max(window.limits.max_record_bytes, RAW_CHARACTERS)
    window.drop()
    while window.text or not window.final:
        stop = window.whole_lines()
        if not stop:
            if len(window.text) - window.text.endswith("\r") > longest:
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
                if end == len(line) <= whole:
                    rows.add(value, number, hidden=hidden, long=False)
                    continue
            except (RowFault, *SCAN_ERRORS):
                pass
            if line.strip(BLANK):
                _odd_line(window, rows, line, number, column if number == first else 1)
        window.at = stop
        window.drop()
        yield


def _odd_line(window: Window, rows: RowBuilder, line: str, number: int, column: int) -> None:
    """Add a line that is no row as it stands: long, indented, or malformed."""
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
    """A list, at its opening bracket."""
    whole = min(window.limits.max_record_bytes, window.limits.max_field_bytes) // 4
    window.at += 1
    if window.peek() == "]":
        window.at += 1
        return
    while True:
        # Nearly always: an object that is a row, and another one after it in the same text.
        text, at = window.text, window.at
        line, hidden, ends = window.line(at), window.hidden, window.ends
        try:
            for _ in range(_BLOCK_RECORDS):
                value, stop = scan(text, at)
                following = _TO_NEXT_OBJECT.match(text, stop)
                if not following or stop - at > whole:
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


def _objects(window: Window, rows: RowBuilder) -> Iterator[None]:
    """Objects over several lines, each beginning on a line of its own."""
    while window.peek():
        _add(window, rows)
        yield
        line = window.line(window.at)
        if window.peek() and window.line(window.at) == line:
            raise window.refused(window.at, "text follows the end of the object on its line")


def _envelope(window: Window, rows: RowBuilder, path: Sequence[str]) -> Iterator[None]:
    """An object with the list within, at its opening bracket; `path` leads to the list."""
    start = window.place(window.at)
    found = False
    for name in _members(window):
        if name != path[0]:
            window.at = window.value()[1]
            continue
        found = True
        char = window.peek()
        if char != ("{" if path[1:] else "["):
            what = "an object" if path[1:] else "the list of rows"
            raise window.refused(window.at, f"{name} should be {what}, but {shown(char)}")
        yield from _envelope(window, rows, path[1:]) if path[1:] else _list(window, rows)
    if not found:
        raise window.refused_at(start, f"the object has no {path[0]}")


def _members(window: Window) -> Iterator[str]:
    """The names of the members of an object, at its opening bracket; the caller goes past each value."""
    seen: set[str] = set()
    window.at += 1
    char = window.peek()
    while char != "}":
        if char != '"':
            raise window.refused(window.at, f"a name in double quotes is expected, but {shown(char)}")
        name, stop = window.value()
        if isinstance(name, Fault):
            raise window.refused(name.at, name.why)
        if name in seen:
            raise window.refused(window.at, "a name stands here a second time")
        seen.add(name)
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
    """Add the value at `at`, which may need more text, as a row or as a malformed record, and go past it."""
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
    most = text[: RAW_CHARACTERS + 1].encode()
    return raw_text(most, 0, len(most))
