"""Validation: text rows -> cleaned text and the broken rules of every row. Pure: no files, no database, no Dagster.

The rules run on Pandera: `pandera_schema` builds the schema of a row model, and each of its checks is evaluated to a boolean
column. `DataFrameSchema.validate` is not used: it joins failure cases row by row, which costs seconds per million rows at high
reject rates, and one value that cannot be coerced hides the other failures of its column.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial, reduce
from operator import or_
from types import MappingProxyType
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.constants import CHECK_OUTPUT_KEY

from mini_platform.declare.columns import DECIMAL_DIGITS, Column, CustomRule, DeclarationError, Rule
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.declared_checks import anchored_pattern
from mini_platform.declare.rules import LINE_ONCE
from mini_platform.rows import expressions
from mini_platform.rows.exact import ROW_FAULTS, evaluate, exact_expression
from mini_platform.rows.own_rows import build_expression
from mini_platform.rows.protection import STORED
from mini_platform.rows.readers import Malformed

DTYPES: dict[Any, pl.DataType] = {
    str: pl.String(),
    float: pl.Float64(),
    int: pl.Int64(),
    dt.date: pl.Date(),
    dt.datetime: pl.Datetime("us", "UTC"),
    bool: pl.Boolean(),
    list[float]: pl.List(pl.Float64()),
}
"""Python type of a column -> polars type; `Decimal` is missing, as its type depends on its decimals."""
USUAL_TIMESTAMP = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
"""Whole seconds of UTC, as most systems write them."""
TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
"""Pattern of a JSON number: https://www.rfc-editor.org/rfc/rfc8259#section-6"""
TIMESTAMP = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9])(?:(:[0-5][0-9])(?:[.,]([0-9]{1,6})0*)?)?"
    r"(?:([+-](?:0[0-9]|1[0-4])):?([0-5][0-9])?|[Zz])$"
)
"""Day, hour and minute, second, fraction to the microsecond, and the offset's hours and minutes; ISO 8601 and RFC 3339."""
BASIC_TIME = r"^([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})([0-9]{2})"
"""Day, hour and minute in the basic form of ISO 8601; seconds and the offset follow."""
UNPADDED_OR_MIDNIGHT = r"^([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt ]00:00(?::00(?:\.0+)?)?)?$"
"""Year, month and day, and what pandas and databases append to a date."""
WITH_EXPONENT = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?0*[0-9]{1,3}$"
PLAIN_EMAIL = (
    r"^[A-Za-z0-9_+-]{1,16}(?:\.[A-Za-z0-9_+-]{1,15}){0,2}@"
    r"(?:[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20})?\.){1,3}(?:com|org|net|info|biz|edu|gov|[a-z]{2})$"
)
"""Addresses that `email_validator` is known to accept (a test checks it): calling it a million times takes half a minute."""
INTERNAL_DOMAINS = frozenset(("local", "test"))
MASK_BITS = 63


@dataclass(frozen=True)
class ValidationResult:
    """The result of validating a block of rows.

    Attributes:
        rows: the n rows of the block, with `_rules` and `_reasons` (Postgres array literals; null for a valid row) in front;
            a valid value is cleaned text, an empty one null, a rejected one is as it arrived.
        broken: each rule that some row breaks, including warnings, with n booleans, true for rows that break it.
        keys: UInt64, n hashes of the keys as typed values: equal keys have equal hashes.
    """

    rows: pl.DataFrame
    broken: list[tuple[Rule, pl.Series]]
    keys: pl.Series


def dtype(column: Column) -> pl.DataType:
    """Return the polars type of a column."""
    return pl.Decimal(DECIMAL_DIGITS, column.decimals) if column.type is Decimal else DTYPES[column.type]


@cache
def _email_validator() -> Any:
    import email_validator

    # Names of internal hosts. Taking them off the library's list is the way that it documents.
    for name in INTERNAL_DOMAINS.intersection(email_validator.SPECIAL_USE_DOMAIN_NAMES):
        email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(name)
    return email_validator


def _is_email(address: str) -> bool:
    library = _email_validator()
    try:
        library.validate_email(address, check_deliverability=False)
    except library.EmailNotValidError:
        return False
    return True


