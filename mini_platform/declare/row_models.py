"""Row models as they were declared -> columns and rules, those of every base too; what cannot be right is refused.

Here: what a row model says, and what may not be said together. Not here: the words (`columns.py`), the arguments of checks
(`declared_checks.py`).
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
    texts_of,
)
from mini_platform.declare.declared_checks import checked

GIVEN_TYPES: Mapping[str, Any] = {
    "file": str,
    "line": int,
    "record": int,
    "source": str,
    "first_loaded": dt.datetime,
    "last_loaded": dt.datetime,
}
OF_FILES = ("aliases", "optional")
OF_TEXTS = (*OF_FILES, "null_tokens", "trim", "case")
"""Words about how a column is found in a file; about what its text becomes."""


def columns_of(model: type[RowModel], dataset: str = "") -> tuple[Column, ...]:
    """Return the columns that a row model declares, those of its bases first; one that is declared again keeps its place.

    Args:
        model: the row model.
        dataset: for the sentence, such as `dataset stations: `.

    Raises:
        DeclarationError: a column cannot be right.
    """
    if not isinstance(model, type) or not issubclass(model, RowModel):
        raise DeclarationError(f"{dataset}rows is {model!r}; it takes a class that is a RowModel")
    declared = _declared(model, dataset)
    hints = _hints(model, dataset)
    where = f"{dataset}{model.__name__}"
    if bare := sorted(name for name in hints if not isinstance(declared.get(name), FieldSpec)):
        raise DeclarationError(
            f'{where}: {", ".join(bare)} has a type and no Field; write `{bare[0]}: … = Field("what it holds")`'
        )
    columns = []
    for name, spec in declared.items():
        if not isinstance(spec, FieldSpec):
            continue
        if name not in hints:
            raise DeclarationError(f"{where}.{name} has a Field and no type; write `{name}: str = Field(…)`")
        columns.append(_column(f"{where}.{name}", name, spec, hints[name]))
    return tuple(columns)


def custom_rules_of(model: type[RowModel], dataset: str = "") -> tuple[CustomRule, ...]:
    """Return the rules that a row model declares as methods, those of its bases first.

    Raises:
        DeclarationError: a rule blames a column that is not there.
    """
    declared = _declared(model, dataset)
    rules = [_named(value, name) for name, value in declared.items() if isinstance(value, CustomRule)]
    for custom in rules:
        blamed = custom.rule.column
        if blamed is not None and not isinstance(declared.get(blamed), FieldSpec):
            known = [name for name, value in declared.items() if isinstance(value, FieldSpec)]
            raise DeclarationError(
                f"{dataset}{model.__name__}: the rule {custom.rule.name} blames the column {blamed!r}, which is not "
                f"declared{nearest(str(blamed), known)}"
            )
    return tuple(rules)


def _named(custom: CustomRule, name: str) -> CustomRule:
    """A rule with a name: `positive = rule("is below 0")(lambda col: …)` has that under which it is declared."""
    if custom.holds.__name__.isidentifier():
        return custom
    name = f"{custom.rule.column}_{name}" if custom.rule.column else name
    return replace(custom, rule=replace(custom.rule, name=name))


def _lineage(model: type) -> Iterator[type]:
    """The classes that declare something of a model, the furthest base first; a mixin need not be a RowModel."""
    return (one for one in reversed(model.__mro__) if one not in (object, RowModel))


def _declared(model: type, dataset: str) -> dict[str, FieldSpec | CustomRule]:
    """Fields and rules by their name in the class; what a class declares takes the place of what its bases did."""
    found: dict[str, FieldSpec | CustomRule] = {}
    for one in _lineage(model):
        for name, value in vars(one).items():
            where = f"{dataset}{model.__name__}.{name}"
            before = found.get(name)
            if isinstance(value, FieldSpec | CustomRule):
                if before is not None and type(value) is not type(before):
                    raise DeclarationError(f"{where} is a column here and a rule there; give one of them another name")
                found[name] = value
            elif before is not None:
                raise DeclarationError(
                    f"{where} is declared by a base and cannot be taken away; declare it anew, or move it from the base"
                )
            elif isinstance(value, staticmethod | classmethod) and isinstance(value.__func__, CustomRule):
                raise DeclarationError(f"{where}: @rule stands alone, without @{type(value).__name__}")
            elif type(value).__module__.split(".")[0] == "pandera":
                raise DeclarationError(f"{where} is a word of Pandera; a RowModel has Field and @rule of mini_platform")
    return found


def _hints(model: type, dataset: str) -> dict[str, Any]:
    """Types of annotated names, bases' too; of a RowModel's own and of constants that are marked as such none."""
    names = {name for one in _lineage(model) for name in inspect.get_annotations(one)}
    try:
        hints = typing.get_type_hints(model)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise DeclarationError(f"{dataset}{model.__name__}: a type of it cannot be read: {error}") from error
    return {
        name: hints[name] for name in hints if name in names and typing.get_origin(hints[name]) is not typing.ClassVar
    }


def _column(where: str, name: str, spec: FieldSpec, hint: Any) -> Column:
    kind, nullable = _type(where, hint)
    _refuse_words(where, spec)
    column = Column(**vars(spec), name=name, type=kind, nullable=nullable)
    _refuse_misfits(where, column)
    return checked(where, column)


def _type(where: str, hint: Any) -> tuple[Any, bool]:
    """The type of a column, and whether it may be empty."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [option for option in options if option is not types.NoneType]
    if len(kinds) != 1:
        raise DeclarationError(
            f"{where}: it is annotated {hint}; a column has one type, and `| None` if it may be empty"
        )
    kind = list[float] if typing.get_origin(kinds[0]) is list and typing.get_args(kinds[0]) == (float,) else kinds[0]
    if kind is not str and not any(kind == known for known in TYPE_RULES):
        shown = getattr(kind, "__name__", kind) if typing.get_origin(kind) is None else kind
        raise DeclarationError(
            f"{where}: columns of type {shown} are not supported; it can be str, int, float, Decimal, date, datetime, bool "
            "or list[float]"
        )
    return kind, types.NoneType in options


