"""Checks of a column: their names, their arguments, and the sentence about a value that fails one.

Here: everything about a check that is known before the first row. Not here: the checks themselves, which are Pandera's and
those of `validation.CHECKS`. Pandera is not imported: that takes a second, and definitions are imported often; a test compares
the names here with Pandera's.
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

from mini_platform.declare.columns import DECIMAL_DIGITS, FIELD_OPTIONS, Column, DeclarationError, nearest

LOWER = {"ge": True, "greater_than_or_equal_to": True, "gt": False, "greater_than": False}
UPPER = {"le": True, "less_than_or_equal_to": True, "lt": False, "less_than": False}
"""Checks of a limit, each with True if the limit itself is allowed."""
RANGES = ("in_range", "between")
EQUAL, UNEQUAL = ("eq", "equal_to"), ("ne", "not_equal_to")
AFFIXES, PATTERNS = ("str_startswith", "str_endswith"), ("str_contains", "str_matches")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*LOWER,), ("min_value",)),
    **dict.fromkeys((*UPPER,), ("max_value",)),
    **dict.fromkeys(RANGES, ("min_value", "max_value", "include_min", "include_max")),
    **dict.fromkeys((*EQUAL, *UNEQUAL), ("value",)),
    "isin": ("allowed_values",),
    "notin": ("forbidden_values",),
    **dict.fromkeys(PATTERNS, ("pattern",)),
    **dict.fromkeys(AFFIXES, ("string",)),
    "str_length": ("min_value", "max_value", "exact_value"),
    "email": ("email",),
}
"""Name of every check of a column -> names of its arguments."""
TEXT_CHECKS = frozenset((*PATTERNS, *AFFIXES, "str_length", "email"))
ORDER_CHECKS = frozenset((*LOWER, *UPPER, *RANGES))
WHOLE_COLUMN_CHECKS = frozenset(
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
"""Checks of Pandera that validate a whole column or an array, and not a value."""
EXACT_FLOAT = 2**53
"""From this number on, a float cannot represent every whole number; see also `sys.float_info.dig`."""
FLOAT_DIGITS = 15
INT_BITS = 63
TYPE_NAMES: Mapping[Any, str] = {
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
"""Patterns with one meaning for Python and for polars: no look-around, no back references, no nested sets."""


def with_exact_arguments(where: str, column: Column) -> Column:
    """Return the column with the arguments of its checks as validation uses them: exact, and of the column's type.

    Args:
        where: dataset, model and column, for the message.
        column: the column with its checks as they were written.

    Raises:
        DeclarationError: a check is unknown, does not fit the type, has an argument that is rounded or of another type,
            or no value can meet it.
    """
    checks = {name: _argument(f"{where}: {name}", column, name, argument) for name, argument in column.checks.items()}
    exact = replace(column, checks=checks)
    _refuse_unsatisfiable(where, exact)
    return exact


def cleaned(column: Column, text: str) -> str:
    """Return a text after the cleaning of its column; empty if it is a null token. See `validation.clean`."""

    def trimmed(text: str) -> str:
        return unicodedata.normalize("NFC", text.strip() if column.trim else text)

    tokens = {trimmed(token) for token in column.null_tokens}
    text = trimmed(text)
    if text in tokens:
        return ""
    text = unicodedata.normalize("NFC", _change_case(column, text))
    return "" if text in tokens else text


def anchored_pattern(name: str, argument: Any) -> Any:
    """Return the argument for Pandera: a pattern is anchored as a whole, and not only in its first alternative."""
    if name != "str_matches" or isinstance(argument, re.Pattern):
        return argument
    flags, pattern = re.fullmatch(r"((?:\(\?[a-z]+\))?)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{flags}^(?:{pattern})"


# Arguments


def _argument(where: str, column: Column, name: str, argument: Any) -> Any:
    """Return the argument of a check as validation uses it."""
    if name in WHOLE_COLUMN_CHECKS:
        raise DeclarationError(f"{where} validates a whole column and not a value; write a @rule")
    if name not in ARGUMENTS:
        hint = (
            nearest(name, (*ARGUMENTS, *FIELD_OPTIONS))
            or f"; known are {', '.join(sorted((*FIELD_OPTIONS, *ARGUMENTS)))}"
        )
        raise DeclarationError(f"{where} is neither an option of Field nor a check{hint}")
    if column.type == list[float]:
        raise DeclarationError(f"{where} does not fit a list of numbers, which has no checks; write a @rule")
    if name in TEXT_CHECKS and column.type is not str:
        raise DeclarationError(f"{where} fits text, and the column is {TYPE_NAMES[column.type]}")
    if name in ORDER_CHECKS and column.type is bool:
        raise DeclarationError(f"{where} does not fit a column that is true or false; use eq")
    arguments = ARGUMENTS[name]
    if isinstance(argument, Mapping):
        if unknown := sorted(set(argument) - set(arguments)):
            raise DeclarationError(f"{where} takes {', '.join(arguments)}, and not {', '.join(map(str, unknown))}")
        if len(arguments) == 1:
            argument = argument.get(arguments[0])
    parse = _PARSERS.get(name, _value)
    return parse(where, column, name, argument)


def _range(where: str, column: Column, name: str, argument: Any) -> dict[str, Any]:
    if not isinstance(argument, Mapping) or any(argument.get(bound) is None for bound in ("min_value", "max_value")):
        raise DeclarationError(f'{where} takes {{"min_value": …, "max_value": …}}; a single limit is ge, gt, le or lt')
    for option in ("include_min", "include_max"):
        if not isinstance(argument.get(option, True), bool):
            raise DeclarationError(f"{where}: {option} is {argument[option]!r}; it can be True or False")
    bounds = {bound: _value(f"{where}: {bound}", column, name, argument[bound]) for bound in ("min_value", "max_value")}
    return {**argument, **bounds}


def _values(where: str, column: Column, name: str, argument: Any) -> Collection[Any]:
    if isinstance(argument, str | bytes | Mapping) or not isinstance(argument, Iterable):
        raise DeclarationError(f"{where} is {argument!r}; it takes a list of values")
    values = [_value(where, column, name, value) for value in argument]
    if not values:
        raise DeclarationError(f"{where} is empty: {'no value can meet it' if name == 'isin' else 'it has no effect'}")
    if column.type is float:
        values = [float(value) for value in values]
    elif column.type is Decimal:
        values = [Decimal(value) for value in values]
    return values if isinstance(argument, list) else tuple(values)


def _length(where: str, column: Column, name: str, argument: Any) -> dict[str, int]:
    del column, name
    bounds = dict(argument) if isinstance(argument, Mapping) else {"exact_value": argument}
    bounds = {option: value for option, value in bounds.items() if value is not None}
    if not bounds or ("exact_value" in bounds and len(bounds) > 1):
        raise DeclarationError(f"{where} takes min_value, max_value or both, or exact_value alone")
    for option, value in bounds.items():
        if type(value) is not int or value < 0:
            raise DeclarationError(f"{where}: {option} is {value!r}; it can be a whole number from 0 on")
    if "exact_value" in bounds:
        bounds = dict.fromkeys(("min_value", "max_value"), bounds["exact_value"])
    if bounds.get("min_value", 0) > (longest := bounds.get("max_value", math.inf)) or not longest:
        raise DeclarationError(f"{where} cannot be met by any text: {_length_sentence('str_length', bounds)}")
    return bounds


def _affix(where: str, column: Column, name: str, argument: Any) -> str:
    text = _value(where, column, "", argument)
    if not text:
        raise DeclarationError(f"{where} is empty: it has no effect")
    # A character at the other end of the text keeps the space there from being trimmed.
    whole = f"{text}x" if name == "str_startswith" else f"x{text}"
    if cleaned(replace(column, case=None, null_tokens=()), whole) != whole or _change_case(column, text) != text:
        raise DeclarationError(f"{where} is {text!r}, which no cleaned text can match (trim, case, Unicode NFC)")
    return str(text)


def _change_case(column: Column, text: str) -> str:
    return {"lower": text.lower, "upper": text.upper}.get(column.case or "", lambda: text)()


def _pattern(where: str, column: Column, name: str, argument: Any) -> str | re.Pattern[str]:
    del column
    if isinstance(argument, re.Pattern) and isinstance(argument.pattern, str):
        return argument  # Such a pattern is matched by Python, with its flags.
    if not isinstance(argument, str):
        raise DeclarationError(f"{where} is {argument!r}; it takes a pattern, which is text")
    if not _is_pattern(argument) or not _is_pattern(anchored_pattern(name, argument)):
        raise DeclarationError(
            f"{where} is {argument!r}, which cannot be used by polars and Pandera: they have no look-around, no back "
            "references and no classes such as \\p{L}, and every bracket is closed"
        )
    return argument


def _is_pattern(text: str) -> bool:
    """Return True if a text is a pattern for Python, which Pandera uses, and for polars, whose import takes half a second."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # A future Python may support nested sets.
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


