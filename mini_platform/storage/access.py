"""Access: the schemes, hosts and addresses that a sync may request.

Here: the rules, and the resolution of a name under them. Not here: requests (`fetch.py`). A URL is checked before every
request, including targets of redirects and links, and the checked address is the one connected to, so that a name which
resolves to another address the next time bypasses nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAT64 = ip_network("64:ff9b::/96")
"""Network whose addresses stand for the IPv4 address in their last 32 bits (RFC 6052)."""


class ForbiddenError(Exception):
    """A URL or host may not be requested; the message is a sentence without the parts of a URL that may be secret."""


@dataclass(frozen=True)
class Access:
    """The address of one source and the requests allowed for it.

    Attributes:
        url: URL of its first page; None if it is not synced.
        header: name and value of a header with credentials; it is only sent to the source's own host.
        hosts: allowed hosts; empty if only the host of `url` is.
        networks: private networks that are allowed.
        max_bytes: largest size of one page.
    """

    url: str | None
    header: tuple[str, str] | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    max_bytes: int = 64 * 2**20

    def check(self, url: str) -> None:
        """Refuse a URL that may not be requested.

        Raises:
            ForbiddenError: the URL is not allowed; the message gives the reason.
        """
        # Parsed by the code that connects: two parsers of URLs may disagree about the host.
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            raise ForbiddenError("A URL cannot be read") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ForbiddenError(f"{shown(url)} is not an http or https URL")
        if parts.userinfo:
            raise ForbiddenError(
                f"{shown(url)} contains credentials: set them as a header instead, by the setting for that"
            )
        if parts.raw_host not in (allowed := self._hosts()):
            host, names = parts.raw_host.decode(), ", ".join(sorted(name.decode() for name in allowed))
            raise ForbiddenError(f"{shown(url)} is at {host}, which is not among the allowed hosts: {names}")

    def _hosts(self) -> set[bytes]:
        if not self.hosts:
            return {httpx.URL(self.url or "").raw_host}
        return {httpx.URL(scheme="http", host=host).raw_host for host in self.hosts}

    def is_own(self, url: str) -> bool:
        """Return True if a URL has the origin of the source, so that it may get the credentials; https may replace http."""
        own, other = httpx.URL(self.url or ""), httpx.URL(url)
        if own.raw_host != other.raw_host:
            return False
        upgraded = (own.scheme, other.scheme) == ("http", "https") and own.port is other.port is None
        return upgraded or (own.scheme, own.port) == (other.scheme, other.port)

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a name once and return its allowed addresses, in the resolver's order.

        Raises:
            ForbiddenError: none of its addresses is allowed.
            OSError: the name cannot be resolved.
        """
        resolved = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        allowed = [text for text in dict.fromkeys(resolved) if self._allows(text)]
        if not allowed:
            raise ForbiddenError(
                f"{host} is at {', '.join(dict.fromkeys(resolved))}: private, loopback, link-local and reserved addresses are "
                "only allowed if MINI_PLATFORM_API_SOURCE_NETWORKS lists them"
            )
        return allowed

    def _allows(self, text: str) -> bool:
        if "%" in text:  # It has a zone, so it is link-local.
            return False
        address = _embedded_ipv4(ip_address(text))
        listed = any(address in network for network in self.networks)
        return listed or (address.is_global and not address.is_multicast)


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 address, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else address


def shown(url: str) -> str:
    """Return a URL without the parts that may be secret: user, query and fragment."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx.InvalidURL:
        return "a URL that cannot be read"
