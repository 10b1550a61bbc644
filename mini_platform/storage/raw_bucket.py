"""Raw files in a bucket: write-once by hash, under the same names as in the folder. Imported only if a setting names a bucket.

Files that are read have a copy in the local folder, which `RawStore.sweep` removes when it was not used for an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mini_platform.config.extras import require
from mini_platform.config.sections import InboxSettings, S3Settings
from mini_platform.storage.errors import GoneError, InboxError, ObjectError, RawStoreAwayError
from mini_platform.storage.remote import Blocks, Inbox

if TYPE_CHECKING:
    from mini_platform.storage.remote_s3 import S3


class _RawStoreBucket(Inbox):
    """A bucket with the settings of the raw store."""

    def setting(self, name: str) -> str:
        return f"MINI_PLATFORM_RAW_S3__{name}".upper()


@dataclass(frozen=True)
class RawBucket:
    """A prefix in a bucket that holds raw files.

    Every method raises RawStoreAwayError if the bucket cannot be used.

    Attributes:
        url: `s3://bucket/prefix`.
        settings: settings of the server.
    """

    url: str
    settings: S3Settings

    @cached_property
    def _s3(self) -> S3:
        require("s3", "MINI_PLATFORM_RAW_STORE", RawStoreAwayError)
        from mini_platform.storage.remote_s3 import S3  # Imports botocore and aiohttp.

        return S3(_RawStoreBucket("", "raw", InboxSettings(url=self.url, **self.settings.model_dump())))

    def size(self, sha256: str) -> int | None:
        """Return the size in bytes of the file with this hash; None if there is none."""
        try:
            with _translate_errors(self.url):
                return self._s3.find(_name(sha256)).size
        except FileNotFoundError:
            return None

    def put(self, path: Path, sha256: str) -> None:
        """Store a file, unless it exists."""
        if self.size(sha256) is None:
            with _translate_errors(self.url):
                self._s3.upload(path, _name(sha256))

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the bytes of the file with this hash, in bounded memory.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with _translate_errors(self.url):
            stream = Blocks(self._s3, self._s3.find(_name(sha256)))
            while block := stream.read():
                yield block

    def remove(self, sha256: str) -> None:
        """Remove the file with this hash, if there is one."""
        with suppress(FileNotFoundError), _translate_errors(self.url):
            self._s3.remove(self._s3.find(_name(sha256)))


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Raise errors of the bucket as errors of a raw store."""
    try:
        yield
    except GoneError as error:
        raise FileNotFoundError from error
    except InboxError as error:
        raise RawStoreAwayError(str(error)) from error
    except ObjectError as error:
        raise RawStoreAwayError(f"Raw files cannot be kept in {url}: {error}.") from error


def _name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"
