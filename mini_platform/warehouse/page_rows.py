"""What a declared page selects: its rows by what is chosen, its measures and its groups, as SQLAlchemy expressions.

Here too: the refusal of pages that only types and foreign keys show to be impossible. Not here: the words of a page
(`pages.py`), what a request chooses and how it is shown (`web/pages/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from sqlalchemy import (
    ARRAY,
    Cast,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Float,
    FromClause,
    FunctionFilter,
    Integer,
    Numeric,
    Row,
    RowMapping,
    Select,
    String,
    Subquery,
    Table,
    UnaryExpression,
    and_,
    case,
    cast,
    distinct,
    extract,
    func,
    not_,
    select,
    true,
)
from sqlalchemy import column as sql_column
from sqlalchemy.sql import visitors
from sqlalchemy.sql.sqltypes import NullType

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate, Computed
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import COVERAGE, FUNCTIONS, Frequency, Measure, OverTime, Page, Ranked, Recurring
from mini_platform.warehouse.exactness import SMALLEST, as_double
from mini_platform.warehouse.known_sql import AGGREGATES, bare, is_aggregating, name_of, plain_column

MERGED = ("count", "sum", "min", "max")
"""Functions of many rows that follow from the same of a part of them each."""
LARGE = 1e290
"""A sum of as many smaller floats as there are is a float, too."""

Choice = Mapping[str, Sequence[Any]]
"""Column of a page -> the values that were chosen of it."""


class Tables(Protocol):
    """What a page needs of the tables of its dataset; `tables.py` has them."""

    @property
    def production(self) -> Table:
        """Valid rows."""

    @property
    def aggregates(self) -> dict[str, Table]:
        """By name."""

    @property
    def views(self) -> dict[str, Table]:
        """By name."""

    @property
    def groups(self) -> dict[str, Mapping[str, Column[Any]]]:
        """Of aggregates that can be computed by group: their key columns -> the columns of production that these are."""

    def rows(self, computed: Computed) -> Select[Any]:
        """What an aggregate or a view selects."""


class PageRows:
    """The rows that the page of a dataset is about.

    Attributes:
        dataset: whose page.
        page: its declaration.
        table: that the page is about.
        time: column by which a span is chosen; None where the table has neither day nor moment.
    """

    def __init__(self, dataset: Dataset, page: Page, tables: Tables) -> None:
        """Take the tables of the dataset.

        Raises:
            DeclarationError: the page cannot be.
        """
        self.dataset, self.page, self._tables = dataset, page, tables
        computed = tables.aggregates | tables.views
        self.table: Table = computed[page.of] if page.of else tables.production
        self.time = self._time()
        self._refuse()

    # Columns

    def column(self, name: str) -> Column[Any]:
        """Return a column that the page names: of its table, of one that this refers to, else of production."""
        if name in self.table.c:
            return self.table.c[name]
        other, _, column = name.rpartition(".")
        return self._tables.aggregates[other].c[column] if other else self._tables.production.c[name]

    def is_number(self, name: str) -> bool:
        """True if a measure is a number."""
        return isinstance(self.expression(name, self.table).type, Integer | Numeric)

    def is_amount(self, name: str) -> bool:
        """True if a measure is a sum or a count: it grows with the rows, and of a part of them it is less."""
        value = self.page.measure(name).value
        if isinstance(value, str):
            calls = self.page.measure(name).calls
            return len(calls) == 1 and calls[0][0] in ("count", "sum", "distinct")
        element: Any = bare(value(self.table))
        while isinstance(element, Cast | FunctionFilter):
            element = bare(element.clause if isinstance(element, Cast) else element.func)
        return name_of(element) in ("count", "sum")

    @property
    def has_moments(self) -> bool:
        """True if the span is one of moments, not of days."""
        return self.time is not None and isinstance(self.time.type, DateTime)

    @cached_property
    def is_row_by_row(self) -> bool:
        """True if the table has a row for each row of production: it is production, or has the same key."""
        of = next((one for one in self.dataset.aggregates if one.name == self.page.of), None)
        return self.page.of is None or (of is not None and of.key == self.dataset.key)

    def stored_as(self, name: str) -> str | None:
        """Return the column of production that a column of the page is; None where it is computed."""
        column: Column[Any] | None = self.column(name)
        of = {self._tables.aggregates[one.name]: one for one in self.dataset.aggregates}
        while column is not None and column.table in of:
            selected = self._tables.rows(of[column.table]).selected_columns.get(column.name)
            column = None if selected is None else plain_column(selected)
        return column.name if column is not None and column.table is self._tables.production else None

    def _time(self) -> Column[Any] | None:
        if self.page.time:
            return self.table.c[self.page.time]
        columns = sorted(self.table.c, key=lambda column: not column.primary_key)
        return next((c for c in columns if isinstance(c.type, Date | DateTime) and not c.name.startswith("_")), None)

    def _reference(self, name: str) -> tuple[Column[Any], Column[Any]]:
        """The column of the table that refers to another table of which a column is named, and the one it refers to."""
        other = self.column(name).table
        for key in self.table.foreign_keys:
            if key.column.table is other:
                return key.parent, key.column
        raise DeclarationError(
            f"dataset {self.dataset.name}: page: {name} is a column of another table, to which {self.table.name} does not "
            "refer by a surrogate or a key"
        )

    # Rows

    def rows(self, chosen: Choice, span: tuple[Any, Any] | None = None) -> Subquery:
        """Return the rows with these values, of this span."""
        outer = [name for name in chosen if "." not in name and name not in self.table.c]
        table: FromClause = self.table
        if outer:
            production = self._tables.production
            inner = select(*_shown(production)).where(*(production.c[name].in_(chosen[name]) for name in outer))
            aggregate = next(one for one in self.dataset.aggregates if one.name == self.page.of)
            anew = aggregate.select(inner.subquery())
            if self._has_one_row_each(aggregate, [name for name in outer if len(chosen[name]) == 1]):
                anew = ungrouped(anew, self.table)
            table = anew.subquery()
        found = select(*_shown(table))
        for name, values in chosen.items():
            if name in table.c:
                found = found.where(table.c[name].in_(values))
            elif name not in outer:
                own, target = self._reference(name)
                those = select(target).where(self.column(name).in_(values))
                found = found.where(table.c[own.name].in_(those))
        if span is not None and self.time is not None:
            found = found.where(table.c[self.time.name].between(*span))
        return found.subquery("rows")

    def _has_one_row_each(self, aggregate: Aggregate, pinned: Sequence[str]) -> bool:
        """True if a group of an aggregate is a row of production, as the rest of its key has one value that was chosen."""
        groups = self._tables.groups.get(aggregate.name)
        return groups is not None and {column.name for column in groups.values()}.union(pinned) >= set(self.dataset.key)

    def held(self, chosen: Choice) -> Select[Any]:
        """Return a select of the first and last time of the rows with these values; of how many there are without a time."""
        rows = self.rows(chosen) if chosen else self.table
        if self.time is None:
            return select(func.nullif(func.count(), 0), func.count()).select_from(rows)
        return select(func.min(rows.c[self.time.name]), func.max(rows.c[self.time.name]))

    def values(self, name: str) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any] | None]:
        """Return where the values of a column stand once each, the column there, and that of their rows, if there is one."""
        column = self.column(name)
        for aggregate in self.dataset.aggregates:
            table = self._tables.aggregates[aggregate.name]
            groups = self._tables.groups.get(aggregate.name, {})
            if len(aggregate.key) == 1 and any(
                column is one for one in (table.c[aggregate.key[0]], groups.get(aggregate.key[0]))
            ):
                selected = self._tables.rows(aggregate).selected_columns
                counts = (table.c[one.name] for one in selected if str(bare(one)) == "count(*)")
                return table, table.c[aggregate.key[0]], next(counts, None)
        each = select(column.label("value"), func.count().label("rows")).where(column.is_not(None)).group_by(column)
        counted = each.subquery()
        return counted, counted.c.value, counted.c.rows

    # Measures

    def expression(self, name: str, rows: FromClause) -> ColumnElement[Any]:
        """Return the expression of a measure over rows of the table."""
        measure = self.page.measure(name)
        if not isinstance(measure.value, str):
            return measure.value(rows)
        first, *second = (_call_of(rows, function, column) for function, column in measure.calls)
        return first.cast(Numeric) / func.nullif(second[0].cast(Numeric), 0) if second else first

    def measures(self, rows: FromClause, names: Iterable[str]) -> list[ColumnElement[Any]]:
        """Return the expressions of measures over rows, by their names."""
        return [self.expression(name, rows).label(name) for name in dict.fromkeys(names)]

    def count(self, rows: FromClause) -> ColumnElement[Any]:
        """Return the number of rows."""
        return _call_of(rows, "count", "")

    def per_value(self, rows: FromClause, column: str, most: int = 1) -> Select[Any]:
        """Return a select of what the rows of each value of a column come to.

        A row for each number of rows that values have, up to `most` or more: how many values have so many, as `values_`; and in
        each row the same means, over all values, of the measures that are computed for each of them.
        """
        each = [name for name in self.page.measures if self.page.measure(name).each == column]
        of = rows.c[column]
        one = select(
            of.is_not(None).label("is_value"), func.least(func.count(), most).label("rows"), *self.measures(rows, each)
        )
        inner = one.group_by(of).subquery()
        means = []
        for name in each:
            value = inner.c[name]
            total = func.sum(_call("sum", value).cast(Numeric)).over()
            count = func.sum(func.count(value)).over()
            means.append(as_double(total / func.nullif(count, 0)).label(name))
        groups = inner.c.is_value, inner.c.rows
        return select(*groups, func.count().label("values_"), *means).group_by(*groups).order_by(inner.c.rows)

    @cached_property
    def by_day(self) -> tuple[tuple[str, str], ...]:
        """The calls of measures that the days' own figures amount to; none where there are no days, or no chart over them.

        A count over years is the sum of those of the days. It is not so with means, and different values.
        """
        over_days = any(isinstance(chart, OverTime | Recurring) for chart in self.page.charts.values())
        if self.time is None or self.has_moments or not over_days:
            return ()
        summed_up = [self.page.measure(name) for name in self.page.measures if self.is_summed_up(name)]
        return ("count", ""), *(call for measure in summed_up for call in measure.calls)

    def is_summed_up(self, name: str) -> bool:
        """True if a measure of many rows follows from that of parts of them, such as days."""
        measure = self.page.measure(name)
        return isinstance(measure.value, str) and not measure.each and all(call[0] in MERGED for call in measure.calls)

    def days_of(self, rows: FromClause) -> Select[Any]:
        """Return a select of the figures of each day, from which those of any span follow."""
        assert self.time is not None  # noqa: S101 - else by_day is empty
        return self._partials(self.by_day, rows, self.time.name)

    @staticmethod
    def _partials(calls: Iterable[tuple[str, str]], rows: FromClause, column: str) -> Select[Any]:
        """Return a select of what calls amount to, for each value of a column."""
        named = [_call_of(rows, *call).label(_partial(*call)) for call in dict.fromkeys(calls)]
        return select(rows.c[column], *named).group_by(rows.c[column])

    def summed_up(self, days: Sequence[Row[Any]], rows: FromClause) -> FromClause:
        """Return rows of days, as they were read, to select from: they are few, where the rows may be millions."""
        columns = list(self.days_of(rows).selected_columns)
        types = [Numeric() if isinstance(column.type, Integer) else column.type for column in columns]  # Sums of many.
        values = zip(*days, strict=True) if days else ((),) * len(columns)
        arrays = [cast(list(of), ARRAY(type_)) for of, type_ in zip(values, types, strict=True)]
        named = [sql_column(column.name, column.type) for column in columns]
        return func.unnest(*arrays).table_valued(*named).render_derived()

    def days(self, rows: FromClause) -> ColumnElement[Any]:
        """Return the number of days with rows."""
        assert self.time is not None  # noqa: S101 - else refused
        if [column.name for column in self.table.primary_key] == [self.time.name]:
            return func.count()
        return func.count(distinct(rows.c[self.time.name]))

    def read(self, row: RowMapping, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of measures in a row; whole numbers as such, which Postgres sums up to numerics."""
        return {name: int(row[name]) if name in self._whole and row[name] is not None else row[name] for name in names}

    @cached_property
    def _whole(self) -> frozenset[str]:
        """Names of the measures that are whole numbers."""
        return frozenset(
            name for name in self.page.measures if isinstance(self.expression(name, self.table).type, Integer)
        )

    # Groups

    def over_time(self, rows: FromClause, start: ColumnElement[Any], names: Iterable[str]) -> Select[Any]:
        """Return a select of measures by the start of the step, in order."""
        return select(start.label("_start"), *self.measures(rows, names)).group_by(start).order_by(start)

    def ranked(self, rows: FromClause, chart: Ranked, order: str, names: Iterable[str]) -> Select[Any]:
        """Return a select of values and measures, the highest first."""
        # Of values of another table, sums of its key are joined with it, not every row.
        keys = {None if name in rows.c else self._reference(name)[0].name for name in chart.columns}
        if len(keys) == 1 and (key := keys.pop()) and all(map(self.is_summed_up, (order, *names))):
            calls = [call for name in (order, *names) for call in self.page.measure(name).calls]
            rows = self._partials(calls, rows, key).subquery()
        source, by = rows, []
        for name in chart.columns:
            if name in rows.c:
                by.append(rows.c[name])
                continue
            own, target = self._reference(name)
            if target.table not in [column.table for column in by]:
                source = source.join(target.table, rows.c[own.name] == target)
            by.append(self.column(name))
        labels = [column.label(f"_{place}") for place, column in enumerate(by)]
        found = select(*labels, *self.measures(rows, [order, *names])).select_from(source).group_by(*by)
        return found.order_by(self.expression(order, rows).desc().nulls_last(), *by)

    def recurring(self, rows: FromClause, chart: Recurring, names: Iterable[str]) -> Select[Any]:
        """Return a select of measures by the number of a part of the time, in order: weekdays from 1 for Monday."""
        assert self.time is not None  # noqa: S101 - else refused
        at: ColumnElement[Any] = rows.c[self.time.name]
        at = func.timezone("UTC", at) if self.has_moments else at
        place = extract("isodow" if chart.part == "weekday" else chart.part, at).cast(Integer)
        return (
            select(place.label("_place"), *self.measures(rows, names))
            .where(place.is_not(None))
            .group_by(place)
            .order_by(place)
        )

    # What cannot be

    def _refuse(self) -> None:
        where = f"dataset {self.dataset.name}: page"
        if self.time is not None and not isinstance(self.time.type, Date | DateTime):
            raise DeclarationError(f"{where}: time names {self.time.name}, which is neither a day nor a moment")
        for name in self.page.choices:
            if not isinstance(self.column(name).type, String | Integer):
                raise DeclarationError(
                    f"{where}: of {name} no value can be chosen, as it is neither text nor a whole number"
                )
        for name in self.page.measures:
            self._refuse_measure(f"{where}: measure {name}", self.page.measure(name), name)
        charts = self.page.charts.values()
        shown = [column for chart in charts if isinstance(chart, Ranked) for column in chart.columns]
        shown += [chart.of for chart in charts if isinstance(chart, Frequency)]
        shown += [each for name in self.page.measures if (each := self.page.measure(name).each)]
        for name in (*self.page.choices, *shown):
            if "." in name:
                self._reference(name)
            if self.column(name).info.get("personal"):
                raise DeclarationError(f"{where}: {name} has personal data, which no page shows")
        try:
            self.rows(dict.fromkeys(self.page.choices, ()))
        except (AttributeError, KeyError) as error:
            raise DeclarationError(
                f"{where}: {self.page.of} reads {error.args[0]}, which a page cannot read anew"
            ) from error
        for name, chart in self.page.charts.items():
            self._refuse_chart(f"{where}: chart {name}", chart)

    def _refuse_measure(self, where: str, measure: Measure, name: str) -> None:
        for function, column in measure.calls:
            if function in ("sum", "avg") and not isinstance(self.table.c[column].type, Integer | Numeric):
                raise DeclarationError(f"{where}: {function}({column}) cannot be, as {column} is not a number")
        try:
            element = self.expression(name, self.table)
        except (AttributeError, KeyError) as error:
            raise DeclarationError(
                f"{where}: its function names {error.args[0]}, which {self.table.name} lacks"
            ) from error
        if not isinstance(element, ColumnElement) or isinstance(element.type, NullType):
            raise DeclarationError(f"{where}: its function returns {element!r}; it takes an expression with a type")
        if personal := [column.name for column in _columns(element) if column.info.get("personal")]:
            raise DeclarationError(f"{where}: {personal[0]} has personal data, which no page shows")
        if COVERAGE in measure.noted and (self.time is None or self.has_moments):
            raise DeclarationError(f"{where}: {{{COVERAGE}}} is of pages over days")

    def _refuse_chart(self, where: str, chart: OverTime | Ranked | Recurring | Frequency) -> None:
        if isinstance(chart, OverTime | Recurring) and self.time is None:
            raise DeclarationError(f"{where} is over time, and {self.table.name} has neither day nor moment")
        if isinstance(chart, Recurring) and chart.part == "hour" and not self.has_moments:
            raise DeclarationError(f"{where} is by hour, and {self.time} is a day")
        drawn = (*chart.drawn, *(chart.bands if isinstance(chart, OverTime) else ()))
        if other := [name for name in drawn if not self.is_number(name)]:
            raise DeclarationError(f"{where} draws {other[0]}, which is not a number")
        lines = (*chart.lines, *chart.dotted) if isinstance(chart, OverTime) else chart.drawn
        for together in (lines, chart.drawn if not isinstance(chart, OverTime) else chart.bars):
            units = {unit_of(self.dataset, self.page, name) for name in together}
            if len(units) > 1:
                said = " and ".join(sorted(unit or "no unit" for unit in units))
                raise DeclarationError(f"{where} draws {said} along one axis")


