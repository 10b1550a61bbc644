"""JSON objects -> blocks of text rows.

Here: flattening, the match of names with the declared columns, cells as text. Not here: where an object stands in a file
(`json.py`), which fault of it is told (`json_faults.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from json.encoder import encode_basestring as quoted
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from mini_platform.declare.columns import normalized
from mini_platform.rows.readers import Block, Malformed, ReadLimits
from mini_platform.rows.readers.json_faults import MAX_DEPTH

if TYPE_CHECKING:
    from mini_platform.declare.columns import Column

MAX_EXTRA = 1000
"""Names that no column declares, of one file. An object whose names are data (ids, dates) would make a column of each."""
MAX_NAME = 1000
"""Characters of a name, flattened."""
_BLOCK_CELLS = 2_000_000
"""Cells of one block. Rows that each have other names make a table that is much larger than their text."""
_PLANS = 1000
"""Sets of names of which the plan is kept."""

Cells = tuple[Any, ...]
"""Of a row: text, the bytes of a number, True, False, None for null and for what is missing."""

_key = lru_cache(maxsize=4096)(normalized)
"""Remembered, as every object has the same names."""
_PLAIN = frozenset((str, bytes, bool, type(None)))
_MISSING: Cells = (None,)
_HUGE = re.compile(r"[0-9]{1000}|[eE][+-]?0*[1-9][0-9]{3}")
"""In a number that Postgres may not hold."""
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = {True: "true", False: "false", None: ""}


class _Json(str):
    """A list or an empty object, as compact JSON: of another kind than a text that reads the same."""

    __slots__ = ()


class RowFault(Exception):  # noqa: N818  # what is wrong with a row, not with the program
    """An object that is no row."""

    def __init__(self, rule: str, why: str) -> None:
        """Take the name of the rule in `dataset.STRUCTURE_RULES` that it breaks, and what was found."""
        super().__init__(why)
        self.rule = rule
        self.why = why


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with objects that have the same names in the same order.

    Attributes:
        pick: takes the cells and one None after them, returns those of the declared columns; None if they are those.
        several: declared columns that stand there under several names: position of the column, positions of its cells.
        extra: names that no column declares, with the positions of their cells.
    """

    pick: Callable[[Cells], Cells] | None
    several: tuple[tuple[int, tuple[int, ...]], ...]
    extra: tuple[tuple[str, int], ...]


