"""Keys: the columns that tell the rows of a sample apart."""

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
"""Columns of a key -> the likeliest columns among which it is looked for."""
NAMED = {
    re.compile(r"(?:.*_)?(?:id|uuid|guid)"): 1.0,
    re.compile(r"(?:.*_)?(?:key|code|isbn|ean|sku|number|no|nr)(?:_text)?"): 1.1,
    re.compile(r"(?:.*_)?(?:index|row|line)"): 1.2,
}
"""Names of columns that tell things apart -> their weight, which is less than any type's."""
WEIGHTS: Mapping[Any, float] = {str: 2.0, dt.date: 2.2, dt.datetime: 2.2, int: 3.5, Decimal: 9.0, bool: 9.0}
"""How unlikely a column of a type is in a key unless its name says so: a number that is never the same is mostly chance.
Types that are missing are never in one."""
FIRST_ROWS = 2000


def find_key(columns: Sequence[tuple[str, Any]], typed: pl.DataFrame) -> tuple[str, ...]:
    """The likeliest key: of the combinations that are unique and never empty, the one of the least weight; or none.

    Args:
        columns: names and types.
        typed: the sample's rows, typed values by these names.
    """
    if typed.is_empty():
        return ()
    full = [(name, kind) for name, kind in columns if kind in WEIGHTS and not typed[name].null_count()]
    weighted = [(_weight(name, kind), name) for name, kind in full]
    kinds = dict(full)
    order = {name: position for position, (name, _) in enumerate(full)}
    weighted.sort(key=lambda pair: (pair[0], order[pair[1]]))
    values = {name: typed[name].n_unique() for _, name in weighted}
    head = typed.head(FIRST_ROWS)
    for _, names in sorted(_combinations(weighted), key=lambda found: found[0]):
        possible = 1
        for name in names:
            possible *= values[name]
        if possible < typed.height:
            continue
        if all(frame.select(names).n_unique() == frame.height for frame in (head, typed)):
            key = list(names)
            if all(kinds[name] in (dt.date, dt.datetime) for name in key):
                # Of one station, one product: a day alone is no key of the files to come.
                key += [name for weight, name in weighted if weight in NAMED.values() and name not in key]
            return tuple(sorted(key[:MOST_COLUMNS], key=order.__getitem__))
    return ()


def _weight(name: str, kind: Any) -> float:
    return next((weight for pattern, weight in NAMED.items() if pattern.fullmatch(name)), WEIGHTS[kind])


def _combinations(weighted: Sequence[tuple[float, str]]) -> Iterator[tuple[float, list[str]]]:
    for count in range(1, MOST_COLUMNS + 1):
        for chosen in itertools.combinations(weighted[: SEARCHED[count]], count):
            yield sum(weight for weight, _ in chosen), [name for _, name in chosen]
