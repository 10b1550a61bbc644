"""Receivers of alerts: a real mail server that requires STARTTLS and a password, and a real webhook."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from mini_platform_tests.support.ports import free_port

PASSWORD = "Canary-Smtp-4711"


@dataclass
class Mailbox:
    """The mails that a mail server accepted."""

    port: int
    authority: Path
    mails: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return (
            f"mailtos://ops:{PASSWORD}@localhost:{self.port}/?to=night@example.com&from=mini@example.com&mode=starttls"
        )

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append(message_from_bytes(bytes(envelope.content or b"")))
        return "250 accepted"


def text_of(mail: Message) -> str:
    """Return the plain text of a mail."""
    parts = [part for part in mail.walk() if part.get_content_type().startswith("text/")]
    payload = parts[0].get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


@contextmanager
def mail_server(box: Mailbox, certificate: trustme.LeafCert) -> Iterator[Mailbox]:
    """Serve a mailbox on its port; it requires encryption and the password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def known(_: Any, __: Any, ___: Any, ____: Any, data: Any) -> AuthResult:
        ok = isinstance(data, LoginPassword) and (data.login, data.password) == (b"ops", PASSWORD.encode())
        return AuthResult(success=ok)

    controller = Controller(
        box,
        hostname="localhost",
        port=box.port,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=known,
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@dataclass
class Hook:
    """The requests that a webhook received."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    bodies: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)


@contextmanager
def webhook() -> Iterator[Hook]:
    """Serve a webhook that responds with its `status` and `answer`."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status == 200:
                hook.raw.append(sent)
                if self.headers["Content-Type"].startswith("application/json"):
                    hook.bodies.append(json.loads(sent))
            self.send_response(hook.status)
            self.end_headers()
            self.wfile.write(hook.answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    hook.url = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
