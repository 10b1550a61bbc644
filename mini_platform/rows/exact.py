"""Exact arithmetic: a polars expression that a user wrote -> one whose values are each right, or null.

Polars keeps the decimals of the factors of Decimals (1.00 / 3.00 is 0.33), lets whole numbers wrap around where they overflow,
and fails the whole block for one division by zero, one text that is not a number or one 30th of February. So the expression is
rewritten before it is evaluated. Polars serializes it as a tree of JSON, in which

- `+ - * /` of Decimals are computed with as many decimals of the exact result as 38 digits hold, `/` with 19;
- `+ - *` of whole numbers are computed in 128 bits, and cast back to 64 where they are used otherwise;
- beside a Decimal, `0.6` is six tenths, and not the nearest float;
- a value that does not fit, a zero divisor, an impossible cast or day gives null.

Not here: the handling of nulls (`validation.py`). Python functions (`map_elements`) cannot be analysed: an expression with one
stays as it is, and `evaluate` finds the rows for which it fails.
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
"""Most digits of a polars Decimal."""
SAFE_DIGITS = DIGITS - 1
"""A number known to have no more digits needs no guard; the sum of two such numbers has one digit more."""
SAFE_FRACTION = 0.999
"""Fraction of the largest number that is used, as magnitudes are estimated in floats."""
QUOTIENT_DECIMALS = 19
"""Enough for all digits of 10^18 / 0.01, and to round the quotient of two amounts of money of 18 digits correctly."""
MICROSECONDS = (604_800_000_000, 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1)
"""Microseconds in a week, day, hour, minute, second, millisecond and microsecond: the order in polars' durations."""
LONGEST_DURATION = 20_000 * 366 * MICROSECONDS[1]
LEAST_EXACT = 0.001
"""Smallest quotient, stored as a float, that is computed as a Decimal: it has 16 digits."""
ROW_FAULTS = (pl.exceptions.PolarsError, ArithmeticError, LookupError, TypeError, ValueError)
"""Errors raised for rows, by polars and by Python functions in an expression."""
VALUE = "_value"
ARITHMETIC = ("Plus", "Minus", "Multiply", "TrueDivide", "FloorDivide", "Modulus")
COMPARISONS = ("Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq", "EqValidity", "NotEqValidity")
INTEGER_DIGITS: Mapping[Any, int] = {
    pl.Int8: 3, pl.Int16: 5, pl.Int32: 10, pl.Int64: 19, pl.UInt8: 3, pl.UInt16: 5, pl.UInt32: 10, pl.UInt64: 20, pl.Int128: 39,
}  # fmt: skip
Node = Any
"""A node of the JSON tree of an expression."""


def exact_expression(
    expr: pl.Expr, schema: Mapping[str, pl.DataType], target: Any = None, *, null_on_error: bool = False
) -> pl.Expr:
    """Return an expression of the exact value.

    Args:
        expr: the expression as the user wrote it.
        schema: schema of the columns that the expression reads.
        target: Python type of the stored value; with float, division gives floats; None for a rule, which is false where a
            number has too many digits to be computed.
        null_on_error: if true, the value is null where it cannot be computed, which takes twice the time. If false, polars
            raises an error there, as for the original expression; callers try this first.
    """
    try:
        tree = expr.meta.serialize(format="json")
    except pl.exceptions.ComputeError:  # It contains a Python function.
        return expr
    read = tuple((name, schema[name]) for name in dict.fromkeys(expr.meta.root_names()) if name in schema)
    rewritten = _rewritten(tree, read, target, null_on_error)
    return expr if rewritten is None else rewritten


@cache
def _rewritten(
    tree: str, schema: tuple[tuple[str, pl.DataType], ...], target: Any, null_on_error: bool
) -> pl.Expr | None:
    """Return the rewritten expression, None if it is right as it is. Cached by the tree, in which today's date may change."""
    rewriting = _Rewriting(dict(schema), target, null_on_error)
    root = json.loads(tree)
    node = rewriting.node(root)
    if node == root:
        return None
    value = expression(node)
    if target is None and rewriting.guards:
        fits = reduce(and_, rewriting.guards)
        return pl.when(fits.fill_null(value=True) | value.is_not_null()).then(value).otherwise(statement=False)
    return value


