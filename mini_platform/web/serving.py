"""Serving of ASGI apps: uvicorn with https, proxies, and bounds on what clients may hold open.

uvicorn has neither a time limit for headers nor a limit of connections per address, so a thousand connections on which nothing
arrives would use up the file descriptors of the process. Its protocol is subclassed here. Not here: limits of requests
(`auth/guard.py`) and of bodies (`api/incoming.py`).
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from weakref import WeakSet

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mini_platform.config.sections import between_commas
from mini_platform.config.settings import Settings
from mini_platform.operations import https

HEADER_SECONDS = 10.0
"""Maximum time from the first byte of a request, or from the connection, until its headers are complete; TLS included."""
BODY_SECONDS = 60.0
"""Maximum time in which nothing of an incomplete body arrives."""
HEADER_BYTES = 2**17
"""Maximum bytes of the headers of a request."""
URL_BYTES = 2**16 - 1
"""Maximum bytes of a URL; the parser takes no more."""
LINGER_SECONDS = 1.0
"""Time for a client to read why it is refused: a connection that is closed with unread bytes loses the answer."""
STOP_SECONDS = 10
"""Time for requests in progress to end after SIGTERM; less than the time until the process is killed."""
OPEN_FILES = 2**16
"""File descriptors of a server, if the system allows that many; many systems begin with 1024."""


def serve(app: Any, settings: Settings, port: int) -> None:
    """Serve an ASGI app on a port of the settings' address until SIGTERM or Ctrl-C.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    uvicorn.run(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
        **served(settings),
    )


def served(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's options for these settings: https if they name a certificate, and the proxies that they name.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    return {
        "http": partial(LimitedProtocol, Connections(settings), https.context(settings)),
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # Otherwise any process on this machine could forge the client address.
        "proxy_headers": bool(settings.api_proxies),
        "forwarded_allow_ips": settings.api_proxies,
    }


def client_network(host: str) -> str:
    """Return the address of a client; for IPv6 its /64 network, as a client can use any address in it."""
    address = _address(host)
    return str(ip_network((int(address), 64), strict=False)) if isinstance(address, IPv6Address) else str(address)


def _address(host: str) -> IPv4Address | IPv6Address | str:
    """Return an address, those of IPv4 that were mapped to IPv6 as what they are; a text if it is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class Connections:
    """The open connections of a server, by the network of the client."""

    def __init__(self, settings: Settings) -> None:
        """Start without any; those of the proxies in the settings, which stand for many clients, are never counted."""
        self.most = settings.api_connections
        self._proxies = [ip_network(name) for name in between_commas(settings.api_proxies)]
        self._open: dict[str, WeakSet[asyncio.BaseTransport]] = {}

    def admit(self, transport: asyncio.BaseTransport) -> Callable[[], None] | None:
        """Count a new connection; return what is to be called at its end, or None if its client has too many."""
        peer = transport.get_extra_info("peername")
        host = str(peer[0]) if peer else ""  # The client may have left again.
        address = _address(host)
        if not isinstance(address, str) and any(address in proxies for proxies in self._proxies):
            return lambda: None
        network = client_network(host)
        opened = self._open.setdefault(network, WeakSet())
        if len(opened) >= self.most:
            # Nobody reports the end of a WebSocket here.
            for ended in [one for one in opened if one.is_closing()]:
                opened.discard(ended)
        if len(opened) >= self.most:
            return None
        opened.add(transport)
        return partial(self._release, network, transport)

    def _release(self, network: str, transport: asyncio.BaseTransport) -> None:
        if (opened := self._open.get(network)) is not None:
            opened.discard(transport)
            if not opened:
                del self._open[network]


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol of a connection, with limits of time, size and number.

    It makes TLS itself: uvicorn would not know of a connection before the end of the handshake, which a client can leave out.
    """

    def __init__(self, connections: Connections, tls: ssl.SSLContext | None, **options: Any) -> None:
        """Make the protocol of a new connection; the options are uvicorn's."""
        super().__init__(**options)
        self._connections, self._tls = connections, tls
        self._socket: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._release: Callable[[], None] | None = None
        self._early = bytearray()
        self._is_made = self._refused = self._upgraded = self._in_body = False
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit a connection, or refuse it."""
        self._socket = transport
        self._release = self._connections.admit(transport)
        if self._release is None:
            self._refuse(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many connections are open from your address: the limit is {self._connections.most}.",
            )
            return
        self._restart(HEADER_SECONDS)
        if self._tls is None:
            self._made(transport)
        else:
            self._encrypt(transport, self._tls)

    def _encrypt(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        """Start the handshake; the connection is made when it has ended."""
        handshake = self.loop.start_tls(
            transport,
            self,
            tls,
            server_side=True,
            ssl_handshake_timeout=HEADER_SECONDS,
            ssl_shutdown_timeout=LINGER_SECONDS,
        )
        # Its first step, which makes TLS the reader of the connection, is done at once: in a task it would come after
        # uvloop has read, and the first bytes would be lost.
        waiter = handshake.send(None)

        async def finish() -> None:
            await asyncio.wait([waiter])
            try:
                handshake.send(None)
            except StopIteration as ended:
                if ended.value is not None and not transport.is_closing():
                    self._made(ended.value)
            except OSError:  # Also of TLS: the client speaks another protocol, has left, or is too slow.
                transport.abort()

        self._handshake = self.loop.create_task(finish())

    def _made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._is_made = True
        # The first request may have come with the end of the handshake.
        if self._early:
            self.data_received(bytes(self._early))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        if self._release is not None:
            self._release()
        if self._is_made:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._refused:
            return
        if not self._is_made:
            self._early += data
            return
        if not self._in_body:
            self._header_bytes += len(data)
        super().data_received(data)
        self._limit_next()

    def _limit_next(self) -> None:
        """Limit the time until the next bytes, by what was received so far."""
        if self._refused:
            return
        if self._upgraded or self.transport.is_closing():
            self._stop_timer()
        elif self._in_body:
            self._restart(BODY_SECONDS)
        elif self.cycle is None or self.cycle.response_complete:
            if self._header_bytes > HEADER_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"The headers are too large: the limit is {HEADER_BYTES:,} bytes.",
                )
            elif self._timer is None:
                self._restart(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        """Take the headers of a request."""
        self._stop_timer()
        self._in_body, self._header_bytes = True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._stop_timer()
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; with the reason where that is known."""
        if len(getattr(self, "url", b"")) > URL_BYTES:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"The URL is too long: the limit is {URL_BYTES:,} bytes.")
        else:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol of WebSockets."""
        self._upgraded = True
        super().handle_websocket_upgrade()

    def _restart(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then or self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._in_body and self.flow.read_paused:  # The body is waiting for us, not the client.
            self._restart(BODY_SECONDS)
        else:
            self._abort()

    def _abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer and close; a client that has not begun to speak TLS cannot be answered."""
        self._refused = True
        transport = self.transport if self._is_made else None if self._tls else self._socket
        if transport is None:
            self._abort()
            return
        content = {"type": "about:blank", "title": status.phrase, "status": status, "detail": sentence}
        body = json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"Retry-After: {HEADER_SECONDS:.0f}\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        if transport.can_write_eof():
            transport.write_eof()
        self._restart(LINGER_SECONDS, self._abort)
