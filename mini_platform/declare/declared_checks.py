"""Checks of a column: which there are, what their arguments may be, and how a value that fails one is described.

Here: everything about a check that is known before the first row. Not here: the checks themselves, which are Pandera's and
those of `validation.CHECKS`. Pandera is not imported: it takes a second, and definitions are imported all the time; a test
holds the names here against those that it has.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from mini_platform.declare.columns import DECIMAL_DIGITS, WORDS, Column, DeclarationError, nearest

LOWER = {"ge": True, "greater_than_or_equal_to": True, "gt": False, "greater_than": False}
UPPER = {"le": True, "less_than_or_equal_to": True, "lt": False, "less_than": False}
"""Limits, each with whether its argument itself is allowed."""
RANGES = ("in_range", "between")
EQUAL, UNEQUAL = ("eq", "equal_to"), ("ne", "not_equal_to")
PIECES, PATTERNS = ("str_startswith", "str_endswith"), ("str_contains", "str_matches")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*LOWER,), ("min_value",)),
    **dict.fromkeys((*UPPER,), ("max_value",)),
    **dict.fromkeys(RANGES, ("min_value", "max_value", "include_min", "include_max")),
    **dict.fromkeys((*EQUAL, *UNEQUAL), ("value",)),
    "isin": ("allowed_values",),
    "notin": ("forbidden_values",),
    **dict.fromkeys(PATTERNS, ("pattern",)),
    **dict.fromkeys(PIECES, ("string",)),
    "str_length": ("min_value", "max_value", "exact_value"),
    "email": ("email",),
}
"""Every check of a column, with the names of its arguments."""
OF_TEXT = frozenset((*PATTERNS, *PIECES, "str_length", "email"))
OF_ORDER = frozenset((*LOWER, *UPPER, *RANGES))
NOT_OF_ROWS = frozenset(
    (
        *(
            "unique_values_eq",
            "one_sample_ttest",
            "two_sample_ttest",
            "is_monotonic",
            "has_dims",
            "has_coords",
            "has_attrs",
        ),
        *("has_encoding", "ndim", "dim_size", "no_duplicates_in_coord", "cf_standard_name", "cf_units"),
        *("cf_has_standard_names", "cf_has_cell_methods"),
    )
)
"""Checks of Pandera that judge a whole column or an array, and not a value."""
EXACT_FLOAT = 2**53
"""From here on a float no longer tells neighbouring whole numbers apart; see also `sys.float_info.dig`."""
FLOAT_DIGITS = 15
INT_BITS = 63
NAMED: Mapping[Any, str] = {
    str: "text",
    float: "a number",
    int: "a whole number",
    Decimal: "a Decimal, such as Decimal('0.10')",
    dt.date: "a date, such as dt.date(2024, 1, 31)",
    dt.datetime: "a datetime with a time zone, such as dt.datetime(2024, 1, 31, tzinfo=dt.UTC)",
    bool: "True or False",
}
SAFE_PATTERN = re.compile(
    r"(?:[\w \-/,:;@#%&=<>'\"!~`.^$|*+?)]|\(\?:|\((?!\?)|\\[dDwWsSbB.\-+*?()\[\]{}^$|/\\]"
    r"|\[\^?(?:[\w \-.,:/@+%]|\\[dws.\-\]])+\]|\{\d{1,3}(?:,\d{0,3})?\})*",
    re.ASCII,
)
"""What means the same to Python's expressions and to polars': no look-around, no back references, no sets of sets."""


def checked(where: str, column: Column) -> Column:
    """Return the column with the arguments of its checks as they are validated by: exact, and of its type.

    Args:
        where: dataset, model and column, for the sentence.
        column: with its checks as they were written.

    Raises:
        DeclarationError: a check is not known, does not fit the type, has an argument that is rounded or of another type,
            or no value can meet it.
    """
    checks = {name: _argument(f"{where}: {name}", column, name, said) for name, said in column.checks.items()}
    made = replace(column, checks=checks)
    _refuse_the_impossible(where, made)
    return made


def cleaned(column: Column, text: str) -> str:
    """Return a text as the cleaning of its column leaves it; empty if it means nothing. See `validation.clean`."""

    def trimmed(text: str) -> str:
        return unicodedata.normalize("NFC", text.strip() if column.trim else text)

    tokens = {trimmed(token) for token in column.null_tokens}
    text = trimmed(text)
    if text in tokens:
        return ""
    text = unicodedata.normalize("NFC", _in_case(column, text))
    return "" if text in tokens else text


def pattern_as_judged(name: str, argument: Any) -> Any:
    """Return the argument that Pandera is given: a pattern is anchored as a whole, and not in its first branch only."""
    if name != "str_matches" or isinstance(argument, re.Pattern):
        return argument
    flags, pattern = re.fullmatch(r"((?:\(\?[a-z]+\))?)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{flags}^(?:{pattern})"


# Arguments


def _argument(where: str, column: Column, name: str, said: Any) -> Any:
    """The argument of a check, as it is validated by."""
    if name in NOT_OF_ROWS:
        raise DeclarationError(f"{where} validates a whole column and not a value; write a @rule")
    if name not in ARGUMENTS:
        hint = nearest(name, (*ARGUMENTS, *WORDS)) or f"; known are {', '.join(sorted((*WORDS, *ARGUMENTS)))}"
        raise DeclarationError(f"{where} is neither a word of Field nor a check{hint}")
    if column.type == list[float]:
        raise DeclarationError(f"{where} does not fit a list of numbers, which has no checks; write a @rule")
    if name in OF_TEXT and column.type is not str:
        raise DeclarationError(f"{where} fits text, and the column is {NAMED[column.type]}")
    if name in OF_ORDER and column.type is bool:
        raise DeclarationError(f"{where} does not fit a column that is true or false; say eq")
    arguments = ARGUMENTS[name]
    if isinstance(said, Mapping):
        if unknown := sorted(set(said) - set(arguments)):
            raise DeclarationError(f"{where} takes {', '.join(arguments)}, and not {', '.join(map(str, unknown))}")
        if len(arguments) == 1:
            said = said.get(arguments[0])
    make = _MAKERS.get(name, _value)
    return make(where, column, name, said)


def _range(where: str, column: Column, name: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, Mapping) or any(said.get(bound) is None for bound in ("min_value", "max_value")):
        raise DeclarationError(f'{where} takes {{"min_value": …, "max_value": …}}; a single limit is ge, gt, le or lt')
    for word in ("include_min", "include_max"):
        if not isinstance(said.get(word, True), bool):
            raise DeclarationError(f"{where}: {word} is {said[word]!r}; it can be True or False")
    bounds = {bound: _value(f"{where}: {bound}", column, name, said[bound]) for bound in ("min_value", "max_value")}
    return {**said, **bounds}


def _values(where: str, column: Column, name: str, said: Any) -> Collection[Any]:
    if isinstance(said, str | bytes | Mapping) or not isinstance(said, Iterable):
        raise DeclarationError(f"{where} is {said!r}; it takes a list of values")
    values = [_value(where, column, name, value) for value in said]
    if not values:
        raise DeclarationError(f"{where} is empty: {'no value can meet it' if name == 'isin' else 'it says nothing'}")
    if column.type is float:
        values = [float(value) for value in values]
    elif column.type is Decimal:
        values = [Decimal(value) for value in values]
    return values if isinstance(said, list) else tuple(values)


def _length(where: str, column: Column, name: str, said: Any) -> dict[str, int]:
    del column, name
    bounds = dict(said) if isinstance(said, Mapping) else {"exact_value": said}
    bounds = {word: value for word, value in bounds.items() if value is not None}
    if not bounds or ("exact_value" in bounds and len(bounds) > 1):
        raise DeclarationError(f"{where} takes min_value, max_value or both, or exact_value alone")
    for word, value in bounds.items():
        if type(value) is not int or value < 0:
            raise DeclarationError(f"{where}: {word} is {value!r}; it can be a whole number from 0 on")
    if "exact_value" in bounds:
        bounds = dict.fromkeys(("min_value", "max_value"), bounds["exact_value"])
    if bounds.get("min_value", 0) > (most := bounds.get("max_value", math.inf)) or not most:
        raise DeclarationError(f"{where} cannot be met by any text: {_check_words('str_length', bounds)}")
    return bounds


def _piece(where: str, column: Column, name: str, said: Any) -> str:
    text = _value(where, column, "", said)
    if not text:
        raise DeclarationError(f"{where} is empty: it says nothing")
    # What stands at the other end of the text keeps the space there.
    whole = f"{text}x" if name == "str_startswith" else f"x{text}"
    if cleaned(replace(column, case=None, null_tokens=()), whole) != whole or _in_case(column, text) != text:
        raise DeclarationError(f"{where} is {text!r}, which no text is after it was cleaned (trim, case, Unicode NFC)")
    return str(text)


def _in_case(column: Column, text: str) -> str:
    return {"lower": text.lower, "upper": text.upper}.get(column.case or "", lambda: text)()


def _pattern(where: str, column: Column, name: str, said: Any) -> str | re.Pattern[str]:
    del column
    if isinstance(said, re.Pattern) and isinstance(said.pattern, str):
        return said  # Python is asked then, with its flags.
    if not isinstance(said, str):
        raise DeclarationError(f"{where} is {said!r}; it takes a pattern, which is text")
    if not _is_pattern(said) or not _is_pattern(pattern_as_judged(name, said)):
        raise DeclarationError(
            f"{where} is {said!r}, which cannot be used by polars and Pandera: they have no look-around, no back "
            "references and no classes such as \\p{L}, and every bracket is closed"
        )
    return said


def _is_pattern(text: str) -> bool:
    """True if a text is a pattern to Python, which Pandera asks, and to polars, which takes half a second to import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # A set within a set will mean something to Python one day.
            re.compile(text)
    except re.error:
        return False
    if SAFE_PATTERN.fullmatch(text):
        return True
    import polars as pl

    try:
        pl.Series([""]).str.contains(text)
    except pl.exceptions.ComputeError:
        return False
    return True


