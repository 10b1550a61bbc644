"""Columns of a DataFrame of pandas or polars: their types in Postgres, and their values as Arrow, from which they are copied.

Here: which values can be stored, and how a column in the database and one of a frame fit each other without loss. Not here:
changing tables (`frames.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    SmallInteger,
    Text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.reserved import NAME_BYTES

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

TEXT = Text(collation="C")
MOST_COLUMNS = 1600
EXACT_FLOATS = 2**53
"""Whole numbers up to this size are exact as floats."""
LADDERS = (
    ("SMALLINT", "INTEGER", "BIGINT"),
    ("REAL", "DOUBLE PRECISION"),
    ("DATE", "TIMESTAMP WITHOUT TIME ZONE"),
)
"""Types in Postgres, each of which holds every value of the ones before it."""
DIGITS = {"SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
"""Most digits of a whole number."""


class FrameError(DeclarationError):
    """A DataFrame cannot be stored, or not in the existing table. The message is a sentence."""


@dataclass(frozen=True)
class FrameColumn:
    """A column of a DataFrame.

    Attributes:
        name: name of the column, in the frame and in the table.
        values: the values, as a `pyarrow.ChunkedArray`.
        type: type in Postgres; None if all values are missing and the frame has no type for them.
    """

    name: str
    values: Any
    type: TypeEngine[Any] | None


def frame_columns(frame: pd.DataFrame | pl.DataFrame) -> list[FrameColumn]:
    """Return the columns of a frame; the named levels of a pandas index are columns, too.

    Raises:
        FrameError: a name or a value cannot be stored.
    """
    names, columns = zip(*_arrow_columns(frame), strict=True) if len(frame.columns) else ((), ())
    for name in names:
        _refuse_name(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FrameError(f"the frame has two columns called {twice[0]}: rename one of them")
    if not names:
        raise FrameError("the frame has no columns")
    if len(names) > MOST_COLUMNS:
        raise FrameError(f"the frame has {len(names)} columns; a table has at most {MOST_COLUMNS}")
    return [_column(name, values) for name, values in zip(names, columns, strict=True)]


def is_frame(value: object) -> bool:
    """Return True for a DataFrame of pandas or polars; neither library is imported for it."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] in ("pandas", "polars")
        for base in type(value).__mro__
    )


def sql_name(kind: TypeEngine[Any]) -> str:
    """Return the name of a type in Postgres, without its collation."""
    return kind.compile(postgresql.dialect()).split(" COLLATE")[0]  # type: ignore[no-untyped-call]


