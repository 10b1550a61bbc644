"""Pandera's `DataFrameModel` (polars or pandas) -> a `RowModel` that accepts and rejects the same rows.

Translated are columns, types, nullability, descriptions, Pandera's built-in checks, and `metadata` with the options of `Field`
(`metadata={"unit": "m", "personal": "mask"}`). Anything without a counterpart is an error that names it, such as a check with a
function of the user: it takes whole frames, perhaps of another library than the one that validates. An unknown attribute is an
error, too: each object of Pandera is compared with a default one.

Ignored are the wording of Pandera's own reports (name, title, error, `n_failure_cases` of a check), and what typed frames need
and text does not (`coerce`): an empty cell is a missing value, and a row is rejected if a text does not parse as its type.

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
from typing import Any, Protocol

from mini_platform.declare.columns import DECIMAL_DIGITS, DeclarationError, Field, FieldSpec, RowModel, placed
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
"""Names of types in polars and pandas -> types of columns. Narrower numbers are missing: they round or refuse more values."""
NEVER_EMPTY = ("int64", "bool")
"""Types of pandas without a missing value: a column with one has another type, and Pandera refuses the whole frame."""
TIMESTAMP = re.compile(
    r"(?:Datetime\(time_unit='|datetime64\[)(?P<unit>\w+)'?, (?:time_zone=)?'?(?P<zone>[^'\])]+)'?[\])]"
)
"""Pattern of types of times with their zone; types without a zone have no second part, or None."""
DECIMAL = re.compile(r"Decimal\((?:precision=)?(\d+), (?:scale=)?(\d+)\)")
PLAIN_DECIMALS = 6
"""Most decimals with which Python writes every Decimal without an exponent."""
SINGLE_ARGUMENTS = {
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
"""Built-in checks with one argument -> its name; `in_range` and `str_length` have several."""
MULTI_ARGUMENT_CHECKS = ("in_range", "str_length")
RESERVED_METADATA = {"description", "checks", "warn", "optional", "decimals", "system", "derived", "stored"}
STRICT: Mapping[Any, UnexpectedColumns | None] = {True: "refuse", "filter": "ignore", False: None}

# Attributes of Pandera's objects that are translated here, or have no effect on text. All others must have their default.
SCHEMA_ATTRIBUTES = frozenset(
    ("columns", "checks", "name", "title", "description", "metadata", "strict", "_unique", "_coerce",
     "drop_invalid_rows", "unique_column_names")
)  # fmt: skip
COLUMN_ATTRIBUTES = frozenset(
    ("_dtype", "checks", "coerce", "name", "title", "description", "metadata", "drop_invalid_rows", "nullable", "unique",
     "required")
)  # fmt: skip
CHECK_ATTRIBUTES = frozenset(
    ("name", "error", "statistics", "statistics_args", "_check_fn", "_check_kwargs", "native", "raise_warning",
     "n_failure_cases", "title", "description", "determined_by_unique", "strategy", "constraint")
)  # fmt: skip
DISPLAY_NAMES = {
    "ordered": "ordered columns",
    "index": "an index",
    "_dtype": "a type of all columns",
    "ignore_na": "ignore_na=False: make the column not nullable",
}
"""Descriptions of attributes in messages, for those whose name is not clear."""
AS_RULE = "write it as a @rule of a RowModel"
NAIVE = "has times without a time zone, which are ambiguous; give it one, or make it a date"


class PanderaModel(Protocol):
    """A `DataFrameModel` of `pandera.polars` or `pandera.pandas`."""

    @classmethod
    def to_schema(cls) -> Any:
        """Return the schema of the model."""


@dataclass(frozen=True)
class TranslatedModel:
    """A row model, with the settings of a Pandera model that belong to the dataset.

    Attributes:
        rows: the row model.
        unexpected_columns: policy for columns that the model does not have; None if it has no policy.
        unique: sets of columns that the model declares unique; only the key can be one.
    """

    rows: type[RowModel]
    unexpected_columns: UnexpectedColumns | None = None
    unique: tuple[frozenset[str], ...] = ()


def translate_model(model: Any) -> TranslatedModel:
    """Return a `RowModel` as it is, and a Pandera model translated to one.

    Raises:
        DeclarationError: the model is neither, or has something that cannot be translated.
    """
    if isinstance(model, type) and issubclass(model, RowModel) and model is not RowModel:
        return TranslatedModel(model)
    if not isinstance(model, type) or not any(base.__module__.startswith("pandera.") for base in model.__mro__):
        raise DeclarationError(f"{_display_name(model)} is neither a RowModel nor a Pandera model")
    with placed(model):
        return _translated(model)


def description_of(model: Any) -> str:
    """Return the first paragraph of a model's own docstring, else the description in its `Config`; empty without both."""
    text = vars(model).get("__doc__") if isinstance(model, type) else None
    config = getattr(model, "__config__", None)
    return inspect.cleandoc(text or getattr(config, "description", None) or "").split("\n\n")[0]


