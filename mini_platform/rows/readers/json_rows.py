"""JSON objects -> blocks of text rows.

Here: flattening, matching names with the declared columns, cells as text. Not here: the position of an object in a file
(`json.py`), the fault that is reported (`json_faults.py`).
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
from mini_platform.rows.readers.exports import EXTRA, exported_columns, is_export
from mini_platform.rows.readers.json_faults import MAX_DEPTH
from mini_platform.rows.readers.json_window import SCAN_ERRORS, scan

if TYPE_CHECKING:
    from mini_platform.declare.columns import Column

MAX_EXTRA = 1000
"""Most undeclared names of one file. An object whose names are data (ids, dates) would create a column for each."""
MAX_NAME = 1000
"""Most characters of a flattened name."""
_BLOCK_CELLS = 2_000_000
"""Most cells of one block. Rows that each have other names create a table that is much larger than their text."""
_PLANS = 1000
"""Number of cached plans, one for each sequence of names."""

Cells = tuple[Any, ...]
"""Cells of a row: text, the bytes of a number, True, False, None for null and for a missing name."""

_key = lru_cache(maxsize=4096)(normalized)
"""Cached, as every object has the same names."""
_PLAIN = frozenset((str, bytes, bool, type(None)))
_MISSING: Cells = (None,)
_HUGE = re.compile(r"[0-9]{1000}|[eE][+-]?0*[1-9][0-9]{3}")
"""Pattern of a number that Postgres may not hold."""
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = {True: "true", False: "false", None: ""}


class _Json(str):
    """A list or an empty object, as compact JSON: a type of its own, to tell it from a string with the same text."""

    __slots__ = ()


class RowFault(Exception):  # noqa: N818  # a fault of a row, not of the program
    """A JSON value is not a valid row."""

    def __init__(self, rule: str, why: str) -> None:
        """Take the name of the broken rule in `dataset.STRUCTURE_RULES`, and the fault in words."""
        super().__init__(why)
        self.rule = rule
        self.why = why


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan that turns objects with the same names in the same order into rows.

    Attributes:
        pick: takes the cells followed by one None, returns the cells of the declared columns; None if these are all the cells.
        several: declared columns with several names in the object: position of the column, positions of its cells.
        extra: undeclared names with the positions of their cells.
    """

    pick: Callable[[Cells], Cells] | None
    several: tuple[tuple[int, tuple[int, ...]], ...]
    extra: tuple[tuple[str, int], ...]


