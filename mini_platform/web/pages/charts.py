"""Charts: pure functions from a few points to a figure with a caption and a table.

Figures are made in the format of Plotly's script: its Python library would check and copy every point several times.

Colours are names of CSS variables, which the page's script replaces by their values in either theme. Plotly interprets all
texts as HTML: `as_json` escapes every one of them, and hover templates are constants.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from itertools import groupby
from typing import Any

from markupsafe import Markup

from mini_platform.rows.wording import exact, money

COLOURS = tuple(f"var(--chart-{i})" for i in range(1, 6))
LONGEST_LABEL = 30
"""Maximum characters of a name along an axis."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Dash styles, so that lines differ by more than their colours."""
GRID, SOFT, INK = "var(--grid)", "var(--soft)", "var(--ink)"
AXIS: Mapping[str, Any] = {
    "gridcolor": GRID, "linecolor": GRID, "zerolinecolor": GRID, "automargin": True, "fixedrange": True,
}  # fmt: skip
LAYOUT: Mapping[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": SOFT},
    "margin": {"l": 52, "r": 12, "t": 10, "b": 36},
    "hovermode": "x unified",
    "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--strong-line)", "font": {"color": INK}},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
}


@dataclass(frozen=True)
class PlotlyFigure:
    """A Plotly figure, in the terms of https://plotly.com/javascript/reference.

    Attributes:
        data: traces of the figure: lines, bars.
        layout: axes, legend and margins.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure with its caption and its table.

    Attributes:
        id: id of the element.
        title: what is drawn.
        summary: caption, as a sentence.
        figure: figure as JSON for Plotly, safe in HTML.
        columns: headings of the table.
        rows: rows of the table; empty if there is no data.
        tall: True if it needs more height than others.
    """

    id: str
    title: str
    summary: str
    figure: Markup
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    tall: bool = False


@dataclass(frozen=True)
class Series:
    """Values over the points of an x axis, with an optional range around them; thin if dotted."""

    name: str
    values: Sequence[Any]
    low: Sequence[Any] | None = None
    high: Sequence[Any] | None = None
    dotted: bool = False


def _scale(unit: str) -> dict[str, Any]:
    """Return the format of an axis: $20k, or 20,000 with the unit along the axis; with all digits that differ."""
    if unit == "$":
        return {"tickprefix": "$", "exponentformat": "B", "separatethousands": True}
    title = {"text": unit, "standoff": 6}
    return {"title": title, "exponentformat": "power", "minexponent": 9, "separatethousands": True}


def _labels(values: Sequence[Any], unit: str) -> list[str]:
    """Return the hover text of each value: dollars, or the stored value with its unit."""
    if unit == "$":
        return ["" if value is None else money(value) for value in values]
    return ["" if value is None else f"{exact(value)} {unit}" for value in values]


