"""Folders for Unix sockets: their paths are short, whatever the path of the project, and no other user can enter them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

PATH_BYTES = 90
"""Longest path of a folder. A socket's path may have 107 bytes on Linux and 103 on macOS; a name of up to 16 is added."""
CODE_SERVER_SOCKET = "code_server.sock"
"""Name of the socket of the code server that the supervisor runs, in the folder `socket` of its home."""
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
"""Paths without special characters, which not every program takes in the address of a socket."""


class SocketFolderError(RuntimeError):
    """The folder for a socket belongs to another user; the message is a sentence."""


def socket_folder(folder: Path) -> Path:
    """Make and return a private folder for sockets: this one, or one below /tmp if its path is too long or not plain.

    Raises:
        SocketFolderError: the folder below /tmp belongs to somebody else.
    """
    if not _is_suitable(folder, PATH_BYTES):
        name = f"mini-platform-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
        temporary = Path(tempfile.gettempdir())
        # The user's TMPDIR may be unusable for the same reasons.
        folder = (temporary if _is_suitable(temporary, PATH_BYTES // 2) else Path("/tmp")) / name  # noqa: S108 - 0700, and its owner is checked
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SocketFolderError(f"{folder}, the folder for a socket, belongs to another user: remove it.")
    folder.chmod(0o700)
    return folder


def _is_suitable(folder: Path, most_bytes: int) -> bool:
    return len(os.fsencode(folder)) <= most_bytes and PLAIN.fullmatch(str(folder)) is not None
