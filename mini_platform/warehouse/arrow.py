"""Rows of a select as an Arrow table, and as a DataFrame of pandas or polars, in the types that the columns have in Postgres.

Arrow parses the CSV of a COPY: about five times faster than a cursor, and exact. Memory is bounded by the result.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import psycopg2
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Connection,
    Date,
    DateTime,
    Float,
    Integer,
    Numeric,
    Select,
    SmallInteger,
)
from sqlalchemy.types import REAL, TypeEngine

from mini_platform.warehouse.database_errors import without_values

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

BLOCK_BYTES = 64 * 2**20
"""The CSV is parsed in blocks of this size; a row must fit into one."""
DECIMAL128_DIGITS, DECIMAL256_DIGITS = 38, 76


class UnreadableError(ValueError):
    """Rows cannot be read as they are requested; the message is a sentence."""


def read_arrow(conn: Connection, rows: Select[Any]) -> Any:
    """Return the rows of a select as a `pyarrow.Table`.

    Raises:
        UnreadableError: Postgres refuses the select, or Arrow has no value for one of its own, such as the date `infinity`.
    """
    import pyarrow as pa
    from pyarrow import csv

    types = {column.name: column.type for column in rows.selected_columns}
    # Read as text, and converted below: arrays, and numbers whose decimals are not declared.
    parsed = {name: _arrow_type(kind) or pa.string() for name, kind in types.items()}
    options = csv.ConvertOptions(
        column_types=parsed,
        null_values=[""],  # NULL is an empty field, and an empty text a quoted one.
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )
    buffer = pa.BufferReader(_copied(conn, rows))
    try:
        table = csv.read_csv(
            buffer,
            csv.ReadOptions(block_size=BLOCK_BYTES),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            options,
        )
        columns = [_converted(column, types[name]) for name, column in zip(types, table.columns, strict=True)]
    except pa.ArrowInvalid as error:
        place = re.search(r"CSV column #(\d+)", str(error))
        name = list(types)[int(place[1])] if place else "one of the columns"
        raise UnreadableError(
            f"{name} has a value that exists in Postgres only, such as the date `infinity` or the number `NaN`."
        ) from None  # The error shows the value.
    return pa.table(dict(zip(types, columns, strict=True)))


def to_pandas(table: Any) -> pd.DataFrame:
    """Return an Arrow table as a DataFrame of pandas; whole numbers and truths with missing values have nullable types."""
    import pandas as pd
    import pyarrow as pa

    nullable = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    return pd.DataFrame(
        {
            name: column.to_pandas(types_mapper=nullable.get if column.null_count else None)
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def to_polars(table: Any) -> pl.DataFrame:
    """Return an Arrow table as a DataFrame of polars."""
    import polars as pl

    return pl.DataFrame(pl.from_arrow(table))


def _copied(conn: Connection, rows: Select[Any]) -> memoryview:
    """Return the rows of a select as CSV with a header."""
    compiled = rows.compile(dialect=conn.dialect, compile_kwargs={"render_postcompile": True})
    buffer = io.BytesIO()
    cursor: Any = conn.connection.cursor()
    with cursor:
        try:
            statement = cursor.mogrify(str(compiled), compiled.params).decode()
            cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT csv, HEADER)", buffer)
        except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
            raise UnreadableError(f"Postgres cannot read the rows: {without_values(error)}") from error
    return buffer.getbuffer()


def _arrow_type(kind: TypeEngine[Any]) -> Any:
    """Return the type in Arrow of a column in Postgres; None if its values are read as text."""
    import pyarrow as pa

    if isinstance(kind, Numeric) and not isinstance(kind, Float):
        if kind.precision is None or kind.precision > DECIMAL256_DIGITS:
            return None
        return pa.decimal128(kind.precision, kind.scale or 0) if kind.precision <= DECIMAL128_DIGITS else None
    types = (
        (Boolean, pa.bool_()),
        (SmallInteger, pa.int16()),
        (BigInteger, pa.int64()),
        (Integer, pa.int32()),
        (REAL, pa.float32()),
        (Float, pa.float64()),
        (Date, pa.date32()),
        (DateTime, pa.timestamp("us", "UTC" if getattr(kind, "timezone", False) else None)),
    )
    return next((arrow for sql, arrow in types if isinstance(kind, sql)), None)


def _converted(column: Any, kind: TypeEngine[Any]) -> Any:
    """Return a column that was read as text in its own type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _arrow_type(kind) is not None:
        return column
    if isinstance(kind, ARRAY) and (item := _arrow_type(kind.item_type)) is not None:
        texts = [None if text is None else [*filter(None, text[1:-1].split(","))] for text in column.to_pylist()]
        nested = pa.array(texts, pa.list_(pa.string()))
        values = nested.flatten()
        values = pc.if_else(pc.equal(values, "NULL"), None, values).cast(item)
        return pa.ListArray.from_arrays(nested.offsets, values, mask=nested.is_null())
    if isinstance(kind, Numeric) and not isinstance(kind, Float):
        decimals = pc.max(pc.utf8_length(pc.replace_substring_regex(column, r"^[^.]*\.?", ""))).as_py() or 0
        whole = pc.max(pc.utf8_length(pc.replace_substring_regex(column, r"\..*$|^-", ""))).as_py() or 0
        digits = DECIMAL128_DIGITS if decimals + whole <= DECIMAL128_DIGITS else DECIMAL256_DIGITS
        return column.cast((pa.decimal128 if digits == DECIMAL128_DIGITS else pa.decimal256)(digits, decimals))
    return column