def common_type(stored: TypeEngine[Any], new: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """Return the narrowest type that holds every value of both types; None if there is none."""
    names = sql_name(stored), sql_name(new)
    if names[0] == names[1]:
        return stored
    for ladder in LADDERS:
        if set(names) <= set(ladder):
            return max((stored, new), key=lambda kind: ladder.index(sql_name(kind)))
    sizes = [_digits(stored), _digits(new)]
    if None in sizes:
        return None
    if any(isinstance(kind, Numeric) and kind.precision is None for kind in (stored, new)):
        return Numeric()
    whole, decimals = (max(size[part] for size in sizes if size) for part in (0, 1))
    return Numeric(whole + decimals, decimals)


def as_type(column: FrameColumn, kind: TypeEngine[Any]) -> FrameColumn | None:
    """Return a column with its values in another type; None if that would change one of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type is None or holds(kind, column.type):
        return replace(column, type=kind)
    name, values = sql_name(kind), column.values
    if name in DIGITS and pa.types.is_floating(values.type):
        target = {"SMALLINT": pa.int16(), "INTEGER": pa.int32(), "BIGINT": pa.int64()}[name]
        try:
            return replace(column, values=values.cast(target), type=kind)
        except pa.ArrowInvalid:
            return None
    if name == "DOUBLE PRECISION" and pa.types.is_integer(values.type):
        extremes = pc.min_max(values.cast(pa.int64())).as_py().values()
        return replace(column, type=kind) if all(abs(number or 0) <= EXACT_FLOATS for number in extremes) else None
    return None


def holds(kind: TypeEngine[Any], other: TypeEngine[Any]) -> bool:
    """Return True if a type holds every value of another one."""
    common = common_type(kind, other)
    return common is not None and sql_name(common) == sql_name(kind)


def _digits(kind: TypeEngine[Any]) -> tuple[int, int] | None:
    """Return the most digits before and after the point of an exact number; None for another type."""
    if (whole := DIGITS.get(sql_name(kind))) is not None:
        return whole, 0
    if isinstance(kind, Numeric) and not isinstance(kind, Double | REAL):
        return (kind.precision or 0) - (kind.scale or 0), kind.scale or 0
    return None


def _refuse_name(name: object) -> None:
    if not isinstance(name, str):
        raise FrameError(
            f"the frame has a column called {name!r}, which is no text but of the type {type(name).__name__}: rename the "
            "columns, as by `frame.columns = […]`"
        )
    if not name or "\0" in name:
        raise FrameError("the frame has a column whose name is empty or contains a NUL character: rename it")
    if (size := len(name.encode())) > NAME_BYTES:
        raise FrameError(f"the name of the column {name} has {size} bytes; Postgres takes {NAME_BYTES}: shorten it")


def _arrow_columns(frame: Any) -> Iterator[tuple[Any, Any]]:
    """Yield names and values of a frame, the index of pandas first."""
    if type(frame).__module__.startswith("polars"):
        import polars as pl

        for name, kind in frame.schema.items():
            if kind == pl.Object:
                raise _refused(name, kind)
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        yield from zip(table.column_names, table.columns, strict=True)
        return
    for number, name in enumerate(frame.index.names):
        level = frame.index.get_level_values(number)
        if name is not None:
            yield name, _from_pandas(name, level.to_series())
        elif frame.index.nlevels > 1 or level.inferred_type not in ("integer", "empty"):
            raise FrameError(
                f"the frame has an index of {level.dtype} without a name, which would be lost: name it to store it as a "
                "column, or drop it by `frame.reset_index(drop=True)`"
            )
    for number, name in enumerate(frame.columns):
        yield name, _from_pandas(name, frame.iloc[:, number])


def _from_pandas(name: object, series: Any) -> Any:
    import pyarrow as pa

    if series.dtype == object:
        values = [None if missing else value for value, missing in zip(series, series.isna(), strict=True)]
        kinds = {_kind(value) for value in values if value is not None}
        if len(kinds) > 1:
            raise FrameError(f"the column {name} has values of several types: {' and '.join(sorted(kinds))}")
        series = values
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        kind = kinds.pop() if isinstance(series, list) else str(series.dtype)
        raise _refused(name, kind) from None  # The error shows a value.
    if isinstance(series, list) and pa.types.is_decimal128(array.type):
        array = array.cast(pa.decimal128(38, array.type.scale))  # The next frame may have larger ones.
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _kind(value: Any) -> str:
    """Return the type of a value in words, without the difference between Python's and numpy's."""
    import numpy as np

    if isinstance(value, dt.datetime):
        return "datetime with a time zone" if value.tzinfo else "datetime"
    kinds = (
        (bool | np.bool_, "bool"),
        (int | np.integer, "int"),
        (float | np.floating, "float"),
        (Decimal, "Decimal"),
        (dt.date, "date"),
        (str, "str"),
        (list | tuple | np.ndarray, "list"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), type(value).__name__)


def _refused(name: object, kind: object) -> FrameError:
    return FrameError(
        f"the column {name} is of the type {kind}, which cannot be stored: convert it to numbers, truths, dates, datetimes, "
        "text or lists of numbers"
    )


def _column(name: str, values: Any) -> FrameColumn:
    """Return a column in the form in which it is copied: plain values, times in microseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return FrameColumn(name, values.cast(pa.string()), None)
    if pa.types.is_timestamp(kind):
        try:
            values = values.cast(pa.timestamp("us", "UTC" if kind.tz else None))
        except pa.ArrowInvalid:
            raise FrameError(
                f"the column {name} has times in nanoseconds, and Postgres stores microseconds: round them, as by "
                '`.dt.floor("us")` in pandas or `.dt.truncate("1us")` in polars'
            ) from None
        return FrameColumn(name, values, DateTime(timezone=bool(kind.tz)))
    if pa.types.is_uint64(kind):
        try:
            return FrameColumn(name, values.cast(pa.int64()), BigInteger())
        except pa.ArrowInvalid:
            raise FrameError(f"the column {name} has whole numbers of more than 63 bits: convert it to text") from None
    if pa.types.is_decimal(kind):
        return FrameColumn(name, values, Numeric(kind.precision, kind.scale))
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        item: TypeEngine[Any] = Double() if pa.types.is_floating(kind.value_type) else BigInteger()
        return FrameColumn(name, _literals(values), ARRAY(item))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if pc.any(pc.match_substring(values, "\0")).as_py():
            raise FrameError(f"the column {name} has a text with a NUL character, which Postgres cannot store")
        return FrameColumn(name, values, TEXT)
    plain: tuple[tuple[Any, TypeEngine[Any]], ...] = (
        (pa.types.is_boolean, Boolean()),
        (lambda kind: kind in (pa.int8(), pa.int16(), pa.uint8()), SmallInteger()),
        (lambda kind: kind in (pa.int32(), pa.uint16()), Integer()),
        (pa.types.is_integer, BigInteger()),
        (lambda kind: kind in (pa.float16(), pa.float32()), REAL()),
        (pa.types.is_floating, Double()),
        (pa.types.is_date, Date()),
    )
    for matches, sql in plain:
        if matches(kind):
            return FrameColumn(name, values, sql)
    raise _refused(name, kind)


def _literals(values: Any) -> Any:
    """Return lists of numbers as the array literals of Postgres."""
    import pyarrow as pa

    def literal(numbers: list[Any]) -> str:
        return "{" + ",".join("NULL" if number is None else repr(number) for number in numbers) + "}"

    texts = [None if numbers is None else literal(numbers) for numbers in values.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])
