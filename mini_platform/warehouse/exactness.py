"""Exactness of computed figures: the type that keeps their digits, and the bound of the difference between two computations.

Sums of floats depend on the order of the rows. For a column of a select, an expression bounds this error. It follows from the
magnitude of the summands and not of the sum: 1e16 + 1 - 1e16 is 0 in one order and 1 in another. Columns that do not depend on
an order (counts, extremes, sums of whole numbers and of decimals) have no error.
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
"""Relative rounding error of one operation."""
GUESS = 1e-9
"""Relative error that is assumed for expressions that are not analyzed."""
SMALLEST, LARGEST = 1e-130, 1e150
"""Sizes are clamped to these: Postgres raises an error for a product or a quotient that underflows or overflows."""
LARGEST_FLOAT = Decimal(repr(sys.float_info.max))
SMALLEST_FLOAT = Decimal("2.5e-324")
"""Numbers that are nearer to 0 round to it."""
SUMS = ("sum", "avg")
SPREADS = ("variance", "var_samp", "var_pop", "stddev", "stddev_samp", "stddev_pop")
ORDERLESS = ("count", "max", "min", "percentile_cont", "percentile_disc", "mode", "any_value")
STEPS = ("round", "floor", "ceil", "ceiling", "trunc")
CHOICES = ("coalesce", "greatest", "least", "abs", "nullif")
ARITHMETIC = (operators.add, operators.sub, operators.mul, operators.truediv)

TYPED_BY_FIRST_VALUE = ("coalesce", "max", "min", "sum")
"""Functions to which SQLAlchemy gives the type of their first argument, unless another is passed."""

Within = Callable[[ColumnElement[Any]], ColumnElement[Any]]
"""Applies the FILTER or the window of one aggregate to another, so that both are computed over the same rows."""


def as_double(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the float that is nearest to a numeric, such as a mean of floats that was computed without an overflow.

    Postgres cannot cast numerics that are nearer to 0 than any float, nor the largest float, as numerics get 15 digits of it.
    """
    nearest = case(
        (func.abs(value) > LARGEST_FLOAT, func.sign(value) * LARGEST_FLOAT),
        (func.abs(value) < SMALLEST_FLOAT, 0),
        else_=value,
    )
    return nearest.cast(Double)


def stored_type(element: Any) -> TypeEngine[Any]:
    """Return the type in which a computed column keeps every digit.

    SQLAlchemy gives an expression the type of one of its parts: the product of two numbers with two decimals would have two.
    Here, results of decimals are NUMERIC without a number of digits, and results of floats are double.
    """
    element = bare(element)
    declared: TypeEngine[Any] = element.type
    if not isinstance(declared, Numeric | Integer):
        return declared
    parts = [stored_type(part) for part in _type_sources(element) if not isinstance(part.type, NullType)]
    if not parts or not all(isinstance(part, Numeric | Integer) for part in parts):
        return declared
    if any(isinstance(part, Float) for part in parts):
        return declared if isinstance(declared, Double) else Double()
    if all(isinstance(part, Integer) for part in parts):
        return declared
    if isinstance(element, BinaryExpression) or name_of(element) == "sum" or isinstance(declared, Integer):
        return Numeric()
    digits = {(part.precision, part.scale) for part in (declared, *parts) if isinstance(part, Numeric)}
    return declared if len(digits) == 1 else Numeric()


def _type_sources(element: Any) -> list[Any]:
    """Return the expressions from whose types that of a number was derived; none if its type was given explicitly."""
    if isinstance(element, BinaryExpression) and element.operator in ARITHMETIC:
        return [element.left, element.right]
    if isinstance(element, UnaryExpression):
        return [element.element]
    if isinstance(element, Case):
        return [part for part in (*(value for _, value in element.whens), element.else_) if part is not None]
    if name_of(element) in TYPED_BY_FIRST_VALUE:
        values = list(element.clauses)
        return values if element.type is values[0].type else []
    if isinstance(element, FunctionFilter | Over | WithinGroup):
        return [next(iter(element.get_children()))]
    if isinstance(element, ScalarSelect):
        return [column for branch in branches(element.element) for column in branch.selected_columns]
    if isinstance(element, ColumnClause) and isinstance(element.table, Subquery | CTE):
        position = list(element.table.c).index(element)
        return [list(branch.selected_columns)[position] for branch in branches(element.table.element)]
    return []


def errors(rows: Any) -> Mapping[str, ColumnElement[Any] | None]:
    """Return the error of each selected column, by its name; None for an exact one.

    Inexact columns are missing where no expression can be added to the select: in a union, after DISTINCT.
    """
    if not isinstance(rows, Select):
        return {}
    bounds = {column.name: error_of(column) for column in rows.selected_columns}
    return {name: error for name, error in bounds.items() if error is None or not rows._distinct}


