"""Pages: what the dashboard shows of a dataset, declared beside its aggregates.

Here: the options of a page, and the refusal of those that name unknown columns or measures. Not here: SQL
(`warehouse/page_rows.py`, which also refuses what depends on the types of columns), HTTP and HTML (`web/pages/`).

A page is about the rows of one table. Its measures aggregate these rows; figures, charts and tables show measures, by name.
"""

from __future__ import annotations

import re
import string
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mini_platform.declare.columns import DeclarationError, nearest, report_bad_arguments, text_tuple

if typing.TYPE_CHECKING:
    from sqlalchemy import ColumnElement

FUNCTIONS = ("count", "sum", "avg", "min", "max", "distinct")
"""Functions of a measure over a column: `distinct` counts its different values, `count()` the rows."""
CALL_PATTERN = rf"({'|'.join(FUNCTIONS)})\((\w*)\)"
FORMULA = re.compile(rf"\s*{CALL_PATTERN}\s*(?:/\s*{CALL_PATTERN}\s*)?")
CHART_NAME = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
"""Pattern of names of charts, which are ids of elements, and parts of addresses."""
MEASURE_NAME = r"[A-Za-z]\w{0,59}"
"""Pattern of names of measures, which are names of columns in SQL."""
PAGE_IDS = frozenset(("by", "choice", "figures", "from", "live", "main", "nav-datasets", "to"))
"""Ids of elements that every page has."""
PARAMETERS = frozenset(("from", "to", "by"))
"""Parameters of the address of every page."""
COVERAGE = "coverage"
"""A name that a note can use besides measures: the number of days with rows, and of days without."""
MAX_COMPARED = 5
"""Most values that are shown side by side: the number of colours."""

Part = Literal["hour", "weekday", "month"]
"""A recurring part of a time."""


@report_bad_arguments
@dataclass(frozen=True)
class Measure:
    """A number that is aggregated from rows.

    Attributes:
        value: `count()`, or `sum`, `avg`, `min`, `max`, `count` or `distinct` of a column, as in `sum(price)`, or one of them
            divided by another; or a function of the table that returns an aggregating SQLAlchemy expression with a type.
        label: name of the measure where it is shown; by default its key in `measures`, as words.
        unit: unit of its values, `$` for money; by default that of the column in a sum, a mean or an extreme.
        digits: number of digits after the point; by default as many as are significant.
        note: text below the number of a figure; `{name}` in it is the value of another measure, `{name:%}` as a percentage,
            `{name:visit}` with its noun, `{coverage}` the number of days with rows. Of two texts the second is shown while
            nothing is compared.
        each: column by whose values the measure is first computed separately; the number is the mean of the results that
            are not empty.
    """

    value: str | Callable[[Any], ColumnElement[Any]]
    label: str | None = None
    unit: str | None = None
    digits: int | None = None
    note: str | tuple[str, str] | None = None
    each: str | None = None

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        """Return the functions and columns of a formula, the divisor last; empty if the value is a function of the table."""
        match = FORMULA.fullmatch(self.value) if isinstance(self.value, str) else None
        parts = match.groups() if match else ()
        return tuple((parts[i], parts[i + 1]) for i in range(0, len(parts), 2) if parts[i])

    @property
    def value_column(self) -> str | None:
        """Return the column whose different values are counted, or computed separately; None if the measure is of rows."""
        if self.each:
            return self.each
        return self.calls[0][1] if len(self.calls) == 1 and self.calls[0][0] == "distinct" else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return its two notes, the one while values are compared and the one while none are; empty without a note."""
        return (self.note, self.note) if isinstance(self.note, str) else tuple(self.note or ())

    @property
    def note_names(self) -> set[str]:
        """Return the names in its notes."""
        return {name for note in self.notes for _, name, _, _ in string.Formatter().parse(note) if name is not None}


class _Chart:
    """The base of charts."""

    def __post_init__(self) -> None:
        """Refuse measures that are not texts.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        for option in {"lines", "dotted", "bars", "table"} & vars(self).keys():
            object.__setattr__(self, option, text_tuple(f"{type(self).__name__}: {option}", getattr(self, option)))


