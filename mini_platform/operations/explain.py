"""Explain: where a production row comes from, and everything that the raw files ever said of its key.

Here: reading the raw files of a dataset again for one key, and judging what they say by today's rules. Not here: how it is
shown, Dagster.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from sqlalchemy import Connection, Row, and_, select

from mini_platform.declare.columns import TYPE_RULES, Column
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.policies import KeepHighest
from mini_platform.declare.rules import KEY_ONCE
from mini_platform.rows.protection import Keyring, masked, protect, protected, stored_as
from mini_platform.rows.readers import Block, RefusedFileError
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.validation import clean_columns, parse, validate
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform.warehouse.validated_rows import RawFiles

OccurrenceStatus = Literal["current", "unchanged", "superseded", "rejected", "pending", "not loaded"]
"""Of one occurrence of a key in a file.

    current      the row of production
    unchanged    came later and said what production said already
    superseded   a later row of its key won, in its file or in a later one
    rejected     breaks a rule
    pending      its file waits to be loaded
    not loaded   its file was refused or failed, or production does not have what it says
"""


class KeyTextError(ValueError):
    """What was given as a key cannot be one; the message is a sentence."""


@dataclass
class Occurrence:
    """A row of a raw file that has the key.

    Attributes:
        file_id: of the file in the ledger; `file` and `version` are its name and version.
        file: name.
        version: of the name.
        line: on which the row starts.
        record: its number among the records that start on that line, from 1.
        values: cleaned text of each declared column; None where it is empty; as it arrived where it is at fault,
            or its shape where the dataset has personal data.
        verdict: what became of it.
        reasons: the sentences of the rules that it breaks, or why its file was not loaded.
    """

    file_id: int
    file: str
    version: int
    line: int
    record: int
    values: dict[str, str | None]
    verdict: OccurrenceStatus
    reasons: list[str]


@dataclass
class Explanation:
    """A production row and its history.

    Attributes:
        dataset: name.
        key: key columns and typed values.
        row: every declared column of the row; None if production has no such row.
        file_id: of the file that brought the row; `file_name`, `version` and `run_id` (its last run) are of that file.
        file_name: name.
        version: of the name.
        line: in that file; None if its raw file cannot be read any more.
        loaded_at: when the values were written.
        run_id: run that loaded the file.
        rules: names of the rules that every row of production has passed.
        occurrences: of the key in raw files, in the order of arrival and line.
        unread: sentences about raw files that could not be read, or not to their end.
    """

    dataset: str
    key: dict[str, Any]
    row: dict[str, Any] | None
    file_id: int | None = None
    file_name: str | None = None
    version: int | None = None
    line: int | None = None
    loaded_at: dt.datetime | None = None
    run_id: str | None = None
    rules: list[str] = field(default_factory=list)
    occurrences: list[Occurrence] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As dicts and lists; values keep their Python types."""
        return asdict(self)


def key_columns(dataset: Dataset) -> list[Column]:
    """The columns of the key, in its order."""
    columns = {column.name: column for column in dataset.columns}
    return [columns[name] for name in dataset.key]


def parse_key(dataset: Dataset, texts: Sequence[str]) -> dict[str, Any]:
    """Texts in the order of the key -> typed key values, read as the cells of a file are.

    Raises:
        KeyTextError: there are too few or too many, or one is not of its column's type.
    """
    columns = key_columns(dataset)
    if len(texts) != len(columns):
        raise KeyTextError(
            f"The key of {dataset.name} has {len(columns)} values ({', '.join(dataset.key)}), not {len(texts)}."
        )
    given = pl.DataFrame({c.name: [text] for c, text in zip(columns, texts, strict=True)})
    cleaned = clean_columns(columns, given)
    typed = cleaned.select(map(parse, columns)).row(0, named=True)
    for column, text in zip(columns, texts, strict=True):
        if typed[column.name] is None:
            what = (
                "is empty"
                if cleaned[column.name][0] is None
                else TYPE_RULES[column.type][1].format(decimals=column.decimals)
            )
            raise KeyTextError(f"{column.name}: {text!r} {what}.")
    return typed


