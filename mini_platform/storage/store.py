"""The raw store: files as they arrived, each named by its SHA-256, written once and never changed."""

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
from mini_platform.config.home import OWNER_ONLY
from mini_platform.storage.errors import NoRoomError

if TYPE_CHECKING:
    from mini_platform.storage.raw_bucket import RawBucket

CHUNK = 2**20
LEFT_OVER_SECONDS = 3600.0
"""Age after which a file in the folder is removed: an unfinished copy, left by a process that was killed, counted from the last
write; a copy of a file in a bucket, counted from its last use."""


@dataclass(frozen=True)
class RawStore:
    """A folder of raw files, or a bucket of them of which the folder holds copies.

    Attributes:
        folder: folder, created on the first write; files are spread over 256 subfolders by the first byte of their name.
        bucket: bucket with the files; None if they are in the folder.
    """

    folder: Path
    bucket: RawBucket | None = None

    def path(self, sha256: str) -> Path:
        """Return the local path of the file with this hash, which need not exist; it is copied there first from a bucket.

        Raises:
            RawStoreAwayError: the bucket cannot be used.
        """
        path = self._local(sha256)
        if self.bucket is not None:
            try:
                os.utime(path)  # Marks it as used, so that `sweep` does not remove it.
            except FileNotFoundError:
                self.copy(sha256, RawStore(self.folder))
        return path

    def _local(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def place(self, sha256: str) -> str:
        """Return where the file with this hash is stored, for people."""
        return str(self._local(sha256)) if self.bucket is None else f"{self.bucket.url}/{sha256[:2]}/{sha256}"

    def size(self, sha256: str) -> int | None:
        """Return the size in bytes of the file with this hash; None if there is none."""
        if self.bucket is not None:
            return self.bucket.size(sha256)
        with suppress(FileNotFoundError):
            return self._local(sha256).stat().st_size
        return None

    def copy(self, sha256: str, target: RawStore) -> bool:
        """Copy the file with this hash to another store; return False if it is missing or does not match its hash."""
        try:
            with target.receive() as arriving:
                for piece in self._pieces(sha256):
                    arriving.write(piece)
                # A damaged file gets the name of another hash there, which nothing refers to.
                return arriving.keep()[0] == sha256
        except FileNotFoundError:
            return False

    def is_whole(self, sha256: str) -> bool:
        """Return True if the file with this hash exists and matches it; all of it is read, from the bucket if there is one."""
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
        """Remove the file with this hash, if there is one."""
        if self.bucket is not None:
            self.bucket.remove(sha256)
        self._local(sha256).unlink(missing_ok=True)

    def left_over(self) -> Iterator[str]:
        """Yield the hashes of files old enough that landing them has ended; none if there is a bucket."""
        for path in self.folder.glob("??/*") if self.bucket is None else ():
            if LEFT_OVER_SECONDS < _age(path) < math.inf:
                yield path.name

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Store a copy of a stream durably. Return its SHA-256 and its size in bytes.

        Raises:
            NoRoomError: there is no space for it.
            OSError: it cannot be stored for another reason. In either case nothing remains of it.
        """
        with self.receive() as arriving:
            while chunk := source.read(CHUNK):
                arriving.write(chunk)
            return arriving.keep()

    @contextmanager
    def receive(self) -> Iterator[Arriving]:
        """Open a file that is written piece by piece. If the body ends without `keep`, nothing remains of it.

        Raises:
            NoRoomError: there is no space for it.
            OSError: it cannot be stored for another reason. In either case nothing remains of it.
        """
        path = None
        try:
            self.folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".arriving-", dir=self.folder)
            path = Path(name)
            with os.fdopen(handle, "wb") as copy:
                yield Arriving(self, copy, path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = f"there is no space left in {self.folder}: new files wait until there is"
            raise NoRoomError(error.errno, message) from error
        finally:
            if path is not None:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished copies of killed processes, and unused local copies of files in a bucket."""
        copies = () if self.bucket is None else self.folder.glob("??/*")
        for arriving in chain(self.folder.glob(".arriving-*"), copies):
            with suppress(FileNotFoundError):
                if time.time() - arriving.stat().st_mtime > LEFT_OVER_SECONDS:
                    arriving.unlink()


class Arriving:
    """A file that is being written to the raw store, hashed on the way.

    Attributes:
        size: number of bytes so far.
    """

    def __init__(self, store: RawStore, copy: BinaryIO, path: Path) -> None:
        """Start an empty file; created by `RawStore.receive`."""
        self.size = 0
        self._store, self._copy, self._path = store, copy, path
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes."""
        self._digest.update(data)
        self._copy.write(data)
        self.size += len(data)
        failpoint("land.copying")

    def keep(self) -> tuple[str, int]:
        """Turn it into a durable raw file. Return its SHA-256 and its size in bytes."""
        final = self._store._local(self.sha256)
        if self._store.bucket is not None:
            self._copy.flush()
            self._store.bucket.put(self._path, self.sha256)
        # An existing file of the same hash is kept if it is young. An old one may be about to be removed as unused, so it is
        # replaced by this one, which is young again.
        if _age(final) > LEFT_OVER_SECONDS / 2:
            self._copy.flush()
            os.fsync(self._copy.fileno())
            final.parent.mkdir(exist_ok=True)
            self._path.rename(final)
            _sync_folder(final.parent)
        return self.sha256, self.size


def sha256_of(source: BinaryIO) -> str:
    """Return the SHA-256 of a stream, read to its end."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _age(path: Path) -> float:
    """Return the seconds since a file was written; infinite if there is none."""
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
