"""The part of a JSON file's text that is in memory, and the values in it.

Here: refilling, lines and columns, the fast parser. Not here: the forms of a file (`json.py`), rows (`json_rows.py`).
"""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any

from mini_platform.rows.readers import RefusedFileError
from mini_platform.rows.readers.json_faults import Fault, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mini_platform.rows.readers import ReadLimits

BLANK = " \t\n\r"
_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_HIDDEN = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_LINE_END = re.compile(r"\r\n|\r|\n")
_CUT_TOKEN = 16
"""Characters before the end of the text within which an error may be due to that end: `-Infinity`, `\\ud83d\\ude00`."""


def is_longer(text: str, start: int, stop: int, max_bytes: int) -> bool:
    """Return True if the text between two offsets has more than `max_bytes` bytes as UTF-8."""
    length = stop - start
    return length > max_bytes or (length * 4 > max_bytes and len(text[start:stop].encode()) > max_bytes)


class Constant:
    """NaN, Infinity or -Infinity, which Python's parser accepts and JSON does not."""

    def __init__(self, name: str) -> None:
        """Take its name, as passed by the parser."""


_PARSER: Any = JSONDecoder(
    object_pairs_hook=tuple, parse_int=str.encode, parse_float=str.encode, parse_constant=Constant
)
scan: Callable[[str, int], tuple[Any, int]] = _PARSER.scan_once
"""Parse the value that begins at an offset; return it and the offset of its end. Written in C, hooks included.

An object is a tuple of (name, value), so that duplicate names are not lost; a list is a list; a number is the bytes of its
literal, so that no digits are lost and it differs from a string.
"""
SCAN_ERRORS = (JSONDecodeError, StopIteration, RecursionError)


class Window:
    """The text in memory.

    Attributes:
        text: text that was read and not yet dropped.
        at: offset of the next character to parse; it only moves forward.
        final: True if the text reaches the end of the file.
        hidden: True if the text has escapes that may be U+0000 or half of a surrogate pair.
    """

    def __init__(self, pieces: Iterator[bytes], size: int, limits: ReadLimits) -> None:
        self._pieces = pieces
        self._size = size
        self.limits = limits
        self.text = ""
        self.at = 0
        self.final = False
        self.hidden = False
        self._returns = False
        self._counted = 0  # offset up to which lines are counted
        self._line = 1  # line of that offset
        self._column = 1  # column of the text's first character, which need not start a line

    def fill(self) -> None:
        """Drop the text before `at` and read about one more piece; at least as much as is held, so that few steps suffice."""
        self.drop()
        target = max(self._size, len(self.text))
        pieces, length = [self.text], 0
        while length < target and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            else:
                pieces.append(piece.decode())
                length += len(piece)
        self.text = "".join(pieces)
        self.hidden = _HIDDEN.search(self.text) is not None
        self._returns = "\r" in self.text

    def drop(self) -> None:
        """Drop the text before `at`, which is never between a CR and its LF."""
        if self.at:
            self.line(self.at)
            self._column = self.place(self.at)[1]
            self.text = self.text[self.at :]
            self.at = self._counted = 0

    def line(self, offset: int) -> int:
        """Return the line number of an offset; offsets must be in rising order, and never between a CR and its LF."""
        self._line += self.ends(self._counted, offset)
        self._counted = offset
        return self._line

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset that is not before the last one passed to `line`."""
        line = self._line + self.ends(self._counted, offset)
        end = max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset) if self._returns else -1)
        return line, offset - end if end >= 0 else self._column + offset

    def ends(self, start: int, stop: int) -> int:
        """Return the number of lines that end between two offsets."""
        count = self.text.count("\n", start, stop)
        if self._returns:
            count += self.text.count("\r", start, stop) - self.text.count("\r\n", start, stop)
        return count

    def peek(self) -> str:
        """Move to the next character that is not blank and return it; an empty text at the end of the file."""
        while not (match := _NOT_BLANK.search(self.text, self.at)):
            if self.final:
                self.at = len(self.text)
                return ""
            self.at = max(self.at, len(self.text) - self.text.endswith("\r"))  # its LF may follow
            self.fill()
        self.at = match.start()
        return match[0]

    def refused(self, offset: int, why: str) -> RefusedFileError:
        """Return the error that refuses the file for a fault at an offset."""
        return self.refused_at(self.place(offset), why)

    @staticmethod
    def refused_at(place: tuple[int, int], why: str) -> RefusedFileError:
        """Return the error that refuses the file for a fault at a line and column; `why` shows at most one character of it."""
        return RefusedFileError(f"The file cannot be read at JSON line {place[0]:,}, column {place[1]:,}: {why}.")

    def whole_lines(self) -> int:
        """Return the end of the last whole line of the text, but not far beyond a piece; 0 if no line is whole.

        A CR at the end of the text may be the first half of a CRLF, so it ends no line yet.
        """
        stop = self.text.find("\n", self._size) + 1
        if not stop or self._returns:
            stop = len(self.text)
            if not self.final:
                stop = max(self.text.rfind("\n"), self.text.rfind("\r", 0, max(0, stop - 1))) + 1
        return stop

    def drop_line(self) -> None:
        """Drop the first line of the text, of any length, without holding it in memory."""
        while not (end := _LINE_END.search(self.text)) and not self.final:
            self.at = len(self.text)
            self.fill()
        if end and end.end() == len(self.text) and not self.final:  # a CR whose LF may follow
            self.at = end.start()
            self.fill()
            end = _LINE_END.search(self.text)
        self.at = end.end() if end else len(self.text)
        self.drop()

    def value(self) -> tuple[Any, int]:
        """Parse the value at `at`, which is not a blank; return the value or its fault, and the offset of its end.

        `at` and the text may change, as more of the file may have to be read. An error near the end of the text may be due to
        that end, so the text is refilled and parsed again until the value is whole or the file ends.

        Raises:
            RefusedFileError: the end of the value cannot be found, or it is longer than a record may be.
        """
        while True:
            value: Any
            try:
                value, stop = scan(self.text, self.at)
                complete = self.final or stop < len(self.text)  # a number may continue
            except SCAN_ERRORS as error:
                if complete := self.final or not self._may_be_cut(error):
                    examination = examine(self.text, self.at, len(self.text))
                    value, stop = examination.fault, examination.stop
                    complete = self.final or not examination.ended
                    if complete and examination.broken and isinstance(value, Fault):
                        self._refuse_long(value.at)
                        raise self.refused(value.at, value.why) from None
            if complete:
                self._refuse_long(stop)
                return value, stop
            self._refuse_long(len(self.text))
            self.fill()

    def _may_be_cut(self, error: Exception) -> bool:
        """Return True if the value may become whole when more of the file is read."""
        match error:
            case JSONDecodeError():
                return error.pos + _CUT_TOKEN > len(self.text) or error.msg.startswith("Unterminated")
            case StopIteration():
                return int(error.value) + _CUT_TOKEN > len(self.text)
        return False

    def _refuse_long(self, stop: int) -> None:
        max_bytes = self.limits.max_record_bytes
        if is_longer(self.text, self.at, stop, max_bytes):
            raise self.refused(
                self.at, f"the value that begins here is longer than the {max_bytes:,} bytes that are allowed"
            )
