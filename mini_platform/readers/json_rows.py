"""JSON objects -> blocks of text rows.

Here: flattening, the match of names with the declared columns, cells as text. Not here: where an object stands in a file
(`json.py`), which fault of it is told (`json_faults.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from mini_platform.readers import Block, Malformed, ReadLimits
from mini_platform.readers.header import normalized
from mini_platform.readers.json_faults import MAX_DEPTH

if TYPE_CHECKING:
    from mini_platform.dataset import Column

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
_WORDS = {True: "true", False: "false", None: ""}


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
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._rows: list[Cells] = []
        self._extra: dict[str, dict[int, Any]] = {}
        self._malformed: list[Malformed] = []

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
        if not _PLAIN.issuperset(map(type, cells)):
            names, cells = self._flattened(value)
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
                if cells[position] is not None:
                    self._extra.setdefault(name, {})[number] = cells[position]
        self._rows.append(row)
        self._lines.append(line)

    def reject(self, malformed: Malformed) -> None:
        """Add a record that is no row."""
        self._malformed.append(malformed)

    def blocks(self, bytes_read: int) -> Iterator[Block]:
        """Give what was gathered, nearly always as one block, and begin anew."""
        width = len(self._columns) + len(self._extra)
        step = max(1, _BLOCK_CELLS // max(1, width))
        count = len(self._rows)
        for start in range(0, max(1, count), step):
            stop = min(count, start + step)
            last = stop == count
            lines = np.array(self._lines[start:stop], np.int64)
            # A part has the malformed records up to its last row, the last part the rest.
            end = len(self._malformed) if last else _first_after(self._malformed, int(lines[-1]))
            malformed, self._malformed = self._malformed[:end], self._malformed[end:]
            yield Block(lines, self._frame(start, stop), malformed, bytes_read)
        self._clear()

    def _frame(self, start: int, stop: int) -> pl.DataFrame:
        rows = self._rows[start:stop]
        cells_of = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        columns: dict[str, Sequence[Any]] = dict(zip(self._columns, cells_of, strict=True))
        for name, cells in self._extra.items():
            within = {number: cell for number, cell in cells.items() if start <= number < stop}
            if within:
                column = [""] * (stop - start)
                for number, cell in within.items():
                    column[number - start] = cell
                columns[name] = column
        return pl.DataFrame([pl.Series(name, _texts(cells), pl.String) for name, cells in columns.items()])

    def _flattened(self, pairs: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, ...], Cells]:
        """The names and cells of an object that has objects or lists within."""
        names: list[str] = []
        cells: list[Any] = []
        self._flatten(pairs, "", 1, names, cells)
        return tuple(names), tuple(cells)

    def _flatten(self, pairs: Any, prefix: str, depth: int, names: list[str], cells: list[Any]) -> None:
        _check_object(pairs, depth)
        for key, cell in pairs:
            name = prefix + key
            if type(cell) is tuple and cell:
                if len(name) > MAX_NAME:  # here already: many names may begin with it
                    raise _too_long()
                self._flatten(cell, name + "_", depth + 1, names, cells)
                continue
            names.append(name)
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
    if type(cell) is str:
        return cell
    return cell.decode() if type(cell) is bytes else _WORDS[cell]


def _first_after(malformed: list[Malformed], line: int) -> int:
    return next((index for index, one in enumerate(malformed) if one.line > line), len(malformed))
