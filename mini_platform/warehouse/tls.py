"""TLS between us and Postgres: how a connection is protected, and advice if TLS prevented it from being opened.

TLS is implemented by libpq and configured by its parameters in `DATABASE_URL`
(`?sslmode=verify-full&sslrootcert=…&sslcert=…&sslkey=…`) or its environment variables (`PGSSLMODE` …). https://www.postgresql.org/docs/current/libpq-ssl.html
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_platform.config.sections import is_loopback

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

VERIFY_FULL = "sslmode=verify-full&sslrootcert=FILE"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST"""
NOT_ACCEPTED = "certificate verify failed"
NAME_CA = "sslrootcert in DATABASE_URL should name the file with the CA that signed the server's certificate."
ADVICE = {
    "certificate has expired": "Renew the certificate of the server.",
    NOT_ACCEPTED: NAME_CA,
    "does not match host name": "Name the server in DATABASE_URL as its certificate does.",
    "does not support SSL": "Turn `ssl` on at the server: with this sslmode nothing is sent to it in clear.",
    "no encryption": f"The server wants encrypted connections: add {VERIFY_FULL} to DATABASE_URL.",
    "root certificate file": NAME_CA,
    "valid client certificate": "sslcert and sslkey in DATABASE_URL should name the client's certificate and its key.",
    "private key file": "Correct sslkey in DATABASE_URL, or chmod 600 the file.",
}
"""Part of a message of libpq or the server -> advice; the first match counts."""


@dataclass(frozen=True)
class Link:
    """The protection of a connection.

    Attributes:
        host: host as configured; empty for a local Unix socket.
        protocol: protocol such as `TLSv1.3`; empty if the connection is not encrypted.
        mode: sslmode, by which libpq verified the server.
    """

    host: str
    protocol: str
    mode: str

    @property
    def is_local(self) -> bool:
        """True if the connection does not leave this machine."""
        return not self.host or is_loopback(self.host)


def link(conn: Connection) -> Link:
    """Return how a connection is protected."""
    info: Any = conn.connection.driver_connection.info  # type: ignore[union-attr]
    host = info.host if info.host and not info.host.startswith(("/", "@")) else ""
    protocol = str(info.ssl_attribute("protocol")) if info.ssl_in_use else ""
    return Link(host, protocol, info.dsn_parameters.get("sslmode", ""))


def explain(message: str, url: URL) -> tuple[str, str] | None:
    """Return the line of libpq's message about a TLS failure, and advice; None if the failure has another reason."""
    if "SSL encryption" in message:  # refused both with and without encryption, so for another reason
        return None
    for word, advice in ADVICE.items():
        if line := next((line for line in message.splitlines() if word in line), None):
            if word == NOT_ACCEPTED and (reason := _certificate_error(url)):
                return f"{line} ({reason})", ADVICE.get(reason, advice)
            return line, advice
    return None


def _certificate_error(url: URL) -> str:
    """Return OpenSSL's reason for rejecting the server's certificate, which libpq does not report; empty if unknown."""
    root = url.query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or Path.home() / ".postgresql" / "root.crt"
    address = str(url.query.get("hostaddr") or url.host), url.port or 5432
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(str(root))
        with socket.create_connection(address, timeout=5) as plain:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) == b"S":
                context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        pass
    return ""
