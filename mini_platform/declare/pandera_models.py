"""Pandera's `DataFrameModel` (polars or pandas) -> a row model of ours that says of every row what Pandera says of it.

Translated are columns, types, nullability, descriptions, Pandera's built-in checks, and `metadata` by the words of
`dataset.Field` (`metadata={"unit": "m", "personal": "mask"}`). What has no counterpart is an error that names it, such as a
check that is a function of its own: it takes whole frames, of another library perhaps than the one that validates. So is every
word that is not known here: each object of Pandera's is compared with one of which nothing was said.

Not kept is how Pandera's own reports are worded (name, title, error, `n_failure_cases` of a check), and what typed frames need
and text does not (`coerce`): an empty cell is a missing value, and text that is none of its column's type rejects its row.

https://pandera.readthedocs.io/en/stable/dataframe_models.html
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from mini_platform.declare.columns import DECIMAL_DIGITS, DeclarationError, Field, FieldSpec, RowModel
from mini_platform.declare.policies import UnexpectedColumns
from mini_platform.declare.row_models import columns_of

TYPES: Mapping[str, Any] = {
    "Int64": int, "int64": int,
    "Float64": float, "float64": float,
    "String": str, "str": str, "string[python]": str, "string[pyarrow]": str,
    "Boolean": bool, "bool": bool, "boolean": bool,
    "Date": dt.date, "date": dt.date,
    "List(Float64)": list[float],
}  # fmt: skip
"""Names of types in polars and pandas -> ours. Narrower numbers are missing: what they would round or refuse, we would not."""
NEVER_EMPTY = ("int64", "bool")
"""Types of pandas that have no missing value: a frame with one has another type, and Pandera refuses all of it."""
MOMENT = re.compile(
    r"(?:Datetime\(time_unit='|datetime64\[)(?P<unit>\w+)'?, (?:time_zone=)?'?(?P<zone>[^'\])]+)'?[\])]"
)
"""Times with their zone; those without one have no second part, or None."""
DECIMAL = re.compile(r"Decimal\((?:precision=)?(\d+), (?:scale=)?(\d+)\)")
PLAIN_DECIMALS = 6
"""Decimals up to which Python writes every Decimal without an exponent."""
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
SAID_ELSEWHERE = {"description", "checks", "warn", "optional", "decimals", "system", "derived", "stored"}
STRICT: Mapping[Any, UnexpectedColumns | None] = {True: "refuse", "filter": "ignore", False: None}

# Attributes of Pandera's objects that are translated here, or that change nothing for text. All others must say nothing.
OF_SCHEMAS = frozenset(
    ("columns", "checks", "name", "title", "description", "metadata", "strict", "_unique", "_coerce",
     "drop_invalid_rows", "unique_column_names")
)  # fmt: skip
OF_COLUMNS = frozenset(
    ("_dtype", "checks", "coerce", "name", "title", "description", "metadata", "drop_invalid_rows", "nullable", "unique",
     "required")
)  # fmt: skip
OF_CHECKS = frozenset(
    ("name", "error", "statistics", "statistics_args", "_check_fn", "_check_kwargs", "native", "raise_warning",
     "n_failure_cases", "title", "description", "determined_by_unique", "strategy", "constraint")
)  # fmt: skip
CALLED = {
    "ordered": "ordered columns",
    "index": "an index",
    "_dtype": "a type of all columns",
    "ignore_na": "ignore_na=False: make the column not nullable",
}
"""What an attribute is called in a sentence, where its name does not tell."""
AS_RULE = "write it as a @rule of a RowModel"
NAIVE = "has times without a time zone, which say no moment; give it one, or make it a date"


class ModelError(Exception):
    """A model that cannot be taken; the message is a sentence."""


@dataclass(frozen=True)
class Translated:
    """What a model says.

    Attributes:
        rows: the row model.
        description: of it; empty if it has none.
        unexpected_columns: what it says about columns that it does not have; None if nothing.
        unique: sets of columns that it declares unique, which only a key can be.
    """

    rows: type[RowModel]
    description: str
    unexpected_columns: UnexpectedColumns | None = None
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
    schema = _schema(model)
    of_pandas = type(schema).__module__.startswith("pandera.api.pandas.")
    names: dict[str, str] = {}
    specs: dict[str, FieldSpec] = {}
    hints: dict[str, Any] = {}
    for label, column in schema.columns.items():
        name = _identifier(model, label)
        if name in specs:
            raise ModelError(f"{model.__name__}: two columns are called {name}.")
        where = f"{model.__name__}.{label}"
        try:
            kind, specs[name] = _Field(where, column, of_pandas).spec((label,) if name != label else ())
        except DeclarationError as error:
            raise ModelError(f"{where}: {error}.") from error
        hints[name] = kind | None if column.nullable else kind
        names[label] = name
    unique = [[label] for label, column in schema.columns.items() if column.unique]
    unique += [schema.unique] if schema.unique else []
    doc = _first_paragraph(model) or schema.description or ""
    namespace = {"__annotations__": hints, "__doc__": doc or model.__name__, "__module__": model.__module__, **specs}
    rows = type(model.__name__, (RowModel,), namespace)
    _refuse_unjudgeable(rows)
    if not of_pandas:
        _refuse_unasked(model, schema)
    return Translated(
        rows, doc, STRICT[schema.strict], tuple(frozenset(names[label] for label in labels) for labels in unique)
    )


def _schema(model: type) -> Any:
    """The schema of a model, of which everything that it says of whole frames is known here."""
    from pandera.errors import SchemaInitError

    try:
        schema = model.to_schema()  # type: ignore[attr-defined]
        hints = typing.get_type_hints(model, include_extras=True)
    except (SchemaInitError, TypeError, ValueError, AttributeError, NameError) as error:
        said = str(error).split("\n")[0]
        raise ModelError(
            f"Pandera cannot make a schema of {model.__name__}: {type(error).__name__}: {said}."
        ) from error
    if not type(schema).__module__.startswith(("pandera.api.pandas.", "pandera.api.polars.")):
        raise ModelError(
            f"{model.__name__} is a model of {type(schema).__module__}; known are those of pandas and polars."
        )
    for name, hint in hints.items():
        if len(kinds := set(typing.get_args(_union(hint))) - {types.NoneType}) > 1:
            raise ModelError(
                f"{model.__name__}.{name} has {len(kinds)} types, of which Pandera takes the first: say one."
            )
    if schema.checks:
        named = ", ".join(str(check.name) for check in schema.checks)
        raise ModelError(
            f"{model.__name__} has the check {named} of whole rows, which cannot be translated; {AS_RULE}."
        )
    _refuse_unknown(model.__name__, schema, type(schema)(), OF_SCHEMAS)
    return schema


def _union(hint: Any) -> Any:
    """The union that an annotation is or holds, such as that of `Series[int | str]`."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) in (typing.Union, types.UnionType):
            return part
    return None


