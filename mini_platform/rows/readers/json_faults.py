"""Faults of a JSON value: the first one, its position, and where the value ends nevertheless.

Here: a slow scan, token by token, of a value that the fast parser or `json_rows` rejected. Not here: good values, which are
never scanned.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_DEPTH = 64
"""Levels of objects and lists within a record. Python's parser fails at a depth that depends on its caller."""

_BLANK = re.compile(r"[ \t\n\r]*+")
_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_WORD = re.compile(r'[^\s\x00-\x1f,:\[\]{}"]++')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_IN_STRING = re.compile(
    r"(?P<nul>\x00|\\u0000)|(?P<control>[\x01-\x1f])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\u[0-9a-fA-F]{4}|\\[\"\\/bfnrt]|(?P<escape>\\.)",
    re.DOTALL,
)
_KNOWN_WORDS = frozenset(
    (
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "-inf",
        "None",
        "True",
        "False",
        "NULL",
        "TRUE",
        "FALSE",
        "undefined",
    )
)
"""Words that are shown. Others are not: the content of a file may be personal data, and faults are shown to everybody."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a value.

    Attributes:
        at: offset in the text.
        rule: name of the rule in `dataset.STRUCTURE_RULES`.
        why: the fault in words, with at most one character of the text.
    """

    at: int
    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of scanning a value.

    Attributes:
        stop: offset after the value.
        fault: the first fault of the value, if any.
        broken: True if the end of the value could not be found.
        ended: True if the text ended before the value.
    """

    stop: int
    fault: Fault | None
    broken: bool = False
    ended: bool = False


def shown(char: str) -> str:
    """Return a character in words; an empty text is the end of the file."""
    if char == "\0":
        return "U+0000 follows (UTF-16 needs a byte order mark)"
    return f"{char!r} follows" if char else "the file ends"


def _why_no_value(word: str) -> str:
    if word in _KNOWN_WORDS:
        return f"{word} is not a JSON value"
    if word[0] in "+-.0123456789":
        return "a number is not in the format of JSON"
    return "an unquoted word is not a JSON value"


class _BrokenError(Exception):
    """The scan cannot continue."""


class _EndedError(_BrokenError):
    """The text ended."""


def examine(text: str, start: int, stop: int) -> Examination:
    """Scan the value that begins at `start`, not the text after it; return its end and its first fault.

    A wrong word, a bad escape, an extra comma and the like do not stop the scan; a missing bracket or comma does.

    Args:
        text: the text.
        start: offset of the value; no blank is there.
        stop: offset of the end of the text.
    """
    scan = _Scan(text, start, stop)
    try:
        scan.value()
        while scan.open:
            scan.member()
    except _BrokenError as error:
        return Examination(scan.at, scan.fault, broken=True, ended=isinstance(error, _EndedError))
    return Examination(scan.at, scan.fault)


class _Scan:
    """The state of a scan: `open` has an item for each object (its names) and list (None) around `at`, outermost first.

    Its own stack instead of recursion, so that nesting of any depth is scanned to its end. `fault` keeps the first fault only.
    """

    def __init__(self, text: str, start: int, stop: int) -> None:
        self.text = text
        self.at = start
        self.stop = stop
        self.fault: Fault | None = None
        self.open: list[set[str] | None] = []
        self._at_start = False

    def value(self) -> None:
        """Move past a whole plain value, or past the bracket that opens an object or a list."""
        char = self._peek("a value")
        if char in "{[":
            self.open.append(set() if char == "{" else None)
            if len(self.open) == MAX_DEPTH + 1:
                self._add_fault(self.at, "row_is_json", f"it is nested deeper than {MAX_DEPTH} levels")
            self.at += 1
            self._at_start = True
        elif char == '"':
            self._string()
        else:
            word = self._word("a value")
            if word not in ("true", "false", "null") and not _NUMBER.fullmatch(word):
                self._add_fault(self.at - len(word), "row_is_json", _why_no_value(word))

    def member(self) -> None:
        """Move past the next member of the innermost object or list and the comma before it, or past the closing bracket."""
        names = self.open[-1]
        closing = "]" if names is None else "}"
        char = self._peek(f"a comma or {closing}")
        comma = not self._at_start
        if comma and char == ",":
            self.at += 1
            char = self._peek("a value" if names is None else "a name in double quotes")
            if char == closing:
                self._add_fault(self.at, "row_is_json", f"nothing follows the comma before {closing}")
        elif comma and char != closing:
            raise self._broken(f"a comma or {closing} is expected, but {shown(char)}")
        self._at_start = False
        if char == closing:
            self.at += 1
            self.open.pop()
            return
        if names is not None:
            self._name(names)
        self.value()

    def _name(self, names: set[str]) -> None:
        start = self.at
        if self.text[start] == '"':
            body = self._string()
            name = json.loads(f'"{body}"') if "\\" in body and self.fault is None else body
            if name in names:
                self._add_fault(start, "row_names_once", "the name occurs twice in the object")
            names.add(name)
        else:
            self._word("a name in double quotes")
            self._add_fault(start, "row_is_json", "a name is not in double quotes")
        if (char := self._peek("a colon")) != ":":
            raise self._broken(f"a colon is expected, but {shown(char)}")
        self.at += 1

    def _string(self) -> str:
        """Move past a string; return the text between its quotes."""
        match = _STRING.match(self.text, self.at, self.stop)
        if not match:
            self._add_fault(self.at, "row_is_json", "a string is opened here and never closed")
            self.at = self.stop
            raise _EndedError
        for special in _IN_STRING.finditer(self.text, *match.span(1)):
            match special.lastgroup:
                case "nul":
                    self._add_fault(special.start(), "row_without_nul", "a string contains U+0000")
                case "control":
                    self._add_fault(
                        special.start(),
                        "row_is_json",
                        f"a string contains the control character U+{ord(special[0]):04X}",
                    )
                case "lone":
                    self._add_fault(special.start(), "row_is_json", f"{special[0]} is half of a surrogate pair")
                case "escape":
                    self._add_fault(
                        special.start(), "row_is_json", f"a backslash before {special[0][1]!r} is not a JSON escape"
                    )
        self.at = match.end()
        return match[1]

    def _word(self, expected: str) -> str:
        match = _WORD.match(self.text, self.at, self.stop)
        if not match:
            raise self._broken(f"{expected} is expected, but {shown(self.text[self.at])}")
        self.at = match.end()
        return match[0]

    def _peek(self, expected: str) -> str:
        match = _BLANK.match(self.text, self.at, self.stop)
        self.at = match.end() if match else self.at
        if self.at == self.stop:
            self._add_fault(self.at, "row_is_json", f"{expected} is expected, but the text ends")
            raise _EndedError
        return self.text[self.at]

    def _add_fault(self, at: int, rule: str, why: str) -> None:
        if self.fault is None:
            self.fault = Fault(at, rule, why)

    def _broken(self, why: str) -> _BrokenError:
        self._add_fault(self.at, "row_is_json", why)
        return _BrokenError()
