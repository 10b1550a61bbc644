"""Remote inboxes as the landing sees them: listed in pages, read by ranges, tidied. One class for each kind of URL.

Here: what they have in common, tries and their pauses. Not here: the protocols (`remote_s3.py`, `remote_sftp.py`,
`remote_folder.py`) and the choice among them (`connect.py`), the ledger (`landing/inboxes.py`).

A file is read in blocks, each asked for by its offset and only of the very file that was listed: after a dropped connection it
goes on with the block that was cut.
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
from mini_platform.storage.errors import ChangedError, ShakyError

T = TypeVar("T")

BLOCK_BYTES = 4 * 2**20
PAGE = 1000
"""Names in one page of a listing at most."""
TRIES = 4
"""Of one request, before the inbox is left alone for a while."""
REQUEST_SECONDS = 120.0
"""No request takes longer: what is slower than 35 kB/s is as good as dead."""
SILENT_SECONDS = 10.0
"""A server that says nothing for so long is taken for dead."""
LONGEST_PAUSE = 8.0
ASIDE = ("processed", "quarantine")
"""Folders in an inbox that tidied files are moved to."""


@dataclass(frozen=True)
class RemoteObject:
    """A file in an inbox.

    Attributes:
        key: its name within the inbox, as the server has it; orders of pages are orders of these bytes.
        signature: changes whenever the file does.
        size: in bytes.
        skip_reason: why it does not count, where the server says so already: a folder, a link.
    """

    key: bytes
    signature: str
    size: int
    skip_reason: str | None = None


class Remote(Protocol):
    """A connection to an inbox. Any of its methods may be called from several threads.

    All of them raise InboxError where the inbox cannot be used, and ShakyError where it is worth another try; those that
    take a file raise ObjectError, ChangedError or GoneError where only that one cannot be had.

    Attributes:
        appears_whole: whether a file is only seen once it is there as a whole, so that one look is enough.
    """

    appears_whole: bool

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """The files after a name, in the order of their names, each page with the name up to which it goes; `b""`: the end."""

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """So many bytes of a file, all of them of the file as it was listed."""

    def move(self, file: RemoteObject, target: str) -> None:
        """Give a file another name below the inbox; unless it changed since."""

    def write(self, source: BinaryIO, target: str) -> None:
        """Put a small file below the inbox, in place of what may be there."""

    def remove(self, file: RemoteObject) -> None:
        """Remove a file, unless it changed since."""

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True)
class Inbox:
    """A remote inbox of a dataset.

    Attributes:
        dataset: its name.
        name: of the inbox, as in its setting; it stands before the names of its files in the ledger.
        settings: where it is, how to get in, and what becomes of files that are loaded.
    """

    dataset: str
    name: str
    settings: InboxSettings = field(repr=False)

    @property
    def channel(self) -> str:
        """How its files come in, for the ledger."""
        return f"inbox:{self.name}"

    @property
    def url(self) -> str:
        """Where it is."""
        return self.settings.url or ""

    def setting(self, name: str) -> str:
        """How a setting of the inbox is called, for sentences."""
        key = self.dataset if self.name == self.scheme else f"{self.dataset}_{self.name}"
        return f"MINI_PLATFORM_INBOX__{key}__{name}".upper()

    @property
    def parts(self) -> SplitResult:
        """The URL, taken apart."""
        return split_address(self.url)

    @property
    def scheme(self) -> str:
        """What kind it is."""
        return self.parts.scheme

    @property
    def host(self) -> str:
        """Host, or bucket."""
        return self.parts.hostname or "" if self.scheme == "sftp" else self._bucket_and_prefix[0]

    @property
    def _bucket_and_prefix(self) -> tuple[str, str]:
        """Both as they stand: a name in a bucket may have any character, and none is written in another way."""
        bucket, _, prefix = self.url.partition("://")[2].partition("/")
        return bucket, prefix

    @property
    def path(self) -> str:
        """Path on the host, or prefix in the bucket, without slashes at its end."""
        if self.scheme == "s3":
            return self._bucket_and_prefix[1].strip("/")
        return unquote(self.parts.path.rstrip("/"))


def sorted_pages(found: Iterable[RemoteObject], after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
    """Pages of a listing that came as a whole, as `Remote.pages` gives them."""
    files = sorted((file for file in found if file.key > after), key=lambda file: file.key)
    for start in range(0, len(files), PAGE):
        page = files[start : start + PAGE]
        yield page, page[-1].key if start + PAGE < len(files) else b""
    if not files:
        yield [], b""


def with_retries(action: Callable[[], T]) -> T:
    """Try again what is worth it, after pauses that grow and differ.

    Raises:
        ShakyError: it did not help.
    """
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ShakyError),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE),
        reraise=True,
    ):
        with attempt:
            return action()
    raise AssertionError  # The last try returns or raises.


class Blocks(io.RawIOBase):
    """A file of an inbox as a stream of bytes, in bounded memory.

    Attributes:
        seconds: spent so far.
    """

    def __init__(self, remote: Remote, file: RemoteObject, alive: Callable[[], None] = lambda: None) -> None:
        """Read this file; `alive` is called before each block, and may raise."""
        self._remote, self._file, self._alive = remote, file, alive
        self._offset, self._began = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return time.monotonic() - self._began

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next block, of whatever size is asked for; empty at the end."""
        wanted = min(BLOCK_BYTES, self._file.size - self._offset)
        if wanted <= 0:
            return b""
        self._alive()
        block = with_retries(lambda: self._remote.read(self._file, self._offset, wanted))
        if len(block) != wanted:
            raise ChangedError("it changed while it was read")
        self._offset += wanted
        return block
