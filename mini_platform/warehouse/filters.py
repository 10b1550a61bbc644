"""Conditions that rows are filtered by, in the API, on pages and in `connect()`.

`ne` also matches nulls, and `contains` ignores case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from sqlalchemy import ARRAY, ColumnElement
from sqlalchemy.dialects.postgresql import JSONB

COMPARISONS: Mapping[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "eq": lambda element, value: element == value,
    "ne": lambda element, value: element.is_distinct_from(value),
    "gt": lambda element, value: element > value,
    "gte": lambda element, value: element >= value,
    "lt": lambda element, value: element < value,
    "lte": lambda element, value: element <= value,
}


def python_type(column: ColumnElement[Any]) -> Any:
    """Return the Python type of a column's values."""
    if isinstance(column.type, ARRAY):
        return list[column.type.item_type.python_type]  # type: ignore[name-defined]
    return dict if isinstance(column.type, JSONB) else column.type.python_type


def operators_of(kind: Any) -> tuple[str, ...]:
    """Return the operators by which a column with values of this Python type can be filtered."""
    if kind is dict or get_args(kind):
        return ("isnull",)
    if kind is bool:
        return ("eq", "ne", "isnull")
    return (*COMPARISONS, "in", *(["contains"] if kind is str else []), "isnull")


def filter_condition(element: ColumnElement[Any], operator: str, value: Any) -> ColumnElement[bool]:
    """Return the condition of a filter; `value` is a list for `in`, and a truth for `isnull`."""
    if operator == "isnull":
        return element.is_(None) if value else element.is_not(None)
    if operator == "contains":
        return contains(element, value)
    return element.in_(value) if operator == "in" else COMPARISONS[operator](element, value)


def contains(element: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that a text contains another one, in any case."""
    # By the collation of the database: that of the columns, C, knows no case but ASCII's.
    return element.collate("default").icontains(text, autoescape=True)
