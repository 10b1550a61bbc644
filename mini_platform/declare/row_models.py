"""Row models as they were declared -> columns and rules, with those of all bases; invalid declarations are refused.

Here: reading a row model, and contradictions between its options. Not here: `Field` and `rule` (`columns.py`), the arguments of
checks (`declared_checks.py`).
"""

from __future__ import annotations

import datetime as dt
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

from mini_platform.declare.columns import (
    DECIMAL_DIGITS,
    TYPE_RULES,
    Case,
    Column,
    CustomRule,
    DeclarationError,
    FieldSpec,
    Personal,
    RowModel,
    SystemColumn,
    nearest,
    placed,
    text_tuple,
)
from mini_platform.declare.declared_checks import with_exact_arguments
from mini_platform.declare.places import place_of

SYSTEM_TYPES: Mapping[str, Any] = {
    "file": str,
    "line": int,
    "record": int,
    "source": str,
    "first_loaded": dt.datetime,
    "last_loaded": dt.datetime,
    "surrogate": int,
}
FILE_OPTIONS = ("aliases", "optional")
TEXT_OPTIONS = (*FILE_OPTIONS, "null_tokens", "trim", "case")
"""Options about finding a column in a file; these and the options about cleaning its text."""


def columns_of(model: type[Any], dataset: str = "") -> tuple[Column, ...]:
    """Return the columns that a row model declares, those of its bases first; one that is declared again keeps its place.

    Args:
        model: the row model.
        dataset: beginning of messages, such as `dataset stations: `.

    Raises:
        DeclarationError: a column is invalid.
    """
    if not isinstance(model, type) or not issubclass(model, RowModel):
        raise DeclarationError(f"{dataset}rows is {model!r}; it takes a class that is a RowModel")
    declared = _declared(model, dataset)
    hints = _hints(model, dataset)
    where = f"{dataset}{model.__name__}"
    for name in hints:
        if not isinstance(declared.get(name), FieldSpec):
            with placed(model, name):
                raise DeclarationError(
                    f'{where}: {name} has a type and no Field; write `{name}: … = Field("what it holds")`'
                )
    columns = []
    for name, spec in declared.items():
        if isinstance(spec, FieldSpec):
            with placed(model, name):
                if name not in hints:
                    raise DeclarationError(f"{where}.{name} has a Field and no type; write `{name}: str = Field(…)`")
                columns.append(_column(f"{where}.{name}", name, spec, hints[name]))
    return tuple(columns)


def custom_rules_of(model: type[Any], dataset: str = "") -> tuple[CustomRule, ...]:
    """Return the rules that a row model declares as methods, those of its bases first.

    Raises:
        DeclarationError: the column of a rule is not declared.
    """
    declared = _declared(model, dataset)
    rules = [_with_name(value, name) for name, value in declared.items() if isinstance(value, CustomRule)]
    for custom in rules:
        column = custom.rule.column
        if column is not None and not isinstance(declared.get(column), FieldSpec):
            known = [name for name, value in declared.items() if isinstance(value, FieldSpec)]
            raise DeclarationError(
                f"{dataset}{model.__name__}: the rule {custom.rule.name} names the column {column!r}, which is not "
                f"declared{nearest(str(column), known)}",
                place_of(custom.holds),
            )
    return tuple(rules)


def _with_name(custom: CustomRule, name: str) -> CustomRule:
    """Return a rule with its name; the one of a lambda, `positive = rule("is below 0")(lambda …)`, is its variable's."""
    if custom.holds.__name__.isidentifier():
        return custom
    name = f"{custom.rule.column}_{name}" if custom.rule.column else name
    return replace(custom, rule=replace(custom.rule, name=name))


def _declaring_classes(model: type) -> Iterator[type]:
    """Yield the classes whose columns and rules a model has, the furthest base first; a mixin need not be a RowModel."""
    return (base for base in reversed(model.__mro__) if base not in (object, RowModel))


def _declared(model: type, dataset: str) -> dict[str, FieldSpec | CustomRule]:
    """Return fields and rules by their name in the class; a declaration replaces an inherited one of its name."""
    declared: dict[str, FieldSpec | CustomRule] = {}
    for base in _declaring_classes(model):
        for name, value in vars(base).items():
            with placed(base, name):
                _declare(declared, f"{dataset}{model.__name__}.{name}", name, value)
    return declared


def _declare(declared: dict[str, FieldSpec | CustomRule], where: str, name: str, value: Any) -> None:
    """Add what a class has under a name to what its bases declare, if it is a column or a rule."""
    inherited = declared.get(name)
    if isinstance(value, FieldSpec | CustomRule):
        if inherited is not None and type(value) is not type(inherited):
            raise DeclarationError(f"{where} is a column here and a rule there; give one of them another name")
        declared[name] = value
    elif inherited is not None:
        raise DeclarationError(
            f"{where} is declared by a base and cannot be taken away; declare it again, or remove it from the base"
        )
    elif isinstance(value, staticmethod | classmethod) and isinstance(value.__func__, CustomRule):
        raise DeclarationError(f"{where}: @rule must be used alone, without @{type(value).__name__}")
    elif type(value).__module__.split(".")[0] == "pandera":
        raise DeclarationError(f"{where} is an object of Pandera; a RowModel takes Field and @rule of mini_platform")