def error_of(element: Any) -> ColumnElement[Any] | None:
    """Return an expression that bounds the difference between two computations of a number; None if there is none.

    The bound is built along the expression: sums of floats are the source of errors, and arithmetic, casts, rounding and
    choices pass the errors of their parts on. Anything else gets the guess. A NULL bound (no rows) counts as 0.
    """
    element = bare(element)
    if not isinstance(element.type, Numeric | Integer) or not any(map(_is_inexact, visitors.iterate(element))):
        return None
    name = name_of(element)
    error: ColumnElement[Any] = _at_least(_size(element)) * GUESS
    if name in SUMS:
        error = _sum_error(element, lambda call: call)
    elif isinstance(element, FunctionFilter) and name_of(element.func) in SUMS:
        error = _sum_error(element.func, lambda call: FunctionFilter(call, element.criterion))  # type: ignore[arg-type]
    elif isinstance(element, Over) and name_of(element.element) in SUMS and not (element.rows or element.range_):
        window = {"partition_by": element.partition_by, "order_by": element.order_by}
        error = _sum_error(element.element, lambda call: Over(call, **window))  # type: ignore[arg-type]
    elif name in SPREADS:
        error = _spread_error(name, *element.clauses)
    elif name in STEPS:
        value, *options = element.clauses
        error = _step_error(value, lambda moved: getattr(func, name)(moved, *options, type_=element.type))
    elif isinstance(element, Cast):
        error = _step_error(element.clause, lambda moved: cast(moved, element.type))
    elif isinstance(element, BinaryExpression) and element.operator in ARITHMETIC:
        error = _arithmetic_error(element)
    elif name in CHOICES:
        error = _total_error(element.clauses)
    elif isinstance(element, UnaryExpression):
        error = _total_error([element.element])
    elif isinstance(element, Case):
        error = _total_error([*(value for _, value in element.whens), element.else_])
    return func.coalesce(error, 0.0, type_=Double)


def _is_inexact(part: Any) -> bool:
    """True if a part of an expression adds up floats, or comes from a subquery that may have."""
    if isinstance(part, ColumnClause):
        return isinstance(part.type, Float) and not isinstance(part.table, Table)
    name = name_of(part)
    return name in AGGREGATES and name not in ORDERLESS and any(isinstance(x.type, Float) for x in part.clauses)


def _size(element: Any) -> ColumnElement[Any]:
    return func.abs(cast(element, Double), type_=Double)


def _at_least(size: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.greatest(size, SMALLEST, type_=Double)


def _total_error(elements: Iterable[Any]) -> ColumnElement[Any]:
    bounds = [error for element in elements if element is not None and (error := error_of(element)) is not None]
    return sum(bounds[1:], bounds[0]) if bounds else literal(0.0)


def _sum_error(call: Any, within: Within) -> ColumnElement[Any]:
    """Return the error of a sum or a mean of floats.

    Each of n additions rounds a partial sum, which is at most the sum of all magnitudes: so the error is at most n times the
    rounding error of that sum, twice that for the difference between two orders, and n + 3 instead of n as a margin.
    Errors of the summands themselves add up in the same way.
    """
    (value,) = call.clauses
    if isinstance(value, UnaryExpression):  # DISTINCT
        value = value.element
    aggregate = getattr(func, name_of(call))
    # Multiplied by the rounding error before summing, as the sum of magnitudes may overflow where the sum does not.
    error = 2 * (within(func.count(value)) + 3) * within(aggregate(_at_least(_size(value)) * ROUNDING, type_=Double))
    value_error = error_of(value)
    return error if value_error is None else error + within(aggregate(value_error, type_=Double))


def _spread_error(name: str, value: Any) -> ColumnElement[Any]:
    """Return the error of a variance or a standard deviation.

    Postgres adds up squares of differences from the mean. The absolute error of a difference is proportional to the largest
    value, which bounds the error e of the deviation s; that of the variance is (s + e)² - s² = e (2 s + e).
    """
    error = 4 * ROUNDING * (func.count(value) + 3) * func.max(_at_least(_size(value)), type_=Double)
    if name.startswith("stddev"):
        return error
    return error * (2 * func.coalesce(func.stddev_samp(value, type_=Double), 0.0, type_=Double) + error)


def _step_error(value: Any, step: Within) -> ColumnElement[Any]:
    """Return the error of a monotonic function: its difference between the ends of the interval that the value may be in."""
    error = error_of(value)
    if error is None:
        return literal(0.0)
    error = cast(error, value.type)
    return _size(step(value + error) - step(value - error))


def _arithmetic_error(element: Any) -> ColumnElement[Any]:
    """Return the error of a + b, a - b, a * b or a / b: the propagated errors of both sides, and its own rounding."""
    a, b = (_size(side) for side in (element.left, element.right))
    error_a, error_b = (_total_error([side]) for side in (element.left, element.right))
    if element.operator in (operators.add, operators.sub):
        return error_a + error_b + 2 * ROUNDING * _at_least(a + b)
    if element.operator is operators.mul:
        a, b = _at_least(a), _at_least(b)
        return a * error_b + b * error_a + error_a * error_b + 4 * ROUNDING * a * b
    divisor = func.least(func.nullif(b, 0.0, type_=Double), LARGEST, type_=Double)
    return (error_a + _at_least(a / divisor) * error_b + 4 * ROUNDING * _at_least(a)) / divisor
