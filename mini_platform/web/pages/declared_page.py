"""Declared pages: the parameters of a request, and the page that shows the rows that they choose.

Here: choices, span, figures and downloads of every declared page. Not here: the declaration of a page (`declare/pages.py`), its
selects (`warehouse/page_rows.py`), charts (`page_charts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import ColumnElement, Connection, Text, select

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import (
    COVERAGE,
    MAX_COMPARED,
    Chart,
    Frequency,
    OverTime,
    Ranked,
    Recurring,
    parameter_of,
    plural_of,
    words_of,
)
from mini_platform.rows.wording import plural
from mini_platform.warehouse.filters import python_type
from mini_platform.warehouse.page_rows import PageRows
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.api.personal import InClear
from mini_platform.web.api.query import any_of
from mini_platform.web.api.values import read
from mini_platform.web.auth.guard import allowed
from mini_platform.web.pages import browse, reads
from mini_platform.web.pages.measured import note_of, written
from mini_platform.web.pages.page_charts import RankedTable, Shown, frequency, order_of, over_time, ranked, recurring
from mini_platform.web.pages.rendering import TableData, link, render
from mini_platform.web.pages.spans import Moments, Span, moments, parse_day, parse_moment, span
from mini_platform.web.problems import ProblemError
from mini_platform.web.site import SiteDep

SUGGESTED = 500
"""Maximum values that a field suggests; others are found by typing a part of the name."""
CHIPS = 30
"""Maximum values of a filter that are shown as chips; of more, one is typed."""
NEAR = 12
"""Maximum values that are suggested for an unknown name."""


def add_declared_pages(app: FastAPI, datasets: Mapping[str, Dataset]) -> None:
    """Let the app serve the page of each dataset that declares one, at `/<name>`."""
    for dataset in datasets.values():
        if dataset.page is not None:
            show = _listing if dataset.page.is_listing else _page
            guarded = [Depends(allowed("read", dataset.name))]
            app.add_api_route(f"/{dataset.name}", show(dataset), include_in_schema=False, dependencies=guarded)


def add_invalid_pages(app: FastAPI, names: Iterable[str]) -> None:
    """Let the app answer at `/<name>` of each invalid dataset with the reason."""
    for name in names:
        if name.isidentifier():
            guarded = [Depends(allowed("read"))]
            app.add_api_route(f"/{name}", _reason(name), include_in_schema=False, dependencies=guarded)


def _reason(name: str) -> Callable[..., None]:
    def show(site: SiteDep) -> None:
        site.dataset(name)

    return show


def _listing(dataset: Dataset) -> Callable[..., Response]:
    def show(request: Request, site: SiteDep, personal: InClear = None) -> Response:
        site.dataset(dataset.name)
        return browse.listing_page(request, site, dataset, personal)

    return show


def _page(dataset: Dataset) -> Callable[..., Response]:
    def show(request: Request, site: SiteDep) -> Response:
        site.dataset(dataset.name)
        with site.read() as conn:
            return declared_page(request, conn, page_rows(dataset))

    return show


@cache
def page_rows(dataset: Dataset) -> PageRows:
    """Return the rows that the page of a dataset is about."""
    assert dataset.page is not None  # noqa: S101 - only those with a page are asked for it
    return PageRows(dataset, dataset.page, dataset_tables(dataset))


@dataclass(frozen=True)
class Field:
    """A column by whose values the page is filtered.

    Attributes:
        name: parameter in the URL.
        label: label of the field.
        known: first values of the column, with their number of rows or None.
        is_typed: True if there are too many values to show each.
        chosen: chosen values.
    """

    name: str
    label: str
    known: Sequence[tuple[Any, int | None]]
    is_typed: bool
    chosen: Sequence[Any]


@dataclass(frozen=True)
class Compared(Field):
    """The column whose values are shown side by side.

    Attributes:
        unknown: requested names that do not exist.
        near: values that contain an unknown name.
        is_cut: True if more were requested than can be shown.
    """

    unknown: Sequence[str]
    near: Sequence[Any]
    is_cut: bool
    most = MAX_COMPARED

    @property
    def many(self) -> str:
        """Return the noun for several of its values."""
        return plural_of(self.name)


def declared_page(request: Request, conn: Connection, rows: PageRows) -> Response:
    """Answer with the page of a dataset, by what the request chooses.

    Raises:
        ProblemError: a parameter is invalid.
    """
    page, dataset = rows.page, rows.dataset
    context: dict[str, Any] = {
        "dataset": dataset,
        "page": page,
        "state": reads.state(conn),
        "sampled": reads.sampled(request, conn, [dataset]),
    }
    compared = _compared(request, conn, rows, page.compare) if page.compare else None
    side_by_side = {page.compare: compared.chosen} if compared and compared.chosen and page.compare else {}
    first, last = conn.execute(rows.time_range(side_by_side)).one()
    if first is None:
        return render(request, "page.html", empty=True, **context)
    filters = [_filter(request, conn, rows, name) for name in page.filters]
    filtered = {name: one.chosen for name, one in zip(page.filters, filters, strict=True) if one.chosen}
    shown = Shown(
        conn, rows, filtered, list(compared.chosen) if compared and compared.chosen else [None],
        None if rows.time is None else _span(request, rows, (first, last)),
    )  # fmt: skip
    figures = [_figures(shown, value) for value in shown.compared]
    is_empty = page.empty is not None and not any(values["_rows"] for values in figures)
    blocks = [] if is_empty else _blocks(shown, figures[0] if len(figures) == 1 else {})
    tables = {one.id: one.data for block in blocks for one in block if isinstance(one, RankedTable)}
    if compared:
        tables[compared.many] = _as_data(shown, figures)
    return render(
        request, "page.html", tables=tables, empty=False, is_empty=is_empty, shown=shown, span=shown.span,
        has_moments=rows.has_moments, by=request.query_params.get("by") or None, compared=compared, filters=filters,
        figures=[_cards(shown, values) for values in figures], heads=_heads(shown), blocks=blocks,
        alternates=_data_links(shown), **context,
    )  # fmt: skip


# What is chosen


def _span(request: Request, rows: PageRows, held: tuple[Any, Any]) -> Span | Moments:
    since, until = request.query_params.get("from"), request.query_params.get("to")
    if rows.has_moments:
        return moments(parse_moment("from", since), parse_moment("to", until), held)
    return span(parse_day("from", since), parse_day("to", until), request.query_params.get("by") or None, held)


def _typed(column: ColumnElement[Any], words: Sequence[str]) -> list[Any]:
    """Return texts as values of a column, without those that cannot be parsed."""
    values = []
    for text in words:
        try:
            values.append(read(python_type(column), text))
        except ValueError:
            continue
    return values


def _compared(request: Request, conn: Connection, rows: PageRows, name: str) -> Compared:
    """Return the values of these names, the unknown names, and the values that contain an unknown name."""
    parameter = parameter_of(name)
    table, column, _ = rows.values(name)
    # No text has U+0000, which Postgres does not take.
    params = request.query_params.getlist(parameter)
    requested = list(dict.fromkeys(text for words in params if (text := words.replace("\0", "").strip())))
    matches = {str(value): value for value in conn.scalars(select(column).where(column.in_(_typed(column, requested))))}
    unknown = [text for text in requested if text not in matches]
    in_text = column.cast(Text)

    def near(text: str) -> list[Any]:
        chosen = select(column).select_from(table).where(in_text.icontains(text, autoescape=True))
        return list(conn.scalars(chosen.order_by(column).limit(NEAR)))

    likely = list(dict.fromkeys(value for text in unknown for value in near(text)))
    if len(unknown) == 1 and len(likely) == 1:
        matches[unknown[0]] = likely[0]
        unknown, likely = [], []
    chosen = list(dict.fromkeys(matches[text] for text in requested if text in matches))
    known = _known(conn, rows, name, SUGGESTED)
    return Compared(
        parameter, words_of(parameter), known, True, chosen[:MAX_COMPARED], unknown, likely, len(requested) > MAX_COMPARED,
    )  # fmt: skip


def _filter(request: Request, conn: Connection, rows: PageRows, name: str) -> Field:
    """Return a column of which one value can be chosen.

    Raises:
        ProblemError: the value does not have the type of the column.
    """
    parameter, column = parameter_of(name), rows.column(name)
    requested = request.query_params.get(parameter)
    values = _typed(column, [requested]) if requested else []
    if requested and not values:
        raise ProblemError(f"{parameter} is {requested!r}, which is not a valid value for it.")
    known = _known(conn, rows, name, SUGGESTED)
    return Field(parameter, words_of(parameter), known, len(known) > CHIPS, values)


def _known(conn: Connection, rows: PageRows, name: str, most: int) -> list[tuple[Any, int | None]]:
    table, column, count = rows.values(name)
    statement = select(column, *([] if count is None else [count])).select_from(table).order_by(column).limit(most)
    return [(row[0], None if count is None else row[1]) for row in conn.execute(statement)]


# Figures


def _figures(shown: Shown, value: Any) -> dict[str, Any]:
    """Return the measures of one compared value or of all rows, by name, with `_rows`."""
    rows, page = shown.rows, shown.page
    orders = [order_of(chart) for chart in page.charts.values() if isinstance(chart, Ranked)]
    noted = {name for figure in page.figures for name in page.measure(figure).note_names}
    used = dict.fromkeys(name for name in (*page.figures, *sorted(noted - {COVERAGE}), *orders))
    # Distinct values, and measures per value, come from one select over the values of their column.
    of_values = {name: column for name in used if (column := page.measure(name).value_column)}
    plain = [name for name in used if name not in of_values]
    chosen = shown.summed_up(plain, value)
    also = [rows.count(chosen).label("_rows"), *([rows.days(chosen).label("_days")] if COVERAGE in noted else [])]
    row = shown.conn.execute(select(*also, *rows.measures(chosen, plain)).select_from(chosen)).mappings().one()
    values = {"_value": value, "_rows": int(row["_rows"]), **rows.read(row, plain)}
    for name, column in of_values.items():
        counted = shown.per_value(column, value)
        if page.measure(name).each:
            values[name] = counted.means.get(name)
        else:
            values[name] = sum(counted.values.values())
    if COVERAGE in noted and isinstance(shown.span, Span):
        values["_days"], missing = row["_days"], shown.span.days - row["_days"]
        values[COVERAGE] = f"{plural(row['_days'], 'day')} with data" + (f", {missing:,} missing" if missing else "")
    return values


def _cards(shown: Shown, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures as cards, and as a row of the comparison table."""
    page, cards = shown.page, []
    for name in page.figures:
        notes = page.measure(name).notes
        note = note_of(shown.rows, notes[values["_value"] is None and len(notes) > 1], values) if notes else None
        cards.append((page.label(name), written(shown.rows, name, values[name]), note))
    return {"value": values["_value"], "cards": cards, "cells": shown.cells(page.figures, values)}


