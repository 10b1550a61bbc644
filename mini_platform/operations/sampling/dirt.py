"""Rows that break a rule: exactly so many, at random places, each kind in its turn.

Which kinds there are follows from the declaration: what its formats make of a broken record (`formats.py`), texts that are
none of a column's type, values past a limit, changes under which a custom rule fails.
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
from mini_platform.operations.sampling.rows import LOWER, UPPER, Cells, clean_rows, generator, hold

NOT_A_NUMBER = ("nan", "inf", "1e309", "1,5", "12°", "NA", "abc")
MISTYPED: Mapping[Any, tuple[str, ...]] = {
    float: NOT_A_NUMBER,
    int: (*NOT_A_NUMBER, "1.5"),
    Decimal: (*NOT_A_NUMBER, "1e2", "1" * (DECIMAL_DIGITS + 1)),
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
"""Texts that lenient parsers (Python, pandas, Postgres) take for a value of the type, and that are none here."""

FAR = {dt.date: ("2999-12-31", "0001-01-01"), dt.datetime: ("2999-12-31T00:00:00Z", "0001-01-01T00:00:00Z")}
"""Tried against custom rules about time. Fixed, not counted from today, so that a seed gives one file for ever."""

NO_EMAILS = {"no at": "somebody.example.org", "two": "a@b@example.org", "space": "a b@example.org", "no domain": "a@b"}

SPECIMENS = 64
"""Rows on which a way to break a custom rule must work, each of them, before it is used."""


class Dirt:
    """Spoils exactly so many of the rows, at random places, by each kind of dirt in turn.

    Attributes:
        counts: rows that were spoiled, by kind, in the order of their turns.
    """

    def __init__(self, dataset: Dataset, writer: Writer, rows: int, to_spoil: int, seed: int) -> None:
        """Find the kinds of dirt that there can be."""
        specimens = range(min(rows, SPECIMENS)) if to_spoil else range(0)
        self._kinds = _kinds(dataset, writer, clean_rows(dataset, generator(seed, "specimens"))(specimens))
        self._rng = generator(seed, "dirt")
        self._turns = self._rng.sample(list(self._kinds), len(self._kinds))
        self.counts = dict.fromkeys(self._turns, 0)
        self._rows, self._to_spoil, self._spoiled = rows, to_spoil, 0

    def applied(self, row: int, cells: Cells) -> Cells | str:
        """Return the record of a row: its cells as they are, or spoiled."""
        # Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S): exactly so many of the rows, without a list of them.
        missing = self._to_spoil - self._spoiled
        if not missing or self._rng.random() * (self._rows - row) >= missing:
            return cells
        kind = self._turns[self._spoiled % len(self._turns)]
        self._spoiled += 1
        self.counts[kind] += 1
        return self._kinds[kind](self._rng, cells)


def _kinds(dataset: Dataset, writer: Writer, specimens: list[Cells]) -> dict[str, Spoil]:
    """Every kind of dirt that the declaration makes possible, by name, in the order of the dataset's rules."""
    kinds = writer.malformed()
    for position, column in enumerate(dataset.read_columns):
        if not column.nullable:
            kinds[f"{column.name}_required"] = _put({position: ""})
        if column.type == list[float] and not column.nullable:
            kinds[f"{column.name}_required:empty list"] = _put({position: "[]"})
        for text in MISTYPED.get(column.type, ()):
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
    """Texts that parse and fail a check, by side; none where it cannot be derived."""
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
    """Text of a value past a limit: by a tenth of it, at least by 1, or by a day."""
    if isinstance(limit, dt.date):  # a time too
        return (limit + dt.timedelta(days=direction)).isoformat()
    return str(limit + direction * max(1, abs(limit) // 10))


def _custom_spoil(dataset: Dataset, custom: CustomRule, specimens: list[Cells]) -> Spoil | None:
    """A change that breaks a custom rule on every specimen: empty what may be empty, or a time far away."""
    nullable = [position for position, column in enumerate(dataset.read_columns) if column.nullable]
    changes = [dict.fromkeys(nullable, "")]
    changes += [{position: ""} for position in nullable]
    for kind, texts in FAR.items():
        places = [position for position, column in enumerate(dataset.read_columns) if column.type is kind]
        changes += [{position: text} for text in texts for position in places]
    for change in changes:
        spoiled = [[change.get(position, cell) for position, cell in enumerate(cells)] for cells in specimens]
        if not any(hold(dataset, [custom], spoiled)):
            return _put(change)
    return None