@report_bad_arguments
@dataclass(frozen=True)
class OverTime(_Chart):
    """A chart over time: measures of each day, week, month, quarter or year, or of the shortest step that the span allows.

    The axis of sums and counts begins at 0. Steps of which only a part is shown are omitted from their lines and pale as bars;
    the table has them.

    Attributes:
        lines: measures that are drawn as lines; all have the same unit.
        band: area around the first line: between two measures, or a single measure to either side of the line.
        dotted: measures that are drawn as thin dotted lines besides the others.
        bars: measures that are drawn as bars, below the lines if there are any; all have the same unit.
        table: measures in the table below the chart; by default those that are drawn.
        title: title of the chart; by default the labels of its measures.
        caption: description of the chart in a few words, shown after the span.
    """

    lines: tuple[str, ...] = ()
    band: str | tuple[str, str] | None = None
    dotted: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    title: str | None = None
    caption: str | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """Return the measures of the band."""
        return (self.band,) if isinstance(self.band, str) else tuple(self.band or ())

    @property
    def drawn(self) -> tuple[str, ...]:
        """Return the measures that are drawn, except the band's."""
        return (*self.lines, *self.dotted, *self.bars)


@report_bad_arguments
@dataclass(frozen=True)
class Ranked(_Chart):
    """The values of a column ranked by a measure, the highest first: as horizontal bars, or as a table.

    Attributes:
        by: column whose values are ranked; of several columns the first names a row, and the others are shown below it.
        bars: measures that are drawn as bars; without any it is a table.
        table: measures in the table; by default those that are drawn.
        order: measure by which the values are ranked; by default the first one.
        most: maximum number of values that are shown.
        label: heading of the values; by default the name of the first column.
        title: title of the chart or table; by default `By` and the column.
        caption: a sentence in which `{first}` is the value that ranks highest, and `{share}` its share of the total.
    """

    by: str | tuple[str, ...]
    bars: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    order: str | None = None
    most: int = 20
    label: str | None = None
    title: str | None = None
    caption: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns whose values are ranked."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Return the measures that are drawn."""
        return self.bars


@report_bad_arguments
@dataclass(frozen=True)
class Recurring(_Chart):
    """Measures by a recurring part of the time: bars by hour of the day, day of the week or month of the year.

    Attributes:
        part: part of the time, `hour`, `weekday` or `month`; in UTC if the time column is a timestamp.
        bars: measures that are drawn as bars.
        table: measures in the table below the chart; by default those that are drawn.
        title: title of the chart; by default `By day of the week` and the like.
        caption: a sentence about the chart; by default it names the highest bar and its value.
    """

    part: Part
    bars: tuple[str, ...]
    table: tuple[str, ...] = ()
    title: str | None = None
    caption: str | None = None

    @property
    def drawn(self) -> tuple[str, ...]:
        """Return the measures that are drawn."""
        return self.bars


@report_bad_arguments
@dataclass(frozen=True)
class Frequency(_Chart):
    """A chart of how often the values of a column occur: bars of the number of values with one row, two rows, and so on.

    Attributes:
        of: column whose values are counted.
        value: noun for one of its values, such as `guest`.
        row: noun for a row, such as `visit`.
        most: number of rows from which on all values are one bar.
        title: title of the chart; by default the nouns.
        caption: a sentence in which `{values}` is the number of values with its noun, `{again}` the share with several rows.
    """

    of: str
    value: str
    row: str
    most: int = 8
    title: str | None = None
    caption: str | None = None
    drawn = table = ()


Chart: TypeAlias = OverTime | Ranked | Recurring | Frequency


