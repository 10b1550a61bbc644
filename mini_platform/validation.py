"""Validation: text rows -> cleaned text and a verdict for every row. Pure: no files, no database, no Dagster.

The rules run on Pandera: `pandera_schema` builds the schema that a row model stands for, and each of its checks is asked
for its boolean column. `DataFrameSchema.validate` is not used on the way: it joins failure cases row by row, which costs
seconds per million rows at high reject rates, and one value that cannot be coerced hides the other failures of its column.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.constants import CHECK_OUTPUT_KEY

from mini_platform.dataset import Column, CustomRule, Dataset, Rule
from mini_platform.readers import Malformed

DTYPES: dict[type, type[pl.DataType]] = {
    str: pl.String,
    float: pl.Float64,
    int: pl.Int64,
    dt.date: pl.Date,
    bool: pl.Boolean,
}
TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
MASK_BITS = 63


@dataclass(frozen=True)
class Verdicts:
    """What became of a block of rows.

    Attributes:
        rows: as the block's, n rows, with `_rules` and `_reasons` (Postgres array literals; null for a valid row) put in
            front; a valid value is cleaned text, an empty one null, a rejected one stands as it arrived.
        broken: each rule that some row breaks, warnings too, with the n booleans of the rows that break it.
        keys: UInt64, n hashes of the keys as typed values: equal keys have equal hashes.
    """

    rows: pl.DataFrame
    broken: list[tuple[Rule, pl.Series]]
    keys: pl.Series


def _custom_check(custom: CustomRule) -> pa.Check:
    def holds(data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(custom.holds(pl.col))

    return pa.Check(holds, name=custom.rule.name, error=custom.rule.message)


@cache
def pandera_schema(dataset: Dataset) -> pa.DataFrameSchema:
    """The Pandera schema of a valid row: typed columns, their checks, and the rules about whole rows.

    Raises:
        AttributeError: a `Field` names a check that Pandera does not have.
    """

    def check(name: str, argument: Any) -> pa.Check:
        make = getattr(pa.Check, name)
        made: pa.Check = make(**argument) if isinstance(argument, dict) else make(argument)
        return made

    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                DTYPES[column.type],
                checks=[check(name, argument) for name, argument in column.checks.items()],
                nullable=column.nullable,
                description=column.comment,
                title=column.description,
            )
            for column in dataset.columns
        },
        checks=[_custom_check(custom) for custom in dataset.custom_rules],
        name=dataset.table,
        description=dataset.description,
    )


def clean(column: Column, cells: pl.Series) -> pl.Series:
    """Text of cells -> trimmed text, in Unicode's composed form (NFC) where it is text; null where nothing is left."""
    cleaned = cells.str.strip_chars()
    if column.type is str and cleaned.str.len_bytes().sum() != cleaned.str.len_chars().sum():
        cleaned = cleaned.str.normalize(
            "NFC"
        )  # ASCII is composed as it is: normalizing takes longer than all else here.
    return cleaned.set(cleaned == "", None)


def clean_columns(columns: Sequence[Column], rows: pl.DataFrame) -> pl.DataFrame:
    """These columns of text rows, cleaned."""
    return pl.DataFrame([clean(column, rows[column.name]) for column in columns])


def parse(column: Column) -> pl.Expr:
    """Cleaned text -> typed value; null where the text is not one of the column's type."""
    text = pl.col(column.name)
    if column.type is float:
        number = text.cast(pl.Float64, strict=False)
        # Postgres refuses a number so small that it is no longer told from zero; so do we.
        underflow = (number == 0) & text.str.contains("^[^eE]*[1-9]")
        return pl.when(number.is_finite() & ~underflow).then(number)
    if column.type is int:
        return text.cast(pl.Int64, strict=False)
    if column.type is dt.date:
        day = text.str.contains("^[0-9]{4}-[0-9]{2}-[0-9]{2}$") & ~text.str.starts_with("0000")
        return pl.when(day).then(text).str.to_date("%Y-%m-%d", strict=False)
    if column.type is bool:
        word = text.str.to_lowercase()
        truth = pl.when(word.is_in(TRUE_WORDS)).then(True).when(word.is_in(FALSE_WORDS)).then(False)
        return truth.alias(column.name)
    return text


