"""Rows that fail a rule: an exact number, at random places, each kind in turn.

The kinds follow from the declaration: malformed records of its formats (`formats.py`), texts that are not of a column's type,
values beyond a limit, changes that make a custom rule fail.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from mini_platform.declare.columns import DECIMAL_DIGITS, TYPE_RULES, Column, CustomRule
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.sampling.formats import Spoil, Writer
from mini_platform.operations.sampling.rows import LOWER, UPPER, Cells, generator, rules_hold

NOT_A_NUMBER = ("nan", "inf", "1e309", "1,5", "12°", "NA", "abc")
MISTYPED: Mapping[Any, tuple[str, ...]] = {
    float: NOT_A_NUMBER,
    int: (*NOT_A_NUMBER, "1.5"),
    Decimal: (*NOT_A_NUMBER, f"1e{DECIMAL_DIGITS}", "1_0", "1" * (DECIMAL_DIGITS + 1)),
    dt.date: ("2024-02-30", "31/12/2024", "20240101", "now", "infinity"),
    dt.datetime: (
        "2024-01-01T12:00:00",
        "2024-02-30T12:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01",
        "1704067200",
        "now",
    ),
    bool: ("maybe", "2", "NA"),
    list[float]: ('["1"]', "[true]", "[null]", "[1, [2]]", "[1, 1e309]", "1", "abc"),
}
"""Texts that lenient parsers (Python, pandas, Postgres) accept as values of the type, and that are invalid here."""

LOCAL_TIMES = ("2024-01-01T12:00:00", "2024-01-01")
"""Texts among these that are valid in a column with a time zone."""
FAR = {dt.date: ("2999-12-31", "0001-01-01"), dt.datetime: ("2999-12-31T00:00:00Z", "0001-01-01T00:00:00Z")}
"""Values to try on custom rules about time; fixed instead of relative to today, so that a seed always gives the same file."""

NO_EMAILS = {"no at": "somebody.example.org", "two": "a@b@example.org", "space": "a b@example.org", "no domain": "a@b"}

SPECIMENS = 64
"""Number of rows on all of which a change must fail a custom rule before it is used."""


class Dirt:
    """Generator of an exact number of invalid rows, at random places, by each kind of dirt in turn.

    Attributes:
        counts: number of invalid rows by kind, in the order of use.
    """

    def __init__(
        self, dataset: Dataset, writer: Writer, specimens: list[Cells], rows: int, to_spoil: int, seed: int
    ) -> None:
        """Collect the possible kinds of dirt; `specimens` are some valid rows."""
        self._kinds = _kinds(dataset, writer, specimens)
        self._rng = generator(seed, "dirt")
        self._turns = self._rng.sample(list(self._kinds), len(self._kinds))
        self.counts = dict.fromkeys(self._turns, 0)
        self._rows, self._to_spoil, self._spoiled = rows, to_spoil, 0

    def applied(self, position: int, cells: Cells) -> Cells | str:
        """Return the record of the row at a position: its cells unchanged, or made invalid."""
        # Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S): an exact number of rows, without a list of them.
        remaining = self._to_spoil - self._spoiled
        if not remaining or self._rng.random() * (self._rows - position) >= remaining:
            return cells
        kind = self._turns[self._spoiled % len(self._turns)]
        self._spoiled += 1
        self.counts[kind] += 1
        return self._kinds[kind](self._rng, cells)


def _kinds(dataset: Dataset, writer: Writer, specimens: list[Cells]) -> dict[str, Spoil]:
    """Return every kind of dirt that the declaration allows, by name, in the order of the dataset's rules."""
    kinds = writer.malformed()
    for position, column in enumerate(dataset.read_columns):
        if not column.nullable:
            kinds[f"{column.name}_required"] = _put({position: ""})
        if column.type == list[float] and not column.nullable:
            kinds[f"{column.name}_required:empty list"] = _put({position: "[]"})
        for text in MISTYPED.get(column.type, ()):
            if not (column.timezone and text in LOCAL_TIMES):
                kinds[f"{column.name}_{TYPE_RULES[column.type][0]}:{text}"] = _put({position: text})
        if column.type is Decimal:
            kinds[f"{column.name}_is_decimal:decimals"] = _put({position: f"1.{'1' * (column.decimals + 1)}"})
        for check, argument in column.checks.items():
            for side, text in _outside(column, check, argument).items() if check not in column.warn else ():
                kinds[f"{column.name}_{check}:{side}"] = _put({position: text})
    for custom in dataset.custom_rules if specimens else ():
        if custom.rule.severity == "error" and (spoil := _custom_spoil(dataset, custom, specimens)):
            kinds[custom.rule.name] = spoil
    return kinds


def _put(texts: Mapping[int, str]) -> Spoil:
    return lambda _, cells: [texts.get(position, cell) for position, cell in enumerate(cells)]


def _outside(column: Column, check: str, argument: Any) -> dict[str, str]:
    """Return texts that parse but fail a check, by side; empty if none can be derived."""
    match check:
        case "in_range":
            return {
                "below": _past(argument["min_value"], -1),
                "above": _past(argument["max_value"], 1),
            }
        case _ if check in LOWER:
            return {"below": _past(argument, -1)}
        case _ if check in UPPER:
            return {"above": _past(argument, 1)}
        case "isin" if column.type is not bool:
            other = "~" + max(map(str, argument), key=len) if column.type is str else _past(max(argument), 1)
            return {"other": other}
        case "str_length":
            low, high = argument.get("min_value") or 0, argument.get("max_value")
            short = {"short": "x" * (low - 1)} if low > 1 else {}
            return short | ({"long": "x" * (high + 1)} if high else {})
        case "str_matches" if not re.match(argument, "?!"):
            return {"other": "?!"}
        case "email":
            return NO_EMAILS
        case _:
            return {}


def _past(limit: Any, direction: int) -> str:
    """Return the text of a value beyond a limit by a tenth of it, at least by 1, or by a day."""
    if isinstance(limit, dt.date):  # Datetimes are dates, too.
        return (limit + dt.timedelta(days=direction)).isoformat()
    return str(limit + direction * max(1, abs(limit) // 10))


def _custom_spoil(dataset: Dataset, custom: CustomRule, specimens: list[Cells]) -> Spoil | None:
    """Return a change that fails a custom rule on every specimen, or None: empty nullable cells, or a far-away time."""
    nullable = [position for position, column in enumerate(dataset.read_columns) if column.nullable]
    changes = [dict.fromkeys(nullable, "")]
    changes += [{position: ""} for position in nullable]
    for kind, texts in FAR.items():
        positions = [position for position, column in enumerate(dataset.read_columns) if column.type is kind]
        changes += [{position: text} for text in texts for position in positions]
    for change in changes:
        spoiled = [[change.get(position, cell) for position, cell in enumerate(cells)] for cells in specimens]
        if not any(rules_hold(dataset, [custom], spoiled)):
            return _put(change)
    return None
