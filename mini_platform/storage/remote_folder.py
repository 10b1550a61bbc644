"""Inboxes that are local folders, such as mounted shares. Unlike the drop folder, they may be unmounted or cleaned up."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from mini_platform.storage.errors import ChangedError, GoneError, InboxError, ObjectError
from mini_platform.storage.names import kind_of
from mini_platform.storage.remote import ARCHIVE_FOLDERS, Inbox, RemoteObject, sorted_pages


class Folder:
    """A folder of this machine. It is read without following links."""

    appears_whole = False

    def __init__(self, inbox: Inbox) -> None:
        """Take an inbox without accessing it."""
        self._inbox = inbox
        self._folder = os.fsencode(inbox.path)

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """Yield pages of the files after a name."""
        listing = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if os.fsdecode(entry.name) in ARCHIVE_FOLDERS:
                        continue
                    with suppress(FileNotFoundError):  # It was removed in the meantime.
                        info = entry.stat(follow_symlinks=False)
                        listing.append(RemoteObject(entry.name, _signature(info), info.st_size, kind_of(info.st_mode)))
        except OSError as error:
            raise InboxError(f"{self._inbox.url} cannot be listed: {error.strerror}.") from error
        yield from sorted_pages(listing, after)

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """Return a range of a file, checked to have the same size and time before and after."""
        with _translate_errors():
            handle = os.open(self._path(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                _check(os.fstat(handle), file)
                block = os.pread(handle, size, start)
                _check(os.fstat(handle), file)
            finally:
                os.close(handle)
        return block

    def move(self, file: RemoteObject, target: str) -> None:
        """Move a file, if size and time are those that were listed."""
        with _translate_errors():
            _check(os.lstat(self._path(file)), file)
            os.rename(self._path(file), self._prepare(target))  # noqa: PTH104 - names are bytes

    def write(self, source: BinaryIO, target: str) -> None:
        """Write a file."""
        with _translate_errors(), open(self._prepare(target), "wb") as copy:  # noqa: PTH123 - names are bytes
            copy.write(source.read())

    def remove(self, file: RemoteObject) -> None:
        """Remove a file, if size and time are those that were listed."""
        with _translate_errors():
            _check(os.lstat(self._path(file)), file)
            os.unlink(self._path(file))  # noqa: PTH108 - names are bytes

    def close(self) -> None:
        """Do nothing, as nothing is open."""

    def _path(self, file: RemoteObject) -> bytes:
        return os.path.join(self._folder, file.key)  # noqa: PTH118 - names are bytes

    def _prepare(self, target: str) -> bytes:
        """Return the path of a file to write, after creating its folder."""
        path = os.path.join(self._folder, os.fsencode(target))  # noqa: PTH118 - names are bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - names are bytes
        return path


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise GoneError("it no longer exists") from error
    except OSError as error:
        raise ObjectError(f"the operating system reports: {error.strerror}") from error


def _signature(info: os.stat_result) -> str:
    return f"{info.st_size}:{info.st_mtime_ns}:{info.st_ino}"


def _check(info: os.stat_result, file: RemoteObject) -> None:
    if _signature(info) != file.signature or not stat.S_ISREG(info.st_mode):
        raise ChangedError("it changed since it was listed")