class RowBuilder:
    """Gathers the rows of one file into blocks."""

    def __init__(self, columns: Sequence[Column], limits: ReadLimits) -> None:
        """Take the declared columns.

        Raises:
            ValueError: two of them, or their aliases, differ only in what a name is forgiven.
        """
        self._limits = limits
        self._columns = [column.name for column in columns]
        self._declared: dict[str, int] = {}
        for position, column in enumerate(columns):
            for key in {_key(name) for name in (column.name, *column.aliases)}:
                if self._declared.setdefault(key, position) != position:
                    raise ValueError(f"two declared columns cannot be told apart: both are called {key}")
        self._lists = {key for key, position in self._declared.items() if columns[position].type == list[float]}
        self._most_names = len(self._declared) + MAX_EXTRA
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._extra_names: dict[str, str] = {}
        self._last = (0, 0)
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._rows: list[Cells] = []
        self._extra: dict[str, dict[int, Any]] = {}
        self._malformed: list[Malformed] = []
        self._places: list[int] = []

    def __len__(self) -> int:
        """Records that were gathered since the last block."""
        return len(self._lines) + len(self._malformed)

    def add(self, value: Any, line: int, *, hidden: bool, long: bool) -> None:
        """Add a parsed value as a row.

        Args:
            value: as `json_window.scan` gives it.
            line: on which it starts.
            hidden: whether it may have text with U+0000 or half of a surrogate pair.
            long: whether it may have a field over the limit.

        Raises:
            RowFault: it is no row.
        """
        if type(value) is not tuple:
            raise RowFault("row_is_object", f"{_KINDS.get(type(value), 'a constant')} stands where an object should")
        if self._lists:  # A string that looks like a list is none: it keeps its quotes.
            value = [(n, _string(cell) if type(cell) is str and _key(n) in self._lists else cell) for n, cell in value]
        names: tuple[str, ...]
        cells: Cells
        names, cells = zip(*value, strict=True) if value else ((), ())
        compacted: Container[int] = ()
        if not _PLAIN.issuperset(map(type, cells)):
            names, cells, compacted = self._flattened(value)
        plan = self._plans.get(names) or self._planned(names)
        if hidden:
            _check_text("".join(cell for cell in cells if type(cell) is str))
        if long:
            self._check_lengths(cells)
        row = plan.pick(cells + _MISSING) if plan.pick else cells
        if plan.several:
            row = self._one_of_several(plan, names, row, cells)
        if plan.extra:
            number = len(self._rows)
            for name, position in plan.extra:
                cell = cells[position]
                self._extra.setdefault(name, {})[number] = _Json(cell) if position in compacted else cell
        self._rows.append(row)
        self._lines.append(line)

    def reject(self, malformed: Malformed) -> None:
        """Add a record that is no row."""
        self._malformed.append(malformed)
        self._places.append(len(self._rows))

    def blocks(self, bytes_read: int) -> Iterator[Block]:
        """Give what was gathered, nearly always as one block, and begin anew."""
        width = len(self._columns) + len(self._extra)
        step = max(1, _BLOCK_CELLS // max(1, width))
        count = len(self._rows)
        numbers = self._numbered()
        for start in range(0, max(1, count), step):
            stop = min(count, start + step)
            last = stop == count
            lines = np.array(self._lines[start:stop], np.int64)
            # A part has the malformed records up to its last row, the last part the rest.
            end = len(self._malformed) if last else _first_after(self._malformed, int(lines[-1]))
            malformed, self._malformed = self._malformed[:end], self._malformed[end:]
            extra = {
                name: within
                for name, cells in self._extra.items()
                if (within := {number - start: cell for number, cell in cells.items() if start <= number < stop})
            }
            frame = self._frame(self._rows[start:stop], extra)
            extra_as_json = partial(_extra_as_json, extra, stop - start)
            yield Block(lines, frame, malformed, bytes_read, records=numbers[start:stop], extra_as_json=extra_as_json)
        self._clear()

    def _numbered(self) -> np.ndarray:
        """Number the rows and the malformed records among those that start on their line; returns the numbers of the rows."""
        places = np.array(self._places, np.int64)
        bad = places + np.arange(len(places))  # Where the malformed stand among all records.
        lines = np.empty(len(self), np.int64)
        is_row = np.ones(len(self), np.bool_)
        is_row[bad] = False
        lines[is_row], lines[bad] = self._lines, [one.line for one in self._malformed]
        numbers = np.ones(len(self), np.int64)
        if len(lines):
            begins = np.concatenate([[True], lines[1:] != lines[:-1]])
            first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
            numbers += np.arange(len(lines)) - first
            if lines[0] == self._last[0]:  # The line of the last block goes on.
                numbers[first == 0] += self._last[1]
            self._last = (int(lines[-1]), int(numbers[-1]))
        self._malformed = [
            replace(one, record=number) for one, number in zip(self._malformed, numbers[bad].tolist(), strict=True)
        ]
        return numbers[is_row]

    def _frame(self, rows: list[Cells], extra: dict[str, dict[int, Any]]) -> pl.DataFrame:
        cells_of = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        columns: dict[str, Sequence[Any]] = dict(zip(self._columns, cells_of, strict=True))
        for name, cells in extra.items():
            column = [""] * len(rows)
            for number, cell in cells.items():
                column[number] = cell
            columns[name] = column
        return pl.DataFrame([pl.Series(name, _texts(cells), pl.String) for name, cells in columns.items()])

    def _flattened(self, pairs: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, ...], Cells, Container[int]]:
        """The names and cells of an object that has objects or lists within, and which of the cells are lists."""
        names: list[str] = []
        cells: list[Any] = []
        compacted: set[int] = set()
        self._flatten(pairs, "", 1, names, cells, compacted)
        return tuple(names), tuple(cells), compacted

    def _flatten(
        self, pairs: Any, prefix: str, depth: int, names: list[str], cells: list[Any], compacted: set[int]
    ) -> None:
        _check_object(pairs, depth)
        for key, cell in pairs:
            name = prefix + key
            if type(cell) is tuple and cell:
                if len(name) > MAX_NAME:  # here already: many names may begin with it
                    raise _too_long()
                self._flatten(cell, name + "_", depth + 1, names, cells, compacted)
                continue
            names.append(name)
            if type(cell) not in _PLAIN:
                compacted.add(len(cells))
            cells.append(cell if type(cell) in _PLAIN else _compact(cell, depth))
            if len(names) > self._most_names:
                raise self._too_many()

    def _planned(self, names: tuple[str, ...]) -> _Plan:
        """Make the plan for objects with these names."""
        if len(names) > self._most_names:
            raise self._too_many()
        found: dict[int, list[int]] = {}
        extra: list[tuple[str, str, int]] = []
        seen: set[str] = set()
        for position, name in enumerate(names):
            if len(name) > MAX_NAME:
                raise _too_long()
            _check_text(name)
            shown = name.strip() or "column"
            key = _key(shown)
            if key in seen:
                column = self._columns[self._declared[key]] if key in self._declared else "one that is not declared"
                raise RowFault("row_names_once", f"two of its names are one column: {column}")
            seen.add(key)
            if key in self._declared:
                found.setdefault(self._declared[key], []).append(position)
            else:
                extra.append((key, shown, position))
        if len(self._extra_names.keys() | {key for key, _, _ in extra}) > MAX_EXTRA:
            raise self._too_many()
        for key, shown, _ in extra:
            self._extra_names.setdefault(key, shown)
        positions = [found.get(number, [len(names)])[0] for number in range(len(self._columns))]
        plan = _Plan(
            None if positions == list(range(len(names))) else _picker(positions),
            tuple((number, tuple(several)) for number, several in found.items() if len(several) > 1),
            tuple((self._extra_names[key], position) for key, _, position in extra),
        )
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        self._plans[names] = plan
        return plan

    def _too_many(self) -> RowFault:
        why = f"with it the file has more than {MAX_EXTRA:,} names that no column declares"
        return RowFault("row_names_bounded", why)

    def _check_lengths(self, cells: Cells) -> None:
        most = self._limits.max_field_bytes
        longest = max((len(_text(cell).encode()) for cell in cells), default=0)
        if longest > most:
            raise RowFault("row_fields_bounded", f"a field has {longest:,} bytes; at most {most:,} are allowed")

    def _one_of_several(self, plan: _Plan, names: tuple[str, ...], row: Cells, cells: Cells) -> Cells:
        """The row, where a column stands there under its name and an alias; one of them at most may have a value."""
        chosen = list(row)
        for number, positions in plan.several:
            filled = [position for position in positions if cells[position] not in (None, "")]
            if len(filled) > 1:
                both = " and ".join(_key(names[position]) for position in filled)
                raise RowFault("row_names_once", f"both stand for {self._columns[number]}: {both}")
            chosen[number] = cells[filled[0]] if filled else None
        return tuple(chosen)


