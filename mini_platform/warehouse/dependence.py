"""What the rows of a select depend on: found out from the whole statement, and not from its columns alone.

A select is taken apart into the tables that it reads, the conditions that hold for each of its rows, and what tells its rows
apart. Three questions are answered from that. May one group be computed without the others? May an expression be NULL? Can two
rows have one key? What is not known to be escape_formula (`known_sql.py`) counts as if it were not.

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
    """What was found out about the select of an aggregate.

    Attributes:
        groups: the key's columns -> the columns of production that they are, if one group depends on its own rows alone;
            None if the select must be computed as a whole.
        total: each row of production has its row here, by `groups`, for as long as it is there.
        unique: two rows cannot have one key (True), they can (False), or it is not known before it is computed.
        nullable: names of the selected columns that may be NULL in some row: it is not known that they cannot.
    """

    groups: Mapping[str, Column[Any]] | None
    total: bool
    unique: bool | None
    nullable: frozenset[str]


@dataclass(frozen=True)
class Other:
    """Another aggregate that a select may read: its declaration, and what was found out about it."""

    aggregate: Aggregate
    found: Examined

    @property
    def pairs(self) -> Mapping[str, Column[Any]]:
        """Columns of its key -> the columns of production that they are."""
        return self.found.groups or {}


def examine(rows: Any, aggregate: Aggregate, production: Table, others: Mapping[Table, Other]) -> Examined:
    """Find out how an aggregate may be computed.

    Args:
        rows: its select.
        aggregate: its declaration.
        production: the table of its dataset.
        others: the aggregates of the dataset that are declared before it, by their tables.
    """
    shapes = [Shape(branch) for branch in branches(rows)]
    nullable = _nullable(rows, shapes)
    if not isinstance(rows, Select):
        return Examined(None, total=False, unique=None, nullable=nullable)
    shape = shapes[0]
    groups = shape.groups(aggregate.key, production, others)
    total = groups is not None and not rows._having_criteria and shape.keeps_every_row(others)
    unique = shape.tells_apart(aggregate.key, production)
    if unique and not all(_is_stored_as_computed(rows.selected_columns[name]) for name in aggregate.key):
        unique = None
    return Examined(groups, total, unique, nullable)


def _nullable(rows: Any, shapes: Iterable[Shape]) -> frozenset[str]:
    names = rows.selected_columns.keys()
    pairs = ((shape, *pair) for shape in shapes for pair in zip(names, shape.rows.selected_columns, strict=True))
    return frozenset(name for shape, name, element in pairs if shape.may_be_null(element))


def _is_stored_as_computed(element: Any) -> bool:
    """True if a value is known to be of the type that it is said to be; a moment that is called a date is cut when stored."""
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
    """The table that is read, by whatever name."""
    part = part.element if isinstance(part, Alias) else part
    return part if isinstance(part, Table) else None


@dataclass
class Shape:
    """A select taken apart, once for all questions: to know its FROM clause SQLAlchemy compiles it.

    Attributes:
        rows: the select.
        tables: what it reads, each occurrence once.
        optional: those of `tables` that may have no row beside one of the others: their columns may be NULL.
        conditions: what is true of every row before rows are grouped.
        matches: of outer joins, what is true where the optional side has a row, with the tables of that side.
    """

    rows: Select[Any]
    tables: list[FromClause] = field(default_factory=list)
    optional: list[FromClause] = field(default_factory=list)
    conditions: list[ColumnElement[Any]] = field(default_factory=list)
    matches: list[tuple[ColumnElement[Any], list[FromClause]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take FROM and WHERE apart."""
        for part in self.rows.get_final_froms():
            self._take(part, is_optional=False)
        for condition in self.rows._where_criteria:
            self.conditions += conjuncts(condition)

    def _take(self, part: FromClause, *, is_optional: bool) -> list[FromClause]:
        """Take a part of the FROM clause apart; returns its tables."""
        if isinstance(part, FromGrouping):
            return self._take(part.element, is_optional=is_optional)
        if not isinstance(part, Join):
            self.tables.append(part)
            if is_optional:
                self.optional.append(part)
            return [part]
        left = self._take(part.left, is_optional=is_optional or part.full)
        right = self._take(part.right, is_optional=is_optional or part.isouter or part.full)
        if part.isouter and not part.full:
            self.matches += [(condition, right) for condition in conjuncts(part.onclause)]
        elif not (part.full or is_optional):
            self.conditions += conjuncts(part.onclause)
        return left + right

    @cached_property
    def _grouped_by(self) -> list[Any]:
        """The expressions of GROUP BY; those that it calls by their names are looked up."""
        found: list[Any] = []
        for item in self.rows._group_by_clauses:
            if isinstance(item, _textual_label_reference):
                found.append(bare(self.rows.selected_columns.get(item.element, item)))
            else:
                found += [bare(part) for part in (item.clauses if isinstance(item, ClauseList) else [item])]
        return found

    @cached_property
    def _nullable_within(self) -> Mapping[FromClause, frozenset[str]]:
        """Of the subqueries that are read, the names of the columns that may be NULL."""
        inner = {table: table.element for table in self.tables if isinstance(table, Subquery | CTE)}
        return {table: _nullable(rows, map(Shape, branches(rows))) for table, rows in inner.items()}

    @cached_property
    def _is_aggregated(self) -> bool:
        return any(map(is_aggregating, (*self.rows.selected_columns, *self.rows._having_criteria)))

    @property
    def _is_cut(self) -> bool:
        """True if which rows there are is said of all of them together, or in words that are not looked into."""
        rows = self.rows
        limits = (rows._limit_clause, rows._offset_clause, rows._fetch_clause, rows._for_update_arg)
        words = (rows._prefixes, rows._suffixes, rows._statement_hints, rows._hints, rows._independent_ctes)
        return any(limit is not None for limit in limits) or any(words) or bool(rows._distinct_on)

    # May one group be computed without the others?

    def groups(
        self, key: Iterable[str], production: Table, others: Mapping[Table, Other]
    ) -> Mapping[str, Column[Any]] | None:
        """See `Examined.groups`.

        A group is a value of the key, which is made of plain columns of production, so that the rows of production in it
        are known. They are read once (no window, subquery, second look), and what else is read stands beside each of them
        whatever the rows of other groups are: aggregates that have a row for each row of production.
        """
        groups = {name: plain_column(self.rows.selected_columns[name]) for name in key}
        apart = self._grouped_by if self._is_aggregated or self._grouped_by else groups.values()
        lasting = {table: {*other.aggregate.key, other.aggregate.surrogate} for table, other in others.items()}
        right = (
            all(column is not None and column.table is production for column in groups.values())
            and not self._is_cut
            and is_plain(self.rows)
            and self.tables.count(production) == 1
            and production not in self.optional
            # Or one of its rows would be made of rows with several keys.
            and self._determined_by(apart).issuperset(groups.values())
            and all(table is production or self._is_beside(table, others) for table in self.tables)
            and all(
                column.table is production or column.name in lasting.get(column.table, ())
                for column in _columns_in(self.rows)
            )
        )
        return {name: column for name, column in groups.items() if column is not None} if right else None

    def _is_beside(self, table: FromClause, others: Mapping[Table, Other]) -> bool:
        """True if exactly one row of another aggregate stands beside each row of production: the one with its values."""
        if not isinstance(table, Table) or table not in others or self.tables.count(table) != 1:
            return False
        beside = [*self.conditions, *(condition for condition, right in self.matches if right == [table])]
        pairs = others[table].pairs.items()
        return others[table].found.total and all(
            any(_is_joined(condition, table.c[name], origin) for condition in beside) for name, origin in pairs
        )

    def keeps_every_row(self, others: Mapping[Table, Other]) -> bool:
        """True if no condition leaves out a row of production; asked of a select that has groups."""
        pairs = [
            (table.c[name], origin)
            for table in others.keys() & set(self.tables)
            for name, origin in others[table].pairs.items()
        ]
        return all(any(_is_joined(condition, *pair) for pair in pairs) for condition in self.conditions)

    # Can two rows have one key?

    def tells_apart(self, key: Iterable[str], production: Table) -> bool | None:
        """See `Examined.unique`."""
        selected = [bare(self.rows.selected_columns[name]) for name in key]
        columns = self._determined_by(selected)

        def is_told(element: ClauseElement) -> bool:
            return _is_among(element, selected) or (is_plain(element) and _columns_in(element) <= columns)

        everything = [bare(element) for element in self.rows.selected_columns]
        if self.rows._distinct and all(map(is_told, self.rows._distinct_on or everything)):
            return True
        if self._grouped_by:
            apart = all(map(is_told, self._grouped_by))
            is_mistaken = all(map(is_plain, everything if self.rows._distinct else self._grouped_by))
        elif self._is_aggregated:
            return True
        else:
            apart = all(_has_key(table, columns) for table in self.tables)
            is_mistaken = production in self.tables and not _has_key(production, columns)
        # Of a key that is an expression it is not known what it tells apart.
        is_known_key = all(isinstance(element, Column) for element in selected)
        is_simple = not self._is_cut and all(isinstance(table, Table) for table in self.tables)
        return apart or (False if is_mistaken and is_known_key and is_simple else None)

    def _determined_by(self, elements: Iterable[Any]) -> set[Any]:
        """The columns that have one value where these expressions have one."""
        known: set[Any] = {element for element in elements if isinstance(element, Column)}
        equalities = [(pair, self.tables) for condition in self.conditions if (pair := equality(condition))]
        # Where an outer join finds nothing, its optional side says nothing of the other.
        equalities += [(pair, right) for condition, right in self.matches if (pair := equality(condition))]
        before = -1
        while before != len(known):
            before = len(known)
            for table in self.tables:
                if _has_key(table, known):
                    known.update(table.c)
            for (left, right), told in equalities:
                for one, other in ((left, right), (right, left)):
                    is_one = isinstance(one, BindParameter) or (isinstance(one, Column) and one in known)
                    if is_one and isinstance(other, Column) and other.table in told:
                        known.add(other)
        return known

    # May an expression be NULL?

    def may_be_null(self, element: Any) -> bool:
        """True if an expression of the select may be NULL in some row: it is not known that it cannot."""
        element = bare(element)
        if any(name_of(part) in GROUPINGS for part in self._grouped_by):
            return True
        if _is_among(element, self._filled):
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
        """The parts of an expression without which it is not NULL; None if that is not known."""
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
        return not isinstance(table, Subquery | CTE) or column.key in self._nullable_within[table]

    def _function_may_be_null(self, call: Any) -> bool:
        name, values = name_of(call), list(call.clauses)
        some, every = (which(map(self.may_be_null, values)) for which in (any, all))
        if not is_known(call):
            return True
        match name:
            case "coalesce" | "greatest" | "least":
                return every
            case "count" | "concat" | "num_nulls" | "num_nonnulls":
                return False
            case "concat_ws":
                return self.may_be_null(values[0])
            case "substr" | "substring":  # By a pattern it is NULL where that does not match.
                return some or not all(isinstance(value.type, Integer) for value in values[1:])
            case "to_char":  # By an empty format it is NULL.
                return some or not (isinstance(values[-1], BindParameter) and bool(values[-1].value))
        # Over no rows at all, which is what a select without GROUP BY may see, an aggregate is NULL.
        return some or not (name in STRICT or (name in FILLING and bool(self._grouped_by)))

    @cached_property
    def _filled(self) -> list[ClauseElement]:
        """Expressions that are not NULL in any row, as a condition would not be true for them."""
        having = (part for condition in self.rows._having_criteria for part in conjuncts(condition))
        return [part for condition in (*self.conditions, *having) for part in _implied(condition)]


