"""Valid rows of a sample, as texts of the columns that are read: from `realistic`, or drawn from types and checks.

Not here: rows that fail a rule (`dirt.py`), and how a row is written (`formats.py`).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import DECIMAL_DIGITS, Column, CustomRule
from mini_platform.declare.dataset import Dataset

if TYPE_CHECKING:
    import polars as pl

Cells = list[str]

DAYS, KEY_DAYS = 1_000, 20_000
"""Days before the last one within which dates without a declared bound are drawn; in a key each row has a day of its own."""

LOWER = {"ge": False, "greater_than_or_equal_to": False, "gt": True, "greater_than": True}
UPPER = {"le": False, "less_than_or_equal_to": False, "lt": True, "less_than": True}
"""Pandera's one-sided checks -> whether the bound itself is excluded."""

DRAWABLE = {"in_range", "isin", "str_length", "email", *LOWER, *UPPER}
"""Checks under which values can be drawn."""

REDRAWS = 1000
"""Maximum number of times that a row failing a custom rule is drawn again; after that the dataset needs `realistic`."""

PARSERS: Mapping[Any, Callable[[str], Any]] = {
    str: str,
    float: float,
    int: int,
    Decimal: Decimal,
    dt.date: dt.date.fromisoformat,
    dt.datetime: dt.datetime.fromisoformat,
    bool: lambda text: text == "true",
    list[float]: lambda text: list(map(float, json.loads(text))),
}
"""Type of a column -> parser of the text of a valid cell, as written here, for the custom rules."""


def generator(seed: int, purpose: str) -> random.Random:
    """Return a generator of random numbers per purpose, so that more dirt does not change the valid rows."""
    return random.Random(f"{seed}/{purpose}")  # noqa: S311 - sample data, not secrets


