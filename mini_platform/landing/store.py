"""The raw store: bytes as they arrived, each file named by its SHA-256, written once and never changed."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mini_platform.faultpoints import reach

CHUNK = 2**20
LEFT_OVER_SECONDS = 3600.0
"""An unfinished copy that nobody wrote to for so long was left by a process that was killed."""


class NoRoomError(OSError):
    """The disk that raw files are kept on is full, or a quota is used up."""


@dataclass(frozen=True)
class RawStore:
    """A folder of raw files.

    Attributes:
        folder: made on the first write; files are spread over 256 subfolders by the first byte of their name.
    """

    folder: Path

    def path(self, sha256: str) -> Path:
        """Where the file of this hash is, or would be."""
        return self.folder / sha256[:2] / sha256

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Keep a copy of a stream, on disk for good when this returns. Returns its SHA-256 and its size in bytes.

        Raises:
            NoRoomError: there is no room for it.
            OSError: it cannot be kept for another reason. Nothing is left of it in either case.
        """
        try:
            return self._put(source)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = f"there is no room left in {self.folder}: files that arrive wait until there is"
            raise NoRoomError(error.errno, said) from error

    def sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for arriving in self.folder.glob(".arriving-*"):
            with suppress(FileNotFoundError):
                if time.time() - arriving.stat().st_mtime > LEFT_OVER_SECONDS:
                    arriving.unlink()

    def _put(self, source: BinaryIO) -> tuple[str, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(prefix=".arriving-", dir=self.folder)
        arriving = Path(name)
        try:
            with os.fdopen(handle, "wb") as copy:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    copy.write(chunk)
                    size += len(chunk)
                    reach("land.copying")
                copy.flush()
                os.fsync(copy.fileno())
            final = self.path(digest.hexdigest())
            if not final.exists():
                final.parent.mkdir(exist_ok=True)
                arriving.rename(final)
                _sync_folder(final.parent)
        finally:
            with suppress(FileNotFoundError):
                arriving.unlink()
        return digest.hexdigest(), size


def sha256_of(source: BinaryIO) -> str:
    """SHA-256 of a stream, read to its end."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
