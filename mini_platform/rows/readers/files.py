"""A file of a dataset -> blocks of its rows: format, columns that the platform fills in, columns that nobody declared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mini_platform.declare.sources import API_CHANNEL
from mini_platform.rows.readers import Block, ReadLimits, RefusedFileError
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform.rows.readers.exports import as_exported
from mini_platform.rows.readers.header import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from mini_platform.declare.dataset import Dataset


def read_rows(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits) -> Iterator[Block]:
    """Read a file of a dataset in bounded memory.

    Args:
        dataset: whose file.
        path: of the raw file.
        name: as it arrived.
        channel: by which it came in.
        limits: of the reader.

    Yields:
        Blocks whose rows have the columns that are read or given and staged, in their declared order, then extra ones.

    Raises:
        RefusedFileError: it cannot be taken as a whole; it may come after blocks were given.
    """
    try:
        yield from _rows(dataset, path, name, channel, limits)
    except RefusedFileError as refusal:
        raise (RefusedFileError(refusal.sentence) if dataset.is_personal else refusal) from refusal


def _rows(dataset: Dataset, path: Path, name: str, channel: str, limits: ReadLimits) -> Iterator[Block]:
    read = {column.name for column in dataset.read_columns}
    columns = [column for column in dataset.staged_columns if not column.derived]
    as_read = len(columns) == len(read)
    api_source = channel.removeprefix(API_CHANNEL) if channel.startswith(API_CHANNEL) else None
    constants = {"file": name, "source": api_source or format_of(name, dataset.sources).name}
    for block in read_file(path, name, dataset.sources, dataset.read_columns, limits=limits):
        extra = [column for column in block.rows.columns if column not in read]
        block, extra = as_exported(dataset, block, extra)  # noqa: PLW2901 - it is the same block
        if extra and dataset.unexpected_columns == "refuse":
            raise RefusedFileError("The file has columns that the dataset does not declare", f": {listed(extra)}.")
        if as_read and not extra:
            yield block
            continue
        places = {"line": block.lines, "record": np.ones_like(block.lines) if block.records is None else block.records}
        given = {
            column.name: pl.Series(places[column.system]).cast(pl.String)
            if column.system in places
            else pl.lit(constants[str(column.system)])
            for column in columns
            if column.system
        }
        told, kept = _apart(block, extra, given.keys()) if dataset.unexpected_columns == "keep" else (block, [])
        names = [*(column.name for column in columns), *kept]
        yield replace(told, rows=told.rows.with_columns(**given).select(names), extra=tuple(extra))


def _apart(block: Block, extra: list[str], given: Set[str]) -> tuple[Block, list[str]]:
    """The block with extra columns that no given one is called like, and their names; their JSON has those of the file."""
    if not (doubled := given & set(extra)):
        return block, extra
    apart = {name: f"{name}\0" if name in doubled else name for name in extra}  # No file has such a name.
    rows = block.rows
    extra_as_json = block.extra_as_json or (lambda: rows.select(pl.struct(extra).struct.json_encode()).to_series())
    return replace(block, rows=rows.rename(apart), extra_as_json=extra_as_json), list(apart.values())