def yesterday() -> dt.date:
    """Return the last day in UTC that is over."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def clean_rows(dataset: Dataset, rng: random.Random, last_day: dt.date) -> Callable[[range], list[Cells]]:
    """Return a function that generates valid rows for a range of row numbers, cells in the order of the read columns.

    Dates and times reach until the end of `last_day`.
    """
    if (realistic := dataset.realistic) is not None:
        names = [column.name for column in dataset.read_columns]

        def from_realistic(numbers: range) -> list[Cells]:
            return [[cells[name] for name in names] for cells in (realistic(rng, n, last_day) for n in numbers)]

        return from_realistic

    columns = [_bounded(column, last_day, in_key=column.name in dataset.key) for column in dataset.read_columns]
    for column in columns:
        if undrawable := set(column.checks) - DRAWABLE - set(column.warn):
            raise ValueError(
                f"dataset {dataset.name}: no value of {column.name} can be drawn under {sorted(undrawable)};"
                " declare `realistic`"
            )
    rules = [custom for custom in dataset.custom_rules if custom.rule.severity == "error"]
    keys = sorted((c for c in columns if c.name in dataset.key), key=_capacity)
    capacity = math.prod(map(_capacity, keys))

    def draw_rows(numbers: range) -> list[Cells]:
        if numbers.stop > capacity:
            raise ValueError(f"dataset {dataset.name}: its key has only {capacity} different values to draw")
        rows = {number: _draw(columns, keys, rng, number) for number in numbers}
        pending = list(numbers) if rules else []
        for _ in range(REDRAWS):
            holding = rules_hold(dataset, rules, [rows[number] for number in pending])
            pending = [number for number, holds in zip(pending, holding, strict=True) if not holds]
            if not pending:
                return list(rows.values())
            rows.update((number, _draw(columns, keys, rng, number)) for number in pending)
        names = [custom.rule.name for custom in rules]
        raise ValueError(f"dataset {dataset.name}: rows drawn at random do not satisfy {names}; declare `realistic`")

    return draw_rows


def _bounded(column: Column, last_day: dt.date, *, in_key: bool) -> Column:
    """Return a column of dates or times with the last day as its upper bound, and a lower bound, if none is declared."""
    if column.type not in (dt.date, dt.datetime) or "isin" in column.checks:
        return column
    checks, days = dict(column.checks), dt.timedelta(days=KEY_DAYS if in_key else DAYS)
    latest: dt.date = last_day
    if column.type is dt.datetime:
        latest = dt.datetime.combine(last_day, dt.time(23, 59, 59), dt.UTC)
    lower = [checks[name] for name in checks if name in LOWER]
    if "in_range" not in checks and not checks.keys() & UPPER.keys() and all(limit < latest for limit in lower):
        checks["le"] = latest
        if not lower:
            checks["ge"] = latest - days
    return replace(column, checks=checks)


def rules_hold(dataset: Dataset, rules: Sequence[CustomRule], rows: list[Cells]) -> list[bool]:
    """Return for each valid row of texts if all rules hold; null counts as holding."""
    import polars as pl

    if not rows:
        return []
    frame = pl.DataFrame(
        {
            column.name: [PARSERS[column.type](text) if text else None for text in texts]
            for column, texts in zip(dataset.read_columns, zip(*rows, strict=True), strict=True)
        },
        schema={column.name: _dtype(column) for column in dataset.read_columns},
    )
    system_values = {"file": "sample", "line": "1", "record": "1", "source": dataset.sources[0].name}
    frame = frame.with_columns(
        pl.lit(system_values[c.system]).alias(c.name) for c in dataset.columns if c.system in system_values
    )
    frame = frame.with_columns(c.derived(pl.col).alias(c.name) for c in dataset.columns if c.derived)
    holds = pl.all_horizontal([custom.holds(pl.col).fill_null(value=True) for custom in rules])
    return frame.with_columns(_holds=holds)["_holds"].to_list()


def _dtype(column: Column) -> Any:
    import polars as pl

    special: Mapping[Any, pl.DataType] = {
        Decimal: pl.Decimal(DECIMAL_DIGITS, column.decimals),
        dt.datetime: pl.Datetime("us", "UTC"),
        list[float]: pl.List(pl.Float64()),
    }
    return special.get(column.type, column.type)


def _draw(columns: Sequence[Column], keys: Sequence[Column], rng: random.Random, number: int) -> Cells:
    """Draw a row: the key from the row number, written in the mixed radix of the key columns, the rest at random."""
    texts = {}
    for column in keys:
        number, index = divmod(number, _capacity(column))
        texts[column.name] = _nth(column, index)
    return [texts[c.name] if c.name in texts else _at_random(rng, c) for c in columns]


def _at_random(rng: random.Random, column: Column) -> str:
    if column.nullable and rng.random() < 0.05:  # As often as values are missing in tidy data.
        return ""
    if "isin" in column.checks or column.type is bool:
        return rng.choice(_options(column))
    if column.type is str:
        low, high = _lengths(column)
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(low, min(high, low + 12))))
        return f"{word[:20]}@example.org" if "email" in column.checks else word
    if column.type == list[float]:
        return json.dumps([round(rng.uniform(-100, 100), 3) for _ in range(rng.randint(1, 5))])
    lowest, highest = _bounds(column, 1000)
    if column.type in (float, Decimal):
        value = rng.uniform(lowest, highest)
        decimals = 2 if column.type is float else column.decimals
        short = round(value, decimals)
        if column.type is Decimal:
            return f"{short if lowest <= short <= highest else math.ceil(lowest):.{decimals}f}"
        return repr(short if lowest <= short <= highest else value)
    return _number_text(column, rng.randint(math.ceil(lowest), math.floor(highest)))


def _capacity(column: Column) -> int:
    """Return the number of different keys that `_nth` can give for a column."""
    if "isin" in column.checks or column.type is bool:
        return len(_options(column))
    if column.type is str:
        return int(10 ** (_lengths(column)[1] - len(_prefix(column))))
    lowest, highest = _bounds(column, 10**12)
    return math.floor(highest) - math.ceil(lowest) + 1


def _nth(column: Column, index: int) -> str:
    """Return the index-th different valid value of a key column."""
    if "isin" in column.checks or column.type is bool:
        return _options(column)[index]
    if column.type is str:
        low, high = _lengths(column)
        prefix = _prefix(column)
        width = max(low, min(high, 6)) - len(prefix)
        text = f"{prefix}{index:0{width}d}"
        return f"{text}@example.org" if "email" in column.checks else text
    lowest, highest = _bounds(column, 10**12)
    newest_first = column.type in (dt.date, dt.datetime)
    return _number_text(column, math.floor(highest) - index if newest_first else math.ceil(lowest) + index)


def _prefix(column: Column) -> str:
    return column.name[0].upper() if _lengths(column)[1] > 1 else ""


def _options(column: Column) -> list[str]:
    values = column.checks.get("isin", (False, True))
    return [str(value).lower() if column.type is bool else str(value) for value in values]


def _lengths(column: Column) -> tuple[int, int]:
    limits = column.checks.get("str_length") or {}
    low = max(limits.get("min_value") or 0, 1)
    return low, limits.get("max_value") or low + 40


def _bounds(column: Column, span: int) -> tuple[float, float]:
    """Return lowest and highest valid value (dates as day numbers, times as seconds), `span` apart if only one is declared."""
    lows, highs = [], []
    for check, argument in column.checks.items():
        if check == "in_range":
            lows.append(_bound(column, argument["min_value"], not argument.get("include_min", True), math.inf))
            highs.append(_bound(column, argument["max_value"], not argument.get("include_max", True), -math.inf))
        elif check in LOWER:
            lows.append(_bound(column, argument, LOWER[check], math.inf))
        elif check in UPPER:
            highs.append(_bound(column, argument, UPPER[check], -math.inf))
    if column.type in (dt.date, dt.datetime):
        span = min(span, 1000)
    low = max(lows) if lows else min(highs) - span if highs else 0
    return low, min(highs, default=low + span)


def _bound(column: Column, limit: Any, excluded: bool, inwards: float) -> float:
    if column.type is dt.date:
        day: int = limit.toordinal()
        return day + int(math.copysign(excluded, inwards))
    if column.type is dt.datetime:
        second: float = limit.timestamp()
        return second + int(math.copysign(excluded, inwards))
    if column.type is Decimal:
        return float(limit) + math.copysign(excluded * 10.0**-column.decimals, inwards)
    return math.nextafter(limit, inwards) if excluded else limit


def _number_text(column: Column, number: int) -> str:
    if column.type is dt.datetime:
        return dt.datetime.fromtimestamp(number, dt.UTC).isoformat()
    return dt.date.fromordinal(number).isoformat() if column.type is dt.date else str(number)
