"""Explain: the origin of a production row, and the history of its key in the raw files.

Here: reading all raw files of a dataset again for one key, and validating the rows with the current rules. Not here: how the
history is shown, Dagster.
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
from mini_platform.rows.stored_values import stored_values
from mini_platform.rows.validation import parse, read_cells, validate
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform.warehouse.validated_rows import RawFiles

OccurrenceStatus = Literal["current", "unchanged", "superseded", "rejected", "pending", "not loaded"]
"""Status of an occurrence of a key in a file.

    current      the row of production
    unchanged    a later row with the same values as production
    superseded   another row of the key won, in its file or in a later one
    rejected     fails a rule
    pending      its file is pending
    not loaded   its file was refused or failed, or production does not have its values
"""


class KeyTextError(ValueError):
    """The text cannot be a key; the message is a sentence."""


@dataclass
class Occurrence:
    """A row of a raw file that has the key.

    Attributes:
        file_id: id of the file in the ledger; `file` and `version` are its name and version.
        file: name of the file.
        version: version of the name.
        line: line on which the row starts.
        record: number of the row among the records that start on that line, from 1.
        values: cleaned text of each declared column; None if empty; the original text if it fails a rule, or its shape if
            the dataset has personal data.
        verdict: status of the row.
        reasons: messages of the rules that it fails, or why its file was not loaded.
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
        dataset: name of the dataset.
        key: key columns with typed values.
        row: every declared column of the row; None if production has no such row.
        file_id: id of the file that brought the row; `file_name`, `version` and `run_id` (its last run) are of that file.
        file_name: name of that file.
        version: version of the name.
        line: line in that file; None if its raw file can no longer be read.
        loaded_at: time at which the values were written.
        run_id: run that loaded the file.
        rules: names of the rules that every row of production has passed.
        occurrences: occurrences of the key in raw files, in the order of arrival and line.
        unread: sentences about raw files that could not be read, or not completely.
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
        """Return the explanation as dicts and lists; values keep their Python types."""
        return asdict(self)


def key_columns(dataset: Dataset) -> list[Column]:
    """Return the columns of the key, in its order."""
    columns = {column.name: column for column in dataset.columns}
    return [columns[name] for name in dataset.key]


def parse_key(dataset: Dataset, texts: Sequence[str]) -> dict[str, Any]:
    """Return typed key values from texts in the order of the key, parsed like the cells of a file.

    Raises:
        KeyTextError: there are too few or too many, or one is not of its column's type.
    """
    columns = key_columns(dataset)
    if len(texts) != len(columns):
        raise KeyTextError(
            f"The key of {dataset.name} has {len(columns)} values ({', '.join(dataset.key)}), not {len(texts)}."
        )
    raw_texts = pl.DataFrame({c.name: [text] for c, text in zip(columns, texts, strict=True)})
    cleaned, values = read_cells(columns, raw_texts)
    typed = values.row(0, named=True)
    for column, text in zip(columns, texts, strict=True):
        if typed[column.name] is None:
            reason = (
                "is empty"
                if cleaned[column.name][0] is None
                else TYPE_RULES[column.type][1].format(decimals=column.decimals)
            )
            raise KeyTextError(f"{column.name}: {text!r} {reason}.")
    return typed


