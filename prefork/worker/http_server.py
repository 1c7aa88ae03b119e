"""The web server of a worker: connections on the serve loop, complete requests to the gateway.

Runs in a worker's main thread, or in the steward while that has the baton; only ``work`` runs in application
threads, when there are any.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prefork import temporary
from prefork.errors import ExitStatus
from prefork.http.head import HeadLimits
from prefork.http.sender import ProxyPolicy
from prefork.worker.accepting import Source
from prefork.worker.background import BackgroundSender
from prefork.worker.complaints import Complaints
from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.entrance import Entrance, entrances
from prefork.worker.exchange import ClientGone, Request, ThreadCell
from prefork.worker.gateway import Gateway
from prefork.worker.handover import Handover, Origin
from prefork.worker.health import Health
from prefork.worker.introduction import Introduction
from prefork.worker.keeping import KeepingServer
from prefork.worker.late import LateRequests, TellMaster
from prefork.worker.lookout import Lookout, Rounds
from prefork.worker.peers import Peers, peer_name
from prefork.worker.queueing import Queueing
from prefork.worker.relay import Relay
from prefork.worker.request_hooks import Late as LateHook
from prefork.worker.settings import Limits, Timeouts
from prefork.worker.sharing import Sharing
from prefork.worker.steward import Steward
from prefork.worker.storage import Storage
from prefork.worker.surroundings import Cell, Log

if TYPE_CHECKING:
    from ssl import SSLContext

NO_TLS: Mapping[int, SSLContext] = MappingProxyType({})


class HTTPServer(KeepingServer):
    """Serve HTTP/1.1; the application runs only for complete requests.

    ``tls`` has the contexts of listeners by their descriptors; those that are not in it are plain.
    ``before_wait`` is called in each turn of the loop; what is buffered, such as the access log, is written there.
    ``introduced``: descriptors of the listeners that speak the PROXY protocol.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        log: Log,
        cell: Cell,
        gateway: Gateway,
        *,
        timeouts: Timeouts,
        limits: Limits,
        threads: int = 1,
        tls: Mapping[int, SSLContext] = NO_TLS,
        tmp_dir: str | None = None,
        proxies: ProxyPolicy | None = None,
        introduced: Collection[int] = (),
        health: Health | None = None,
        queueing: Queueing | None = None,
        before_wait: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(listeners, log, cell, timeouts, threads=threads, connections=limits.connections)
        self.gateway = gateway
        self.limits = HeadLimits(limits.request_line, limits.fields, limits.head, limits.body)
        self.storage = Storage(limits.memory, limits.spool, temporary.directory(tmp_dir), log)
        self.background = BackgroundSender(log)
        self.body_memory_bytes = limits.body_memory
        self.response_memory_bytes = limits.response_memory
        self.peers = Peers(proxies or ProxyPolicy(), self.limits)
        self.complaints = Complaints(log, cell, self.peers)
        self.health = health
        self.queueing = queueing
        self.screens = health is not None or queueing is not None
        """Are there requests that do not get to the application?"""
        self._before_wait = before_wait
        self.is_leaving = False
        """Do others go on with the connections, as soon as they can be handed over?"""
        self.sharing: Sharing | None = None
        self._steward: Steward | None = None
        self.rounds: Rounds | None = None
        self._has_others_first = False
        self._entrances = entrances(listeners, introduced, tls)

    def share_connections(
        self,
        relay: Relay,
        ready: Callable[[], list[int]],
        *,
        passes_on: bool = True,
        orders: Collection[int] = (),
        give_up_s: float = 10.0,
    ) -> None:
        """Share connections with the other workers by ``relay``; see ``Sharing`` for the arguments. To be called
        before ``serve_forever``."""
        self.use_relay(relay)
        self.sharing = Sharing(self, relay, ready, passes_on=passes_on, orders=orders, give_up_s=give_up_s)
        if passes_on and self.threads is None:
            self._employ_steward()

    def _employ_steward(self) -> Steward:
        """Have a steward from now on, if there is none."""
        if self._steward is None:
            assert self.sharing is not None
            self._steward = Steward(self.main_cell, self.sharing.attend)
        return self._steward

    def do_chore(self, chore: Callable[[bool], None]) -> bool:
        if self._steward is None:
            return False
        self._steward.chore = chore
        return True

    def watch_requests(
        self,
        tell_master: TellMaster,
        hook: LateHook | None = None,
        *,
        graceful_s: float,
        before_exit: Callable[[], None],
    ) -> None:
        """Report slow requests and end the worker for late ones; see ``LateRequests`` for the arguments. To be called
        after ``share_connections`` and before ``serve_forever``."""
        late = LateRequests(self, tell_master, hook, graceful_s, before_exit)
        lookout = Lookout(self.cell.threads, late.slow, late.overdue, lambda: self.handler_failed(-1))
        if self.threads is not None:
            self.rounds = Rounds(self.loop, lookout)
        else:
            self._employ_steward().lookout = lookout

    def service_actions(self) -> None:
        if self._before_wait is not None:
            self._before_wait()
        if self.has_census:
            self.take_census()

    def process_request(self, request: Request, client_address: Connection) -> None:
        """Have the application answer the complete ``request``.

        The second argument is the connection that the answer goes to; its ``address`` is the client's.
        """
        connection = client_address
        connection.keep = self.gateway.respond(request, connection, connection.cell)

    def admit(self, request: socket.socket, client_address: Any, listener: socket.socket) -> None:
        entrance = self._entrances[listener]
        if entrance.introduced:
            self._start(Introduction(self, request, client_address, entrance))
        else:
            origin = Origin(entrance.local, client_address, peer_name(client_address))
            self._start(self.new_connection(request, origin, entrance))

    def introduce(self, introduction: Introduction, origin: Origin) -> None:
        """Serve a connection whose proxy has told whose it is."""
        self._start(self.new_connection(introduction.sock, origin, introduction.entrance))

    def new_connection(self, sock: socket.socket, origin: Origin, entrance: Entrance) -> Connection:
        client = origin.client
        host, port = client[:2] if isinstance(client, tuple) else ("", "")
        base = self.gateway.connection_environ(*origin.local, host, str(port), entrance.scheme)
        parser = self.peers.parser(origin.peer, entrance.scheme)
        return entrance.make(self, sock, origin, base, parser)

    def _start(self, connection: Connection | Introduction) -> None:
        self.connections[connection.fd] = connection
        if self.queueing is not None and isinstance(connection, Connection):
            self.queueing.taken(connection)
        try:
            if self._has_others_first:
                connection.wait()
            else:
                connection.start()
            if self.is_leaving:
                self.pass_on(connection)
        except Exception:
            self.handler_failed(connection.fd)

    def _admit_taken(self) -> None:
        taken = self.acceptor.taken
        if len(taken) > 1 and self.threads is None:
            # The first may keep us in the application: the others had better be where the steward sees them.
            first = taken.popleft()
            while taken:
                self.admit_later(*taken.popleft())
            taken.append(first)
        super()._admit_taken()

    def work(self, item: Connection, cell: ThreadCell) -> None:
        request = item.request
        assert request is not None
        item.cell = cell
        item.keep = False
        steward = self._steward
        if steward is not None:
            steward.baton.release()
            if steward.asleep:
                steward.wake()
        try:
            self.process_request(request, item)
        except ClientGone:
            item.abort()
        except BaseException:
            # Not even SystemExit may take the connection, or the thread, with it.
            self.handle_error(request, item.address)
            item.abort()
        if self.is_fork:
            os._exit(ExitStatus.INTERNAL)
        if steward is not None:
            steward.baton.acquire()

    def begin(self, item: Connection) -> bool:
        return item.begin()

    def done(self, item: Connection) -> None:
        item.finish()

    def announce_closing(self) -> None:
        super().announce_closing()
        self.keep_no_more()
        if self.is_leaving:
            # Those to whom it hands over may be gone before it is: it has to take, rather than send.
            self.is_leaving = False
            self.acceptor.return_to_relay()
            self.be_quiet()

    def drain(self, final: bool = False) -> None:
        super().drain(final)
        if self.sharing is None or not self.sharing.passes_on or self.closing:
            self.keep_no_more()
            if not final:
                self.be_quiet()
        elif not final:
            self.sharing.leave()

    def serve_forever(self) -> None:
        if self._steward is not None:
            self._steward.baton.acquire()
        super().serve_forever()

    def pass_on(self, connection: Connection | Introduction) -> bool:
        """Hand a connection over, if that can be; return whether it is gone."""
        return self.sharing is not None and self.sharing.pass_on(connection)

    def adopt(self, request: socket.socket, handed_over: tuple[Handover, int | None]) -> None:
        assert self.sharing is not None  # who has a relay shares
        self.sharing.adopt(request, *handed_over)

    def admit_later(self, request: socket.socket, client_address: Any, source: Source) -> None:
        """Begin with an accepted connection, but leave its first request to the loop."""
        self._has_others_first = True
        try:
            self._admit(request, client_address, source)
        finally:
            self._has_others_first = False

    def take_last(self) -> bool:
        if self.closing:
            self.acceptor.take_handed_over()
            while self.acceptor.taken:
                self._admit_taken()
                self.acceptor.take_handed_over()
        return self.open_connections > 0

    def disown(self) -> list[int]:
        self.storage.after_fork()
        return [*super().disown(), *self.background.disown(), *self.connections]

    def forget(self, connection: Connection | Introduction) -> None:
        """Drop all that is known of a connection that is about to be closed."""
        if isinstance(connection, Connection):
            if connection.state is not State.RUNNING:  # what runs waits for nothing of the client
                for queue in (self.keep_alive, self.head, self.body, self.sending, self.linger, self.quiet):
                    queue.stop(connection, None)
            if self.queueing is not None:
                self.queueing.forget(connection)
        del self.connections[connection.fd]
        self.note_closed()