def _emails(data: PolarsData) -> pl.LazyFrame:
    def are_emails(cells: pl.Series) -> pl.Series:
        is_plain = cells.str.contains(PLAIN_EMAIL)
        others = cells.filter(~is_plain).unique()
        accepted = [address for address in others if _is_email(address)]
        return is_plain | cells.is_in(accepted)

    return data.lazyframe.select(pl.col(data.key).map_batches(are_emails, return_dtype=pl.Boolean()))


def _python_check(function: Callable[[str], Any]) -> Callable[[PolarsData], pl.LazyFrame]:
    """Return a check that calls a Python function once for each distinct text; null for null."""

    def validated(cells: pl.Series) -> pl.Series:
        texts = cells.drop_nulls().unique()
        return cells.is_in(
            texts.filter(pl.Series([bool(function(text)) for text in texts], dtype=pl.Boolean)).implode()
        )

    return lambda data: data.lazyframe.select(pl.col(data.key).map_batches(validated, return_dtype=pl.Boolean()))


CHECKS: dict[str, Callable[[Any], pa.Check]] = {
    "email": lambda _: pa.Check(_emails, name="email"),
}
"""Checks that Pandera does not have, by the keyword of `Field`. `email`: syntax of an e-mail address (without DNS)."""


def check_of(name: str, argument: Any) -> pa.Check:
    """Return the check of a keyword of `Field`. A compiled pattern is matched by Python, with its flags."""
    argument = anchored_pattern(name, argument)
    if isinstance(argument, re.Pattern):
        function = {"str_matches": argument.match, "str_contains": argument.search}[name]
        return pa.Check(_python_check(function), name=name)
    make: Callable[..., pa.Check] = CHECKS.get(name) or getattr(pa.Check, name)
    return make(**argument) if isinstance(argument, dict) else make(argument)


def _custom_check(custom: CustomRule) -> pa.Check:
    def holds(data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(exact_expression(build_expression(custom.holds), data.lazyframe.collect_schema()))

    return pa.Check(holds, name=custom.rule.name, error=custom.rule.message)


@cache
def pandera_schema(dataset: Dataset) -> pa.DataFrameSchema:
    """Return the Pandera schema of a valid row: typed columns, their checks, and the rules about whole rows."""
    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                dtype(column),
                checks=[check_of(name, argument) for name, argument in column.checks.items()],
                nullable=column.nullable,
                description=column.comment,
                title=column.description,
            )
            for column in dataset.staged_columns
        },
        checks=[_custom_check(custom) for custom in dataset.custom_rules],
        name=dataset.table,
        description=dataset.description,
    )


@cache
def expression_faults(dataset: Dataset) -> tuple[DeclarationError, ...]:
    """Return what is wrong with the derived columns and rules of a dataset, whatever the rows."""
    return tuple(expressions.expression_faults(dataset, {c.name: dtype(c) for c in dataset.staged_columns}))


def refuse_expressions(dataset: Dataset) -> None:
    """Refuse expressions that are wrong for any row, or that depend on other rows.

    Files are validated in blocks, and a row may be repeated in another file.

    Raises:
        DeclarationError: the first fault.
    """
    for fault in expression_faults(dataset):
        raise fault.with_traceback(None)


def clean(column: Column, cells: pl.Series) -> pl.Series:
    """Return the text of cells as it is stored, null where nothing remains. Idempotent.

    The same steps apply to cells, requested keys and derived texts:

    1. surrounding space is trimmed, unless `trim=False`;
    2. text is converted to Unicode's composed form (NFC);
    3. `null_tokens`, after steps 1 and 2, become null, as written (upper and lower case differ);
    4. text is converted to its `case`, and composed again: 'ΐ' in upper case is decomposed;
    5. null tokens are replaced once more: `"na"` is one for `NA` under `case="lower"`.
    """

    def composed(texts: pl.Series) -> pl.Series:
        # ASCII is always composed, and normalizing takes longer than all other steps. Numbers and days are ASCII if valid.
        has_text = column.type is str or column.null_tokens
        return texts.str.normalize("NFC") if has_text and not _is_ascii(texts) else texts

    def trimmed(texts: pl.Series) -> pl.Series:
        return composed(texts.str.strip_chars() if column.trim else texts)

    tokens = trimmed(pl.Series(["", *column.null_tokens], dtype=pl.String)).implode()

    def is_nothing(texts: pl.Series) -> pl.Series:
        return texts.is_in(tokens) if column.null_tokens else texts == ""

    cleaned = trimmed(cells)
    nothing = is_nothing(cleaned)
    if column.case:
        cleaned = composed(cleaned.str.to_lowercase() if column.case == "lower" else cleaned.str.to_uppercase())
        nothing = nothing | is_nothing(cleaned)
    if column.case and column.personal == "hash":  # The id of the key of a stored hash keeps its case.
        cleaned = cells.zip_with(cells.str.contains(f"^(?:{STORED['hash'].pattern})$"), cleaned)
    if column.type == list[float]:
        nothing = nothing | cleaned.str.contains(r"^\[\s*\]$")
    return cleaned.set(nothing, None)


