"""Whom a server believes: networks, and processes that come over a unix socket.

Pure: addresses as text in, yes or no out.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from prefork.http.memo import Memo

UNIX = "unix"
"""Stands for every peer on a unix socket, which the file's mode has let in."""

_REMEMBERED = 1024


class Trust:
    """A set of peers. ``entries``: networks such as ``10.0.0.0/8``, addresses, and ``unix``."""

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._networks = [ip_network(entry) for entry in entries if entry != UNIX]
        self._unix = UNIX in entries
        self._known: Memo[str, bool] = Memo(_REMEMBERED)
        self.clients: Memo[str, tuple[str | None, str]] = Memo(_REMEMBERED)
        """Address and port that lists of proxies came down to, for ``forwarded``: parsing addresses takes long."""

    def __contains__(self, peer: str) -> bool:
        """Tell whether ``peer``, an address or ``unix``, is one of us; what is no address never is."""
        known = self._known.get(peer)
        return self._known.remember(peer, self._look_up(peer)) if known is None else known

    def _look_up(self, peer: str) -> bool:
        if peer == UNIX:
            return self._unix
        try:
            address = plain_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return the address; an IPv4 one that came over an IPv6 socket as what it is. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
