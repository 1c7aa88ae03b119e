"""The TLS contexts of one generation of a pool: made in the master, inherited by its molds and workers.

Made before the fork, so that all workers of a generation share the keys of its session tickets, and need no
access to the files. What holds a private key is the memory of these processes; no descriptor does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prefork.heritage import InheritedListener

if TYPE_CHECKING:
    from ssl import SSLContext


class Contexts:
    """The only references to the contexts outside of connections."""

    __slots__ = ("__weakref__", "by_listener")

    def __init__(self) -> None:
        self.by_listener: dict[int, SSLContext] = {}
        """By the descriptor of the listener; those without TLS are absent."""

    def with_addresses(
        self, listeners: Iterable[InheritedListener]
    ) -> list[tuple[SSLContext, tuple[str, ...]]]:
        """Return each context once, with the addresses of its listeners."""
        found: dict[SSLContext, tuple[str, ...]] = {}
        for listener in listeners:
            if (context := self.by_listener.get(listener.fd)) is not None:
                found[context] = (*found.get(context, ()), listener.address)
        return list(found.items())

    def forget(self) -> None:
        """Drop them all: OpenSSL wipes the memory of their private keys."""
        self.by_listener.clear()
