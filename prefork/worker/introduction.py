"""A connection whose proxy has yet to say whose it is, by the PROXY protocol; runs only in a worker.

It lives from accept to the end of the PROXY header, and leaves every byte after that in the socket.
"""

from __future__ import annotations

from socket import MSG_DONTWAIT, MSG_PEEK, socket
from typing import TYPE_CHECKING, Any

from prefork.http.proxy_protocol import MAX_BINARY_BYTES, bytes_of_header, parse_proxy_header
from prefork.worker.connection_state import State
from prefork.worker.peers import peer_name

if TYPE_CHECKING:
    from prefork.worker.entrance import Entrance
    from prefork.worker.http_server import HTTPServer

SILENT = "the PROXY header did not arrive in time"


class Introduction:
    """What there is of a connection before its client is known. Owned by the loop."""

    __slots__ = ("_raw", "address", "entrance", "fd", "server", "sock", "state")

    def __init__(self, server: HTTPServer, sock: socket, address: Any, entrance: Entrance) -> None:
        self.server = server
        self.sock = sock
        self.address = address
        self.entrance = entrance
        self.fd = sock.fileno()
        self.state = State.INTRODUCTION
        self._raw = b""

    def start(self) -> None:
        """Begin with a connection just accepted: mostly the header is already here."""
        if peer_name(self.address) not in self.server.peers.trust:
            self._refuse("it is not in proxy.trust")
            return
        self.server.loop.watch(self.fd, self._on_readable)
        self.server.introductions.start(self)
        self._on_readable(0)

    def expire(self) -> None:
        """Give up, after one more look."""
        self._on_readable(0)
        if self.state is State.INTRODUCTION:
            # A silent one is a health check of a port, or a client that opens ahead: nothing to complain of.
            if self._raw:
                self._refuse(SILENT)
            else:
                self.close()

    def close(self) -> None:
        """Close, without a word: who speaks to us is not known."""
        if self._leave():
            self.server.forget(self)
            self.sock.close()

    abort = close

    def _on_readable(self, events: int) -> None:
        if self.state is not State.INTRODUCTION:
            return
        known = len(self._raw)
        try:
            ahead = self.sock.recv(MAX_BINARY_BYTES, MSG_DONTWAIT | MSG_PEEK)
            if not ahead:
                self.close()
                return
            ours = bytes_of_header(self._raw + ahead) - known
            self._raw += self.sock.recv(ours, MSG_DONTWAIT)
            header = parse_proxy_header(self._raw)
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
            self.server.introduce(self, header)

    def _refuse(self, reason: str) -> None:
        self.server.note_refused_peer(self, reason)
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
