"""Bytes read as a JSON file, all blocks together. A row is its line, its declared cells, and its other cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mini_platform import Column, Json
from mini_platform.rows.readers import Malformed, ReadLimits
from mini_platform.rows.readers.json import BLOCK_BYTES, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class JsonRead(NamedTuple):
    """The rows of all blocks of a file."""

    rows: list[tuple[int, tuple[str, ...], dict[str, str]]]
    malformed: list[Malformed]
    blocks: int


def declared(names: Sequence[str], aliases: Mapping[str, tuple[str, ...]] | None = None) -> list[Column]:
    aliases = aliases or {}
    return [
        Column(name=name, type=str, nullable=True, description=name, aliases=aliases.get(name, ())) for name in names
    ]


def read_bytes(
    path: Path,
    data: bytes,
    names: Sequence[str] = ("a", "b"),
    *,
    aliases: Mapping[str, tuple[str, ...]] | None = None,
    rows: str | None = None,
    limits: ReadLimits | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> JsonRead:
    """Write the bytes to the path and read them."""
    path.write_bytes(data)
    columns = declared(names, aliases)
    result = JsonRead([], [], 0)
    for block in read_json(path, Json(rows=rows), columns, limits=limits or ReadLimits(), block_bytes=block_bytes):
        lines = block.lines.tolist()
        assert block.rows.columns[: len(names)] == list(names)
        assert len(lines) == len(block.rows)
        assert sum(block.rows.null_count().row(0)) == 0
        assert 0 < block.bytes_read <= len(data)
        extra = block.rows.columns[len(names) :]
        for line, row in zip(lines, block.rows.rows(), strict=True):
            beyond = zip(extra, row[len(names) :], strict=True)
            result.rows.append((line, row[: len(names)], {name: text for name, text in beyond if text}))
        result.malformed.extend(block.malformed)
        result = result._replace(blocks=result.blocks + 1)
    for records in (result.rows, [(one.line,) for one in result.malformed]):
        assert [record[0] for record in records] == sorted(record[0] for record in records)
    return result
