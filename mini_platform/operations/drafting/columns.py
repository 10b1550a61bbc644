"""Columns: what the texts under a header have in common -> the declaration of a column.

A type is taken where the platform's own parser (`validation.parse`) reads every text as one, so that what is drafted validates
its sample as it will judge later files. Where a sample leaves doubt, text wins: text loses nothing.
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
from mini_platform.rows.validation import clean, parse

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
"""Texts that mean nothing among values of another type."""
TEXT_NULLS = ("N/A", "n/a", "#N/A", "NULL", "null", "-", "--", "?", "\\N")
"""The same among texts, where `NA` may be Namibia and `None` a word."""
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
"""Of the last ones both must be there: a column of `NO` may be one of countries."""
AS_TEXT = re.compile(
    r"(?:.*_)?(?:zip|zipcode|postcode|postal|postal_code|plz|phone|tel|telephone|mobile|fax|iban|isbn|ean|ssn|vat)(?:_.*)?"
)
"""Names of columns whose digits are no number."""
DIGITS_OF_TEXT = r"^[+-]?0[0-9]|^\+[0-9]{7,}$|^[+-]?[0-9]{19,}$|^[+-]?[0-9]+\.[0-9]{16,}$"
"""Digits that a number would not keep: zeros in front, the plus of a telephone, more than a number holds."""
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
"""Forms of a day that are not ISO 8601, each with a pattern, as parsers take more than they should."""
FEW_VALUES = 8
SHORTENED = 60


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is drafted of one column of the sample.

    Attributes:
        header: its name in the sample.
        name: its identifier.
        type: of its values.
        nullable: whether some are empty.
        alias: the header, where the name is not what it is read as.
        null_tokens: texts that mean nothing.
        unit: from the header.
        decimals: of a `Decimal`.
        email: whether all look like e-mail addresses.
        personal: whether the name or the values say that it is about people.
        form: how the text is written that the value is derived from: a day's form, or "," or "." for the decimal mark of a
            number with the other one between thousands; None where the text is read as it is.
        text_name: name of the column that has this text.
        hints: comments: what was seen, checks to think about.
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
        """The same column without any claim: every text fits it."""
        return Draft(header=self.header, name=self.name, alias=self.alias, personal=self.personal)


def draft_columns(headers: Sequence[str], rows: pl.DataFrame, *, by_name: bool) -> list[Draft]:
    """Draft the columns of a sample.

    Args:
        headers: their names in the file, in the order of the columns of `rows`.
        rows: n rows of text.
        by_name: whether a header finds them in files, so that other spellings have to be declared as aliases.
    """
    names = identifiers(headers)
    taken = {*names, *map(normalized, headers)}
    drafts = []
    for header, name, cells in zip(headers, names, rows.get_columns(), strict=True):
        alias = header if by_name and normalized(header) != name else None
        draft = _draft(Draft(header=header, name=name, alias=alias), cells)
        if draft.form:
            text_name = unused(f"{name}_text", taken)
            taken.add(text_name)
            draft = replace(draft, text_name=text_name, alias=header if by_name else None)
        drafts.append(draft)
    return drafts


def _draft(draft: Draft, cells: pl.Series) -> Draft:
    texts = clean(_column(str), cells)
    values = texts.drop_nulls().unique(maintain_order=True)
    if values.is_empty():
        return replace(draft, hints=("empty in the sample",) if len(cells) else ())
    typed = _typed(draft, values)
    kept = values.filter(~values.is_in(typed.null_tokens)) if typed.null_tokens else values
    empty = typed.type == list[float] and values.str.contains(r"^\[\s*\]$").any()
    nullable = bool(texts.null_count()) or bool(typed.null_tokens) or empty
    personal = typed.type is str and (typed.email or bool(PERSONAL.fullmatch(draft.name)))
    hints = typed.hints if personal else (*typed.hints, *_hints(typed, kept, len(texts)))
    return replace(typed, nullable=nullable, personal=personal, hints=hints)


def _column(kind: Any, decimals: int = 2) -> Column:
    return Column(description="", name="cell", type=kind, nullable=True, decimals=decimals)


def _misfits(texts: pl.Series, kind: Any, decimals: int = 2) -> pl.Series:
    """The texts that are not of this type; those that mean nothing in it are no misfits."""
    texts = clean(_column(kind, decimals), texts).drop_nulls()
    parsed = pl.DataFrame({"cell": texts}).select(parse(_column(kind, decimals))).to_series()
    return texts.filter(parsed.is_null())


def _typed(draft: Draft, values: pl.Series) -> Draft:
    """The draft with type and null tokens."""
    for kind in (bool, int, float, dt.date, dt.datetime, list[float]):
        misfits = _misfits(values, kind).to_list()
        if len(misfits) == len(values) or not set(misfits) <= set(NULLS):
            continue
        fitting = values.filter(~values.is_in(misfits)) if misfits else values
        if kind is bool and not _are_booleans(fitting):
            continue
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
    """An exact decimal, where all values have the same few decimals and it is about money."""
    decimals = values.str.extract(r"^[+-]?[0-9]+\.([0-9]{2,3})$").str.len_bytes()
    if decimals.null_count() or decimals.n_unique() != 1:
        return draft
    count = int(decimals[0])
    as_prices = count == 2 and len(values) >= 10 and 2 * values.str.contains(PENNIES).sum() >= len(values)
    if not (MONEY.fullmatch(draft.name) or as_prices) or len(_misfits(values, Decimal, count)):
        return draft
    return replace(draft, type=Decimal, decimals=count)


def _text(draft: Draft, values: pl.Series) -> Draft:
    """A text, or a number or a day that is written in another way than the platform reads."""
    tokens = [token for token in TEXT_NULLS if token in values] if len(values) > 1 else []
    several = values.filter(~values.is_in(tokens)) if tokens else values
    if several.is_empty():
        return draft
    if written := _written(draft, values):
        return written
    draft = replace(draft, null_tokens=tuple(tokens))
    if several.str.contains(r"^[^@\s]+@[^@\s]+\.[^@\s]+$").all():
        return replace(draft, email=True)
    if several.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}[0-9:.]*$").all():
        return replace(draft, hints=("times without their offset from UTC: which moments they are cannot be told",))
    return draft


def _written(draft: Draft, values: pl.Series) -> Draft | None:
    """A value derived from the text, where all texts but null tokens have one form, and only one can be meant."""
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
        return replace(draft, hints=(f"days, as {' or '.join(forms)}: the sample does not tell which",))
    return None


def _hints(draft: Draft, values: pl.Series, rows: int) -> tuple[str, ...]:
    """Checks to think about, with what was seen."""
    if draft.type in (int, float, Decimal) and draft.form is None:
        numbers = values.cast(pl.Float64)
        low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
        return (
            f'in_range={{"min_value": {_below(low)}, "max_value": {-_below(-high)}}},  # seen: {low:.15g} to {high:.15g}',
        )
    if draft.type is dt.date and draft.form is None:
        return (f"seen: {values.min()!s} to {values.max()!s}",)
    if draft.type is str and not draft.email:
        if len(values) <= FEW_VALUES and rows >= 4 * len(values):
            listed = ", ".join(f'"{value}"' for value in sorted(values.to_list()))
            if len(listed) <= SHORTENED and listed.isascii() and listed.isprintable() and "\\" not in listed:
                return (f"isin=[{listed}],  # all that was seen",)
        longest = int(values.str.len_chars().max())  # type: ignore[arg-type]
        return (f'str_length={{"min_value": 1, "max_value": {2 * longest}}},  # seen: up to {longest}',)
    return ()


def _below(value: float) -> float | int:
    """A round number below the value, by about a fifth of it; 0 stays 0."""
    if value == 0:
        return 0
    lower = value - abs(value) / 5
    digits = len(f"{abs(value):.0f}") if abs(value) < 1e15 else 300
    if digits > 15:
        return float(f"{lower:.1e}")
    step = 10 ** max(digits - 2, 0)
    return int(lower // step * step)
