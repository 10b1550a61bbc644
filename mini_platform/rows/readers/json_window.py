"""The part of a JSON file's text that is in memory, and the values in it.

Here: refilling, lines and columns, the fast parser. Not here: what the forms of a file are (`json.py`), rows (`json_rows.py`).
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


def is_longer(text: str, start: int, stop: int, most: int) -> bool:
    """Whether the text between two offsets has more than so many bytes as UTF-8."""
    length = stop - start
    return length > most or (length * 4 > most and len(text[start:stop].encode()) > most)


class Constant:
    """NaN, Infinity or -Infinity, which Python's parser takes and JSON does not."""

    def __init__(self, name: str) -> None:
        """Take its name, as the parser gives it."""


_PARSER: Any = JSONDecoder(
    object_pairs_hook=tuple, parse_int=str.encode, parse_float=str.encode, parse_constant=Constant
)
scan: Callable[[str, int], tuple[Any, int]] = _PARSER.scan_once
"""Parse the value that begins at an offset; return it and the offset of its end. Written in C, hooks included.

An object is a tuple of (name, value), so that nothing is lost of names that stand twice; a list a list; a number the bytes
of its literal, so that nothing is lost of its digits and it is no string.
"""
SCAN_ERRORS = (JSONDecodeError, StopIteration, RecursionError)


class Window:
    """The text in memory.

    Attributes:
        text: what was read and not yet dropped.
        at: offset of what is to be read next; it may only be moved forward.
        final: whether the text goes to the end of the file.
        hidden: whether escapes stand in the text that may be U+0000 or half of a surrogate pair.
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
        self._counted = 0  # up to here the lines are counted
        self._line = 1  # the line of this place
        self._column = 1  # the column of the text's first character, which need not begin a line

    def fill(self) -> None:
        """Drop what is before `at` and read about a piece more; at least as much as is held, so that few steps are enough."""
        self.drop()
        wanted = max(self._size, len(self.text))
        pieces, length = [self.text], 0
        while length < wanted and not self.final:
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
        """Forget what is before `at`, which is never between a CR and its LF."""
        if self.at:
            self.line(self.at)
            self._column = self.place(self.at)[1]
            self.text = self.text[self.at :]
            self.at = self._counted = 0

    def line(self, offset: int) -> int:
        """Number of the line of an offset; offsets are asked for in rising order, and never one between a CR and its LF."""
        self._line += self.ends(self._counted, offset)
        self._counted = offset
        return self._line

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset that is not before the one last asked for by `line`."""
        line = self._line + self.ends(self._counted, offset)
        end = max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset) if self._returns else -1)
        return line, offset - end if end >= 0 else self._column + offset

    def ends(self, start: int, stop: int) -> int:
        """How many lines end between two offsets."""
        count = self.text.count("\n", start, stop)
        if self._returns:
            count += self.text.count("\r", start, stop) - self.text.count("\r\n", start, stop)
        return count

    def peek(self) -> str:
        """Go to the next character that is not blank and return it; an empty text at the end of the file."""
        while not (found := _NOT_BLANK.search(self.text, self.at)):
            if self.final:
                self.at = len(self.text)
                return ""
            self.at = max(self.at, len(self.text) - self.text.endswith("\r"))  # whose LF may follow
            self.fill()
        self.at = found.start()
        return found[0]

    def refused(self, offset: int, why: str) -> RefusedFileError:
        """The refusal of the file for what is at an offset."""
        return self.refused_at(self.place(offset), why)

    @staticmethod
    def refused_at(place: tuple[int, int], why: str) -> RefusedFileError:
        """The refusal of the file for what is at a line and column; the reason shows one character of it at most."""
        return RefusedFileError(f"The file cannot be read at JSON line {place[0]:,}, column {place[1]:,}: {why}.")

    def whole_lines(self) -> int:
        """Where the last whole line of the text ends, though not far beyond a piece; 0 where not one line is whole.

        A CR at the end of the text may be the first half of a CRLF, so it ends no line yet.
        """
        stop = self.text.find("\n", self._size) + 1
        if not stop or self._returns:
            stop = len(self.text)
            if not self.final:
                stop = max(self.text.rfind("\n"), self.text.rfind("\r", 0, max(0, stop - 1))) + 1
        return stop

    def drop_line(self) -> None:
        """Forget the line that the text begins with, which may be of any length, without holding it in memory."""
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
        """Parse the value at `at`, which is no blank; return it, or what is wrong with it, and the offset of its end.

        `at` and the text may change, as more of the file may have to be read.

        Raises:
            RefusedFileError: it has no end that can be told, or is longer than a record may be.
        """
        while True:
            value: Any
            try:
                value, stop = scan(self.text, self.at)
                whole = self.final or stop < len(self.text)  # a number may go on
            except SCAN_ERRORS as error:
                if whole := self.final or not self._may_be_cut(error):
                    found = examine(self.text, self.at, len(self.text))
                    value, stop = found.fault, found.stop
                    whole = self.final or not found.ended
                    if whole and found.broken and isinstance(value, Fault):
                        self._refuse_long(value.at)
                        raise self.refused(value.at, value.why) from None
            if whole:
                self._refuse_long(stop)
                return value, stop
            self._refuse_long(len(self.text))
            self.fill()

    def _may_be_cut(self, error: Exception) -> bool:
        """Whether the value may be whole if more of the file is read."""
        match error:
            case JSONDecodeError():
                return error.pos + _CUT_TOKEN > len(self.text) or error.msg.startswith("Unterminated")
            case StopIteration():
                return int(error.value) + _CUT_TOKEN > len(self.text)
        return False

    def _refuse_long(self, stop: int) -> None:
        most = self.limits.max_record_bytes
        if is_longer(self.text, self.at, stop, most):
            raise self.refused(self.at, f"what begins here is longer than the {most:,} bytes that a row may have")
