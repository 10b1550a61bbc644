"""Inference of a column's declaration from its header and the texts under it.

A type is chosen if the platform's own parser (`validation.read_cells`) reads every text as that type, so a draft validates its
sample exactly as later files. In doubt the type is text, which loses nothing.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import polars as pl

from mini_platform.declare.columns import Column, normalized
from mini_platform.operations.drafting.names import identifiers, unused, without_unit
from mini_platform.rows.validation import clean, read_cells

NULLS = (
    "NA",
    "N/A",
    "n/a",
    "na",
    "#N/A",
    "NULL",
    "null",
    "None",
    "none",
    "NaN",
    "nan",
    "nil",
    "-",
    "--",
    "?",
    ".",
    "\\N",
)
"""Texts that stand for an empty value among values of another type."""
TEXT_NULLS = ("N/A", "n/a", "#N/A", "NULL", "null", "-", "--", "?", "\\N")
"""Texts that stand for an empty value among texts, where `NA` may be Namibia and `None` a word."""
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
"""Pairs of texts; of all but the first, both must occur: a column of only `NO` may be one of countries."""
AS_TEXT = re.compile(
    r"(?:.*_)?(?:zip|zipcode|postcode|postal|postal_code|plz|phone|tel|telephone|mobile|fax|iban|isbn|ean|ssn|vat)(?:_.*)?"
)
"""Names of columns whose digits are not a number."""
DIGITS_OF_TEXT = r"^[+-]?0[0-9]|^\+[0-9]{7,}$|^[+-]?[0-9]{19,}$|^[+-]?[0-9]+\.[0-9]{16,}$"
"""Digits that a number would lose: leading zeros, the plus of a telephone number, more than a number can hold."""
MONEY = re.compile(
    r"(?:.*_)?(?:price|amount|cost|costs|fee|fees|revenue|salary|balance|tax|profit|payment|paid|budget|money|"
    r"preis|betrag|eur|usd|chf|gbp)(?:_.*)?"
)
PENNIES = r"\.(?:00|49|50|95|99)$"
PERSONAL = re.compile(
    r"(?:.*_)?(?:first|last|middle|full|sur|given|family|maiden|customer|person|contact|employee|patient|user|client|owner)"
    r"_?name(?:_.*)?|(?:.*_)?(?:surname|forename|vorname|nachname|e?_?mail|email_address|phone|telephone|tel|mobile|fax|"
    r"street|address|birthday|date_of_birth|birth_date|ssn)(?:_[0-9]+)?"
)
DECIMAL_COMMA, THOUSANDS_COMMA = (
    r"^[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+),[0-9]+$",
    r"^[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?$",
)
PLAIN = r"^[+-]?[0-9]+$"
DAYS = {
    "%d.%m.%Y": r"^\d{1,2}\.\d{1,2}\.\d{4}$",
    "%d/%m/%Y": r"^\d{1,2}/\d{1,2}/\d{4}$",
    "%m/%d/%Y": r"^\d{1,2}/\d{1,2}/\d{4}$",
    "%Y/%m/%d": r"^\d{4}/\d{1,2}/\d{1,2}$",
    "%d-%m-%Y": r"^\d{1,2}-\d{1,2}-\d{4}$",
}
"""Date formats other than ISO 8601, each with a pattern, as parsers accept more than they should."""
FEW_VALUES = 8
SHORTENED = 60


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The draft of one column of the sample.

    Attributes:
        header: name of the column in the sample.
        name: identifier of the column.
        type: type of its values.
        nullable: True if some values are empty.
        alias: the header, if it is not read as the name.
        null_tokens: texts that stand for an empty value.
        unit: unit, taken from the header.
        decimals: decimals of a `Decimal`.
        email: True if all values look like e-mail addresses.
        personal: True if the name or the values suggest personal data.
        form: format of the text that the value is derived from: a date format, or "," or "." for the decimal mark of a number
            that has the other one between thousands; None if the text is read as it is.
        text_name: name of the column that has this text.
        hints: comments with observed values and possible checks.
    """

    header: str
    name: str
    type: Any = str
    nullable: bool = True
    alias: str | None = None
    null_tokens: tuple[str, ...] = ()
    unit: str | None = None
    decimals: int = 2
    email: bool = False
    personal: bool = False
    form: str | None = None
    text_name: str = ""
    hints: tuple[str, ...] = ()

    @property
    def as_plain_text(self) -> Draft:
        """Return the draft of this column as nullable text, which every text fits."""
        return Draft(header=self.header, name=self.name, alias=self.alias, personal=self.personal)