def _heads(shown: Shown) -> list[tuple[str, str | None]]:
    """Return headings of the comparison table: labels with their units, or with notes that name no values."""
    heads = []
    for name in shown.page.figures:
        measure = shown.page.measure(name)
        plain = measure.note if isinstance(measure.note, str) and not measure.note_names else None
        heads.append((shown.page.label(name), shown.unit(name) or plain))
    return heads


def _as_data(shown: Shown, figures: Sequence[Mapping[str, Any]]) -> TableData:
    """Return the comparison table as data."""
    names = [*shown.page.figures, *(["_days"] if "_days" in figures[0] else [])]
    columns = [str(shown.page.compare), *(name.removeprefix("_") for name in names)]
    return TableData(columns, [[values["_value"], *(values[name] for name in names)] for values in figures])


# Charts and downloads


def _blocks(shown: Shown, totals: Mapping[str, Any]) -> list[list[Any]]:
    """Return charts and tables in rows; those over time have a row of their own."""
    blocks: list[list[Any]] = []
    was_over_time = True
    for name, chart in shown.page.charts.items():
        is_over_time = isinstance(chart, OverTime)
        if is_over_time or was_over_time:
            blocks.append([])
        blocks[-1].append(_chart_or_table(shown, name, chart, totals))
        was_over_time = is_over_time
    return blocks


