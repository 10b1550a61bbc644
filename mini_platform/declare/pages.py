"""Pages: what the dashboard shows of a dataset, declared beside its aggregates.

Here: the words of a page, and the refusal of those that name what is not there. Not here: SQL (`warehouse/page_rows.py`, which
also refuses what only types can show), HTTP and HTML (`dashboard/`).

A page is about the rows of one table. Its measures sum these rows up; figures, charts and tables show measures, by their names.
"""

from __future__ import annotations

import re
import string
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mini_platform.declare.columns import DeclarationError, nearest, spelled, texts_of

if typing.TYPE_CHECKING:
    from sqlalchemy import ColumnElement

FUNCTIONS = ("count", "sum", "avg", "min", "max", "distinct")
"""What a measure can be called as, over a column: `distinct` counts its different values, `count()` the rows."""
CALL = rf"({'|'.join(FUNCTIONS)})\((\w*)\)"
FORMULA = re.compile(rf"\s*{CALL}\s*(?:/\s*{CALL}\s*)?")
CHART_NAME = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
"""Names of charts are ids of elements, and parts of addresses."""
MEASURE_NAME = r"[A-Za-z]\w{0,59}"
"""Names of measures are those of columns of what is selected."""
PAGE_IDS = frozenset(("by", "choice", "figures", "from", "live", "main", "nav-datasets", "to"))
"""Ids of elements that every page has."""
PARAMETERS = frozenset(("from", "to", "by"))
"""Parameters of the address of every page."""
PLATFORM_PATHS = frozenset(
    (
        "api",
        "datasets",
        "files",
        "health",
        "login",
        "logout",
        "metrics",
        "openapi",
        "quality",
        "runs",
        "state",
        "static",
    )
)
"""Addresses of the platform: no page of a dataset can stand there."""
COVERAGE = "coverage"
"""What a note can name beside measures: on how many days there are rows, and on how many there are none."""
COMPARED = 5
"""Values that are shown side by side at most: as many as there are colours."""

Part = Literal["hour", "weekday", "month"]
"""A part of a time by which it recurs."""


@spelled
@dataclass(frozen=True)
class Measure:
    """A number that rows are summed up to.

    Attributes:
        value: `count()`, or `sum`, `avg`, `min`, `max`, `count` or `distinct` of a column, as in `sum(price)`, or one of them
            divided by another; else a function of the table, which returns an aggregating SQLAlchemy expression with a type.
        label: what it is called where it is shown; its name, unless it is said.
        unit: of its values, `$` for money; that of the column if the value is a sum, a mean or an extreme of one.
        digits: after the point; as many as say something, unless it is said.
        note: stands below the number of a figure; `{name}` in it is the value of another measure, `{name:%}` as a percentage,
            `{name:visit}` with its noun, `{coverage}` on how many days there are rows. Of two texts the second stands there
            while nothing is compared.
        each: column for each value of which it is computed first; the number is the mean of those that are not empty.
    """

    value: str | Callable[[Any], ColumnElement[Any]]
    label: str | None = None
    unit: str | None = None
    digits: int | None = None
    note: str | tuple[str, str] | None = None
    each: str | None = None

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        """Functions and columns of a formula, the divisor last; none where the value is a function of the table."""
        found = FORMULA.fullmatch(self.value) if isinstance(self.value, str) else None
        parts = found.groups() if found else ()
        return tuple((parts[i], parts[i + 1]) for i in range(0, len(parts), 2) if parts[i])

    @property
    def of_values(self) -> str | None:
        """The column whose different values it is about: counted, or each with a value of its own; None if it is of rows."""
        if self.each:
            return self.each
        return self.calls[0][1] if len(self.calls) == 1 and self.calls[0][0] == "distinct" else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Its notes: the one where something is compared, the one where nothing is; none or two."""
        return (self.note, self.note) if isinstance(self.note, str) else tuple(self.note or ())

    @property
    def noted(self) -> set[str]:
        """What its notes name."""
        return {name for note in self.notes for _, name, _, _ in string.Formatter().parse(note) if name is not None}


class _Chart:
    """What charts have in common."""

    def __post_init__(self) -> None:
        """Refuse measures that are not texts.

        Raises:
            DeclarationError: with a sentence that names the word.
        """
        for word in {"lines", "dotted", "bars", "table"} & vars(self).keys():
            object.__setattr__(self, word, texts_of(f"{type(self).__name__}: {word}", getattr(self, word)))


@spelled
@dataclass(frozen=True)
class OverTime(_Chart):
    """A chart over time: measures of each day, week, month, quarter or year, or of as short a step as the span allows.

    What is a sum or a count is drawn from 0 up, and of whole steps: those of which only a part is shown are left to the
    table, as bars they are pale.

    Attributes:
        lines: measures that are drawn as lines; they have one unit.
        band: around the first line: two measures from the one to the other, or a single one to either side of the line.
        dotted: measures that are drawn as thin dotted lines beside the others.
        bars: measures that are drawn as bars, below the lines if there are any; they have one unit.
        table: measures in the table below the chart; those that are drawn, unless it is said.
        title: of the chart; the labels of its measures, unless it is said.
        caption: what the chart shows, in a few words after the span.
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
        """The measures of the band."""
        return (self.band,) if isinstance(self.band, str) else tuple(self.band or ())

    @property
    def drawn(self) -> tuple[str, ...]:
        """The measures that are drawn, the band's aside."""
        return (*self.lines, *self.dotted, *self.bars)


