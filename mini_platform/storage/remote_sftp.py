"""Inboxes on SFTP servers, through asyncssh. A server's host key is checked against known_hosts before anything else, always.

Neither `~/.ssh/config` nor an agent is asked: what gets in is in the settings.
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

from mini_platform.storage.errors import ChangedError, GoneError, InboxError, ObjectError, ShakyError
from mini_platform.storage.host_keys import HostKey
from mini_platform.storage.names import kind_of
from mini_platform.storage.remote import (
    ASIDE,
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
"""SFTP has no listing that begins at a name: all names are held in memory, about 150 bytes each."""


GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
FORBIDDEN = (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect)
LOST = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.SFTPBadMessage)
BROKEN = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, EOFError, ConnectionResetError, BrokenPipeError)
SILENT = (FSTimeoutError, TimeoutError)


class Sftp:
    """A folder on an SFTP server. The path of the URL begins at the root; `/~/` at the user's home."""

    appears_whole = False

    def __init__(self, inbox: Inbox) -> None:
        """Nothing is asked for yet.

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
        self._options = self._who()

    def _known_hosts(self) -> bytes:
        path = self._inbox.settings.known_hosts.expanduser()
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InboxError(f"{path} cannot be read: {error.strerror}: see {self._setting('known_hosts')}.") from error

    def _who(self) -> dict[str, Any]:
        settings = self._inbox.settings
        keys: list[Any] = []
        if settings.key_file:
            phrase = settings.key_passphrase.get_secret_value() if settings.key_passphrase else None
            try:
                keys = [asyncssh.read_private_key(Path(settings.key_file).expanduser(), phrase)]
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                why = getattr(error, "strerror", None) or str(error)
                said = f"the key {settings.key_file} cannot be read: {why}: see {self._setting('key_file')}"
                raise InboxError(f"{self._inbox.url} cannot be used: {said}.") from None
        return {
            "username": unquote(self._inbox.parts.username or ""),
            "password": settings.password.get_secret_value() if settings.password else None,
            "client_keys": keys,
        }

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """The files after a name."""
        try:
            found = with_retries(lambda: self._do(self._list))
        except GoneError:
            raise InboxError(f"{self._inbox.url} cannot be used: there is no such folder.") from None
        yield from sorted_pages(found, after)

    async def _list(self, client: asyncssh.SFTPClient) -> list[RemoteObject]:
        found = []
        async for entry in client.scandir(self._folder):
            name = entry.filename if isinstance(entry.filename, bytes) else entry.filename.encode()
            if name in (b".", b"..") or name.decode("latin-1") in ASIDE:
                continue
            found.append(RemoteObject(name, _signature(entry.attrs), entry.attrs.size or 0, _kind(entry.attrs)))
            if len(found) > MOST_FILES:
                raise InboxError(
                    f"{self._inbox.url} has more than {MOST_FILES:,} files: let them be archived or deleted."
                )
        return found

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """A range of a file, whose size and time are the same before and after."""

        async def get(client: asyncssh.SFTPClient) -> bytes:
            async with client.open(self._path(file), "rb", encoding=None) as source:
                _check(await source.stat(), file)
                block = await source.read(size, start)
                _check(await source.stat(), file)
            return cast("bytes", block)

        return self._do(get)

    def move(self, file: RemoteObject, target: str) -> None:
        """Rename a file. If it was exchanged in that moment, it is given its name back."""

        async def rename(client: asyncssh.SFTPClient) -> None:
            new = posixpath.join(self._folder, target.encode("utf-8", "surrogateescape"))
            _check(await client.lstat(self._path(file)), file)
            await client.makedirs(posixpath.dirname(new), exist_ok=True)
            if await client.lexists(new):
                await client.remove(new)  # The same bytes under the same name, sent again: SFTP renames over nothing.
            await client.rename(self._path(file), new)
            try:
                _check(await client.lstat(new), file)
            except ChangedError:
                if not await client.lexists(self._path(file)):
                    await client.rename(new, self._path(file))
                raise

        with_retries(lambda: self._do(rename))

    def write(self, source: BinaryIO, target: str) -> None:
        """Write a file."""
        data = source.read()

        async def put(client: asyncssh.SFTPClient) -> None:
            path = posixpath.join(self._folder, target.encode("utf-8", "surrogateescape"))
            await client.makedirs(posixpath.dirname(path), exist_ok=True)
            async with client.open(path, "wb", encoding=None) as copy:
                await copy.write(data)

        with_retries(lambda: self._do(put))

    def remove(self, file: RemoteObject) -> None:
        """Remove a file, if size and time are those that were listed."""

        async def delete(client: asyncssh.SFTPClient) -> None:
            _check(await client.lstat(self._path(file)), file)
            await client.remove(self._path(file))

        with_retries(lambda: self._do(delete))

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            connection_loop = get_loop()
            connection_loop.call_soon_threadsafe(connection.abort)

    def _path(self, file: RemoteObject) -> bytes:
        return posixpath.join(self._folder, file.key)

    def _setting(self, name: str) -> str:
        return self._inbox.setting(name)

    def _do(self, action: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Do something on the connection, which is made anew where it was lost."""
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
        ways = f"{self._setting('key_file')} or {self._setting('password')}"
        said = str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error)[:200]
        for kinds, made, sentence in (
            (GONE, GoneError, "it is not there any more"),
            (FORBIDDEN, ObjectError, "the server does not let the platform do that with it"),
            (LOST, ShakyError, f"The connection to {where} broke."),
            (asyncssh.SFTPError, ObjectError, f"the server says: {said}"),
            (asyncssh.PermissionDenied, InboxError, f"{where} does not let {user} in: see the URL and {ways}."),
            (
                asyncssh.KeyExchangeFailed,
                InboxError,
                f"{where} offers no host key of a kind that {known_hosts} has for it, or no cipher that is safe: {said}.",
            ),
            (BROKEN, ShakyError, f"The connection to {where} broke."),
            (SILENT, ShakyError, f"{where} does not answer."),
            (OSError, ShakyError, f"{where} cannot be reached: {said}."),
        ):
            if isinstance(error, kinds):
                return made(sentence)
        return error


async def _bounded(action: Callable[[Any], Awaitable[T]], client: Any) -> T:
    return await asyncio.wait_for(action(client), REQUEST_SECONDS)


def _signature(attrs: asyncssh.SFTPAttrs) -> str:
    return f"{attrs.size}:{attrs.mtime}:{attrs.mtime_ns or 0}"


def _check(attrs: asyncssh.SFTPAttrs, file: RemoteObject) -> None:
    if _signature(attrs) != file.signature:
        raise ChangedError("it changed since it was listed")


def _kind(attrs: asyncssh.SFTPAttrs) -> str | None:
    """What an entry is, where the server says so."""
    mode = attrs.permissions or 0
    return kind_of(mode) if stat.S_IFMT(mode) else None