def _email(where: str, column: Column, name: str, said: Any) -> bool:
    del column, name
    if said is not True:
        raise DeclarationError(f"{where} is {said!r}; it can be True, or be left out")
    return True


_MAKERS: Mapping[str, Callable[[str, Column, str, Any], Any]] = {
    **dict.fromkeys(RANGES, _range),
    **dict.fromkeys(("isin", "notin"), _values),
    **dict.fromkeys(PATTERNS, _pattern),
    **dict.fromkeys(PIECES, _piece),
    "str_length": _length,
    "email": _email,
}


# Values


def _value(where: str, column: Column, name: str, said: Any) -> Any:
    """A value of the column's type, exactly as it was meant."""
    kind = column.type
    if kind in (int, float, Decimal):
        return _number(where, column, said)
    # A datetime is a date to Python, and a bool a number.
    if not isinstance(said, kind) or (kind is dt.date and isinstance(said, dt.datetime)):
        raise DeclarationError(f"{where} is {said!r}; the column wants {NAMED[kind]}")
    if kind is dt.datetime and said.utcoffset() is None:
        raise DeclarationError(f"{where} is {said!r}, which says no moment without a time zone; give it tzinfo=dt.UTC")
    if kind is str and name in ("isin", "notin", *EQUAL, *UNEQUAL) and (not said or cleaned(column, said) != said):
        raise DeclarationError(
            f"{where} names {said!r}, which no text is after it was cleaned (trim, case, null_tokens, Unicode NFC)"
        )
    return said


