"""Small inline SVG charts: the row results of a file, and a fraction over time. Each has a text label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mini_platform.rows.wording import number, percent

PARTS = ("inserted", "updated", "unchanged", "superseded", "rejected")
"""Results of the rows of a file; their sum is the number of rows."""
WIDTH, HEIGHT = 120, 28
LEAST = 1.5
"""Minimum width of a part that has rows, so that one reject in a million is visible."""


def accounting_bar(file: Mapping[str, Any]) -> Markup:
    """Return the row results of a file or of several as a stacked bar; empty if they are unknown."""
    read = file["rows_read"] or 0
    counts = {part: file[f"rows_{part}"] or 0 for part in PARTS}
    total = sum(counts.values())
    if not total:
        return Markup("")
    words = f"{read:,} rows read: " + ", ".join(f"{number(n)} {part}" for part, n in counts.items() if n)
    widths = {part: max(n / total * 100, LEAST) for part, n in counts.items() if n}
    scale = 100 / sum(widths.values())
    x, rects = 0.0, Markup("")
    for part, width in widths.items():
        rects += Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"><title>{}</title></rect>').format(
            part, x, width * scale, f"{number(counts[part])} {part}"
        )
        x += width * scale
    return Markup(
        '<svg class="accounting" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(words, rects)


def share_bars(shares: Sequence[float], labels: Sequence[str], title: str) -> Markup:
    """Return fractions as small bars, oldest first."""
    if not shares:
        return Markup("")
    highest = max(*shares, 0.02)
    step = min(WIDTH / len(shares), 14)
    rects = Markup("")
    for i, (share, label) in enumerate(zip(shares, labels, strict=True)):
        height = max(share / highest * (HEIGHT - 2), 1.5)
        rects += Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"><title>{}</title></rect>'
        ).format(
            "bad" if share else "good", WIDTH - (len(shares) - i) * step, HEIGHT - height, max(step - 2, 1), height, label
        )  # fmt: skip
    words = f"{title}: {percent(shares[-1])} in the last of {len(shares)}, maximum {percent(max(shares))}"
    return Markup('<svg class="shares" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, words, rects
    )


def spark_line(values: Sequence[float], title: str) -> Markup:
    """Return a figure that is never negative as a line from 0 up; empty if it never changed."""
    if len(set(values)) < 2:
        return Markup("")
    high = max(values) or 1
    places = (
        f"{i * WIDTH / (len(values) - 1):.1f},{2 + (high - v) / high * (HEIGHT - 4):.1f}" for i, v in enumerate(values)
    )
    words = f"{title}, from {percent(values[0])} to {percent(values[-1])}"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(WIDTH, HEIGHT, words, " ".join(places))