def _translated(model: type) -> TranslatedModel:
    schema = _schema(model)
    of_pandas = type(schema).__module__.startswith("pandera.api.pandas.")
    names: dict[str, str] = {}
    specs: dict[str, FieldSpec] = {}
    hints: dict[str, Any] = {}
    for label, column in schema.columns.items():
        with placed(model, label):
            name = _identifier(model, label)
            if name in specs:
                raise DeclarationError(f"{model.__name__}: two columns are called {name}")
            translator = _FieldTranslator(f"{model.__name__}.{label}", column, of_pandas)
            kind, specs[name] = translator.spec((label,) if name != label else ())
        hints[name] = kind | None if column.nullable else kind
        names[label] = name
    unique = [[label] for label, column in schema.columns.items() if column.unique]
    unique += [schema.unique] if schema.unique else []
    # With module and qualified name it has the source of the model, for messages about its columns.
    source = {"__module__": model.__module__, "__qualname__": model.__qualname__, "__doc__": description_of(model)}
    rows = type(model.__name__, (RowModel,), {"__annotations__": hints, **source, **specs})
    _refuse_unusable_checks(rows)
    if not of_pandas:
        _refuse_inapplicable_checks(model, schema)
    return TranslatedModel(
        rows, STRICT[schema.strict], tuple(frozenset(names[label] for label in labels) for labels in unique)
    )


def _schema(model: type) -> Any:
    """Return the schema of a model; refuse unknown attributes and checks of whole frames."""
    from pandera.errors import SchemaInitError

    try:
        schema = model.to_schema()  # type: ignore[attr-defined]
        hints = typing.get_type_hints(model, include_extras=True)
    except (SchemaInitError, TypeError, ValueError, AttributeError, NameError) as error:
        message = str(error).split("\n")[0]
        raise DeclarationError(
            f"Pandera cannot make a schema of {model.__name__}: {type(error).__name__}: {message}"
        ) from error
    if not type(schema).__module__.startswith(("pandera.api.pandas.", "pandera.api.polars.")):
        raise DeclarationError(
            f"{model.__name__} is a model of {type(schema).__module__}; known are those of pandas and polars"
        )
    for name, hint in hints.items():
        if len(kinds := set(typing.get_args(_union(hint))) - {types.NoneType}) > 1:
            raise DeclarationError(
                f"{model.__name__}.{name} has {len(kinds)} types, of which Pandera takes the first: declare one"
            )
    if schema.checks:
        named = ", ".join(str(check.name) for check in schema.checks)
        raise DeclarationError(
            f"{model.__name__} has the check {named} of whole rows, which cannot be translated; {AS_RULE}"
        )
    _refuse_unknown(model.__name__, schema, type(schema)(), SCHEMA_ATTRIBUTES)
    return schema


def _union(hint: Any) -> Any:
    """Return the union that an annotation is or contains, such as that of `Series[int | str]`; None if there is none."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) in (typing.Union, types.UnionType):
            return part
    return None


def _refuse_unknown(where: str, thing: Any, plain: Any, known: frozenset[str]) -> None:
    """Refuse attributes of a Pandera object that are not known here and differ from those of a default object."""
    for attribute, value in vars(thing).items():
        default = vars(plain).get(attribute)
        # Types are compared, too: a default value of 0 is not the same as no default, though it equals False.
        if attribute in known or value is default or (type(value) is type(default) and value == default):
            continue
        raise DeclarationError(
            f"{where} has {DISPLAY_NAMES.get(attribute, attribute.strip('_'))}, which cannot be translated"
        )


def _refuse_unusable_checks(rows: type[RowModel]) -> None:
    """Refuse checks that polars cannot apply to their column's type, by applying them to a null value."""
    import pandera.polars as pa
    import polars as pl

    for column in columns_of(rows):
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
            if message := _polars_error(check, special.get(column.type, column.type)):
                with placed(rows, column.name):
                    raise DeclarationError(
                        f"{rows.__name__}.{column.name}: {name}={_display(argument)} cannot be used by polars for a "
                        f"column of type {_display_name(column.type)}: {message}"
                    )


