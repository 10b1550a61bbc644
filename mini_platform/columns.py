"""Columns: the row model of a dataset, which says what a valid row is.

Here: columns, their types and checks, and rules, as they are declared. Not here: the dataset that they belong to
(`dataset.py`, where all of these words can be imported from), and the judging of rows (`validation.py`).
"""

from __future__ import annotations

import datetime as dt
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

if typing.TYPE_CHECKING:
    import polars as pl


class DeclarationError(ValueError):
    """A declaration cannot be right; the message is a sentence that says why, and what to declare instead."""


Severity = Literal["error", "warn"]
Case = Literal["lower", "upper"]
Personal = Literal["mask", "hash", "last4", "redact"]
"""What is done with personal data: `mask` keeps it in the tables and hides it wherever rows are shown. The others replace it
before it is staged, so that only the raw file has it: `hash` by its HMAC-SHA-256, `last4` by `***-***-1234`, `redact` by
a word. A rejected row may be shifted: of its other columns only the shape is shown, and with the others only that is kept."""
Given = Literal["file", "line", "record", "source", "first_loaded", "last_loaded"]
"""What the platform fills in: the name of the file, the line on which the row starts, its number among the records that start
on that line (1 where it is alone there, as in CSV and JSON lines), the name of its source (a pull's, else the format's), when
the key was first written, when the row was last changed. `file`, `line` and `record` are a place that no other row has."""

TYPE_RULES: Mapping[Any, tuple[str, str]] = {
    float: ("is_number", "is not a number"),
    int: ("is_integer", "is not a whole number"),
    Decimal: ("is_decimal", "is not a plain number with at most {decimals} decimals"),
    dt.date: ("is_date", "is not a date of the form YYYY-MM-DD"),
    dt.datetime: ("is_timestamp", "is not an ISO 8601 time with its offset from UTC"),
    bool: ("is_boolean", "is not true or false"),
    list[float]: ("is_numbers", "is not a list of finite numbers"),
}
"""Python type of a column -> the rule that its text must parse. Text columns have none: every text parses."""
DECIMAL_DIGITS = 18
"""Digits of a `Decimal` in all."""


@dataclass(frozen=True)
class Rule:
    """One thing that must hold of a row: a name for machines, a sentence for people.

    Attributes:
        name: unique within the dataset, of the form `<column>_<what>`; also the name of the Dagster check.
        column: the column it judges; None for a rule about the whole row.
        sentence: what is wrong with a row that breaks it, to be read after the column's name.
        severity: `error` rejects the row, `warn` lets it through and counts it.
    """

    name: str
    column: str | None
    sentence: str
    severity: Severity = "error"

    @property
    def message(self) -> str:
        """The whole sentence, as shown beside a rejected row."""
        return f"{self.column} {self.sentence}" if self.column else self.sentence


@dataclass(frozen=True)
class FieldSpec:
    """What `Field` was told about a column; see there."""

    description: str
    unit: str | None = None
    source: str | None = None
    checks: Mapping[str, Any] = field(default_factory=dict)
    warn: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    may_lack: bool = False
    null_tokens: tuple[str, ...] = ()
    trim: bool = True
    case: Case | None = None
    decimals: int = 2
    personal: Personal | None = None
    stored: bool = True
    given: Given | None = None
    derived: Callable[[Callable[[str], pl.Expr]], pl.Expr] | None = None


@dataclass(frozen=True, kw_only=True)
class Column(FieldSpec):
    """One declared column. `checks` maps the names of checks to their arguments."""

    name: str
    type: Any
    nullable: bool

    @property
    def is_read(self) -> bool:
        """Whether its text comes from the file; the others are derived, or given by the platform."""
        return self.given is None and self.derived is None

    @property
    def is_staged(self) -> bool:
        """Whether staging has it: all but what is only known when the row is written."""
        return self.given not in ("first_loaded", "last_loaded")

    @property
    def is_protected(self) -> bool:
        """Whether its text is replaced before it is staged."""
        return self.personal not in (None, "mask")

    @property
    def type_rule(self) -> Rule | None:
        """The rule that its text must be one of its type; None for text, and for what is not read."""
        if self.type not in TYPE_RULES or not self.is_read:
            return None
        name, sentence = TYPE_RULES[self.type]
        return Rule(f"{self.name}_{name}", self.name, sentence.format(decimals=self.decimals))

    @property
    def comment(self) -> str:
        """Description with unit and source, for the database, the UI and the docs."""
        unit = f" [{self.unit}]" if self.unit else ""
        source = f" ({self.source})" if self.source else ""
        personal = ". Personal data" if self.personal else ""
        return f"{self.description}{unit}{source}{personal}"


