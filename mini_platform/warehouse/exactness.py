"""How exact a computed figure is: the digits that it has, and how far it may be from itself, computed once more.

Sums of floats depend on the order of the rows. A column of a select is given an expression that bounds its error, from the
magnitude of what was added up and not from that of the sum: 1e16 + 1 - 1e16 is 0 in one order and 1 in another. What does not
depend on an order (counts, extremes, sums of whole numbers and of decimals) has none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CTE,
    Case,
    Cast,
    ColumnElement,
    Double,
    Float,
    FunctionFilter,
    Integer,
    Numeric,
    Over,
    ScalarSelect,
    Select,
    Subquery,
    Table,
    WithinGroup,
    case,
    cast,
    func,
    literal,
)
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, ColumnClause, UnaryExpression
from sqlalchemy.types import NullType, TypeEngine

from mini_platform.warehouse.known_sql import AGGREGATES, bare, branches, name_of

ROUNDING = 2.0**-53
"""Relative error of one operation."""
GUESS = 1e-9
"""Relative error of what is not taken apart here."""
SMALLEST, LARGEST = 1e-130, 1e150
"""Sizes below and above are taken for these: Postgres refuses a product, or a quotient, that is no longer told from zero."""
LARGEST_FLOAT = Decimal(repr(sys.float_info.max))
SMALLEST_FLOAT = Decimal("2.5e-324")
"""What is nearer to 0 rounds to it."""
SUMS = ("sum", "avg")
SPREADS = ("variance", "var_samp", "var_pop", "stddev", "stddev_samp", "stddev_pop")
ORDERLESS = ("count", "max", "min", "percentile_cont", "percentile_disc", "mode", "any_value")
STEPS = ("round", "floor", "ceil", "ceiling", "trunc")
CHOICES = ("coalesce", "greatest", "least", "abs", "nullif")
ARITHMETIC = (operators.add, operators.sub, operators.mul, operators.truediv)

OF_ITS_VALUES = ("coalesce", "max", "min", "sum")
"""Functions that SQLAlchemy gives the type of their first value, if no other is asked for."""

Within = Callable[[ColumnElement[Any]], ColumnElement[Any]]
"""Makes an aggregate look at the rows that another one looks at: by its FILTER, or in its window."""


def as_double(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the float that is nearest to a numeric, such as a mean of floats that was computed without an overflow.

    Postgres refuses to cast what is nearer to 0 than any float, and the largest float itself, as a numeric has 15 digits of it.
    """
    nearest = case(
        (func.abs(value) > LARGEST_FLOAT, func.sign(value) * LARGEST_FLOAT),
        (func.abs(value) < SMALLEST_FLOAT, 0),
        else_=value,
    )
    return nearest.cast(Double)


def stored_type(element: Any) -> TypeEngine[Any]:
    """The type in which a computed column keeps every digit.

    SQLAlchemy gives an expression the type of one of its parts, so that two decimals times two decimals had two. Here, what
    is computed from decimals is NUMERIC without a number of digits, and what has a float in it is a double.
    """
    element = bare(element)
    said: TypeEngine[Any] = element.type
    if not isinstance(said, Numeric | Integer):
        return said
    parts = [stored_type(part) for part in _parts(element) if not isinstance(part.type, NullType)]
    if not parts or not all(isinstance(part, Numeric | Integer) for part in parts):
        return said
    if any(isinstance(part, Float) for part in parts):
        return said if isinstance(said, Double) else Double()
    if all(isinstance(part, Integer) for part in parts):
        return said
    if isinstance(element, BinaryExpression) or name_of(element) == "sum" or isinstance(said, Integer):
        return Numeric()
    digits = {(part.precision, part.scale) for part in (said, *parts) if isinstance(part, Numeric)}
    return said if len(digits) == 1 else Numeric()


def _parts(element: Any) -> list[Any]:
    """The values that a number is made of, if its type was derived from theirs; none if its type was said."""
    if isinstance(element, BinaryExpression) and element.operator in ARITHMETIC:
        return [element.left, element.right]
    if isinstance(element, UnaryExpression):
        return [element.element]
    if isinstance(element, Case):
        return [part for part in (*(value for _, value in element.whens), element.else_) if part is not None]
    if name_of(element) in OF_ITS_VALUES:
        values = list(element.clauses)
        return values if element.type is values[0].type else []
    if isinstance(element, FunctionFilter | Over | WithinGroup):
        return [next(iter(element.get_children()))]
    if isinstance(element, ScalarSelect):
        return [column for branch in branches(element.element) for column in branch.selected_columns]
    if isinstance(element, ColumnClause) and isinstance(element.table, Subquery | CTE):
        place = list(element.table.c).index(element)
        return [list(branch.selected_columns)[place] for branch in branches(element.table.element)]
    return []


