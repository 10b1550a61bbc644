"""Where a sync may ask: schemes, hosts, addresses.

Here: the rules, and the resolution of a name under them. Not here: requests (`fetch.py`). A URL is checked before every
request, also where a redirect or a link leads, and the address is checked that is then connected to: a name that resolves to
another address the next time gains nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAT64 = ip_network("64:ff9b::/96")
"""Addresses of it stand for the IPv4 address in their last 32 bits (RFC 6052)."""


class ForbiddenError(Exception):
    """A place that may not be asked; the message is a sentence without the parts of a URL that may be secret."""


@dataclass(frozen=True)
class Access:
    """Where one source is and what may be asked for it.

    Attributes:
        url: of its first page; None: it is not synced.
        header: name and value of a header with credentials; only the source's own host is sent it.
        hosts: that may be asked; empty: only the one of `url`.
        networks: that may be asked although they are private.
        max_bytes: of one page.
    """

    url: str | None
    header: tuple[str, str] | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    max_bytes: int = 64 * 2**20

    def check(self, url: str) -> None:
        """Refuse a URL that may not be asked.

        Raises:
            ForbiddenError: with the reason.
        """
        # Read by the very code that connects: two readers of URLs may differ about the host.
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            raise ForbiddenError("A URL cannot be read") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ForbiddenError(f"{shown(url)} is no http or https URL")
        if parts.userinfo:
            raise ForbiddenError(f"{shown(url)} has credentials in it: give them as a header, by the setting for that")
        if parts.raw_host not in (allowed := self._hosts()):
            host, names = parts.raw_host.decode(), ", ".join(sorted(name.decode() for name in allowed))
            raise ForbiddenError(f"{shown(url)} is at {host}, which is not among the allowed hosts: {names}")

    def _hosts(self) -> set[bytes]:
        if not self.hosts:
            return {httpx.URL(self.url or "").raw_host}
        return {httpx.URL(scheme="http", host=host).raw_host for host in self.hosts}

    def is_own(self, url: str) -> bool:
        """Whether a URL is at the very place of the source, so that it may see the credentials: https may replace http."""
        own, other = httpx.URL(self.url or ""), httpx.URL(url)
        if own.raw_host != other.raw_host:
            return False
        upgraded = (own.scheme, other.scheme) == ("http", "https") and own.port is other.port is None
        return upgraded or (own.scheme, own.port) == (other.scheme, other.port)

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a name once; those of its addresses that may be connected to, in the resolver's order.

        Raises:
            ForbiddenError: there are none among its addresses.
            OSError: the name cannot be resolved.
        """
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        allowed = [text for text in dict.fromkeys(found) if self._allows(text)]
        if not allowed:
            raise ForbiddenError(
                f"{host} is at {', '.join(dict.fromkeys(found))}: private, loopback, link-local and reserved addresses are "
                "only asked where MINI_PLATFORM_API_SOURCE_NETWORKS names them"
            )
        return allowed

    def _allows(self, text: str) -> bool:
        if "%" in text:  # A zone: it is link-local.
            return False
        address = _meant(ip_address(text))
        listed = any(address in network for network in self.networks)
        return listed or (address.is_global and not address.is_multicast)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
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
    """A URL without what may be secret: user, query and fragment."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx.InvalidURL:
        return "a URL that cannot be read"