@spelled
@dataclass(frozen=True)
class Ranked(_Chart):
    """The values of a column by a measure, the highest first: as bars that lie, or as a table.

    Attributes:
        by: the column; of several columns the first names a row, and the others stand below it.
        bars: measures that are drawn as bars; without any it is a table.
        table: measures in the table; those that are drawn, unless it is said.
        order: measure by which they are ranked; the first one, unless it is said.
        most: values that are shown at most.
        label: heading of the values; the name of the first column, unless it is said.
        title: of the chart or table; `By` and the column, unless it is said.
        caption: a sentence in which `{first}` is the value that ranks highest, and `{share}` its share of the whole.
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
        """The columns whose values are ranked."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    @property
    def drawn(self) -> tuple[str, ...]:
        """The measures that are drawn."""
        return self.bars


@spelled
@dataclass(frozen=True)
class Recurring(_Chart):
    """Measures by a part of the time that comes again: bars by hour of the day, day of the week or month of the year.

    Attributes:
        part: `hour`, `weekday` or `month`, in UTC where it is a moment.
        bars: measures that are drawn as bars.
        table: measures in the table below the chart; those that are drawn, unless it is said.
        title: of the chart; `By day of the week` and the like, unless it is said.
        caption: a sentence; where most is and how much, unless it is said.
    """

    part: Part
    bars: tuple[str, ...]
    table: tuple[str, ...] = ()
    title: str | None = None
    caption: str | None = None

    @property
    def drawn(self) -> tuple[str, ...]:
        """The measures that are drawn."""
        return self.bars


@spelled
@dataclass(frozen=True)
class Frequency(_Chart):
    """How often the values of a column come: bars of how many have one row, two rows, and so on.

    Attributes:
        of: the column whose values are counted.
        value: noun for one of its values, such as `guest`.
        row: noun for a row, such as `visit`.
        most: values with so many rows or more are one bar.
        title: of the chart; the nouns, unless it is said.
        caption: a sentence in which `{values}` is their number with its noun, and `{again}` the share with several rows.
    """

    of: str
    value: str
    row: str
    most: int = 8
    title: str | None = None
    caption: str | None = None
    drawn = table = ()


Chart: TypeAlias = OverTime | Ranked | Recurring | Frequency


