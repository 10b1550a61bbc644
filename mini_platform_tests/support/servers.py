"""Real servers for remote inboxes: S3 by rclone, which checks signatures; SFTP by asyncssh; a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import httpx

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret"
USER, PASSWORD = "partner", "pass word"
RCLONE = Path(sys.executable).with_name("rclone")


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        url: URL of its endpoint.
        control: URL of rclone's remote control.
    """

    url: str
    control: str

    def refresh(self) -> None:
        """Make the server read changes in the served folders, instead of what it has cached.

        It is an explicit request, because rclone may clear its cache by itself (`--dir-cache-time`) while it renames, and then
        hangs for ever: both need the locks of the same folders.
        """
        httpx.post(f"{self.control}vfs/forget").raise_for_status()


@contextmanager
def s3_server(root: Path) -> Iterator[S3Server]:
    """Serve the folders below `root` as buckets."""
    command = [RCLONE, "serve", "s3", root, "--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    options = ["--vfs-cache-mode", "off", "--dir-cache-time", "1000h", "--config", "", "--log-level", "INFO"]
    control = ["--rc", "--rc-addr", "127.0.0.1:0", "--rc-no-auth"]
    process = subprocess.Popen([*command, *options, *control], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        output = ""
        while not (match := re.search(r"control on (\S+)(?s:.+)s3 server on \[(http\S+?)/?\]", output)):
            line = process.stderr.readline()
            assert line, f"rclone did not start: {output}"
            output += line
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        yield S3Server(url=match[2], control=match[1])
    finally:
        process.terminate()
        process.wait(30)
        drain.join()
        process.stderr.close()


class SftpServer:
    """An SFTP server on a folder.

    Attributes:
        port: port that it listens on.
        host_key: host key that it shows.
        client_key: key that it accepts, as an alternative to the password.
    """

    def __init__(self, root: Path) -> None:
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._root = root
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._connections: list[asyncssh.SSHServerConnection] = []
        self.port = 0
        self.start()

    def known_hosts(self, key: asyncssh.SSHKey | None = None, port: int | None = None) -> str:
        public = (key or self.host_key).export_public_key().decode().strip()
        return f"[127.0.0.1]:{port or self.port} {public}\n"

    def start(self, host_key: asyncssh.SSHKey | None = None) -> None:
        """Listen, on the same port as before if there was one."""
        if host_key is not None:
            self.host_key = host_key
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        self.port = self._server.get_port()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        authorized = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=[self.host_key],
            server_factory=lambda: _Users(self._connections),
            authorized_client_keys=authorized,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=bytes(self._root)),
        )

    def stop(self) -> None:
        """Stop listening, and close every connection."""

        async def close() -> None:
            self._server.close()
            for connection in self._connections:
                connection.abort()
            self._connections.clear()
            await self._server.wait_closed()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(20)

    def end(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Users(asyncssh.SSHServer):
    def __init__(self, connections: list[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.append(conn)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)

    def begin_auth(self, username: str) -> bool:
        return True


class Proxy:
    """A proxy that forwards TCP connections, and cuts them.

    Attributes:
        port: port that it listens on.
        cuts: number of bytes from the server after which each next connection is cut; later connections are not cut.
        sent: number of bytes forwarded from the server.
        connections: number of connections so far.
    """

    def __init__(self, port: int, *cuts: int) -> None:
        self.cuts = list(cuts)
        self.sent = self.connections = 0
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # Closed.
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                limit = self.cuts.pop(0) if self.cuts else None
                server = socket.create_connection(self._target)
                for pair in ((client, server, None), (server, client, (limit,))):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, limit: tuple[int | None] | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if limit is not None:
                    self.sent += len(data)
                    if limit[0] is not None and passed > limit[0]:
                        target.sendall(data[: max(0, len(data) - (passed - limit[0]))])
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                if limit is not None and limit[0] is not None:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def unused_port() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
