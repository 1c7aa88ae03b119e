"""A worker's part in the sharing of connections: passing them on to siblings, and adopting theirs.

Runs in a worker, in whoever has the baton: the thread of the serve loop, or the steward. The protocol, and the
races it was made for, are in docs/decisions/0010-relay-and-steward.md.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable
from time import monotonic, monotonic_ns, sleep
from typing import TYPE_CHECKING

from prefork.worker import portable
from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.deadlines import Deadlines
from prefork.worker.entrance import Entrance
from prefork.worker.handover import Handover, Stage
from prefork.worker.introduction import Introduction
from prefork.worker.relay import Relay
from prefork.worker.steward import TICK_S
from prefork.worker.storage import SpoolFile

if TYPE_CHECKING:
    from prefork.worker.http_server import HTTPServer

FULL_S = 0.02
"""How long a worker that leaves waits for room in the relay."""

SLACK = 8
"""How many connections more than the mean of its siblings a worker may adopt without letting them go first."""

MOST_EVENTS = 256
"""What the steward looks at in a tick: the main thread may have to wait for it."""


class Sharing:
    """Passes connections of ``server`` on by the relay, and adopts what comes from there.

    ``passes_on``: no if it only adopts, since the generation before shared its connections. ``ready`` returns the
    numbers of open connections of the workers that are ready, this one included. ``orders``: descriptors whose
    handlers must not wait until the application returns. After ``give_up_s`` a worker that leaves closes what it
    could not hand over.
    """

    def __init__(
        self,
        server: HTTPServer,
        relay: Relay,
        ready: Callable[[], list[int]],
        *,
        passes_on: bool,
        orders: Collection[int],
        give_up_s: float,
    ) -> None:
        self.passes_on = passes_on
        self._server = server
        self._relay = relay
        self._ready = ready
        self._orders = frozenset(orders)
        self._is_blocked = False
        """Was the last connection that could go refused by the relay?"""
        self._has_takers: bool | None = None
        """While attending: is there another worker? None: nobody has asked yet."""
        make = server.loop.deadlines
        self._retry: Deadlines[None] = make(FULL_S, lambda _: self._pass_on_rest())
        self._give_up: Deadlines[None] = make(give_up_s, lambda _: self._pass_on_rest())
        self._patience: Deadlines[None] = make(TICK_S, lambda _: self._pass_on_waiting())

    def pass_on(self, connection: Connection | Introduction) -> bool:
        """Send a connection to whoever is free; return whether it is gone.

        It is out of our epoll before it is sent: the kernel would go on reporting a number that we close.
        """
        parcel = portable.pack(connection)
        if parcel is None:
            return False
        connection.pause()
        self._is_blocked = not self._relay.send(*parcel)
        if self._is_blocked:
            connection.go_on()
            if self._server.is_leaving:
                self._wait_for_room()
            return False
        self._server.cell.add_handed_over()
        connection.close()
        return True

    def adopt(self, sock: socket.socket, handover: Handover, spool_fd: int | None) -> None:
        """Go on with a connection where a sibling has left off."""
        server = self._server
        spool = None if spool_fd is None else SpoolFile(server.storage, spool_fd, handover.spooled_bytes or 0)
        entrance = Entrance(handover.origin.local, "http", handover.stage is Stage.INTRODUCTION, Connection)
        connection: Connection | Introduction
        if handover.stage is Stage.INTRODUCTION:
            connection = Introduction(server, sock, handover.origin.client, entrance, handover.raw)
        else:
            connection = server.new_connection(sock, handover.origin, entrance)
        server.connections[connection.fd] = connection
        if server.queueing is not None and isinstance(connection, Connection):
            server.queueing.taken(connection, handover)
        try:
            portable.resume(connection, handover, spool)
        except Exception:
            server.handler_failed(connection.fd)
        if server.is_leaving:
            self.pass_on(connection)
        elif handover.is_idle and self._has_more_than_its_share():
            server.acceptor.let_siblings_take()

    def leave(self) -> None:
        """Hand over everything, what is running when that is done."""
        server = self._server
        if not server.is_leaving:
            server.is_leaving = True
            server.keep_no_more(private_only=True)
            self._give_up.start(None)
            for connection in [c for c in server.keep_alive.entries if c.is_private]:
                connection.expect_end()
            self._pass_on_rest()

    def leave_at_once(self, until: float) -> None:
        """Hand over everything but what runs, before the process ends; called by the steward, with the baton.

        Waits until the instant ``until`` (monotonic seconds) for a full relay, and for readers of responses.
        """
        server = self._server
        server.is_leaving = self.passes_on
        self._give_up.start(None)
        server.acceptor.close(relay=True)
        self.attend()
        self.attend_while(lambda: monotonic() < until and (self._is_blocked or bool(server.sending.entries)))

    def attend_while(self, condition: Callable[[], bool]) -> None:
        """Stand in for the loop, whose thread will not come back; called by the steward, with the baton."""
        while condition():
            sleep(TICK_S)
            self.attend()

    def thread_awaited(self) -> None:
        """A complete request has found no free thread: soon another worker may have it."""
        if not self.passes_on:
            return
        if self._all_run_for_long():
            self._server.loop.soon.append(self._pass_on_waiting)
        elif not self._patience.entries:
            self._patience.start(None)

    def attend(self) -> None:
        """Do the loop's work while its thread is in the application; called by the steward, with the baton."""
        try:
            self._attend()
            if self._server.has_census:
                self._server.take_census()
        except Exception:
            self._server.handler_failed(-1)  # the steward lives on, as the loop does

    def _attend(self) -> None:
        server = self._server
        self._has_takers = None
        self._is_blocked = False
        for fd, events in server.loop.epoll.poll(0, MOST_EVENTS):
            connection = server.connections.get(fd)
            try:
                if connection is not None:
                    if connection.attend(events):
                        self._offer(connection)
                elif fd in self._orders:
                    server.acceptor.owes_a_take = False
                    server.loop.handlers[fd](events)
            except Exception:
                server.handler_failed(fd)
            server.acceptor.owes_a_take = True
        self._settle_taken()
        if server.is_leaving:
            self._pass_on_all(list(server.connections.values()))
        elif server.loop.soon:
            for connection in list(server.connections.values()):
                if connection.state is State.NEXT:
                    self._offer(connection)

    def _offer(self, connection: Connection | Introduction) -> None:
        """Pass on a connection that waits for the application, if there is anybody for it."""
        if self._has_takers is None:  # in most ticks nobody asks
            self._has_takers = self.passes_on and (self._server.is_leaving or self._has_siblings())
        if self._has_takers and not self._is_blocked:
            self.pass_on(connection)

    def _settle_taken(self) -> None:
        """Put what an order has made the acceptor take where it can be served from, here or elsewhere."""
        acceptor = self._server.acceptor
        for _ in range(len(acceptor.taken)):
            sock, told, source = acceptor.taken.popleft()
            if not isinstance(source, Relay):
                self._server.admit_later(sock, told, source)
            elif self._send_back(sock, *told):
                sock.close()
            else:
                acceptor.taken.append((sock, told, source))

    def _send_back(self, sock: socket.socket, handover: Handover, spool_fd: int | None) -> bool:
        fds = [sock.fileno()] if spool_fd is None else [sock.fileno(), spool_fd]
        if not self._relay.send(handover, fds):
            return False
        if spool_fd is not None:
            os.close(spool_fd)
        return True

    def _pass_on_all(self, connections: Iterable[Connection | Introduction]) -> None:
        """Send all that can go, until the relay is full."""
        self._is_blocked = False
        for connection in connections:
            self.pass_on(connection)
            if self._is_blocked:
                break

    def _pass_on_waiting(self) -> None:
        """Hand over the requests that still wait for a thread."""
        threads = self._server.threads
        if threads is None or not threads.waiting:
            return
        if self._has_siblings():
            self._pass_on_all(threads.waiting)
            still = [connection for connection in threads.waiting if connection.state is State.WAITING]
            threads.waiting.clear()
            threads.waiting.extend(still)
        if threads.waiting:
            self._patience.start(None)

    def _all_run_for_long(self) -> bool:
        """Has every thread been in one request for longer than a tick?"""
        latest_ns = monotonic_ns() - int(TICK_S * 1e9)
        return all(0 < cell.pulse()[0] <= latest_ns for cell in self._server.cell.threads)

    def _pass_on_rest(self) -> None:
        self._pass_on_all(list(self._server.connections.values()))

    def _wait_for_room(self) -> None:
        if self._give_up.entries:
            if not self._retry.entries:
                self._retry.start(None)
        else:
            # The siblings do not take everything in time: end as if there were none.
            self._server.keep_no_more()
            self._server.be_quiet()

    def _has_siblings(self) -> bool:
        return len(self._ready()) > 1

    def _has_more_than_its_share(self) -> bool:
        ready = self._ready()
        return len(ready) > 1 and self._server.open_connections > sum(ready) / len(ready) + SLACK