def is_telling(dataset: Dataset, tables: Tables, computed: Computed) -> bool:
    """True if the declared chart of an aggregate or a view says something.

    Numbers that the platform gave to keys say nothing, nor does what follows from the group alone: the week of a day only goes
    up and down with the calendar.
    """
    if {one.surrogate for one in dataset.aggregates}.intersection(computed.chart):
        return False
    rows = tables.rows(computed)
    key = computed.key if isinstance(computed, Aggregate) else ()
    if not isinstance(rows, Select) or is_aggregating(y := rows.selected_columns[computed.chart[1]]):
        return True
    of_key = {part for name in key for part in _columns(rows.selected_columns[name])}
    return not _columns(y) or not of_key.issuperset(_columns(y))


def ungrouped(rows: Select[Any], table: Table) -> Select[Any]:
    """Return the same select where each group is known to be one row, without grouping it, which takes half of the time.

    Args:
        rows: a select with groups; it is as it was if it has more of them than functions of one value.
        table: with its columns, which have their types.
    """
    unknown = []

    def of_one_value(element: Any, **_: Any) -> Any:
        condition = None
        if isinstance(element, FunctionFilter):
            condition, element = element.criterion, element.func
        if (name := name_of(element)) not in AGGREGATES:
            return None
        value, *others = element.clauses
        if name not in FUNCTIONS or others or isinstance(value, UnaryExpression):
            unknown.append(name)
            return element
        if name == "count":
            counted = [] if str(value) == "*" else [value.is_not(None)]
            counted += [] if condition is None else [condition]
            return case((and_(true(), *counted), 1), else_=0)
        return value if condition is None else case((condition, value))

    columns = [
        visitors.replacement_traverse(bare(column), {}, of_one_value).cast(table.c[column.name].type).label(column.name)
        for column in rows.selected_columns
    ]
    if unknown or rows._having_criteria:
        return rows
    return rows.with_only_columns(*columns, maintain_column_froms=True).group_by(None)