@spelled
@dataclass(frozen=True, eq=False)
class Page:
    """The page of a dataset, at `/<name>`: figures and charts over its rows, or the rows themselves.

    Columns of the page's table are named as they are. `dim.column` is a column of an aggregate that the table refers to by its
    surrogate or key. Of a page over an aggregate that reads production alone, `compare` and `filters` can also name columns of
    production: the aggregate is then computed over the rows with that value.

    Attributes:
        of: aggregate or view that the page is about; production, unless it is said.
        time: column by which a span is chosen; the first day or moment of the key, else of the table, unless it is said.
        compare: column of which up to five values can be chosen and are shown side by side, found by typing a part of one.
        filters: columns of which one value each can be chosen.
        measures: by name, each a `Measure` or the text of its value.
        figures: measures that stand above the charts, in this order.
        charts: by name, which is the id of its element: `OverTime`, `Ranked`, `Recurring` or `Frequency`.
        empty: sentence that stands in place of figures and charts where there are no rows to show.
        unmasked: the listed rows are shown with their masked personal data, to those who may read the dataset.
    """

    of: str | None = None
    time: str | None = None
    compare: str | None = None
    filters: tuple[str, ...] = ()
    measures: Mapping[str, Measure | str] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    empty: str | None = None
    unmasked: bool = False

    def __post_init__(self) -> None:
        """Refuse words of another kind than they take, and names that no measure has.

        Raises:
            DeclarationError: with a sentence that names the word.
        """
        for word, kind in (("measures", Measure | str), ("charts", Chart)):
            said = getattr(self, word)
            if not isinstance(said, Mapping) or not all(
                isinstance(n, str) and isinstance(v, kind) for n, v in said.items()
            ):
                raise DeclarationError(f"Page: {word} is {said!r}; it takes names with what they stand for")
        made = {name: Measure(value) if isinstance(value, str) else value for name, value in self.measures.items()}
        object.__setattr__(self, "measures", made)
        for word in ("filters", "figures"):
            object.__setattr__(self, word, texts_of(f"Page: {word}", getattr(self, word)))
        for name, measure in made.items():
            _refuse_measure(name, measure)
            self._refuse_unknown(f"Page: the note of {name}", measure.noted - {COVERAGE})
        self._refuse_unknown("Page: figures", self.figures)
        for name, chart in self.charts.items():
            self._refuse_chart(name, chart)
        if not self.is_listing and self.unmasked:
            raise DeclarationError("Page: unmasked is for a page that lists rows, and this one has figures or charts")
        if self.is_listing and (self.of or self.compare or self.filters or self.time):
            raise DeclarationError(
                "Page: without figures and charts it lists the rows of production, each column of which can be filtered; "
                "of, time, compare and filters are for a page with figures or charts"
            )
        chosen = [parameter_of(name) for name in self.choices]
        if doubled := [name for name in chosen if chosen.count(name) > 1 or name in PARAMETERS]:
            raise DeclarationError(f"Page: two choices would have the parameter {doubled[0]} in the address")

    @property
    def is_listing(self) -> bool:
        """True if the page has neither figures nor charts: then it lists the rows."""
        return not self.figures and not self.charts

    @property
    def choices(self) -> tuple[str, ...]:
        """Columns of which values can be chosen."""
        return (*((self.compare,) if self.compare else ()), *self.filters)

    def measure(self, name: str) -> Measure:
        """Return a measure by its name."""
        found = self.measures[name]
        assert isinstance(found, Measure)  # noqa: S101 - made so in __post_init__
        return found

    def label(self, name: str) -> str:
        """Return what a measure is called where it is shown."""
        return self.measure(name).label or words_of(name)

    def refuse_columns(self, where: str, own: set[str], referred: set[str], anew: set[str]) -> None:
        """Refuse words that name a column which is not there.

        Args:
            where: the page, in the sentence.
            own: columns of the table that the page is about.
            referred: columns of aggregates that this may refer to, as `aggregate.column`.
            anew: columns of production by which the table can be computed anew.

        Raises:
            DeclarationError: with a sentence that names the word.
        """
        for word, names, known in self._columns(own, own | referred, own | referred | anew):
            if unknown := [name for name in names if name not in known]:
                raise DeclarationError(
                    f"{where}: {word} names {unknown[0]}, which is no column of it{nearest(unknown[0], known)}"
                )

    def _columns(
        self, own: set[str], grouped: set[str], chosen: set[str]
    ) -> Iterator[tuple[str, Iterable[str], set[str]]]:
        """Each word that names columns, with these, and with those that it can name."""
        yield "time", filter(None, [self.time]), own
        yield "compare", filter(None, [self.compare]), chosen
        yield "filters", self.filters, chosen
        for name in self.measures:
            measure = self.measure(name)
            yield f"measure {name}", [column for _, column in measure.calls if column], own
            yield f"each of the measure {name}", filter(None, [measure.each]), own
        for name, chart in self.charts.items():
            if isinstance(chart, Ranked):
                yield f"chart {name}", chart.columns, grouped
            if isinstance(chart, Frequency):
                yield f"chart {name}", [chart.of], own

    def _refuse_unknown(self, where: str, names: Iterable[str]) -> None:
        if unknown := [name for name in names if name not in self.measures]:
            hint = nearest(unknown[0], self.measures)
            raise DeclarationError(f"{where} names {unknown[0]}, which is not a measure of the page{hint}")

    def _refuse_chart(self, name: str, chart: Chart) -> None:
        where = f"Page: chart {name}"
        chosen = {parameter_of(column) for column in self.choices}
        ids = PAGE_IDS | chosen | ({many(parameter_of(self.compare))} if self.compare else set())
        if not re.fullmatch(CHART_NAME, name) or name in ids or name.endswith(("-figure", "-title", "-values")):
            raise DeclarationError(
                f"{where}: this cannot be its name, as it is an id in the page; over-time can, for example"
            )
        order = (chart.order,) if isinstance(chart, Ranked) and chart.order else ()
        bands = chart.bands if isinstance(chart, OverTime) else ()
        used = (*chart.drawn, *chart.table, *bands, *order)
        self._refuse_unknown(where, used)
        if not (chart.drawn or (isinstance(chart, Ranked) and chart.table) or isinstance(chart, Frequency)):
            raise DeclarationError(f"{where} shows no measure")
        if each := [one for one in used if self.measure(one).each]:
            raise DeclarationError(
                f"{where} shows {each[0]}, which is computed for each {self.measure(each[0]).each}: that is a figure"
            )
        if bands and (len(bands) > 2 or not isinstance(chart, OverTime) or not chart.lines):
            raise DeclarationError(f"{where}: band is {bands!r}; it takes one measure or two, around a line")
        if isinstance(chart, Recurring) and chart.part not in typing.get_args(Part):
            raise DeclarationError(f"{where}: part is {chart.part!r}; it can be {' or '.join(typing.get_args(Part))}")
        if type(most := getattr(chart, "most", 1)) is not int or most < 1:
            raise DeclarationError(f"{where}: most is {most!r}; it takes a whole number from 1 on")
        self._refuse_caption(where, chart)

    @staticmethod
    def _refuse_caption(where: str, chart: Chart) -> None:
        known = {Ranked: {"first", "share"}, Frequency: {"values", "again"}}.get(type(chart))
        if known is None:
            return
        try:
            said = {name for _, name, _, _ in string.Formatter().parse(chart.caption or "") if name is not None}
        except ValueError as error:
            raise DeclarationError(f"{where}: caption is {chart.caption!r}: {error}") from error
        if unknown := sorted(said - known):
            can = " and ".join(f"{{{name}}}" for name in sorted(known))
            raise DeclarationError(f"{where}: its caption has {{{unknown[0]}}}; it can have {can}")


