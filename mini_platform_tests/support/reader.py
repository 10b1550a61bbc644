"""A file as its reader gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mini_platform.rows.readers import Malformed

if TYPE_CHECKING:
    pass


class Read(NamedTuple):
    """All blocks of a file as one."""

    columns: list[str]
    rows: list[tuple[int, tuple[str, ...]]]
    malformed: list[Malformed]
    blocks: int


Reader = Callable[..., Read]