def _email(where: str, column: Column, name: str, argument: Any) -> bool:
    del column, name
    if argument is not True:
        raise DeclarationError(f"{where} is {argument!r}; it can be True, or be left out")
    return True


_PARSERS: Mapping[str, Callable[[str, Column, str, Any], Any]] = {
    **dict.fromkeys(RANGES, _range),
    **dict.fromkeys(("isin", "notin"), _values),
    **dict.fromkeys(PATTERNS, _pattern),
    **dict.fromkeys(AFFIXES, _affix),
    "str_length": _length,
    "email": _email,
}


# Values


def _value(where: str, column: Column, name: str, value: Any) -> Any:
    """Return a value of the column's type, without rounding."""
    kind = column.type
    if kind in (int, float, Decimal):
        return _number(where, column, value)
    # In Python a datetime is a date, and a bool a number.
    if not isinstance(value, kind) or (kind is dt.date and isinstance(value, dt.datetime)):
        raise DeclarationError(f"{where} is {value!r}; the column takes {TYPE_NAMES[kind]}")
    if kind is dt.datetime and value.utcoffset() is None:
        raise DeclarationError(f"{where} is {value!r}, which is ambiguous without a time zone; give it tzinfo=dt.UTC")
    if kind is str and name in ("isin", "notin", *EQUAL, *UNEQUAL) and (not value or cleaned(column, value) != value):
        raise DeclarationError(
            f"{where} names {value!r}, which no cleaned text can match (trim, case, null_tokens, Unicode NFC)"
        )
    return value