def _is_ascii(texts: pl.Series) -> bool:
    return bool(texts.str.len_bytes().sum() == texts.str.len_chars().sum())


def clean_columns(columns: Sequence[Column], rows: pl.DataFrame) -> pl.DataFrame:
    """Return these columns of text rows, cleaned; those that the platform fills in are unchanged, except for a source."""
    return pl.DataFrame([rows[c.name] if c.system not in (None, "source") else clean(c, rows[c.name]) for c in columns])


def parse(column: Column) -> pl.Expr:
    """Return the typed value of cleaned text; null where the text is not valid for the column's type."""
    text = pl.col(column.name)
    if column.type is float:
        number = text.cast(pl.Float64, strict=False)
        # Postgres refuses a number that underflows to zero, so this does too.
        underflow = (number == 0) & text.str.contains("^[^eE]*[1-9]")
        return pl.when(number.is_finite() & ~underflow).then(number)
    if column.type is int:
        return text.cast(pl.Int64, strict=False)
    if column.type is Decimal:
        # Checked by a pattern: the cast would drop excess decimals.
        digits, decimals = DECIMAL_DIGITS - column.decimals, column.decimals
        fraction = rf"(?:\.[0-9]{{1,{decimals}}})?" if decimals else ""
        whole = f"[0-9]{{1,{digits}}}" if digits else "0"
        plain = text.str.contains(rf"^[+-]?{whole}{fraction}$")
        return pl.when(plain).then(text).cast(dtype(column), strict=False)
    if column.type is dt.date:
        day = text.str.contains("^[0-9]{4}-[0-9]{2}-[0-9]{2}$") & ~text.str.starts_with("0000")
        return pl.when(day).then(text).str.to_date("%Y-%m-%d", strict=False)
    if column.type is dt.datetime:
        return _parse_timestamp(text).alias(column.name)
    if column.type is bool:
        word = text.str.to_lowercase()
        truth = pl.when(word.is_in(TRUE_WORDS)).then(True).when(word.is_in(FALSE_WORDS)).then(False)
        return truth.alias(column.name)
    if column.type == list[float]:
        items = pl.when(text.str.contains(rf"^\[\s*{NUMBER}\s*(?:,\s*{NUMBER}\s*)*\]$")).then(text)
        numbers = items.str.strip_chars("[]").str.split(",").list.eval(pl.element().str.strip_chars().cast(pl.Float64))
        finite = numbers.list.eval(pl.element().is_finite()).list.all()
        return pl.when(finite & ~text.map_batches(_underflow, return_dtype=pl.Boolean())).then(numbers)
    return text


def _without_exponent(texts: pl.Series) -> pl.Series:
    indices = texts.str.contains(WITH_EXPONENT).fill_null(value=False).arg_true()
    return texts.scatter(indices, [f"{Decimal(text):f}" for text in texts.gather(indices)])


def _plain_number(text: pl.Expr) -> pl.Expr:
    """Return `1E3` as `1000`, `.50` as `0.5`, `12.0`, `12.` and `0012` as `12`."""
    plain = text.map_batches(_without_exponent, return_dtype=pl.String())
    plain = plain.str.replace(r"^([+-]?)\.([0-9])", "${1}0.$2").str.replace("^([+-]?)0+([0-9])", "${1}$2")
    return plain.str.replace(r"^([+-]?[0-9]+(?:\.[0-9]*[1-9])?)\.?0*$", "$1")


def _plain_date(text: pl.Expr) -> pl.Expr:
    """Return `2026-1-5` and `2026-01-05T00:00:00` as `2026-01-05`."""
    part = text.str.extract_groups(UNPADDED_OR_MIDNIGHT).struct
    return pl.concat_str(part[0], part[1].str.zfill(2), part[2].str.zfill(2), separator="-")


