"""A file of a dataset -> blocks of its rows: format, columns that the platform fills in, undeclared columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mini_platform.declare.sources import ADOPT_CHANNEL, API_CHANNEL, Json
from mini_platform.rows.readers import Block, ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform.rows.readers.exports import strip_export_columns
from mini_platform.rows.readers.header import join_names
from mini_platform.rows.readers.json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.declare.dataset import Dataset


def read_rows(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits) -> Iterator[Block]:
    """Read a file of a dataset in bounded memory.

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
    only_read = len(columns) == len(read)
    api_source = channel.removeprefix(API_CHANNEL) if channel.startswith(API_CHANNEL) else None
    constants = {"file": name, "source": api_source or format_of(name, dataset.sources).name}
    not_yet_known = pl.lit(None, pl.String)
    for block in read_file(path, name, dataset.sources, dataset.read_columns, limits=limits):
        extra = [column for column in block.rows.columns if column not in read]
        block, extra = strip_export_columns(dataset, block, extra)  # noqa: PLW2901 - it is the same block
        if extra and dataset.unexpected_columns == "refuse":
            raise RefusedFileError("The file has columns that the dataset does not declare", f": {join_names(extra)}.")
        if only_read and not extra:
            yield block
            continue
        places = {"line": block.lines, "record": np.ones_like(block.lines) if block.records is None else block.records}
        system_columns = {
            column.name: pl.Series(places[column.system]).cast(pl.String)
            if column.system in places
            else pl.lit(constants[column.system])
            if column.system in constants
            else not_yet_known
            for column in columns
            if column.system
        }
        unambiguous, extra_names = (
            _rename_clashes(block, extra, system_columns.keys())
            if dataset.unexpected_columns == "keep"
            else (block, [])
        )
        names = [*(column.name for column in columns), *extra_names]
        yield replace(
            unambiguous, rows=unambiguous.rows.with_columns(**system_columns).select(names), extra=tuple(extra)
        )


def _adopted_rows(
    dataset: Dataset, path: Path, channel: str, columns: Sequence[Column], limits: ReadLimits
) -> Iterator[Block]:
    """Read rows of an adopted table: objects with a value for each column, also for those that the platform fills in."""
    as_empty = [pl.col(column.name).replace("", None) for column in dataset.adopted_columns]
    as_empty += [pl.col(column.name).replace("", channel) for column in columns if column.system == "source"]
    for block in read_json(path, Json(), [replace(column, aliases=()) for column in columns], limits=limits):
        yield replace(block, rows=block.rows.with_columns(as_empty))


def _rename_clashes(block: Block, extra: list[str], system_names: Set[str]) -> tuple[Block, list[str]]:
    """Return the block with extra columns renamed that have the name of a system column, and their names.

    Their JSON has the names of the file.
    """
    if not (clashes := system_names & set(extra)):
        return block, extra
    new_names = {name: f"{name}\0" if name in clashes else name for name in extra}  # No file has such a name.
    rows = block.rows
    extra_as_json = block.extra_as_json or (lambda: rows.select(pl.struct(extra).struct.json_encode()).to_series())
    return replace(block, rows=rows.rename(new_names), extra_as_json=extra_as_json), list(new_names.values())
