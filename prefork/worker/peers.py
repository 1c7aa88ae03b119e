"""Who is at the other end of a connection, and so how its requests are read; runs only in a worker."""

from __future__ import annotations

from typing import Any

from prefork.http.head import HeadLimits, HeadParser
from prefork.http.memo import Memo
from prefork.http.sender import ProxyPolicy, Sender, Stranger, TrustedProxy
from prefork.http.trust import UNIX, Trust

_REMEMBERED = 1024


class Peers:
    """Strangers and trusted proxies, each with a parser that all its connections share."""

    def __init__(self, policy: ProxyPolicy, limits: HeadLimits) -> None:
        self.trust = Trust(policy.trust)
        self._policy = policy
        self._limits = limits
        self._complained_of: Memo[str, bool] = Memo(_REMEMBERED)
        self._parsers: dict[tuple[bool, str], HeadParser] = {}

    def parser(self, peer: str, scheme: str) -> HeadParser:
        """Return the parser for requests of ``peer`` (see ``peer_name``) over a connection of ``scheme``."""
        kind = (peer in self.trust, scheme)
        parser = self._parsers.get(kind)
        if parser is None:
            is_trusted, _ = kind
            policy, trust = self._policy, self.trust
            sender: Sender = TrustedProxy(policy, trust, scheme) if is_trusted else Stranger(policy)
            parser = self._parsers[kind] = HeadParser(self._limits, sender)
        return parser

    def is_news(self, peer: str) -> bool:
        """Tell whether this is the first complaint about a peer."""
        return self._complained_of.get(peer) is None and self._complained_of.remember(peer, True)


def peer_name(client_address: Any) -> str:
    """Return what ``proxy.trust`` calls the peer of an accepted socket."""
    return client_address[0] if isinstance(client_address, tuple) else UNIX


def shown_address(client_address: Any) -> str:
    """Return a client's address for the log."""
    return (
        f"{client_address[0]}:{client_address[1]}" if isinstance(client_address, tuple) else "a local client"
    )