def explain_row(
    conn: Connection,
    dataset: Dataset,
    key: Mapping[str, Any],
    raw: RawFiles,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Return a row by its key, with every occurrence of the key in raw files of the dataset; personal data is masked.

    Args:
        conn: connection that reads production and the ledger.
        dataset: dataset of the row.
        key: every key column with its typed value, as from `parse_key`.
        raw: location of the raw files, the limits they are read with, and the keys.
        progress: called with the number of bytes as they are read.
    """
    production = dataset_tables(dataset).production
    stored_key = _stored_key(dataset, key, raw.keyring)
    same_key = and_(*(production.c[name].in_(values) for name, values in stored_key.items()))
    row = conn.execute(
        select(
            production, files.c.name.label("_name"), files.c.version.label("_version"), files.c.run_id.label("_run_id")
        )
        .join(files, files.c.file_id == production.c._file_id)
        .where(same_key)
        .order_by(production.c._file_id.desc())  # Hashes by an earlier key and by the current one are two rows.
    ).first()
    explanation = Explanation(dataset.name, {name: key[name] for name in dataset.key}, None)
    if row is not None:
        values = row._mapping
        explanation.row = {column.name: values[column.name] for column in dataset.stored_columns}
        explanation.file_id, explanation.file_name, explanation.version = (
            values["_file_id"],
            values["_name"],
            values["_version"],
        )
        explanation.loaded_at, explanation.run_id = values["_loaded_at"], values["_run_id"]
        explanation.rules = [rule.name for rule in dataset.rules if rule.severity == "error"]
    versions = select(files).where(files.c.dataset == dataset.name, files.c.same_as.is_(None))
    # Files are visited in the order of arrival, and the file that brought the row is known, so each occurrence is judged
    # relative to it: rows of earlier files are superseded, a row of a later loaded file must have the same values. If it has
    # not ("not loaded"), a still later file with the current values explains it: both were loaded in one batch, and only the
    # winner of a batch is compared with production.
    contradicting: list[Occurrence] = []
    for version in conn.execute(versions.order_by(files.c.file_id)).all():
        occurrences, problem = _occurrences(dataset, stored_key, version, raw, progress)
        if problem:
            explanation.unread.append(f"{version.name} (file {version.file_id}): {problem}")
        file_occurrences = _set_verdicts(dataset, explanation, version, occurrences)
        explanation.occurrences += file_occurrences
        if version.status == "loaded":
            contradicting += (o for o in file_occurrences if o.verdict == "not loaded")
        if any(o.verdict == "unchanged" for o in file_occurrences):  # It won over the others of its batch.
            for occurrence in contradicting:
                occurrence.verdict = "superseded"
    explanation.line = next((o.line for o in explanation.occurrences if o.verdict == "current"), None)
    explanation.row = explanation.row and masked(dataset.masked_columns, explanation.row)
    for occurrence in explanation.occurrences:
        shaped = dataset.shaped_columns if occurrence.verdict == "rejected" else ()
        occurrence.values = masked(dataset.masked_columns, occurrence.values, shaped)
    return explanation


def _stored_key(dataset: Dataset, key: Mapping[str, Any], keyring: Keyring | None) -> dict[str, list[Any]]:
    """Return the values that each key column may have in the tables: hashes where it is protected."""
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
    """Return the rows of one file that have the key, with typed values, and why the file could not be read, or None."""
    rows: list[tuple[Occurrence, dict[str, Any]]] = []
    bytes_seen = 0
    if version.raw_dropped_at is not None:
        return rows, f"its raw file was dropped on {version.raw_dropped_at:%Y-%m-%d}"
    try:
        for block in read_rows(dataset, raw.path(version.sha256), version.name, version.channel, raw.limits):
            rows += _matching(dataset, key, version, block, raw.keyring)
            if progress:
                progress(block.bytes_read - bytes_seen)
            bytes_seen = block.bytes_read
    except FileNotFoundError:
        return rows, "its raw file is missing"
    except RefusedFileError as error:
        return rows, str(error)
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
    if block.derived is not None:
        numbered = numbered.with_columns(block.derived.get_columns())
    key_is_read = not any(column.derived for column in columns)
    if key_is_read:  # Filter first: most rows have another key and need no validation.
        _, keys = read_cells(columns, numbered)
        numbered = numbered.filter(_has_key(columns, keys, key, keyring))
    if numbered.is_empty():
        return
    stored = stored_values(dataset, numbered, keyring) if block.derived is not None else {}
    results = validate(dataset, numbered, stored)
    broken = [(rule, fails) for rule, fails in results.broken if rule.severity == "error"]
    rows = protect(dataset, results.rows, keyring) if keyring else results.rows
    typed = rows.select(map(_typed, dataset.staged_columns))
    indices: Iterable[int] = range(rows.height)
    if not key_is_read:
        indices = _has_key(columns, results.rows.select(map(parse, columns)), key, keyring).arg_true()
    for i in indices:
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
    """Return a mask of the rows that have the key, after protecting its columns as staging does."""
    if keyring:
        typed = typed.with_columns(protected(c, typed[c.name], keyring) for c in columns if c.is_protected)
    same = (pl.any_horizontal(pl.col(name) == value for value in values) for name, values in key.items())
    return typed.select(pl.all_horizontal(same).fill_null(value=False).alias("same")).to_series()


def _typed(column: Column) -> pl.Expr:
    """Return the expression that parses a column from the text that staging has."""
    if column.type == list[float]:  # Staging writes it as a Postgres array.
        return pl.col(column.name).str.strip_chars("{}").str.split(",").cast(pl.List(pl.Float64), strict=False)
    return parse(column)


def _winner(dataset: Dataset, valid: Sequence[tuple[Occurrence, dict[str, Any]]]) -> tuple[Occurrence, dict[str, Any]]:
    """Return the one of several valid rows of a file with the same key that is loaded, by the dataset's `duplicates`."""
    if isinstance(dataset.duplicates, KeepHighest):
        name = dataset.duplicates.column
        candidates = [item for item in valid if item[1][name] is not None]
        best: tuple[Occurrence, dict[str, Any]] = max(
            reversed(candidates or valid), key=lambda i: i[1][name] if candidates else 0
        )
        return best
    return valid[0] if dataset.duplicates == "first" else valid[-1]


def _set_verdicts(
    dataset: Dataset,
    explanation: Explanation,
    version: Row[Any],
    occurrences: Sequence[tuple[Occurrence, dict[str, Any]]],
) -> list[Occurrence]:
    """Set the status of the valid rows of one file, of which one is loaded; return all of its rows in their order."""
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
        winner, typed = _winner(dataset, valid)
        if explanation.row is not None and version.file_id == explanation.file_id:
            winner.verdict = "current"
        elif explanation.row is None or version.file_id > (explanation.file_id or 0):
            compared = [c.name for c in dataset.stored_columns if c.is_staged and not c.system]
            is_same = explanation.row is not None and all(typed[name] == explanation.row[name] for name in compared)
            winner.verdict = "unchanged" if is_same else "not loaded"
    return [occurrence for occurrence, _ in occurrences]
