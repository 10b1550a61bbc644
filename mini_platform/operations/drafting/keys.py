"""Search for a key: columns that identify the rows of a sample."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

MOST_COLUMNS = 3
SEARCHED = {1: 200, 2: 40, 3: 14}
"""Number of columns of a key -> number of the likeliest columns among which it is searched."""
NAMED = {
    re.compile(r"(?:.*_)?(?:id|uuid|guid)"): 1.0,
    re.compile(r"(?:.*_)?(?:key|code|isbn|ean|sku|number|no|nr)(?:_text)?"): 1.1,
    re.compile(r"(?:.*_)?(?:index|row|line)"): 1.2,
}
"""Name patterns of identifying columns -> their weight, which is less than that of any type."""
WEIGHTS: Mapping[Any, float] = {str: 2.0, dt.date: 2.2, dt.datetime: 2.2, int: 3.5, Decimal: 9.0, bool: 9.0}
"""Type of a column -> how unlikely it is in a key unless its name suggests it: unique numbers are mostly chance. Types that are
missing here are never in a key."""
FIRST_ROWS = 2000


def find_key(columns: Sequence[tuple[str, Any]], typed: pl.DataFrame) -> tuple[str, ...]:
    """Return the likeliest key: of the combinations that are unique and never empty, the one of the least weight; or ().

    Args:
        columns: names and types of the columns.
        typed: rows of the sample, with typed values in columns of these names.
    """
    if typed.is_empty():
        return ()
    never_null = [(name, kind) for name, kind in columns if kind in WEIGHTS and not typed[name].null_count()]
    weighted = [(_weight(name, kind), name) for name, kind in never_null]
    kinds = dict(never_null)
    order = {name: position for position, (name, _) in enumerate(never_null)}
    weighted.sort(key=lambda pair: (pair[0], order[pair[1]]))
    distinct = {name: typed[name].n_unique() for _, name in weighted}
    head = typed.head(FIRST_ROWS)
    for _, names in sorted(_combinations(weighted), key=lambda weighted_names: weighted_names[0]):
        possible = 1
        for name in names:
            possible *= distinct[name]
        if possible < typed.height:
            continue
        if all(frame.select(names).n_unique() == frame.height for frame in (head, typed)):
            key = list(names)
            if all(kinds[name] in (dt.date, dt.datetime) for name in key):
                # A sample of one station or product: a date alone would not be a key of later files.
                key += [name for weight, name in weighted if weight in NAMED.values() and name not in key]
            return tuple(sorted(key[:MOST_COLUMNS], key=order.__getitem__))
    return ()


def _weight(name: str, kind: Any) -> float:
    return next((weight for pattern, weight in NAMED.items() if pattern.fullmatch(name)), WEIGHTS[kind])


def _combinations(weighted: Sequence[tuple[float, str]]) -> Iterator[tuple[float, list[str]]]:
    for count in range(1, MOST_COLUMNS + 1):
        for columns in itertools.combinations(weighted[: SEARCHED[count]], count):
            yield sum(weight for weight, _ in columns), [name for _, name in columns]