class RowBuilder:
    """Collects the rows of one file into blocks.

    Most objects of a file have the same names in the same order. The first such object is matched with the declared columns,
    and the result is cached as a `_Plan`; for each later one, a single `itemgetter` call picks the cells of a row. Cells stay
    as the parser returned them until a block is built; only undeclared names are stored by row, as few rows may have them.
    """

    def __init__(self, columns: Sequence[Column], limits: ReadLimits) -> None:
        """Take the declared columns.

        Raises:
            ValueError: two of them, or their aliases, have the same normalized name.
        """
        self._limits = limits
        self._read = columns
        self._columns = [column.name for column in columns]
        self._is_export: bool | None = None
        self._set_names(columns)
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._extra_names: dict[str, str] = {}
        self._last = (0, 0)
        self._clear()

    def _set_names(self, columns: Sequence[Column]) -> None:
        self._declared: dict[str, int] = {}
        for position, column in enumerate(columns):
            for key in {_key(name) for name in (column.name, *column.aliases)}:
                if self._declared.setdefault(key, position) != position:
                    raise ValueError(f"two declared columns cannot be told apart: both are called {key}")
        self._lists = {key for key, position in self._declared.items() if columns[position].type == list[float]}
        self._max_names = len(self._declared) + MAX_EXTRA

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._rows: list[Cells] = []
        self._extra: dict[str, dict[int, Any]] = {}
        self._malformed: list[Malformed] = []
        self._places: list[int] = []

    def __len__(self) -> int:
        """Return the number of records since the last block."""
        return len(self._lines) + len(self._malformed)

    def add(self, value: Any, line: int, *, hidden: bool, long: bool) -> None:
        """Add a parsed value as a row.

        Args:
            value: the value as returned by `json_window.scan`.
            line: number of the line on which the value starts.
            hidden: True if it may have text with U+0000 or half of a surrogate pair.
            long: True if it may have a field over the limit.

        Raises:
            RowFault: the value is not a valid row.
            RefusedFileError: the file is an export in which columns are withheld.
        """
        if type(value) is not tuple:
            raise RowFault("row_is_object", f"an object is expected, not {_KINDS.get(type(value), 'a constant')}")
        if self._is_export is None:  # The first object decides.
            self._is_export = is_export({name for name, _ in value}, self._read)
            if self._is_export:
                self._set_names(exported_columns(self._read))
        if self._lists:  # A string that looks like a list is not a list: it keeps its quotes.
            value = [(n, _string(cell) if type(cell) is str and _key(n) in self._lists else cell) for n, cell in value]
        names: tuple[str, ...]
        cells: Cells
        names, cells = zip(*value, strict=True) if value else ((), ())
        compacted: Container[int] = ()
        if not _PLAIN.issuperset(map(type, cells)):
            names, cells, compacted = self._flatten_object(value)
        plan = self._plans.get(names) or self._build_plan(names)
        if hidden:
            _check_text("".join(cell for cell in cells if type(cell) is str))
        if long:
            self._check_lengths(cells)
        row = plan.pick(cells + _MISSING) if plan.pick else cells
        if plan.several:
            row = self._merge_aliases(plan, names, row, cells)
        if plan.extra:
            number = len(self._rows)
            for name, position in plan.extra:
                cell = cells[position]
                self._extra.setdefault(name, {})[number] = _Json(cell) if position in compacted else cell
        self._rows.append(row)
        self._lines.append(line)

    def reject(self, malformed: Malformed) -> None:
        """Add a malformed record."""
        self._malformed.append(malformed)
        self._places.append(len(self._rows))

    def blocks(self, bytes_read: int) -> Iterator[Block]:
        """Yield the collected records, nearly always as one block, and start over."""
        width = len(self._columns) + len(self._extra)
        step = max(1, _BLOCK_CELLS // max(1, width))
        count = len(self._rows)
        numbers = self._number_records()
        for start in range(0, max(1, count), step):
            stop = min(count, start + step)
            last = stop == count
            lines = np.array(self._lines[start:stop], np.int64)
            # A part has the malformed records up to its last row, the last part has the rest.
            end = len(self._malformed) if last else _first_after(self._malformed, int(lines[-1]))
            malformed, self._malformed = self._malformed[:end], self._malformed[end:]
            extra = {
                name: part
                for name, cells in self._extra.items()
                if (part := {number - start: cell for number, cell in cells.items() if start <= number < stop})
            }
            frame = self._frame(self._rows[start:stop], extra)
            extra_as_json = partial(_extra_as_json, extra, stop - start)
            yield Block(
                lines,
                frame,
                malformed,
                bytes_read,
                records=numbers[start:stop],
                extra_as_json=extra_as_json,
                is_export=bool(self._is_export),
            )
        self._clear()

    def _number_records(self) -> np.ndarray:
        """Number the records that start on the same line from 1; set the numbers of malformed ones, return those of the rows.

        `_places` has, for each malformed record, the number of rows before it, which gives the order of all records.
        """
        places = np.array(self._places, np.int64)
        bad = places + np.arange(len(places))  # Positions of the malformed records among all records.
        lines = np.empty(len(self), np.int64)
        is_row = np.ones(len(self), np.bool_)
        is_row[bad] = False
        lines[is_row], lines[bad] = self._lines, [one.line for one in self._malformed]
        numbers = np.ones(len(self), np.int64)
        if len(lines):
            begins = np.concatenate([[True], lines[1:] != lines[:-1]])
            first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
            numbers += np.arange(len(lines)) - first
            if lines[0] == self._last[0]:  # The last line of the previous block continues.
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

    def _flatten_object(self, pairs: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, ...], Cells, Container[int]]:
        """Return names and cells of an object with nested objects or lists, and the positions of the cells that are JSON."""
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
            if type(cell) is tuple and cell and not (self._is_export and name == EXTRA):
                if len(name) > MAX_NAME:  # checked here already: many names may begin with it
                    raise _too_long()
                self._flatten(cell, name + "_", depth + 1, names, cells, compacted)
                continue
            names.append(name)
            if type(cell) not in _PLAIN:
                compacted.add(len(cells))
            cells.append(cell if type(cell) in _PLAIN else _compact(cell, depth))
            if len(names) > self._max_names:
                raise self._too_many()

    def _build_plan(self, names: tuple[str, ...]) -> _Plan:
        """Build and cache the plan for objects with these names."""
        if len(names) > self._max_names:
            raise self._too_many()
        declared_positions: dict[int, list[int]] = {}
        extra: list[tuple[str, str, int]] = []
        keys: set[str] = set()
        for position, name in enumerate(names):
            if len(name) > MAX_NAME:
                raise _too_long()
            _check_text(name)
            shown = name.strip() or "column"
            key = _key(shown)
            if key in keys:
                column = self._columns[self._declared[key]] if key in self._declared else "one that is not declared"
                raise RowFault("row_names_once", f"two of its names are one column: {column}")
            keys.add(key)
            if key in self._declared:
                declared_positions.setdefault(self._declared[key], []).append(position)
            else:
                extra.append((key, shown, position))
        if len(self._extra_names.keys() | {key for key, _, _ in extra}) > MAX_EXTRA:
            raise self._too_many()
        for key, shown, _ in extra:
            self._extra_names.setdefault(key, shown)
        positions = [declared_positions.get(number, [len(names)])[0] for number in range(len(self._columns))]
        plan = _Plan(
            None if positions == list(range(len(names))) else _picker(positions),
            tuple((number, tuple(several)) for number, several in declared_positions.items() if len(several) > 1),
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
        max_bytes = self._limits.max_field_bytes
        longest = max((len(_text(cell).encode()) for cell in cells), default=0)
        if longest > max_bytes:
            raise RowFault("row_fields_bounded", f"a field has {longest:,} bytes; at most {max_bytes:,} are allowed")

    def _merge_aliases(self, plan: _Plan, names: tuple[str, ...], row: Cells, cells: Cells) -> Cells:
        """Return the row of an object that has a column under its name and an alias; at most one of them may have a value."""
        chosen = list(row)
        for number, positions in plan.several:
            filled = [position for position in positions if cells[position] not in (None, "")]
            if len(filled) > 1:
                both = " and ".join(_key(names[position]) for position in filled)
                raise RowFault("row_names_once", f"two of its names have a value for {self._columns[number]}: {both}")
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
    if len(positions) < 2:  # With fewer than two positions, itemgetter does not return a tuple.
        return lambda cells: tuple(cells[only] for only in positions)
    return cast("Callable[[Cells], Cells]", itemgetter(*positions))


def _string(text: str) -> str:
    _check_text(text)
    return quoted(text)


def _check_text(text: str) -> None:
    """Refuse text that the parser accepts and Postgres does not."""
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
        raise RowFault("row_names_once", "a name occurs twice in one object")


def _compact(value: Any, depth: int) -> str:
    """Return a value as compact JSON text; `depth` is the depth of its parent."""
    kind = type(value)
    if kind is str:
        _check_text(value)
        return quoted(value)
    if kind is bytes:
        return cast("bytes", value).decode()
    if kind is list:
        if depth >= MAX_DEPTH:
            raise RowFault("row_is_json", f"it is nested deeper than {MAX_DEPTH} levels")
        if {bytes}.issuperset(map(type, value)):  # a list of numbers
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
    """Return the cells of a column as text."""
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


def merged_objects(texts: pl.Series, others: pl.Series) -> pl.Series:
    """Return JSON objects with the members of two columns of them, null where both have none; others win.

    A text of the first column that is not an object that Postgres can hold becomes a member `_extra`.
    """

    def merged(text: str, other: str | None) -> str | None:
        members = [part[1:-1] for part in (_object(text), other) if part]
        return "{" + ",".join(members) + "}" if members else None

    return pl.Series(map(merged, texts, others), dtype=pl.String)


def _object(text: str) -> str | None:
    """Return the text of an object as compact JSON, None if it has no members."""
    if not text:
        return None
    try:
        value, stop = scan(text, 0)
        if type(value) is tuple and stop == len(text) and _fits_postgres(text):
            return _compact(value, 0) if value else None
    except (RowFault, *SCAN_ERRORS):
        pass
    return "{" + f"{quoted(EXTRA)}:{quoted(text)}" + "}"


def _extra_as_json(extra: Mapping[str, Mapping[int, Any]], count: int, names: Sequence[str]) -> pl.Series:
    """Return a JSON object for each row from columns of cells by row, with the values as in the file; null if it has none."""
    objects: list[list[str]] = [[] for _ in range(count)]
    for name in names:
        start = quoted(name) + ":"
        for number, cell in extra[name].items():
            objects[number].append(start + _json(cell))
    return pl.Series(["{" + ",".join(members) + "}" if members else None for members in objects], dtype=pl.String)


def _json(cell: Any) -> str:
    """Return a cell as its original JSON value; a number that Postgres cannot hold as a string."""
    if type(cell) is str:
        return quoted(cell)
    text = _text(cell) or "null"
    return text if _fits_postgres(text) else quoted(text)


def _fits_postgres(text: str) -> bool:
    return not _HUGE.search(text) or not _HUGE.search(_STRINGS.sub("", text))


def _first_after(malformed: list[Malformed], line: int) -> int:
    return next((index for index, one in enumerate(malformed) if one.line > line), len(malformed))
