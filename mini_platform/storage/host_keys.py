"""Host keys of SFTP servers: only those in known_hosts are trusted, and nothing is ever added to it."""

from __future__ import annotations

import asyncssh

from mini_platform.storage.remote import Inbox


class HostKey(asyncssh.SSHClient):
    """An SSH client that records the host key of a server if it is not in known_hosts."""

    def __init__(self, inbox: Inbox, known_hosts: bytes) -> None:
        self._inbox = inbox
        self.known_hosts = known_hosts
        self._server_key: tuple[str, str] | None = None
        self._has_known_key = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Return False, as only keys in known_hosts are trusted; record the key for `sentence`."""
        self._server_key = key.get_algorithm(), key.get_fingerprint()
        self._has_known_key = bool(asyncssh.match_known_hosts(self.known_hosts, host, addr, port)[0])
        return False

    def sentence(self, reason: str) -> str:
        """Return why the host is not trusted, and what to do."""
        inbox = self._inbox
        path, host = inbox.settings.known_hosts, inbox.host
        if self._server_key is None:
            return f"The host key of {host} is not trusted: {reason}."
        algorithm, fingerprint = self._server_key
        if self._has_known_key:
            return (
                f"{host} shows another host key ({algorithm}, {fingerprint}) than {path} has for it. The "
                "connection may be intercepted, or the key was changed: ask the server's operator before correcting the file."
            )
        return (
            f"{host} is not in {path}: it shows the host key {algorithm}, {fingerprint}. If its operator confirms that "
            f"fingerprint, add the key to the file (ssh-keyscan), or set another file by {inbox.setting('known_hosts')}."
        )
