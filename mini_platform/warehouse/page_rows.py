"""Queries of a declared page: its filtered rows, its measures and its groups, as SQLAlchemy expressions.

Here too: refusing pages whose mistakes only column types and foreign keys reveal. Not here: the declaration of a page
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

MERGEABLE = ("count", "sum", "min", "max")
"""Aggregate functions whose result over all rows follows from their results over disjoint parts of the rows."""
LARGE = 1e290
"""Floats below this can be summed as floats: no table has enough rows for their sum to overflow."""

Choice = Mapping[str, Sequence[Any]]
"""Column of a page -> its chosen values."""


class Tables(Protocol):
    """The tables of a dataset, as far as a page needs them; implemented in `tables/`."""

    @property
    def production(self) -> Table:
        """The production table, which has the valid rows."""

    @property
    def aggregates(self) -> dict[str, Table]:
        """Tables of the aggregates, by name."""

    @property
    def views(self) -> dict[str, Table]:
        """Views, by name."""

    @property
    def groups(self) -> dict[str, Mapping[str, Column[Any]]]:
        """Aggregates that can be computed group by group -> their key columns -> the production columns behind these."""

    def rows(self, computed: Computed) -> Select[Any]:
        """Return the select of an aggregate or a view."""


class PageRows:
    """Queries over the rows that the page of a dataset shows.

    Attributes:
        dataset: dataset that the page belongs to.
        page: declaration of the page.
        table: table that the page shows.
        time: column by which a span is chosen; None where the table has neither a date nor a timestamp.
    """

    def __init__(self, dataset: Dataset, page: Page, tables: Tables) -> None:
        """Look up the tables of the dataset and check the page against them.

        Raises:
            DeclarationError: the page is not possible with these columns.
        """
        self.dataset, self.page, self._tables = dataset, page, tables
        computed = tables.aggregates | tables.views
        self.table: Table = computed[page.of] if page.of else tables.production
        self.time = self._time()
        self._check()

    # Columns

    def column(self, name: str) -> Column[Any]:
        """Return a column named by the page: one of its table, of a table that this refers to, else of production."""
        if name in self.table.c:
            return self.table.c[name]
        other, _, column = name.rpartition(".")
        return self._tables.aggregates[other].c[column] if other else self._tables.production.c[name]

    def is_number(self, name: str) -> bool:
        """True if a measure is a number."""
        return isinstance(self.expression(name, self.table).type, Integer | Numeric)

    def is_amount(self, name: str) -> bool:
        """True if a measure is a sum or a count, so that parts of the rows have parts of it."""
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
        """True if the span is one of timestamps, not of days."""
        return self.time is not None and isinstance(self.time.type, DateTime)

    @cached_property
    def is_row_by_row(self) -> bool:
        """True if the table has one row for each row of production: it is production, or has the same key."""
        aggregate = next((item for item in self.dataset.aggregates if item.name == self.page.of), None)
        return self.page.of is None or (aggregate is not None and aggregate.key == self.dataset.key)

    def stored_as(self, name: str) -> str | None:
        """Return the name of the production column that a column of the page passes on; None where it is computed."""
        column: Column[Any] | None = self.column(name)
        aggregates = {self._tables.aggregates[aggregate.name]: aggregate for aggregate in self.dataset.aggregates}
        while column is not None and column.table in aggregates:
            selected = self._tables.rows(aggregates[column.table]).selected_columns.get(column.name)
            column = None if selected is None else plain_column(selected)
        return column.name if column is not None and column.table is self._tables.production else None

    def _time(self) -> Column[Any] | None:
        if self.page.time:
            return self.table.c[self.page.time]
        columns = sorted(self.table.c, key=lambda column: not column.primary_key)
        return next((c for c in columns if isinstance(c.type, Date | DateTime) and not c.name.startswith("_")), None)

    def _reference(self, name: str) -> tuple[Column[Any], Column[Any]]:
        """Return the foreign key column that leads to the table of a named column, and the column that it refers to."""
        target = self.column(name).table
        for key in self.table.foreign_keys:
            if key.column.table is target:
                return key.parent, key.column
        raise DeclarationError(
            f"dataset {self.dataset.name}: page: {name} is a column of another table, to which {self.table.name} does not "
            "refer by a surrogate or a key"
        )

    # Rows

    def rows(self, chosen: Choice, span: tuple[Any, Any] | None = None) -> Subquery:
        """Return the rows with these values and within this span."""
        # A filter on a production column that the aggregate does not have cannot be applied to the aggregate's table: the
        # aggregate is computed once more over the matching rows of production. Where the chosen values leave a single row
        # per group, even GROUP BY is dropped. All other filters are applied to the result, those on columns of referenced
        # tables through the foreign key.
        unaggregated = [name for name in chosen if "." not in name and name not in self.table.c]
        table: FromClause = self.table
        if unaggregated:
            production = self._tables.production
            source = select(*_columns_to_show(production)).where(
                *(production.c[name].in_(chosen[name]) for name in unaggregated)
            )
            aggregate = next(item for item in self.dataset.aggregates if item.name == self.page.of)
            recomputed = aggregate.select(source.subquery())
            if self._has_one_row_each(aggregate, [name for name in unaggregated if len(chosen[name]) == 1]):
                recomputed = ungrouped(recomputed, self.table)
            table = recomputed.subquery()
        selected = select(*_columns_to_show(table))
        for name, values in chosen.items():
            if name in table.c:
                selected = selected.where(table.c[name].in_(values))
            elif name not in unaggregated:
                own, target = self._reference(name)
                keys = select(target).where(self.column(name).in_(values))
                selected = selected.where(table.c[own.name].in_(keys))
        if span is not None and self.time is not None:
            selected = selected.where(table.c[self.time.name].between(*span))
        return selected.subquery("rows")

    def _has_one_row_each(self, aggregate: Aggregate, pinned: Sequence[str]) -> bool:
        """True if each group of an aggregate is one row of production, as the group and the pinned columns contain its key."""
        groups = self._tables.groups.get(aggregate.name)
        return groups is not None and {column.name for column in groups.values()}.union(pinned) >= set(self.dataset.key)

    def time_range(self, chosen: Choice) -> Select[Any]:
        """Return a select of the first and last time of the rows with these values; of their number if they have no time."""
        rows = self.rows(chosen) if chosen else self.table
        if self.time is None:
            return select(func.nullif(func.count(), 0), func.count()).select_from(rows)
        return select(func.min(rows.c[self.time.name]), func.max(rows.c[self.time.name]))

    def values(self, name: str) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any] | None]:
        """Return a source with each value of a column once, its column of values, and its column of row counts or None."""
        column = self.column(name)
        for aggregate in self.dataset.aggregates:
            table = self._tables.aggregates[aggregate.name]
            groups = self._tables.groups.get(aggregate.name, {})
            if len(aggregate.key) == 1 and any(
                column is candidate for candidate in (table.c[aggregate.key[0]], groups.get(aggregate.key[0]))
            ):
                selected = self._tables.rows(aggregate).selected_columns
                counts = (table.c[element.name] for element in selected if str(bare(element)) == "count(*)")
                return table, table.c[aggregate.key[0]], next(counts, None)
        grouped = select(column.label("value"), func.count().label("rows")).where(column.is_not(None)).group_by(column)
        counted = grouped.subquery()
        return counted, counted.c.value, counted.c.rows

    # Measures

    def expression(self, name: str, rows: FromClause) -> ColumnElement[Any]:
        """Return the expression of a measure over rows."""
        measure = self.page.measure(name)
        if not isinstance(measure.value, str):
            return measure.value(rows)
        first, *second = (_call_over(rows, function, column) for function, column in measure.calls)
        return first.cast(Numeric) / func.nullif(second[0].cast(Numeric), 0) if second else first

    def measures(self, rows: FromClause, names: Iterable[str]) -> list[ColumnElement[Any]]:
        """Return the expressions of measures over rows, labelled with their names."""
        return [self.expression(name, rows).label(name) for name in dict.fromkeys(names)]

    def count(self, rows: FromClause) -> ColumnElement[Any]:
        """Return the number of rows."""
        return _call_over(rows, "count", "")

    def per_value(self, rows: FromClause, column: str, most: int = 1) -> Select[Any]:
        """Return a select of the frequency distribution of a column's values.

        It has one row per number of rows that values have (`most` stands for that many or more), with the number of such
        values as `values_`. Each row also has the means, over all values, of the measures that are declared per value.
        """
        names = [name for name in self.page.measures if self.page.measure(name).each == column]
        grouped = rows.c[column]
        selected = select(
            grouped.is_not(None).label("is_value"),
            func.least(func.count(), most).label("rows"),
            *self.measures(rows, names),
        )
        inner = selected.group_by(grouped).subquery()
        means = []
        for name in names:
            value = inner.c[name]
            total = func.sum(_call("sum", value).cast(Numeric)).over()
            count = func.sum(func.count(value)).over()
            means.append(as_double(total / func.nullif(count, 0)).label(name))
        groups = inner.c.is_value, inner.c.rows
        return select(*groups, func.count().label("values_"), *means).group_by(*groups).order_by(inner.c.rows)

    @cached_property
    def by_day(self) -> tuple[tuple[str, str], ...]:
        """Function calls whose daily results are enough to compute measures of any span; none without days or a chart by time.

        A count over years is the sum of the counts of its days. Means and distinct counts cannot be merged like that.
        """
        over_days = any(isinstance(chart, OverTime | Recurring) for chart in self.page.charts.values())
        if self.time is None or self.has_moments or not over_days:
            return ()
        summed_up = [self.page.measure(name) for name in self.page.measures if self.is_summed_up(name)]
        return ("count", ""), *(call for measure in summed_up for call in measure.calls)

    def is_summed_up(self, name: str) -> bool:
        """True if a measure can be computed from its results for parts of the rows, such as days."""
        measure = self.page.measure(name)
        return (
            isinstance(measure.value, str) and not measure.each and all(call[0] in MERGEABLE for call in measure.calls)
        )

    def days_of(self, rows: FromClause) -> Select[Any]:
        """Return a select of partial results per day, from which the measures of any span follow."""
        assert self.time is not None  # noqa: S101 - else by_day is empty
        return self._partial_rows(self.by_day, rows, self.time.name)

    @staticmethod
    def _partial_rows(calls: Iterable[tuple[str, str]], rows: FromClause, column: str) -> Select[Any]:
        """Return a select of the results of calls for each value of a column."""
        named = [_call_over(rows, *call).label(_partial_name(*call)) for call in dict.fromkeys(calls)]
        return select(rows.c[column], *named).group_by(rows.c[column])

    def summed_up(self, days: Sequence[Row[Any]], rows: FromClause) -> FromClause:
        """Return the rows of `days_of`, once read, as a source to select from: a few days instead of millions of rows."""
        columns = list(self.days_of(rows).selected_columns)
        types = [Numeric() if isinstance(column.type, Integer) else column.type for column in columns]  # Sums of many.
        values = zip(*days, strict=True) if days else ((),) * len(columns)
        arrays = [cast(list(column_values), ARRAY(type_)) for column_values, type_ in zip(values, types, strict=True)]
        named = [sql_column(column.name, column.type) for column in columns]
        return func.unnest(*arrays).table_valued(*named).render_derived()

    def days(self, rows: FromClause) -> ColumnElement[Any]:
        """Return the number of days with rows."""
        assert self.time is not None  # noqa: S101 - else refused
        if [column.name for column in self.table.primary_key] == [self.time.name]:
            return func.count()
        return func.count(distinct(rows.c[self.time.name]))

    def read(self, row: RowMapping, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of measures in a row; integers as int, although Postgres sums them up as numerics."""
        return {
            name: int(row[name]) if name in self._integer_measures and row[name] is not None else row[name]
            for name in names
        }

    @cached_property
    def _integer_measures(self) -> frozenset[str]:
        """Names of the measures that are integers."""
        return frozenset(
            name for name in self.page.measures if isinstance(self.expression(name, self.table).type, Integer)
        )

    # Groups

    def over_time(self, rows: FromClause, start: ColumnElement[Any], names: Iterable[str]) -> Select[Any]:
        """Return a select of measures by the start of each step, in order."""
        return select(start.label("_start"), *self.measures(rows, names)).group_by(start).order_by(start)

    def ranked(self, rows: FromClause, chart: Ranked, order: str, names: Iterable[str]) -> Select[Any]:
        """Return a select of values and measures, the highest first."""
        # Values of another table: rows are summed up by its key first, and only these sums are joined with it.
        keys = {None if name in rows.c else self._reference(name)[0].name for name in chart.columns}
        if len(keys) == 1 and (key := keys.pop()) and all(map(self.is_summed_up, (order, *names))):
            calls = [call for name in (order, *names) for call in self.page.measure(name).calls]
            rows = self._partial_rows(calls, rows, key).subquery()
        source, groupings = rows, []
        for name in chart.columns:
            if name in rows.c:
                groupings.append(rows.c[name])
                continue
            own, target = self._reference(name)
            if target.table not in [column.table for column in groupings]:
                source = source.join(target.table, rows.c[own.name] == target)
            groupings.append(self.column(name))
        labels = [column.label(f"_{place}") for place, column in enumerate(groupings)]
        selected = select(*labels, *self.measures(rows, [order, *names])).select_from(source).group_by(*groupings)
        return selected.order_by(self.expression(order, rows).desc().nulls_last(), *groupings)

    def recurring(self, rows: FromClause, chart: Recurring, names: Iterable[str]) -> Select[Any]:
        """Return a select of measures by a recurring part of the time as a number, in order: weekdays from 1 for Monday."""
        assert self.time is not None  # noqa: S101 - else refused
        moment: ColumnElement[Any] = rows.c[self.time.name]
        moment = func.timezone("UTC", moment) if self.has_moments else moment
        position = extract("isodow" if chart.part == "weekday" else chart.part, moment).cast(Integer)
        return (
            select(position.label("_place"), *self.measures(rows, names))
            .where(position.is_not(None))
            .group_by(position)
            .order_by(position)
        )

    # Checks

    def _check(self) -> None:
        where = f"dataset {self.dataset.name}: page"
        if self.time is not None and not isinstance(self.time.type, Date | DateTime):
            raise DeclarationError(f"{where}: time names {self.time.name}, which is neither a date nor a timestamp")
        for name in self.page.choices:
            if not isinstance(self.column(name).type, String | Integer):
                raise DeclarationError(f"{where}: {name} cannot be a filter, as it is neither text nor a whole number")
        for name in self.page.measures:
            self._check_measure(f"{where}: measure {name}", self.page.measure(name), name)
        charts = self.page.charts.values()
        grouped = [column for chart in charts if isinstance(chart, Ranked) for column in chart.columns]
        grouped += [chart.of for chart in charts if isinstance(chart, Frequency)]
        grouped += [each for name in self.page.measures if (each := self.page.measure(name).each)]
        for name in (*self.page.choices, *grouped):
            if "." in name:
                self._reference(name)
            if self.column(name).info.get("personal"):
                raise DeclarationError(f"{where}: {name} has personal data, which pages do not show")
        try:
            self.rows(dict.fromkeys(self.page.choices, ()))
        except (AttributeError, KeyError) as error:
            raise DeclarationError(
                f"{where}: {self.page.of} reads {error.args[0]}, which is not available when it is computed for a filtered page"
            ) from error
        for name, chart in self.page.charts.items():
            self._check_chart(f"{where}: chart {name}", chart)

    def _check_measure(self, where: str, measure: Measure, name: str) -> None:
        for function, column in measure.calls:
            if function in ("sum", "avg") and not isinstance(self.table.c[column].type, Integer | Numeric):
                raise DeclarationError(f"{where}: {function}({column}) is not possible, as {column} is not a number")
        try:
            element = self.expression(name, self.table)
        except (AttributeError, KeyError) as error:
            raise DeclarationError(
                f"{where}: its function names {error.args[0]}, which {self.table.name} lacks"
            ) from error
        if not isinstance(element, ColumnElement) or isinstance(element.type, NullType):
            raise DeclarationError(f"{where}: its function returns {element!r}, but must return a typed SQL expression")
        if personal := [column.name for column in _columns(element) if column.info.get("personal")]:
            raise DeclarationError(f"{where}: {personal[0]} has personal data, which pages do not show")
        if COVERAGE in measure.note_names and (self.time is None or self.has_moments):
            raise DeclarationError(f"{where}: {{{COVERAGE}}} is only for pages over days")

    def _check_chart(self, where: str, chart: OverTime | Ranked | Recurring | Frequency) -> None:
        if isinstance(chart, OverTime | Recurring) and self.time is None:
            raise DeclarationError(f"{where} is over time, but {self.table.name} has neither a date nor a timestamp")
        if isinstance(chart, Recurring) and chart.part == "hour" and not self.has_moments:
            raise DeclarationError(f"{where} is by hour, but {self.time} is a date")
        drawn = (*chart.drawn, *(chart.bands if isinstance(chart, OverTime) else ()))
        if not_numbers := [name for name in drawn if not self.is_number(name)]:
            raise DeclarationError(f"{where} draws {not_numbers[0]}, which is not a number")
        lines = (*chart.lines, *chart.dotted) if isinstance(chart, OverTime) else chart.drawn
        for names in (lines, chart.drawn if not isinstance(chart, OverTime) else chart.bars):
            units = {unit_of(self.dataset, self.page, name) for name in names}
            if len(units) > 1:
                listed = " and ".join(sorted(unit or "no unit" for unit in units))
                raise DeclarationError(f"{where} draws {listed} on one axis")


