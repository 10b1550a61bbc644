"""The folder of the platform's state. It has raw files, secrets and the database, and only its owner can enter it."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = 0o700
"""Mode of the folder and of those in it."""


def make_home(home: Path) -> Path:
    """Make and return the folder; what stands in it, as from an earlier version, is closed to everybody but its owner."""
    home.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    for path in (home, *home.iterdir()):
        with suppress(OSError):  # It is somebody else's, or was removed since.
            mode = path.lstat().st_mode
            if mode & ~OWNER_ONLY & 0o777 and not stat.S_ISLNK(mode):
                path.chmod(mode & OWNER_ONLY)
    return home
