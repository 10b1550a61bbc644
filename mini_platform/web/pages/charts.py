"""Charts: pure functions of a few points, which give a figure with its words and its table.

Figures are made as Plotly's script takes them: its Python library would check and copy every point several times.

Colours are names of CSS variables, which the page's script replaces by their values, in either theme. Plotly takes texts for
HTML, whatever they are for: `as_json` escapes every one of them, and templates of what is shown at the pointer are constants.
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
"""Characters of a name along an axis."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Lines differ by more than their colours, for those who see these alike."""
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
class Figure:
    """What Plotly draws, in the words of https://plotly.com/javascript/reference.

    Attributes:
        data: its traces: lines, bars.
        layout: axes, legend and what is around them.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure with what it says in words and as a table.

    Attributes:
        id: of its element.
        title: what is drawn.
        summary: what it shows, in a sentence.
        figure: as JSON for Plotly; it may stand in HTML.
        columns: headings of the table.
        rows: of the table; none where there is nothing to draw.
        tall: whether it needs more height than others.
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
    """Values over the points of an x axis, with a range around them where there is one; thin if they are dotted."""

    name: str
    values: Sequence[Any]
    low: Sequence[Any] | None = None
    high: Sequence[Any] | None = None
    dotted: bool = False


def _scale(unit: str) -> dict[str, Any]:
    """How the axis of a unit is labelled: $20k, or 20,000 with the unit along the axis; with all digits that differ."""
    if unit == "$":
        return {"tickprefix": "$", "exponentformat": "B", "separatethousands": True}
    title = {"text": unit, "standoff": 6}
    return {"title": title, "exponentformat": "power", "minexponent": 9, "separatethousands": True}


def _labels(values: Sequence[Any], unit: str) -> list[str]:
    """What is shown of each value at the pointer: dollars, anything else as it is stored, with its unit."""
    if unit == "$":
        return ["" if value is None else money(value) for value in values]
    return ["" if value is None else f"{exact(value)} {unit}" for value in values]


def _named(names: Sequence[str], most: int) -> dict[str, Any]:
    """An axis of names, at most so many of which are written.

    Places are numbers, as Plotly would take two names that look the same for one, and some, such as `constructor`, for none.
    """
    places = range(0, len(names), max(1, -(-len(names) // most)))
    labels = [name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}…" for name in (names[i] for i in places)]
    ends = (-0.5, max(len(names), 1) - 0.5)
    return {"tickmode": "array", "tickvals": list(places), "ticktext": labels, "range": ends, "zeroline": False}


def lines(x: Sequence[Any], series: Sequence[Series], unit: str, *, to_zero: bool = False) -> Figure:
    """Lines over the same points, each with its range as a band."""
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
    return Figure(data, {**LAYOUT, "xaxis": dict(AXIS), "yaxis": y, "showlegend": len(series) > 1})


def _marks(values: Sequence[Any]) -> dict[str, Any]:
    """How a line is drawn: a point that stands alone between gaps, where no line can be, as a dot."""
    padded = [None, *values, None]
    around = zip(padded, values, padded[2:], strict=False)
    alone = [value is not None and before is None and after is None for before, value, after in around]
    if not any(alone):
        return {"mode": "lines"}
    return {"mode": "lines+markers", "marker": {"size": [6 if dot else 0 for dot in alone], "opacity": 1}}


def broken(x: Sequence[Any], longest: Any) -> list[Any]:
    """The points of an axis, with one more wherever the next is further away than that: there, no line is drawn."""
    made: list[Any] = []
    for point in x:
        if made and point - made[-1] > longest:
            made.append(made[-1] + (point - made[-1]) / 2)
        made.append(point)
    return made


def _band(x: Sequence[Any], one: Series, place: int) -> Iterator[dict[str, Any]]:
    """The range around a line; a piece for each stretch without a gap, as Plotly fills across gaps."""
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
    x: Sequence[Any], series: Sequence[Series], unit: str, pale: Sequence[bool], below: Figure | None
) -> Figure:
    """Bars over the same points as the lines of a figure, below them; pale where they are sums of a part."""
    figure = below or Figure([], {**LAYOUT, "xaxis": dict(AXIS), "showlegend": len(series) > 1})
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


def bars(names: Sequence[str], series: Sequence[Series], unit: str, *, stacked: bool = False, most: int = 12) -> Figure:
    """Bars side by side, or one on the other; under at most so many of them stands a name."""
    places = list(range(len(names)))
    data = [{"x": places, "y": one.values, **_bar(names, one, unit, i)} for i, one in enumerate(series)]
    # A few bars over the whole width would look like walls.
    gap = max(0.25, 1 - len(names) / 8)
    layout = {
        **LAYOUT, "xaxis": {**AXIS, **_named(names, most)}, "yaxis": {**AXIS, "rangemode": "tozero", **_scale(unit)},
        "showlegend": len(series) > 1, "barmode": "stack" if stacked else "group", "bargap": gap, "hovermode": "closest",
    }  # fmt: skip
    return Figure(data, layout)


def across(names: Sequence[str], series: Sequence[Series], unit: str) -> Figure:
    """Bars that lie, one group per name, the first at the top."""
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
    return Figure(data, layout)


def _bar(names: Sequence[str], one: Series, unit: str, place: int) -> dict[str, Any]:
    """How the bars of a series look, and what is shown at the pointer."""
    said = [list(item) for item in zip(names, _labels(one.values, unit), strict=True)]
    return {
        "type": "bar", "name": one.name, "marker": {"color": COLOURS[place % len(COLOURS)], "line": {"width": 0}},
        "customdata": said, "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}",
    }  # fmt: skip


def as_json(figure: Figure) -> Markup:
    """A figure as JSON that neither Plotly nor the HTML around it can take for more than text."""
    text = json.dumps({"data": _sent(figure.data), "layout": _sent(figure.layout)})
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def _sent(part: Any, name: str = "") -> Any:
    """A part of a figure as JSON has it.

    Texts are shown as they are, but for templates, in which there is nothing but our own words.
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
