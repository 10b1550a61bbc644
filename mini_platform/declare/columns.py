"""Columns: the row model of a dataset, which says what a valid row is.

Here: columns, their types and checks, and rules, as they are declared. Not here: the dataset that they belong to
(`dataset.py`), and the judging of rows (`rows/validation.py`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
import re
import typing
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import wraps
from typing import Any, Literal, TypeVar

if typing.TYPE_CHECKING:
    import polars as pl


T = TypeVar("T")


class DeclarationError(ValueError):
    """A declaration cannot be right; the message is a sentence that says why, and what to declare instead."""


def spelled(kind: type[T]) -> type[T]:
    """Make a class of words say in a sentence which word it does not know, or lacks, as Python's own is a traceback."""
    signature, make = inspect.signature(kind), kind.__init__

    @wraps(make)
    def said(self: T, *args: Any, **words: Any) -> None:
        if type(self) is kind:
            try:
                signature.bind(*args, **words)
            except TypeError as error:
                unknown = next((word for word in words if word not in signature.parameters), None)
                hint = nearest(unknown, signature.parameters) if unknown else ""
                raise DeclarationError(f"{kind.__name__} {error}{hint}") from error
        make(self, *args, **words)

    kind.__init__ = said  # type: ignore[method-assign, assignment]
    return kind


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known word; empty where none is near."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def texts_of(what: str, said: Any) -> tuple[str, ...]:
    """Return texts as a tuple.

    Raises:
        DeclarationError: they are a bare text, which Python takes for its letters, or no texts, or one stands there twice.
    """
    if isinstance(said, str) or not isinstance(said, Sequence) or not all(isinstance(text, str) for text in said):
        raise DeclarationError(f'{what} is {said!r}; it takes texts, as in ("a",) or ("a", "b")')
    if doubled := sorted({text for text in said if said.count(text) > 1}):
        raise DeclarationError(f"{what} names {', '.join(doubled)} twice")
    return tuple(said)


def normalized(name: str) -> str:
    """Return a column's name without what headers are forgiven: case, space around it, and how its words are joined."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())
    return re.sub(r"[\s_-]+", "_", folded)


Severity = Literal["error", "warn"]
Case = Literal["lower", "upper"]
Personal = Literal["mask", "hash", "last4", "redact"]
"""What is done with personal data: `mask` keeps it in the tables and hides it wherever rows are shown. The others replace it
before it is staged, so that only the raw file has it: `hash` by its HMAC-SHA-256, `last4` by `***-***-1234`, `redact` by
a word. A rejected row may be shifted: of its other columns only the shape is shown, and with the others only that is kept."""
SystemColumn = Literal["file", "line", "record", "source", "first_loaded", "last_loaded"]
"""What the platform fills in: the name of the file, the line on which the row starts, its number among the records that start
on that line (1 where it is alone there, as in CSV and JSON lines), the name of its source (the API's, else the format's), when
the key was first written, when the row was last changed. `file`, `line` and `record` are a place that no other row has."""

TYPE_RULES: Mapping[Any, tuple[str, str]] = {
    float: ("is_number", "is not a number"),
    int: ("is_integer", "is not a whole number"),
    Decimal: ("is_decimal", "is not a plain number with at most {decimals} decimals"),
    dt.date: ("is_date", "is not a date of the form YYYY-MM-DD"),
    dt.datetime: ("is_timestamp", "is not an ISO 8601 time with its offset from UTC and at most 6 decimals"),
    bool: ("is_boolean", "is not true or false"),
    list[float]: ("is_numbers", "is not a list of finite numbers"),
}
"""Python type of a column -> the rule that its text must parse. Text columns have none: every text parses."""
PLAIN_NAME = r"[A-Za-z][A-Za-z0-9_]*"
"""Names that become parts of Dagster's names, of addresses and of identifiers."""
DECIMAL_DIGITS = 18
"""Digits of a `Decimal` in all."""


