"""The web server of a worker: connections on the serve loop, complete requests to the gateway.

Runs in a worker's main thread; only ``work`` runs in application threads, when there are any.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import methodcaller
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from prefork import temporary
from prefork.errors import ExitStatus
from prefork.http.head import HeadLimits
from prefork.http.proxy_protocol import ProxyHeader
from prefork.http.sender import ProxyPolicy
from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.entrance import Entrance, entrances
from prefork.worker.exchange import ClientGone, Request, ThreadCell
from prefork.worker.gateway import Gateway
from prefork.worker.health import Health
from prefork.worker.introduction import Introduction
from prefork.worker.peers import Peers, peer_name
from prefork.worker.server import Cell, Log, Server, shown_address
from prefork.worker.storage import Storage

if TYPE_CHECKING:
    from ssl import SSLContext

NO_TLS: Mapping[int, SSLContext] = MappingProxyType({})
LINGER_S = 2.0
"""How long to read and drop what a client still sends after our last response."""

QUIET_S = 1.0
"""While draining, a connection that is idle for so long is closed; a request may have been on its way."""


class Timeouts(Protocol):
    """``timeouts`` of the config, in seconds; 0 for none."""

    @property
    def keep_alive(self) -> float: ...

    @property
    def head(self) -> float: ...

    @property
    def body(self) -> float: ...

    @property
    def send(self) -> float: ...


class Limits(Protocol):
    """``limits`` of the config, in bytes or numbers."""

    @property
    def request_line(self) -> int: ...

    @property
    def fields(self) -> int: ...

    @property
    def head(self) -> int: ...

    @property
    def body(self) -> int: ...

    @property
    def body_memory(self) -> int: ...

    @property
    def response_memory(self) -> int: ...

    @property
    def memory(self) -> int: ...

    @property
    def spool(self) -> int: ...

    @property
    def connections(self) -> int: ...


class HTTPServer(Server):
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
        before_wait: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(listeners, log, cell, threads=threads, connections=limits.connections)
        self.gateway = gateway
        self.limits = HeadLimits(limits.request_line, limits.fields, limits.head, limits.body)
        self.storage = Storage(limits.memory, limits.spool, temporary.directory(tmp_dir), log)
        self.body_memory_bytes = limits.body_memory
        self.response_memory_bytes = limits.response_memory
        self.peers = Peers(proxies or ProxyPolicy(), self.limits)
        self.health = health
        self._before_wait = before_wait
        make = self.loop.deadlines
        self.keeps_connections = timeouts.keep_alive > 0
        """May a client send another request on its connection? Not while draining."""
        # A connection that is not to be kept, too, has some time for the first byte of its one request.
        self.keep_alive = make(timeouts.keep_alive or timeouts.head, Connection.expire_idle)
        self.head = make(timeouts.head, methodcaller("expire_head"))
        self.body = make(timeouts.body, Connection.expire_body)
        self.sending = make(timeouts.send, Connection.expire_sending)
        self.linger = make(LINGER_S, methodcaller("close"))
        self._quiet = False
        self._connections: dict[int, Connection | Introduction] = {}
        if introduced:
            self.introductions = make(timeouts.head, Introduction.expire)
        self._entrances = entrances(listeners, introduced, tls)

    def service_actions(self) -> None:
        if self._before_wait is not None:
            self._before_wait()

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
            self._open(request, entrance, entrance.local, client_address, peer_name(client_address))

    def introduce(self, introduction: Introduction, header: ProxyHeader) -> None:
        """Serve a connection whose proxy has told whose it is."""
        entrance, client = introduction.entrance, introduction.address
        # The bytes are those of somebody behind the proxy, who is not to be trusted like the proxy. Not even after
        # LOCAL, which HAProxy sends for clients on unix sockets, too.
        local, peer = entrance.local, ""
        if header.endpoints is not None:
            peer, port, destination, destination_port = header.endpoints
            local, client = (destination, str(destination_port)), (peer, port)
        self._open(introduction.sock, entrance, local, client, peer)

    def _open(
        self, sock: socket.socket, entrance: Entrance, local: tuple[str, str], client: Any, peer: str
    ) -> None:
        """Begin with a connection; ``peer`` is whom its requests are trusted as, see ``peer_name``."""
        host, port = client[:2] if isinstance(client, tuple) else ("", "")
        base = self.gateway.connection_environ(*local, host, str(port), entrance.scheme)
        parser = self.peers.parser(peer, entrance.scheme)
        self._start(entrance.make(self, sock, client, base, parser))

    def _start(self, connection: Connection | Introduction) -> None:
        self._connections[connection.fd] = connection
        try:
            connection.start()
        except Exception:
            self.handler_failed(connection.fd)

    def work(self, item: Connection, cell: ThreadCell) -> None:
        request = item.request
        assert request is not None
        item.cell = cell
        item.keep = False
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

    def done(self, item: Connection) -> None:
        item.finish()

    def announce_closing(self) -> None:
        super().announce_closing()
        self._keep_no_more()

    def drain(self, final: bool = False) -> None:
        super().drain(final)
        self._keep_no_more()
        if not final and not self._quiet:
            self._quiet = True
            self.keep_alive.timeout_s = min(QUIET_S, self.keep_alive.timeout_s or QUIET_S)
            for connection in list(self.keep_alive.entries):
                self.keep_alive.start(connection)

    def _keep_no_more(self) -> None:
        """Announce in every response from now on that its connection will close."""
        self.keeps_connections = False
        for connection in self._connections.values():
            if isinstance(connection, Connection) and connection.state is State.RUNNING:
                request = connection.request
                if request is not None and not connection.raw:
                    request.keep_alive = False

    def disown(self) -> list[int]:
        self.storage.after_fork()
        return [*super().disown(), *self._connections]

    def server_close(self) -> None:
        for connection in list(self._connections.values()):
            # A running one belongs to its thread, and goes with the process.
            if connection.state is not State.RUNNING:
                connection.close()
        super().server_close()

    def make_room(self) -> bool:
        """Close the connection that has been idle for the longest time."""
        for connection in self.keep_alive.entries:
            connection.close()
            return True
        return False

    def has_room(self) -> bool:
        return super().has_room() or bool(self.keep_alive.entries)

    def handler_failed(self, fd: int) -> None:
        super().handler_failed(fd)
        connection = self._connections.get(fd)
        if connection is not None and connection.state is not State.RUNNING:
            connection.abort()
            connection.close()

    def note_refusal(self, connection: Connection, status: int, reason: str) -> None:
        """Count and log a request that the application does not see."""
        self.cell.add_refused()
        self.log.info(
            "request-refused",
            f"answered {status} to {shown_address(connection.address)}: {reason}",
            status=status,
        )

    def note_refused_peer(self, introduction: Introduction, reason: str) -> None:
        """Count a connection that does not introduce its client, and log it the first time from a peer."""
        self.cell.add_refused()
        if self.peers.is_news(peer_name(introduction.address)):
            self.log.warning(
                "proxy-header-refused",
                f"closed the connection from {shown_address(introduction.address)} to a listener with "
                f"proxy_protocol: {reason}; more of these from there are not logged",
            )

    def note_slow_reader(self, address: Any, reason: str) -> None:
        """Count and log a connection that is cut off because its client does not read the response."""
        self.cell.add_refused()
        self.log.info("slow-reader-cut", f"cut off {shown_address(address)}: {reason}")

    def note_tls_failure(self, connection: Connection, reason: str) -> None:
        """Count and log a connection that ends because of its TLS, mostly in the handshake."""
        self.cell.add_refused()
        self.log.info("tls-failed", f"no TLS with {shown_address(connection.address)}: {reason}")

    def forget(self, connection: Connection | Introduction) -> None:
        """Drop all that is known of a connection that is about to be closed."""
        if isinstance(connection, Connection):
            for queue in (self.keep_alive, self.head, self.body, self.sending, self.linger):
                queue.stop(connection, None)
        del self._connections[connection.fd]
        self.note_closed()
