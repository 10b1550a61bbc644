"""Raw files in a bucket: write-once by hash, under the same names as in the folder. Imported only where a setting names one.

What is read has a copy in the local folder, which `RawStore.sweep` removes once nobody asked for it for an hour.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mini_platform.landing.remote import Blocks, GoneError, Inbox, InboxError, ObjectError
from mini_platform.landing.store import RawStoreAwayError
from mini_platform.settings import InboxSettings, S3Settings

if TYPE_CHECKING:
    from mini_platform.landing.remote_s3 import S3


class _Place(Inbox):
    """A bucket whose settings are those of the raw store."""

    def setting(self, name: str) -> str:
        return f"MINI_PLATFORM_RAW_S3__{name}".upper()


@dataclass(frozen=True)
class RawBucket:
    """A prefix in a bucket that holds raw files.

    Every method raises RawStoreAwayError where the bucket cannot be used.

    Attributes:
        url: `s3://bucket/prefix`.
        settings: of the server.
    """

    url: str
    settings: S3Settings

    @cached_property
    def _s3(self) -> S3:
        from mini_platform.landing.remote_s3 import S3  # Brings botocore and aiohttp.

        return S3(_Place("", "raw", InboxSettings(url=self.url, **self.settings.model_dump())))

    def has(self, sha256: str) -> bool:
        """Whether it has the file of this hash."""
        with _away(self.url):
            try:
                self._s3.head(_name(sha256))
            except GoneError:
                return False
            return True

    def put(self, path: Path, sha256: str) -> None:
        """Keep a file, unless it is there."""
        if not self.has(sha256):
            with _away(self.url):
                self._s3.upload(path, _name(sha256))

    def fetch(self, sha256: str, target: Path) -> None:
        """Copy a file to a local path, if it is there and is what its name says."""
        with _away(self.url):
            try:
                file = self._s3.head(_name(sha256))
            except GoneError:
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".arriving-", dir=target.parent)
            copied = Path(name)
            try:
                digest = hashlib.sha256()
                stream = Blocks(self._s3, file, lambda: None)
                with os.fdopen(handle, "wb") as copy:
                    while block := stream.read():
                        digest.update(block)
                        copy.write(block)
                if digest.hexdigest() == sha256:
                    copied.rename(target)
            finally:
                copied.unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        """Remove a file, if it is there."""
        with _away(self.url):
            try:
                self._s3.remove(self._s3.head(_name(sha256)))
            except GoneError:
                return


@contextmanager
def _away(url: str) -> Iterator[None]:
    try:
        yield
    except InboxError as error:
        raise RawStoreAwayError(str(error)) from error
    except GoneError:
        raise
    except ObjectError as error:
        raise RawStoreAwayError(f"Raw files cannot be kept in {url}: {error}.") from error


def _name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"
