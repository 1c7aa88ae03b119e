"""How many requests wait inside this worker, for the master that decides whether a pool needs more of them.

Runs in a worker of a pool that scales, in the loop's thread. Short requests on kept-alive connections wait neither in
the listener nor in the relay but in their sockets, where only their worker can see them.
"""

from __future__ import annotations

from time import monotonic

from prefork.cell import Cell
from prefork.worker.server import Server

EVERY_S = 0.05
MOST = 64
"""More than that many more workers nobody asks for at a time."""


class Backlog:
    """Publishes in ``cell`` what waits when a turn is over: from then on it waits for the next turn."""

    def __init__(self, server: Server, cell: Cell) -> None:
        self._threads = server.threads
        self._poll = server.loop.epoll.poll
        self._cell = cell
        self._next = 0.0

    def turn(self) -> None:
        """To be called in each turn of the loop."""
        now = monotonic()
        if now >= self._next:
            self._next = now + EVERY_S
            if self._threads is not None:
                self._cell.waiting = len(self._threads.waiting)
            else:
                # Level-triggered: looking takes nothing. The first of them does not wait, it is served next.
                self._cell.waiting = max(0, len(self._poll(0, MOST)) - 1)
