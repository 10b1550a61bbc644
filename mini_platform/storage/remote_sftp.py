"""Inboxes on SFTP servers, through asyncssh. A server's host key is checked against known_hosts before anything else, always.

Neither `~/.ssh/config` nor an agent is used: all credentials are in the settings.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote

import asyncssh
from fsspec.asyn import get_loop, sync
from fsspec.exceptions import FSTimeoutError

from mini_platform.storage.errors import ChangedError, GoneError, InboxError, ObjectError, TransientInboxError
from mini_platform.storage.host_keys import HostKey
from mini_platform.storage.names import kind_of
from mini_platform.storage.remote import (
    ARCHIVE_FOLDERS,
    REQUEST_SECONDS,
    SILENT_SECONDS,
    Inbox,
    RemoteObject,
    sorted_pages,
    with_retries,
)

T = TypeVar("T")

PORT = 22
MOST_FILES = 1_000_000
"""Most files in a folder. SFTP cannot list from a name on, so all names are held in memory, about 150 bytes each."""


GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
FORBIDDEN = (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect)
LOST = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.SFTPBadMessage)
BROKEN = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, EOFError, ConnectionResetError, BrokenPipeError)
SILENT = (FSTimeoutError, TimeoutError)


class Sftp:
    """A folder on an SFTP server. The path of the URL begins at the root; `/~/` at the user's home."""

    appears_whole = False

    def __init__(self, inbox: Inbox) -> None:
        """Take an inbox without connecting to it.

        Raises:
            InboxError: the key file or known_hosts cannot be read.
        """
        self._inbox = inbox
        path = inbox.path.removeprefix("/~/") if inbox.path.startswith("/~/") else inbox.path or "/"
        self._folder = path.encode()
        self._lock = threading.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._host_key = HostKey(inbox, self._known_hosts())
        self._options = self._credentials()

    def _known_hosts(self) -> bytes:
        path = self._inbox.settings.known_hosts.expanduser()
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InboxError(
                f"{path} cannot be read: {error.strerror}: check {self._setting('known_hosts')}."
            ) from error

    def _credentials(self) -> dict[str, Any]:
        settings = self._inbox.settings
        keys: list[Any] = []
        if settings.key_file:
            phrase = settings.key_passphrase.get_secret_value() if settings.key_passphrase else None
            try:
                keys = [asyncssh.read_private_key(Path(settings.key_file).expanduser(), phrase)]
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                cause = getattr(error, "strerror", None) or str(error)
                reason = f"the key {settings.key_file} cannot be read: {cause}: check {self._setting('key_file')}"
                raise InboxError(f"{self._inbox.url} cannot be used: {reason}.") from None
        return {
            "username": unquote(self._inbox.parts.username or ""),
            "password": settings.password.get_secret_value() if settings.password else None,
            "client_keys": keys,
        }

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """Yield pages of the files after a name."""
        try:
            listing = with_retries(lambda: self._run(self._list))
        except GoneError:
            raise InboxError(f"{self._inbox.url} cannot be used: there is no such folder.") from None
        yield from sorted_pages(listing, after)

    async def _list(self, client: asyncssh.SFTPClient) -> list[RemoteObject]:
        listing = []
        async for entry in client.scandir(self._folder):
            name = entry.filename if isinstance(entry.filename, bytes) else entry.filename.encode()
            if name in (b".", b"..") or name.decode("latin-1") in ARCHIVE_FOLDERS:
                continue
            listing.append(RemoteObject(name, _signature(entry.attrs), entry.attrs.size or 0, _kind(entry.attrs)))
            if len(listing) > MOST_FILES:
                raise InboxError(f"{self._inbox.url} has more than {MOST_FILES:,} files: archive or delete them.")
        return listing

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """Return a range of a file, checked to have the same size and time before and after."""

        async def get(client: asyncssh.SFTPClient) -> bytes:
            async with client.open(self._path(file), "rb", encoding=None) as source:
                _check(await source.stat(), file)
                block = await source.read(size, start)
                _check(await source.stat(), file)
            return cast("bytes", block)

        return self._run(get)

    def move(self, file: RemoteObject, target: str) -> None:
        """Rename a file. If it was replaced in that moment, it is renamed back."""

        async def rename(client: asyncssh.SFTPClient) -> None:
            new = posixpath.join(self._folder, target.encode("utf-8", "surrogateescape"))
            _check(await client.lstat(self._path(file)), file)
            await client.makedirs(posixpath.dirname(new), exist_ok=True)
            if await client.lexists(new):
                await client.remove(new)  # The same file, delivered again: SFTP cannot rename over an existing file.
            await client.rename(self._path(file), new)
            try:
                _check(await client.lstat(new), file)
            except ChangedError:
                if not await client.lexists(self._path(file)):
                    await client.rename(new, self._path(file))
                raise

        with_retries(lambda: self._run(rename))

    def write(self, source: BinaryIO, target: str) -> None:
        """Write a file."""
        data = source.read()

        async def put(client: asyncssh.SFTPClient) -> None:
            path = posixpath.join(self._folder, target.encode("utf-8", "surrogateescape"))
            await client.makedirs(posixpath.dirname(path), exist_ok=True)
            async with client.open(path, "wb", encoding=None) as copy:
                await copy.write(data)

        with_retries(lambda: self._run(put))

    def remove(self, file: RemoteObject) -> None:
        """Remove a file, if size and time are those that were listed."""

        async def delete(client: asyncssh.SFTPClient) -> None:
            _check(await client.lstat(self._path(file)), file)
            await client.remove(self._path(file))

        with_retries(lambda: self._run(delete))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            connection_loop = get_loop()
            connection_loop.call_soon_threadsafe(connection.abort)

    def _path(self, file: RemoteObject) -> bytes:
        return posixpath.join(self._folder, file.key)

    def _setting(self, name: str) -> str:
        return self._inbox.setting(name)

    def _run(self, action: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Return the result of an action on the connection, which is opened again if it was lost."""
        try:
            client = self._connected()
            return cast("T", sync(get_loop(), _bounded, action, client))
        except (asyncssh.Error, OSError, FSTimeoutError, EOFError, ValueError) as error:
            raise self._as_sentence(error) from error

    def _connected(self) -> asyncssh.SFTPClient:
        with self._lock:
            if self._client is None or self._connection is None or self._connection.is_closed():
                self._connection, self._client = sync(get_loop(), _bounded, self._connect, None)
            return self._client

    async def _connect(self, _: None) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        connection = await asyncssh.connect(
            self._inbox.host,
            self._inbox.parts.port or PORT,
            client_factory=lambda: self._host_key,
            known_hosts=self._host_key.known_hosts,
            config=[],
            agent_path=None,
            gss_host=None,
            connect_timeout=SILENT_SECONDS,
            login_timeout=SILENT_SECONDS,
            keepalive_interval=SILENT_SECONDS / 3,
            keepalive_count_max=3,
            **self._options,
        )
        return connection, await connection.start_sftp_client(path_encoding=None)

    def _as_sentence(self, error: Exception) -> Exception:
        where = f"{self._inbox.host}:{self._inbox.parts.port or PORT}"
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return InboxError(self._host_key.sentence(str(error.reason)))
        known_hosts, user = self._inbox.settings.known_hosts, self._options["username"]
        login_settings = f"{self._setting('key_file')} or {self._setting('password')}"
        reason = str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error)[:200]
        for kinds, error_class, sentence in (
            (GONE, GoneError, "it no longer exists"),
            (FORBIDDEN, ObjectError, "the server denies the platform access to it"),
            (LOST, TransientInboxError, f"The connection to {where} broke."),
            (asyncssh.SFTPError, ObjectError, f"the server reports: {reason}"),
            (
                asyncssh.PermissionDenied,
                InboxError,
                f"{where} rejects the login of {user}: check the URL and {login_settings}.",
            ),
            (
                asyncssh.KeyExchangeFailed,
                InboxError,
                f"{where} offers no host key of a type that {known_hosts} has for it, or no secure cipher: {reason}.",
            ),
            (BROKEN, TransientInboxError, f"The connection to {where} broke."),
            (SILENT, TransientInboxError, f"{where} does not answer."),
            (OSError, TransientInboxError, f"{where} cannot be reached: {reason}."),
        ):
            if isinstance(error, kinds):
                return error_class(sentence)
        return error


async def _bounded(action: Callable[[Any], Awaitable[T]], client: Any) -> T:
    return await asyncio.wait_for(action(client), REQUEST_SECONDS)


def _signature(attrs: asyncssh.SFTPAttrs) -> str:
    return f"{attrs.size}:{attrs.mtime}:{attrs.mtime_ns or 0}"


def _check(attrs: asyncssh.SFTPAttrs, file: RemoteObject) -> None:
    if _signature(attrs) != file.signature:
        raise ChangedError("it changed since it was listed")


def _kind(attrs: asyncssh.SFTPAttrs) -> str | None:
    """Return what an entry is, if the server reports it and it is not a regular file."""
    mode = attrs.permissions or 0
    return kind_of(mode) if stat.S_IFMT(mode) else None
