"""Declared pages: what a request chooses of a dataset's rows, and the page that shows it.

Here: choices, span, figures and downloads, the same for every dataset. Not here: the words of a page (`pages.py` of the package
above), what they select (`warehouse/page_rows.py`), charts (`page_charts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import ColumnElement, Connection, Text, select

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import (
    COMPARED,
    COVERAGE,
    Chart,
    Frequency,
    OverTime,
    Ranked,
    Recurring,
    many,
    parameter_of,
    words_of,
)
from mini_platform.rows.wording import plural
from mini_platform.warehouse.page_rows import PageRows
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.api.query import any_of
from mini_platform.web.api.relations import python_type
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
"""Values that a field offers; others are found by typing a part of one."""
CHIPS = 30
"""Values of a filter up to which each can be chosen by a click; of more, one is typed."""
NEAR = 12
"""Values that are named where somebody typed what is in several of them."""


def add_declared_pages(app: FastAPI, datasets: Mapping[str, Dataset]) -> None:
    """Let the app serve the page of each dataset that declares one, at `/<name>`."""
    for dataset in datasets.values():
        if dataset.page is not None:
            show = _listing if dataset.page.is_listing else _page
            guarded = [Depends(allowed("read", dataset.name))]
            app.add_api_route(f"/{dataset.name}", show(dataset), include_in_schema=False, dependencies=guarded)


def _listing(dataset: Dataset) -> Callable[..., Response]:
    def show(request: Request, site: SiteDep) -> Response:
        return browse.listing_page(request, site, dataset, clear=dataset.page is not None and dataset.page.unmasked)

    return show


def _page(dataset: Dataset) -> Callable[..., Response]:
    def show(request: Request, site: SiteDep) -> Response:
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
    """A column of which values can be chosen.

    Attributes:
        name: the parameter in the address.
        label: of the field.
        known: the first of its values, each with its number of rows, if that is known.
        is_typed: True if there are too many values to show each.
        chosen: values that are chosen.
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
        unknown: names that no value has.
        near: values that have such a text in them.
        is_cut: True if more were asked for than can be shown.
    """

    unknown: Sequence[str]
    near: Sequence[Any]
    is_cut: bool
    most = COMPARED

    @property
    def many(self) -> str:
        """Several of its values, as a noun."""
        return many(self.name)


def declared_page(request: Request, conn: Connection, rows: PageRows) -> Response:
    """Answer with the page of a dataset, by what the request chooses.

    Raises:
        ProblemError: a parameter cannot be read.
    """
    page, dataset = rows.page, rows.dataset
    given: dict[str, Any] = {"dataset": dataset, "page": page, "state": reads.state(conn)}
    compared = _compared(request, conn, rows, page.compare) if page.compare else None
    side_by_side = {page.compare: compared.chosen} if compared and compared.chosen and page.compare else {}
    first, last = conn.execute(rows.held(side_by_side)).one()
    if first is None:
        return render(request, "page.html", empty=True, **given)
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
        alternates=_twins(shown), **given,
    )  # fmt: skip


# What is chosen


def _span(request: Request, rows: PageRows, held: tuple[Any, Any]) -> Span | Moments:
    since, until = request.query_params.get("from"), request.query_params.get("to")
    if rows.has_moments:
        return moments(parse_moment("from", since), parse_moment("to", until), held)
    return span(parse_day("from", since), parse_day("to", until), request.query_params.get("by") or None, held)


def _typed(column: ColumnElement[Any], words: Sequence[str]) -> list[Any]:
    """Texts as values of a column; without those that cannot be one."""
    values = []
    for text in words:
        try:
            values.append(read(python_type(column), text))
        except ValueError:
            continue
    return values


def _compared(request: Request, conn: Connection, rows: PageRows, name: str) -> Compared:
    """The values of these names, the names that none has, and values that have such a text in them."""
    parameter = parameter_of(name)
    table, column, _ = rows.values(name)
    # No text has U+0000, which Postgres does not take.
    asked = request.query_params.getlist(parameter)
    wanted = list(dict.fromkeys(text for words in asked if (text := words.replace("\0", "").strip())))
    found = {str(value): value for value in conn.scalars(select(column).where(column.in_(_typed(column, wanted))))}
    unknown = [text for text in wanted if text not in found]
    in_text = column.cast(Text)

    def near(text: str) -> list[Any]:
        chosen = select(column).select_from(table).where(in_text.icontains(text, autoescape=True))
        return list(conn.scalars(chosen.order_by(column).limit(NEAR)))

    likely = list(dict.fromkeys(value for text in unknown for value in near(text)))
    if len(unknown) == 1 and len(likely) == 1:
        found[unknown[0]] = likely[0]
        unknown, likely = [], []
    chosen = list(dict.fromkeys(found[text] for text in wanted if text in found))
    known = _known(conn, rows, name, SUGGESTED)
    return Compared(
        parameter, words_of(parameter), known, True, chosen[:COMPARED], unknown, likely, len(wanted) > COMPARED,
    )  # fmt: skip


def _filter(request: Request, conn: Connection, rows: PageRows, name: str) -> Field:
    """A column of which one value can be chosen.

    Raises:
        ProblemError: what is chosen cannot be a value of it.
    """
    parameter, column = parameter_of(name), rows.column(name)
    asked = request.query_params.get(parameter)
    values = _typed(column, [asked]) if asked else []
    if asked and not values:
        raise ProblemError(f"{parameter} is {asked!r}, which cannot be a value of it.")
    known = _known(conn, rows, name, SUGGESTED)
    return Field(parameter, words_of(parameter), known, len(known) > CHIPS, values)


def _known(conn: Connection, rows: PageRows, name: str, most: int) -> list[tuple[Any, int | None]]:
    table, column, count = rows.values(name)
    found = select(column, *([] if count is None else [count])).select_from(table).order_by(column).limit(most)
    return [(row[0], None if count is None else row[1]) for row in conn.execute(found)]


# Figures


def _figures(shown: Shown, value: Any) -> dict[str, Any]:
    """What the rows amount to, of one of the values that are compared or of all; by the names of measures, and `_rows`."""
    rows, page = shown.rows, shown.page
    orders = [order_of(chart) for chart in page.charts.values() if isinstance(chart, Ranked)]
    noted = {name for figure in page.figures for name in page.measure(figure).noted}
    used = dict.fromkeys(name for name in (*page.figures, *sorted(noted - {COVERAGE}), *orders))
    # Different values, and what is computed for each of them, are found by one look at the values of their column.
    of_values = {name: column for name in used if (column := page.measure(name).of_values)}
    plain = [name for name in used if name not in of_values]
    chosen = shown.summed_up(plain, value)
    also = [rows.count(chosen).label("_rows"), *([rows.days(chosen).label("_days")] if COVERAGE in noted else [])]
    found = shown.conn.execute(select(*also, *rows.measures(chosen, plain)).select_from(chosen)).mappings().one()
    values = {"_value": value, "_rows": int(found["_rows"]), **rows.read(found, plain)}
    for name, column in of_values.items():
        counted = shown.per_value(column, value)
        if page.measure(name).each:
            values[name] = counted.means.get(name)
        else:
            values[name] = sum(counted.values.values())
    if COVERAGE in noted and isinstance(shown.span, Span):
        values["_days"], missing = found["_days"], shown.span.days - found["_days"]
        values[COVERAGE] = f"on {plural(found['_days'], 'day')}" + (f", none on {missing:,}" if missing else "")
    return values


def _cards(shown: Shown, values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as cards, and as a row of the table that compares values."""
    page, cards = shown.page, []
    for name in page.figures:
        notes = page.measure(name).notes
        note = note_of(shown.rows, notes[values["_value"] is None and len(notes) > 1], values) if notes else None
        cards.append((page.label(name), written(shown.rows, name, values[name]), note))
    return {"value": values["_value"], "cards": cards, "cells": shown.cells(page.figures, values)}