def draft_columns(headers: Sequence[str], rows: pl.DataFrame, *, by_name: bool) -> list[Draft]:
    """Draft the columns of a sample.

    Args:
        headers: names of the columns in the file, in the order of the columns of `rows`.
        rows: n rows of text.
        by_name: True if files have a header, so that other spellings have to be declared as aliases.
    """
    names = identifiers(headers)
    used_names = {*names, *map(normalized, headers)}
    drafts = []
    for header, name, cells in zip(headers, names, rows.get_columns(), strict=True):
        alias = header if by_name and normalized(header) != name else None
        draft = _draft(Draft(header=header, name=name, alias=alias), cells)
        if draft.form:
            text_name = unused(f"{name}_text", used_names)
            used_names.add(text_name)
            draft = replace(draft, text_name=text_name, alias=header if by_name else None)
        drafts.append(draft)
    return drafts


def _draft(draft: Draft, cells: pl.Series) -> Draft:
    texts = clean(_column(str), cells)
    values = texts.drop_nulls().unique(maintain_order=True)
    if values.is_empty():
        return replace(draft, hints=("empty in the sample",) if len(cells) else ())
    typed = _typed(draft, values)
    without_nulls = values.filter(~values.is_in(typed.null_tokens)) if typed.null_tokens else values
    empty = typed.type == list[float] and values.str.contains(r"^\[\s*\]$").any()
    nullable = bool(texts.null_count()) or bool(typed.null_tokens) or empty
    personal = typed.type is str and (typed.email or bool(PERSONAL.fullmatch(draft.name)))
    hints = typed.hints if personal else (*typed.hints, *_hints(typed, without_nulls, len(texts)))
    return replace(typed, nullable=nullable, personal=personal, hints=hints)


def _column(kind: Any, decimals: int = 2) -> Column:
    return Column(description="", name="cell", type=kind, nullable=True, decimals=decimals)


def _not_of_type(texts: pl.Series, kind: Any, decimals: int = 2) -> pl.Series:
    """Return the texts that are not of this type, without those that it reads as empty."""
    cleaned, typed = read_cells([_column(kind, decimals)], pl.DataFrame({"cell": texts}))
    return cleaned["cell"].filter(cleaned["cell"].is_not_null() & typed["cell"].is_null())


def _typed(draft: Draft, values: pl.Series) -> Draft:
    """Return the draft with type and null tokens."""
    for kind in (bool, int, float, dt.date, dt.datetime, list[float]):
        misfits = _not_of_type(values, kind).to_list()
        if len(misfits) == len(values) or not set(misfits) <= set(NULLS):
            continue
        fitting = values.filter(~values.is_in(misfits)) if misfits else values
        if kind is bool and not _are_booleans(fitting):
            continue
        if kind is int and fitting.str.contains("[.eE]").any():
            continue  # `12.0` is a whole number, but a column of such cells is one of measurements.
        unit = without_unit(draft.header)[1] if kind in (int, float) else None
        typed = replace(draft, type=kind, null_tokens=tuple(misfits), unit=unit)
        if kind in (int, float):
            if AS_TEXT.fullmatch(draft.name) or fitting.str.contains(DIGITS_OF_TEXT).any():
                break
            return _money(typed, fitting) if kind is float else typed
        return typed
    return _text(draft, values)


def _are_booleans(values: pl.Series) -> bool:
    words = set(values.str.to_lowercase())
    return words <= BOOLEANS[0] or words in BOOLEANS