def Field(description: str, **said: Any) -> Any:  # noqa: N802
    """Describe a column of a `RowModel`, as `Field` of Pandera and pydantic do.

    `temp_c: float | None = Field("Mean air temperature", unit="°C", in_range={"min_value": -90, "max_value": 60})`

    Args:
        description: what the column holds.
        **said: any of

            - `unit` of its values; `source`: where its limits come from;
            - `aliases`: other names of it in files, also paths of nested JSON joined by `_`; `may_lack`: a file without it
              is taken, and it is empty;
            - `trim`: False keeps space around; text is then composed (NFC), `null_tokens` such as `("NA", "-")` mean
              nothing, as written there, and `case`, "lower" or "upper", is applied last: `NA` is a token under any case;
            - `decimals` of a `Decimal`, 2 unless said otherwise: a cell with more is rejected, what is derived is rounded to
              them, half away from zero;
            - `personal`: how personal data is protected, see `Personal`;
            - `stored`: False if it is only there to be judged and derived from, and not kept in production;
            - `given`: filled in by the platform, see `Given`;
            - `derived`: a function that takes `col` (polars.col) and returns an expression over the columns that are read. It
              is computed exactly, quotients to 19 decimals; what cannot be computed or held is empty, and costs no other
              value. Derived text is cleaned as a cell is;
            - `warn`: names of those of its checks that only warn;
            - and every other keyword is a check: Pandera's built-in ones by name with their argument, or their arguments as
              a dict, and those of `validation.CHECKS`.

    Raises:
        DeclarationError: what is said contradicts itself.
    """
    options = {name: said.pop(name) for name in list(said) if name in FieldSpec.__dataclass_fields__}
    for name in ("aliases", "null_tokens", "warn"):
        if isinstance(options.get(name), str):
            options[name] = (options[name],)
    spec = FieldSpec(description, checks=said, **options)
    if spec.given and (spec.derived or spec.checks):
        raise DeclarationError(f"{description!r}: a column that the platform gives has no checks and is not derived")
    if unknown := set(spec.warn) - set(said):
        raise DeclarationError(f"{description!r}: warn names {sorted(unknown)}, which are not among its checks")
    return spec


@dataclass(frozen=True)
class CustomRule:
    """A rule written as a polars expression that is true where the rule holds (null counts as holding)."""

    rule: Rule
    holds: Callable[[Callable[[str], pl.Expr]], pl.Expr]


def rule(
    sentence: str, *, column: str | None = None, severity: Severity = "error"
) -> Callable[[Callable[..., Any]], CustomRule]:
    """Turn a method of a `RowModel` into a rule.

    The function takes `col` (polars.col) and returns an expression over the typed columns, true where the rule holds. Null
    counts as holding, and so does what cannot be computed, such as a division by zero; but a row breaks the rule where a
    number in it would have more than 38 digits. Whole numbers and Decimals are computed exactly, quotients to 19 decimals.

    Args:
        sentence: what is wrong with a row that breaks it; with a column it is read after the column's name.
        column: the column that is to blame; None blames the whole row.
        severity: `error` rejects the row, `warn` only counts it.
    """

    def decorate(function: Callable[..., Any]) -> CustomRule:
        name = f"{column}_{function.__name__}" if column else function.__name__
        return CustomRule(Rule(name, column, sentence, severity), function)

    return decorate


class RowModel:
    """Base of a row model: annotated `Field`s are columns, `@rule` methods are rules; `X | None` may be empty.

    It is the words of a Pandera model without the import of Pandera; `validation.pandera_schema` gives the Pandera
    `DataFrameSchema` that it stands for.
    """


def columns_of(model: type[RowModel]) -> tuple[Column, ...]:
    """Return the columns that a row model declares, in order."""
    hints = typing.get_type_hints(model)
    columns = []
    for name, declared in vars(model).items():
        if not isinstance(declared, FieldSpec):
            continue
        hint = hints[name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        python_type = next(option for option in options if option is not types.NoneType)
        if python_type is not str and python_type not in TYPE_RULES:
            raise TypeError(f"{model.__name__}.{name}: columns of type {python_type} are not supported")
        if declared.personal and python_type is not str:
            raise TypeError(f"{model.__name__}.{name}: only text can be marked as personal data")
        columns.append(Column(**vars(declared), name=name, type=python_type, nullable=types.NoneType in options))
    return tuple(columns)


def check_sentence(check: str, argument: Any, unit: str | None) -> str:
    """Say what a value that fails one of Pandera's built-in checks is."""
    of_unit = f" {unit}" if unit else ""
    match check, argument:
        case "in_range", {"min_value": low, "max_value": high}:
            sentence = f"is outside {low} to {high}{of_unit}"
        case "ge" | "greater_than_or_equal_to", _:
            sentence = f"is below {argument}{of_unit}"
        case "le" | "less_than_or_equal_to", _:
            sentence = f"is above {argument}{of_unit}"
        case "gt" | "greater_than", _:
            sentence = f"is not above {argument}{of_unit}"
        case "lt" | "less_than", _:
            sentence = f"is not below {argument}{of_unit}"
        case "str_length", {"min_value": low, "max_value": high}:
            sentence = f"is shorter than {low} or longer than {high} characters"
        case "isin", _:
            sentence = f"is none of {', '.join(map(str, argument))}"
        case "str_matches", _:
            sentence = f"does not match {getattr(argument, 'pattern', argument)}"
        case "email", _:
            sentence = "does not look like an e-mail address"
        case _:
            sentence = f"fails {check}({getattr(argument, 'pattern', argument)})"
    return sentence
