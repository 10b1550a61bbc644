"""Static analysis of selects: which rows the result depends on, judged by the whole statement and not by its columns alone.

A select is taken apart into the tables that it reads, the conditions that hold for each of its rows, and the expressions that
distinguish its rows. This answers three questions. May one group be computed without the others? May an expression be NULL? Can
two rows have one key? SQL that is not known to be harmless (`known_sql.py`) counts as harmful.

Not here: tables (`tables/`), computing anything (`aggregates.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import (
    CTE,
    Alias,
    Case,
    Cast,
    Column,
    ColumnElement,
    Extract,
    False_,
    FunctionFilter,
    Integer,
    Join,
    Null,
    Over,
    Select,
    String,
    Subquery,
    Table,
    True_,
    TypeCoerce,
    UniqueConstraint,
    WithinGroup,
)
from sqlalchemy.sql import ClauseElement, FromClause, operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ClauseList,
    CollationClause,
    ColumnClause,
    ExpressionClauseList,
    UnaryExpression,
    _textual_label_reference,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import FromGrouping

from mini_platform.declare.computed import Aggregate
from mini_platform.warehouse.known_sql import (
    CONSTANT,
    FILLING,
    GROUPINGS,
    PLACES,
    STRICT,
    bare,
    branches,
    conjuncts,
    equality,
    is_aggregating,
    is_known,
    is_plain,
    is_strict,
    name_of,
    plain_column,
)

FILLED = "filled"
"""Key in the `info` of a column of an aggregate: true if none of its values is NULL."""
NEVER_NULL = (operators.is_, operators.is_not, operators.is_distinct_from, operators.is_not_distinct_from)


@dataclass(frozen=True)
class Examined:
    """The result of analyzing the select of an aggregate.

    Attributes:
        groups: key columns -> the production columns behind them, if each group depends on its own rows alone; None if the
            select must be computed as a whole.
        total: True if each row of production has a row in the aggregate, by `groups`, for as long as it exists.
        unique: True if two rows cannot have one key, False if they can, None if only computing it shows.
        nullable: names of the selected columns that may be NULL in some row, or are not known to be never NULL.
    """

    groups: Mapping[str, Column[Any]] | None
    total: bool
    unique: bool | None
    nullable: frozenset[str]


@dataclass(frozen=True)
class Other:
    """Another aggregate that a select may read: its declaration and the analysis of its select."""

    aggregate: Aggregate
    examined: Examined

    @property
    def pairs(self) -> Mapping[str, Column[Any]]:
        """Its key columns -> the production columns behind them."""
        return self.examined.groups or {}


def examine(rows: Any, aggregate: Aggregate, production: Table, others: Mapping[Table, Other]) -> Examined:
    """Analyze how an aggregate may be computed.

    Args:
        rows: select of the aggregate.
        aggregate: declaration of the aggregate.
        production: production table of the dataset.
        others: aggregates of the dataset that are declared before this one, by their tables.
    """
    shapes = [Shape(branch) for branch in branches(rows)]
    nullable = _nullable(rows, shapes)
    if not isinstance(rows, Select):
        return Examined(None, total=False, unique=None, nullable=nullable)
    shape = shapes[0]
    groups = shape.groups(aggregate.key, production, others)
    total = groups is not None and not rows._having_criteria and shape.keeps_every_row(others)
    unique = shape.has_unique_key(aggregate.key, production)
    if unique and not all(_is_stored_unchanged(rows.selected_columns[name]) for name in aggregate.key):
        unique = None
    return Examined(groups, total, unique, nullable)


def _nullable(rows: Any, shapes: Iterable[Shape]) -> frozenset[str]:
    names = rows.selected_columns.keys()
    pairs = ((shape, *pair) for shape in shapes for pair in zip(names, shape.rows.selected_columns, strict=True))
    return frozenset(name for shape, name, element in pairs if shape.may_be_null(element))


def _is_stored_unchanged(element: Any) -> bool:
    """True if a value is known to have its declared type; a timestamp that is declared as a date is cut when stored."""
    element = bare(element)
    if isinstance(element, Cast) or isinstance(element.type, String):
        return True
    parts = list(visitors.iterate(element))
    return not any(map(name_of, parts)) and all(
        isinstance(part.table, Table) for part in parts if isinstance(part, ColumnClause) and part.table is not None
    )


def _is_among(element: ClauseElement, others: Iterable[ClauseElement]) -> bool:
    return any(element is other or element.compare(other) for other in others)


def _columns_in(element: ClauseElement) -> set[Column[Any]]:
    return {part for part in visitors.iterate(element) if isinstance(part, Column)}


def _table_of(part: FromClause) -> Table | None:
    """Return the table that a part of FROM reads, under whatever alias; None if it is not a table."""
    part = part.element if isinstance(part, Alias) else part
    return part if isinstance(part, Table) else None


@dataclass
class Shape:
    """A select taken apart, once for all questions, as SQLAlchemy compiles it to determine its FROM clause.

    Attributes:
        rows: the select.
        tables: what it reads, one item per occurrence.
        optional: members of `tables` on the optional side of an outer join: their columns may be NULL.
        conditions: conditions that are true for every row before rows are grouped.
        matches: conditions of outer joins, true where the optional side has a row, with the tables of that side.
    """

    rows: Select[Any]
    tables: list[FromClause] = field(default_factory=list)
    optional: list[FromClause] = field(default_factory=list)
    conditions: list[ColumnElement[Any]] = field(default_factory=list)
    matches: list[tuple[ColumnElement[Any], list[FromClause]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Collect tables and conditions from FROM and WHERE."""
        for part in self.rows.get_final_froms():
            self._flatten(part, is_optional=False)
        for condition in self.rows._where_criteria:
            self.conditions += conjuncts(condition)

    def _flatten(self, part: FromClause, *, is_optional: bool) -> list[FromClause]:
        """Collect tables and conditions from a part of the FROM clause; return its tables."""
        if isinstance(part, FromGrouping):
            return self._flatten(part.element, is_optional=is_optional)
        if not isinstance(part, Join):
            self.tables.append(part)
            if is_optional:
                self.optional.append(part)
            return [part]
        left = self._flatten(part.left, is_optional=is_optional or part.full)
        right = self._flatten(part.right, is_optional=is_optional or part.isouter or part.full)
        if part.isouter and not part.full:
            self.matches += [(condition, right) for condition in conjuncts(part.onclause)]
        elif not (part.full or is_optional):
            self.conditions += conjuncts(part.onclause)
        return left + right

    @cached_property
    def _group_expressions(self) -> list[Any]:
        """The expressions of GROUP BY; labels are replaced by the expressions that they name."""
        expressions: list[Any] = []
        for item in self.rows._group_by_clauses:
            if isinstance(item, _textual_label_reference):
                expressions.append(bare(self.rows.selected_columns.get(item.element, item)))
            else:
                expressions += [bare(part) for part in (item.clauses if isinstance(item, ClauseList) else [item])]
        return expressions

    @cached_property
    def _nullable_in_subqueries(self) -> Mapping[FromClause, frozenset[str]]:
        """Subqueries that are read -> the names of their columns that may be NULL."""
        inner = {table: table.element for table in self.tables if isinstance(table, Subquery | CTE)}
        return {table: _nullable(rows, map(Shape, branches(rows))) for table, rows in inner.items()}

    @cached_property
    def _is_aggregated(self) -> bool:
        return any(map(is_aggregating, (*self.rows.selected_columns, *self.rows._having_criteria)))

    @property
    def _has_limits(self) -> bool:
        """True if LIMIT, DISTINCT ON and the like choose among all rows, or the select has clauses that are not analyzed."""
        rows = self.rows
        limits = (rows._limit_clause, rows._offset_clause, rows._fetch_clause, rows._for_update_arg)
        modifiers = (rows._prefixes, rows._suffixes, rows._statement_hints, rows._hints, rows._independent_ctes)
        return any(limit is not None for limit in limits) or any(modifiers) or bool(rows._distinct_on)

    # May one group be computed without the others?

    def groups(
        self, key: Iterable[str], production: Table, others: Mapping[Table, Other]
    ) -> Mapping[str, Column[Any]] | None:
        """Return `Examined.groups`."""
        # One group can be computed alone if its key identifies the rows of production that make it up, and no others matter:
        # - The key consists of plain columns of production, so a changed row names the groups that it belongs to.
        # - Production is read once and only row by row (no window, subquery, self-join or outer join onto it), and rows of one
        #   group of the select have one key.
        # - Other tables are aggregates that have exactly one row for each row of production, and only columns of these are
        #   used that rows of other groups cannot change: their keys and surrogates.
        groups = {name: plain_column(self.rows.selected_columns[name]) for name in key}
        distinguishing = self._group_expressions if self._is_aggregated or self._group_expressions else groups.values()
        stable_names = {table: {*other.aggregate.key, other.aggregate.surrogate} for table, other in others.items()}
        is_independent = (
            all(column is not None and column.table is production for column in groups.values())
            and not self._has_limits
            and is_plain(self.rows)
            and self.tables.count(production) == 1
            and production not in self.optional
            # Otherwise a row could be made of rows with several keys.
            and self._determined_by(distinguishing).issuperset(groups.values())
            and all(table is production or self._joins_one_row(table, others) for table in self.tables)
            and all(
                column.table is production or column.name in stable_names.get(column.table, ())
                for column in _columns_in(self.rows)
            )
        )
        return {name: column for name, column in groups.items() if column is not None} if is_independent else None

    def _joins_one_row(self, table: FromClause, others: Mapping[Table, Other]) -> bool:
        """True if a table is another aggregate, joined by its whole key to exactly one row for each row of production."""
        if not isinstance(table, Table) or table not in others or self.tables.count(table) != 1:
            return False
        join_conditions = [*self.conditions, *(condition for condition, right in self.matches if right == [table])]
        pairs = others[table].pairs.items()
        return others[table].examined.total and all(
            any(_is_joined(condition, table.c[name], origin) for condition in join_conditions) for name, origin in pairs
        )

    def keeps_every_row(self, others: Mapping[Table, Other]) -> bool:
        """True if no condition leaves out a row of production. Only for a select that has `groups`."""
        pairs = [
            (table.c[name], origin)
            for table in others.keys() & set(self.tables)
            for name, origin in others[table].pairs.items()
        ]
        return all(any(_is_joined(condition, *pair) for pair in pairs) for condition in self.conditions)

    # Can two rows have one key?

    def has_unique_key(self, key: Iterable[str], production: Table) -> bool | None:
        """Return `Examined.unique`."""
        # The key distinguishes all rows if it determines whatever makes rows distinct: the columns of DISTINCT, else those of
        # GROUP BY, else (no groups) a key of each table that is read; an aggregation without GROUP BY is a single row.
        # Only if everything is understood (plain columns, plain tables, no limits) does the opposite follow: False.
        selected = [bare(self.rows.selected_columns[name]) for name in key]
        columns = self._determined_by(selected)

        def is_determined(element: ClauseElement) -> bool:
            return _is_among(element, selected) or (is_plain(element) and _columns_in(element) <= columns)

        outputs = [bare(element) for element in self.rows.selected_columns]
        if self.rows._distinct and all(map(is_determined, self.rows._distinct_on or outputs)):
            return True
        if self._group_expressions:
            is_unique = all(map(is_determined, self._group_expressions))
            is_refutable = all(map(is_plain, outputs if self.rows._distinct else self._group_expressions))
        elif self._is_aggregated:
            return True
        else:
            is_unique = all(_has_key(table, columns) for table in self.tables)
            is_refutable = production in self.tables and not _has_key(production, columns)
        # It is not known which rows an expression distinguishes.
        is_known_key = all(isinstance(element, Column) for element in selected)
        is_simple = not self._has_limits and all(isinstance(table, Table) for table in self.tables)
        return is_unique or (False if is_refutable and is_known_key and is_simple else None)

    def _determined_by(self, elements: Iterable[Any]) -> set[Any]:
        """Return the columns that have a single value wherever these expressions have one."""
        # The closure of functional dependencies, extended until nothing is added: a key of a table determines all its columns,
        # and an equality with a constant or a known column determines its other side.
        known: set[Any] = {element for element in elements if isinstance(element, Column)}
        equalities = [(pair, self.tables) for condition in self.conditions if (pair := equality(condition))]
        # An outer join determines columns of its optional side only: without a match its condition does not hold.
        equalities += [(pair, right) for condition, right in self.matches if (pair := equality(condition))]
        previous = -1
        while previous != len(known):
            previous = len(known)
            for table in self.tables:
                if _has_key(table, known):
                    known.update(table.c)
            for (left, right), tables in equalities:
                for source, target in ((left, right), (right, left)):
                    is_fixed = isinstance(source, BindParameter) or (isinstance(source, Column) and source in known)
                    if is_fixed and isinstance(target, Column) and target.table in tables:
                        known.add(target)
        return known

    # May an expression be NULL?

    def may_be_null(self, element: Any) -> bool:
        """True if an expression of the select may be NULL in some row, or is not known to be never NULL."""
        element = bare(element)
        if any(name_of(part) in GROUPINGS for part in self._group_expressions):
            return True
        if _is_among(element, self._never_null):
            return False
        if isinstance(element, ColumnClause):
            return self._column_may_be_null(element)
        if isinstance(element, BindParameter):
            values = element.value if element.expanding else [element.value]
            return any(value is None for value in values or [None])
        if isinstance(element, FunctionElement):
            return self._function_may_be_null(element)
        parts = self._parts(element)
        return parts is None or any(map(self.may_be_null, parts))

    @staticmethod
    def _parts(element: Any) -> Iterable[Any] | None:
        """Return the parts of an expression, one of which must be NULL for it to be NULL; None if that is not known."""
        parts: Iterable[Any] | None = None
        match element:
            case True_() | False_() | CollationClause():
                parts = ()
            case Cast() | TypeCoerce():
                parts = (element.clause,)
            case Extract():
                parts = (element.expr,)
            case Case() if element.else_ is not None:
                parts = (*(value for _, value in element.whens), element.else_)
            case Over():
                parts = () if name_of(element.element) in PLACES else None
            case FunctionFilter() | WithinGroup():
                parts = () if name_of(next(iter(element.get_children()))) == "count" else None
            case BinaryExpression() if element.operator in NEVER_NULL:
                parts = ()
            case BinaryExpression() if is_strict(element):
                parts = (element.left, element.right)
            case UnaryExpression() | ClauseList() | ExpressionClauseList() if is_known(element):
                parts = element.get_children()
        return parts

    def _column_may_be_null(self, column: Any) -> bool:
        table = column.table
        if table is None:
            return not CONSTANT.fullmatch(str(column.name))
        if table not in self.tables or table in self.optional:
            return True
        if _table_of(table) is not None:
            return bool(column.nullable) and not column.info.get(FILLED)
        return not isinstance(table, Subquery | CTE) or column.key in self._nullable_in_subqueries[table]

    def _function_may_be_null(self, call: Any) -> bool:
        name, values = name_of(call), list(call.clauses)
        any_null, all_null = (quantifier(map(self.may_be_null, values)) for quantifier in (any, all))
        if not is_known(call):
            return True
        match name:
            case "coalesce" | "greatest" | "least":
                return all_null
            case "count" | "concat" | "num_nulls" | "num_nonnulls":
                return False
            case "concat_ws":
                return self.may_be_null(values[0])
            case "substr" | "substring":  # With a pattern it is NULL where that does not match.
                return any_null or not all(isinstance(value.type, Integer) for value in values[1:])
            case "to_char":  # With an empty format it is NULL.
                return any_null or not (isinstance(values[-1], BindParameter) and bool(values[-1].value))
        # An aggregate over no rows, which a select without GROUP BY may have, is NULL.
        return any_null or not (name in STRICT or (name in FILLING and bool(self._group_expressions)))

    @cached_property
    def _never_null(self) -> list[ClauseElement]:
        """Expressions that are not NULL in any row, as a condition of the select would not be true otherwise."""
        having = (part for condition in self.rows._having_criteria for part in conjuncts(condition))
        return [part for condition in (*self.conditions, *having) for part in _never_null_under(condition)]