def _columns(element: ColumnElement[Any]) -> set[Column[Any]]:
    return {part for part in visitors.iterate(element) if isinstance(part, Column)}


def _shown(table: FromClause) -> list[ColumnElement[Any]]:
    """The columns without personal data: those who see the page may not be allowed to read others."""
    return [column for column in table.c if not getattr(column, "info", {}).get("personal")]


def _of_floats(function: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a sum or a mean of floats; large ones are summed as numerics, as their sum may be none: that takes its time."""
    is_large = func.abs(column) >= LARGE
    many = func.coalesce(func.sum(column).filter(not_(is_large)), 0.0)
    few = func.sum(column.cast(Numeric)).filter(is_large)
    count = func.nullif(func.count(column), 0)
    if function == "sum":
        return case((count.is_not(None), many.cast(Numeric) + func.coalesce(few, 0))).cast(Numeric)
    # A quotient that is nearer to 0 than any float would be an error.
    mean = case((func.abs(many) < SMALLEST, as_double(many.cast(Numeric) / count)), else_=many / count)
    return (mean + func.coalesce(as_double(few / count), 0.0)).cast(Double)


def _partial(function: str, column: str) -> str:
    """Return the name of a call's column in rows of days."""
    return f"_{function}_{column}"


def _call_of(rows: FromClause, function: str, column: str) -> ColumnElement[Any]:
    """Return a formula's function over rows, or over days that sum them up."""
    days = rows.c.get(_partial(function, column))
    if days is None:
        return _call(function, rows.c[column] if column else None)
    if function in ("min", "max"):
        return getattr(func, function)(days)  # type: ignore[no-any-return]
    is_whole = isinstance(days.type, Integer)
    return func.coalesce(func.sum(days), 0, type_=Integer) if is_whole else func.sum(days, type_=Numeric)


def _call(function: str, column: ColumnElement[Any] | None) -> ColumnElement[Any]:
    """Return a formula's function of a column."""
    if column is None:
        return func.count()
    if function == "distinct":
        return func.count(distinct(column))
    if function in ("sum", "avg"):
        if isinstance(column.type, Float):
            return _of_floats(function, column)
        if isinstance(column.type, Integer) and function == "sum":
            return func.coalesce(func.sum(column, type_=Integer), 0, type_=Integer)
        return getattr(func, function)(column, type_=Numeric)  # type: ignore[no-any-return]
    return getattr(func, function)(column)  # type: ignore[no-any-return]


def unit_of(dataset: Dataset, page: Page, name: str) -> str | None:
    """Return the unit of a measure: its own, or that of the column of which it is a sum, a mean or an extreme."""
    measure = page.measure(name)
    if measure.unit is not None or len(measure.calls) != 1:
        return measure.unit
    function, column = measure.calls[0]
    if function in ("count", "distinct"):
        return None
    if page.of is None:
        return next(one.unit for one in dataset.columns if one.name == column)
    described = next(one for one in dataset.computed if one.name == page.of).columns.get(column, ())
    return described[1] if len(described) > 1 else None
