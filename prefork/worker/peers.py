"""Who is at the other end of a connection, and so how its requests are read; runs only in a worker."""

from __future__ import annotations

from typing import Any

from prefork.http.head import HeadLimits, HeadParser
from prefork.http.sender import ProxyPolicy, Sender, Stranger, TrustedProxy
from prefork.http.trust import UNIX, Trust


class Peers:
    """Strangers and trusted proxies, each with a parser that all its connections share."""

    def __init__(self, policy: ProxyPolicy, limits: HeadLimits) -> None:
        self.trust = Trust(policy.trust)
        self._policy = policy
        self._limits = limits
        self._parsers: dict[tuple[bool, str], HeadParser] = {}

    def parser(self, peer: str, scheme: str) -> HeadParser:
        """Return the parser for requests of ``peer`` (see ``peer_name``) over a connection of ``scheme``."""
        kind = (peer in self.trust, scheme)
        parser = self._parsers.get(kind)
        if parser is None:
            sender: Sender
            if kind[0]:
                sender = TrustedProxy(self._policy, self.trust, scheme)
            else:
                sender = Stranger(self._policy)
            parser = self._parsers[kind] = HeadParser(self._limits, sender)
        return parser


def peer_name(client_address: Any) -> str:
    """Return what ``proxy.trust`` calls the peer of an accepted socket."""
    return client_address[0] if isinstance(client_address, tuple) else UNIX
