"""Dataset: the declaration from which everything else is derived.

Here: what a user may say about a dataset, and what follows from the words alone (columns, rules, names).
Not here: Dagster, the database, polars and Pandera (their import is slow; `validation.py` builds the Pandera schema from
the declaration when the first row is checked).
"""

from __future__ import annotations

import datetime as dt
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

if typing.TYPE_CHECKING:
    import random

    import polars as pl
    from sqlalchemy import FromClause, Select

Severity = Literal["error", "warn"]

TYPE_RULES: Mapping[type, tuple[str, str]] = {
    float: ("is_number", "is not a number"),
    int: ("is_integer", "is not a whole number"),
    dt.date: ("is_date", "is not a date of the form YYYY-MM-DD"),
    bool: ("is_boolean", "is not true or false"),
}
"""Python type of a column -> the rule that its text must parse. Text columns have none: every text parses."""


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


STRUCTURE_RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("row_has_header_fields", None, "the row has more or fewer fields than the header"),
        Rule("row_quotes_closed", None, "a quote is opened and never closed, or text follows a closing quote"),
        Rule("row_without_nul", None, "the row contains a NUL byte"),
        Rule("row_not_header", None, "the row repeats the header"),
        Rule("row_fields_bounded", None, "a field of the row is too long"),
    )
}
"""Rules about the form of a record, the same for every dataset: a row that breaks one has no columns, only its raw text."""

INDEX_BYTES = 2600
"""What is indexed of a row may have so many bytes: Postgres takes 2704 for an entry of an index, with its header."""
UTF8_BYTES = 4
"""Of a character at most."""


@dataclass(frozen=True)
class Column:
    """One declared column. `checks` maps the names of Pandera's built-in checks to their arguments."""

    name: str
    type: type
    nullable: bool
    description: str
    unit: str | None = None
    source: str | None = None
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type_rule(self) -> Rule | None:
        """The rule that its text must be one of its type; None for text."""
        if self.type not in TYPE_RULES:
            return None
        name, sentence = TYPE_RULES[self.type]
        return Rule(f"{self.name}_{name}", self.name, sentence)

    @property
    def comment(self) -> str:
        """Description with unit and source, for the database, the UI and the docs."""
        unit = f" [{self.unit}]" if self.unit else ""
        source = f" ({self.source})" if self.source else ""
        return f"{self.description}{unit}{source}"


@dataclass(frozen=True)
class FieldSpec:
    """What `Field` was told about a column."""

    description: str
    unit: str | None
    source: str | None
    checks: Mapping[str, Any]


def Field(description: str, *, unit: str | None = None, source: str | None = None, **checks: Any) -> Any:  # noqa: N802
    """Describe a column of a `RowModel`, as `Field` of Pandera and pydantic do.

    `temp_c: float | None = Field("Mean air temperature", unit="°C", in_range={"min_value": -90, "max_value": 60})`

    Args:
        description: what the column holds.
        unit: of its values.
        source: where its limits come from.
        checks: Pandera's built-in checks by name, with their argument, or their arguments as a dict.
    """
    return FieldSpec(description, unit, source, checks)


@dataclass(frozen=True)
class CustomRule:
    """A rule written as a polars expression that is true where the rule holds (null counts as holding)."""

    rule: Rule
    holds: Callable[[Callable[[str], pl.Expr]], pl.Expr]