def explain_row(
    conn: Connection,
    dataset: Dataset,
    key: Mapping[str, Any],
    raw: RawFiles,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Find a row by its key, and every occurrence of the key in the raw files of the dataset; personal data is masked.

    Args:
        conn: reads production and the ledger.
        dataset: whose row.
        key: every key column with its typed value, as from `parse_key`.
        raw: where the raw files are and how they are read.
        progress: called with bytes as they are read.
    """
    production = dataset_tables(dataset).production
    stored = _stored(dataset, key, raw.keyring)
    same_key = and_(*(production.c[name].in_(values) for name, values in stored.items()))
    row = conn.execute(
        select(
            production, files.c.name.label("_name"), files.c.version.label("_version"), files.c.run_id.label("_run_id")
        )
        .join(files, files.c.file_id == production.c._file_id)
        .where(same_key)
        .order_by(production.c._file_id.desc())  # A person's hashes by an earlier key and by today's are two rows.
    ).first()
    found = Explanation(dataset.name, {name: key[name] for name in dataset.key}, None)
    if row is not None:
        values = row._mapping
        found.row = {column.name: values[column.name] for column in dataset.stored_columns}
        found.file_id, found.file_name, found.version = values["_file_id"], values["_name"], values["_version"]
        found.loaded_at, found.run_id = values["_loaded_at"], values["_run_id"]
        found.rules = [rule.name for rule in dataset.rules if rule.severity == "error"]
    versions = select(files).where(files.c.dataset == dataset.name, files.c.same_as.is_(None))
    contradicting: list[Occurrence] = []  # Of loaded files: production does not have what they say.
    for version in conn.execute(versions.order_by(files.c.file_id)).all():
        occurrences, problem = _occurrences(dataset, stored, version, raw, progress)
        if problem:
            found.unread.append(f"{version.name} (file {version.file_id}): {problem}")
        placed = _placed(dataset, found, version, occurrences)
        found.occurrences += placed
        if version.status == "loaded":
            contradicting += (o for o in placed if o.verdict == "not loaded")
        if any(o.verdict == "unchanged" for o in placed):  # Files of one batch: this one's row won over theirs.
            for occurrence in contradicting:
                occurrence.verdict = "superseded"
    found.line = next((o.line for o in found.occurrences if o.verdict == "current"), None)
    found.row = found.row and masked(dataset.masked_columns, found.row)
    for occurrence in found.occurrences:
        shaped = dataset.shaped_columns if occurrence.verdict == "rejected" else ()
        occurrence.values = masked(dataset.masked_columns, occurrence.values, shaped)
    return found


def _stored(dataset: Dataset, key: Mapping[str, Any], keyring: Keyring | None) -> dict[str, list[Any]]:
    """What each value of a key may stand as in the tables."""
    return {
        column.name: stored_as(column, key[column.name], keyring)
        if keyring and column.is_protected
        else [key[column.name]]
        for column in key_columns(dataset)
    }


def _occurrences(
    dataset: Dataset,
    key: Mapping[str, Sequence[Any]],
    version: Row[Any],
    raw: RawFiles,
    progress: Callable[[int], None] | None,
) -> tuple[list[tuple[Occurrence, dict[str, Any]]], str | None]:
    """Rows of one file that have the key, with their typed values; and what kept the file from being read, if anything."""
    rows: list[tuple[Occurrence, dict[str, Any]]] = []
    seen = 0
    if version.raw_dropped_at is not None:
        return rows, f"its raw file was dropped on {version.raw_dropped_at:%Y-%m-%d}"
    try:
        for block in read_rows(dataset, raw.path(version.sha256), version.name, version.channel, raw.limits):
            rows += _matching(dataset, key, version, block, raw.keyring)
            if progress:
                progress(block.bytes_read - seen)
            seen = block.bytes_read
    except FileNotFoundError:
        return rows, "its raw file is missing"
    except RefusedFileError as refusal:
        return rows, str(refusal)
    return rows, None


def _matching(
    dataset: Dataset, key: Mapping[str, Sequence[Any]], version: Row[Any], block: Block, keyring: Keyring | None
) -> Iterator[tuple[Occurrence, dict[str, Any]]]:
    columns = key_columns(dataset)
    records = np.ones_like(block.lines) if block.records is None else block.records
    numbered = block.rows.select(
        pl.Series("_line", block.lines),
        pl.Series("_record", records),
        *(c.name for c in dataset.staged_columns if not c.derived),
    )
    is_read = not any(column.derived for column in columns)
    if is_read:  # Most rows have another key, and need not be validated.
        keys = clean_columns(columns, numbered).select(map(parse, columns))
        numbered = numbered.filter(_has_key(columns, keys, key, keyring))
    if numbered.is_empty():
        return
    results = validate(dataset, numbered)
    broken = [(rule, fails) for rule, fails in results.broken if rule.severity == "error"]
    rows = protect(dataset, results.rows, keyring) if keyring else results.rows
    typed = rows.select(map(_typed, dataset.staged_columns))
    chosen: Iterable[int] = range(rows.height)
    if not is_read:
        chosen = _has_key(columns, results.rows.select(map(parse, columns)), key, keyring).arg_true()
    for i in chosen:
        row = rows.row(i, named=True)
        reasons = [rule.message for rule, fails in broken if fails[i]]
        values = {column.name: row[column.name] for column in dataset.staged_columns}
        verdict: OccurrenceStatus = "rejected" if reasons else "superseded"
        occurrence = Occurrence(
            version.file_id, version.name, version.version, row["_line"], row["_record"], values, verdict, reasons
        )
        yield occurrence, typed.row(i, named=True)


def _has_key(
    columns: Sequence[Column], typed: pl.DataFrame, key: Mapping[str, Sequence[Any]], keyring: Keyring | None
) -> pl.Series:
    """Which rows have the key, once its columns are protected as staging protects them."""
    if keyring:
        typed = typed.with_columns(protected(c, typed[c.name], keyring) for c in columns if c.is_protected)
    same = (pl.any_horizontal(pl.col(name) == value for value in values) for name, values in key.items())
    return typed.select(pl.all_horizontal(same).fill_null(value=False).alias("same")).to_series()


def _typed(column: Column) -> pl.Expr:
    """Text as staging has it -> typed value."""
    if column.type == list[float]:  # As an array of Postgres.
        return pl.col(column.name).str.strip_chars("{}").str.split(",").cast(pl.List(pl.Float64), strict=False)
    return parse(column)


def _speaker(dataset: Dataset, valid: Sequence[tuple[Occurrence, dict[str, Any]]]) -> tuple[Occurrence, dict[str, Any]]:
    """Which of the valid rows of one file with one key counts."""
    if isinstance(dataset.duplicates, KeepHighest):
        name = dataset.duplicates.column
        known = [item for item in valid if item[1][name] is not None]
        best: tuple[Occurrence, dict[str, Any]] = max(
            reversed(known or valid), key=lambda i: i[1][name] if known else 0
        )
        return best
    return valid[0] if dataset.duplicates == "first" else valid[-1]


def _placed(
    dataset: Dataset,
    found: Explanation,
    version: Row[Any],
    occurrences: Sequence[tuple[Occurrence, dict[str, Any]]],
) -> list[Occurrence]:
    """Give the valid rows of one file, in its order, their results: one of them speaks for the file."""
    valid = [(occurrence, typed) for occurrence, typed in occurrences if occurrence.verdict != "rejected"]
    if version.status != "loaded":
        for occurrence, _ in valid:
            occurrence.verdict = "pending" if version.status in PENDING else "not loaded"
            occurrence.reasons = [version.error] if version.error else []
    elif dataset.duplicates == "reject" and len(valid) > 1:
        for occurrence, _ in valid:
            occurrence.verdict = "rejected"
            occurrence.reasons = [rule.message for rule in dataset.rules if rule.name == KEY_ONCE]
    elif valid:
        last, typed = _speaker(dataset, valid)
        if found.row is not None and version.file_id == found.file_id:
            last.verdict = "current"
        elif found.row is None or version.file_id > (found.file_id or 0):
            compared = [c.name for c in dataset.stored_columns if c.is_staged and not c.system]
            same = found.row is not None and all(typed[name] == found.row[name] for name in compared)
            last.verdict = "unchanged" if same else "not loaded"
    return [occurrence for occurrence, _ in occurrences]
