"""What is wrong with a JSON value, where, and where it ends all the same.

Here: a careful walk, token by token, over a value that the fast parser did not take or that `json_rows` did not like.
Not here: good values; they are never walked over.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_DEPTH = 64
"""Levels of objects and lists within a record. Python's parser gives up at a depth that depends on its caller."""

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
"""Words that are shown. Others are not: what stands in a file may be personal data, and a fault is told to everybody."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a value.

    Attributes:
        at: offset in the text.
        rule: name of the rule in `dataset.STRUCTURE_RULES`.
        why: what was found, in words; never more than one character of the text.
    """

    at: int
    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Examined:
    """A value that was walked over.

    Attributes:
        stop: offset after the value.
        fault: the first thing wrong with it, if any.
        broken: whether it could not be followed to its end.
        ended: whether that is because the text ended.
    """

    stop: int
    fault: Fault | None
    broken: bool = False
    ended: bool = False


def shown(char: str) -> str:
    """What stands at a place, in words; an empty text is the end of the file."""
    if char == "\0":
        return "U+0000 follows (UTF-16 needs a byte order mark)"
    return f"{char!r} follows" if char else "the file ends"


def _why_no_value(word: str) -> str:
    if word in _KNOWN_WORDS:
        return f"{word} is not a JSON value"
    if word[0] in "+-.0123456789":
        return "a number is not written as JSON has it"
    return "a word stands here that is not a JSON value"


class _BrokenError(Exception):
    """The value cannot be followed any further."""


class _EndedError(_BrokenError):
    """The text ended."""


def examine(text: str, start: int, stop: int) -> Examined:
    """Walk over the value that begins at `start`; what follows it is not looked at.

    A wrong word, a bad escape, a comma too many and the like do not stop the walk; a bracket or comma that is missing does.

    Args:
        text: the text.
        start: where the value begins; nothing blank stands there.
        stop: where the text ends.
    """
    walk = _Walk(text, start, stop)
    try:
        walk.value()
        while walk.open:
            walk.member()
    except _BrokenError as error:
        return Examined(walk.at, walk.fault, broken=True, ended=isinstance(error, _EndedError))
    return Examined(walk.at, walk.fault)


class _Walk:
    """Where the walk stands: `open` has what is known of each object (its names) and list (None) around `at`."""

    def __init__(self, text: str, start: int, stop: int) -> None:
        self.text = text
        self.at = start
        self.stop = stop
        self.fault: Fault | None = None
        self.open: list[set[str] | None] = []
        self._begun = False

    def value(self) -> None:
        """Pass a whole plain value, or the bracket that opens an object or a list."""
        char = self._peek("a value")
        if char in "{[":
            self.open.append(set() if char == "{" else None)
            if len(self.open) == MAX_DEPTH + 1:
                self._note(self.at, "row_is_json", f"it is nested deeper than {MAX_DEPTH} levels")
            self.at += 1
            self._begun = True
        elif char == '"':
            self._string()
        else:
            word = self._word("a value")
            if word not in ("true", "false", "null") and not _NUMBER.fullmatch(word):
                self._note(self.at - len(word), "row_is_json", _why_no_value(word))

    def member(self) -> None:
        """Pass the next member of the innermost object or list, with the comma before it; or its closing bracket."""
        names = self.open[-1]
        closing = "]" if names is None else "}"
        char = self._peek(f"a comma or {closing}")
        comma = not self._begun
        if comma and char == ",":
            self.at += 1
            char = self._peek("a value" if names is None else "a name in double quotes")
            if char == closing:
                self._note(self.at, "row_is_json", f"nothing follows the comma before {closing}")
        elif comma and char != closing:
            raise self._broken(f"a comma or {closing} is expected, but {shown(char)}")
        self._begun = False
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
                self._note(start, "row_names_once", "a name stands here a second time")
            names.add(name)
        else:
            self._word("a name in double quotes")
            self._note(start, "row_is_json", "a name is not in double quotes")
        if (char := self._peek("a colon")) != ":":
            raise self._broken(f"a colon is expected, but {shown(char)}")
        self.at += 1

    def _string(self) -> str:
        """Pass a string; return what stands between its quotes."""
        found = _STRING.match(self.text, self.at, self.stop)
        if not found:
            self._note(self.at, "row_is_json", "a string is opened here and never closed")
            self.at = self.stop
            raise _EndedError
        for odd in _IN_STRING.finditer(self.text, *found.span(1)):
            match odd.lastgroup:
                case "nul":
                    self._note(odd.start(), "row_without_nul", "a string contains U+0000")
                case "control":
                    self._note(
                        odd.start(), "row_is_json", f"a string contains the control character U+{ord(odd[0]):04X}"
                    )
                case "lone":
                    self._note(odd.start(), "row_is_json", f"{odd[0]} is half of a surrogate pair")
                case "escape":
                    self._note(odd.start(), "row_is_json", f"a backslash before {odd[0][1]!r} is no escape of JSON")
        self.at = found.end()
        return found[1]

    def _word(self, expected: str) -> str:
        found = _WORD.match(self.text, self.at, self.stop)
        if not found:
            raise self._broken(f"{expected} is expected, but {shown(self.text[self.at])}")
        self.at = found.end()
        return found[0]

    def _peek(self, expected: str) -> str:
        found = _BLANK.match(self.text, self.at, self.stop)
        self.at = found.end() if found else self.at
        if self.at == self.stop:
            self._note(self.at, "row_is_json", f"{expected} is expected, but the text ends")
            raise _EndedError
        return self.text[self.at]

    def _note(self, at: int, rule: str, why: str) -> None:
        if self.fault is None:
            self.fault = Fault(at, rule, why)

    def _broken(self, why: str) -> _BrokenError:
        self._note(self.at, "row_is_json", why)
        return _BrokenError()