def _money(draft: Draft, values: pl.Series) -> Draft:
    """Return the draft as an exact decimal if all values have the same 2 or 3 decimals and look like money."""
    decimals = values.str.extract(r"^[+-]?[0-9]+\.([0-9]{2,3})$").str.len_bytes()
    if decimals.null_count() or decimals.n_unique() != 1:
        return draft
    count = int(decimals[0])
    as_prices = count == 2 and len(values) >= 10 and 2 * values.str.contains(PENNIES).sum() >= len(values)
    if not (MONEY.fullmatch(draft.name) or as_prices) or len(_not_of_type(values, Decimal, count)):
        return draft
    return replace(draft, type=Decimal, decimals=count)


def _text(draft: Draft, values: pl.Series) -> Draft:
    """Return the draft as text, or as a number or date derived from text that the platform does not read as such."""
    tokens = [token for token in TEXT_NULLS if token in values] if len(values) > 1 else []
    without_nulls = values.filter(~values.is_in(tokens)) if tokens else values
    if without_nulls.is_empty():
        return draft
    if derived := _derived(draft, values):
        return derived
    draft = replace(draft, null_tokens=tuple(tokens))
    if without_nulls.str.contains(r"^[^@\s]+@[^@\s]+\.[^@\s]+$").all():
        return replace(draft, email=True)
    if without_nulls.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}[0-9:.]*$").all():
        return replace(draft, hints=("times without an offset from UTC: the exact moments are unknown",))
    return draft


def _derived(draft: Draft, values: pl.Series) -> Draft | None:
    """Return the draft with a value derived from text, if all texts but null tokens fit exactly one format; else None."""
    draft = replace(draft, null_tokens=tuple(token for token in NULLS if token in values))
    values = values.filter(~values.is_in(NULLS))
    if values.is_empty():
        return None
    marks = []
    with_comma = values.str.contains(",").any()
    if with_comma and values.str.contains(f"{DECIMAL_COMMA}|{PLAIN}").all():
        marks += [] if values.str.contains(THOUSANDS_COMMA).any() else [","]
    if values.str.contains(f"{THOUSANDS_COMMA}|{PLAIN}").all() and values.str.contains(r",.*,|,.*\.").any():
        marks.append(".")
    if len(marks) == 1 and not AS_TEXT.fullmatch(draft.name) and not values.str.contains(r"^[+-]?0[0-9]").any():
        return replace(draft, type=float, form=marks[0], unit=without_unit(draft.header)[1])
    forms = [
        form
        for form, pattern in DAYS.items()
        if values.str.contains(pattern).all() and not values.str.to_date(form, strict=False).null_count()
    ]
    if len(forms) == 1:
        return replace(draft, type=dt.date, form=forms[0])
    if forms:
        return replace(draft, hints=(f"dates, as {' or '.join(forms)}: the sample is ambiguous",))
    return None


def _hints(draft: Draft, values: pl.Series, rows: int) -> tuple[str, ...]:
    """Return possible checks, as comments with the observed values."""
    if draft.type in (int, float, Decimal) and draft.form is None:
        numbers = values.cast(pl.Float64)
        low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
        return (
            f'in_range={{"min_value": {_below(low)}, "max_value": {-_below(-high)}}},  # seen: {low:.15g} to {high:.15g}',
        )
    if draft.type is dt.date and draft.form is None:
        _, typed = read_cells([_column(dt.date)], pl.DataFrame({"cell": values}))
        return (f"seen: {typed['cell'].min()!s} to {typed['cell'].max()!s}",)
    if draft.type is str and not draft.email:
        if len(values) <= FEW_VALUES and rows >= 4 * len(values):
            literals = ", ".join(f'"{value}"' for value in sorted(values.to_list()))
            if len(literals) <= SHORTENED and literals.isascii() and literals.isprintable() and "\\" not in literals:
                return (f"isin=[{literals}],  # all that was seen",)
        longest = int(values.str.len_chars().max())  # type: ignore[arg-type]
        return (f'str_length={{"min_value": 1, "max_value": {2 * longest}}},  # seen: up to {longest}',)
    return ()


def _below(value: float) -> float | int:
    """Return a round number that is about a fifth below the value; 0 for 0."""
    if value == 0:
        return 0
    lower = value - abs(value) / 5
    digits = len(f"{abs(value):.0f}") if abs(value) < 1e15 else 300
    if digits > 15:
        return float(f"{lower:.1e}")
    step = 10 ** max(digits - 2, 0)
    return int(lower // step * step)