def _refuse_unknown(where: str, said: Any, plain: Any, known: frozenset[str]) -> None:
    """Refuse what one of Pandera's objects says beyond what is known here, by comparing it with a plain one."""
    for word, value in vars(said).items():
        nothing = vars(plain).get(word)
        # By type too: a default of 0 or "" is none that is missing, though it equals False.
        if word in known or value is nothing or (type(value) is type(nothing) and value == nothing):
            continue
        raise ModelError(f"{where} has {CALLED.get(word, word.strip('_'))}, which cannot be translated.")


def _refuse_unjudgeable(rows: type[RowModel]) -> None:
    """Refuse checks that cannot be asked of a value of their column's type, by asking them."""
    import pandera.polars as pa
    import polars as pl

    try:
        columns = columns_of(rows)
    except DeclarationError as error:
        raise ModelError(f"{error}.") from error
    for column in columns:
        special = {
            Decimal: pl.Decimal(DECIMAL_DIGITS, column.decimals),
            dt.datetime: pl.Datetime("us", "UTC"),
            list[float]: pl.List(pl.Float64()),
        }
        for name, argument in column.checks.items():
            if isinstance(argument, re.Pattern) and column.type is str:
                continue
            make = getattr(pa.Check, name)
            check = partial(make, **argument) if isinstance(argument, dict) else partial(make, argument)
            if said := _why_polars_cannot(check, special.get(column.type, column.type)):
                raise ModelError(
                    f"{rows.__name__}.{column.name}: {name}={_shown(argument)} cannot be used by polars for a "
                    f"column of type {_name(column.type)}: {said}."
                )


def _refuse_unasked(model: type, schema: Any) -> None:
    """Refuse checks that Pandera itself cannot ask of its column, such as whether floats are among whole numbers."""
    for label, column in schema.columns.items():
        for check in column.checks:
            if said := _why_polars_cannot(partial(lambda one: one, check), column.dtype.type):
                raise ModelError(
                    f"{model.__name__}.{label} has {check.error or check.name}, which Pandera cannot ask: {said}."
                )


def _why_polars_cannot(make: Callable[[], Any], kind: Any) -> str | None:
    """The first line of what polars says where a check cannot be asked of values of a type; None where it can."""
    import polars as pl

    try:
        make()(pl.LazyFrame({"x": [None]}, schema={"x": kind}), "x").check_output.collect()
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, re.error) as error:
        return str(error).split("\n")[0]
    return None


