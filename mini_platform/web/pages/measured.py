"""Measures as text: numbers with units, notes with the values that they name, labels and nouns.

Not here: what is measured (`warehouse/page_rows.py`), charts (`page_charts.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from string import Formatter
from typing import Any

from mini_platform.declare.pages import COVERAGE, Page
from mini_platform.rows.wording import NOTHING, money, number, percent, plain, plural
from mini_platform.warehouse.page_rows import PageRows, unit_of
from mini_platform.web.pages.rendering import day

SYMBOL = 3
"""Letters of a unit at most that is a symbol, such as `mm` or `°C`; longer ones are nouns, such as `days`."""


def written(rows: PageRows, name: str, value: Any) -> str:
    """Return the value of a measure with its unit."""
    measure, unit = rows.page.measure(name), unit_of(rows.dataset, rows.page, name)
    if isinstance(value, str | dt.date):
        return label_of(value)
    if unit == "$":
        return money(value)
    if value is None and unit is not None and len(unit) > SYMBOL:
        return NOTHING
    return f"{number(value, measure.digits)} {unit or ''}".rstrip()


def cell_of(rows: PageRows, name: str, value: Any, *, least: int = 0) -> Any:
    """Return the value of a measure as a table cell, without its unit; with `least` or more digits, if some are declared."""
    digits = rows.page.measure(name).digits
    if value is None or isinstance(value, int | str | dt.date):
        return value
    if unit_of(rows.dataset, rows.page, name) == "$":
        return money(value)
    return number(value, None if digits is None else max(digits, least))


def note_of(rows: PageRows, note: str, values: Mapping[str, Any]) -> str | None:
    """Return a note with the values that it names; None if one of them is empty."""
    text = ""
    for words, name, form, _ in Formatter().parse(note):
        text += words
        if name is None:
            continue
        if (value := values[name]) is None:
            return None
        if name == COVERAGE:
            text += value
        elif form == "%":
            text += percent(value)
        else:
            text += plural(int(value), form) if form else written(rows, name, value)
    return text


def label_of(value: Any) -> str:
    """Return a value under a bar or at the head of a row as text."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "yes", False: "no"}[value]
    if isinstance(value, dt.datetime):
        return f"{day(value)} {value.astimezone(dt.UTC):%H:%M}"
    return day(value) if isinstance(value, dt.date) else str(plain(value))


def within(label: str) -> str:
    """Return a label for the middle of a sentence: in lower case, unless it is an abbreviation."""
    return label if label[:2].isupper() else label[:1].lower() + label[1:]


def listed(page: Page, names: tuple[str, ...]) -> str:
    """Return the labels of measures as a title: `Price and cost`."""
    labels = [page.label(name) for name in names]
    *others, last = [labels[0], *map(within, labels[1:])]
    return f"{', '.join(others)} and {last}" if others else last