def is_informative(dataset: Dataset, tables: Tables, computed: Computed) -> bool:
    """True if the declared chart of an aggregate or a view is worth drawing.

    A chart of surrogates is not, nor one of values that follow from the group alone: the week of a day only rises and falls
    with the calendar.
    """
    if not computed.chart or {aggregate.surrogate for aggregate in dataset.aggregates}.intersection(computed.chart):
        return False
    rows = tables.rows(computed)
    key = computed.key if isinstance(computed, Aggregate) else ()
    if not isinstance(rows, Select) or is_aggregating(y := rows.selected_columns[computed.chart[1]]):
        return True
    key_columns = {part for name in key for part in _columns(rows.selected_columns[name])}
    return not _columns(y) or not key_columns.issuperset(_columns(y))


def ungrouped(rows: Select[Any], table: Table) -> Select[Any]:
    """Return a select whose groups are known to be single rows without its GROUP BY, which takes half of the time.

    Args:
        rows: select with groups; returned unchanged if it has HAVING, or aggregates other than `FUNCTIONS` of one value.
        table: table whose columns have the types of the selected ones.
    """
    # Over a single row, each aggregate can be replaced by an expression of its argument: count by 0 or 1, all others by the
    # value itself (NULL if their FILTER leaves the row out). Casts keep the types that the aggregates had.
    unsupported = []

    def over_one_row(element: Any, **_: Any) -> Any:
        condition = None
        if isinstance(element, FunctionFilter):
            condition, element = element.criterion, element.func
        if (name := name_of(element)) not in AGGREGATES:
            return None
        value, *options = element.clauses
        if name not in FUNCTIONS or options or isinstance(value, UnaryExpression):
            unsupported.append(name)
            return element
        if name == "count":
            conditions = [] if str(value) == "*" else [value.is_not(None)]
            conditions += [] if condition is None else [condition]
            return case((and_(true(), *conditions), 1), else_=0)
        return value if condition is None else case((condition, value))

    columns = [
        visitors.replacement_traverse(bare(column), {}, over_one_row).cast(table.c[column.name].type).label(column.name)
        for column in rows.selected_columns
    ]
    if unsupported or rows._having_criteria:
        return rows
    return rows.with_only_columns(*columns, maintain_column_froms=True).group_by(None)