def _refuse_inapplicable_checks(model: type, schema: Any) -> None:
    """Refuse checks that Pandera itself cannot apply to its column, such as `isin` with floats on whole numbers."""
    for label, column in schema.columns.items():
        for check in column.checks:
            if message := _polars_error(partial(lambda check_object: check_object, check), column.dtype.type):
                with placed(model, label):
                    raise DeclarationError(
                        f"{model.__name__}.{label} has {check.error or check.name}, which Pandera cannot apply: {message}"
                    )


def _polars_error(make: Callable[[], Any], kind: Any) -> str | None:
    """Return the first line of the error if polars cannot apply a check to values of a type; None if it can."""
    import polars as pl

    try:
        make()(pl.LazyFrame({"x": [None]}, schema={"x": kind}), "x").check_output.collect()
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, re.error) as error:
        return str(error).split("\n")[0]
    return None


def _display(argument: Any) -> str:
    return str(getattr(argument, "pattern", argument))[:100]


def _display_name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)[:100]


def _identifier(model: type, label: Any) -> str:
    if not isinstance(label, str):
        raise DeclarationError(f"{model.__name__}: the name of the column {label!r} is not text")
    if label.isidentifier() and label.isascii() and not label.startswith("_"):
        return label
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    if not name.isidentifier():
        raise DeclarationError(f"{model.__name__}: the column {label!r} cannot be made an identifier")
    return name


