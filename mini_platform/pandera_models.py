"""Pandera's `DataFrameModel` (polars or pandas) -> a row model of ours.

Translated are columns, types, nullability, descriptions, Pandera's built-in checks, and `metadata` by the words of
`dataset.Field` (`metadata={"unit": "m", "personal": "mask"}`). What has no counterpart is an error that names it, such as a
check that is a function of its own: it takes whole frames, of another library perhaps than the one that judges.

https://pandera.readthedocs.io/en/stable/dataframe_models.html
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mini_platform.dataset import DECIMAL_DIGITS, Drift, Field, FieldSpec, RowModel

TYPES: Mapping[str, Any] = {
    "Int64": int, "int64": int,
    "Float64": float, "float64": float,
    "String": str, "str": str, "string[python]": str, "string[pyarrow]": str,
    "Boolean": bool, "bool": bool, "boolean": bool,
    "Date": dt.date, "date": dt.date,
    "List(Float64)": list[float],
}  # fmt: skip
"""Names of types in polars and pandas -> ours. Narrower numbers are missing: what they would round or refuse, we would not."""
MOMENT = re.compile(r"Datetime\(time_unit='\w+', time_zone='[^']+'\)|datetime64\[\w+, [^\]]+\]")
NAIVE = re.compile(r"Datetime\(|datetime64\[")
DECIMAL = re.compile(r"Decimal\((?:precision=)?(\d+), (?:scale=)?(\d+)\)")
ARGUMENT = {
    "equal_to": "value",
    "not_equal_to": "value",
    "greater_than": "min_value",
    "greater_than_or_equal_to": "min_value",
    "less_than": "max_value",
    "less_than_or_equal_to": "max_value",
    "isin": "allowed_values",
    "notin": "forbidden_values",
    "str_matches": "pattern",
    "str_contains": "pattern",
    "str_startswith": "string",
    "str_endswith": "string",
}
"""Built-in checks of one argument, by its name; `in_range` and `str_length` have several."""
SEVERAL = ("in_range", "str_length")
SAID_ELSEWHERE = {"description", "checks", "warn", "may_lack", "decimals", "given", "derived", "stored"}
STRICT: Mapping[Any, Drift | None] = {True: "refuse", "filter": "ignore", False: None}


class ModelError(Exception):
    """A model that cannot be taken; the message is a sentence."""


@dataclass(frozen=True)
class Translated:
    """What a model says.

    Attributes:
        rows: the row model.
        description: of it; empty if it has none.
        drift: what it says about columns that it does not have; None if nothing.
        unique: sets of columns that it declares unique, which only a key can be.
    """

    rows: type[RowModel]
    description: str
    drift: Drift | None = None
    unique: tuple[frozenset[str], ...] = ()


def translated(model: Any) -> Translated:
    """Take a row model as it is, and translate one of Pandera's.

    Raises:
        ModelError: it is neither, or says what cannot be translated.
    """
    if isinstance(model, type) and issubclass(model, RowModel) and model is not RowModel:
        return Translated(model, _first_paragraph(model))
    if not isinstance(model, type) or not any(base.__module__.startswith("pandera.") for base in model.__mro__):
        raise ModelError(f"{_name(model)} is no Pandera model: neither a RowModel nor a DataFrameModel.")
    schema = model.to_schema()  # type: ignore[attr-defined]
    _refuse_whole(model, schema)
    names: dict[str, str] = {}
    specs: dict[str, FieldSpec] = {}
    hints: dict[str, Any] = {}
    for label, column in schema.columns.items():
        name = label if label.isidentifier() and label.isascii() else _identifier(model, label)
        if name in specs:
            raise ModelError(f"{model.__name__}: two columns are called {name}.")
        kind, specs[name] = _field(f"{model.__name__}.{label}", column, (label,) if name != label else ())
        hints[name] = kind | None if column.nullable else kind
        names[label] = name
    unique = [[label] for label, column in schema.columns.items() if column.unique]
    unique += [schema.unique] if schema.unique else []
    doc = _first_paragraph(model) or schema.description or ""
    namespace = {"__annotations__": hints, "__doc__": doc or model.__name__, "__module__": model.__module__, **specs}
    return Translated(
        type(model.__name__, (RowModel,), namespace),
        doc,
        STRICT[schema.strict],
        tuple(frozenset(names[label] for label in labels) for labels in unique),
    )


def _first_paragraph(model: type) -> str:
    return inspect.cleandoc(vars(model).get("__doc__") or "").split("\n\n")[0]


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)[:100]


def _identifier(model: type, label: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    if not name.isidentifier():
        raise ModelError(f"{model.__name__}: the column {label!r} cannot be made an identifier.")
    return name


def _refuse_whole(model: type, schema: Any) -> None:
    """Refuse what a model says about whole frames."""
    said = {
        f"the check {', '.join(str(check.name) for check in schema.checks)} of whole rows": schema.checks,
        "an index": getattr(schema, "index", None),
        "ordered columns": schema.ordered,
        "add_missing_columns": schema.add_missing_columns,
        "parsers": schema.parsers,
        "a type of all columns": schema.dtype,
    }
    for what, is_there in said.items():
        if is_there:
            hint = "; write it as a @rule of a RowModel" if "check" in what else ""
            raise ModelError(f"{model.__name__} has {what}, which cannot be translated{hint}.")


def _field(where: str, column: Any, aliases: tuple[str, ...]) -> tuple[Any, FieldSpec]:
    """Type and words of a column."""
    for what in ("regex", "parsers", "default"):
        if getattr(column, what, None) not in (None, False, []):
            raise ModelError(f"{where} has {what}, which cannot be translated.")
    kind, decimals, checks = _type(where, str(column.dtype))
    warn = []
    for check in column.checks:
        name, argument = _check(where, check)
        if name in checks:
            raise ModelError(f"{where} has two checks {name}; one of them cannot be translated.")
        checks[name] = argument
        warn += [name] if check.raise_warning else []
    words = {k: v for k, v in (column.metadata or {}).items() if k in FieldSpec.__dataclass_fields__}
    if misplaced := SAID_ELSEWHERE & set(words):
        raise ModelError(f"{where}: metadata cannot say {', '.join(sorted(misplaced))}.")
    given = words.pop("aliases", ())
    aliases += (given,) if isinstance(given, str) else tuple(given)
    description = column.description or column.title or column.name.replace("_", " ").capitalize()
    options = {"warn": tuple(warn), "aliases": aliases, "may_lack": not column.required, "decimals": decimals}
    return kind, Field(description, **words, **options, **checks)


def _type(where: str, name: str) -> tuple[Any, int, dict[str, Any]]:
    """Our type of a type's name, its decimals, and the checks that follow from it."""
    if name in TYPES:
        return TYPES[name], 2, {}
    if MOMENT.fullmatch(name):
        return dt.datetime, 2, {}
    if found := DECIMAL.fullmatch(name):
        digits, decimals = int(found[1]), int(found[2])
        if digits > DECIMAL_DIGITS:
            raise ModelError(f"{where} has {digits} digits; at most {DECIMAL_DIGITS} can be kept.")
        largest = 10 ** (digits - decimals)
        bounds = {"greater_than": -largest, "less_than": largest} if digits < DECIMAL_DIGITS else {}
        return Decimal, decimals, bounds
    if NAIVE.match(name):
        raise ModelError(f"{where} has times without a time zone, which say no moment; give it one, or make it a date.")
    known = ", ".join(sorted(set(TYPES)))
    raise ModelError(
        f"{where} has the type {name}, which cannot be translated. Known are {known}, Datetime and Decimal."
    )


def _check(where: str, check: Any) -> tuple[str, Any]:
    """A built-in check as the keyword and argument of `Field`."""
    name, said = check.name, {k: v for k, v in (check.statistics or {}).items() if v is not None}
    if name in SEVERAL and said:
        return name, {k: v for k, v in said.items() if v is not True}
    if name not in ARGUMENT or ARGUMENT[name] not in said or check.groupby:
        raise ModelError(
            f"{where} has the check {name}, which is no built-in one and cannot be translated; write it as a @rule of a "
            "RowModel."
        )
    argument = said[ARGUMENT[name]]
    if ARGUMENT[name] == "pattern":
        argument = getattr(argument, "pattern", argument)
        _refuse_pattern(where, argument)
    return name, list(argument) if isinstance(argument, set | frozenset | tuple) else argument


def _refuse_pattern(where: str, pattern: str) -> None:
    """Refuse a pattern that Python knows and polars, which judges, does not."""
    import polars as pl

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        raise ModelError(
            f"{where}: the pattern {pattern} cannot be used by polars: look-around and back references."
        ) from error