@dataclass(frozen=True)
class Rule:
    """One thing that must hold of a row: a name for machines, a sentence for people.

    Attributes:
        name: unique within the dataset, of the form `<column>_<what>`; also the name of the Dagster check.
        column: the column it validates; None for a rule about the whole row.
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
    optional: bool = False
    null_tokens: tuple[str, ...] = ()
    trim: bool = True
    case: Case | None = None
    decimals: int = 2
    personal: Personal | None = None
    stored: bool = True
    system: SystemColumn | None = None
    derived: Callable[[Callable[[str], pl.Expr]], pl.Expr] | None = None
    explicit: frozenset[str] = frozenset()
    """Options that were given, also those with their default."""


WORDS = tuple(name for name in FieldSpec.__dataclass_fields__ if name not in ("description", "checks", "explicit"))
"""Keywords of `Field` that are no checks."""


@dataclass(frozen=True, kw_only=True)
class Column(FieldSpec):
    """One declared column. `checks` maps the names of checks to their arguments."""

    name: str
    type: Any
    nullable: bool

    @property
    def is_read(self) -> bool:
        """Whether its text comes from the file; the others are derived, or given by the platform."""
        return self.system is None and self.derived is None

    @property
    def is_staged(self) -> bool:
        """Whether staging has it: all but what is only known when the row is written."""
        return self.system not in ("first_loaded", "last_loaded")

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


def Field(description: str = "", **said: Any) -> Any:  # noqa: N802
    """Describe a column of a `RowModel`, as `Field` of Pandera and pydantic do.

    `height_m: float | None = Field("Height above the sea", unit="m", in_range={"min_value": -430, "max_value": 8850})`

    What files do not have right is rejected, row by row, by rules that are called `<column>_<check>`; besides these a column
    that is no `X | None` has the rule `<column>_required`, and one that is no text `<column>_is_…`, such as `_is_date`.

    Args:
        description: what the column holds, shown wherever the column is.
        **said: any of

            unit: what its values are counted in, shown beside the description and in sentences about its limits.
            source: where its limits come from, shown beside the description.
            aliases: other names of it in files, also paths of nested JSON joined by `_`; upper case, space, - and _ make no
                difference.
            optional: True takes a file without the column, which is empty in its rows then.
            trim: False keeps space around a value, which is taken off otherwise.
            null_tokens: texts that mean nothing, such as `("NA", "-")`; as written, before and after the case is changed.
            case: "lower" or "upper" is what text is brought into, after it was composed (Unicode NFC).
            decimals: digits behind the point of a `Decimal`, of 18 in all, 2 unless said otherwise: a cell with more is
                rejected, what is derived is rounded to them, half away from zero.
            personal: "mask", "hash", "last4" or "redact" protects personal data, see `Personal`.
            stored: False keeps the column out of production; it is there to be validated and derived from.
            system: "file", "line", "record", "source", "first_loaded" or "last_loaded" has the platform fill it in, see
                `SystemColumn`.
            derived: a function that takes `col` (polars.col) and returns an expression over the columns that are read. It is
                computed exactly, quotients to 19 decimals; what cannot be computed or held, as 1.5 by a whole number, is
                empty, and costs no other value. It is a value of its own row: sums, ranks, differences and the like over
                rows are refused. Derived text is cleaned as a cell is.
            warn: names of those of its checks that only warn: rows that fail them are counted, and loaded.

            And these checks, most of them Pandera's, of values that are not empty; an argument is a value of the column's
            type, or a dict of arguments by name.

            ge, greater_than_or_equal_to: the value is not below this one.
            gt, greater_than: the value is above this one.
            le, less_than_or_equal_to: the value is not above this one.
            lt, less_than: the value is below this one.
            in_range, between: the value is from `min_value` to `max_value`; `include_min` and `include_max`, if False, leave
                these two out.
            eq, equal_to: the value is this one.
            ne, not_equal_to: the value is not this one.
            isin: the value is one of these, as they are after cleaning.
            notin: the value is none of these.
            str_length: the text has from `min_value` to `max_value` characters, or just this number of them.
            str_matches: the text begins with what this pattern matches.
            str_contains: this pattern matches somewhere in the text.
            str_startswith: the text begins with this one.
            str_endswith: the text ends with this one.
            email: True wants the text to look like an e-mail address; nobody is asked whether it is one.

    Raises:
        DeclarationError: what is said contradicts itself; what contradicts the column's type is refused with the dataset.
    """
    options = {name: said.pop(name) for name in WORDS if name in said}
    for name in ("aliases", "null_tokens", "warn"):
        if isinstance(options.get(name), str):
            options[name] = (options[name],)
        elif isinstance(options.get(name), list | set | frozenset):
            options[name] = tuple(options[name])
    spec = FieldSpec(description, checks=said, explicit=frozenset(options), **options)
    if spec.system and (spec.derived or spec.checks):
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
    """Turn a method of a `RowModel` into a rule, called `<column>_<method>`, or by the method's name alone.

    The function takes `col` (polars.col) and returns an expression over the typed columns, true where the rule holds. Null
    counts as holding, and so does what cannot be computed, such as a division by zero; but a row breaks the rule where a
    number in it would have more than 38 digits. Whole numbers and Decimals are computed exactly, quotients to 19 decimals.
    A row of which a column cannot be read is not held to it: it is rejected already. An expression that looks at other rows is
    refused.

    Args:
        sentence: what is wrong with a row that breaks it; with a column it is read after the column's name.
        column: the column that is to blame, whose value is shown with the rejected row; None blames the whole row.
        severity: "error" rejects the row, "warn" counts it and lets it through.

    Raises:
        DeclarationError: there is no sentence, or no such severity.
    """
    if not isinstance(sentence, str) or not sentence.strip():
        raise DeclarationError('@rule takes a sentence: @rule("is after tomorrow", column="date")')
    if severity not in (options := typing.get_args(Severity)):
        raise DeclarationError(f"the rule {sentence!r}: severity is {severity!r}; it can be {' or '.join(options)}")

    def decorate(function: Callable[..., Any]) -> CustomRule:
        name = f"{column}_{function.__name__}" if column else function.__name__
        return CustomRule(Rule(name, column, sentence, severity), function)

    return decorate


class _DeclaredOnce(dict[str, Any]):
    """Names of a class body: Python would drop the first of two fields or rules of one name without a word."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(self.get(name), FieldSpec | CustomRule):
            raise DeclarationError(f"{self._model}.{name} is declared twice; give one of them another name")
        super().__setitem__(name, value)


class _RowModelType(type):
    """The type of row models."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **_: Any) -> _DeclaredOnce:
        return _DeclaredOnce(name)


class RowModel(metaclass=_RowModelType):
    """Base of a row model: annotated `Field`s are columns, `@rule` methods are rules; `X | None` may be empty.

    What bases declare counts, also those that are no `RowModel`: first the columns and rules of the furthest base; what is
    declared again under a name takes the place of what was. Nothing that a base declares can be taken away.

    It is the words of a Pandera model without the import of Pandera; `validation.pandera_schema` gives the Pandera
    `DataFrameSchema` that it stands for.
    """