def _plain_time(text: pl.Expr) -> pl.Expr:
    """Return `20260105T060000-0400` as `2026-01-05T06:00:00-0400`, and `2026-01-05T06Z` as `2026-01-05T06:00Z`."""
    plain = text.str.replace(f"{BASIC_TIME}([0-9]{{2}})", "$1-$2-${3}T$4:$5:$6")
    plain = plain.str.replace(f"{BASIC_TIME}([-+Zz])", "$1-$2-${3}T$4:$5$6")
    plain = plain.str.replace("^([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})([-+Zz])", "$1-$2-${3}T$4:00$5")
    return plain.str.replace("^([0-9-]{10})[Tt]([0-9]{2})([-+Zz])", "${1}T$2:00$3")


def _local_time(text: pl.Expr, zone: str) -> pl.Expr:
    """Return a time without an offset, or a date alone, with the offset of its zone; null if the clock skips or repeats it."""
    day = _plain_date(text)
    part = _plain_time(text + "Z").str.extract_groups(TIMESTAMP).struct
    second, fraction = part[2].fill_null(":00"), part[3].fill_null("0")
    moment = pl.coalesce(
        day + "T00:00:00.0", pl.concat_str(part[0], pl.lit("T"), part[1], second, pl.lit("."), fraction)
    )
    local = moment.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    placed = local.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")
    return placed.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")


def _plain_form(column: Column) -> pl.Expr:
    """Return the plain form of the text of a column's values."""
    text = pl.col(column.name)
    plain = PLAIN_FORMS[column.type](text)
    if column.timezone:
        has_offset = text.str.contains(r"(?:[Tt ].*[-+]|[Zz]$)")
        plain = pl.when(has_offset).then(plain).otherwise(_local_time(text, column.timezone))
    return plain.alias(column.name)


PLAIN_FORMS: Mapping[Any, Callable[[pl.Expr], pl.Expr]] = {
    int: _plain_number,
    Decimal: _plain_number,
    dt.date: _plain_date,
    dt.datetime: _plain_time,
}
"""Type of a column -> function that rewrites other forms of the same value in the form that `parse` and Postgres read."""


