"""The listeners of the estate, from their opening to their end: refuse first, then empty the queue, then close.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefork.config import Listen
from prefork.log import Log
from prefork.master.activation import Activation
from prefork.master.estate import Estate, listens_of
from prefork.master.listeners import Listener, open_all, open_at_start
from prefork.master.loop import Loop
from prefork.quiesce import HANDSHAKES_S


class Doors:
    """``broadcast`` sends an order to all that accept; ``closed`` is called when listeners have been closed."""

    def __init__(
        self,
        estate: Estate,
        activation: Activation,
        loop: Loop,
        log: Log,
        broadcast: Callable[[str], None],
        closed: Callable[[], None],
    ) -> None:
        self._estate = estate
        self._activation = activation
        self._loop = loop
        self._log = log
        self._broadcast = broadcast
        self._closed = closed

    def open_first(self) -> None:
        """Open all listeners, at the start. Raises ``ListenError``."""
        listens = listens_of(self._estate.config)
        self._estate.listeners = open_at_start(listens, self._activation, self._log)

    def open(self, listens: Sequence[Listen], siblings: Sequence[Listen]) -> list[Listener]:
        """Open listeners; ``siblings`` are all of the config. Raises ``ListenError``; then none stays open."""
        return open_all(listens, self._activation, siblings, self._log)

    def quiesce(self, listeners: Sequence[Listener]) -> None:
        """Make the kernel refuse new connections."""
        for problem in filter(None, (listener.quiesce() for listener in listeners)):
            self._log.warning("quiesce-failed", problem)

    def empty_and_close(self, listeners: Sequence[Listener]) -> None:
        """Close listeners once the processes that still hold them have taken what waits there."""

        def close() -> None:
            self._broadcast("close-listeners")
            for listener in listeners:
                listener.free_address()
                listener.close(unlink=True)
                self._estate.closing.remove(listener)
            self._closed()

        self._estate.closing += listeners
        self._loop.call_later(HANDSHAKES_S, close)

    def close_all(self) -> None:
        """Close all that are open, at the end."""
        for listener in [*self._estate.listeners, *self._estate.closing]:
            listener.close(unlink=True)
