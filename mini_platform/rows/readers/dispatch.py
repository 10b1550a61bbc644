"""The choice of a file's reader among the formats of a dataset, by the file's name.

Here: that choice. Not here: the content of a file, which each format's reader checks.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from mini_platform.declare.sources import Csv, Json
from mini_platform.rows.readers import RefusedFileError
from mini_platform.rows.readers.csv import read_csv
from mini_platform.rows.readers.decode import utf8_pieces
from mini_platform.rows.readers.exports import is_export
from mini_platform.rows.readers.json import read_json
from mini_platform.rows.readers.unpack import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.rows.readers import Block, ReadLimits

_PACKED = (".gz", ".zip")
_HEAD_BYTES = 2**16


def format_of(name: str, sources: Sequence[Csv | Json]) -> Csv | Json:
    """Return the first format with a suffix that ends the name, ignoring case and packing; the first format if none does."""
    folded = name.casefold()
    endings = (folded, *(folded.removesuffix(packed) for packed in _PACKED if folded.endswith(packed)))
    for source in sources:
        if any(ending.endswith(suffix.casefold()) for ending in endings for suffix in source.suffixes):
            return source
    return sources[0]


def read_file(
    path: Path, name: str, sources: Sequence[Csv | Json], columns: Sequence[Column], *, limits: ReadLimits
) -> Iterator[Block]:
    """Read a raw file in the format that its name indicates.

    Args:
        path: the raw file, named by the platform.
        name: the name under which it arrived.
        sources: the declared formats, at least one.
        columns: the declared columns.
        limits: limits beyond which the file is refused or a record rejected.

    Yields:
        The records in the order of the file.

    Raises:
        RefusedFileError: the file is refused as a whole.
    """
    source = format_of(name, sources)
    if isinstance(source, Json):
        yield from read_json(path, source, columns, limits=limits)
    else:
        yield from read_csv(path, _dialect(path, source, columns, limits), columns, limits=limits)


def _dialect(path: Path, source: Csv, columns: Sequence[Column], limits: ReadLimits) -> Csv:
    """Return the format of a CSV file: the standard one if it is an export, whatever the dataset declares."""
    standard = Csv(name=source.name, suffixes=source.suffixes)
    if source == standard:
        return source
    try:
        with unpacked(path, limits) as raw:
            head = next(utf8_pieces(raw, None, _HEAD_BYTES), b"")
    except RefusedFileError:  # The reader will say why.
        return source
    header = next(csv.reader(head.decode().splitlines()[:1]), [])
    return standard if is_export(header, columns) else source
