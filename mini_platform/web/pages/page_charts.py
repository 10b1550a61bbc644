"""Charts of a declared page: from the rows that are shown to a figure, a caption and a table.

Not here: what a request chooses (`declared_page.py`), how figures are drawn (`charts.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, FromClause, RowMapping, Subquery

from mini_platform.declare.pages import Frequency, OverTime, Page, Ranked, Recurring, parameter_of, plural_of, words_of
from mini_platform.rows.wording import percent, plural
from mini_platform.warehouse.page_rows import Choice, PageRows, unit_of
from mini_platform.web.pages import charts
from mini_platform.web.pages.charts import Chart, Series
from mini_platform.web.pages.measured import cell_of, label_of, listed, within, written
from mini_platform.web.pages.rendering import TableData
from mini_platform.web.pages.spans import Moments, Span

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
PARTS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    "hour": ("By hour of the day", "from", [f"{hour:02}:00" for hour in range(24)]),
    "weekday": ("By day of the week", "on a", ("", *WEEKDAYS)),
    "month": ("By month of the year", "in", ("", *MONTHS)),
}
"""Part of a time -> title of its chart, preposition before a name, names by number."""

Points = Mapping[Any, Mapping[Any, Mapping[str, Any]]]
"""Compared value, or None for all rows -> start of a step -> measures."""


@dataclass(frozen=True)
class PerValue:
    """Totals of the rows per value of a column.

    Attributes:
        values: number of rows -> number of values that have it.
        means: means of what is computed for each value; empty without rows.
    """

    values: Mapping[int, int]
    means: RowMapping | Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """The rows of a page that are shown.

    Attributes:
        conn: connection to the database.
        rows: rows of the page.
        filters: chosen values by column.
        compared: values that are shown side by side, or [None] for all rows together.
        span: span of time; None if the rows have no time.
    """

    conn: Connection
    rows: PageRows
    filters: Choice
    compared: Sequence[Any]
    span: Span | Moments | None

    @property
    def page(self) -> Page:
        """Return the declaration of the page."""
        return self.rows.page

    @cached_property
    def all(self) -> Subquery:
        """Return all rows that are shown."""
        return self.rows_of(*(value for value in self.compared if value is not None))

    def rows_of(self, *values: Any) -> Subquery:
        """Return the rows with one of these values of the column that is compared; without any, all."""
        chosen = {**self.filters, **({self.page.compare: values} if values and self.page.compare else {})}
        return self.rows.rows(chosen, None if self.span is None else (self.span.first, self.span.last))

    def _of(self, value: Any) -> Subquery:
        return self.all if value is None else self.rows_of(value)

    def summed_up(self, names: Iterable[str], value: Any = None) -> FromClause:
        """Return rows from which measures can be selected: days, if these are sufficient, as they are few."""
        if not self.rows.by_day or not all(map(self.rows.is_summed_up, names)):
            return self._of(value)
        if value not in self._days:
            rows = self._of(value)
            self._days[value] = self.rows.summed_up(self.conn.execute(self.rows.days_of(rows)).all(), rows)
        return self._days[value]

    def per_value(self, column: str, value: Any = None) -> PerValue:
        """Return the totals of the rows per value of a column."""
        if (column, value) not in self._per_value:
            charts = [c for c in self.page.charts.values() if isinstance(c, Frequency) and c.of == column]
            most = max((chart.most for chart in charts), default=1)
            rows = self.conn.execute(self.rows.per_value(self._of(value), column, most)).mappings().all()
            counts = {row["rows"]: row["values_"] for row in rows if row["is_value"]}
            self._per_value[column, value] = PerValue(counts, rows[0] if rows else {})
        return self._per_value[column, value]

    @cached_property
    def _days(self) -> dict[Any, FromClause]:
        return {}

    @cached_property
    def _per_value(self) -> dict[tuple[str, Any], PerValue]:
        return {}

    def unit(self, name: str) -> str | None:
        """Return the unit of a measure."""
        return unit_of(self.rows.dataset, self.page, name)

    def axis(self, names: Sequence[str]) -> str:
        """Return the title of an axis for measures: their unit, else what is counted."""
        return self.unit(names[0]) or (within(self.page.label(names[0])) if len(names) == 1 else "value")

    def cells(self, names: Sequence[str], values: Mapping[str, Any], least: int = 0) -> list[Any]:
        """Return measures as cells of a table."""
        return [cell_of(self.rows, name, values.get(name), least=least) for name in names]

    def series(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Series]:
        """Return measures as bars."""
        return [Series(within(self.page.label(name)), [_float(row[name]) for row in rows]) for name in names]


@dataclass(frozen=True)
class RankedTable:
    """Values of a column ranked by a measure, as a table.

    Attributes:
        id: id of the element.
        title: what is ranked.
        columns: headings.
        rows: names of a value with its numbers.
        data: the table for downloads.
    """

    id: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[Any]]]
    data: TableData


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


# Over time


def over_time(shown: Shown, name: str, chart: OverTime) -> Chart:
    """Return a chart of measures by the steps of the span."""
    span = shown.span
    assert span is not None  # noqa: S101 - else refused
    points = _points(shown, span, chart)
    starts = sorted({start for one in points.values() for start in one})
    is_sum = bool(chart.lines) and not chart.bars and all(map(shown.rows.is_amount, (*chart.lines, *chart.dotted)))
    # An incomplete week would look like a slump, and a day without rows is an empty sum, not a gap.
    drawn = [start for start in starts if span.is_whole(start)] or starts if is_sum else starts
    x = drawn if is_sum else charts.broken(drawn, span.gap)
    is_part = bool(chart.bars) and all(map(shown.rows.is_amount, chart.bars))
    pale = [is_part and start in starts and not span.is_whole(start) for start in x]
    figure = None
    if chart.lines or chart.dotted:
        of_lines = _lines(shown, chart, points, x)
        figure = charts.lines(x, of_lines, shown.axis((*chart.lines, *chart.dotted)), to_zero=is_sum)
    if chart.bars:
        bars = _series(shown, chart.bars, points, x)
        figure = charts.bars_over_time(x, bars, shown.axis(chart.bars), pale, figure)
    assert figure is not None  # noqa: S101 - a chart without measures is refused
    table = chart.table or chart.drawn
    rows = [
        (start, *(cell for one in points.values() for cell in shown.cells(table, one.get(start, {}), 1)))
        for start in starts
    ]
    caption = _caption(shown, span, chart, points, any(pale))
    if is_sum and drawn:
        caption += _extremes(
            shown, span, chart.lines[0], points, drawn, [start for start in starts if start not in drawn]
        )
    title = chart.title or listed(shown.page, chart.drawn)
    return Chart(
        name, title, caption, charts.as_json(figure), (span.heading, *_headings(shown, table)), rows,
        tall=bool(chart.bars and chart.lines),
    )  # fmt: skip


def _points(shown: Shown, span: Span | Moments, chart: OverTime) -> Points:
    names = dict.fromkeys((*chart.drawn, *chart.bands, *chart.table))
    points = {}
    for value in shown.compared:
        rows = shown.summed_up(names, value)
        start = span.start(rows.c[str(shown.rows.time.name if shown.rows.time is not None else "")])
        steps = shown.conn.execute(shown.rows.over_time(rows, start, names)).mappings()
        points[value] = {row["_start"]: shown.rows.read(row, names) for row in steps}
    return points


def _column(one: Mapping[Any, Mapping[str, Any]], name: str, x: Sequence[Any]) -> list[float | None]:
    return [_float(one[start][name]) if start in one else None for start in x]


def _series(shown: Shown, names: Sequence[str], points: Points, x: Sequence[Any]) -> list[Series]:
    """Return a series per compared value and measure."""
    series = []
    for value, one in points.items():
        for name in names:
            label = within(shown.page.label(name))
            called = label if len(points) == 1 else str(value) if len(names) == 1 else f"{value}, {label}"
            series.append(Series(called, _column(one, name, x)))
    return series


def _lines(shown: Shown, chart: OverTime, points: Points, x: Sequence[Any]) -> list[Series]:
    series = _series(shown, chart.lines, points, x)
    if len(points) > 1:
        return series
    ((_, one),) = points.items()
    if chart.bands:
        low, high = (_column(one, name, x) for name in (chart.bands[0], chart.bands[-1]))
        if isinstance(chart.band, str):
            low, high = (
                [None if v is None or d is None else v + sign * d for v, d in zip(series[0].values, low, strict=True)]
                for sign in (-1, 1)
            )
        series[0] = Series(series[0].name, series[0].values, low, high)
    for name in chart.dotted:
        series.append(Series(within(shown.page.label(name)), _column(one, name, x), dotted=True))
    return series


def _headings(shown: Shown, names: Sequence[str]) -> list[str]:
    """Return the headings of measures in a table; where values are compared, a unit that only one measure has replaces it."""
    units = [shown.unit(name) for name in names]
    short = [
        u if u and shown.page.compare and units.count(u) == 1 else shown.page.label(n)
        for n, u in zip(names, units, strict=True)
    ]
    several = len(shown.compared) > 1
    return [f"{value} {heading}" if several else heading for value in shown.compared for heading in short]


def _caption(shown: Shown, span: Span | Moments, chart: OverTime, points: Points, is_pale: bool) -> str:
    caption = span.words
    if shown.page.compare:
        everything = f"All {plural_of(parameter_of(shown.page.compare))}"
        caption = f"{', '.join(everything if value is None else str(value) for value in points)}, {span.within}"
    if chart.caption:
        caption += f"{'; ' if shown.page.compare else ': '}{chart.caption}"
    if len(chart.bands) == 2 and len(points) == 1:
        low, high = chart.bands
        if any(step[low] != step[high] for one in points.values() for step in one.values()):
            labels = (within(shown.page.label(name)) for name in chart.bands)
            caption += f"; the band is the {' to the '.join(labels)} of the {span.step}"
    if is_pale:
        caption += f"; lighter bars: incomplete {span.step}s"
    return f"{caption}."


def _extremes(
    shown: Shown, span: Span | Moments, name: str, points: Points, drawn: Sequence[Any], omitted: Sequence[Any]
) -> str:
    """Return the caption about the highest value, and about the steps that are left out."""
    values = {start: sum(_float(one[start][name]) or 0 for one in points.values() if start in one) for start in drawn}
    best = max(values, key=lambda start: values[start])
    text = f" Most in the {span.step} from {span.label(best)}: {written(shown.rows, name, values[best])}."
    if omitted:
        starts = " and from ".join(map(span.label, omitted))
        text += f" Incomplete, in the table only: the {span.step} from {starts}."
    return text


# Of values


def ranked(shown: Shown, name: str, chart: Ranked, totals: Mapping[str, Any]) -> Chart | RankedTable:
    """Return the values of a column by a measure, as bars or as a table."""
    order, names = order_of(chart), (*chart.bars, *chart.table)
    statement = shown.rows.ranked(shown.all, chart, order, names).limit(chart.most + 1)
    ranking = [
        {**shown.rows.read(row, [order, *names]), "": [row[f"_{place}"] for place in range(len(chart.columns))]}
        for row in shown.conn.execute(statement).mappings()
    ]
    first, is_cut = ranking[: chart.most], len(ranking) > chart.most
    head = chart.label or words_of(chart.columns[0].rpartition(".")[2])
    title = chart.title or f"By {within(head)}"
    table = chart.table or chart.bars
    if not chart.bars:
        columns = [column.rpartition(".")[2] for column in chart.columns]
        data = TableData([*columns, *table], [[*row[""], *(row[one] for one in table)] for row in first])
        rows = [([*map(label_of, row[""])], shown.cells(table, row)) for row in first]
        return RankedTable(name, title, [head, *map(shown.page.label, table)], rows, data)
    labels = [", ".join(map(label_of, row[""])) for row in first]
    figure = charts.across(labels, shown.series(chart.bars, first), shown.axis(chart.bars))
    caption = _share(shown, chart, order, labels, first, totals)
    caption += f" The first {plural(chart.most, 'value')}." if is_cut else ""
    rows_of_table = [(label, *shown.cells(table, row)) for label, row in zip(labels, first, strict=True)]
    return Chart(
        name, title, caption.strip(), charts.as_json(figure), [head, *map(shown.page.label, table)], rows_of_table
    )


def order_of(chart: Ranked) -> str:
    """Return the measure by which values are ranked."""
    return chart.order or (*chart.bars, *chart.table)[0]


def _share(
    shown: Shown,
    chart: Ranked,
    order: str,
    labels: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    totals: Mapping[str, Any],
) -> str:
    total = totals.get(order)
    if not labels or not total or not shown.rows.is_amount(order):
        return ""
    share = percent(float(rows[0][order]) / float(total))
    template = chart.caption or f"{{first}} has {{share}} of the {within(shown.page.label(order))}."
    return template.format(first=labels[0], share=share)


def recurring(shown: Shown, name: str, chart: Recurring) -> Chart:
    """Return measures by a part of the time that comes again."""
    title, before, names = PARTS[chart.part]
    table = chart.table or chart.bars
    used = dict.fromkeys((*chart.bars, *table))
    measures = {
        names[row["_place"]]: shown.rows.read(row, used)
        for row in shown.conn.execute(shown.rows.recurring(shown.summed_up(used), chart, used)).mappings()
    }
    first = chart.bars[0]
    values = {label: row[first] for label, row in measures.items() if row[first] is not None}
    caption = chart.caption or ""
    if values and not chart.caption:
        best = max(values, key=lambda label: values[label])
        most = "Most" if shown.rows.is_amount(first) else "Highest"
        caption = (
            f"{most} {within(shown.page.label(first))} {before} {best}: {written(shown.rows, first, values[best])}."
        )
    short = [label[:3] if chart.part != "hour" else label for label in measures]
    figure = charts.bars(short, shown.series(chart.bars, list(measures.values())), shown.axis(chart.bars))
    rows = [(label, *shown.cells(table, row)) for label, row in measures.items()]
    head = {"weekday": "Day"}.get(chart.part, chart.part.capitalize())
    return Chart(
        name, chart.title or title, caption, charts.as_json(figure), [head, *map(shown.page.label, table)], rows
    )


def frequency(shown: Shown, name: str, chart: Frequency) -> Chart:
    """Return how many values have one row, two rows, and so on."""
    counts: dict[int, int] = {}
    for row_count, value_count in shown.per_value(chart.of).values.items():
        counts[min(row_count, chart.most)] = counts.get(min(row_count, chart.most), 0) + value_count
    names = [f"{rows}{' or more' if rows == chart.most else ''}" for rows in counts]
    total = sum(counts.values())
    again = percent(1 - counts.get(1, 0) / total) if total else "–"
    template = chart.caption or f"{{again}} of {{values}} have more than one {chart.row}."
    values, rows = plural_of(chart.value), plural_of(chart.row)
    figure = charts.bars(names, [Series(values, list(counts.values()))], values)
    figure.layout["xaxis"]["title"] = {"text": f"{rows} of a {chart.value}", "standoff": 4}
    caption = template.format(values=plural(total, chart.value, values), again=again)
    title = chart.title or f"{words_of(rows)} of a {chart.value}"
    table = list(zip(names, counts.values(), strict=True))
    return Chart(name, title, caption, charts.as_json(figure), (words_of(rows), words_of(values)), table)
