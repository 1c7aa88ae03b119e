"""A connection whose proxy has yet to say whose it is, by the PROXY protocol; runs only in a worker.

It lives from accept to the end of the PROXY header, and leaves every byte after that in the socket.
"""

from __future__ import annotations

from socket import MSG_DONTWAIT, MSG_PEEK, socket
from typing import TYPE_CHECKING, Any

from prefork.http.proxy_protocol import MAX_BINARY_BYTES, ProxyHeader, bytes_of_header, parse_proxy_header
from prefork.worker.connection_state import State
from prefork.worker.handover import Origin
from prefork.worker.peers import peer_name

if TYPE_CHECKING:
    from prefork.worker.entrance import Entrance
    from prefork.worker.http_server import HTTPServer

SILENT = "the PROXY header did not arrive in time"


class Introduction:
    """What there is of a connection before its client is known. Owned by the loop."""

    __slots__ = ("address", "entrance", "fd", "raw", "server", "sock", "state")

    def __init__(
        self, server: HTTPServer, sock: socket, address: Any, entrance: Entrance, raw: bytes = b""
    ) -> None:
        self.server = server
        self.sock = sock
        self.address = address
        self.entrance = entrance
        self.fd = sock.fileno()
        self.state = State.INTRODUCTION
        self.raw = raw

    def start(self) -> None:
        """Begin with a connection just accepted: mostly the header is already here."""
        self.wait()
        self.on_readable(0)

    def wait(self) -> None:
        """Begin without a look at what may have come."""
        if peer_name(self.address) not in self.server.peers.trust:
            self._refuse("it is not in proxy.trust")
            return
        self.go_on()
        self.server.has_census = True
        self.server.introductions.start(self)

    # What is asked of it when it goes to another worker, or comes from one; see ``sharing``.

    def pause(self) -> None:
        """Be told of nothing by the loop: another process may be, soon."""
        self.server.loop.unwatch(self.fd)

    def go_on(self) -> None:
        """Be told by the loop."""
        self.server.loop.watch(self.fd, self.on_readable)

    def shorten(self, due: float) -> None:
        """Have the deadline end at ``due`` if that is earlier."""
        if self in self.server.introductions.entries:
            self.server.introductions.start_at(self, due)

    def attend(self, events: int) -> bool:
        """Called by the steward while the main thread is in the application: another worker is to read it."""
        return True

    def on_readable(self, events: int) -> None:
        """Receive the header, and not one byte more. Called by the loop, perhaps without cause."""
        if self.state is not State.INTRODUCTION:
            return
        known = len(self.raw)
        try:
            ahead = self.sock.recv(MAX_BINARY_BYTES, MSG_DONTWAIT | MSG_PEEK)
            if not ahead:
                self.close()
                return
            ours = bytes_of_header(self.raw + ahead) - known
            self.raw += self.sock.recv(ours, MSG_DONTWAIT)
            header = parse_proxy_header(self.raw)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        except ValueError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._leave()
            self.server.introduce(self, self._origin(header))

    def _origin(self, header: ProxyHeader) -> Origin:
        # The bytes are those of somebody behind the proxy, who is not to be trusted like the proxy. Not even after
        # LOCAL, which HAProxy sends for clients on unix sockets, too.
        if header.endpoints is None:
            return Origin(self.entrance.local, self.address, "")
        peer, port, destination, destination_port = header.endpoints
        return Origin((destination, str(destination_port)), (peer, port), peer)

    def expire(self) -> None:
        """Give up, after one more look."""
        self.on_readable(0)
        if self.state is State.INTRODUCTION:
            # A silent one is a health check of a port, or a client that opens ahead: nothing to complain of.
            if self.raw:
                self._refuse(SILENT)
            else:
                self.close()

    def close(self) -> None:
        """Close, without a word: who speaks to us is not known."""
        if self._leave():
            self.server.forget(self)
            self.sock.close()

    abort = close

    def _refuse(self, reason: str) -> None:
        self.server.complaints.note_refused_peer(self, reason)
        self.close()

    def _leave(self) -> bool:
        """Take it out of the loop; return whether it was still there."""
        if self.state is State.CLOSED:
            return False
        self.state = State.CLOSED
        if self.fd in self.server.loop.handlers:
            self.server.loop.unwatch(self.fd)
        self.server.introductions.stop(self, None)
        return True