def _columns(element: ColumnElement[Any]) -> set[Column[Any]]:
    return {part for part in visitors.iterate(element) if isinstance(part, Column)}


def _columns_to_show(table: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns without personal data: viewers of the page may not be allowed to read others."""
    return [column for column in table.c if not getattr(column, "info", {}).get("personal")]


def _aggregate_floats(function: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a sum or a mean of floats. Large ones are summed as numerics, which is slow, as their sum may overflow."""
    is_large = func.abs(column) >= LARGE
    ordinary = func.coalesce(func.sum(column).filter(not_(is_large)), 0.0)
    large = func.sum(column.cast(Numeric)).filter(is_large)
    count = func.nullif(func.count(column), 0)
    if function == "sum":
        return case((count.is_not(None), ordinary.cast(Numeric) + func.coalesce(large, 0))).cast(Numeric)
    # Postgres raises an error for a quotient that underflows.
    mean = case((func.abs(ordinary) < SMALLEST, as_double(ordinary.cast(Numeric) / count)), else_=ordinary / count)
    return (mean + func.coalesce(as_double(large / count), 0.0)).cast(Double)


def _partial_name(function: str, column: str) -> str:
    """Return the name of the column with the partial results of a call."""
    return f"_{function}_{column}"


def _call_over(rows: FromClause, function: str, column: str) -> ColumnElement[Any]:
    """Return a formula's function over rows, or over partial results that stand for them."""
    days = rows.c.get(_partial_name(function, column))
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
            return _aggregate_floats(function, column)
        if isinstance(column.type, Integer) and function == "sum":
            return func.coalesce(func.sum(column, type_=Integer), 0, type_=Integer)
        return getattr(func, function)(column, type_=Numeric)  # type: ignore[no-any-return]
    return getattr(func, function)(column)  # type: ignore[no-any-return]


def unit_of(dataset: Dataset, page: Page, name: str) -> str | None:
    """Return the unit of a measure: its own, or that of the column whose sum, mean or extreme it is."""
    measure = page.measure(name)
    if measure.unit is not None or len(measure.calls) != 1:
        return measure.unit
    function, column = measure.calls[0]
    if function in ("count", "distinct"):
        return None
    if page.of is None:
        return next(item.unit for item in dataset.columns if item.name == column)
    described = next(item for item in dataset.computed if item.name == page.of).columns.get(column, ())
    return described[1] if len(described) > 1 else None