def _refuse_measure(name: str, measure: Measure) -> None:
    where = f"Page: measure {name}"
    if not re.fullmatch(MEASURE_NAME, name):
        raise DeclarationError(
            f"{where}: this cannot be its name; up to 60 letters, digits and underscores can, a letter first"
        )
    if isinstance(measure.value, str) and not measure.calls:
        raise DeclarationError(
            f"{where}: its value is {measure.value!r}; it takes count(), or one of {', '.join(FUNCTIONS)} of a column, as in "
            "sum(price), one divided by another, or a function of the table"
        )
    if not isinstance(measure.value, str) and not callable(measure.value):
        raise DeclarationError(f"{where}: its value is {measure.value!r}; it takes a text or a function of the table")
    if lost := [function for function, column in measure.calls if not column and function != "count"]:
        raise DeclarationError(f"{where}: {lost[0]}() lacks its column, as in {lost[0]}(price)")
    if measure.digits is not None and (type(measure.digits) is not int or measure.digits < 0):
        raise DeclarationError(f"{where}: digits is {measure.digits!r}; it takes a whole number from 0 on")
    if len(measure.notes) not in (0, 2) or not all(isinstance(note, str) for note in measure.notes):
        raise DeclarationError(f"{where}: note is {measure.note!r}; it takes a text, or two")
    try:
        measure.noted  # noqa: B018 - raises
    except ValueError as error:
        raise DeclarationError(f"{where}: note is {measure.note!r}: {error}") from error


def parameter_of(column: str) -> str:
    """Return the parameter in the address by which values of a column are chosen: `shop` for `shop_id`."""
    name = column.rpartition(".")[2]
    return name.removesuffix("_id") or name


def many(noun: str) -> str:
    """The plural of a noun: shops, cities, boxes."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def words_of(name: str) -> str:
    """Return a name as the words of a heading: `Cold days` for `cold_days`."""
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]
