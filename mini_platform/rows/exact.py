"""Exact arithmetic: a polars expression that a user wrote -> one that is right, or null, a value at a time.

As polars computes them, Decimals keep the decimals of their factors (1.00 / 3.00 is 0.33), whole numbers wrap around where
they overflow, and one division by zero, one text that is no number or one 30th of February fails the whole block. So the
expression is rewritten before it is evaluated. polars gives it as a tree of JSON, in which

- `+ - * /` of Decimals are computed in as many decimals as 38 digits hold of the exact result, `/` in 19;
- `+ - *` of whole numbers are computed in 128 bits, and come back into 64 where they are used otherwise;
- beside a Decimal `0.6` is six tenths, and not the float next to it;
- what does not fit, a divisor that is zero, a cast or a day that cannot be is null.

Not here: what becomes of a null (`validation.py`). Functions in Python (`map_elements`) cannot be looked into: an expression
with one stays as it is, and `computed` finds the rows for which it fails.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, reduce
from operator import and_
from typing import Any

import polars as pl

DIGITS = 38
"""Of a Decimal of polars at most."""
SAFE_DIGITS = DIGITS - 1
"""What is known to have no more need not be guarded; the sum of two such has a digit more."""
ROOM = 0.999
"""Part of the largest number that is used, as it is measured in floats."""
QUOTIENT_DECIMALS = 19
"""Of 10^18 / 0.01 all digits, and of two amounts of money of 18 digits so many that rounding the quotient is right."""
MICROSECONDS = (604_800_000_000, 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1)
"""Of a week, day, hour, minute, second, millisecond and microsecond: the order of polars' durations."""
LONGEST_SPAN = 20_000 * 366 * MICROSECONDS[1]
LEAST_EXACT = 0.001
"""A quotient that is stored as a float is computed as a Decimal down to here: it has 16 digits."""
ROW_FAULTS = (pl.exceptions.PolarsError, ArithmeticError, LookupError, TypeError, ValueError)
"""What is raised for rows, by polars and by functions of Python in an expression."""
VALUE = "_value"
ARITHMETIC = ("Plus", "Minus", "Multiply", "TrueDivide", "FloorDivide", "Modulus")
COMPARISONS = ("Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq", "EqValidity", "NotEqValidity")
INTEGER_DIGITS: Mapping[Any, int] = {
    pl.Int8: 3, pl.Int16: 5, pl.Int32: 10, pl.Int64: 19, pl.UInt8: 3, pl.UInt16: 5, pl.UInt32: 10, pl.UInt64: 20, pl.Int128: 39,
}  # fmt: skip
Node = Any
"""A part of the tree."""


def exact(expr: pl.Expr, schema: Mapping[str, pl.DataType], target: Any = None, *, careful: bool = False) -> pl.Expr:
    """Return an expression of the exact value.

    Args:
        expr: as the user wrote it.
        schema: of the columns that it reads.
        careful: null where the value cannot be computed; it takes twice the time. Else polars raises an error then, as it
            does for the expression as it was written, so that this is tried first.
        target: the Python type that the value is stored as: a float is divided as floats are; None: a rule, which is false
            where a number has too many digits to be computed.
    """
    try:
        tree = expr.meta.serialize(format="json")
    except pl.exceptions.ComputeError:  # It has a function of Python in it.
        return expr
    read = tuple((name, schema[name]) for name in dict.fromkeys(expr.meta.root_names()) if name in schema)
    rewritten = _rewritten(tree, read, target, careful)
    return expr if rewritten is None else rewritten


@cache
def _rewritten(tree: str, schema: tuple[tuple[str, pl.DataType], ...], target: Any, careful: bool) -> pl.Expr | None:
    """Return the expression rewritten, None where it is right as it is; rules of today's date are others tomorrow."""
    rewriting = _Rewriting(dict(schema), target, careful)
    root = json.loads(tree)
    node = rewriting.node(root)
    if node == root:
        return None
    value = expression(node)
    if target is None and rewriting.guards:
        fits = reduce(and_, rewriting.guards)
        return pl.when(fits.fill_null(value=True) | value.is_not_null()).then(value).otherwise(statement=False)
    return value


