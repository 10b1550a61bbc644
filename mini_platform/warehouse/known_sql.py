"""Known SQL: functions and operators of Postgres that depend on one row only, or on the rows of one group only.

SQL that is not listed here counts as unknown: user-defined functions, volatile functions, SQL as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Case,
    Cast,
    Column,
    ColumnElement,
    CompoundSelect,
    Extract,
    False_,
    FunctionFilter,
    Join,
    Label,
    Null,
    Over,
    Select,
    Table,
    True_,
    Tuple,
    TypeCoerce,
    WithinGroup,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ClauseList,
    CollationClause,
    ColumnClause,
    ExpressionClauseList,
    Grouping,
    TableValuedColumn,
    TextClause,
    TypeClause,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import FromGrouping, SelectBase


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


AGGREGATES = _names(
    """
    any_value array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop covar_samp every json_agg json_object_agg
    jsonb_agg jsonb_object_agg max min mode percentile_cont percentile_disc regr_avgx regr_avgy regr_count regr_intercept
    regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance
    """
)
"""Aggregate functions."""
FILLING = _names(
    "any_value array_agg avg bit_and bit_or bool_and bool_or every max min string_agg sum var_pop stddev_pop"
)
"""Aggregates that are not NULL over rows whose values are not NULL (`stddev` is for a single row)."""
STRICT = _names(
    """
    abs acos age ascii asin atan atan2 bit_length btrim cbrt ceil ceiling char_length character_length chr cos cot date
    date_bin date_part date_trunc decode degrees div encode exp extract factorial floor gcd initcap isfinite justify_days
    justify_hours justify_interval lcm left length ln log log10 lower lpad ltrim make_date make_interval make_time
    make_timestamp make_timestamptz md5 mod normalize octet_length pi position pow power radians regexp_replace repeat replace
    reverse right round rpad rtrim scale sha256 sign sin split_part sqrt starts_with strpos tan timezone to_date to_hex
    to_number to_timestamp translate trim trim_scale trunc upper width_bucket
    """
)
"""Functions of one row that are deterministic, and NULL only if an argument is."""
LOOSE = _names(
    """
    array_length array_position array_to_string cardinality coalesce concat concat_ws greatest jsonb_extract_path_text least
    nullif num_nonnulls num_nulls regexp_count regexp_like regexp_substr substr substring to_char
    """
)
"""Other deterministic functions of one row, each with its own rules for NULL."""
PLACES = _names("count cume_dist dense_rank ntile percent_rank rank row_number")
"""Window functions that are never NULL."""
GROUPINGS = _names("cube grouping_sets rollup")
"""Functions in GROUP BY that add rows in which grouping columns are NULL."""
OPERATORS = frozenset(
    {
        *(
            operators.add,
            operators.sub,
            operators.mul,
            operators.truediv,
            operators.floordiv,
            operators.mod,
            operators.neg,
        ),
        *(operators.eq, operators.ne, operators.lt, operators.le, operators.gt, operators.ge, operators.inv),
        *(operators.concat_op, operators.between_op, operators.not_between_op, operators.in_op, operators.not_in_op),
        *(operators.like_op, operators.not_like_op, operators.ilike_op, operators.not_ilike_op, operators.collate),
        *(operators.startswith_op, operators.endswith_op, operators.contains_op, operators.regexp_match_op),
    }
)
"""Operators that are NULL only if one of their sides is: where they are true, neither side is NULL."""
STRICT_OPERATOR_TEXTS = frozenset({"AT TIME ZONE", "||", "%", "^"})
"""Operators of the same kind that SQLAlchemy has as text."""
OPERATOR_TEXT = re.compile(r"[-+*/<>=~!@#%^&|`?]+|AT TIME ZONE", re.IGNORECASE)
"""Text of an operator that cannot contain any other SQL."""
CONSTANT = re.compile(r"\*|-?\d+(\.\d+)?|'[^']*'|true|false", re.IGNORECASE)
"""Text of a `literal_column` that is a constant."""
HARMLESS = (
    *(
        Case,
        Cast,
        CollationClause,
        Column,
        Extract,
        False_,
        FunctionFilter,
        Join,
        Label,
        Null,
        Table,
        True_,
        Tuple,
        TypeCoerce,
    ),
    *(WithinGroup, aggregate_order_by, BindParameter, BooleanClauseList, ClauseList, ExpressionClauseList, Grouping),
    *(TypeClause, FromGrouping, _label_reference, _textual_label_reference),
)
"""Elements of a statement that depend on nothing but their own parts."""


def is_known(part: Any) -> bool:
    """True if an element of an expression, apart from its own parts, depends on one row or the rows of one group only."""
    if isinstance(part, FunctionElement):
        return name_of(part) in AGGREGATES | STRICT | LOOSE and not getattr(part, "packagenames", ())
    if isinstance(part, BinaryExpression | UnaryExpression):
        texts = (getattr(operator, "opstring", None) for operator in (part.operator, getattr(part, "modifier", None)))
        return all(text is None or OPERATOR_TEXT.fullmatch(text.strip()) for text in texts)
    if isinstance(part, ColumnClause) and not isinstance(part, Column):
        return bool(part.is_literal and CONSTANT.fullmatch(str(part.name).strip()))
    return isinstance(part, HARMLESS)


def is_plain(element: Any) -> bool:
    """True if an expression, or a whole select, depends on one row or the rows of one group only."""
    return all(
        is_known(part) for part in visitors.iterate(element) if part is not element or not isinstance(part, Select)
    )


def hides(element: Any) -> bool:
    """True if an expression has parts that may read unknown columns: SQL as text, or whole rows."""
    for part in visitors.iterate(element):
        if isinstance(part, TextClause | TableValuedColumn):
            return True
        if isinstance(part, ColumnClause) and part.is_literal and not is_known(part):
            return True
        if isinstance(part, ColumnElement) and any(base is not part and hides(base) for base in part.base_columns):
            return True
    return False


def is_aggregating(element: Any) -> bool:
    """True if an expression contains an aggregate, other than as a window function."""
    if isinstance(element, Over | SelectBase):
        return False
    return name_of(element) in AGGREGATES or any(map(is_aggregating, element.get_children()))


def is_strict(element: BinaryExpression[Any]) -> bool:
    """True if an operation is NULL only if one of its sides is."""
    text = str(getattr(element.operator, "opstring", "")).strip().upper()
    return element.operator in OPERATORS or text in STRICT_OPERATOR_TEXTS


def name_of(element: Any) -> str:
    """Return the name of the function that an expression calls; empty if it is anything else."""
    return str(getattr(element, "name", "")).lower() if isinstance(element, FunctionElement) else ""


def bare(element: Any) -> Any:
    """Return an expression without labels and parentheses."""
    while isinstance(element, Label | Grouping | _label_reference):
        element = element.element
    return element


def plain_column(element: ColumnElement[Any]) -> Column[Any] | None:
    """Return the column of a table that an expression is, under whatever label; None if it is anything else."""
    column = bare(element)
    return column if isinstance(column, Column) and isinstance(column.table, Table) else None


def conjuncts(condition: Any) -> Iterator[ColumnElement[Any]]:
    """Yield the conditions that a condition joins by AND."""
    condition = bare(condition)
    if isinstance(condition, BooleanClauseList | ExpressionClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from conjuncts(part)
    elif condition is not None:
        yield condition


def equality(condition: ColumnElement[Any]) -> tuple[Any, Any] | None:
    """Return both sides of an equality; None for any other condition."""
    if isinstance(condition, BinaryExpression) and condition.operator is operators.eq:
        return bare(condition.left), bare(condition.right)
    return None


def branches(rows: Any) -> list[Select[Any]]:
    """Return the selects of a union; a plain select is its own only branch."""
    if isinstance(rows, CompoundSelect):
        return [branch for part in rows.selects for branch in branches(part)]
    return [rows] if isinstance(rows, Select) else branches(rows.element)