def _is_joined(condition: ColumnElement[Any], left: Column[Any], right: Column[Any]) -> bool:
    """True if a condition is the equality of these two columns."""
    sides = equality(condition)
    return sides is not None and {id(side) for side in sides} == {id(left), id(right)}


def _has_key(part: FromClause, columns: set[Any]) -> bool:
    """True if these columns contain a primary key or a unique constraint of a table."""
    table = _table_of(part)
    if table is None:
        return False
    unique = [list(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint)]
    return any(key and columns.issuperset(part.c[c.key] for c in key) for key in (list(table.primary_key), *unique))


def _never_null_under(condition: ColumnElement[Any]) -> Iterator[ClauseElement]:
    """Yield expressions that are not NULL where a condition is true."""
    if isinstance(condition, BinaryExpression) and condition.operator is operators.is_not:
        if isinstance(condition.right, Null):
            yield from _strict_parts(condition.left)
    elif isinstance(condition, Column | BinaryExpression | FunctionElement):
        yield from _strict_parts(condition)


def _strict_parts(element: Any) -> Iterator[ClauseElement]:
    """Yield an expression that is not NULL, and its parts that would have made it NULL."""
    element = bare(element)
    yield element
    parts: list[Any] = []
    if isinstance(element, Cast | TypeCoerce):
        parts = [element.clause]
    elif isinstance(element, Extract):
        parts = [element.expr]
    elif isinstance(element, BinaryExpression) and is_strict(element):
        list_operators = (operators.in_op, operators.not_in_op, operators.between_op, operators.not_between_op)
        parts = [element.left] if element.operator in list_operators else [element.left, element.right]
    elif name_of(element) in STRICT and is_known(element):
        parts = list(element.clauses)
    for part in parts:
        yield from _strict_parts(part)
