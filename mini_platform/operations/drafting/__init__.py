"""Drafting: infer a dataset module from a sample file, for `mini-platform new`.

Here: the steps in their order. `dialect` detects how a CSV file is written, `columns` infers its columns, `keys` finds a key,
`source` writes the module. A draft is tried before it is returned: the module is run, its sample is validated, and every claim
that would reject a row of the sample is dropped.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from mini_platform.declare.columns import Column, normalized
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import Csv, Json
from mini_platform.operations.drafting.columns import draft_columns
from mini_platform.operations.drafting.dialect import CsvDialect, find_dialect
from mini_platform.operations.drafting.keys import find_key
from mini_platform.operations.drafting.names import unused
from mini_platform.operations.drafting.source import Drafted, module
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.readers.unpack import unpacked
from mini_platform.rows.validation import parse, validate

MOST_ROWS = 200_000
"""Maximum number of rows of the sample that are read."""
MOST_TEXT = 64 * 2**20
"""Maximum size in bytes of a JSON file in which a list of rows is searched."""
_NOWHERE = "\0"


@dataclass(frozen=True)
class Inferred:
    """A dataset that was inferred from a sample.

    Attributes:
        text: source code of the module.
        drafted: the drafted dataset.
        notes: findings, as sentences.
    """

    text: str
    drafted: Drafted
    notes: tuple[str, ...]


def infer(sample: Path, name: str, table: str, limits: ReadLimits) -> Inferred:
    """Draft a dataset from a sample.

    Args:
        sample: a CSV or JSON file, compressed or not.
        name: name of the dataset.
        table: name of its table.
        limits: limits of the readers.

    Raises:
        RefusedFileError: the sample cannot be read.
    """
    dialect = _json_format(sample, limits) if _is_json(sample) else find_dialect(sample, limits)
    source = _with_suffix(dialect.source, sample.name)
    headers, rows, malformed = _read_sample(sample, dialect, limits)
    by_name = isinstance(source, Json) or bool(source.header)
    columns = draft_columns(headers, rows, by_name=by_name)
    names = (
        {column.name for column in columns} | {column.text_name for column in columns} | set(map(normalized, headers))
    )
    file_and_line = unused("source_file", names), unused("source_line", names)
    drafted = Drafted(name, table, sample.name, rows.height, source, tuple(columns), (), file_and_line)
    drafted, duplicates = _fit_to_sample(drafted, sample, limits)
    notes = [*dialect.notes]
    if duplicates:
        notes.append(
            f"{duplicates:,} rows start on the same line as another row and would replace it, as no columns identify a row: "
            "declare a key that does"
            + (', or put a column with system="record" into it.' if isinstance(source, Json) else ".")
        )
    if malformed:
        notes.append(f"{malformed:,} rows are malformed; they would be rejected.")
    if rows.height == MOST_ROWS:
        notes.append(f"Only the first {MOST_ROWS:,} rows were read.")
    return Inferred(module(drafted), drafted, tuple(notes))


def _is_json(sample: Path) -> bool:
    return isinstance(format_of(sample.name, (Csv(), Json())), Json)


def _with_suffix(source: Csv | Json, name: str) -> Csv | Json:
    """Return the format with the suffix of the sample among its suffixes."""
    if name.lower().endswith(source.suffixes):
        return source
    suffix = Path(name).suffix.lower()
    return replace(source, suffixes=(*source.suffixes, suffix)) if suffix else source


@dataclass(frozen=True)
class _JsonFormat:
    source: Json
    notes: tuple[str, ...]


def _json_format(sample: Path, limits: ReadLimits) -> _JsonFormat:
    path = _find_rows(sample, limits)
    notes = (f"The rows are in {path}.",) if path else ()
    return _JsonFormat(Json(rows=path), notes)


def _find_rows(sample: Path, limits: ReadLimits) -> str | None:
    """Return the path of the longest list of objects, if the file is an object that contains one."""
    with unpacked(sample, limits) as raw:
        text = b""
        while len(text) <= MOST_TEXT and (piece := raw.read(2**20)):
            text += piece
    try:
        value = json.loads(text) if text.lstrip()[:1] == b"{" and len(text) <= MOST_TEXT else None
    except (ValueError, RecursionError):
        return None
    lists: list[tuple[int, str]] = []

    def walk(inner: Any, path: Sequence[str]) -> None:
        if isinstance(inner, dict):
            for key, item in inner.items():
                if key and "." not in key:
                    walk(item, [*path, key])
        elif isinstance(inner, list) and inner and path and all(isinstance(item, dict) for item in inner):
            lists.append((len(inner), ".".join(path)))

    walk(value, [])
    return max(lists, key=lambda pair: pair[0])[1] if lists else None


def _read_sample(
    sample: Path, dialect: CsvDialect | _JsonFormat, limits: ReadLimits
) -> tuple[list[str], pl.DataFrame, int]:
    """Return the headers, the first rows with columns in that order, and the number of malformed records."""
    if isinstance(dialect, CsvDialect):
        headers = list(dialect.header)
        source: Csv | Json = dialect.by_position
        columns = [Column(description="", name=f"c{number}", type=str, nullable=True) for number in range(len(headers))]
    else:
        # The reader needs at least one column; no name in a file is equal to this one.
        headers, source = [], dialect.source
        columns = [Column(description="", name=_NOWHERE, type=str, nullable=True, optional=True)]
    frames, malformed, height = [], 0, 0
    for block in read_file(sample, sample.name, (source,), columns, limits=limits):
        frames.append(block.rows)
        malformed += len(block.malformed)
        height += block.rows.height
        if height >= MOST_ROWS:
            break
    rows = pl.concat(frames, how="diagonal").head(MOST_ROWS).with_columns(pl.all().fill_null(""))
    if isinstance(dialect, _JsonFormat):
        rows = rows.drop(_NOWHERE)
        headers = rows.columns
        if not headers:
            raise RefusedFileError("The file has no objects with names: nothing can be inferred from it.")
    return headers, rows, malformed


def _fit_to_sample(drafted: Drafted, sample: Path, limits: ReadLimits) -> tuple[Drafted, int]:
    """Return the draft with a key, without claims that reject a row of the sample, and the number of rows that share a key."""
    keyless = drafted
    while True:
        dataset = load_draft(module(keyless), drafted.name)
        failed, typed = _validate_sample(dataset, sample, limits)
        if not failed:
            break
        # Columns named here claim too much: they become plain text.
        columns = tuple(c.as_plain_text if {c.name, c.text_name} & failed else c for c in keyless.columns)
        if columns == keyless.columns:
            raise RefusedFileError(
                f"The sample fails rules that were not drafted from it: {', '.join(sorted(failed))}."
            )
        keyless = replace(keyless, columns=columns)
    possible = [(column.name, column.type) for column in keyless.columns if not column.nullable]
    while key := find_key(possible, typed):
        keyed = replace(keyless, key=key)
        if not (failed := _validate_sample(load_draft(module(keyed), drafted.name), sample, limits)[0]):
            return keyed, 0
        if not failed & set(key):
            break
        possible = [(name, kind) for name, kind in possible if name not in failed & set(key)]
    return keyless, typed.height - typed.select(drafted.file_and_line).n_unique()


def _validate_sample(dataset: Dataset, sample: Path, limits: ReadLimits) -> tuple[set[str], pl.DataFrame]:
    """Return names of the columns (or rules) for which rows of the sample are rejected, and the typed rows."""
    failed: set[str] = set()
    frames, height = [], 0
    for block in read_rows(dataset, sample, sample.name, "new", limits):
        results = validate(dataset, block.rows.head(MOST_ROWS - height))
        failed |= {rule.column or rule.name for rule, _ in results.broken if rule.severity == "error"}
        frames.append(results.rows.select(column.name for column in dataset.staged_columns))
        height += block.rows.height
        if height >= MOST_ROWS:
            break
    # Staged text is canonical if equal values can be written in several ways: a key compares its parsed values.
    return failed, pl.concat(frames).select(parse(column) for column in dataset.staged_columns)


def load_draft(text: str, name: str) -> Dataset:
    """Run the source code of a module and return the dataset that it declares."""
    draft = types.ModuleType(f"_drafted_{name}")
    sys.modules[draft.__name__] = draft  # The annotations of its row model are resolved there.
    try:
        exec(compile(text, f"<draft of {name}>", "exec"), draft.__dict__)  # noqa: S102 - our own text
        dataset: Dataset = draft.dataset
        _ = dataset.rules
    finally:
        del sys.modules[draft.__name__]
    return dataset
