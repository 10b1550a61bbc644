"""Parts of charts: points that stand alone, and steps of time that the days shown hold only a part of."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_platform.web.pages import charts
from mini_platform.web.pages.charts import Series
from mini_platform.web.pages.spans import STEPS, span, start_of

DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))


def test_a_point_between_gaps_is_a_dot() -> None:
    line = charts.lines([1, 2, 3, 4, 5, 6], [Series("all", [1.0, 2.0, None, 3.0, None, 4.0])], "mm").data[0]
    assert line["mode"] == "lines+markers"
    assert line["marker"]["size"] == [0, 0, 0, 6, 0, 6]
    assert charts.lines([1, 2], [Series("all", [1.0, 2.0])], "mm").data[0]["mode"] == "lines"


def test_lines_differ_by_more_than_colour() -> None:
    drawn = charts.lines([1, 2], [Series(str(i), [1, 2]) for i in range(5)], "mm").data
    assert len({line["line"]["dash"] for line in drawn}) == len({line["line"]["color"] for line in drawn}) == 5


@pytest.mark.parametrize("step", STEPS)
@given(first=DAYS, days=st.integers(0, 1500), at=st.integers(0, 1500))
def test_a_step_is_whole_if_all_its_days_are_shown(step: str, first: dt.date, days: int, at: int) -> None:
    last = first + dt.timedelta(days=days)
    shown = span(None, None, step, (first, last))
    start = start_of(shown.step, first + dt.timedelta(days=min(at, days)))
    own = [
        start + dt.timedelta(days=i) for i in range(366) if start_of(shown.step, start + dt.timedelta(days=i)) == start
    ]
    assert shown.is_whole(start) == all(first <= one <= last for one in own)


def test_days_that_were_not_requested_are_not_shown() -> None:
    held = (dt.date(2024, 1, 1), dt.date(2024, 12, 31))
    shown = span(dt.date(2024, 2, 2), dt.date(2025, 6, 1), "month", held)
    assert not shown.is_whole(dt.date(2024, 2, 1))
    assert shown.is_whole(dt.date(2024, 12, 1))
    assert not shown.is_whole(dt.date(2025, 1, 1))
