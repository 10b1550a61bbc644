"""Detection of expressions that depend on other rows: files are validated in blocks, so these would be those of a block.

Polars serializes an expression as a tree of JSON, and knows for each of its functions whether it can be computed row by row.
Python functions cannot be analysed: an expression with one is tried, on a few rows together and one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from threading import Lock
from typing import Any

import polars as pl

from mini_platform.rows.exact import ROW_FAULTS, Node, expression

SAMPLE_VALUES = (0, 1, 1, 2)
"""Rows on which a Python function is tried, as numbers that are cast to the type of each column."""
MAP_ELEMENTS = pl.Expr.map_elements
PATCHING = Lock()


def build_expression(
    declared: Callable[[Callable[[str], pl.Expr]], pl.Expr], *, null_on_error: bool = False
) -> pl.Expr:
    """Return the expression that a function of `col` returns.

    Python functions that it maps over single values give null where they fail: finding the rows for which they would fail, out
    of a million, takes minutes. For that, `pl.Expr.map_elements` is replaced while the function runs, under a lock.

    Args:
        declared: the function of `col`.
        null_on_error: if true, also give null where a mapped function returns a value of another type, which takes longer.
    """

    @wraps(MAP_ELEMENTS)
    def map_elements(
        self: pl.Expr, function: Callable[[Any], Any], return_dtype: Any = None, **options: Any
    ) -> pl.Expr:
        def value(cell: Any) -> Any:
            try:
                result = function(cell)
                if null_on_error and result is not None:
                    pl.Series((result,), dtype=return_dtype)
            except Exception:  # User code may raise anything.
                return None
            return result

        return MAP_ELEMENTS(self, value, return_dtype, **options)

    with PATCHING:
        pl.Expr.map_elements = map_elements  # type: ignore[method-assign]
        try:
            return declared(pl.col)
        finally:
            pl.Expr.map_elements = MAP_ELEMENTS  # type: ignore[method-assign]


def other_rows(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> str | None:
    """Return the part of an expression over columns of a schema that depends on other rows, as text; None if there is none."""
    try:
        tree = expr.meta.serialize(format="json")
    except pl.exceptions.ComputeError:  # It contains a Python function.
        return None if _is_same_alone(expr, schema) else "a Python function"
    part = next(_other_row_parts(json.loads(tree)), None)
    return None if part is None else str(expression(part))[:100]


def _other_row_parts(node: Node) -> Iterator[Node]:
    """Yield the parts of a tree that depend on other rows; unknown kinds of node are assumed to.

    A function is tested by itself: its column arguments are replaced by a plain column, so that polars answers for the
    function and not for its arguments, which are searched afterwards.
    """
    children: list[Node] = []
    kind_and_body: tuple[str, Any] = next(iter(node.items())) if isinstance(node, dict) else (node, None)
    match kind_and_body:
        case ("Column" | "Element" | "Field" | "Selector", _):
            pass
        case ("Literal", value):
            if "Series" in value:
                yield node
        case ("Alias", [inner, _]) | ("KeepName", inner) | ("Cast" | "RenameAlias", {"expr": inner}):
            children = [inner]
        case ("BinaryExpr", {"left": left, "right": right}):
            children = [left, right]
        case ("Ternary", ternary):
            children = list(ternary.values())
        case ("Eval", {"expr": inner, "variant": variant}) if "Cumulative" not in variant:
            children = [inner]  # Its rows are the items of a list.
        case ("StructEval", {"expr": inner, "evaluation": fields}):
            children = [inner, *fields]
        case ("Function", {"input": inputs, "function": function}):
            children = [
                child for child in inputs if "Literal" not in child
            ]  # A Series in an argument is a list of values, not a column.
            columns = [{"Column": "x"} if child in children else child for child in inputs]
            if not _is_row_wise(expression({"Function": {"input": columns, "function": function}}).meta):
                yield node
        case _:
            yield node
    for child in children:
        yield from _other_row_parts(child)


def _is_row_wise(function: Any) -> bool:
    try:
        return bool(function.is_row_separable() and (function.is_length_preserving() or function.is_scalar()))
    except pl.exceptions.ShapeError:  # The function does not accept a column there.
        return False


def _is_same_alone(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    """Return True if a few rows together have the same values as each of them alone, or cannot be computed."""
    numbers = pl.Series(SAMPLE_VALUES)

    def column(dtype: pl.DataType) -> pl.Series:
        if isinstance(dtype, pl.List):
            return numbers.cast(dtype.inner).reshape((-1, 1)).cast(dtype)
        return numbers.cast(dtype, strict=False)

    rows = pl.DataFrame([column(dtype).alias(name) for name, dtype in schema.items()])
    try:
        together, alone = rows.select(expr), pl.concat([row.select(expr) for row in rows.iter_slices(1)])
    except ROW_FAULTS:
        return True
    return together.equals(alone)