def read_cells(columns: Sequence[Column], rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return cells as cleaned text, and as typed values, null where the text is not valid for the column's type.

    A form that loses nothing, such as `12.0` as a whole number, is accepted; its text becomes that of the plain form. Only
    cells that are not in the plain form are looked at again, so files in the plain form take no longer.
    """
    text = clean_columns(columns, rows)
    typed = text.select(map(parse, columns))
    for column in columns:
        cells, values = text[column.name], typed[column.name]
        if column.type not in PLAIN_FORMS or values.null_count() == cells.null_count():
            continue
        others = (cells.is_not_null() & values.is_null()).arg_true()
        plain = cells.gather(others).to_frame().select(_plain_form(column))
        read = plain.select(parse(column)).to_series()
        accepted = read.is_not_null()
        others = others.filter(accepted)
        text = text.with_columns(cells.scatter(others, plain.to_series().filter(accepted)))
        typed = typed.with_columns(values.scatter(others, read.filter(accepted)))
    return text, typed


def _underflow(lists: pl.Series) -> pl.Series:
    """Return True for each list with a number that is 0 only because it is too small."""
    suspect = lists.str.contains(r"[eE]-[0-9]{3}|0{300}").fill_null(value=False)
    if not suspect.any():
        return suspect
    items = lists.set(~suspect, None).str.strip_chars("[]").str.split(",")
    number = pl.element().str.strip_chars().cast(pl.Float64, strict=False)
    too_small = (number == 0) & pl.element().str.contains("^[^eE]*[1-9]")
    return items.list.eval(too_small).list.any().fill_null(value=False)


def _parse_timestamp(text: pl.Expr) -> pl.Expr:
    def times(cells: pl.Series) -> pl.Series:
        """Parse the usual format first, which takes a fifth of the time, and only the rest as any timestamp."""
        usual = cells.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC", strict=False)
        others = (~cells.str.contains(USUAL_TIMESTAMP)).arg_true()
        if not len(others):
            return usual
        return usual.scatter(
            others, cells.gather(others).to_frame().select(_any_timestamp(pl.col(cells.name))).to_series()
        )

    return text.map_batches(times, return_dtype=DTYPES[dt.datetime])


def _any_timestamp(text: pl.Expr) -> pl.Expr:
    part = text.str.extract_groups(TIMESTAMP).struct
    normalized = pl.concat_str(
        part[0],
        pl.lit("T"),
        part[1],
        part[2].fill_null(":00"),
        pl.lit("."),
        part[3].fill_null("0"),
        part[4].fill_null("+00"),
        pl.lit(":"),
        part[5].fill_null("00"),
    )
    time = normalized.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    # A year of four digits may have another number of them in UTC.
    return pl.when(time.dt.year().is_between(dt.MINYEAR, dt.MAXYEAR)).then(time)


def _derive(dataset: Dataset, typed: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with the derived columns added, null where they cannot be computed or stored."""
    columns = [column for column in dataset.columns if column.derived]
    if not columns:
        return typed
    try:
        derived = typed.with_columns(_derived(column, typed) for column in columns).select(c.name for c in columns)
    except ROW_FAULTS:
        values = {c.name: partial(_derived, c, typed, null_on_error=True) for c in columns}
        derived = pl.DataFrame([_evaluate(dataset, name, typed, value).alias(name) for name, value in values.items()])
    texts = [clean(column, derived[column.name]) for column in columns if column.type is str]
    return typed.with_columns(derived.with_columns(texts).get_columns())


def _evaluate(dataset: Dataset, subject: str, frame: pl.DataFrame, value: Callable[[], pl.Expr]) -> pl.Series:
    """Return n values for n rows, null where the row cannot be computed.

    Raises:
        DeclarationError: the expression is wrong for any rows.
    """
    try:
        return evaluate(frame, value())
    except pl.exceptions.PolarsError as error:
        (reason, *_) = str(error).splitlines()
        raise DeclarationError(
            f"dataset {dataset.name}: {subject} is not an expression over its columns: {reason}"
        ) from error


def _derived(column: Column, typed: pl.DataFrame, *, null_on_error: bool = False) -> pl.Expr:
    """Return the typed value of a derived column, null where it cannot be computed or stored."""
    assert column.derived is not None  # noqa: S101 - the caller selects derived columns
    value = exact_expression(
        build_expression(column.derived, null_on_error=null_on_error),
        typed.schema,
        column.type,
        null_on_error=null_on_error,
    ).alias(column.name)
    if column.type is Decimal:
        return _rounded(value, column.decimals, typed)
    kind = _kind(value, typed) if column.type in (int, dt.datetime) else None
    if column.type is int and kind and (kind.is_float() or kind.is_decimal()):
        value = pl.when(value == value.floor()).then(value)
    if isinstance(kind, pl.Datetime) and kind.time_unit == "ns":
        value = pl.when(value.dt.nanosecond() % 1000 == 0).then(value)
    value = value.cast(dtype(column), strict=False)
    if column.type is float:
        return pl.when(value.is_finite()).then(value)
    if column.type in (dt.date, dt.datetime):
        return pl.when(value.dt.year().is_between(dt.MINYEAR, dt.MAXYEAR)).then(value)
    if column.type == list[float]:
        finite = value.list.eval(pl.element().is_finite().fill_null(value=False)).list.all()
        return pl.when(finite & (value.list.len() > 0)).then(value)
    if column.type is str:
        return pl.when(~value.str.contains("\0", literal=True)).then(value)
    return value


def _kind(value: pl.Expr, typed: pl.DataFrame) -> pl.DataType:
    (kind,) = typed.lazy().select(value).collect_schema().dtypes()
    return kind


def _rounded(value: pl.Expr, decimals: int, typed: pl.DataFrame) -> pl.Expr:
    """Return a number as a Decimal, rounded half away from zero; a float is rounded as printed: 2.675 becomes 2.68."""
    kind = _kind(value, typed)
    if kind.is_float():
        value = value.cast(pl.String)
    if not kind.is_decimal():
        value = value.cast(pl.Decimal(38, 19), strict=False)
    return value.round(decimals, mode="half_away_from_zero").cast(pl.Decimal(DECIMAL_DIGITS, decimals), strict=False)


def as_text(column: Column) -> pl.Expr:
    """Return the text of a typed value that Postgres reads as the same value."""
    value = pl.col(column.name)
    if column.type is dt.datetime:
        return value.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f%:z")
    if column.type == list[float]:
        return pl.format("{{{}}}", value.cast(pl.List(pl.String)).list.join(",")).alias(column.name)
    return value.cast(pl.String)


def _is_staged_as_typed(column: Column) -> bool:
    """Return True if staging gets the text of the typed value: Postgres reads the cleaned text differently."""
    return column.derived is not None or column.type in (dt.datetime, list[float])


def _rule_failures(
    dataset: Dataset, text: pl.DataFrame, typed: pl.DataFrame, records: pl.Series | None
) -> Iterator[tuple[Rule, pl.Series]]:
    """Yield each declared rule with the rows that break it, in the order of `dataset.rules`."""
    schema = pandera_schema(dataset)
    rules = {rule.name: rule for rule in dataset.rules}
    frame = typed.lazy()

    def failing(check: pa.Check, key: str | None) -> pl.Series:
        passed: pl.Series = check(frame, key).check_output.collect().get_column(CHECK_OUTPUT_KEY)
        return ~passed

    # A rule over several columns is not checked where one of them could not be parsed: that row is rejected already.
    unparsed = pl.repeat(False, text.height, eager=True)
    missing = unparsed
    for column in dataset.read_columns:
        if not column.nullable:
            missing = missing | text[column.name].is_null()
        if column.type_rule:
            unparsed = unparsed | (text[column.name].is_not_null() & typed[column.name].is_null())
    for column in dataset.staged_columns:
        if not column.nullable and not column.system:
            empty = (
                typed[column.name].is_null() & ~(unparsed | missing) if column.derived else text[column.name].is_null()
            )
            yield rules[f"{column.name}_required"], empty
        if column.type_rule:
            yield column.type_rule, text[column.name].is_not_null() & typed[column.name].is_null()
        for name, check in zip(column.checks, schema.columns[column.name].checks, strict=True):
            yield rules[f"{column.name}_{name}"], failing(check, column.name)
        if max_bytes := dataset.index_bounds.get(column.name):
            too_long = text[column.name].str.len_bytes() > max_bytes
            yield rules[f"{column.name}_indexable"], too_long.fill_null(value=False)
    if LINE_ONCE in rules and records is not None:
        yield rules[LINE_ONCE], records > 1
    for custom, check in zip(dataset.custom_rules, schema.checks, strict=True):
        try:
            fails = failing(check, None)
        except ROW_FAULTS:
            expression = partial(
                exact_expression, build_expression(custom.holds, null_on_error=True), typed.schema, null_on_error=True
            )
            holds = _evaluate(dataset, f"the rule {check.name}", typed, expression)
            fails = ~holds.fill_null(value=True)
        yield rules[check.name], fails & ~unparsed


def _of_arrived_values(
    dataset: Dataset, failures: Iterable[tuple[Rule, pl.Series]], stored: Mapping[str, pl.Series]
) -> Iterator[tuple[Rule, pl.Series]]:
    """Yield the rules without the rows in which they are about a stored value that is read."""
    read = {column.name for column in dataset.read_columns} & stored.keys()
    roots = {custom.rule.name: build_expression(custom.holds).meta.root_names() for custom in dataset.custom_rules}
    for rule, fails in failures:
        for name in read.intersection((rule.column, *roots.get(rule.name, ()))):
            fails = fails & ~stored[name]  # noqa: PLW2901
        yield rule, fails


def _array_literal(items: list[str]) -> str:
    quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _explain(broken: list[tuple[Rule, pl.Series]]) -> pl.DataFrame:
    """Return `_rules` and `_reasons` of rows.

    Each row gets a bit mask of the rules that it breaks (several words if there are more than 63). Few distinct masks occur
    among many rows, so each is turned into text once, and the texts are joined to the rows.
    """
    words: list[pl.Series] = []
    for start in range(0, len(broken), MASK_BITS):
        word = pl.zeros(len(broken[0][1]), pl.UInt64, eager=True)
        for bit, (_, fails) in enumerate(broken[start : start + MASK_BITS]):
            word = word | fails.cast(pl.UInt64) * (1 << bit)
        words.append(word.alias(f"word_{len(words)}"))
    masks = pl.DataFrame(words)
    texts = []
    for mask in masks.unique().iter_rows():
        rules = [rule for i, (rule, _) in enumerate(broken) if mask[i // MASK_BITS] >> (i % MASK_BITS) & 1]
        if rules:
            literals = (_array_literal([r.name for r in rules]), _array_literal([r.message for r in rules]))
            texts.append((*mask, *literals))
    types = {**dict.fromkeys(masks.columns, pl.UInt64), "_rules": pl.String, "_reasons": pl.String}
    explained = pl.DataFrame(texts, schema=types, orient="row")
    return masks.join(explained, on=masks.columns, how="left", maintain_order="left").select("_rules", "_reasons")


def validate(
    dataset: Dataset, rows: pl.DataFrame, stored: Mapping[str, pl.Series] = MappingProxyType({})
) -> ValidationResult:
    """Validate text rows against every rule of their dataset.

    Args:
        dataset: dataset with the rules.
        rows: n rows; columns that are read, and staged columns that the platform fills in, as text (an empty field is "");
            other columns are passed through. Of these, `_record` is the number of each row among those on its line.
        stored: which values of an export are stored ones (`stored_values`): rules over them do not apply, and derived columns,
            which `rows` then has as text, are not computed from them.

    Raises:
        DeclarationError: an expression over its columns depends on other rows, or is wrong for any rows.
    """
    refuse_expressions(dataset)
    sources = [column for column in dataset.staged_columns if not column.derived]
    text, typed = read_cells(sources, rows)
    typed = _derive(dataset, typed)
    if stored:
        exported = rows.select(parse(column) for column in dataset.columns if column.derived and column.name in stored)
        typed = typed.with_columns(values.zip_with(stored[values.name], typed[values.name]) for values in exported)
    if rewritten := [column for column in dataset.staged_columns if _is_staged_as_typed(column)]:
        readable = typed.select(as_text(column) for column in rewritten)
        text = text.with_columns(
            readable[c.name] if c.derived else readable[c.name].fill_null(text[c.name]) for c in rewritten
        )
    records = rows.get_column("_record", default=None)
    failures = _rule_failures(dataset, text, typed, records)
    if stored:
        failures = _of_arrived_values(dataset, failures, stored)
    broken = [(rule, fails) for rule, fails in failures if fails.any()]
    keys = typed.select(dataset.key).hash_rows()
    errors = [(rule, fails) for rule, fails in broken if rule.severity == "error"]
    text = text.select(column.name for column in dataset.staged_columns)
    if not errors:
        nothing = pl.lit(None, pl.String)
        return ValidationResult(_assemble(rows, text, nothing.alias("_rules"), nothing.alias("_reasons")), broken, keys)
    for name in {rule.column for rule, _ in errors if rule.column in rows.columns}:
        at_fault = _any_of([fails for rule, fails in errors if rule.column == name]).arg_true()
        raw = rows[name].gather(at_fault)
        text = text.with_columns(text[name].scatter(at_fault, raw.set(raw == "", None)))
    rejected = _any_of([fails for _, fails in errors]).arg_true()
    explained = _explain([(rule, fails.gather(rejected)) for rule, fails in errors])
    columns = [pl.repeat(None, rows.height, dtype=pl.String, eager=True).alias(name) for name in explained.columns]
    rules, reasons = (column.scatter(rejected, explained[column.name]) for column in columns)
    return ValidationResult(_assemble(rows, text, rules, reasons), broken, keys)


def _any_of(booleans: list[pl.Series]) -> pl.Series:
    return reduce(or_, booleans)


def _assemble(
    rows: pl.DataFrame, text: pl.DataFrame, rules: pl.Series | pl.Expr, reasons: pl.Series | pl.Expr
) -> pl.DataFrame:
    return rows.with_columns(text.get_columns()).select(rules, reasons, pl.all())


def validate_malformed(malformed: list[Malformed]) -> pl.DataFrame:
    """Return malformed records as rows with `_rules`, `_reasons`, `_line` and `_raw`."""
    return pl.DataFrame(
        {
            "_rules": _array_literals([m.rule for m in malformed]),
            "_reasons": _array_literals([m.detail for m in malformed]),
            "_line": pl.Series([m.line for m in malformed], dtype=pl.Int64),
            "_raw": pl.Series([m.raw for m in malformed], dtype=pl.String),
        }
    )


def _array_literals(items: list[str]) -> pl.Series:
    """Return each item as an array of one; built once per distinct item, as a million records have only a few faults."""
    literals = {item: _array_literal([item]) for item in set(items)}
    return pl.Series(map(literals.__getitem__, items), dtype=pl.String)
