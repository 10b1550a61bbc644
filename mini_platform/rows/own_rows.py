"""Own rows: an expression must be a value of its own row, as files are validated in blocks; other rows would be its block's.

polars gives an expression as a tree of JSON, and knows of each of its functions whether it can be computed row by row.
Functions of Python cannot be looked into: an expression with one is tried, on a few rows together and one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from threading import Lock
from typing import Any

import polars as pl

from mini_platform.rows.exact import ROW_FAULTS, Node, expression

VALUES = (0, 1, 1, 2)
"""Rows on which a function of Python is tried, as numbers; each type has them in its way."""
MAP_ELEMENTS = pl.Expr.map_elements
WRITING = Lock()


def written(declared: Callable[[Callable[[str], pl.Expr]], pl.Expr], *, careful: bool = False) -> pl.Expr:
    """Return the expression that a function of `col` returns.

    Functions of Python that are mapped over single values in it give null where they fail: to find the rows for which they
    would fail, out of a million, takes minutes.

    Args:
        declared: the function of `col`.
        careful: null, too, where such a function returns what is not of its type, which takes longer.
    """

    @wraps(MAP_ELEMENTS)
    def map_elements(
        self: pl.Expr, function: Callable[[Any], Any], return_dtype: Any = None, **options: Any
    ) -> pl.Expr:
        def value(one: Any) -> Any:
            try:
                found = function(one)
                if careful and found is not None:
                    pl.Series((found,), dtype=return_dtype)
            except Exception:  # Of the user's code, whatever it is.
                return None
            return found

        return MAP_ELEMENTS(self, value, return_dtype, **options)

    with WRITING:
        pl.Expr.map_elements = map_elements  # type: ignore[method-assign]
        try:
            return declared(pl.col)
        finally:
            pl.Expr.map_elements = MAP_ELEMENTS  # type: ignore[method-assign]


def other_rows(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> str | None:
    """Return the part of an expression over columns of a schema that looks at other rows, in words; None if none does."""
    try:
        tree = expr.meta.serialize(format="json")
    except pl.exceptions.ComputeError:  # It has a function of Python in it.
        return None if _is_the_same_alone(expr, schema) else "a function of Python"
    found = next(_beyond(json.loads(tree)), None)
    return None if found is None else str(expression(found))[:100]


def _beyond(node: Node) -> Iterator[Node]:
    """The parts of a tree that look at other rows; unknown ones are taken to do so."""
    parts: list[Node] = []
    kind_and_body: tuple[str, Any] = next(iter(node.items())) if isinstance(node, dict) else (node, None)
    match kind_and_body:
        case ("Column" | "Element" | "Field" | "Selector", _):
            pass
        case ("Literal", value):
            if "Series" in value:
                yield node
        case ("Alias", [inner, _]) | ("KeepName", inner) | ("Cast" | "RenameAlias", {"expr": inner}):
            parts = [inner]
        case ("BinaryExpr", {"left": left, "right": right}):
            parts = [left, right]
        case ("Ternary", ternary):
            parts = list(ternary.values())
        case ("Eval", {"expr": inner, "variant": variant}) if "Cumulative" not in variant:
            parts = [inner]  # What is evaluated has the items of a list for its rows.
        case ("StructEval", {"expr": inner, "evaluation": fields}):
            parts = [inner, *fields]
        case ("Function", {"input": inputs, "function": function}):
            parts = [part for part in inputs if "Literal" not in part]  # A Series may be a list of values here.
            columns = [{"Column": "x"} if part in parts else part for part in inputs]
            if not _is_of_its_row(expression({"Function": {"input": columns, "function": function}}).meta):
                yield node
        case _:
            yield node
    for part in parts:
        yield from _beyond(part)


def _is_of_its_row(function: Any) -> bool:
    try:
        return bool(function.is_row_separable() and (function.is_length_preserving() or function.is_scalar()))
    except pl.exceptions.ShapeError:  # It takes no column there.
        return False


def _is_the_same_alone(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    """True if a few rows have the values that each of them has alone, as far as they can be computed."""
    numbers = pl.Series(VALUES)

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
