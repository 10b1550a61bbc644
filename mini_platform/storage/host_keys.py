"""Whether an SFTP server is the one that it should be: known_hosts alone says so, and nothing is ever added to it."""

from __future__ import annotations

import asyncssh

from mini_platform.storage.remote import Inbox


class HostKey(asyncssh.SSHClient):
    """Remembers the host key that was shown, if known_hosts has not got it."""

    def __init__(self, inbox: Inbox, known_hosts: bytes) -> None:
        self._inbox = inbox
        self.known_hosts = known_hosts
        self._shown: tuple[str, str] | None = None
        self._expected = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Never: known_hosts alone says whom we talk to."""
        self._shown = key.get_algorithm(), key.get_fingerprint()
        self._expected = bool(asyncssh.match_known_hosts(self.known_hosts, host, addr, port)[0])
        return False

    def sentence(self, reason: str) -> str:
        """Why the host is not trusted, and what to do."""
        inbox = self._inbox
        path, host = inbox.settings.known_hosts, inbox.host
        if self._shown is None:
            return f"The host key of {host} is not trusted: {reason}."
        algorithm, fingerprint = self._shown
        if self._expected:
            return (
                f"{host} shows another host key ({algorithm}, {fingerprint}) than {path} has for it. Somebody may sit in "
                "between, or it was exchanged: ask whoever runs it, and only then correct the file."
            )
        return (
            f"{host} is not in {path}: it shows the host key {algorithm}, {fingerprint}. If whoever runs it confirms that "
            f"fingerprint, add the key to the file (ssh-keyscan), or name another by {inbox.setting('known_hosts')}."
        )
