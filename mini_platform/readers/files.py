"""A file of a dataset -> blocks of its rows: the format is chosen, what the platform gives is put in, drift is dealt with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from mini_platform.dataset import Csv, Json
from mini_platform.readers import Block, ReadLimits, RefusedFileError
from mini_platform.readers.csv import read_csv
from mini_platform.readers.json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mini_platform.dataset import Dataset

PULL = "pull:"
"""How the doors of pulled pages begin; the name of the source follows."""
_SHOWN = 10


def format_of(dataset: Dataset, name: str) -> Csv | Json:
    """The declared format of a file, by the ending of its name; the first one where none fits."""
    fitting = (source for source in dataset.sources if name.lower().endswith(source.suffixes))
    return next(fitting, dataset.sources[0])


def read_rows(dataset: Dataset, path: Path, name: str, door: str, limits: ReadLimits) -> Iterator[Block]:
    """Read a file of a dataset in bounded memory.

    Args:
        dataset: whose file.
        path: of the raw file.
        name: as it arrived.
        door: by which it came in.
        limits: of the reader.

    Yields:
        Blocks whose rows have the columns that are read or given and staged, in their declared order, then extra ones.

    Raises:
        RefusedFileError: it cannot be taken as a whole; it may come after blocks were given.
    """
    source = format_of(dataset, name)
    if isinstance(source, Json):
        blocks = read_json(path, source, dataset.read_columns, limits=limits)
    else:
        blocks = read_csv(path, source, dataset.read_columns, limits=limits)
    read = {column.name for column in dataset.read_columns}
    declared = [column for column in dataset.staged_columns if not column.derived]
    origin = door.removeprefix(PULL) if door.startswith(PULL) else source.name
    constants = {"file": pl.lit(name), "source": pl.lit(origin)}
    for block in blocks:
        extra = [column for column in block.rows.columns if column not in read]
        if extra and dataset.drift == "refuse":
            more = f" and {len(extra) - _SHOWN} more" if len(extra) > _SHOWN else ""
            # A file without a header has data in its place: nothing of it may be shown where personal data is protected.
            names = "" if dataset.is_protected else f": {', '.join(extra[:_SHOWN])}{more}"
            raise RefusedFileError(f"The file has {len(extra)} columns that the dataset does not declare{names}.")
        columns = [
            pl.col(column.name)
            if column.is_read
            else (
                pl.lit(pl.Series(block.lines).cast(pl.String))
                if column.given == "line"
                else constants[str(column.given)]
            ).alias(column.name)
            for column in declared
        ]
        kept = extra if dataset.drift == "rescue" else []
        yield (
            block
            if len(declared) == len(read) and len(kept) == len(extra)
            else replace(block, rows=block.rows.select(*columns, *kept))
        )
