"""Fixtures of the readers' tests: read bytes as a CSV file, and flatten what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from mini_platform import Column, Csv
from mini_platform.rows.readers import ReadLimits
from mini_platform.rows.readers.csv import BLOCK_BYTES, read_csv
from mini_platform_tests.support.reader import Read, Reader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A function that reads bytes with declared columns `columns`."""
    path: Path = tmp_path_factory.mktemp("readers") / "file"

    def read_bytes(
        data: bytes,
        columns: Sequence[str] = ("a", "b"),
        *,
        source: Csv | None = None,
        limits: ReadLimits | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> Read:
        path.write_bytes(data)
        declared = [Column(name=name, type=str, nullable=True, description=name) for name in columns]
        blocks = list(read_csv(path, source or Csv(), declared, limits=limits or ReadLimits(), block_bytes=block_bytes))
        for block in blocks:
            assert len(block.lines) == len(block.rows)
            assert block.lines.tolist() == sorted(block.lines.tolist())
            assert [one.line for one in block.malformed] == sorted(one.line for one in block.malformed)
            assert sum(block.rows.null_count().row(0)) == 0
            assert 0 < block.bytes_read <= len(data)
        return Read(
            blocks[0].rows.columns,
            [pair for block in blocks for pair in zip(block.lines.tolist(), block.rows.rows(), strict=True)],
            [one for block in blocks for one in block.malformed],
            len(blocks),
        )

    return read_bytes