@report_bad_arguments
@dataclass(frozen=True, eq=False)
class Page:
    """The page of a dataset, at `/<name>`: figures and charts over its rows, or the rows themselves.

    Options name columns of the page's table by their name. `dim.column` is a column of an aggregate that the table refers to by
    its surrogate or key. On a page over an aggregate that reads only production, `compare` and `filters` can also name columns
    of production: the aggregate is then computed over the rows with that value.

    Attributes:
        of: aggregate or view that the page is about; by default production.
        time: column for the choice of a span; by default the first date or timestamp of the key, else of the table.
        compare: column of which up to five values can be selected, by typing a part of them; they are shown side by side.
        filters: columns for each of which one value can be selected.
        measures: measures by name; each is a `Measure` or the text of its value.
        figures: measures that are shown above the charts, in this order.
        charts: charts by name, which is the id of the element: `OverTime`, `Ranked`, `Recurring` or `Frequency`.
        empty: sentence that is shown instead of figures and charts if there are no rows.
    """

    of: str | None = None
    time: str | None = None
    compare: str | None = None
    filters: tuple[str, ...] = ()
    measures: Mapping[str, Measure | str] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    empty: str | None = None

    def __post_init__(self) -> None:
        """Refuse options with values that they do not take, and unknown names of measures.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        for option, kind in (("measures", Measure | str), ("charts", Chart)):
            values = getattr(self, option)
            if not isinstance(values, Mapping) or not all(
                isinstance(n, str) and isinstance(v, kind) for n, v in values.items()
            ):
                raise DeclarationError(f"Page: {option} is {values!r}; it takes names with their values")
        measures = {name: Measure(value) if isinstance(value, str) else value for name, value in self.measures.items()}
        object.__setattr__(self, "measures", measures)
        for option in ("filters", "figures"):
            object.__setattr__(self, option, text_tuple(f"Page: {option}", getattr(self, option)))
        for name, measure in measures.items():
            _refuse_measure(name, measure)
            self._refuse_unknown(f"Page: the note of {name}", measure.note_names - {COVERAGE})
        self._refuse_unknown("Page: figures", self.figures)
        for name, chart in self.charts.items():
            self._refuse_chart(name, chart)
        if self.is_listing and (self.of or self.compare or self.filters or self.time):
            raise DeclarationError(
                "Page: without figures and charts it lists the rows of production, each column of which can be filtered; "
                "of, time, compare and filters are for a page with figures or charts"
            )
        parameters = [parameter_of(name) for name in self.choices]
        if repeated := [name for name in parameters if parameters.count(name) > 1 or name in PARAMETERS]:
            raise DeclarationError(f"Page: two choices would have the parameter {repeated[0]} in the address")

    @property
    def is_listing(self) -> bool:
        """Return True if the page has neither figures nor charts: then it lists the rows."""
        return not self.figures and not self.charts

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the columns of which values can be selected."""
        return (*((self.compare,) if self.compare else ()), *self.filters)

    def measure(self, name: str) -> Measure:
        """Return a measure by its name."""
        measure = self.measures[name]
        assert isinstance(measure, Measure)  # noqa: S101 - made so in __post_init__
        return measure

    def label(self, name: str) -> str:
        """Return the label of a measure."""
        return self.measure(name).label or words_of(name)

    def refuse_columns(self, where: str, own_columns: set[str], referenced: set[str], filterable: set[str]) -> None:
        """Refuse options that name an unknown column.

        Args:
            where: beginning of the message, which names the page.
            own_columns: columns of the table that the page is about.
            referenced: columns of aggregates that the table may refer to, as `aggregate.column`.
            filterable: columns of production by whose values the table can be computed again.

        Raises:
            DeclarationError: a column is unknown; the sentence names the option and the column.
        """
        for option, names, known in self._columns(
            own_columns, own_columns | referenced, own_columns | referenced | filterable
        ):
            if unknown := [name for name in names if name not in known]:
                raise DeclarationError(
                    f"{where}: {option} names {unknown[0]}, which is not a column of it{nearest(unknown[0], known)}"
                )

    def _columns(
        self, own_columns: set[str], rankable: set[str], selectable: set[str]
    ) -> Iterator[tuple[str, Iterable[str], set[str]]]:
        """Yield each option that names columns, with these columns, and with those that it may name."""
        yield "time", filter(None, [self.time]), own_columns
        yield "compare", filter(None, [self.compare]), selectable
        yield "filters", self.filters, selectable
        for name in self.measures:
            measure = self.measure(name)
            yield f"measure {name}", [column for _, column in measure.calls if column], own_columns
            yield f"each of the measure {name}", filter(None, [measure.each]), own_columns
        for name, chart in self.charts.items():
            if isinstance(chart, Ranked):
                yield f"chart {name}", chart.columns, rankable
            if isinstance(chart, Frequency):
                yield f"chart {name}", [chart.of], own_columns

    def _refuse_unknown(self, where: str, names: Iterable[str]) -> None:
        if unknown := [name for name in names if name not in self.measures]:
            hint = nearest(unknown[0], self.measures)
            raise DeclarationError(f"{where} names {unknown[0]}, which is not a measure of the page{hint}")

    def _refuse_chart(self, name: str, chart: Chart) -> None:
        where = f"Page: chart {name}"
        parameters = {parameter_of(column) for column in self.choices}
        ids = PAGE_IDS | parameters | ({plural_of(parameter_of(self.compare))} if self.compare else set())
        if not re.fullmatch(CHART_NAME, name) or name in ids or name.endswith(("-figure", "-title", "-values")):
            raise DeclarationError(
                f"{where}: this cannot be its name, as it is an id in the page; use another, such as over-time"
            )
        order = (chart.order,) if isinstance(chart, Ranked) and chart.order else ()
        bands = chart.bands if isinstance(chart, OverTime) else ()
        used = (*chart.drawn, *chart.table, *bands, *order)
        self._refuse_unknown(where, used)
        if not (chart.drawn or (isinstance(chart, Ranked) and chart.table) or isinstance(chart, Frequency)):
            raise DeclarationError(f"{where} shows no measure")
        if grouped := [measure for measure in used if self.measure(measure).each]:
            raise DeclarationError(
                f"{where} shows {grouped[0]}, which is computed for each {self.measure(grouped[0]).each}: that is a figure"
            )
        if bands and (len(bands) > 2 or not isinstance(chart, OverTime) or not chart.lines):
            raise DeclarationError(f"{where}: band is {bands!r}; it takes one measure or two, around a line")
        if isinstance(chart, Recurring) and chart.part not in typing.get_args(Part):
            raise DeclarationError(f"{where}: part is {chart.part!r}; it can be {' or '.join(typing.get_args(Part))}")
        if type(limit := getattr(chart, "most", 1)) is not int or limit < 1:
            raise DeclarationError(f"{where}: most is {limit!r}; it takes a whole number from 1 on")
        self._refuse_caption(where, chart)

    @staticmethod
    def _refuse_caption(where: str, chart: Chart) -> None:
        known = {Ranked: {"first", "share"}, Frequency: {"values", "again"}}.get(type(chart))
        if known is None:
            return
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(chart.caption or "") if name is not None}
        except ValueError as error:
            raise DeclarationError(f"{where}: caption is {chart.caption!r}: {error}") from error
        if unknown := sorted(names - known):
            allowed = " and ".join(f"{{{name}}}" for name in sorted(known))
            raise DeclarationError(f"{where}: its caption has {{{unknown[0]}}}; it can have {allowed}")