def _chart_or_table(shown: Shown, name: str, chart: Chart, totals: Mapping[str, Any]) -> Any:
    match chart:
        case OverTime():
            return over_time(shown, name, chart)
        case Ranked():
            return ranked(shown, name, chart, totals)
        case Recurring():
            return recurring(shown, name, chart)
        case Frequency():
            return frequency(shown, name, chart)


def _data_links(shown: Shown) -> dict[str, str] | None:
    """Return the URLs of the data behind the page: chosen rows of production or of its aggregate; None if there are none."""
    rows, page = shown.rows, shown.page
    chosen = {
        **shown.filters,
        **({page.compare: values} if page.compare and (values := shown.compared) != [None] else {}),
    }
    is_summed_up = not chosen and not rows.is_row_by_row
    names = [*chosen, *([rows.time.name] if rows.time is not None else [])]
    columns = {name: name if is_summed_up else rows.stored_as(name) for name in names}
    if None in columns.values():
        return None
    params: list[tuple[str, object]] = []
    if shown.span is not None and rows.time is not None:
        params += [(f"{columns[rows.time.name]}__{by}", value) for by, value in shown.span.limits]
    for name, values in chosen.items():
        params += any_of(str(columns[name]), [str(value) for value in values])
    base = f"/api/datasets/{rows.dataset.name}/{f'analytics/{page.of}' if is_summed_up else 'rows'}"
    return {"csv": link(f"{base}.csv", params), "json": link(f"{base}/", params)}