def _shown(argument: Any) -> str:
    return str(getattr(argument, "pattern", argument))[:100]


def _first_paragraph(model: type) -> str:
    return inspect.cleandoc(vars(model).get("__doc__") or "").split("\n\n")[0]


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)[:100]


def _identifier(model: type, label: Any) -> str:
    if not isinstance(label, str):
        raise ModelError(f"{model.__name__}: the column {label!r} is not called by a text.")
    if label.isidentifier() and label.isascii() and not label.startswith("_"):
        return label
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    if not name.isidentifier():
        raise ModelError(f"{model.__name__}: the column {label!r} cannot be made an identifier.")
    return name


@dataclass(frozen=True)
class _Field:
    """A column of Pandera's, as a field.

    Attributes:
        where: model and column, for sentences.
        column: of Pandera.
        of_pandas: whether it is a column of pandas.
    """

    where: str
    column: Any
    of_pandas: bool

    def spec(self, aliases: tuple[str, ...]) -> tuple[Any, FieldSpec]:
        """Type and words of the column."""
        column = self.column
        _refuse_unknown(self.where, column, type(column)(), OF_COLUMNS)
        if not column.required and not column.nullable:
            raise self._error(
                "may be absent, but not empty, and an absent column is an empty one here: make it nullable too, or required"
            )
        if column.nullable and self.of_pandas and str(column.dtype) in NEVER_EMPTY:
            better = {"int64": "pd.Int64Dtype", "bool": "pd.BooleanDtype"}[str(column.dtype)]
            raise self._error(f"is nullable, but its type in pandas has no missing value: make it {better}")
        kind, options, checks = self._type(str(column.dtype))
        warn = []
        for check in column.checks:
            name, argument = self._check(check, kind)
            if name in checks:
                raise self._error(f"has two checks {name}; one of them cannot be translated")
            checks[name] = argument
            warn += [name] if check.raise_warning else []
        words = {k: v for k, v in (column.metadata or {}).items() if k in FieldSpec.__dataclass_fields__}
        if misplaced := SAID_ELSEWHERE & set(words):
            raise ModelError(f"{self.where}: metadata cannot say {', '.join(sorted(misplaced))}.")
        given = words.pop("aliases", ())
        aliases += (given,) if isinstance(given, str) else tuple(given)
        description = column.description or column.title or column.name.replace("_", " ").capitalize()
        options |= {"warn": tuple(warn)} if warn else {}
        options |= {"aliases": aliases} if aliases else {}
        options |= {} if column.required else {"optional": True}
        return kind, Field(description, **words, **options, **checks)

    def _error(self, what: str) -> ModelError:
        return ModelError(f"{self.where} {what}.")

    def _type(self, name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Our type of a type's name, and the words and the checks that follow from it."""
        if name in TYPES:
            return TYPES[name], {}, {}
        if found := MOMENT.fullmatch(name):
            if found["zone"] == "None":
                raise self._error(NAIVE)
            if found["unit"] != "us":
                raise self._error(f"has times in {found['unit']}; they are stored in microseconds: make the unit us")
            return dt.datetime, {}, {}
        if found := DECIMAL.fullmatch(name):
            digits, decimals = int(found[1]), int(found[2])
            if digits > DECIMAL_DIGITS:
                raise self._error(f"has {digits} digits; at most {DECIMAL_DIGITS} can be kept")
            return Decimal, {"decimals": decimals}, self._bounds(digits, decimals)
        if name.startswith(("Datetime(", "datetime64[")):
            raise self._error(NAIVE)
        known = ", ".join(sorted(set(TYPES)))
        raise self._error(f"has the type {name}, which cannot be translated. Known are {known}, Datetime and Decimal")

    def _bounds(self, digits: int, decimals: int) -> dict[str, Any]:
        """What the digits of a Decimal leave of its values, by a name that no check of Pandera has.

        Pandera counts a sign and the zero before the point as digits where the frame is one of pandas. Of a number that Python
        writes with an exponent, as it does with more than six zeros, it counts neither.
        """
        whole = digits - decimals
        if not self.of_pandas:
            bounds = {"min_value": -(10**whole), "max_value": 10**whole, "include_min": False, "include_max": False}
            return {"between": bounds} if digits < DECIMAL_DIGITS else {}
        if not whole or (whole == 1 and decimals > PLAIN_DECIMALS):
            raise self._error(
                f"has {digits} digits, {decimals} of them decimals, and Pandera counts a sign and the 0 before the point as "
                "digits, too: give it one more"
            )
        least = -(10 ** (whole - 1)) if whole > 1 else 0
        return {"between": {"min_value": least, "max_value": 10**whole, "include_min": not least, "include_max": False}}

    def _check(self, check: Any, kind: Any) -> tuple[str, Any]:
        """A built-in check as the keyword and argument of `Field`."""
        from pandera.api.checks import Check
        from pandera.api.function_dispatch import Dispatcher

        # By its function, not by its name: anything may be called `isin`.
        built_in = isinstance(check._check_fn, Dispatcher)
        name = check._check_fn.__name__ if built_in else check.name
        if not built_in or (name not in ARGUMENT and name not in SEVERAL):
            raise self._error(
                f"has the check {name}, which is no built-in one and cannot be translated; write it as a @rule of a RowModel"
            )
        _refuse_unknown(f"{self.where}: {name}", check, Check(_nothing), OF_CHECKS)
        said = {word: value for word, value in check.statistics.items() if value is not None}
        if name in SEVERAL:
            said = {word: self._plain(value, kind) for word, value in said.items() if value is not True}
            if "exact_value" in said:  # Pandera heeds no other then.
                said = dict.fromkeys(("min_value", "max_value"), said["exact_value"])
            return name, said
        argument = said.get(ARGUMENT[name])
        if ARGUMENT[name] == "pattern":
            return name, self._pattern(name, argument)
        if name in ("isin", "notin"):
            return name, self._values(name, argument, kind)
        return name, self._plain(argument, kind)

    def _values(self, name: str, values: Any, kind: Any) -> list[Any]:
        """A list of values; a missing one among them says nothing, as missing cells are not asked."""
        if isinstance(values, Mapping) or not isinstance(values, Iterable):
            raise self._error(f"has {name} of {_name(type(values))}, which is no list of values")
        listed = sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
        plain = [self._plain(value, kind) for value in listed if value is not None and value == value]  # noqa: PLR0124 - nan
        if not plain:
            raise self._error(f"has {name} of nothing: a list of values is expected")
        return plain

    def _plain(self, value: Any, kind: Any) -> Any:
        """A limit as plain Python has it, of the column's own type."""
        if hasattr(value, "item"):  # Of numpy.
            value = value.item()
        if hasattr(value, "to_pydatetime"):  # Of pandas.
            if value.nanosecond:
                raise self._error(f"has the limit {value}, which is finer than the microseconds of its values")
            value = value.to_pydatetime()
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            value = value.astimezone(dt.UTC)
        if self.of_pandas and isinstance(value, dt.date) and kind in (dt.date, dt.datetime) and type(value) is not kind:
            raise self._error(f"has the limit {value!r}, which pandas does not compare with its values")
        if kind is Decimal and isinstance(value, float):
            if not value.is_integer():
                raise self._error(f"has the limit {value}, which is no decimal number: write Decimal('{value}')")
            value = int(value)
        if kind is Decimal and type(value) is int:
            return Decimal(value)
        return value

    def _pattern(self, name: str, pattern: Any) -> str | re.Pattern[str]:
        """A pattern as the library of the model reads it.

        pandas has Python's own, with flags, look-around and an anchor that holds for all alternatives: it is asked then. polars
        has another language, and Pandera drops the flags on the way to it.
        """
        try:
            compiled = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise self._error(f"has the pattern {pattern!r}, which cannot be read: {error}") from error
        if not isinstance(compiled.pattern, str):
            raise self._error(f"has the pattern {compiled.pattern!r}, which is of bytes")
        if self.of_pandas:
            if str(self.column.dtype) == "string[pyarrow]":
                raise self._error(
                    "has a pattern for string[pyarrow], which reads it in a language of its own: make it str"
                )
            return compiled
        if isinstance(pattern, re.Pattern) and compiled.flags != re.compile("").flags:
            raise self._error(
                f"has the pattern {compiled.pattern} with flags, which Pandera drops for polars: write them in it, such as (?i)"
            )
        if name == "str_matches" and _has_alternatives(compiled.pattern):
            raise self._error(
                f"has the pattern {compiled.pattern}, of whose alternatives Pandera anchors the first only: write ^(?:…)"
            )
        return compiled.pattern


def _has_alternatives(pattern: str) -> bool:
    """True if a pattern as a whole is one of several, outside of all its groups and sets."""
    rest = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL)
    while (flat := re.sub(r"\([^()]*\)", "", rest)) != rest:
        rest = flat
    return "|" in rest


def _nothing(_: Any) -> bool:
    return True
