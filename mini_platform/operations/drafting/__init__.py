"""Inference: a sample file -> the file of a dataset that reads it, for `mini-platform new`.

Here: the way from one to the other. `dialect` finds out how a CSV file is written, `columns` what its columns hold, `keys` what
tells its rows apart, `source` writes the module. What is drafted is tried before it is given away: the module is run and its
own sample validated, and whatever would reject a row of it is taken back.
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
from mini_platform.operations.drafting.dialect import Written, find_dialect
from mini_platform.operations.drafting.keys import find_key
from mini_platform.operations.drafting.names import unused
from mini_platform.operations.drafting.source import Drafted, module
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.readers.unpack import unpacked
from mini_platform.rows.validation import parse, validate

MOST_ROWS = 200_000
"""Rows of the sample that are looked at."""
MOST_TEXT = 64 * 2**20
"""Bytes of a JSON file within which a list of rows is looked for."""
_NOWHERE = "\0"


@dataclass(frozen=True)
class Inferred:
    """What was drafted.

    Attributes:
        text: of the module.
        drafted: what it says.
        told: what was found, as sentences.
    """

    text: str
    drafted: Drafted
    told: tuple[str, ...]


def infer(sample: Path, name: str, table: str, limits: ReadLimits) -> Inferred:
    """Draft a dataset from a sample.

    Args:
        sample: a CSV or JSON file, packed or not.
        name: of the dataset.
        table: of its table.
        limits: of the readers.

    Raises:
        RefusedFileError: the sample cannot be read.
    """
    written = _json(sample, limits) if _is_json(sample) else find_dialect(sample, limits)
    source = _with_suffix(written.source, sample.name)
    headers, rows, malformed = _rows(sample, written, limits)
    by_name = isinstance(source, Json) or bool(source.header)
    columns = draft_columns(headers, rows, by_name=by_name)
    names = (
        {column.name for column in columns} | {column.text_name for column in columns} | set(map(normalized, headers))
    )
    file_and_line = unused("source_file", names), unused("source_line", names)
    drafted = Drafted(name, table, sample.name, rows.height, source, tuple(columns), (), file_and_line)
    drafted, doubled = _tried(drafted, sample, limits)
    told = [*written.told]
    if doubled:
        told.append(
            f"{doubled:,} rows stand on the line of another one and would replace it, as no columns tell them apart: "
            "declare a key that does"
            + (', or put a column with system="record" into it.' if isinstance(source, Json) else ".")
        )
    if malformed:
        told.append(f"{malformed:,} rows are malformed; they would be rejected.")
    if rows.height == MOST_ROWS:
        told.append(f"Only the first {MOST_ROWS:,} rows were looked at.")
    return Inferred(module(drafted), drafted, tuple(told))


def _is_json(sample: Path) -> bool:
    return isinstance(format_of(sample.name, (Csv(), Json())), Json)


def _with_suffix(source: Csv | Json, name: str) -> Csv | Json:
    """The format, taking files named as the sample is."""
    if name.lower().endswith(source.suffixes):
        return source
    suffix = Path(name).suffix.lower()
    return replace(source, suffixes=(*source.suffixes, suffix)) if suffix else source


@dataclass(frozen=True)
class _JsonWritten:
    source: Json
    told: tuple[str, ...]


def _json(sample: Path, limits: ReadLimits) -> _JsonWritten:
    path = _path_of_rows(sample, limits)
    told = (f"The rows stand in {path}.",) if path else ()
    return _JsonWritten(Json(rows=path), told)


def _path_of_rows(sample: Path, limits: ReadLimits) -> str | None:
    """Where the longest list of objects stands, if the file is one object around it."""
    with unpacked(sample, limits) as raw:
        text = b""
        while len(text) <= MOST_TEXT and (piece := raw.read(2**20)):
            text += piece
    try:
        value = json.loads(text) if text.lstrip()[:1] == b"{" and len(text) <= MOST_TEXT else None
    except (ValueError, RecursionError):
        return None
    found: list[tuple[int, str]] = []

    def walk(inner: Any, path: Sequence[str]) -> None:
        if isinstance(inner, dict):
            for key, item in inner.items():
                if key and "." not in key:
                    walk(item, [*path, key])
        elif isinstance(inner, list) and inner and path and all(isinstance(item, dict) for item in inner):
            found.append((len(inner), ".".join(path)))

    walk(value, [])
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _rows(sample: Path, written: Written | _JsonWritten, limits: ReadLimits) -> tuple[list[str], pl.DataFrame, int]:
    """Headers, the first rows with their columns in that order, and how many records are malformed."""
    if isinstance(written, Written):
        headers = list(written.header)
        source: Csv | Json = written.by_position
        columns = [Column(description="", name=f"c{number}", type=str, nullable=True) for number in range(len(headers))]
    else:
        # The reader needs a column to look for; no name in a file is this one.
        headers, source = [], written.source
        columns = [Column(description="", name=_NOWHERE, type=str, nullable=True, optional=True)]
    frames, malformed, height = [], 0, 0
    for block in read_file(sample, sample.name, (source,), columns, limits=limits):
        frames.append(block.rows)
        malformed += len(block.malformed)
        height += block.rows.height
        if height >= MOST_ROWS:
            break
    rows = pl.concat(frames, how="diagonal").head(MOST_ROWS).with_columns(pl.all().fill_null(""))
    if isinstance(written, _JsonWritten):
        rows = rows.drop(_NOWHERE)
        headers = rows.columns
        if not headers:
            raise RefusedFileError("The file has no objects with names: there is nothing to learn from it.")
    return headers, rows, malformed


def _tried(drafted: Drafted, sample: Path, limits: ReadLimits) -> tuple[Drafted, int]:
    """The draft with its key, without whatever would reject a row of the sample; and how many rows have another one's key."""
    keyless = drafted
    while True:
        dataset = loaded(module(keyless), drafted.name)
        broken, typed = _judged(dataset, sample, limits)
        if not broken:
            break
        # What has a name here is a column that claims too much.
        columns = tuple(c.as_plain_text if {c.name, c.text_name} & broken else c for c in keyless.columns)
        if columns == keyless.columns:
            raise RefusedFileError(
                f"The sample breaks rules that were not drafted from it: {', '.join(sorted(broken))}."
            )
        keyless = replace(keyless, columns=columns)
    possible = [(column.name, column.type) for column in keyless.columns if not column.nullable]
    while key := find_key(possible, typed):
        keyed = replace(keyless, key=key)
        if not (broken := _judged(loaded(module(keyed), drafted.name), sample, limits)[0]):
            return keyed, 0
        if not broken & set(key):
            break
        possible = [(name, kind) for name, kind in possible if name not in broken & set(key)]
    return keyless, typed.height - typed.select(drafted.file_and_line).n_unique()


