"""Spans of time: what a page was asked to show, and in steps of what length."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from mini_platform.api.problems import ProblemError

STEPS = ("day", "week", "month", "quarter", "year")
MOST = {"day": 500, "week": 500 * 7, "month": 800 * 30, "quarter": 800 * 91}
"""Days up to which a span is shown in steps of this length: a chart of more points than pixels says nothing more."""
LIMIT = 1500
"""Points of a chart at most, whatever was asked for."""
LENGTH = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365}
RANGES = (("30 days", 30), ("1 year", 365), ("5 years", 1826), ("20 years", 7305))
"""Spans that are offered, as words and days."""


@dataclass(frozen=True)
class Span:
    """Days from the first to the last, both included, and the length of a step.

    Attributes:
        first: day that is shown.
        last: day that is shown.
        step: in which the days are taken together.
        held: first and last day of the data.
    """

    first: dt.date
    last: dt.date
    step: str
    held: tuple[dt.date, dt.date]

    def is_whole(self, start: dt.date) -> bool:
        """Whether all days of the step that starts then are shown, and none is before or after the data."""
        into_next = dt.timedelta(days=LENGTH[self.step] * 3 // 2)
        if dt.date.max - start < into_next:  # It ends with the calendar.
            return start >= max(self.first, self.held[0]) and dt.date.max == min(self.last, self.held[1])
        after = start_of(self.step, start + into_next)
        return start >= max(self.first, self.held[0]) and after <= min(self.last, self.held[1]) + dt.timedelta(days=1)

    @property
    def ranges(self) -> list[tuple[str, dt.date]]:
        """Spans that end with the data, as words and first day."""
        first, last = self.held
        return [(words, last - dt.timedelta(days=n - 1)) for words, n in RANGES if n < (last - first).days]

    @property
    def gap(self) -> dt.timedelta:
        """Longer than from one step to the next: where points are further apart, one is missing."""
        return dt.timedelta(days=LENGTH[self.step] * 1.6)

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.last - self.first).days + 1


def parse_day(name: str, value: str | None) -> dt.date | None:
    """A day that a form gave; None where it was left empty.

    Raises:
        ProblemError: it is no day.
    """
    if not value:
        return None
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise ProblemError(f"{name} is {value!r}; it should be a day, such as 2026-01-31.") from None


def span(first: dt.date | None, last: dt.date | None, step: str | None, held: tuple[dt.date, dt.date]) -> Span:
    """What to show of the days that the data holds.

    Args:
        first: day asked for, or None for the first there is.
        last: the same at the end.
        step: asked for, or None for one that suits the length.
        held: first and last day of the data.

    Raises:
        ProblemError: the days are the wrong way round, or there is no such step.
    """
    start, end = first or held[0], last or held[1]
    if first and last and first > last:
        raise ProblemError(f"from ({first}) is after to ({last}); swap them.")
    end = max(start, end)
    if step and step not in STEPS:
        raise ProblemError(f"by is {step!r}; it can be {', '.join(STEPS)}, or be left out.")
    days = (end - start).days + 1
    suits = next((s for s, most in MOST.items() if days <= most), "year")
    if step and days / LENGTH[step] > LIMIT:
        step = None
    return Span(start, end, step or suits, held)


def start_of(step: str, at: dt.date) -> dt.date:
    """The first day of the step that a day is in."""
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