def _number(where: str, column: Column, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise DeclarationError(f"{where} is {value!r}; the column takes {TYPE_NAMES[column.type]}")
    if not isinstance(value, int) and not math.isfinite(value):
        raise DeclarationError(f"{where} is {value}, and the values of the column are finite; leave it out")
    if column.type is float:
        try:
            exact = Decimal(repr(float(value))) == Decimal(value) or isinstance(value, float)
        except OverflowError:
            exact = False
        if not exact:
            raise DeclarationError(
                f"{where} is {value}, which a float would round; make the column a Decimal or an int"
            )
        return value if isinstance(value, int) else float(value)
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    digits = len(number.normalize().as_tuple().digits)
    whole = number == number.to_integral_value()
    if isinstance(value, float) and (abs(value) >= EXACT_FLOAT or (not whole and digits > FLOAT_DIGITS)):
        raise DeclarationError(
            f"{where} is {value!r}, which may be rounded, as a float is; write {TYPE_NAMES[column.type]}"
        )
    if column.type is int:
        if not whole:
            raise DeclarationError(f"{where} is {value}, and the column has whole numbers")
        if not -(2**INT_BITS) <= number < 2**INT_BITS:
            raise DeclarationError(f"{where} is {value}, and whole numbers have 64 bits: leave it out")
        return int(number)
    # A limit may be one power of ten above the largest value: "below 10000" for a column with four digits.
    if abs(number) > (limit := Decimal(10) ** (DECIMAL_DIGITS - column.decimals)):
        raise DeclarationError(f"{where} is {value}, and the column holds numbers below {limit:f}; leave it out")
    if number != number.quantize(Decimal(1).scaleb(-column.decimals)):
        raise DeclarationError(f"{where} is {value}, and the column keeps {column.decimals} decimals; give it more")
    return number if isinstance(value, float) else value


# Checks that no value can meet


def _refuse_unsatisfiable(where: str, column: Column) -> None:
    """Refuse checks that can each be met, but not all of them together.

    If a check lists the allowed values, each is tried. Else the highest lower limit is compared with the lowest upper one;
    for types with a smallest step, an excluded limit is first moved by one step: no whole number is above 3 and below 4.
    """
    strict = {name: argument for name, argument in column.checks.items() if name not in column.warn}
    if not strict:
        return
    combination = ", ".join(f"{name}={_display(argument)}" for name, argument in strict.items())
    refusal = DeclarationError(f"{where}: no value can meet {combination}")
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
    if step is not None and has_neighbours(least, most):
        least = least if low[1] else least + step
        most = most if high[1] else most - step
        if least > most:
            raise refusal
    elif least > most or (least == most and not (low[1] and high[1])):
        raise refusal


def has_neighbours(least: Any, most: Any) -> bool:
    """Return True if a step can be added to both limits: there is no day after the last one that Python supports."""
    return dt.date.max not in (least, most) and dt.date.min not in (least, most)


def _limits(checks: Mapping[str, Any]) -> tuple[list[tuple[Any, bool]], list[tuple[Any, bool]]]:
    """Return the lower and the upper limits, each with True if the limit itself is allowed."""
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
    """Return True if a value meets a check; patterns and addresses are assumed to be met."""
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


def _display(argument: Any) -> str:
    return (
        str(argument)
        if isinstance(argument, Mapping | Collection) and not isinstance(argument, str)
        else repr(argument)
    )


# Sentences


def check_sentence(check: str, argument: Any, unit: str | None) -> str:
    """Return the sentence about a value that fails a check, to be read after the column's name."""
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
            sentence = _length_sentence(check, argument)
        case "isin", _:
            sentence = f"is not one of {', '.join(map(str, argument))}"
        case "str_matches", _:
            sentence = f"does not match {getattr(argument, 'pattern', argument)}"
        case "email", _:
            sentence = "does not look like an e-mail address"
        case _:
            sentence = f"fails {check}({getattr(argument, 'pattern', argument)})"
    return sentence


def _length_sentence(check: str, bounds: Mapping[str, int]) -> str:
    match bounds:
        case {"min_value": low, "max_value": high} if low == high:
            return f"is not {low} character{'' if low == 1 else 's'} long"
        case {"min_value": low, "max_value": high}:
            return f"is shorter than {low} or longer than {high} characters"
        case {"min_value": low}:
            return f"is shorter than {low} characters"
        case {"max_value": high}:
            return f"is longer than {high} characters"
    return f"fails {check}({dict(bounds)})"