def _failures(dataset: Dataset, text: pl.DataFrame, typed: pl.DataFrame) -> Iterator[tuple[Rule, pl.Series]]:
    """Each declared rule with the rows that break it, in the order of `dataset.rules`."""
    schema = pandera_schema(dataset)
    rules = {rule.name: rule for rule in dataset.rules}
    frame = typed.lazy()

    def ask(check: pa.Check, key: str | None) -> pl.Series:
        passed: pl.Series = check(frame, key).check_output.collect().get_column(CHECK_OUTPUT_KEY)
        return ~passed

    # A rule written over columns cannot be judged where one of them could not be read: that row is rejected already.
    unread = pl.repeat(False, text.height, eager=True)
    for column in dataset.columns:
        if not column.nullable:
            yield rules[f"{column.name}_required"], text[column.name].is_null()
        if column.type_rule:
            fails = text[column.name].is_not_null() & typed[column.name].is_null()
            unread = unread | fails
            yield column.type_rule, fails
        for name, check in zip(column.checks, schema.columns[column.name].checks, strict=True):
            yield rules[f"{column.name}_{name}"], ask(check, column.name)
        if most := dataset.index_bounds.get(column.name):
            too_long = text[column.name].str.len_bytes() > most
            yield rules[f"{column.name}_indexable"], too_long.fill_null(value=False)
    for check in schema.checks:
        yield rules[check.name], ask(check, None) & ~unread


def _array_literal(items: list[str]) -> str:
    quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _explain(broken: list[tuple[Rule, pl.Series]]) -> pl.DataFrame:
    """Broken rules by row -> `_rules` and `_reasons`: a bit mask per row, turned into text once per distinct mask."""
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


def judge(dataset: Dataset, rows: pl.DataFrame) -> Verdicts:
    """Hold text rows to every rule of their dataset.

    Args:
        dataset: whose rules they are.
        rows: n rows; the declared columns as text (an empty field is ""), other columns are passed through.
    """
    text = clean_columns(dataset.columns, rows)
    typed = text.select(parse(column) for column in dataset.columns)
    broken = [(rule, fails) for rule, fails in _failures(dataset, text, typed) if fails.any()]
    keys = typed.select(dataset.key).hash_rows()
    errors = [(rule, fails) for rule, fails in broken if rule.severity == "error"]
    if not errors:
        nothing = pl.lit(None, pl.String)
        return Verdicts(_assemble(rows, text, nothing.alias("_rules"), nothing.alias("_reasons")), broken, keys)
    for name in {rule.column for rule, _ in errors if rule.column}:
        at_fault = _any([fails for rule, fails in errors if rule.column == name]).arg_true()
        raw = rows[name].gather(at_fault)
        text = text.with_columns(text[name].scatter(at_fault, raw.set(raw == "", None)))
    rejected = _any([fails for _, fails in errors]).arg_true()
    explained = _explain([(rule, fails.gather(rejected)) for rule, fails in errors])
    columns = [pl.repeat(None, rows.height, dtype=pl.String, eager=True).alias(name) for name in explained.columns]
    rules, reasons = (column.scatter(rejected, explained[column.name]) for column in columns)
    return Verdicts(_assemble(rows, text, rules, reasons), broken, keys)


def _any(booleans: list[pl.Series]) -> pl.Series:
    return reduce(or_, booleans)


def _assemble(
    rows: pl.DataFrame, text: pl.DataFrame, rules: pl.Series | pl.Expr, reasons: pl.Series | pl.Expr
) -> pl.DataFrame:
    return rows.with_columns(text.get_columns()).select(rules, reasons, pl.all())


def judge_malformed(malformed: list[Malformed]) -> pl.DataFrame:
    """Records without columns -> rows with `_rules`, `_reasons`, `_line` and `_raw`."""
    return pl.DataFrame(
        {
            "_rules": [_array_literal([m.rule]) for m in malformed],
            "_reasons": [_array_literal([m.detail]) for m in malformed],
            "_line": [m.line for m in malformed],
            "_raw": [m.raw for m in malformed],
        },
        schema={"_rules": pl.String, "_reasons": pl.String, "_line": pl.Int64, "_raw": pl.String},
    )
