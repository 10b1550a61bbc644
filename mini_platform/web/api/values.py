"""Values as text: parsing parameters and cursors into values of the column's type.

An invalid text raises a ValueError whose message completes the sentence "<name>: '<text>' ...".
"""

from __future__ import annotations

import datetime as dt
import math
import re
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from mini_platform.rows.wording import plain

BIGINT = 2**63
TEXT = r"^[^\x00]*$"
"""Pattern of a text parameter: Postgres does not accept U+0000."""
DIGITS = 100
"""Maximum characters of a number; the longest float has 24."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
DAY = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt ]00:00(?::00(?:\.0+)?)?)?")
MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})([T ]([0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?) ?(Z|[+-]?[0-9]{2}:[0-9]{2})?)?"
)
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def read(kind: Any, words: str) -> Any:
    """Return a text as a value of this type.

    Raises:
        ValueError: the text is invalid.
    """
    return READERS[kind](words)


def _text(words: str) -> str:
    if "\0" in words:
        raise ValueError("contains a NUL character, which is not allowed")
    if not words.isascii() and any("\ud800" <= c <= "\udfff" for c in words):
        raise ValueError("is not Unicode text")
    return words


def _whole(words: str) -> int:
    """Return a whole number, in any form that a cell may have: 12, 12.0 or 1.2E1."""
    if len(words) > DIGITS or not NUMBER.fullmatch(words) or (number := Decimal(words)) != number.to_integral_value():
        raise ValueError("is not a whole number")
    return _bigint(int(number))


def _bigint(number: int) -> int:
    if not -BIGINT <= number < BIGINT:
        raise ValueError("is a whole number of more than 64 bits")
    return number


def _plain(words: str) -> str:
    if len(words) > DIGITS or not NUMBER.fullmatch(words):
        raise ValueError("is not a number")
    return words


def _number(words: str) -> float:
    number = float(_plain(words))
    if math.isinf(number):
        raise ValueError("is too large a number")
    return number


def _truth(words: str) -> bool:
    if words.lower() not in TRUTHS:
        raise ValueError("is neither true nor false")
    return TRUTHS[words.lower()]


def _day(words: str) -> dt.date:
    """Return a date, in any form that a cell may have: 2026-01-05, 2026-1-5 or 2026-01-05T00:00:00."""
    try:
        if match := DAY.fullmatch(words):
            return dt.date(*map(int, match.groups()))
    except ValueError:
        pass  # Of the right form, but of no such day.
    raise ValueError("is not a date of the form YYYY-MM-DD")


def _moment(words: str) -> dt.datetime:
    """Return an ISO 8601 time; the default offset is UTC, and a plus that was decoded as a space is a plus."""
    try:
        if match := MOMENT.fullmatch(words):
            day, _, clock, _, _, zone = match.groups()
            offset = {None: "+00:00", "Z": "+00:00"}.get(zone) or (zone if zone[0] in "+-" else f"+{zone}")
            # In UTC, as Postgres knows no offset of more than 16 hours.
            return dt.datetime.fromisoformat(f"{day}T{_six(clock or '00:00')}{offset}").astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass  # Of the right form, but of no such time, or in UTC of a year before 1 or after 9999.
    raise ValueError("is not an ISO 8601 time, such as 2024-01-31T12:00:00Z")


def _six(clock: str) -> str:
    """Return a time of day with six decimals of a second or none, as Python 3.11 requires."""
    seconds, dot, decimals = clock.partition(".")
    return f"{seconds}.{decimals.ljust(6, '0')}" if dot else seconds


READERS: Mapping[Any, Callable[[str], Any]] = {
    str: _text,
    int: _whole,
    float: _number,
    Decimal: lambda words: Decimal(_plain(words)),
    bool: _truth,
    dt.date: _day,
    dt.datetime: _moment,
}


def packed(value: Any) -> Any:
    """Return a value as JSON can represent it; `unpacked` reads it."""
    if isinstance(value, list):
        return [packed(item) for item in value]
    if isinstance(value, dt.date):  # A datetime is one.
        return value.isoformat()
    return plain(value)


def unpacked(kind: Any, value: Any) -> Any:
    """Return the original value, of the type that it had.

    Raises:
        ValueError, TypeError: the value was not packed from a value of this type.
    """
    if value is None:
        return None
    if items := typing.get_args(kind):
        return [unpacked(items[0], item) for item in value]
    if kind is Decimal and value == "NaN":
        return Decimal(value)
    if kind in (dt.date, dt.datetime, Decimal, str) and isinstance(value, str):
        return read(kind, value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of the type {kind}")
    return _bigint(value) if kind is int else value
