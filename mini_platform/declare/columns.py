"""Columns: the row model of a dataset, which defines what a valid row is.

Here: columns, their types and checks, and rules, as they are declared. Not here: the dataset that they belong to
(`dataset.py`), and the validation of rows (`rows/validation.py`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
import re
import typing
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import wraps
from typing import Any, Literal, Never, NotRequired, TypedDict, TypeVar

from mini_platform.declare.places import Place, place_of, place_of_caller

if typing.TYPE_CHECKING:
    import polars as pl


T = TypeVar("T")
V = TypeVar("V")
"""Type of a column."""


class DeclarationError(ValueError):
    """A declaration is invalid; the message begins with its place, if that is known.

    Attributes:
        sentence: the reason, and what to declare instead.
        place: file and line of what is wrong.
    """

    def __init__(self, sentence: str, place: Place | None = None) -> None:
        """Store the sentence and the place."""
        super().__init__(sentence)
        self.sentence, self.place = sentence, place

    def __str__(self) -> str:
        """Return the sentence with its place."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


@contextmanager
def placed(declared: Any, name: str | None = None) -> Iterator[None]:
    """Give a `DeclarationError` that is raised inside the place of a declaration, unless it has a better one.

    See `place_of` for the arguments.
    """
    try:
        yield
    except DeclarationError as error:
        error.place = error.place or place_of(declared, name)
        raise


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Raise whatever a function of a user raises as a `DeclarationError`, whose sentence begins with `where`."""
    try:
        yield
    except DeclarationError:
        raise
    except Exception as error:  # It may raise anything.
        raise DeclarationError(f"{where}: {type(error).__name__}: {error}") from error


def report_bad_arguments(kind: type[T]) -> type[T]:
    """Make a class store the place of each call, and raise a `DeclarationError` with it for what is wrong there.

    An unknown or missing argument is one sentence, too, and not a `TypeError`.
    """
    signature, make = inspect.signature(kind), kind.__init__

    @wraps(make)
    def init(self: T, *args: Any, **options: Any) -> None:
        if type(self) is not kind:
            make(self, *args, **options)
            return
        vars(self)["place"] = place_of_caller()
        with placed(self):
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                unknown = next((option for option in options if option not in signature.parameters), None)
                reason = (
                    f"got an unexpected keyword argument {unknown!r}{nearest(unknown, signature.parameters)}"
                    if unknown
                    else str(error)
                )
                raise DeclarationError(f"{kind.__name__} {reason}") from error
            make(self, *args, **options)

    kind.__init__ = init  # type: ignore[method-assign, assignment]
    return kind


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word most similar to this one, as `; did you mean x?`; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {matches[0]}?" if matches else ""


def text_tuple(label: str, texts: Any) -> tuple[str, ...]:
    """Return texts as a tuple.

    Raises:
        DeclarationError: the value is a bare text, which Python would iterate by letter, or contains something that is not
            a text, or one text twice.
    """
    if isinstance(texts, str):
        raise DeclarationError(f'{label} is {texts!r}; it takes a tuple of texts, as in ("{texts}",)')
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DeclarationError(f'{label} is {texts!r}; it takes texts, as in ("a",) or ("a", "b")')
    if repeated := sorted({text for text in texts if texts.count(text) > 1}):
        raise DeclarationError(f"{label} names {', '.join(repeated)} twice")
    return tuple(texts)


def normalized(name: str) -> str:
    """Return a column's name in the form in which headers are compared: without case, space around it, and kind of joint."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())
    return re.sub(r"[\s_-]+", "_", folded)


Severity = Literal["error", "warn"]
Case = Literal["lower", "upper"]
Personal = Literal["mask", "hash", "last4", "redact"]
"""Protection of personal data. `mask` keeps the value in the tables and hides it wherever rows are shown. The others replace
it before it is staged, so that only the raw file has it: `hash` by its HMAC-SHA-256, `last4` by `***-***-1234`, `redact` by a
fixed word. A text that has this form already, as in an export, is unchanged, if it is no hash by an unknown key. The cells of a
rejected row may be shifted into other columns, so only the shape of its other values is shown; with `hash`, `last4` and
`redact` only this shape is stored, too."""
SystemColumn = Literal["file", "line", "record", "source", "first_loaded", "last_loaded", "surrogate"]
"""Values that the platform fills in. `file`: name of the file. `line`: number of the line on which the row starts. `record`:
number of the row among the records that start on that line (always 1 in CSV and JSON lines). `source`: name of the API source,
else of the format. `first_loaded`: when the key was first written. `last_loaded`: when the row was last changed.
`surrogate`: a number of the key, which never changes; keys are numbered as they are first written.
`file`, `line` and `record` together identify a row. A column of a file that has the name of such a column, or of a derived one,
is left out, and is not unexpected. Only the value of a column with the name of a `source` column is used unless it is empty, so
that rows of several sources can arrive in one file."""