@dataclass(frozen=True)
class _FieldTranslator:
    """Translates a column of Pandera to a `Field`.

    Attributes:
        where: model and column, for messages.
        column: column of the Pandera schema.
        of_pandas: True if it is a column of pandas, False for polars.
    """

    where: str
    column: Any
    of_pandas: bool

    def spec(self, aliases: tuple[str, ...]) -> tuple[Any, FieldSpec]:
        """Return the type and the options of the column."""
        column = self.column
        _refuse_unknown(self.where, column, type(column)(), COLUMN_ATTRIBUTES)
        if not column.required and not column.nullable:
            raise self._error(
                "may be absent, but not empty, and an absent column counts as empty here: make it nullable too, or required"
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
        metadata = {k: v for k, v in (column.metadata or {}).items() if k in FieldSpec.__dataclass_fields__}
        if misplaced := RESERVED_METADATA & set(metadata):
            raise DeclarationError(f"{self.where}: metadata cannot contain {', '.join(sorted(misplaced))}")
        declared_aliases = metadata.pop("aliases", ())
        aliases += (declared_aliases,) if isinstance(declared_aliases, str) else tuple(declared_aliases)
        description = column.description or column.title or column.name.replace("_", " ").capitalize()
        options |= {"warn": tuple(warn)} if warn else {}
        options |= {"aliases": aliases} if aliases else {}
        options |= {} if column.required else {"optional": True}
        return kind, Field(description, **metadata, **options, **checks)

    def _error(self, reason: str) -> DeclarationError:
        return DeclarationError(f"{self.where} {reason}")

    def _type(self, name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return the type for the name of a Pandera type, and the options and the checks that follow from it."""
        if name in TYPES:
            return TYPES[name], {}, {}
        if match := TIMESTAMP.fullmatch(name):
            if match["zone"] == "None":
                raise self._error(NAIVE)
            if match["unit"] != "us":
                raise self._error(f"has times in {match['unit']}; they are stored in microseconds: make the unit us")
            return dt.datetime, {}, {}
        if match := DECIMAL.fullmatch(name):
            digits, decimals = int(match[1]), int(match[2])
            if digits > DECIMAL_DIGITS:
                raise self._error(f"has {digits} digits; at most {DECIMAL_DIGITS} can be kept")
            return Decimal, {"decimals": decimals}, self._bounds(digits, decimals)
        if name.startswith(("Datetime(", "datetime64[")):
            raise self._error(NAIVE)
        known = ", ".join(sorted(set(TYPES)))
        raise self._error(f"has the type {name}, which cannot be translated. Known are {known}, Datetime and Decimal")

    def _bounds(self, digits: int, decimals: int) -> dict[str, Any]:
        """Return the range of a Decimal with this number of digits, as `between`, which is not the name of a check of Pandera.

        With pandas, Pandera counts a sign and the zero before the point as digits. It counts neither in a number that Python
        writes with an exponent, as it does with more than six zeros.
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
        """Return a built-in check as the keyword and argument of `Field`."""
        from pandera.api.checks import Check
        from pandera.api.function_dispatch import Dispatcher

        # Recognized by its function, not by its name: a function of the user may be called `isin`, too.
        built_in = isinstance(check._check_fn, Dispatcher)
        name = check._check_fn.__name__ if built_in else check.name
        if not built_in or (name not in SINGLE_ARGUMENTS and name not in MULTI_ARGUMENT_CHECKS):
            raise self._error(f"has the check {name}, which is not a built-in check; write it as a @rule of a RowModel")
        _refuse_unknown(f"{self.where}: {name}", check, Check(_no_check), CHECK_ATTRIBUTES)
        arguments = {word: value for word, value in check.statistics.items() if value is not None}
        if name in MULTI_ARGUMENT_CHECKS:
            arguments = {word: self._plain(value, kind) for word, value in arguments.items() if value is not True}
            if "exact_value" in arguments:  # Pandera ignores the others then.
                arguments = dict.fromkeys(("min_value", "max_value"), arguments["exact_value"])
            return name, arguments
        argument = arguments.get(SINGLE_ARGUMENTS[name])
        if SINGLE_ARGUMENTS[name] == "pattern":
            return name, self._pattern(name, argument)
        if name in ("isin", "notin"):
            return name, self._values(name, argument, kind)
        return name, self._plain(argument, kind)

    def _values(self, name: str, values: Any, kind: Any) -> list[Any]:
        """Return a list of values without missing ones, which have no effect, as missing cells are not checked."""
        if isinstance(values, Mapping) or not isinstance(values, Iterable):
            raise self._error(f"has {name} of {_display_name(type(values))}, which is not a list of values")
        listed = sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
        plain = [self._plain(value, kind) for value in listed if value is not None and value == value]  # noqa: PLR0124 - nan
        if not plain:
            raise self._error(f"has {name} of nothing: a list of values is expected")
        return plain

    def _plain(self, value: Any, kind: Any) -> Any:
        """Return a limit as a Python object of the column's type."""
        if hasattr(value, "item"):  # A number of numpy.
            value = value.item()
        if hasattr(value, "to_pydatetime"):  # A timestamp of pandas.
            if value.nanosecond:
                raise self._error(f"has the limit {value}, which is finer than the microseconds of its values")
            value = value.to_pydatetime()
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            value = value.astimezone(dt.UTC)
        if self.of_pandas and isinstance(value, dt.date) and kind in (dt.date, dt.datetime) and type(value) is not kind:
            raise self._error(f"has the limit {value!r}, which pandas does not compare with its values")
        if kind is Decimal and isinstance(value, float):
            if not value.is_integer():
                raise self._error(f"has the limit {value}, which is not a decimal number: write Decimal('{value}')")
            value = int(value)
        if kind is Decimal and type(value) is int:
            return Decimal(value)
        return value

    def _pattern(self, name: str, pattern: Any) -> str | re.Pattern[str]:
        """Return a pattern as the library of the model reads it.

        pandas uses Python's patterns, with flags, look-around and an anchor for all alternatives: a compiled pattern is matched
        by Python. polars has another syntax, and Pandera drops the flags for it.
        """
        try:
            compiled = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise self._error(f"has the pattern {pattern!r}, which cannot be read: {error}") from error
        if not isinstance(compiled.pattern, str):
            raise self._error(f"has the pattern {compiled.pattern!r}, which is for bytes")
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
                f"has the pattern {compiled.pattern}, and of its alternatives Pandera anchors the first only: write ^(?:…)"
            )
        return compiled.pattern


def _has_alternatives(pattern: str) -> bool:
    """Return True if a pattern has alternatives outside of all its groups and sets."""
    # Escapes and sets are removed first, then groups from the innermost outwards. A remaining | separates alternatives.
    outside = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL)
    while (flattened := re.sub(r"\([^()]*\)", "", outside)) != outside:
        outside = flattened
    return "|" in outside


def _no_check(_: Any) -> bool:
    return True