def _is_joined(condition: ColumnElement[Any], one: Column[Any], other: Column[Any]) -> bool:
    """True if a condition is that these two are equal."""
    sides = equality(condition)
    return sides is not None and {id(side) for side in sides} == {id(one), id(other)}


def _has_key(part: FromClause, columns: set[Any]) -> bool:
    """True if these columns contain a key of a table."""
    table = _table_of(part)
    if table is None:
        return False
    unique = [list(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint)]
    return any(key and columns.issuperset(part.c[c.key] for c in key) for key in (list(table.primary_key), *unique))


def _implied(condition: ColumnElement[Any]) -> Iterator[ClauseElement]:
    """What is not NULL where a condition is true."""
    if isinstance(condition, BinaryExpression) and condition.operator is operators.is_not:
        if isinstance(condition.right, Null):
            yield from _strictly(condition.left)
    elif isinstance(condition, Column | BinaryExpression | FunctionElement):
        yield from _strictly(condition)


def _strictly(element: Any) -> Iterator[ClauseElement]:
    """An expression that is not NULL, and its parts that would make it so."""
    element = bare(element)
    yield element
    parts: list[Any] = []
    if isinstance(element, Cast | TypeCoerce):
        parts = [element.clause]
    elif isinstance(element, Extract):
        parts = [element.expr]
    elif isinstance(element, BinaryExpression) and is_strict(element):
        several = (operators.in_op, operators.not_in_op, operators.between_op, operators.not_between_op)
        parts = [element.left] if element.operator in several else [element.left, element.right]
    elif name_of(element) in STRICT and is_known(element):
        parts = list(element.clauses)
    for part in parts:
        yield from _strictly(part)
