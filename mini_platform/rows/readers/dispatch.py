"""The reader of a file: chosen among the formats of a dataset by the file's name.

Here: that choice. Not here: what stands in a file; each format's reader validates it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_platform.declare.sources import Csv, Json
from mini_platform.rows.readers.csv import read_csv
from mini_platform.rows.readers.json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini_platform.declare.columns import Column
    from mini_platform.rows.readers import Block, ReadLimits

_PACKED = (".gz", ".zip")


def format_of(name: str, sources: Sequence[Csv | Json]) -> Csv | Json:
    """The first format one of whose suffixes ends the name, in upper or lower case, packed or not; else the first one."""
    folded = name.casefold()
    endings = (folded, *(folded.removesuffix(packed) for packed in _PACKED if folded.endswith(packed)))
    for source in sources:
        if any(ending.endswith(suffix.casefold()) for ending in endings for suffix in source.suffixes):
            return source
    return sources[0]


def read_file(
    path: Path, name: str, sources: Sequence[Csv | Json], columns: Sequence[Column], *, limits: ReadLimits
) -> Iterator[Block]:
    """Read a raw file in the format that its name tells.

    Args:
        path: the raw file, which has a name of the platform's own.
        name: the name under which it arrived.
        sources: the declared formats, at least one.
        columns: the declared columns.
        limits: what is taken before the file is refused or a record rejected.

    Yields:
        The records in the order of the file.

    Raises:
        RefusedFileError: the file cannot be taken as a whole.
    """
    source = format_of(name, sources)
    if isinstance(source, Json):
        yield from read_json(path, source, columns, limits=limits)
    else:
        yield from read_csv(path, source, columns, limits=limits)