CheckName = Literal[
    "ge", "gt", "le", "lt", "in_range", "eq", "ne", "isin", "notin", "str_length", "str_matches", "str_contains",
    "str_startswith", "str_endswith", "email", "greater_than_or_equal_to", "greater_than", "less_than_or_equal_to",
    "less_than", "between", "equal_to", "not_equal_to",
]  # fmt: skip
"""Names of the checks of a column."""


class InRange(TypedDict):
    """Arguments of the check `in_range`."""

    min_value: Any
    max_value: Any
    include_min: NotRequired[bool]
    include_max: NotRequired[bool]


class StrLength(TypedDict, total=False):
    """Arguments of the check `str_length`."""

    min_value: int | None
    max_value: int | None
    exact_value: int | None


TYPE_RULES: Mapping[Any, tuple[str, str]] = {
    float: ("is_number", "is not a number"),
    int: ("is_integer", "is not a whole number"),
    Decimal: ("is_decimal", "is not a plain number with at most {decimals} decimals"),
    dt.date: ("is_date", "is not a date of the form YYYY-MM-DD"),
    dt.datetime: ("is_timestamp", "is not an ISO 8601 time with its offset from UTC and at most 6 decimals"),
    bool: ("is_boolean", "is not true or false"),
    list[float]: ("is_numbers", "is not a list of finite numbers"),
}
"""Type of a column -> name and sentence of the rule that its text must parse. Text has none: every text parses."""
PLAIN_NAME = r"[A-Za-z][A-Za-z0-9_]*"
"""Pattern of names that become parts of Dagster's names, of addresses and of identifiers."""
DECIMAL_DIGITS = 18
"""Total number of digits of a `Decimal`."""


@dataclass(frozen=True)
class Rule:
    """A condition that every row must meet: a name for machines, a sentence for people.

    Attributes:
        name: name of the rule, unique within the dataset, of the form `<column>_<check>`; also the name of the Dagster check.
        column: the column that the rule validates; None for a rule about the whole row.
        sentence: what is wrong with a row that breaks it, to be read after the column's name.
        severity: `error` rejects the row, `warn` lets it through and counts it.
    """

    name: str
    column: str | None
    sentence: str
    severity: Severity = "error"

    @property
    def message(self) -> str:
        """Return the whole sentence, as shown beside a rejected row."""
        return f"{self.column} {self.sentence}" if self.column else self.sentence


@dataclass(frozen=True)
class FieldSpec:
    """The options of a column, as `Field` received them; they are described there."""

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
    timezone: str | None = None
    personal: Personal | None = None
    stored: bool = True
    system: SystemColumn | None = None
    derived: Callable[[Callable[[str], pl.Expr]], pl.Expr] | None = None
    explicit: frozenset[str] = frozenset()
    """Names of the options that differ from their default, and of `decimals` if it was passed."""


FIELD_OPTIONS = tuple(
    name for name in FieldSpec.__dataclass_fields__ if name not in ("description", "checks", "explicit")
)
"""Keywords of `Field` that are not checks."""


@dataclass(frozen=True, kw_only=True)
class Column(FieldSpec):
    """A declared column. `checks` maps the names of checks to their arguments."""

    name: str
    type: Any
    nullable: bool

    @property
    def is_read(self) -> bool:
        """Return True if its text comes from the file; otherwise it is derived, or filled in by the platform."""
        return self.system is None and self.derived is None

    @property
    def is_staged(self) -> bool:
        """Return True if staging has it: every column has this but those known only when the row is written."""
        return self.system not in ("first_loaded", "last_loaded", "surrogate")

    @property
    def is_lasting(self) -> bool:
        """Return True if a key keeps its first value, also if its row is deleted and comes back."""
        return self.system in ("first_loaded", "surrogate")

    @property
    def is_protected(self) -> bool:
        """Return True if its text is replaced before it is staged."""
        return self.personal not in (None, "mask")

    @property
    def type_rule(self) -> Rule | None:
        """Return the rule that its text must parse as its type; None for text, and for columns that are not read."""
        if self.type not in TYPE_RULES or not self.is_read:
            return None
        name, sentence = TYPE_RULES[self.type]
        if self.timezone:
            sentence = f"is not an ISO 8601 date or time of {self.timezone} with at most 6 decimals"
        return Rule(f"{self.name}_{name}", self.name, sentence.format(decimals=self.decimals))

    @property
    def comment(self) -> str:
        """Return the description with unit and source, for the database, the UI and the docs."""
        unit = f" [{self.unit}]" if self.unit else ""
        source = f" ({self.source})" if self.source else ""
        personal = ". Personal data" if self.personal else ""
        return f"{self.description}{unit}{source}{personal}"