def evaluate(frame: pl.DataFrame, value: pl.Expr) -> pl.Series:
    """Return n values for n rows, null for the rows for which polars raises an error.

    Raises:
        polars.exceptions.PolarsError: the expression is wrong for any rows.
    """
    # Polars fails a whole frame without naming the row. Rows are therefore evaluated together, and halved where that fails,
    # until single rows are left; a few bad rows among n cost about log2(n) evaluations each. The empty frame tells whether the
    # expression itself is wrong, and gives the type of the nulls.

    def halved(rows: pl.DataFrame) -> Iterator[pl.Series]:
        try:
            yield rows.with_columns(value.alias(VALUE))[VALUE]  # A literal becomes the value of every row.
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
    """Bounds on an exact number.

    Attributes:
        digits: most digits before the point.
        scale: decimals in the polars type of the number; None for a whole number.
        decimals: number of these decimals that may be other than 0.
    """

    digits: int
    scale: int | None
    decimals: int = 0


@dataclass
class _Rewriting:
    """Rewrites the tree of one expression, from its leaves to its root.

    For each number it tracks how many digits it may have (`_Number`), from the types of columns and the operators. The result
    of an operator gets as many decimals as fit into 38 digits. Where digits may not suffice, the operand is nulled by a guard
    that estimates the magnitude in floats, if `null_on_error`; otherwise polars raises an error.
    """

    schema: dict[str, pl.DataType]
    target: Any
    null_on_error: bool
    guards: list[pl.Expr] = field(default_factory=list)
    """Expressions that are true where a number has few enough digits to be computed."""
    bounds: dict[str, _Number] = field(default_factory=dict)
    """Bounds on the numbers that were built here, by their JSON."""

    def node(self, node: Node) -> Node:
        """Return a node rewritten, including its children."""
        match node:
            case {"BinaryExpr": {"left": left, "op": op, "right": right}} if op in ARITHMETIC:
                return self._arithmetic(op, self.node(left), self.node(right))
            case {"BinaryExpr": {"left": left, "op": op, "right": right}}:
                sides = (
                    [self.node(left), self.node(right)]
                    if op in COMPARISONS
                    else [self._as_operand(left), self._as_operand(right)]
                )
                return _binary(op, *(self._literal_as_decimal(side, other) for side, other in (sides, reversed(sides))))
            case {"Cast": {"expr": inner, "dtype": dtype, "options": options}}:
                return {"Cast": {"expr": self.node(inner), "dtype": dtype, "options": self._options(options)}}
            case {"Alias": [inner, name]}:
                return {"Alias": [self.node(inner), name]}
            case {"Ternary": parts}:
                return {"Ternary": {name: self._as_operand(part) for name, part in parts.items()}}
            case {"Function": {"input": inputs, "function": function}}:
                return self._function(inputs, function)
            case _:
                return node

    def _options(self, options: str) -> str:
        return "NonStrict" if self.null_on_error and options == "Strict" else options

    def _as_operand(self, node: Node) -> Node:
        """Return a node rewritten for a use other than arithmetic: a whole number keeps its original type."""
        new = self.node(node)
        if new == node or self.dtype(new) != pl.Int128:
            return new
        before = self.dtype(node) or pl.Int64()
        # A type that was too narrow for the result, such as that of a month times 100, is widened to that of a column.
        return _tree(expression(new).cast(pl.Int64() if before in INTEGER_DIGITS else before, strict=False))

    def _function(self, inputs: list[Node], function: Node) -> Node:
        if (whole := self._whole_number_function(inputs, function)) is not None:
            return whole
        match function, inputs:
            case {"Round": _}, [inner, *_]:
                return _function([self.node(inner), *inputs[1:]], function)
            case {"TemporalExpr": {"Duration": _}}, _:
                units = zip(inputs, (*MICROSECONDS, 1), strict=True)
                inputs = [
                    inner if _is_literal(inner) else _duration_part(expression(self._as_operand(inner)), unit)
                    for inner, unit in units
                ]
                return _function(inputs, function)
        inputs = [self._as_operand(inner) for inner in inputs]
        return _null_instead_of_error(inputs, function) if self.null_on_error else _function(inputs, function)

    def _whole_number_function(self, inputs: list[Node], function: Node) -> Node | None:
        """Return a function of whole numbers that may overflow, rewritten to 128 bits; None for any other function."""
        match function, inputs:
            case "Negate", [inner] if self._is_whole(inner):
                return self._arithmetic("Minus", _tree(pl.lit(0)), self.node(inner))
            case "Abs", [inner] if self._is_whole(inner):
                return _tree(expression(self.node(inner)).cast(pl.Int128).abs())
            case {"Pow": _}, [base, exponent] if self._is_whole(base) and self._is_whole(exponent):
                wide, power = expression(self.node(base)), expression(self._as_operand(exponent))
                fits = wide.cast(pl.Float64).abs().pow(power) < 10.0**DIGITS
                self.guards.append(fits)
                return _tree(pl.when(fits & (power >= 0)).then(wide.cast(pl.Int128)).pow(power))
            case {"SumHorizontal": _}, _ if all(map(self._is_whole, inputs)):
                return _function([_tree(expression(self.node(inner)).cast(pl.Int128)) for inner in inputs], function)
            case {"ListExpr": "Sum"}, [inner] if self._is_whole_list(inner):
                return _to_int64(expression(self._as_operand(inner)).cast(pl.List(pl.Int128)).list.sum())
            case {"TemporalExpr": {"TotalNanoseconds": {"fractional": False}}}, [inner] if self._is_in_microseconds(
                inner
            ):
                return _to_int64(expression(self._as_operand(inner)).dt.total_microseconds().cast(pl.Int128) * 1000)
        return None

    def _arithmetic(self, op: str, left: Node, right: Node) -> Node:
        left, right = self._literal_as_decimal(left, right, op), self._literal_as_decimal(right, left, op)
        a, b = self._number(left), self._number(right)
        if a is None or b is None:
            return self._product(left, right) if op == "Multiply" and (a or b) else _binary(op, left, right)
        divides = op == "TrueDivide"
        if a.scale is None and b.scale is None and not (divides and self.target in (Decimal, int)):
            return _binary(op, left, right) if divides else self._whole_numbers(op, left, right, a, b)
        x, y = expression(left), expression(right)
        if self.null_on_error and op in ("TrueDivide", "FloorDivide", "Modulus") and not _is_filled(right):
            y = pl.when(y != 0).then(y)
        if divides and self.target is float:
            # The float nearest to the exact quotient; a quotient with many zeros after the point has more digits as a float.
            ratio = x.cast(pl.Float64) / y.cast(pl.Float64)
            fine = pl.when(ratio.abs() > LEAST_EXACT).then(expression(self._quotient(x, y, a, b)).cast(pl.Float64))
            return _tree(pl.coalesce(fine, ratio))
        if divides:
            return self._quotient(x, y, a, b)
        if op in ("FloorDivide", "Modulus"):
            return _binary(op, _tree(self._with_scale(x, a, 0)), _tree(self._with_scale(y, b, 0)))
        product = op == "Multiply"
        decimals = a.decimals + b.decimals if product else max(a.decimals, b.decimals)
        digits = a.digits + b.digits if product else max(a.digits, b.digits) + 1
        scale = max(a.scale or 0, b.scale or 0, decimals)
        if digits + scale > SAFE_DIGITS:
            scale = max(a.scale or 0, b.scale or 0, min(decimals, QUOTIENT_DECIMALS))
        result = _Number(min(digits, DIGITS - scale), scale, min(decimals, scale))
        # In a product one factor is cast to all the decimals, in a sum both terms are.
        x = self._with_scale(x, a, scale if not product or (b.scale or 0) < scale else 0)
        y = self._with_scale(y, b, 0 if product else scale)
        if self.null_on_error and digits + scale > SAFE_DIGITS:
            x = self._guarded(op, x, y, DIGITS - scale)
        return self._remember(_binary(op, _tree(x), _tree(y)), result)

    def _product(self, left: Node, right: Node) -> Node:
        """Return a product with a number in it; null for a duration that is too long for any date."""
        spans = [side for side in (left, right) if isinstance(self.dtype(side), pl.Duration)]
        if not spans:
            return _binary("Multiply", left, right)
        x, y, span = expression(left), expression(right), expression(*spans)
        length = span.dt.total_microseconds().cast(pl.Float64) * (y if spans[0] == left else x).cast(pl.Float64)
        return _binary("Multiply", _tree(pl.when(length.abs() <= LONGEST_DURATION).then(x)), right)

    def _guarded(self, op: str, x: pl.Expr, y: pl.Expr, digits: int) -> pl.Expr:
        """Return the first operand, null where the result would have more than `digits` digits before the point."""
        p, q = x.cast(pl.Float64).abs(), y.cast(pl.Float64).abs()
        fits = (p * q if op == "Multiply" else p + q) < SAFE_FRACTION * 10.0**digits
        self.guards.append(fits)
        return pl.when(fits).then(x)

    def _whole_numbers(self, op: str, left: Node, right: Node, a: _Number, b: _Number) -> Node:
        x, y = (
            side if _is_literal(node) else side.cast(pl.Int128)
            for node, side in ((left, expression(left)), (right, expression(right)))
        )
        product = op == "Multiply"
        digits = a.digits + b.digits if product else max(a.digits, b.digits) + (op in ("Plus", "Minus"))
        if digits > DIGITS:
            x = self._guarded(op, x, y, DIGITS)
        return self._remember(_binary(op, _tree(x), _tree(y)), _Number(min(digits, DIGITS), None))

    def _quotient(self, x: pl.Expr, y: pl.Expr, a: _Number, b: _Number) -> Node:
        max_digits = max(a.digits, b.digits, a.digits + b.decimals)
        min_scale = max(a.scale or 0, b.scale or 0)
        scale = max(min_scale, QUOTIENT_DECIMALS)
        digits = DIGITS - scale
        result = _Number(min(digits, a.digits + b.decimals), scale, scale)
        if not self.null_on_error or max_digits + scale <= DIGITS:
            return self._remember(_tree(self._with_scale(x, a, scale) / y), result)
        # Two attempts: with the full number of decimals if dividend, divisor and quotient all have room for them (`near`), and
        # otherwise with as many decimals as the larger operand leaves (`far`).
        limit = SAFE_FRACTION * 10.0**digits
        p, q = x.cast(pl.Float64).abs(), y.cast(pl.Float64).abs()
        self.guards.append((p < limit * q) & (p < 10.0 ** (DIGITS - min_scale)))
        near = (p < limit) & (q < limit) & (p < limit * q)
        fine = pl.when(near).then(x).cast(pl.Decimal(DIGITS, scale), strict=False) / pl.when(near).then(y)
        remaining_scale = max(min_scale, min(scale, DIGITS - max(a.digits, b.digits)))
        far = (
            ~near
            & (p < limit * q)
            & (p < SAFE_FRACTION * 10.0 ** (DIGITS - remaining_scale))
            & (q < SAFE_FRACTION * 10.0 ** (DIGITS - remaining_scale))
        )
        coarse = pl.when(far).then(x).cast(pl.Decimal(DIGITS, remaining_scale), strict=False) / pl.when(far).then(y)
        quotient = pl.when(near).then(fine).otherwise(coarse.cast(pl.Decimal(DIGITS, scale), strict=False))
        return self._remember(_tree(quotient), result)

    def _with_scale(self, x: pl.Expr, number: _Number, scale: int) -> pl.Expr:
        """Return a number as a Decimal with at least `scale` decimals."""
        if number.scale is not None and number.scale >= scale:
            return x
        return x.cast(pl.Decimal(DIGITS, scale), strict=not self.null_on_error)

    def _literal_as_decimal(self, side: Node, other: Node, op: str = "") -> Node:
        """Return one side of an operator; a float literal beside a Decimal becomes a Decimal of the digits as written."""
        match side:
            case {"Literal": {"Dyn": {"Float": literal}}} if isinstance(literal, float):
                number = self._number(other)
                decimal = Decimal(repr(literal))
                short = decimal.is_finite() and -QUOTIENT_DECIMALS < int(decimal.as_tuple().exponent) <= 0
                if number and short and (number.scale is not None or (op and self.target is Decimal)):
                    return _tree(pl.lit(decimal))
        return side

    def _remember(self, node: Node, number: _Number) -> Node:
        self.bounds[json.dumps(node)] = number
        return node

    def _number(self, node: Node) -> _Number | None:
        """Return the bounds on an exact number; None if it is something else."""
        if bounds := self.bounds.get(json.dumps(node)):
            return bounds
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

    def _is_whole_list(self, node: Node) -> bool:
        dtype = self.dtype(node)
        return isinstance(dtype, pl.List) and type(dtype.inner) in INTEGER_DIGITS

    def _is_in_microseconds(self, node: Node) -> bool:
        dtype = self.dtype(node)
        return isinstance(dtype, pl.Duration) and dtype.time_unit != "ns"

    def dtype(self, node: Node) -> pl.DataType | None:
        """Return the type of a node; None if it has none of its own, as inside a list."""
        try:
            (dtype,) = pl.LazyFrame(schema=self.schema).select(expression(node)).collect_schema().dtypes()
        except (pl.exceptions.PolarsError, ValueError):
            return None
        return dtype


def _null_instead_of_error(inputs: list[Node], function: Node) -> Node:
    """Return a function that gives null where polars would raise an error."""
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


def _to_int64(wide: pl.Expr) -> Node:
    """Return a 128-bit value in 64 bits, null where it does not fit."""
    return _tree(wide.cast(pl.Int64, strict=False))


def _possible_day(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Return year, month and day; the year is null where the calendar has no such day."""
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


def _duration_part(number: pl.Expr, unit: int) -> Node:
    """Return a number of units of a duration, null where no date can be that far away: polars would wrap around."""
    longest = LONGEST_DURATION // unit
    return _tree(pl.when(number.is_between(-longest, longest)).then(number))


def _is_literal(node: Node) -> bool:
    return "Literal" in node


def _is_filled(node: Node) -> bool:
    """Return True if a node is a number literal other than 0."""
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
    """Return the expression of a tree, as serialized by polars or rewritten."""
    return pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")
