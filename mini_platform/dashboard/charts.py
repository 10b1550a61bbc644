"""Charts: pure functions of a few points, which give a Plotly figure with its words and its table.

Colours are names of CSS variables, which the page's script replaces by their values, in either theme. Plotly takes texts for
HTML, whatever they are for: `as_json` escapes every one of them, and templates of what is shown at the pointer are constants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mini_platform.wording import exact, money

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

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
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": SOFT},
    "margin": {"l": 52, "r": 12, "t": 10, "b": 36},
    "hovermode": "x unified",
    "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--strong-line)", "font": {"color": INK}},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
}


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
    """Values over the points of an x axis, with a range around them where there is one."""

    name: str
    values: Sequence[Any]
    low: Sequence[Any] | None = None
    high: Sequence[Any] | None = None


def _scale(unit: str) -> dict[str, Any]:
    """How the axis of a unit is labelled: $20k, or 20,000 with the unit along the axis; with all digits that differ."""
    if unit == "$":
        return {"tickprefix": "$", "exponentformat": "B", "separatethousands": True}
    title = {"text": unit, "standoff": 6}
    return {"title": title, "exponentformat": "power", "minexponent": 9, "separatethousands": True}


def _said(values: Sequence[Any], unit: str) -> list[str]:
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
    import plotly.graph_objects as go

    figure = go.Figure(layout=dict(LAYOUT))
    for i, one in enumerate(series):
        _add_band(figure, x, one, i)
        figure.add_scatter(
            x=x, y=one.values, name=one.name, customdata=_said(one.values, unit), hovertemplate="%{customdata}",
            connectgaps=False,
            line={"color": COLOURS[i % len(COLOURS)], "width": 1.8, "dash": DASHES[i % len(DASHES)]}, **_marks(one.values),
        )  # fmt: skip
    figure.update_xaxes(AXIS)
    figure.update_yaxes(AXIS, rangemode="tozero" if to_zero else "normal", **_scale(unit))
    figure.update_layout(showlegend=len(series) > 1)
    return figure


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


def _add_band(figure: Figure, x: Sequence[Any], one: Series, place: int) -> None:
    """The range around a line; a piece for each stretch without a gap, as Plotly fills across gaps."""
    if one.low is None or one.high is None:
        return
    points = list(zip(x, one.low, one.high, strict=True))
    for has_values, stretch in groupby(points, key=lambda point: point[1] is not None):
        if has_values:
            at, low, high = zip(*stretch, strict=True)
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "x": at}
            figure.add_scatter(y=low, **edge)
            figure.add_scatter(y=high, fill="tonexty", fillcolor=f"var(--chart-{place + 1}-soft)", **edge)


def weather(x: Sequence[Any], temperature: Sequence[Series], rain: Sequence[Series], pale: Sequence[bool]) -> Figure:
    """Temperature above, precipitation below, over the same days; bars are pale where they are sums of a part."""
    figure = lines(x, temperature, "°C")
    for i, one in enumerate(rain):
        colour = COLOURS[i] if len(rain) > 1 else "var(--rain)"
        marker = {"color": colour, "line": {"width": 0}, "opacity": [0.4 if part else 1 for part in pale]}
        figure.add_bar(
            x=x, y=one.values, name=one.name if len(rain) > 1 else "precipitation", yaxis="y2",
            marker=marker, showlegend=False, customdata=_said(one.values, "mm"), hovertemplate="%{customdata}",
        )  # fmt: skip
    figure.update_layout(
        yaxis={"domain": [0.36, 1]},
        yaxis2={**AXIS, "domain": [0, 0.27], "tickmode": "auto", "nticks": 4, "rangemode": "tozero",
                "title": {"text": "mm", "standoff": 6}},
        xaxis={"anchor": "y2"},
        barmode="group",
        bargap=0.1,
    )  # fmt: skip
    return figure


def bars(names: Sequence[str], series: Sequence[Series], unit: str, *, stacked: bool = False, most: int = 12) -> Figure:
    """Bars side by side, or one on the other; under at most so many of them stands a name."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=dict(LAYOUT))
    for i, one in enumerate(series):
        figure.add_bar(x=list(range(len(names))), y=one.values, **_bar(names, one, unit, i))
    figure.update_xaxes(AXIS, **_named(names, most))
    figure.update_yaxes(AXIS, rangemode="tozero", **_scale(unit))
    # A few bars over the whole width would look like walls.
    gap = max(0.25, 1 - len(names) / 8)
    figure.update_layout(
        showlegend=len(series) > 1, barmode="stack" if stacked else "group", bargap=gap, hovermode="closest"
    )
    return figure


def across(names: Sequence[str], series: Sequence[Series], unit: str) -> Figure:
    """Bars that lie, one group per name, the first at the top."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=dict(LAYOUT))
    for i, one in enumerate(series):
        figure.add_bar(x=one.values, y=list(range(len(names))), orientation="h", **_bar(names, one, unit, i))
    axis = _named(names, len(names) or 1)
    figure.update_yaxes(AXIS, ticksuffix=" ", **{**axis, "range": axis["range"][::-1]})
    figure.update_xaxes(AXIS, rangemode="tozero", **_scale(unit))
    figure.update_layout(showlegend=len(series) > 1, hovermode="closest", bargap=0.25)
    return figure


def _bar(names: Sequence[str], one: Series, unit: str, place: int) -> dict[str, Any]:
    """How the bars of a series look, and what is shown at the pointer."""
    said = [list(item) for item in zip(names, _said(one.values, unit), strict=True)]
    return {
        "name": one.name, "marker": {"color": COLOURS[place % len(COLOURS)], "line": {"width": 0}},
        "customdata": said, "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}",
    }  # fmt: skip


def as_json(figure: Figure) -> Markup:
    """A figure as JSON that neither Plotly nor the HTML around it can take for more than text."""
    text = json.dumps(_escaped(json.loads(figure.to_json(engine="json"))))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def _escaped(part: Any, name: str = "") -> Any:
    """A part of a figure whose texts are shown as they are, but for templates, in which there is nothing but our own words."""
    if isinstance(part, dict):
        return {key: _escaped(item, key) for key, item in part.items()}
    if isinstance(part, list):
        return [_escaped(item) for item in part]
    return escape(part, quote=False) if isinstance(part, str) and name != "hovertemplate" else part
