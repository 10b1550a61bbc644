"""Names of files: which files are skipped, and how names that are not UTF-8 are shown."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

SETTLE_SECONDS = 1.0
"""A file written to less than this long ago may still grow and is left for the next check."""
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", "~")
"""Suffixes that mark unfinished files."""


def skip_reason(name: str, kind: str | None, suffixes: Sequence[str]) -> str | None:
    """Return why a file is skipped, by its name or its `kind`; None if it is not skipped."""
    if name.startswith("."):
        return "its name starts with a dot"
    if name.lower().endswith(UNFINISHED):
        return "its name says that it is not finished"
    if kind is None and not name.lower().endswith(tuple(suffixes)):
        return f"its name ends in none of {' '.join(suffixes)}"
    return kind


def kind_of(mode: int) -> str | None:
    """Return what an entry of a folder is, if it is not a regular file; None if it is."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):
        return "it is a link"
    return "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"


def display_name(name: str) -> str:
    r"""Return a file's name as text that Postgres can hold: bytes that are not UTF-8 as `\xff`.

    Backslashes before such an escape, or before text that looks like one, are doubled: different names stay different.
    """
    if name.isascii() and "\\" not in name:
        return name
    doubled = re.sub(r"\\+(?=x[0-9a-f]{2}|[\udc80-\udcff])", lambda backslashes: 2 * backslashes[0], name)
    return os.fsencode(doubled).decode("utf-8", "backslashreplace")