def _hints(model: type, dataset: str) -> dict[str, Any]:
    """Return the types of annotated names, also of bases; without those of `RowModel` itself and of `ClassVar`s."""
    names = {name for base in _declaring_classes(model) for name in inspect.get_annotations(base)}
    try:
        hints = typing.get_type_hints(model)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise DeclarationError(
            f"{dataset}{model.__name__}: a type annotation of it cannot be read: {error}", place_of(model)
        ) from error
    return {
        name: hints[name] for name in hints if name in names and typing.get_origin(hints[name]) is not typing.ClassVar
    }


def _column(where: str, name: str, spec: FieldSpec, hint: Any) -> Column:
    kind, nullable = _type(where, hint)
    _refuse_option_types(where, spec)
    column = Column(**vars(spec), name=name, type=kind, nullable=nullable)
    _refuse_misfits(where, column)
    return with_exact_arguments(where, column)


def _type(where: str, hint: Any) -> tuple[Any, bool]:
    """Return the type of a column, and True if it may be empty."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [option for option in options if option is not types.NoneType]
    if len(kinds) != 1:
        raise DeclarationError(
            f"{where}: it is annotated {hint}; a column has one type, and `| None` if it may be empty"
        )
    kind = list[float] if typing.get_origin(kinds[0]) is list and typing.get_args(kinds[0]) == (float,) else kinds[0]
    if kind is not str and not any(kind == known for known in TYPE_RULES):
        type_name = getattr(kind, "__name__", kind) if typing.get_origin(kind) is None else kind
        raise DeclarationError(
            f"{where}: columns of type {type_name} are not supported; it can be str, int, float, Decimal, date, datetime, bool "
            "or list[float]"
        )
    return kind, types.NoneType in options


def _refuse_option_types(where: str, spec: FieldSpec) -> None:
    """Refuse options with values that they do not take."""
    if not isinstance(spec.description, str) or not spec.description.strip():
        raise DeclarationError(
            f"{where}: its description is {spec.description!r}; a Field begins with what the column holds"
        )
    kinds: tuple[tuple[str, Any, str], ...] = (
        *((option, str | None, "a text") for option in ("unit", "source")),
        *((option, bool, "True or False") for option in ("trim", "optional", "stored")),
        ("derived", Callable | None, "a function of col"),
    )
    for option, kind, expected in kinds:
        if not isinstance(value := getattr(spec, option), kind):
            raise DeclarationError(f"{where}: {option} is {value!r}; it takes {expected}")
    for option, known in (("case", Case), ("personal", Personal), ("system", SystemColumn)):
        value = getattr(spec, option)
        if value is not None and value not in (choices := typing.get_args(known)):
            raise DeclarationError(f"{where}: {option} is {value!r}; it can be {' or '.join(choices)}")
    for option in ("aliases", "null_tokens", "warn"):
        if any("\0" in text for text in text_tuple(f"{where}: {option}", getattr(spec, option))):
            raise DeclarationError(f"{where}: {option} has a NUL, which no accepted file contains")
    if not all(text.strip() for text in spec.aliases):
        raise DeclarationError(f"{where}: an alias is empty")
    if type(spec.decimals) is not int or not 0 <= spec.decimals <= DECIMAL_DIGITS:
        raise DeclarationError(
            f"{where}: decimals is {spec.decimals!r}; a Decimal has {DECIMAL_DIGITS} digits in all, of which 0 to "
            f"{DECIMAL_DIGITS} can be decimals"
        )
    if spec.timezone is not None and spec.timezone not in available_timezones():
        raise DeclarationError(
            f"{where}: timezone is {spec.timezone!r}; it takes the name of a time zone, such as 'UTC' or 'Europe/Vienna'"
        )


def _refuse_misfits(where: str, column: Column) -> None:
    """Refuse options that would have no effect, or that contradict each other or the type."""
    if unknown := sorted(set(column.warn) - set(column.checks)):
        raise DeclarationError(f"{where}: warn names {', '.join(unknown)}, which are not among its checks")
    if column.system is not None:
        _refuse_system_misfits(where, column)
    if column.derived is not None and (ineffective := sorted(column.explicit.intersection(FILE_OPTIONS))):
        raise DeclarationError(
            f"{where}: {', '.join(ineffective)} would do nothing, as the column is derived and not read"
        )
    if column.timezone is not None and column.type is not dt.datetime:
        raise DeclarationError(f"{where}: timezone would do nothing, as the column is not a time (datetime)")
    if "decimals" in column.explicit and column.type is not Decimal:
        raise DeclarationError(f"{where}: decimals would do nothing, as the column is not a Decimal")
    if column.personal and column.type is not str:
        raise DeclarationError(f"{where}: only text can be marked as personal data")
    if column.case and column.type is not str:
        raise DeclarationError(f"{where}: case would do nothing, as the column is not text")
    if column.optional and not column.nullable:
        raise DeclarationError(
            f"{where}: optional says that files without it are taken, and then it is empty; annotate it `| None`"
        )


def _refuse_system_misfits(where: str, column: Column) -> None:
    if column.derived is not None or column.checks:
        raise DeclarationError(f"{where}: a column that the platform fills in has no checks and is not derived")
    if ineffective := sorted(column.explicit.intersection(TEXT_OPTIONS)):
        raise DeclarationError(
            f"{where}: {', '.join(ineffective)} would do nothing, as the platform fills in the column"
        )
    kind = SYSTEM_TYPES[str(column.system)]
    if column.type is not kind:
        name = "dt.datetime" if kind is dt.datetime else kind.__name__
        raise DeclarationError(f"{where}: system={column.system!r} is {name}; annotate it so")
    if not column.stored and not column.is_staged:
        raise DeclarationError(
            f"{where}: system={column.system!r} is known only once the row is stored, and the column is not stored"
        )