def _named(names: Sequence[str], most: int) -> dict[str, Any]:
    """Return an axis of names, of which at most this many are written.

    Positions are numbers, as Plotly would merge names that look the same, and drop some, such as `constructor`.
    """
    places = range(0, len(names), max(1, -(-len(names) // most)))
    labels = [name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}…" for name in (names[i] for i in places)]
    ends = (-0.5, max(len(names), 1) - 0.5)
    return {"tickmode": "array", "tickvals": list(places), "ticktext": labels, "range": ends, "zeroline": False}


def lines(x: Sequence[Any], series: Sequence[Series], unit: str, *, to_zero: bool = False) -> PlotlyFigure:
    """Return lines over the same points, each with its range as a band."""
    data: list[dict[str, Any]] = []
    for i, one in enumerate(series):
        data += _band(x, one, i)
        line = {"color": COLOURS[i % len(COLOURS)], "width": 1.8, "dash": DASHES[i % len(DASHES)]}
        line = {"color": "var(--strong-line)", "width": 1, "dash": "dot"} if one.dotted else line
        data.append({
            "type": "scatter", "x": x, "y": one.values, "name": one.name, "customdata": _labels(one.values, unit),
            "hovertemplate": "%{customdata}", "connectgaps": False, "line": line, **_marks(one.values),
        })  # fmt: skip
    y = {**AXIS, "rangemode": "tozero" if to_zero else "normal", **_scale(unit)}
    return PlotlyFigure(data, {**LAYOUT, "xaxis": dict(AXIS), "yaxis": y, "showlegend": len(series) > 1})


def _marks(values: Sequence[Any]) -> dict[str, Any]:
    """Return the mode of a line: an isolated point between gaps is drawn as a dot."""
    padded = [None, *values, None]
    around = zip(padded, values, padded[2:], strict=False)
    alone = [value is not None and before is None and after is None for before, value, after in around]
    if not any(alone):
        return {"mode": "lines"}
    return {"mode": "lines+markers", "marker": {"size": [6 if dot else 0 for dot in alone], "opacity": 1}}


def broken(x: Sequence[Any], longest: Any) -> list[Any]:
    """Return the points of an axis with an extra one in each gap longer than this, so that no line is drawn across it."""
    points: list[Any] = []
    for point in x:
        if points and point - points[-1] > longest:
            points.append(points[-1] + (point - points[-1]) / 2)
        points.append(point)
    return points


def _band(x: Sequence[Any], one: Series, place: int) -> Iterator[dict[str, Any]]:
    """Yield the range around a line, in pieces without gaps, as Plotly fills across gaps."""
    if one.low is None or one.high is None:
        return
    points = list(zip(x, one.low, one.high, strict=True))
    for has_values, stretch in groupby(points, key=lambda point: point[1] is not None):
        if has_values:
            at, low, high = zip(*stretch, strict=True)
            edge = {
                "type": "scatter",
                "mode": "lines",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                "x": at,
            }
            yield {**edge, "y": low}
            yield {**edge, "y": high, "fill": "tonexty", "fillcolor": f"var(--chart-{place + 1}-soft)"}


def bars_over_time(
    x: Sequence[Any], series: Sequence[Series], unit: str, pale: Sequence[bool], below: PlotlyFigure | None
) -> PlotlyFigure:
    """Return bars over the same points as the lines of a figure, below them; pale for incomplete sums."""
    figure = below or PlotlyFigure([], {**LAYOUT, "xaxis": dict(AXIS), "showlegend": len(series) > 1})
    axis = "y2" if below else "y"
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)] if len(series) > 1 else "var(--bars)" if below else COLOURS[0]
        marker = {"color": colour, "line": {"width": 0}, "opacity": [0.4 if part else 1 for part in pale]}
        figure.data.append({
            "type": "bar", "x": x, "y": one.values, "name": one.name, "yaxis": axis, "marker": marker,
            "showlegend": not below and len(series) > 1, "customdata": _labels(one.values, unit),
            "hovertemplate": "%{customdata}",
        })  # fmt: skip
    figure.layout.update(barmode="group", bargap=0.1)
    if below is None:
        figure.layout["yaxis"] = {**AXIS, "rangemode": "tozero", **_scale(unit)}
        return figure
    figure.layout["yaxis"]["domain"] = [0.36, 1]
    figure.layout["xaxis"]["anchor"] = "y2"
    scale = {**_scale(unit), "title": {"text": unit, "standoff": 6}}
    figure.layout["yaxis2"] = {
        **AXIS, "domain": [0, 0.27], "tickmode": "auto", "nticks": 4, "rangemode": "tozero", **scale,
    }  # fmt: skip
    return figure


def bars(
    names: Sequence[str], series: Sequence[Series], unit: str, *, stacked: bool = False, most: int = 12
) -> PlotlyFigure:
    """Return grouped or stacked bars, of which at most this many are labelled."""
    places = list(range(len(names)))
    data = [{"x": places, "y": one.values, **_bar(names, one, unit, i)} for i, one in enumerate(series)]
    # A few bars over the whole width would be too wide.
    gap = max(0.25, 1 - len(names) / 8)
    layout = {
        **LAYOUT, "xaxis": {**AXIS, **_named(names, most)}, "yaxis": {**AXIS, "rangemode": "tozero", **_scale(unit)},
        "showlegend": len(series) > 1, "barmode": "stack" if stacked else "group", "bargap": gap, "hovermode": "closest",
    }  # fmt: skip
    return PlotlyFigure(data, layout)


def across(names: Sequence[str], series: Sequence[Series], unit: str) -> PlotlyFigure:
    """Return horizontal bars, one group per name, the first at the top."""
    places = list(range(len(names)))
    data = [
        {"x": one.values, "y": places, "orientation": "h", **_bar(names, one, unit, i)} for i, one in enumerate(series)
    ]
    axis = _named(names, len(names) or 1)
    layout = {
        **LAYOUT, "xaxis": {**AXIS, "rangemode": "tozero", **_scale(unit)},
        "yaxis": {**AXIS, **axis, "ticksuffix": " ", "range": axis["range"][::-1]},
        "showlegend": len(series) > 1, "hovermode": "closest", "bargap": 0.25,
    }  # fmt: skip
    return PlotlyFigure(data, layout)


def _bar(names: Sequence[str], one: Series, unit: str, place: int) -> dict[str, Any]:
    """Return the style and the hover text of the bars of a series."""
    texts = [list(item) for item in zip(names, _labels(one.values, unit), strict=True)]
    return {
        "type": "bar", "name": one.name, "marker": {"color": COLOURS[place % len(COLOURS)], "line": {"width": 0}},
        "customdata": texts, "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}",
    }  # fmt: skip


def as_json(figure: PlotlyFigure) -> Markup:
    """Return a figure as JSON that is safe in HTML and that Plotly takes for plain text."""
    text = json.dumps({"data": _sent(figure.data), "layout": _sent(figure.layout)})
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def _sent(part: Any, name: str = "") -> Any:
    """Return a part of a figure as a JSON value.

    Texts are escaped, except for templates, which are constants.
    """
    match part:
        case float():
            return part if math.isfinite(part) else None
        case str():
            return part if name == "hovertemplate" else escape(part, quote=False)
        case dict():
            return {key: _sent(item, key) for key, item in part.items()}
        case list() | tuple():
            return [_sent(item) for item in part]
        case dt.date():
            return part.isoformat()
        case Decimal():
            return float(part)
    return part
