"""Numbers and words of pages, at the edges: 0, 1, all, a part, none; very small, very large."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_platform.rows.wording import exact, money, number, percent, plain, plural, size
from mini_platform.web.pages import charts
from mini_platform.web.pages.charts import Series
from mini_platform.web.pages.rendering import cell, duration

HOSTILE = (
    "<a href='//ev.il'>in</a>",
    "<b>x</b>",
    "a<br>b",
    "&lt;b&gt;",
    "%{x}",
    "var(--ink)",
    "constructor",
    "__proto__",
    "",
)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, "–"), (0, "0%"), (1, "100%"), (0.5, "50%"), (1e-9, "<0.1%"), (0.001, "0.1%"), (0.0504, "5.0%"),
        (2999 / 3000, ">99.9%"), (1 - 1e-9, ">99.9%"), (0.995, "99.5%"), (0.949, "95%"), (1.004, "100.4%"),
        (12.5, "1,250%"), (-0.004, "−0.4%"), (-1e-9, ">−0.1%"), (-0.5, "−50%"), (-1, "−100%"),
        (-2999 / 3000, "<−99.9%"), (-0.0, "0%"), (float("nan"), "–"), (float("inf"), "–"), (Decimal("0.25"), "25%"),
    ],
)  # fmt: skip
def test_shares(share: float | None, expected: str) -> None:
    assert percent(share) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_share_is_none_or_all_only_if_it_is(share: float) -> None:
    assert (percent(share) == "0%") == (share == 0)
    assert (percent(share) == "100%") == (share == 1)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (None, None, "–"), (float("nan"), None, "–"), (0, None, "0"), (-0.0, 2, "0.00"), (1, None, "1"), (-1, None, "−1"),
        (2000, None, "2,000"), (0.5, None, "0.50"), (0.005, None, "0.005"), (0.000123, 1, "0.000123"), (-0.04, 1, "−0.04"),
        (1e-10, 3, "1e−10"), (1e200, 3, "1e200"), (-1.5e300, None, "−1.5e300"), (12345.678, None, "12,346"),
        (1.6, 0, "2"), (0.4, 0, "0.4"), (Decimal("1E-10"), None, "1e−10"),
        (Decimal("1E+20"), None, "100,000,000,000,000,000,000"),
    ],
)  # fmt: skip
def test_numbers(value: Any, digits: int | None, expected: str) -> None:
    assert number(value, digits) == expected


@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
)
def test_a_number_reads_0_only_if_it_is_and_a_cell_is_exact(value: Any) -> None:
    for digits in (None, 0, 3):
        assert any(c in number(value, digits) for c in "123456789") == (value != 0)
        assert number(value, digits).startswith("−") == (value < 0)
    text = exact(value).replace(",", "").replace("−", "-")
    assert type(value)(text) == value
    assert str(cell(value)) == exact(value)


def test_decimals_are_plain() -> None:
    assert [plain(Decimal(text)) for text in ("1E-10", "1E+3", "1.50", "-0.00")] == [
        "0.0000000001",
        "1000",
        "1.50",
        "-0.00",
    ]
    assert plain("1E-10") == "1E-10"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"), (0, "$0.00"), (0.001, "$0.001"), (-5, "−$5.00"), (999.999, "$1,000.00"), (1234.5, "$1,234"),
        (Decimal("2.5e9"), "$2.50 bn"), (1e200, "$1e191 bn"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_money(value: Any, expected: str) -> None:
    assert money(value) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_960, "100 kB"), (999_999, "1.0 MB"), (10**15, "1000 TB")],
)  # fmt: skip
def test_sizes(count: int | None, expected: str) -> None:
    assert size(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (9.96, "10 s"),
        (59.9, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_000, "1 d 1 h"),
        (-5, "−5.0 s"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(dt.timedelta(seconds=seconds)) == expected


def test_counts() -> None:
    assert [plural(n, "row") for n in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]


def test_no_chart_takes_a_text_for_more() -> None:
    """Every maker of charts, and whatever a row may hold: markup, entities, templates, colours, words of JavaScript."""
    values: list[Any] = [1.5, None, *range(len(HOSTILE) - 2)]
    series = [Series(words, values, values, values) for words in HOSTILE]
    for figure in (
        charts.lines(list(range(len(HOSTILE))), series, HOSTILE[0]),
        charts.bars_over_time(
            list(range(len(HOSTILE))),
            series[:5],
            HOSTILE[0],
            [False] * len(HOSTILE),
            charts.lines(list(range(len(HOSTILE))), series[:5], HOSTILE[0]),
        ),
        charts.bars(HOSTILE, series, HOSTILE[0]),
        charts.bars(HOSTILE, series, HOSTILE[0], stacked=True, most=2),
        charts.across(HOSTILE, series, HOSTILE[0]),
        charts.across(HOSTILE, series, "$"),
    ):
        text = str(charts.as_json(figure))
        assert "<" not in text
        drawn = json.loads(text)
        assert {trace.get("hovertemplate") for trace in drawn["data"]} <= {
            None, "%{customdata}", "%{customdata[0]}<br>%{customdata[1]}"
        }  # fmt: skip
        shown = [item for item in _texts(drawn) if not item.startswith("%{customdata")]
        assert not [item for item in shown if "<" in item or ">" in item]
        assert any("&lt;a href" in item for item in shown)
        assert any("&amp;lt;b&amp;gt;" in item for item in shown), "what looks like an entity is a text, too"


def test_bars_of_names_that_begin_alike_are_two() -> None:
    names = ["x" * 40 + "1", "x" * 40 + "2"]
    figure = charts.bars(names, [Series("n", [1, 2])], "n")
    assert figure.data[0]["x"] == [0, 1]
    assert [item[0] for item in figure.data[0]["customdata"]] == names
    assert figure.layout["xaxis"]["ticktext"] == ["x" * 30 + "…"] * 2


def test_the_pointer_shows_all_digits() -> None:
    figure = charts.lines([1, 2, 3], [Series("n", [12345.6789, 1e-7, None])], "mm")
    assert figure.data[0]["customdata"] == ["12,345.6789 mm", "1e−7 mm", ""]


def _texts(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [text for item in part.values() for text in _texts(item)]
    if isinstance(part, list):
        return [text for item in part for text in _texts(item)]
    return [part] if isinstance(part, str) else []
