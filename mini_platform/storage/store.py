"""The raw store: bytes as they arrived, each file named by its SHA-256, written once and never changed."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mini_platform.config.faultpoints import failpoint
from mini_platform.storage.errors import NoRoomError

if TYPE_CHECKING:
    from mini_platform.storage.raw_bucket import RawBucket

CHUNK = 2**20
LEFT_OVER_SECONDS = 3600.0
"""An unfinished copy that nobody wrote to for so long was left by a process that was killed; a copy of a file that is kept in a
bucket, and that nobody asked for for so long, is not needed."""


@dataclass(frozen=True)
class RawStore:
    """A folder of raw files, or a bucket of them of which the folder holds copies.

    Attributes:
        folder: made on the first write; files are spread over 256 subfolders by the first byte of their name.
        bucket: where they are kept for good; None: in the folder.
    """

    folder: Path
    bucket: RawBucket | None = None

    def path(self, sha256: str) -> Path:
        """Where the file of this hash is, or would be; copied there first, if it is in a bucket.

        Raises:
            RawStoreAwayError: the bucket cannot be used.
        """
        path = self._local(sha256)
        if self.bucket is not None:
            try:
                os.utime(path)  # It is not removed for another while.
            except FileNotFoundError:
                self.copy(sha256, RawStore(self.folder))
        return path

    def _local(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def place(self, sha256: str) -> str:
        """Where the file of this hash is kept, for people."""
        return str(self._local(sha256)) if self.bucket is None else f"{self.bucket.url}/{sha256[:2]}/{sha256}"

    def size(self, sha256: str) -> int | None:
        """Bytes of the file of this hash; None: there is none."""
        if self.bucket is not None:
            return self.bucket.size(sha256)
        with suppress(FileNotFoundError):
            return self._local(sha256).stat().st_size
        return None

    def copy(self, sha256: str, target: RawStore) -> bool:
        """Bring the file of this hash into another store; False: it is not there, or not what its name says."""
        try:
            with target.receive() as arriving:
                for piece in self._pieces(sha256):
                    arriving.write(piece)
                # What is damaged bears another name there, for which nobody asks.
                return arriving.keep()[0] == sha256
        except FileNotFoundError:
            return False

    def is_whole(self, sha256: str) -> bool:
        """Whether the file of this hash is there and is what its name says; all of it is read, from where it is kept."""
        digest = hashlib.sha256()
        try:
            for piece in self._pieces(sha256):
                digest.update(piece)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    def _pieces(self, sha256: str) -> Iterator[bytes]:
        if self.bucket is not None:
            yield from self.bucket.pieces(sha256)
            return
        with self._local(sha256).open("rb") as source:
            while chunk := source.read(CHUNK):
                yield chunk

    def remove(self, sha256: str) -> None:
        """Remove the file of this hash, if there is one."""
        if self.bucket is not None:
            self.bucket.remove(sha256)
        self._local(sha256).unlink(missing_ok=True)

    def left_over(self) -> Iterator[str]:
        """The hashes of files that arrived so long ago that whoever landed them is done; none of a bucket's."""
        for path in self.folder.glob("??/*") if self.bucket is None else ():
            if LEFT_OVER_SECONDS < _age(path) < math.inf:
                yield path.name

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Keep a copy of a stream, on disk for good when this returns. Returns its SHA-256 and its size in bytes.

        Raises:
            NoRoomError: there is no room for it.
            OSError: it cannot be kept for another reason. Nothing is left of it in either case.
        """
        with self.receive() as arriving:
            while chunk := source.read(CHUNK):
                arriving.write(chunk)
            return arriving.keep()

    @contextmanager
    def receive(self) -> Iterator[Arriving]:
        """A file that is written piece by piece. Where the body ends without `keep`, nothing is left of it.

        Raises:
            NoRoomError: there is no room for it.
            OSError: it cannot be kept for another reason. Nothing is left of it in either case.
        """
        path = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".arriving-", dir=self.folder)
            path = Path(name)
            with os.fdopen(handle, "wb") as copy:
                yield Arriving(self, copy, path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = f"there is no room left in {self.folder}: files that arrive wait until there is"
            raise NoRoomError(error.errno, said) from error
        finally:
            if path is not None:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished, and copies of what is in a bucket that nobody asked for."""
        copies = () if self.bucket is None else self.folder.glob("??/*")
        for arriving in chain(self.folder.glob(".arriving-*"), copies):
            with suppress(FileNotFoundError):
                if time.time() - arriving.stat().st_mtime > LEFT_OVER_SECONDS:
                    arriving.unlink()


class Arriving:
    """A file of the raw store whose bytes are coming in, hashed as they are written.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, store: RawStore, copy: BinaryIO, path: Path) -> None:
        """Begin an empty one; made by `RawStore.receive`."""
        self.size = 0
        self._store, self._copy, self._path = store, copy, path
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes."""
        self._digest.update(data)
        self._copy.write(data)
        self.size += len(data)
        failpoint("land.copying")

    def keep(self) -> tuple[str, int]:
        """Make it a raw file, on disk for good when this returns. Returns its SHA-256 and its size in bytes."""
        final = self._store._local(self.sha256)
        if self._store.bucket is not None:
            self._copy.flush()
            self._store.bucket.put(self._path, self.sha256)
        # One that nobody may need any more is removed when it is old: it is written anew, and is young again.
        if _age(final) > LEFT_OVER_SECONDS / 2:
            self._copy.flush()
            os.fsync(self._copy.fileno())
            final.parent.mkdir(exist_ok=True)
            self._path.rename(final)
            _sync_folder(final.parent)
        return self.sha256, self.size


def sha256_of(source: BinaryIO) -> str:
    """SHA-256 of a stream, read to its end."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _age(path: Path) -> float:
    """Seconds since a file was written; infinite if there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