def Field(  # noqa: N802, PLR0913 - a class for who reads it, with every word
    description: str = "",
    *,
    unit: str | None = None,
    source: str | None = None,
    aliases: str | Collection[str] = (),
    optional: bool = False,
    trim: bool = True,
    null_tokens: str | Collection[str] = (),
    case: Case | None = None,
    decimals: int | None = None,
    timezone: str | None = None,
    personal: Personal | None = None,
    stored: bool = True,
    system: SystemColumn | None = None,
    derived: Callable[[Callable[[str], pl.Expr]], pl.Expr] | None = None,
    warn: CheckName | Sequence[CheckName] = (),
    ge: V | float | Decimal | None = None,
    gt: V | float | Decimal | None = None,
    le: V | float | Decimal | None = None,
    lt: V | float | Decimal | None = None,
    in_range: InRange | None = None,
    eq: V | float | Decimal | None = None,
    ne: V | float | Decimal | None = None,
    isin: Collection[V | float | Decimal] | None = None,
    notin: Collection[V | float | Decimal] | None = None,
    str_length: StrLength | int | None = None,
    str_matches: str | re.Pattern[str] | None = None,
    str_contains: str | re.Pattern[str] | None = None,
    str_startswith: str | None = None,
    str_endswith: str | None = None,
    email: Literal[True] | None = None,
    greater_than_or_equal_to: V | float | Decimal | None = None,
    greater_than: V | float | Decimal | None = None,
    less_than_or_equal_to: V | float | Decimal | None = None,
    less_than: V | float | Decimal | None = None,
    between: InRange | None = None,
    equal_to: V | float | Decimal | None = None,
    not_equal_to: V | float | Decimal | None = None,
    **unknown: Never,
) -> V:
    """Declare a column of a `RowModel`, as `Field` of Pandera and pydantic do.

    `height_m: float | None = Field("Height above the sea", unit="m", in_range={"min_value": -430, "max_value": 8850})`

    Each check is a rule with the name `<column>_<check>`, and a row that breaks it is rejected. In addition a column that is
    not annotated `X | None` has the rule `<column>_required`, and one that is not text the rule `<column>_is_…`, such as
    `_is_date`. Most checks are Pandera's. They apply to values that are not empty; their values are of the column's type.

    A cell may have any form that loses nothing: `12.0` and `1E3` as a whole number; `.50`, `99.990` and `1e2` as a decimal;
    `2026-1-5` and a midnight without an offset, `2026-01-05T00:00:00`, as a date; the extended and the basic form of ISO 8601,
    `20260105T060000-0400`, as a time, which needs its offset and may end with the hour or the minute. All forms of a value
    are one value. Not accepted are `nan`, `1_0`, digits of other scripts, `20260105` and `1/5/2026`.

    Args:
        description: what the column contains, shown wherever the column is.
        unit: unit of the values, shown beside the description and in messages about limits.
        source: where the limits come from, such as a standard or a data sheet; shown beside the description.
        aliases: other names of the column in files, also paths of nested JSON joined by `_`; upper case, space, - and _
            make no difference.
        optional: True accepts files without the column; it is empty in their rows.
        trim: False keeps white space around a value, which is removed by default.
        null_tokens: texts that stand for an empty value, such as `("NA", "-")`; compared exactly as written, before and
            after the case is changed.
        case: "lower" or "upper" converts text to this case, after Unicode normalization (NFC).
        decimals: number of digits after the point of a `Decimal`, which has 18 digits in total; the default is 2. A cell
            with more, zeros at its end not counted, is rejected; a derived value is rounded, half away from zero.
        timezone: name of the time zone, such as "UTC" or "Europe/Vienna", of times without an offset; a date alone is its
            midnight. A time that the zone's clock skips or repeats is rejected. Without this option, so are all of them.
        personal: "mask", "hash", "last4" or "redact" protects personal data, see `Personal`.
        stored: False keeps the column out of production; it is only validated, and columns can be derived from it.
        system: "file", "line", "record", "source", "first_loaded", "last_loaded" or "surrogate" makes the platform fill the
            column in, see `SystemColumn`. A column of a file with its name is left out, except for "source", whose value in
            the file is used unless it is empty.
        derived: a function that takes `col` (polars.col) and returns an expression over the columns that are read. It is
            computed exactly, quotients to 19 decimals. The column is empty in rows where the result cannot be computed
            or does not fit its type, such as 1.5 in a whole number; other rows are not affected. A column of a file with
            its name is left out. The expression must be
            about one row: sums, ranks, differences and the like over several rows are refused. Derived text is cleaned
            as a cell is.
        warn: names of those of its checks that only warn: rows that fail them are counted, and loaded.
        ge: the value must not be below this one.
        gt: the value must be above this one.
        le: the value must not be above this one.
        lt: the value must be below this one.
        in_range: the value must be from `min_value` to `max_value`; `include_min` and `include_max`, if False, exclude these
            two.
        eq: the value must equal this one.
        ne: the value must not equal this one.
        isin: the value must be one of these, which are compared with cleaned values.
        notin: the value must not be one of these.
        str_length: the text must have from `min_value` to `max_value` characters, or exactly this number of them.
        str_matches: the text must match this pattern from its beginning, not necessarily to its end.
        str_contains: this pattern must match somewhere in the text.
        str_startswith: the text must begin with this one.
        str_endswith: the text must end with this one.
        email: True requires text in the form of an e-mail address, internal ones (`x@host.local`) included;
            whether it exists is not checked.
        greater_than_or_equal_to: the same as `ge`.
        greater_than: the same as `gt`.
        less_than_or_equal_to: the same as `le`.
        less_than: the same as `lt`.
        between: the same as `in_range`.
        equal_to: the same as `eq`.
        not_equal_to: the same as `ne`.
        unknown: any other word is refused when the dataset is declared, as are words that contradict each other or the type.
    """
    words = {**locals(), **unknown}
    del words["unknown"]
    options = {word: words.pop(word) for word in FIELD_OPTIONS}
    for word in ("aliases", "null_tokens", "warn"):
        if isinstance(options[word], str):
            options[word] = (options[word],)
        elif isinstance(options[word], list | set | frozenset):
            options[word] = tuple(options[word])
    defaults = FieldSpec.__dataclass_fields__
    explicit = {word for word, value in options.items() if value != defaults[word].default and value is not None}
    if decimals is None:
        options["decimals"] = defaults["decimals"].default
    else:
        explicit.add("decimals")
    del words["description"]
    checks = {word: value for word, value in words.items() if value is not None}
    spec = FieldSpec(description, checks=checks, explicit=frozenset(explicit), **options)
    return typing.cast("V", spec)  # Type checkers compare the checks with the type of the column.