def _refuse_measure(name: str, measure: Measure) -> None:
    where = f"Page: measure {name}"
    if not re.fullmatch(MEASURE_NAME, name):
        raise DeclarationError(
            f"{where}: this cannot be its name; use up to 60 letters, digits and underscores, a letter first"
        )
    if isinstance(measure.value, str) and not measure.calls:
        raise DeclarationError(
            f"{where}: its value is {measure.value!r}; it takes count(), or one of {', '.join(FUNCTIONS)} of a column, as in "
            "sum(price), one divided by another, or a function of the table"
        )
    if not isinstance(measure.value, str) and not callable(measure.value):
        raise DeclarationError(f"{where}: its value is {measure.value!r}; it takes a text or a function of the table")
    if incomplete := [function for function, column in measure.calls if not column and function != "count"]:
        raise DeclarationError(f"{where}: {incomplete[0]}() lacks its column, as in {incomplete[0]}(price)")
    if measure.digits is not None and (type(measure.digits) is not int or measure.digits < 0):
        raise DeclarationError(f"{where}: digits is {measure.digits!r}; it takes a whole number from 0 on")
    if len(measure.notes) not in (0, 2) or not all(isinstance(note, str) for note in measure.notes):
        raise DeclarationError(f"{where}: note is {measure.note!r}; it takes a text, or two")
    try:
        measure.note_names  # noqa: B018 - raises
    except ValueError as error:
        raise DeclarationError(f"{where}: note is {measure.note!r}: {error}") from error


def parameter_of(column: str) -> str:
    """Return the parameter of the address for values of a column: `shop` for `shop_id`."""
    name = column.rpartition(".")[2]
    return name.removesuffix("_id") or name


def plural_of(noun: str) -> str:
    """Return the plural of a noun: shops, cities, boxes."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def words_of(name: str) -> str:
    """Return a name as the words of a heading: `Cold days` for `cold_days`."""
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]
