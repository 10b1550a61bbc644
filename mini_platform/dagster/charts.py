"""Small charts of tables and loads, as SVG that the Dagster UI shows without scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Numeric, Select, Table, func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.rows.wording import number
from mini_platform.warehouse.exactness import as_double
from mini_platform.warehouse.tables import files

CHART_POINTS = 120
CHART_FILES = 20
WIDTH, HEIGHT = 480, 120
COLOURS = ("#4c78a8", "#f58518", "#b8b8b8", "#9d755d", "#e45756")


def files_chart(conn: Connection, dataset: Dataset, counters: Sequence[str]) -> dg.MarkdownMetadataValue | None:
    """Return stacked bars of these counters for the last files, oldest first; None if all are 0."""
    last_files = (
        select(files)
        .where(files.c.dataset == dataset.name, files.c.same_as.is_(None))
        .order_by(files.c.file_id.desc())
        .limit(CHART_FILES)
    )
    rows = list(reversed(conn.execute(last_files).mappings().all()))
    names = [name.removeprefix("rows_") for name in counters]
    return bars([row["name"] for row in rows], names, [[row[c] or 0 for c in counters] for row in rows])


def line_chart(conn: Connection, table: Table, x: str, y: str) -> dg.MarkdownMetadataValue | None:
    """Return a line of the mean of `y` over `x`, in at most CHART_POINTS steps with the same number of rows.

    None if a column is personal, or there are fewer than two points. Means are computed as numeric: sums of floats may
    overflow.
    """
    if any(table.c[name].info.get("personal") for name in (x, y)):
        return None
    steps = select(
        table.c[x].label("x"), table.c[y].label("y"), func.ntile(CHART_POINTS).over(order_by=table.c[x]).label("step")
    ).subquery()
    means: Select[Any] = (
        select(func.min(steps.c.x).label("x"), as_double(func.avg(steps.c.y.cast(Numeric))).label("y"))
        .where(steps.c.y.is_not(None))
        .group_by(steps.c.step)
        .order_by(steps.c.step)
    )
    rows = conn.execute(means).all()
    if len(rows) < 2:  # A line needs two points.
        return None
    return line(f"mean of {y} over {x}", [float(row.y) for row in rows], str(rows[0].x), str(rows[-1].x))


def line(
    title: str, values: Sequence[float], first: str, last: str, usual: tuple[float, float] | None = None
) -> dg.MarkdownMetadataValue:
    """Return a line through at least two values, labelled at both ends.

    `usual` is a range that is shaded; if it is given, the last value is a dot.
    """
    low, high = min((*values, *(usual or ()))), max((*values, *(usual or ())))
    scale = (HEIGHT - 30) / ((high - low) or 1)
    step = (WIDTH - 50) / (len(values) - 1)
    positions = [(45 + i * step, 10 + (high - value) * scale) for i, value in enumerate(values)]
    body = ""
    if usual:
        top, bottom = (10 + (high - value) * scale for value in reversed(usual))
        body += f'<rect x="45" y="{top:.1f}" width="{WIDTH - 50}" height="{bottom - top:.1f}" fill="#8882"/>'
        body += f'<circle cx="{positions[-1][0]:.1f}" cy="{positions[-1][1]:.1f}" r="3" fill="{COLOURS[-1]}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
    body += (
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5"/>'
        + _text(2, 14, number(high))
        + _text(2, HEIGHT - 20, number(low))
        + _text(45, HEIGHT - 4, first)
        + _text(WIDTH - 5, HEIGHT - 4, last, "end")
    )
    return _svg(title, body)


def bars(
    labels: Sequence[str], series: Sequence[str], values: Sequence[Sequence[float]]
) -> dg.MarkdownMetadataValue | None:
    """Return stacked bars, one per label, with a legend of the series; None if there is nothing to draw."""
    highest = max((sum(v) for v in values), default=0)
    if highest <= 0:
        return None
    width = (WIDTH - 50) / len(values)
    body = _text(2, 24, number(highest)) + _text(2, HEIGHT - 20, "0")
    for i, (label, parts) in enumerate(zip(labels, values, strict=True)):
        top = HEIGHT - 20.0
        for part, colour in zip(parts, COLOURS, strict=False):
            height = part / highest * (HEIGHT - 40)
            top -= height
            body += (
                f'<rect x="{45 + i * width:.1f}" y="{top:.1f}" width="{max(width - 2, 1):.1f}" height="{height:.1f}" '
                f'fill="{colour}"><title>{escape(label)}: {number(part)}</title></rect>'
            )
    for i, (name, colour) in enumerate(zip(series, COLOURS, strict=False)):
        body += f'<rect x="{45 + i * 85}" y="2" width="8" height="8" fill="{colour}"/>' + _text(56 + i * 85, 10, name)
    body += _text(45, HEIGHT - 6, labels[0][:30])
    if len(labels) > 1:
        body += _text(WIDTH - 5, HEIGHT - 6, labels[-1][:30], "end")
    return _svg(" and ".join(series), body)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="10" font-family="sans-serif" fill="#666" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _svg(title: str, body: str) -> dg.MarkdownMetadataValue:
    image = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">{body}</svg>'
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()})")