def _number(where: str, column: Column, said: Any) -> Any:
    if isinstance(said, bool) or not isinstance(said, int | float | Decimal):
        raise DeclarationError(f"{where} is {said!r}; the column wants {NAMED[column.type]}")
    if not isinstance(said, int) and not math.isfinite(said):
        raise DeclarationError(f"{where} is {said}, and the values of the column are finite; leave it out")
    if column.type is float:
        try:
            exact = Decimal(repr(float(said))) == Decimal(said) or isinstance(said, float)
        except OverflowError:
            exact = False
        if not exact:
            raise DeclarationError(f"{where} is {said}, which a float would round; make the column a Decimal or an int")
        return said if isinstance(said, int) else float(said)
    number = Decimal(repr(said)) if isinstance(said, float) else Decimal(said)
    digits = len(number.normalize().as_tuple().digits)
    whole = number == number.to_integral_value()
    if isinstance(said, float) and (abs(said) >= EXACT_FLOAT or (not whole and digits > FLOAT_DIGITS)):
        raise DeclarationError(f"{where} is {said!r}, which may be rounded, as a float is; write {NAMED[column.type]}")
    if column.type is int:
        if not whole:
            raise DeclarationError(f"{where} is {said}, and the column has whole numbers")
        if not -(2**INT_BITS) <= number < 2**INT_BITS:
            raise DeclarationError(f"{where} is {said}, and whole numbers have 64 bits: leave it out")
        return int(number)
    # One power of ten more than is stored can be said: "below 10000" of a column that has four digits.
    if abs(number) > (most := Decimal(10) ** (DECIMAL_DIGITS - column.decimals)):
        raise DeclarationError(f"{where} is {said}, and the column holds numbers below {most:f}; leave it out")
    if number != number.quantize(Decimal(1).scaleb(-column.decimals)):
        raise DeclarationError(f"{where} is {said}, and the column keeps {column.decimals} decimals; give it more")
    return number if isinstance(said, float) else said


# What no value can meet