def rule(
    sentence: str, *, column: str | None = None, severity: Severity = "error"
) -> Callable[[Callable[..., Any]], CustomRule]:
    """Turn a method of a `RowModel` into a rule.

    The function takes `col` (polars.col) and returns an expression over the typed columns, true where the rule holds.

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


def _columns(model: type[RowModel]) -> tuple[Column, ...]:
    hints = typing.get_type_hints(model)
    columns = []
    for name, declared in vars(model).items():
        if not isinstance(declared, FieldSpec):
            continue
        hint = hints[name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        python_type = next(option for option in options if option is not types.NoneType)
        if python_type is not str and python_type not in TYPE_RULES:
            raise TypeError(f"{model.__name__}.{name}: columns of type {python_type.__name__} are not supported")
        columns.append(
            Column(
                name,
                python_type,
                types.NoneType in options,
                declared.description,
                declared.unit,
                declared.source,
                declared.checks,
            )
        )
    return tuple(columns)


def _check_sentence(check: str, argument: Any, unit: str | None) -> str:
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
            sentence = f"does not match {argument}"
        case _:
            sentence = f"fails {check}({argument})"
    return sentence


@dataclass(frozen=True)
class Csv:
    """CSV files: UTF-8 (or UTF-16 with a byte order mark) unless an encoding is declared; columns by header name."""

    delimiter: str = ","
    encoding: str | None = None
    suffixes: tuple[str, ...] = (".csv", ".csv.gz", ".csv.zip", ".txt", ".tsv")
    name: str = "csv"


@dataclass(frozen=True)
class Above:
    """A limit on the rejected rows of one file, as a share of its rows, as a count, or as both: either one is enough."""

    share: float | None = None
    rows: int | None = None

    def exceeded(self, rejected: int, read: int) -> bool:
        """Whether so many rejected rows of so many read are above it."""
        over_share = self.share is not None and rejected > self.share * read
        return over_share or (self.rows is not None and rejected > self.rows)

    def __str__(self) -> str:
        """As words: `50% or 1,000 rows`."""
        share = [] if self.share is None else [f"{self.share * 100:g}%"]
        rows = [] if self.rows is None else [f"{self.rows:,} rows"]
        return " or ".join(share + rows) or "no limit"


@dataclass(frozen=True)
class Aggregate:
    """A table computed from production by a SQLAlchemy select, one row per group.

    Attributes:
        select: takes the production table, returns the select; its function's name is the table's, its docstring the
            description. Every selected column has a SQLAlchemy type.
        key: the selected columns that the select groups by, each a plain column of production.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of the small chart shown in the Dagster UI.
    """

    select: Callable[[FromClause], Select[Any]]
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str]

    @property
    def name(self) -> str:
        """Name of the asset and of the table in schema `analytics`."""
        return self.select.__name__

    @property
    def description(self) -> str:
        """First paragraph of the select's docstring."""
        return (inspect.getdoc(self.select) or self.name).split("\n\n")[0]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the platform needs to know to turn arriving files into trusted tables.

    Attributes:
        name: of the dataset: its drop folder, its asset group, the first part of its asset keys.
        table: name of its table in the schemas staging, production and quarantine.
        rows: the row model.
        key: columns that identify a row; the last arrival of a key wins.
        description: what a row is about, for the UI and the docs.
        owners: e-mail addresses or `team:name`, shown in the UI.
        indexes: columns with an index of their own in production (the key has one already).
        source: how its files are read.
        warn_above: rejected rows of a file above which its checks warn.
        refuse_above: rejected rows of a file above which nothing of it is published.
        aggregates: what is computed from production.
        realistic: makes one valid row from a random generator and a row number, for `mini-platform sample`; without
            it values are drawn from the declared types and ranges.
    """

    name: str
    table: str
    rows: type[RowModel]
    key: tuple[str, ...]
    description: str
    owners: Sequence[str] = ()
    indexes: tuple[str, ...] = ()
    source: Csv = Csv()
    warn_above: Above = Above(share=0)
    refuse_above: Above = Above(share=0.5)
    aggregates: tuple[Aggregate, ...] = ()
    realistic: Callable[[random.Random, int], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself, where it stands, and not when the first file arrives."""
        names = {column.name for column in self.columns}
        for what, used in (("key", self.key), ("indexes", self.indexes)):
            if unknown := set(used) - names:
                raise ValueError(
                    f"dataset {self.name}: {what} names {sorted(unknown)}, which {self.rows.__name__} lacks"
                )
        if optional := [c.name for c in self.columns if c.name in self.key and c.nullable]:
            raise ValueError(f"dataset {self.name}: key columns {optional} may not be empty")
        if reserved := [name for name in names if name.startswith("_")]:
            raise ValueError(f"dataset {self.name}: names with a leading underscore are the platform's: {reserved}")

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The declared columns, in order."""
        return _columns(self.rows)

    @cached_property
    def custom_rules(self) -> tuple[CustomRule, ...]:
        """The rules written as methods of the row model."""
        return tuple(value for value in vars(self.rows).values() if isinstance(value, CustomRule))

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule a row is held to, in the order of the bits of a verdict: structure, columns, whole rows."""
        rules = list(STRUCTURE_RULES.values())
        for column in self.columns:
            if not column.nullable:
                rules.append(Rule(f"{column.name}_required", column.name, "is empty"))
            if column.type_rule:
                rules.append(column.type_rule)
            for check, argument in column.checks.items():
                sentence = _check_sentence(check, argument, column.unit)
                rules.append(Rule(f"{column.name}_{check}", column.name, sentence))
            if most := self.index_bounds.get(column.name):
                sentence = f"is longer than the {most:,} bytes that can be indexed"
                rules.append(Rule(f"{column.name}_indexable", column.name, sentence))
        rules += [custom.rule for custom in self.custom_rules]
        return tuple(rules)

    @cached_property
    def index_bounds(self) -> Mapping[str, int]:
        """Indexed text columns with their most bytes: one longer value would make every load of its batch fail.

        Left out are those whose own `str_length` keeps them below it.
        """
        limits: dict[str, int] = {}
        for names in (self.key, *((name,) for name in self.indexes), *(a.key for a in self.aggregates)):
            texts = [column for column in self.columns if column.name in names and column.type is str]
            for column in texts:
                length = column.checks.get("str_length")
                longest = length.get("max_value") if isinstance(length, Mapping) else None
                most = INDEX_BYTES // len(texts)
                if longest is None or UTF8_BYTES * longest > most:
                    limits[column.name] = min(most, limits.get(column.name, most))
        return limits

    @property
    def raw_asset(self) -> str:
        """Name of the asset of raw files, such as `raw_csv`."""
        return f"raw_{self.source.name}"

    @property
    def staging_asset(self) -> str:
        """Name of the staging asset, such as `staging_measurements`."""
        return f"staging_{self.table}"