@dataclass(frozen=True)
class CustomRule:
    """A rule written as a polars expression that is true for rows that meet it; null counts as met."""

    rule: Rule
    holds: Callable[[Callable[[str], pl.Expr]], pl.Expr]


def rule(
    sentence: str, *, column: str | None = None, severity: Severity = "error"
) -> Callable[[Callable[..., Any]], CustomRule]:
    """Turn a method of a `RowModel` into a rule with the name `<column>_<method>`, or `<method>` without a column.

    The method takes `col` (polars.col) and returns an expression over the typed columns that is true for valid rows. A row
    also passes if the result is null or cannot be computed, as in a division by zero; it fails if a number in the expression
    would have more than 38 digits. Whole numbers and Decimals are computed exactly, quotients to 19 decimals. The rule is not
    applied to rows with a value that cannot be parsed, as they are rejected already. An expression that uses other rows is
    refused.

    Args:
        sentence: what is wrong with a row that breaks the rule; with a column it is read after the column's name.
        column: the column at fault, whose value is shown with the rejected row; None stands for the whole row.
        severity: "error" rejects the row, "warn" counts it and loads it.

    Raises:
        DeclarationError: the sentence is missing, or the severity is unknown.
    """
    if not isinstance(sentence, str) or not sentence.strip():
        raise DeclarationError('@rule takes a sentence: @rule("is after tomorrow", column="date")', place_of_caller())
    if severity not in (options := typing.get_args(Severity)):
        raise DeclarationError(
            f"the rule {sentence!r}: severity is {severity!r}; it can be {' or '.join(options)}", place_of_caller()
        )

    def decorate(function: Callable[..., Any]) -> CustomRule:
        name = f"{column}_{function.__name__}" if column else function.__name__
        return CustomRule(Rule(name, column, sentence, severity), function)

    return decorate


class _DeclaredOnce(dict[str, Any]):
    """The namespace of a class body that refuses a second field or rule of one name; Python would drop the first silently."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(self.get(name), FieldSpec | CustomRule):
            raise DeclarationError(
                f"{self._model}.{name} is declared twice; give one of them another name", place_of_caller()
            )
        super().__setitem__(name, value)


class _RowModelType(type):
    """The metaclass of row models."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **_: Any) -> _DeclaredOnce:
        return _DeclaredOnce(name)


class RowModel(metaclass=_RowModelType):
    """Base of a row model: annotated `Field`s are columns, `@rule` methods are rules; `X | None` may be empty.

    Columns and rules are inherited, also from base classes that are not a `RowModel`: those of the furthest base come first.
    A column or rule that is declared again under its name replaces the inherited one, and none can be removed.

    The syntax is that of a Pandera model, without the import of Pandera; `validation.pandera_schema` returns the equivalent
    Pandera `DataFrameSchema`.
    """
