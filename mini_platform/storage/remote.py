"""Remote inboxes: listed in pages, read by ranges, cleaned up. One class for each kind of URL.

Here: the common interface, retries and their pauses. Not here: the protocols (`remote_s3.py`, `remote_sftp.py`,
`remote_folder.py`) and the choice among them (`connect.py`), the ledger (`landing/inboxes.py`).

A file is read in blocks, each requested by its offset and only if the file is unchanged since it was listed: after a dropped
connection, reading resumes with the interrupted block.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import SplitResult, unquote

import tenacity

from mini_platform.config.sections import InboxSettings, split_address
from mini_platform.storage.errors import ChangedError, TransientInboxError

T = TypeVar("T")

BLOCK_BYTES = 4 * 2**20
PAGE = 1000
"""Most names in one page of a listing."""
TRIES = 4
"""Attempts of one request before the inbox is paused for a while."""
REQUEST_SECONDS = 120.0
"""Timeout of one request: anything slower than 35 kB/s is treated as dead."""
SILENT_SECONDS = 10.0
"""Timeout of a server that sends nothing."""
LONGEST_PAUSE = 8.0
ARCHIVE_FOLDERS = ("processed", "quarantine")
"""Folders in an inbox to which processed files are moved: loaded ones, refused ones."""


@dataclass(frozen=True)
class RemoteObject:
    """A file in an inbox.

    Attributes:
        key: name within the inbox, in the bytes of the server; pages are ordered by these bytes.
        signature: text that changes whenever the file does.
        size: size in bytes.
        skip_reason: why the file is skipped, if the server's listing shows it: a folder, a link.
    """

    key: bytes
    signature: str
    size: int
    skip_reason: str | None = None


class Remote(Protocol):
    """A connection to an inbox. Any of its methods may be called from several threads.

    All methods raise InboxError if the inbox cannot be used, and TransientInboxError if a retry may help; those with a file
    raise ObjectError, ChangedError or GoneError if only that file cannot be used.

    Attributes:
        appears_whole: True if a file is only listed once it is complete, so that it need not be checked for growth.
    """

    appears_whole: bool

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """Yield pages of the files after a name, in order of names, each with the name of its end; `b""` for the last page."""

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """Return `size` bytes of a file, all of them from the file as it was listed."""

    def move(self, file: RemoteObject, target: str) -> None:
        """Move a file to another name below the inbox, unless it changed since it was listed."""

    def write(self, source: BinaryIO, target: str) -> None:
        """Write a small file below the inbox, replacing an existing one."""

    def remove(self, file: RemoteObject) -> None:
        """Remove a file, unless it changed since it was listed."""

    def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True)
class Inbox:
    """A remote inbox of a dataset.

    Attributes:
        dataset: name of the dataset.
        name: name of the inbox, as in its setting; in the ledger it prefixes the names of its files.
        settings: location, credentials, and what happens to loaded files.
    """

    dataset: str
    name: str
    settings: InboxSettings = field(repr=False)

    @property
    def channel(self) -> str:
        """Channel of its files, for the ledger."""
        return f"inbox:{self.name}"

    @property
    def url(self) -> str:
        """URL of the inbox."""
        return self.settings.url or ""

    def setting(self, name: str) -> str:
        """Return the full name of a setting of the inbox, for messages."""
        key = self.dataset if self.name == self.scheme else f"{self.dataset}_{self.name}"
        return f"MINI_PLATFORM_INBOX__{key}__{name}".upper()

    @property
    def parts(self) -> SplitResult:
        """Parts of the URL."""
        return split_address(self.url)

    @property
    def scheme(self) -> str:
        """Scheme of the URL."""
        return self.parts.scheme

    @property
    def host(self) -> str:
        """Host or bucket."""
        return self.parts.hostname or "" if self.scheme == "sftp" else self._bucket_and_prefix[0]

    @property
    def _bucket_and_prefix(self) -> tuple[str, str]:
        """Bucket and prefix, not decoded: a name in a bucket may have any character, and none is percent-encoded."""
        bucket, _, prefix = self.url.partition("://")[2].partition("/")
        return bucket, prefix

    @property
    def path(self) -> str:
        """Path on the host, or prefix in the bucket, without slashes at its end."""
        if self.scheme == "s3":
            return self._bucket_and_prefix[1].strip("/")
        return unquote(self.parts.path.rstrip("/"))


def sorted_pages(listing: Iterable[RemoteObject], after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
    """Yield the pages of a complete listing, as `Remote.pages` does."""
    files = sorted((file for file in listing if file.key > after), key=lambda file: file.key)
    for start in range(0, len(files), PAGE):
        page = files[start : start + PAGE]
        yield page, page[-1].key if start + PAGE < len(files) else b""
    if not files:
        yield [], b""


def with_retries(action: Callable[[], T]) -> T:
    """Return the result of an action, retried on transient errors after growing, randomized pauses.

    Raises:
        TransientInboxError: the last attempt failed, too.
    """
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientInboxError),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE),
        reraise=True,
    ):
        with attempt:
            return action()
    raise AssertionError  # The last attempt returns or raises.


class Blocks(io.RawIOBase):
    """A file of an inbox as a stream of bytes, in bounded memory.

    Attributes:
        seconds: seconds since the start.
    """

    def __init__(self, remote: Remote, file: RemoteObject, alive: Callable[[], None] = lambda: None) -> None:
        """Read this file; `alive` is called before each block, and may raise."""
        self._remote, self._file, self._alive = remote, file, alive
        self._offset, self._began = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next block, whatever `size` is; empty at the end."""
        length = min(BLOCK_BYTES, self._file.size - self._offset)
        if length <= 0:
            return b""
        self._alive()
        block = with_retries(lambda: self._remote.read(self._file, self._offset, length))
        if len(block) != length:
            raise ChangedError("it changed while it was read")
        self._offset += length
        return block