def _heads(shown: Shown) -> list[tuple[str, str | None]]:
    """Headings of the table that compares values: labels with their units, or with notes that name nothing."""
    heads = []
    for name in shown.page.figures:
        measure = shown.page.measure(name)
        plain = measure.note if isinstance(measure.note, str) and not measure.noted else None
        heads.append((shown.page.label(name), shown.unit(name) or plain))
    return heads


def _as_data(shown: Shown, figures: Sequence[Mapping[str, Any]]) -> TableData:
    """The values that are compared, side by side."""
    names = [*shown.page.figures, *(["_days"] if "_days" in figures[0] else [])]
    columns = [str(shown.page.compare), *(name.removeprefix("_") for name in names)]
    return TableData(columns, [[of["_value"], *(of[name] for name in names)] for of in figures])


# Charts and downloads


def _blocks(shown: Shown, totals: Mapping[str, Any]) -> list[list[Any]]:
    """Charts and tables: those over time alone, the others in rows."""
    blocks: list[list[Any]] = []
    was_over_time = True
    for name, chart in shown.page.charts.items():
        is_over_time = isinstance(chart, OverTime)
        if is_over_time or was_over_time:
            blocks.append([])
        blocks[-1].append(_made(shown, name, chart, totals))
        was_over_time = is_over_time
    return blocks


def _made(shown: Shown, name: str, chart: Chart, totals: Mapping[str, Any]) -> Any:
    match chart:
        case OverTime():
            return over_time(shown, name, chart)
        case Ranked():
            return ranked(shown, name, chart, totals)
        case Recurring():
            return recurring(shown, name, chart)
        case Frequency():
            return frequency(shown, name, chart)


def _twins(shown: Shown) -> dict[str, str] | None:
    """Where the data behind the page is: rows of production that are chosen, or of what sums them up; None if it is nowhere."""
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
