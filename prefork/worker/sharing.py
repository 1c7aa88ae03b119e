"""A worker's part in the sharing of connections: passing them on to siblings, and adopting theirs.

Runs in a worker, in whoever has the baton: the thread of the serve loop, or the steward. The protocol, and the
races it was made for, are in docs/decisions/0009-relay-and-steward.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from prefork.worker.handover import Handover
from prefork.worker.relay import Relay

FULL_S = 0.02
"""How long a worker that leaves waits for room in the relay."""

SLACK = 8
"""How many connections more than the mean of its siblings a worker may adopt without letting them go first."""


class Portable(Protocol):
    """A connection, or what precedes one: ``Connection``, ``Introduction``."""

    def portable(self) -> tuple[Handover, list[int]] | None: ...

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def close(self) -> None: ...


class Sharing:
    """Passes connections on by the relay.

    ``ready`` returns the numbers of open connections of the workers that are ready, this one included.
    """

    def __init__(self, relay: Relay, ready: Callable[[], list[int]], count: Callable[[], None]) -> None:
        self.relay = relay
        self._ready = ready
        self._count = count
        self.is_blocked = False
        """Was the last one that could go refused by the relay?"""

    def has_siblings(self) -> bool:
        """Tell whether another worker could take a connection."""
        return len(self._ready()) > 1

    def has_more_than_its_share(self, connections: int) -> bool:
        """Tell whether siblings should adopt the next idle connection rather than a worker with so many."""
        ready = self._ready()
        return len(ready) > 1 and connections > sum(ready) / len(ready) + SLACK

    def pass_on(self, connection: Portable) -> bool:
        """Send a connection to whoever is free; return whether it is gone.

        It is out of our epoll before it is sent: the kernel would go on reporting a number that we close.
        """
        parcel = connection.portable()
        if parcel is None:
            return False
        connection.pause()
        self.is_blocked = not self.relay.send(*parcel)
        if self.is_blocked:
            connection.go_on()
            return False
        self._count()
        connection.close()
        return True

    def pass_on_all(self, connections: Iterable[Portable]) -> None:
        """Send all that can go, until the relay is full."""
        for connection in connections:
            self.pass_on(connection)
            if self.is_blocked:
                break

    def close(self) -> None:
        self.relay.close()