def errors(rows: Any) -> Mapping[str, ColumnElement[Any] | None]:
    """The error of each selected column by its name; None for one that is exact.

    Missing are those that may be inexact where no expression can stand beside them: in a union, after DISTINCT.
    """
    if not isinstance(rows, Select):
        return {}
    found = {column.name: error_of(column) for column in rows.selected_columns}
    return {name: error for name, error in found.items() if error is None or not rows._distinct}


def error_of(element: Any) -> ColumnElement[Any] | None:
    """An expression for how much a number may differ from time to time; None for what is always the same."""
    element = bare(element)
    if not isinstance(element.type, Numeric | Integer) or not any(map(_is_inexact, visitors.iterate(element))):
        return None
    name = name_of(element)
    error: ColumnElement[Any] = _at_least(_size(element)) * GUESS
    if name in SUMS:
        error = _of_sum(element, lambda call: call)
    elif isinstance(element, FunctionFilter) and name_of(element.func) in SUMS:
        error = _of_sum(element.func, lambda call: FunctionFilter(call, element.criterion))  # type: ignore[arg-type]
    elif isinstance(element, Over) and name_of(element.element) in SUMS and not (element.rows or element.range_):
        window = {"partition_by": element.partition_by, "order_by": element.order_by}
        error = _of_sum(element.element, lambda call: Over(call, **window))  # type: ignore[arg-type]
    elif name in SPREADS:
        error = _of_spread(name, *element.clauses)
    elif name in STEPS:
        value, *more = element.clauses
        error = _of_steps(value, lambda moved: getattr(func, name)(moved, *more, type_=element.type))
    elif isinstance(element, Cast):
        error = _of_steps(element.clause, lambda moved: cast(moved, element.type))
    elif isinstance(element, BinaryExpression) and element.operator in ARITHMETIC:
        error = _of_arithmetic(element)
    elif name in CHOICES:
        error = _added(element.clauses)
    elif isinstance(element, UnaryExpression):
        error = _added([element.element])
    elif isinstance(element, Case):
        error = _added([*(value for _, value in element.whens), element.else_])
    return func.coalesce(error, 0.0, type_=Double)


def _is_inexact(part: Any) -> bool:
    """True if a part of an expression adds up floats, or may have done so out of sight."""
    if isinstance(part, ColumnClause):
        return isinstance(part.type, Float) and not isinstance(part.table, Table)
    name = name_of(part)
    return name in AGGREGATES and name not in ORDERLESS and any(isinstance(x.type, Float) for x in part.clauses)


def _size(element: Any) -> ColumnElement[Any]:
    return func.abs(cast(element, Double), type_=Double)


def _at_least(size: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.greatest(size, SMALLEST, type_=Double)


def _added(elements: Iterable[Any]) -> ColumnElement[Any]:
    found = [error for element in elements if element is not None and (error := error_of(element)) is not None]
    return sum(found[1:], found[0]) if found else literal(0.0)


def _of_sum(call: Any, within: Within) -> ColumnElement[Any]:
    """Each of n additions rounds a sum that is at most that of all magnitudes: twice that for two orders, and a little more."""
    (value,) = call.clauses
    if isinstance(value, UnaryExpression):  # DISTINCT
        value = value.element
    summed = getattr(func, name_of(call))
    # Rounded down first: the magnitudes may be more than a float can hold where the sum is not.
    error = 2 * (within(func.count(value)) + 3) * within(summed(_at_least(_size(value)) * ROUNDING, type_=Double))
    of_value = error_of(value)
    return error if of_value is None else error + within(summed(of_value, type_=Double))


def _of_spread(name: str, value: Any) -> ColumnElement[Any]:
    """Postgres adds up squares of differences from the mean, each of which is as exact as the values are large."""
    error = 4 * ROUNDING * (func.count(value) + 3) * func.max(_at_least(_size(value)), type_=Double)
    if name.startswith("stddev"):
        return error
    return error * (2 * func.coalesce(func.stddev_samp(value, type_=Double), 0.0, type_=Double) + error)


def _of_steps(value: Any, step: Within) -> ColumnElement[Any]:
    """What only grows with its value differs most between the value's least and its greatest."""
    error = error_of(value)
    if error is None:
        return literal(0.0)
    error = cast(error, value.type)
    return _size(step(value + error) - step(value - error))


def _of_arithmetic(element: Any) -> ColumnElement[Any]:
    a, b = (_size(side) for side in (element.left, element.right))
    of_a, of_b = (_added([side]) for side in (element.left, element.right))
    if element.operator in (operators.add, operators.sub):
        return of_a + of_b + 2 * ROUNDING * _at_least(a + b)
    if element.operator is operators.mul:
        a, b = _at_least(a), _at_least(b)
        return a * of_b + b * of_a + of_a * of_b + 4 * ROUNDING * a * b
    divisor = func.least(func.nullif(b, 0.0, type_=Double), LARGEST, type_=Double)
    return (of_a + _at_least(a / divisor) * of_b + 4 * ROUNDING * _at_least(a)) / divisor