_KINDS: dict[type, str] = {
    str: "a string",
    bytes: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
}


def _too_long() -> RowFault:
    return RowFault("row_names_bounded", f"a name is longer than {MAX_NAME:,} characters")


def _picker(positions: list[int]) -> Callable[[Cells], Cells]:
    if len(positions) < 2:  # Of these itemgetter gives no tuple.
        return lambda cells: tuple(cells[only] for only in positions)
    return cast("Callable[[Cells], Cells]", itemgetter(*positions))


def _string(text: str) -> str:
    _check_text(text)
    return quoted(text)


def _check_text(text: str) -> None:
    """Refuse what the parser lets through and no database takes."""
    if "\0" in text:
        raise RowFault("row_without_nul", "a text contains U+0000")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowFault("row_is_json", "a text contains half of a surrogate pair") from None


def _check_object(pairs: tuple[tuple[str, Any], ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RowFault("row_is_json", f"it is nested deeper than {MAX_DEPTH} levels")
    if len(dict(pairs)) < len(pairs):
        raise RowFault("row_names_once", "a name stands twice in one object")


def _compact(value: Any, depth: int) -> str:
    """A value as compact JSON text; `depth` is that of what it is in."""
    kind = type(value)
    if kind is str:
        _check_text(value)
        return quoted(value)
    if kind is bytes:
        return cast("bytes", value).decode()
    if kind is list:
        if depth >= MAX_DEPTH:
            raise RowFault("row_is_json", f"it is nested deeper than {MAX_DEPTH} levels")
        if {bytes}.issuperset(map(type, value)):  # a series of numbers
            return f"[{b','.join(value).decode()}]"
        return f"[{','.join([_compact(one, depth + 1) for one in value])}]"
    if kind is tuple:
        _check_object(value, depth + 1)
        for name, _ in value:
            _check_text(name)
        return "{" + ",".join([f"{quoted(name)}:{_compact(one, depth + 1)}" for name, one in value]) + "}"
    if kind is bool or value is None:
        return _WORDS[value] or "null"
    raise RowFault("row_is_json", "NaN and Infinity are not JSON values")


def _texts(cells: Sequence[Any]) -> Sequence[str]:
    """The cells of a column as text."""
    kinds = set(map(type, cells))
    if kinds <= {str}:
        return cells
    if kinds == {bytes}:
        return list(map(bytes.decode, cells))
    return [_text(cell) for cell in cells]


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        return str(cell)
    return cell.decode() if type(cell) is bytes else _WORDS[cell]


def _extra_as_json(extra: Mapping[str, Mapping[int, Any]], count: int) -> pl.Series:
    """Columns of cells by row -> a JSON object a row, its values as they stood in the file; null without any."""
    objects: list[list[str]] = [[] for _ in range(count)]
    for name, cells in extra.items():
        start = quoted(name) + ":"
        for number, cell in cells.items():
            objects[number].append(start + _json(cell))
    return pl.Series(["{" + ",".join(members) + "}" if members else None for members in objects], dtype=pl.String)


def _json(cell: Any) -> str:
    """A cell as the JSON value that it was; a number that Postgres cannot hold as a text."""
    if type(cell) is str:
        return quoted(cell)
    text = _text(cell) or "null"
    is_held = not _HUGE.search(text) or not _HUGE.search(_STRINGS.sub("", text))
    return text if is_held else quoted(text)


def _first_after(malformed: list[Malformed], line: int) -> int:
    return next((index for index, one in enumerate(malformed) if one.line > line), len(malformed))
