"""Files as their reader returns them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mini_platform.rows.readers import Malformed


class Read(NamedTuple):
    """Return all blocks of a file as one."""

    columns: list[str]
    rows: list[tuple[int, tuple[str, ...]]]
    malformed: list[Malformed]
    blocks: int


Reader = Callable[..., Read]
