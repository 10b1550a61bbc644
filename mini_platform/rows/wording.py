"""Numbers as people read them, and as files and programs read them back.

Rounding never hides what matters: a number other than zero never reads 0, less than all never reads 100%, and a number of any
size takes a few characters.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any, TypeAlias

NOTHING = "–"
LARGEST = 1e15
"""From this size on a float is written with an exponent: not all its digits before the point are significant."""
LEAST_DIGITS = 3
"""Significant digits of a number that would otherwise be rounded to zero."""
Number: TypeAlias = int | float | Decimal


def plain(value: Any) -> Any:
    """Return a decimal in plain digits, as files have it and readers accept it: never `1E-10`. Other values are unchanged."""
    return f"{value:f}" if isinstance(value, Decimal) else value


def exact(value: Number) -> str:
    """Return a number as it is stored, to its last digit, with thousands separators."""
    if isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, Decimal):
        text = f"{value:,f}"
    elif not math.isfinite(value):
        return NOTHING
    else:
        text = (
            repr(float(value)).replace("e+", "e").replace("e-0", "e-")
        )  # The fewest digits that read back as the same.
        text = text if "e" in text else f"{Decimal(text):,f}".removesuffix(".0")
    return _signed(text)


def number(value: Number | None, digits: int | None = None) -> str:
    """Return a number with thousands separators; `digits` after the point, or as many as are significant."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, float) and not -LARGEST < value < LARGEST:
        return _signed(f"{value:.6g}".replace("e+", "e"))
    magnitude = abs(float(value))
    whole = value == int(value) or magnitude >= 1000
    text = f"{value:,.{(0 if whole else 2) if digits is None else digits}f}"
    if value and (magnitude < 0.1 if digits is None else not _is_nonzero(text)):
        text = f"{value:.{LEAST_DIGITS}g}"
        text = text.replace("e-0", "e-") if magnitude < 1e-6 else f"{Decimal(text):f}"
    return _signed(text)


def _is_nonzero(text: str) -> bool:
    """Return True unless a number reads 0."""
    return any(digit in text for digit in "123456789")


def _signed(text: str) -> str:
    """Return a number with a typographic minus sign; 0 has no sign."""
    negative = text.startswith("-") and _is_nonzero(text)
    text = text.removeprefix("-").replace("e-", "e−")
    return f"−{text}" if negative else text


def money(value: Number | None) -> str:
    """Return an amount in dollars: without cents if it is large, with cents if it is small, with more digits below a cent."""
    if value is None or not math.isfinite(value):
        return NOTHING
    dollars = abs(float(value))
    if dollars >= 1e9:
        text = f"{number(dollars / 1e9, 2)} bn"
    elif 0 < dollars < 0.005:
        text = number(dollars)
    else:
        text = f"{dollars:,.0f}" if dollars >= 1000 else f"{dollars:,.2f}"
    return f"{'−' if value < 0 else ''}${text}"


def percent(share: Number | None) -> str:
    """Return a share as a percentage: 0% only if it is nothing, 100% only if it is all."""
    if share is None or not math.isfinite(share):
        return NOTHING
    negative, share = share < 0, abs(float(share))
    if 0 < share < 0.001:
        return ">−0.1%" if negative else "<0.1%"
    if 0.9995 <= share < 1:
        return "<−99.9%" if negative else ">99.9%"
    digits = 1 if 0 < share < 0.0995 or (0.99 < share < 1.01 and share != 1) else 0
    return f"{'−' if negative else ''}{share * 100:,.{digits}f}%"


def size(count: Number | None) -> str:
    """Return a number of bytes in a readable unit."""
    if count is None:
        return NOTHING
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        text = f"{count:.0f}" if count >= 99.95 else f"{count:.1f}"
        if float(text) < 1000 or unit == "TB":
            break
    return f"{text} {unit}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: 1 row, 2,000 rows."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(value: dt.timedelta | None) -> str:
    """Return a duration in its two largest units."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds()
    if seconds < 0:
        return f"−{duration(-value)}"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    seconds = max(seconds, 60)
    for unit, next_unit, length, next_length in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        if seconds < length * (60 if unit == "min" else 24 if unit == "h" else math.inf):
            rest = int(seconds % length // next_length)
            return f"{int(seconds // length)} {unit}" + (f" {rest} {next_unit}" if rest else "")
    raise AssertionError


def file_status(status: str, rows_rejected: int | None) -> str:
    """Return the status of a file as people read it; what is stored, filtered by and sent as JSON stays as it is.

    Args:
        status: the stored status.
        rows_rejected: number of its rejected rows; None if it was not read.
    """
    if status == "loaded" and rows_rejected:
        return "loaded with rejects"
    return "pending" if status in ("landed", "staged") else status
