"""The serve loop of a worker: a blocking-socket server with the names of ``socketserver``.

Runs in a worker's main thread. ``Server`` hands each accepted socket to ``process_request``; a subclass that
overrides it is a complete service. ``http_server.HTTPServer`` is the web server on the same loop. How
both end is in ``ends``.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from prefork.errors import ExitStatus
from prefork.worker.accepting import Acceptor, Source
from prefork.worker.ends import Ends
from prefork.worker.exchange import ThreadCell
from prefork.worker.loop import MOST_EVENTS, Loop
from prefork.worker.peers import shown_address
from prefork.worker.relay import Relay
from prefork.worker.surroundings import Cell, Log
from prefork.worker.threads import ApplicationThreads

MOST_HANDED_OVER = 16
"""How many connections of siblings go before our own in a turn."""


class Server(Ends):
    """Accept connections and process each one, blocking; up to ``threads`` at a time.

    Make it after the fork. ``listeners`` are shared with the other workers; they are closed, never shut down.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        log: Log,
        cell: Cell,
        *,
        threads: int = 1,
        connections: int = 10_000,
    ) -> None:
        loop = Loop()
        super().__init__(loop, Acceptor(loop, listeners, self.get_request, self.is_full, self.make_room, log))
        self.log = log
        self.cell = cell
        self.main_cell = cell.threads[0]
        self.is_fork = False
        """Is this a process that the application has forked from the worker?"""
        self.open_connections = 0
        self.max_connections = connections
        self.before_turn: Callable[[], None] | None = None
        """Called in each turn of the loop, whatever a subclass does in ``service_actions``."""
        if threads > 1:
            self.threads = ApplicationThreads(
                cell.threads[:threads], self.loop, self.acceptor, self.work, self.done, self.begin
            )

    # The names of socketserver. Override process_request, and the others as needed.

    def serve_forever(self) -> None:
        """Serve until told to end, and nothing is left to finish. Idle, it makes no wake-ups."""
        self.main_cell.bind()
        loop, acceptor = self.loop, self.acceptor
        acceptor.open()
        try:
            while not self._stopped:
                if self._ending and not self.open_connections and not self.take_last():
                    # An order may have come since: to stop, when nobody is left to take what we have sent.
                    if not (events := loop.epoll.poll(0)):
                        break
                    self._serve(events)
                    continue
                self.service_actions()
                if self.before_turn is not None:
                    self.before_turn()
                self._serve(loop.wait())
        finally:
            self.server_close()

    def service_actions(self) -> None:
        """Called in each turn of the loop, before it waits."""

    def get_request(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection from ``listener``; return the socket, in blocking mode, and the client's
        address.

        Raises ``BlockingIOError`` when there is none.
        """
        return listener.accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether to serve the new connection ``request``; it is closed otherwise."""
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve ``request``, a blocking socket, to its end. To be overridden."""
        raise NotImplementedError("a service is a subclass of Server that overrides process_request")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that ``process_request`` or ``verify_request`` raised."""
        self.log.error(
            "request-failed",
            f"serving {shown_address(client_address)} failed: {sys.exc_info()[1]!r}",
            traceback=traceback.format_exc(),
        )

    def shutdown_request(self, request: socket.socket) -> None:
        """End a connection: say that no more comes, and close it."""
        try:
            request.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The client was faster.
        request.close()

    def server_close(self) -> None:
        """Close what the loop holds. Called at the end of ``serve_forever``."""
        self.acceptor.close(relay=False)
        for request, *_ in self.acceptor.taken:
            request.close()
        self.loop.close()

    # For the worker around the server; all in the loop's thread.

    def use_relay(self, relay: Relay) -> None:
        """Be woken by nudges. To be called before ``serve_forever``."""
        self.acceptor.relay = relay

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` from the loop whenever ``fd`` is readable or hung up, until ``unwatch(fd)``."""
        self.loop.watch(fd, lambda events: callback())

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no more; to be called before it is closed."""
        self.loop.unwatch(fd)

    def disown(self) -> list[int]:
        """Return the descriptors that the loop owns; called in a process that the application has forked.

        It is no second worker: it ends at the latest when the application returns.
        """
        self.is_fork = True
        return [self.loop.epoll.fileno(), *self.acceptor.descriptors()]

    # What a subclass may replace to treat connections otherwise than one after the other.

    def admit(self, request: socket.socket, client_address: Any, listener: socket.socket) -> None:
        """Begin with a verified new connection."""
        self.cell.census(0, 0, self.open_connections)  # each runs, or waits for a thread
        if self.threads is None:
            self.work((request, client_address), self.main_cell)
            self.done((request, client_address))
        else:
            self.threads.submit((request, client_address))

    def work(self, item: Any, cell: ThreadCell) -> None:
        """Run the application, in whichever thread; must not raise."""
        try:
            self.process_request(*item)
        except BaseException:
            self.handle_error(*item)
        if self.is_fork:
            os._exit(ExitStatus.INTERNAL)

    def begin(self, item: Any) -> bool:
        """Begin with an item that waited for a thread; return False if that is no longer needed."""
        return True

    def done(self, item: Any) -> None:
        """Take back an item after ``work``, in the loop's thread."""
        self.shutdown_request(item[0])
        self.note_closed()
        self.cell.census(0, 0, self.open_connections)

    def take_last(self) -> bool:
        """Before the end, begin with what nobody else will take; return whether there is something to finish."""
        return False

    def adopt(self, request: socket.socket, handed_over: Any) -> None:
        """Go on with a connection that a sibling has handed over, which to a plain service means nothing."""
        self.log.warning("handover-lost", "closed a connection of another kind of server")
        request.close()
        if (spool_fd := handed_over[1]) is not None:
            os.close(spool_fd)
        self.note_closed()

    def make_room(self) -> bool:
        """Close a connection that nobody will miss; return whether there was one."""
        return False

    def do_chore(self, chore: Callable[[bool], None]) -> bool:
        """Have ``chore(last)`` called about once a second while requests come, in another thread than the loop's.

        ``last``: nothing has come for a second, and there will be no more calls until something does. Returns False
        if there is no such thread.
        """
        return False

    def is_full(self) -> bool:
        """Return whether there are as many connections as there may be."""
        return self.open_connections >= self.max_connections

    def has_room(self) -> bool:
        """Return whether one more connection may be taken."""
        return not self.is_full()

    def handler_failed(self, fd: int) -> None:
        """Log an exception that a handler of ``fd`` let out, so that the loop lives on."""
        self.log.error("internal-error", f"serving descriptor {fd} failed", traceback=traceback.format_exc())

    def note_closed(self) -> None:
        """Count one connection less."""
        self.open_connections -= 1
        self.cell.connections(self.open_connections)

    # The loop's turn.

    def _serve(self, events: list[tuple[int, int]]) -> None:
        acceptor = self.acceptor
        handlers = self.loop.handlers
        # Take first, then serve: whatever else takes time, no sibling is woken for this connection.
        has_adopted = False
        for fd, _ in events:
            if fd in acceptor.listening:
                source = acceptor.listening[fd]
                has_adopted |= acceptor.take(source) and source is acceptor.relay
        if len(events) >= MOST_EVENTS:
            acceptor.take_one_of_each()  # what woke us may not be among them
        if acceptor.taken:
            self._admit_taken()
        if has_adopted:
            self._serve_handed_over()
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler(mask)
                except Exception:
                    self.handler_failed(fd)
        try:
            self.loop.finish_turn()
        except Exception:
            self.handler_failed(-1)
        if acceptor.reasons or self.open_connections >= self.max_connections:
            if self.has_room():
                acceptor.release("connections")
            else:
                acceptor.hold("connections")
        if acceptor.taken:
            self._admit_taken()

    def _serve_handed_over(self) -> None:
        """Go on with what siblings have handed over: it has waited for longer than what is ours.

        With one in a turn, beside all of ours, an overloaded pool leaves some waiting for a second slow request.
        """
        acceptor = self.acceptor
        for _ in range(MOST_HANDED_OVER):
            relay = acceptor.relay
            if relay is None or relay.fileno() not in acceptor.listening or not acceptor.take(relay):
                break
            self._admit_taken()

    def _admit_taken(self) -> None:
        taken = self.acceptor.taken
        while taken:
            self._admit(*taken.popleft())

    def _admit(self, request: socket.socket, client_address: Any, source: Source) -> None:
        self.open_connections += 1
        self.cell.connections(self.open_connections)
        if self.open_connections > self.max_connections:
            self.make_room()
        if isinstance(source, Relay):
            self.cell.add_adopted()
            self.adopt(request, client_address)
            return
        self.cell.add_accepted()
        try:
            if self.verify_request(request, client_address):
                self.admit(request, client_address, source)
            else:
                self.cell.add_refused("application")
                self.shutdown_request(request)
                self.note_closed()
        except Exception:
            self.handle_error(request, client_address)
            self.shutdown_request(request)
            self.note_closed()
