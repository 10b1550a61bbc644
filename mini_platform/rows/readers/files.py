"""A file of a dataset -> blocks of its rows: format, columns that the platform fills in, undeclared columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mini_platform.declare.columns import normalized
from mini_platform.declare.sources import ADOPT_CHANNEL, API_CHANNEL, Json
from mini_platform.rows.protection import MASK
from mini_platform.rows.readers import Block, ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform.rows.readers.exports import EXTRA, HOW_TO_EXPORT, MARKS
from mini_platform.rows.readers.header import join_names
from mini_platform.rows.readers.json import read_json
from mini_platform.rows.readers.json_rows import merged_objects
from mini_platform.rows.spreadsheets import unescape_formula

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.declare.dataset import Dataset


def read_rows(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits) -> Iterator[Block]:
    """Read a file of a dataset in bounded memory.

    Columns of the file with the name of a column that the platform fills in or derives are left out; only a source is used, and
    in an export what is in the key.

    Args:
        dataset: dataset that the file belongs to.
        path: path of the raw file.
        name: name under which the file arrived.
        channel: channel by which the file arrived.
        limits: limits of the reader.

    Yields:
        Blocks with the columns that are staged, read or filled in, in their declared order, then extra ones.

    Raises:
        RefusedFileError: the file is refused as a whole; it may be raised after blocks were yielded.
    """
    try:
        yield from _rows(dataset, path, name, channel, limits)
    except RefusedFileError as refusal:
        raise (RefusedFileError(refusal.sentence) if dataset.is_personal else refusal) from refusal


def _rows(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits) -> Iterator[Block]:
    read = {column.name for column in dataset.read_columns}
    columns = [*(column for column in dataset.staged_columns if not column.derived), *dataset.adopted_columns]
    if channel == ADOPT_CHANNEL:
        yield from _adopted_rows(dataset, path, channel, columns, limits)
        return
    own = {normalized(column.name): column for column in dataset.columns if not column.is_read}
    only_read = len(columns) == len(read)
    api_source = channel.removeprefix(API_CHANNEL) if channel.startswith(API_CHANNEL) else None
    constants = {"file": name, "source": api_source or format_of(name, dataset.sources).name}
    for block in read_file(path, name, dataset.sources, dataset.read_columns, limits=limits):
        if block.is_export:
            block = _without_export_columns(dataset, block)  # noqa: PLW2901 - it is the same block
        undeclared = [column for column in block.rows.columns if column not in read]
        texts = {own[key].name: block.rows[column] for column in undeclared if (key := normalized(column)) in own}
        extra = [column for column in undeclared if normalized(column) not in own]
        unexpected = tuple(column for column in extra if not (block.is_export and column == EXTRA))
        if unexpected and dataset.unexpected_columns == "refuse":
            raise RefusedFileError(
                "The file has columns that the dataset does not declare", f": {join_names(unexpected)}."
            )
        if only_read and not undeclared and not block.is_export:
            yield block
            continue
        places = {"line": block.lines, "record": np.ones_like(block.lines) if block.records is None else block.records}
        filled = [
            _filled_in(dataset, column, texts, block, places.get(str(column.system), constants.get(str(column.system))))
            for column in columns
            if column.system and column.is_staged
        ]
        not_yet_known = pl.repeat(None, block.rows.height, dtype=pl.String, eager=True)
        filled += [not_yet_known.alias(column.name) for column in dataset.adopted_columns]
        names = [*(column.name for column in columns), *(extra if dataset.unexpected_columns == "keep" else ())]
        rows = block.rows.drop(column for column in undeclared if column not in extra).with_columns(filled)
        yield replace(block, rows=rows.select(names), extra=unexpected, derived=_derived(dataset, texts, block))


def _adopted_rows(
    dataset: Dataset, path: Path, channel: str, columns: Sequence[Column], limits: ReadLimits
) -> Iterator[Block]:
    """Read rows of an adopted table: objects with a value for each column, also for those that the platform fills in."""
    as_empty = [pl.col(column.name).replace("", None) for column in dataset.adopted_columns]
    as_empty += [pl.col(column.name).replace("", channel) for column in columns if column.system == "source"]
    for block in read_json(path, Json(), [replace(column, aliases=()) for column in columns], limits=limits):
        yield replace(block, rows=block.rows.with_columns(as_empty))


def _filled_in(
    dataset: Dataset, column: Column, texts: Mapping[str, pl.Series], block: Block, value: np.ndarray | str | None
) -> pl.Series:
    """Return the text of a column that the platform fills in: a value for each row, or one for all."""
    rows = block.rows.height
    is_constant = isinstance(value, str)
    default = pl.repeat(value, rows, dtype=pl.String, eager=True) if is_constant else pl.Series(value).cast(pl.String)
    default = default.alias(column.name)
    if column.name not in texts or not (column.system == "source" or (block.is_export and column.name in dataset.key)):
        return default
    cells = texts[column.name]
    return cells.zip_with(cells.str.contains(r"\S" if is_constant else "^[0-9]{1,18}$"), default).alias(column.name)


def _derived(dataset: Dataset, texts: Mapping[str, pl.Series], block: Block) -> pl.DataFrame | None:
    """Return the derived columns of an export, as text."""
    if not block.is_export:
        return None
    nothing = pl.repeat("", block.rows.height, dtype=pl.String, eager=True)
    return pl.DataFrame([texts.get(c.name, nothing).alias(c.name) for c in dataset.columns if c.derived])


def _without_export_columns(dataset: Dataset, block: Block) -> Block:
    """Return a block of an export with the original texts, and `_extra` as the only column of the platform.

    Raises:
        RefusedFileError: personal data is masked in it.
    """
    rows = block.rows.drop(MARKS)
    if block.extra_as_json is None:  # It is CSV, where text was escaped for spreadsheet programs.
        rows = rows.with_columns(unescape_formula(pl.col(pl.String)))
    masked = [
        c.name for c in dataset.read_columns if c.personal and c.name in rows.columns and (rows[c.name] == MASK).any()
    ]
    if masked:
        raise RefusedFileError(
            f"The file is an export in which personal data is masked ({', '.join(masked)}), and loading it would replace it by "
            f"{MASK}. {HOW_TO_EXPORT}"
        )

    def extra_as_json(names: Sequence[str]) -> pl.Series:
        others = [name for name in names if name != EXTRA]
        if not others:
            objects = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
        elif block.extra_as_json:
            objects = block.extra_as_json(others)
        else:
            objects = rows.select(pl.struct(others).struct.json_encode()).to_series()
        return merged_objects(rows[EXTRA], objects) if EXTRA in names else objects

    optional = {column.name for column in dataset.read_columns if not column.stored}
    missing_columns = tuple(name for name in block.missing_columns if name not in optional)
    return replace(block, rows=rows, extra_as_json=extra_as_json, missing_columns=missing_columns)
