"""What stays open on a server, and for how long: its connections, and the deadlines of all that they wait for.

Runs in a worker's main thread, or in the steward while that has the baton.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from operator import methodcaller

from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.introduction import Introduction
from prefork.worker.server import Server
from prefork.worker.settings import Timeouts
from prefork.worker.surroundings import Cell, Log

LINGER_S = 2.0
"""How long to read and drop what a client still sends after our last response."""

QUIET_S = 1.0
"""While draining, a connection that is idle for so long is closed; a request may have been on its way."""


class KeepingServer(Server):
    """A server that goes on with other connections while one has nothing to do."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        log: Log,
        cell: Cell,
        timeouts: Timeouts,
        *,
        threads: int,
        connections: int,
    ) -> None:
        super().__init__(listeners, log, cell, threads=threads, connections=connections)
        make = self.loop.deadlines
        self.keeps_connections = timeouts.keep_alive > 0
        """May a client send another request on its connection?"""
        self.keeps_private = self.keeps_connections
        """The same for connections that cannot be handed over."""
        # A connection that is not to be kept, too, has some time for the first byte of its one request.
        self.keep_alive = make(timeouts.keep_alive or timeouts.head, Connection.expire_idle)
        self.head = make(timeouts.head, methodcaller("expire_head"))
        self.body = make(timeouts.body, Connection.expire_body)
        self.sending = make(timeouts.send, Connection.expire_sending)
        self.linger = make(LINGER_S, methodcaller("close"))
        self.quiet = make(QUIET_S, Connection.expire_idle)
        self._quiet = False
        self.connections: dict[int, Connection | Introduction] = {}
        self.introductions = make(timeouts.head, Introduction.expire)
        self.received = cell.received
        self.has_census = False
        """Is there a connection that neither is idle nor runs, or was there when that was last published? Such as most
        never are; who makes one says so here."""

    def keep_no_more(self, *, private_only: bool = False) -> None:
        """Announce in every response from now on that its connection will close."""
        self.keeps_private = False
        self.keeps_connections = self.keeps_connections and private_only
        for connection in self.connections.values():
            if isinstance(connection, Connection) and (connection.is_private or not private_only):
                connection.announce_end()

    def be_quiet(self) -> None:
        """Close every connection that has been idle for a moment."""
        if not self._quiet:
            self._quiet = True
            self.keep_alive.timeout_s = min(QUIET_S, self.keep_alive.timeout_s or QUIET_S)
            for connection in list(self.keep_alive.entries):
                self.keep_alive.start(connection)

    def server_close(self) -> None:
        for connection in list(self.connections.values()):
            # A running one belongs to its thread, and goes with the process.
            if connection.state is not State.RUNNING:
                connection.close()
        super().server_close()

    def take_census(self) -> None:
        """Publish how many connections do something else than being idle or running."""
        reading = len(self.head.entries) + len(self.body.entries) + len(self.introductions.entries)
        writing = len(self.sending.entries) + len(self.linger.entries)
        awaiting = len(self.threads.waiting) if self.threads is not None else 0
        self.cell.census(reading, writing, awaiting)
        self.has_census = reading + writing + awaiting > 0

    def make_room(self) -> bool:
        """Close the connection that has been idle for the longest time."""
        for connection in self.keep_alive.entries:
            self.cell.add_refused("connections")
            connection.close()
            return True
        return False

    def has_room(self) -> bool:
        return super().has_room() or bool(self.keep_alive.entries)

    def handler_failed(self, fd: int) -> None:
        super().handler_failed(fd)
        connection = self.connections.get(fd)
        if connection is not None and connection.state is not State.RUNNING:
            connection.abort()
            connection.close()