def computed(frame: pl.DataFrame, value: pl.Expr) -> pl.Series:
    """Return n values of n rows, null for the rows that polars raises an error for.

    Raises:
        polars.exceptions.PolarsError: the expression is wrong whatever the rows.
    """

    def halved(rows: pl.DataFrame) -> Iterator[pl.Series]:
        try:
            yield rows.with_columns(value.alias(VALUE))[VALUE]  # A literal is the value of every row.
        except ROW_FAULTS:
            if rows is frame:
                empty.append(frame.clear().select(value.alias(VALUE))[VALUE])
            if rows.height <= 1:
                yield empty[0].extend_constant(None, rows.height)
                return
            yield from halved(rows[: rows.height // 2])
            yield from halved(rows[rows.height // 2 :])

    empty: list[pl.Series] = []
    return pl.concat(halved(frame))


@dataclass(frozen=True)
class _Number:
    """What is known of an exact number.

    Attributes:
        digits: before the point, at most.
        scale: decimals that polars keeps of it; None for a whole number.
        decimals: those of them that may be other than 0.
    """

    digits: int
    scale: int | None
    decimals: int = 0


@dataclass
class _Rewriting:
    schema: dict[str, pl.DataType]
    target: Any
    careful: bool
    guards: list[pl.Expr] = field(default_factory=list)
    """True where a number has few enough digits to be computed."""
    known: dict[str, _Number] = field(default_factory=dict)
    """What was built here, by its tree."""

    def node(self, node: Node) -> Node:
        """Return a node rewritten, with all below it."""
        match node:
            case {"BinaryExpr": {"left": left, "op": op, "right": right}} if op in ARITHMETIC:
                return self._arithmetic(op, self.node(left), self.node(right))
            case {"BinaryExpr": {"left": left, "op": op, "right": right}}:
                sides = (
                    [self.node(left), self.node(right)] if op in COMPARISONS else [self._used(left), self._used(right)]
                )
                return _binary(op, *(self._beside(side, other) for side, other in (sides, reversed(sides))))
            case {"Cast": {"expr": inner, "dtype": dtype, "options": options}}:
                return {"Cast": {"expr": self.node(inner), "dtype": dtype, "options": self._options(options)}}
            case {"Alias": [inner, name]}:
                return {"Alias": [self.node(inner), name]}
            case {"Ternary": parts}:
                return {"Ternary": {name: self._used(part) for name, part in parts.items()}}
            case {"Function": {"input": inputs, "function": function}}:
                return self._function(inputs, function)
            case _:
                return node

    def _options(self, options: str) -> str:
        return "NonStrict" if self.careful and options == "Strict" else options

    def _used(self, node: Node) -> Node:
        """Return a node rewritten for another use than arithmetic: a whole number has the type that it had."""
        new = self.node(node)
        if new == node or self.dtype(new) != pl.Int128:
            return new
        before = self.dtype(node) or pl.Int64()
        # One that was too narrow for what was computed of it, such as a month by 100, is as wide as a column.
        return _tree(expression(new).cast(pl.Int64() if before in INTEGER_DIGITS else before, strict=False))

    def _function(self, inputs: list[Node], function: Node) -> Node:
        if (whole := self._of_whole_numbers(inputs, function)) is not None:
            return whole
        match function, inputs:
            case {"Round": _}, [inner, *_]:
                return _function([self.node(inner), *inputs[1:]], function)
            case {"TemporalExpr": {"Duration": _}}, _:
                units = zip(inputs, (*MICROSECONDS, 1), strict=True)
                inputs = [
                    inner if _is_literal(inner) else _span(expression(self._used(inner)), unit) for inner, unit in units
                ]
                return _function(inputs, function)
        inputs = [self._used(inner) for inner in inputs]
        return _harmless(inputs, function) if self.careful else _function(inputs, function)

    def _of_whole_numbers(self, inputs: list[Node], function: Node) -> Node | None:
        """Return a function of whole numbers that may overflow, in 128 bits; None for any other."""
        match function, inputs:
            case "Negate", [inner] if self._is_whole(inner):
                return self._arithmetic("Minus", _tree(pl.lit(0)), self.node(inner))
            case "Abs", [inner] if self._is_whole(inner):
                return _tree(expression(self.node(inner)).cast(pl.Int128).abs())
            case {"Pow": _}, [base, exponent] if self._is_whole(base) and self._is_whole(exponent):
                wide, power = expression(self.node(base)), expression(self._used(exponent))
                fits = wide.cast(pl.Float64).abs().pow(power) < 10.0**DIGITS
                self.guards.append(fits)
                return _tree(pl.when(fits & (power >= 0)).then(wide.cast(pl.Int128)).pow(power))
            case {"SumHorizontal": _}, _ if all(map(self._is_whole, inputs)):
                return _function([_tree(expression(self.node(inner)).cast(pl.Int128)) for inner in inputs], function)
            case {"ListExpr": "Sum"}, [inner] if self._holds_whole(inner):
                return _back(expression(self._used(inner)).cast(pl.List(pl.Int128)).list.sum())
            case {"TemporalExpr": {"TotalNanoseconds": {"fractional": False}}}, [inner] if self._is_in_microseconds(
                inner
            ):
                return _back(expression(self._used(inner)).dt.total_microseconds().cast(pl.Int128) * 1000)
        return None

    def _arithmetic(self, op: str, left: Node, right: Node) -> Node:
        left, right = self._beside(left, right, op), self._beside(right, left, op)
        a, b = self._number(left), self._number(right)
        if a is None or b is None:
            return self._times(left, right) if op == "Multiply" and (a or b) else _binary(op, left, right)
        divides = op == "TrueDivide"
        if a.scale is None and b.scale is None and not (divides and self.target in (Decimal, int)):
            return _binary(op, left, right) if divides else self._whole(op, left, right, a, b)
        x, y = expression(left), expression(right)
        if self.careful and op in ("TrueDivide", "FloorDivide", "Modulus") and not _is_filled(right):
            y = pl.when(y != 0).then(y)
        if divides and self.target is float:
            # The float next to the exact quotient; one of many zeros behind the point has more digits as a float.
            ratio = x.cast(pl.Float64) / y.cast(pl.Float64)
            fine = pl.when(ratio.abs() > LEAST_EXACT).then(expression(self._quotient(x, y, a, b)).cast(pl.Float64))
            return _tree(pl.coalesce(fine, ratio))
        if divides:
            return self._quotient(x, y, a, b)
        if op in ("FloorDivide", "Modulus"):
            return _binary(op, _tree(self._at(x, a, 0)), _tree(self._at(y, b, 0)))
        product = op == "Multiply"
        decimals = a.decimals + b.decimals if product else max(a.decimals, b.decimals)
        digits = a.digits + b.digits if product else max(a.digits, b.digits) + 1
        scale = max(a.scale or 0, b.scale or 0, decimals)
        if digits + scale > SAFE_DIGITS:
            scale = max(a.scale or 0, b.scale or 0, min(decimals, QUOTIENT_DECIMALS))
        result = _Number(min(digits, DIGITS - scale), scale, min(decimals, scale))
        # One of two factors has all decimals; both terms of a sum have.
        x = self._at(x, a, scale if not product or (b.scale or 0) < scale else 0)
        y = self._at(y, b, 0 if product else scale)
        if self.careful and digits + scale > SAFE_DIGITS:
            x = self._guarded(op, x, y, DIGITS - scale)
        return self._known(_binary(op, _tree(x), _tree(y)), result)

    def _times(self, left: Node, right: Node) -> Node:
        """Return a product with a number in it; where it is a duration that is too long for any day, it is null."""
        spans = [side for side in (left, right) if isinstance(self.dtype(side), pl.Duration)]
        if not spans:
            return _binary("Multiply", left, right)
        x, y, span = expression(left), expression(right), expression(*spans)
        length = span.dt.total_microseconds().cast(pl.Float64) * (y if spans[0] == left else x).cast(pl.Float64)
        return _binary("Multiply", _tree(pl.when(length.abs() <= LONGEST_SPAN).then(x)), right)

    def _guarded(self, op: str, x: pl.Expr, y: pl.Expr, digits: int) -> pl.Expr:
        """Return the first operand, null where the result would have more digits before the point than these."""
        p, q = x.cast(pl.Float64).abs(), y.cast(pl.Float64).abs()
        fits = (p * q if op == "Multiply" else p + q) < ROOM * 10.0**digits
        self.guards.append(fits)
        return pl.when(fits).then(x)

    def _whole(self, op: str, left: Node, right: Node, a: _Number, b: _Number) -> Node:
        x, y = (
            side if _is_literal(node) else side.cast(pl.Int128)
            for node, side in ((left, expression(left)), (right, expression(right)))
        )
        product = op == "Multiply"
        digits = a.digits + b.digits if product else max(a.digits, b.digits) + (op in ("Plus", "Minus"))
        if digits > DIGITS:
            x = self._guarded(op, x, y, DIGITS)
        return self._known(_binary(op, _tree(x), _tree(y)), _Number(min(digits, DIGITS), None))

    def _quotient(self, x: pl.Expr, y: pl.Expr, a: _Number, b: _Number) -> Node:
        widest = max(a.digits, b.digits, a.digits + b.decimals)
        least = max(a.scale or 0, b.scale or 0)
        scale = max(least, QUOTIENT_DECIMALS)
        digits = DIGITS - scale
        result = _Number(min(digits, a.digits + b.decimals), scale, scale)
        if not self.careful or widest + scale <= DIGITS:
            return self._known(_tree(self._at(x, a, scale) / y), result)
        limit = ROOM * 10.0**digits
        p, q = x.cast(pl.Float64).abs(), y.cast(pl.Float64).abs()
        self.guards.append((p < limit * q) & (p < 10.0 ** (DIGITS - least)))
        near = (p < limit) & (q < limit) & (p < limit * q)
        fine = pl.when(near).then(x).cast(pl.Decimal(DIGITS, scale), strict=False) / pl.when(near).then(y)
        # Where the dividend is too large for so many decimals, there are as many as it leaves.
        rest = max(least, min(scale, DIGITS - max(a.digits, b.digits)))
        far = ~near & (p < limit * q) & (p < ROOM * 10.0 ** (DIGITS - rest)) & (q < ROOM * 10.0 ** (DIGITS - rest))
        coarse = pl.when(far).then(x).cast(pl.Decimal(DIGITS, rest), strict=False) / pl.when(far).then(y)
        either = pl.when(near).then(fine).otherwise(coarse.cast(pl.Decimal(DIGITS, scale), strict=False))
        return self._known(_tree(either), result)

    def _at(self, x: pl.Expr, number: _Number, scale: int) -> pl.Expr:
        """Return a number as a Decimal with at least so many decimals."""
        if number.scale is not None and number.scale >= scale:
            return x
        return x.cast(pl.Decimal(DIGITS, scale), strict=not self.careful)

    def _beside(self, side: Node, other: Node, op: str = "") -> Node:
        """Return one side of an operator: a float that was written beside a Decimal is meant as it was written."""
        match side:
            case {"Literal": {"Dyn": {"Float": written}}} if isinstance(written, float):
                number = self._number(other)
                exact_one = Decimal(repr(written))
                short = exact_one.is_finite() and -QUOTIENT_DECIMALS < int(exact_one.as_tuple().exponent) <= 0
                if number and short and (number.scale is not None or (op and self.target is Decimal)):
                    return _tree(pl.lit(exact_one))
        return side

    def _known(self, node: Node, number: _Number) -> Node:
        self.known[json.dumps(node)] = number
        return node

    def _number(self, node: Node) -> _Number | None:
        """Return what is known of an exact number; None for all else."""
        if known := self.known.get(json.dumps(node)):
            return known
        match node:
            case {"Literal": {"Dyn": {"Int": value}}}:
                return _Number(len(str(abs(value))), None)
            case {"Literal": {"Scalar": {"Decimal": [value, _, scale]}}}:
                return _Number(max(0, len(str(abs(value))) - scale), scale, scale)
            case {"Alias": [inner, _]}:
                return self._number(inner)
        dtype = self.dtype(node)
        if isinstance(dtype, pl.Decimal):
            return self._decimal(node, dtype)
        digits = INTEGER_DIGITS.get(type(dtype))
        return None if digits is None else _Number(digits, None)

    def _decimal(self, node: Node, dtype: pl.Decimal) -> _Number:
        plain = _Number(dtype.precision - dtype.scale, dtype.scale, dtype.scale)
        match node:
            case {"Cast": {"expr": inner}} if number := self._number(inner):
                return _Number(min(number.digits, plain.digits), dtype.scale, min(number.decimals, dtype.scale))
            case {"Function": {"input": [inner, *_], "function": {"Round": {"decimals": decimals}}}}:
                number = self._number(inner) or plain
                return _Number(min(number.digits + 1, plain.digits), dtype.scale, min(number.decimals, decimals))
        return plain

    def _is_whole(self, node: Node) -> bool:
        return type(self.dtype(node)) in INTEGER_DIGITS

    def _holds_whole(self, node: Node) -> bool:
        dtype = self.dtype(node)
        return isinstance(dtype, pl.List) and type(dtype.inner) in INTEGER_DIGITS

    def _is_in_microseconds(self, node: Node) -> bool:
        dtype = self.dtype(node)
        return isinstance(dtype, pl.Duration) and dtype.time_unit != "ns"

    def dtype(self, node: Node) -> pl.DataType | None:
        """Return the type of a node; None where it has none of its own, as within a list."""
        try:
            (dtype,) = pl.LazyFrame(schema=self.schema).select(expression(node)).collect_schema().dtypes()
        except (pl.exceptions.PolarsError, ValueError):
            return None
        return dtype


def _harmless(inputs: list[Node], function: Node) -> Node:
    """Return a function that is null where polars would raise an error."""
    match function:
        case {"TemporalExpr": {"DatetimeFunction": _}}:
            inputs = [*map(_tree, _possible_day(*map(expression, inputs[:3]))), *inputs[3:]]
        case {"StringExpr": {"Strptime": [dtype, options]}}:
            function = {"StringExpr": {"Strptime": [dtype, options | {"strict": False}]}}
        case {"StringExpr": {"ToInteger": options}}:
            function = {"StringExpr": {"ToInteger": options | {"strict": False}}}
        case {"ReplaceStrict": _} if len(inputs) == 3:
            inputs = [*inputs, _tree(pl.lit(None))]
        case {"ListExpr": {"Get": False}}:
            function = {"ListExpr": {"Get": True}}
    return _function(inputs, function)


def _back(wide: pl.Expr) -> Node:
    """Return what was computed in 128 bits in 64, null where it does not fit."""
    return _tree(wide.cast(pl.Int64, strict=False))


def _possible_day(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Return year, month and day, null where the calendar has no such day."""
    leaps = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = (
        pl.when(month == 2)
        .then(pl.when(leaps).then(29).otherwise(28))
        .when(month.is_in([4, 6, 9, 11]))
        .then(30)
        .otherwise(31)
    )
    possible = year.is_between(1, 9999) & month.is_between(1, 12) & day.is_between(1, last)
    return pl.when(possible).then(year), month, day


def _span(number: pl.Expr, unit: int) -> Node:
    """Return a number of a duration's units, null where days with it are no days: polars would wrap around."""
    longest = LONGEST_SPAN // unit
    return _tree(pl.when(number.is_between(-longest, longest)).then(number))


def _is_literal(node: Node) -> bool:
    return "Literal" in node


def _is_filled(node: Node) -> bool:
    """True if it is a number that is written there, and not 0."""
    match node:
        case {"Literal": {"Dyn": {"Int": value}}} | {"Literal": {"Scalar": {"Decimal": [value, _, _]}}}:
            return bool(value)
    return False


def _binary(op: str, left: Node, right: Node) -> Node:
    return {"BinaryExpr": {"left": left, "op": op, "right": right}}


def _function(inputs: list[Node], function: Node) -> Node:
    return {"Function": {"input": inputs, "function": function}}


def _tree(expr: pl.Expr) -> Node:
    return json.loads(expr.meta.serialize(format="json"))


def expression(node: Node) -> pl.Expr:
    """Return the expression of a tree, as polars wrote it or as it was changed."""
    return pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")
