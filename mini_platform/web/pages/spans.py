"""Time spans: the period that a page shows, and the length of its steps."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Date, DateTime, Interval, func, literal

from mini_platform.rows.wording import duration
from mini_platform.web.api.values import read
from mini_platform.web.pages.rendering import day
from mini_platform.web.problems import ProblemError

STEPS = ("day", "week", "month", "quarter", "year")
MOST = {"day": 500, "week": 500 * 7, "month": 800 * 30, "quarter": 800 * 91}
"""Maximum days of a span for steps of this length: more points than pixels add nothing to a chart."""
LIMIT = 1500
"""Maximum points of a chart, whatever is requested."""
LENGTH = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365}
POINTS = 300
LENGTHS = tuple(dt.timedelta(seconds=s) for s in (
    1, 5, 10, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400,
))  # fmt: skip
"""Lengths of a step between times; the shortest is used of which the span has at most POINTS."""
MONDAY = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
"""Origin of the steps, so that weeks begin on Mondays."""
RANGES = (("30 days", 30), ("1 year", 365), ("5 years", 1826), ("20 years", 7305))
"""Spans that are offered, as text and days."""


@dataclass(frozen=True)
class Span:
    """Days from the first to the last, both included, and the length of a step.

    Attributes:
        first: first day that is shown.
        last: last day that is shown.
        step: unit by which days are grouped.
        held: first and last day of the data.
    """

    first: dt.date
    last: dt.date
    step: str
    held: tuple[dt.date, dt.date]

    def is_whole(self, start: dt.date) -> bool:
        """Return True if all days of the step are shown and within the data."""
        into_next = dt.timedelta(days=LENGTH[self.step] * 3 // 2)
        if dt.date.max - start < into_next:  # It ends with the calendar.
            return start >= max(self.first, self.held[0]) and dt.date.max == min(self.last, self.held[1])
        after = start_of(self.step, start + into_next)
        return start >= max(self.first, self.held[0]) and after <= min(self.last, self.held[1]) + dt.timedelta(days=1)

    @property
    def ranges(self) -> list[tuple[str, dt.date]]:
        """Return offered spans that end with the data, as text and first day."""
        first, last = self.held
        return [(words, last - dt.timedelta(days=n - 1)) for words, n in RANGES if n < (last - first).days]

    @property
    def gap(self) -> dt.timedelta:
        """Return a duration longer than a step: points further apart have a missing one between them."""
        return dt.timedelta(days=LENGTH[self.step] * 1.6)

    @property
    def days(self) -> int:
        """Return the number of days."""
        return (self.last - self.first).days + 1

    @property
    def words(self) -> str:
        """Return the span for the start of a caption."""
        return f"By {self.step}, {day(self.first)} to {day(self.last)}"

    @property
    def within(self) -> str:
        """Return the span for the middle of a caption."""
        return f"{day(self.first)} to {day(self.last)}, by {self.step}"

    @property
    def heading(self) -> str:
        """Return the heading of a column with starts of steps."""
        return self.step.capitalize()

    @property
    def limits(self) -> list[tuple[str, Any]]:
        """Return the span as filters: operators of the API with their values."""
        return [("gte", self.first), ("lte", self.last)]

    def start(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return an SQL expression for the first day of the step that contains a day."""
        return func.date_trunc(self.step, column).cast(Date)

    def label(self, start: dt.date) -> str:
        """Return the start of a step as text."""
        return day(start)