def _refuse_words(where: str, spec: FieldSpec) -> None:
    """Refuse words with values of another kind than they take."""
    if not isinstance(spec.description, str) or not spec.description.strip():
        raise DeclarationError(
            f"{where}: its description is {spec.description!r}; a Field begins with what the column holds"
        )
    kinds: tuple[tuple[str, Any, str], ...] = (
        *((word, str | None, "a text") for word in ("unit", "source")),
        *((word, bool, "True or False") for word in ("trim", "optional", "stored")),
        ("derived", Callable | None, "a function of col"),
    )
    for word, kind, takes in kinds:
        if not isinstance(value := getattr(spec, word), kind):
            raise DeclarationError(f"{where}: {word} is {value!r}; it takes {takes}")
    for word, known in (("case", Case), ("personal", Personal), ("system", SystemColumn)):
        value = getattr(spec, word)
        if value is not None and value not in (options := typing.get_args(known)):
            raise DeclarationError(f"{where}: {word} is {value!r}; it can be {' or '.join(options)}")
    for word in ("aliases", "null_tokens", "warn"):
        if any("\0" in text for text in texts_of(f"{where}: {word}", getattr(spec, word))):
            raise DeclarationError(f"{where}: {word} has a NUL, which stands in no file that is taken")
    if not all(text.strip() for text in spec.aliases):
        raise DeclarationError(f"{where}: an alias is empty")
    if type(spec.decimals) is not int or not 0 <= spec.decimals <= DECIMAL_DIGITS:
        raise DeclarationError(
            f"{where}: decimals is {spec.decimals!r}; a Decimal has {DECIMAL_DIGITS} digits in all, of which 0 to "
            f"{DECIMAL_DIGITS} can be decimals"
        )


def _refuse_misfits(where: str, column: Column) -> None:
    """Refuse words that would do nothing, or that contradict each other or the type."""
    if unknown := sorted(set(column.warn) - set(column.checks)):
        raise DeclarationError(f"{where}: warn names {', '.join(unknown)}, which are not among its checks")
    if column.system is not None:
        _refuse_given(where, column)
    if column.derived is not None and (void := sorted(column.explicit.intersection(OF_FILES))):
        raise DeclarationError(f"{where}: {', '.join(void)} would do nothing, as the column is derived and not read")
    if "decimals" in column.explicit and column.type is not Decimal:
        raise DeclarationError(f"{where}: decimals would do nothing, as the column is no Decimal")
    if column.personal and column.type is not str:
        raise DeclarationError(f"{where}: only text can be marked as personal data")
    if column.case and column.type is not str:
        raise DeclarationError(f"{where}: case would do nothing, as the column is no text")
    if column.optional and not column.nullable:
        raise DeclarationError(
            f"{where}: optional says that files without it are taken, and then it is empty; annotate it `| None`"
        )


def _refuse_given(where: str, column: Column) -> None:
    if column.derived is not None or column.checks:
        raise DeclarationError(f"{where}: a column that the platform gives has no checks and is not derived")
    if void := sorted(column.explicit.intersection(OF_TEXTS)):
        raise DeclarationError(f"{where}: {', '.join(void)} would do nothing, as the platform gives the column")
    kind = GIVEN_TYPES[str(column.system)]
    if column.type is not kind:
        name = "dt.datetime" if kind is dt.datetime else kind.__name__
        raise DeclarationError(f"{where}: system={column.system!r} is {name}; annotate it so")
    if not column.stored and not column.is_staged:
        raise DeclarationError(
            f"{where}: system={column.system!r} is known only where the row is stored, and it is not stored"
        )