def _refuse_the_impossible(where: str, column: Column) -> None:
    """Refuse checks of which each can be met, and all of them together cannot."""
    strict = {name: argument for name, argument in column.checks.items() if name not in column.warn}
    if not strict:
        return
    said = ", ".join(f"{name}={_shown(argument)}" for name, argument in strict.items())
    refusal = DeclarationError(f"{where}: no value can meet {said}")
    lists = [
        list(argument) if name == "isin" else [argument]
        for name, argument in strict.items()
        if name in ("isin", *EQUAL)
    ]
    if lists:
        if not any(all(_meets(name, argument, value) for name, argument in strict.items()) for value in lists[0]):
            raise refusal
        return
    if column.type is bool and {argument for name, argument in strict.items() if name in UNEQUAL} == {True, False}:
        raise refusal
    lows, highs = _limits(strict)
    if not lows or not highs:
        return
    low, high = (
        max(lows, key=lambda bound: (bound[0], not bound[1])),
        min(highs, key=lambda bound: (bound[0], bound[1])),
    )
    step = {int: 1, Decimal: Decimal(1).scaleb(-column.decimals), dt.date: dt.timedelta(days=1)}.get(column.type)
    least, most = low[0], high[0]
    if step is not None and abs_fits(least, most):
        least = least if low[1] else least + step
        most = most if high[1] else most - step
        if least > most:
            raise refusal
    elif least > most or (least == most and not (low[1] and high[1])):
        raise refusal


def abs_fits(least: Any, most: Any) -> bool:
    """Return True if a step can be added to both: the last day has no day after it."""
    return dt.date.max not in (least, most) and dt.date.min not in (least, most)


def _limits(checks: Mapping[str, Any]) -> tuple[list[tuple[Any, bool]], list[tuple[Any, bool]]]:
    """Lower and upper limits, each with whether it is allowed itself."""
    lows, highs = [], []
    for name, argument in checks.items():
        if name in LOWER:
            lows.append((argument, LOWER[name]))
        elif name in UPPER:
            highs.append((argument, UPPER[name]))
        elif name in RANGES:
            lows.append((argument["min_value"], argument.get("include_min", True)))
            highs.append((argument["max_value"], argument.get("include_max", True)))
    return lows, highs


def _meets(name: str, argument: Any, value: Any) -> bool:
    """True if a value meets a check; patterns and addresses are taken to be met."""
    lows, highs = _limits({name: argument})
    if any(value < low or (value == low and not allowed) for low, allowed in lows):
        return False
    if any(value > high or (value == high and not allowed) for high, allowed in highs):
        return False
    if name == "str_length":
        return bool(argument.get("min_value", 0) <= len(value) <= argument.get("max_value", math.inf))
    tests: Mapping[str, Callable[[], bool]] = {
        **dict.fromkeys(EQUAL, lambda: value == argument),
        **dict.fromkeys(UNEQUAL, lambda: value != argument),
        "isin": lambda: value in argument,
        "notin": lambda: value not in argument,
        "str_startswith": lambda: value.startswith(argument),
        "str_endswith": lambda: value.endswith(argument),
    }
    return name not in tests or bool(tests[name]())


def _shown(argument: Any) -> str:
    return (
        str(argument)
        if isinstance(argument, Mapping | Collection) and not isinstance(argument, str)
        else repr(argument)
    )


# Sentences


def check_sentence(check: str, argument: Any, unit: str | None) -> str:
    """Say what a value that fails a check is, to be read after the column's name."""
    of_unit = f" {unit}" if unit else ""
    match check, argument:
        case "in_range" | "between", {"min_value": low, "max_value": high}:
            sentence = f"is outside {low} to {high}{of_unit}"
        case "ge" | "greater_than_or_equal_to", _:
            sentence = f"is below {argument}{of_unit}"
        case "le" | "less_than_or_equal_to", _:
            sentence = f"is above {argument}{of_unit}"
        case "gt" | "greater_than", _:
            sentence = f"is not above {argument}{of_unit}"
        case "lt" | "less_than", _:
            sentence = f"is not below {argument}{of_unit}"
        case "str_length", Mapping():
            sentence = _check_words(check, argument)
        case "isin", _:
            sentence = f"is none of {', '.join(map(str, argument))}"
        case "str_matches", _:
            sentence = f"does not match {getattr(argument, 'pattern', argument)}"
        case "email", _:
            sentence = "does not look like an e-mail address"
        case _:
            sentence = f"fails {check}({getattr(argument, 'pattern', argument)})"
    return sentence


def _check_words(check: str, bounds: Mapping[str, int]) -> str:
    match bounds:
        case {"min_value": low, "max_value": high}:
            return f"is shorter than {low} or longer than {high} characters"
        case {"min_value": low}:
            return f"is shorter than {low} characters"
        case {"max_value": high}:
            return f"is longer than {high} characters"
    return f"fails {check}({dict(bounds)})"