@dataclass(frozen=True)
class Moments:
    """Times from the first to the last, both included, and the length of a step.

    Attributes:
        first: first time that is shown.
        last: last time that is shown.
        length: length of a step.
        held: first and last time of the data.
    """

    first: dt.datetime
    last: dt.datetime
    length: dt.timedelta
    held: tuple[dt.datetime, dt.datetime]
    step = "step"

    def is_whole(self, start: dt.datetime) -> bool:
        """Return True if all of the step is shown and within the data."""
        return start >= self.first and start <= self.last - self.length

    @property
    def gap(self) -> dt.timedelta:
        """Return a duration longer than a step: points further apart have a missing one between them."""
        return self.length * 1.6

    @property
    def words(self) -> str:
        """Return the steps for the start of a caption."""
        return f"In steps of {duration(self.length)}"

    @property
    def within(self) -> str:
        """Return the steps for the middle of a caption."""
        return f"in steps of {duration(self.length)}"

    @property
    def heading(self) -> str:
        """Return the heading of a column with starts of steps."""
        return "From (UTC)"

    @property
    def limits(self) -> list[tuple[str, Any]]:
        """Return the span as filters: operators of the API with their values; none if it covers all data."""
        first = [("gte", self.first.isoformat())] if self.first != self.held[0] else []
        return first + ([("lte", self.last.isoformat())] if self.last != self.held[1] else [])

    @property
    def form(self) -> tuple[str, str]:
        """Return first and last time to the second, for a form; all of the data is between them."""
        first, last = (one.astimezone(dt.UTC).replace(tzinfo=None) for one in (self.first, self.last))
        last = last if not last.microsecond else last.replace(microsecond=0) + dt.timedelta(seconds=1)
        return first.isoformat(timespec="seconds"), last.isoformat(timespec="seconds")

    def start(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return an SQL expression for the start of the step that contains a time."""
        origin = literal(MONDAY, DateTime(timezone=True))
        return func.date_bin(literal(self.length, Interval), column, origin, type_=DateTime(timezone=True))

    def label(self, start: dt.datetime) -> str:
        """Return the start of a step as text."""
        return f"{day(start)} {start.astimezone(dt.UTC):%H:%M}"


def parse_day(name: str, value: str | None) -> dt.date | None:
    """Return a date from a form; None if it is empty.

    Raises:
        ProblemError: the text is not a date.
    """
    if not value:
        return None
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise ProblemError(f"{name} is {value!r}; it should be a date, such as 2026-01-31.") from None


def parse_moment(name: str, value: str | None) -> dt.datetime | None:
    """Return a time from a form, in UTC unless it has an offset; None if it is empty.

    Raises:
        ProblemError: the text is not a time.
    """
    try:
        moment: dt.datetime | None = read(dt.datetime, value) if value else None
    except ValueError:
        raise ProblemError(f"{name} is {value!r}; it should be a time, such as 2026-01-31T12:00.") from None
    return moment


def moments(first: dt.datetime | None, last: dt.datetime | None, held: tuple[dt.datetime, dt.datetime]) -> Moments:
    """Return the times to show, in the shortest steps that a chart can show.

    Raises:
        ProblemError: the times are in the wrong order.
    """
    start, end = first or held[0], last or held[1]
    if start > end:
        raise ProblemError("from is after to; swap them.")
    length = next((one for one in LENGTHS if (end - start) / one <= POINTS), max(LENGTHS[-1], (end - start) / POINTS))
    return Moments(start, end, length, held)


def span(first: dt.date | None, last: dt.date | None, step: str | None, held: tuple[dt.date, dt.date]) -> Span:
    """Return the days to show.

    Args:
        first: requested first day, or None for that of the data.
        last: requested last day, or None for that of the data.
        step: requested step, or None for one that suits the length.
        held: first and last day of the data.

    Raises:
        ProblemError: the days are in the wrong order, or the step is unknown.
    """
    start, end = first or held[0], last or held[1]
    if first and last and first > last:
        raise ProblemError(f"from ({first}) is after to ({last}); swap them.")
    end = max(start, end)
    if step and step not in STEPS:
        raise ProblemError(f"by is {step!r}; it should be one of {', '.join(STEPS)}, or be omitted.")
    days = (end - start).days + 1
    suits = next((s for s, most in MOST.items() if days <= most), "year")
    if step and days / LENGTH[step] > LIMIT:
        step = None
    return Span(start, end, step or suits, held)


def start_of(step: str, at: dt.date) -> dt.date:
    """Return the first day of the step that contains a day."""
    match step:
        case "day":
            return at
        case "week":
            return at - dt.timedelta(days=at.weekday())
        case "month":
            return at.replace(day=1)
        case "quarter":
            return at.replace(month=(at.month - 1) // 3 * 3 + 1, day=1)
        case _:
            return at.replace(month=1, day=1)
