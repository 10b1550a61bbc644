"""A small server with the part of Vault's API that `vault.py` uses: the KV v2 read and the AppRole login.

No Vault binary can be had where these tests were written. Paths, headers, bodies and statuses are those of Vault's API
documentation (kv-v2 "read secret version", approle "login with AppRole", "HTTP status codes"); nothing here was compared with a
real Vault. Real HTTP, on a free port of loopback.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Vault:
    """A Vault: its secrets, valid credentials, and errors.

    Attributes:
        secrets: secrets by mount and path, as `secret/mini-platform`; None is a deleted version.
        token: the valid token.
        login: the valid role id and secret id.
        namespace: namespace of the secrets; others are empty.
        old: mounts with KV version 1.
        failing: statuses of the next responses, in order.
        pause: seconds before each answer.
        requests: the calls, as method and path.
    """

    secrets: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    token: str = "hvs.right"
    login: tuple[str, str] = ("a-role", "a-secret-id")
    namespace: str = ""
    old: set[str] = field(default_factory=set)
    failing: list[int] = field(default_factory=list)
    pause: float = 0
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and body for a call."""
        self.requests.append(f"{method} {path}")
        time.sleep(self.pause)
        if self.failing:
            status = self.failing.pop(0)
            return status, {"errors": ["Vault is sealed"] if status == 503 else ["internal error"]}
        if headers.get("X-Vault-Request") != "true":
            return 400, {"errors": ["missing X-Vault-Request"]}
        if headers.get("X-Vault-Namespace", "") != self.namespace:
            return 403, {"errors": ["permission denied"]}
        if method == "POST" and path == "/v1/auth/approle/login":
            return self._login(json.loads(body))
        return self._read(path, headers) if method == "GET" else (405, {"errors": []})

    def _login(self, credentials: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if (credentials["role_id"], credentials["secret_id"]) != self.login:
            return 400, {"errors": ["invalid role or secret ID"]}
        return 200, {"auth": {"client_token": self.token, "lease_duration": 3600, "token_type": "service"}}

    def _read(self, path: str, headers: Any) -> tuple[int, dict[str, Any]]:
        if headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        _, _, mount, *rest = path.split("/")
        if mount in self.old:
            return 200, {"data": self.secrets[f"{mount}/{'/'.join(rest)}"], "lease_duration": 2764800}
        path_of_secret = f"{mount}/{'/'.join(rest[1:])}"
        if rest[:1] != ["data"] or path_of_secret not in self.secrets:
            return 404, {"errors": []}
        metadata = {"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": False, "version": 3}
        if self.secrets[path_of_secret] is None:
            return 404, {"data": {"data": None, "metadata": metadata | {"deletion_time": "2026-01-02T00:00:00Z"}}}
        return 200, {"data": {"data": self.secrets[path_of_secret], "metadata": metadata}}


@contextmanager
def serving_vault(vault: Vault) -> Iterator[Vault]:
    """Serve it; `vault.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = vault.answer(self.command, self.path, self.headers, body)
            sent = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except OSError:  # The client has closed the connection.
                self.close_connection = True

        do_POST = do_GET  # noqa: N815 - the name is the library's

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vault.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
