"""Faults of the expressions of a declaration, found without a row: columns that they lack, other rows, a wrong type.

Not here: what an expression gives for rows (`validation.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import polars as pl

from mini_platform.declare.columns import Column, CustomRule, DeclarationError, nearest, placed
from mini_platform.declare.dataset import Dataset
from mini_platform.rows.exact import ROW_FAULTS, exact_expression
from mini_platform.rows.own_rows import build_expression, other_rows

Schema = Mapping[str, pl.DataType]
NUMBERS = (int, float, Decimal)
TIMES = (dt.date, dt.datetime)


def expression_faults(dataset: Dataset, staged: Schema) -> Iterator[DeclarationError]:
    """Yield what is wrong with the derived columns and the rules of a dataset, with its place.

    Args:
        dataset: dataset with the expressions.
        staged: types of its staged columns.
    """
    read = {column.name: staged[column.name] for column in dataset.staged_columns if not column.derived}
    derived = [
        (dataset.rows, column.name, partial(_refuse_derived, column, column.derived, read))
        for column in dataset.columns
        if column.derived is not None
    ]
    rules = [(custom.holds, None, partial(_refuse_rule, custom, staged)) for custom in dataset.custom_rules]
    for declared, name, refuse in (*derived, *rules):
        try:
            with placed(declared, name):
                refuse(dataset)
        except DeclarationError as error:
            yield error


def _refuse_derived(column: Column, derived: Callable[..., Any], read: Schema, dataset: Dataset) -> None:
    where = f"dataset {dataset.name}: {column.name}"
    expr = _built(dataset, where, derived, read)
    if part := other_rows(expr, read):
        raise DeclarationError(
            f"{where} is derived from other rows, by {part}; a derived column is a value of its own row: compute it in an "
            "aggregate or a view"
        )
    result = _type(where, expr, read, column.type)
    if not _can_be(column.type, result):
        name = getattr(column.type, "__name__", column.type)
        raise DeclarationError(f"{where} is derived as {_words(result)}, and declared as {name}: change one of them")


def _refuse_rule(custom: CustomRule, staged: Schema, dataset: Dataset) -> None:
    where = f"dataset {dataset.name}: the rule {custom.rule.name}"
    expr = _built(dataset, where, custom.holds, staged)
    if part := other_rows(expr, staged):
        raise DeclarationError(
            f"{where} looks at other rows, by {part}; a rule is about one row: "
            'duplicates="reject" compares keys, and an aggregate or a view the rest'
        )
    result = _type(where, expr, staged, None)
    if result not in (pl.Boolean, pl.Null, pl.Unknown):
        raise DeclarationError(
            f"{where} gives {_words(result)} for a row; a rule gives true or false, as a comparison does"
        )


def _built(dataset: Dataset, where: str, declared: Callable[..., Any], schema: Schema) -> pl.Expr:
    """Return the expression that a function declares, over columns of the schema."""
    try:
        expr = build_expression(declared)
    except Exception as error:  # A function of a user may raise anything.
        raise DeclarationError(f"{where}: its function fails with {type(error).__name__}: {error}") from error
    if not isinstance(expr, pl.Expr):
        raise DeclarationError(
            f"{where}: its function returns {type(expr).__name__}; it returns an expression, as col({min(schema)!r})"
        )
    for name in expr.meta.root_names():
        if name not in schema and name.isidentifier():
            declared_names = [column.name for column in dataset.columns]
            reason = (
                f"{dataset.rows.__name__} lacks{nearest(name, schema)}"
                if name not in declared_names
                else "is derived, too, or only known once the row is written"
            )
            raise DeclarationError(f"{where} names {name}, which {reason}")
    return expr


def _type(where: str, expr: pl.Expr, schema: Schema, target: Any) -> pl.DataType:
    try:
        frame = pl.DataFrame(schema=dict(schema))
        return frame.select(exact_expression(expr, schema, target).alias("_value")).dtypes[0]
    except ROW_FAULTS as error:
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise DeclarationError(f"{where} is not an expression over its columns: {reason}") from error


def _words(result: pl.DataType) -> str:
    if result.is_numeric():
        return "a number"
    return {pl.String: "text", pl.Boolean: "true or false"}.get(type(result), str(result))


def _can_be(kind: Any, result: pl.DataType) -> bool:
    """Return True if values of a type can be values of a column: a day is no number, and a list no single value."""
    if result in (pl.Null, pl.Unknown):
        return True
    if kind == list[float]:
        inner = getattr(result, "inner", None)
        return inner is not None and (inner.is_numeric() or inner == pl.Null)
    if result.is_nested() or result in (pl.Duration, pl.Time, pl.Binary, pl.Object):
        return False
    if result.is_temporal():
        return kind in (*TIMES, str)
    if result == pl.Boolean:
        return kind not in TIMES
    return not (result.is_numeric() and kind in TIMES)