def _judged(dataset: Dataset, sample: Path, limits: ReadLimits) -> tuple[set[str], pl.DataFrame]:
    """Names of the columns (or rules) at which rows of the sample are rejected, and the rows' typed values."""
    broken: set[str] = set()
    frames, height = [], 0
    for block in read_rows(dataset, sample, sample.name, "new", limits):
        results = validate(dataset, block.rows.head(MOST_ROWS - height))
        broken |= {rule.column or rule.name for rule, _ in results.broken if rule.severity == "error"}
        frames.append(results.rows.select(column.name for column in dataset.staged_columns))
        height += block.rows.height
        if height >= MOST_ROWS:
            break
    # Staged text is canonical where equal values can be written in several ways: what it parses as is what a key compares.
    return broken, pl.concat(frames).select(parse(column) for column in dataset.staged_columns)


def loaded(text: str, name: str) -> Dataset:
    """The dataset that a module's text declares."""
    made = types.ModuleType(f"_drafted_{name}")
    sys.modules[made.__name__] = made  # Where the annotations of its row model are resolved.
    try:
        exec(compile(text, f"<draft of {name}>", "exec"), made.__dict__)  # noqa: S102 - our own text
        dataset: Dataset = made.dataset
        _ = dataset.rules
    finally:
        del sys.modules[made.__name__]
    return dataset
