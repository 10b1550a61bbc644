"""Names of files: which count, and how one is shown that is not UTF-8."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

SETTLE_SECONDS = 1.0
"""A file that was written to less than this long ago may still grow and is left for the next look."""
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", "~")
"""Endings by which programs mark files that they have not finished."""


def unwanted(name: str, kind: str | None, suffixes: Sequence[str]) -> str | None:
    """Why a file does not count, by its name or by what else it is (`kind`); None if it does."""
    if name.startswith("."):
        return "its name starts with a dot"
    if name.lower().endswith(UNFINISHED):
        return "its name says that it is not finished"
    if kind is None and not name.lower().endswith(tuple(suffixes)):
        return f"its name ends in none of {' '.join(suffixes)}"
    return kind


def kind_of(mode: int) -> str | None:
    """What an entry of a folder is, where it is no regular file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):
        return "it is a link"
    return "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"


def display_name(name: str) -> str:
    r"""A file's name as text that Postgres can hold: bytes that are not UTF-8 as `\xff`.

    Backslashes before such an escape, or before what looks like one, are doubled: different names stay different.
    """
    doubled = re.sub(r"\\+(?=x[0-9a-f]{2}|[\udc80-\udcff])", lambda backslashes: 2 * backslashes[0], name)
    return os.fsencode(doubled).decode("utf-8", "backslashreplace")
