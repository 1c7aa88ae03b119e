"""One connection to the control socket, as the master sees it: lines in, lines out, and nobody is waited for.

Runs in the master. A client is *reading* (a request is to come, until a deadline), *working* (its request is
carried out, which may take its time), or *leaving* (what is left is sent, then it is closed). In every state a client
that is gone is dropped, and so is one that does not read what it is sent.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from prefork.control_protocol import LONGEST_REQUEST_BYTES, VERSION, encode
from prefork.errors import ExitStatus
from prefork.master.loop import Loop, Timer

SAY_S = 10.0
"""How long a client may take to say what it wants."""
SEND_S = 10.0
"""How long it may read nothing while something waits for it."""
MOST_PENDING_BYTES = 4 << 20
"""How much may wait for it."""


class Peer(NamedTuple):
    """Who is connected, as the kernel knows; ``pid`` is 0 if it is in another container."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        return cls(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


class ControlClient:
    """``on_request`` is given each line, and must cause one ``end`` for it; ``on_gone`` hears that it is closed."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        on_request: Callable[[ControlClient, bytes], None],
        on_gone: Callable[[ControlClient], None],
        peer: Peer,
    ) -> None:
        self.is_closed = False
        self.peer = peer
        self._sock = sock
        self._loop = loop
        self._on_request = on_request
        self._on_gone = on_gone
        self._received = bytearray()
        self._pending = bytearray()
        self._working = False
        self._leaving = False
        self._say_by: Timer | None = loop.call_later(SAY_S, self._silent)
        self._send_by: Timer | None = None
        sock.setblocking(False)
        self._events = select.EPOLLIN
        loop.watch_events(sock.fileno(), self._events, self._happened)

    def progress(self, **fields: Any) -> None:
        """Tell how far its request is."""
        self._send({"v": VERSION, "type": "progress", **fields})

    def end(self, message: str, status: ExitStatus = ExitStatus.OK, **fields: Any) -> None:
        """Tell the outcome of its request; the next one may come."""
        self._working = False
        self._send({"v": VERSION, "type": "end", "status": int(status), "message": message, **fields})
        if not self.is_closed and not self._leaving:
            self._say_by = self._loop.call_later(SAY_S, self._silent)
            self._loop.call_later(0, self._next)

    def leave(self) -> None:
        """Close the connection once everything is sent."""
        self._leaving = True
        self._stop_timer("_say_by")
        self._flush()

    def close(self) -> None:
        """Close the connection now."""
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_timer("_say_by")
        self._stop_timer("_send_by")
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._on_gone(self)

    def _happened(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & select.EPOLLIN and not self.is_closed:
            self._read()
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(LONGEST_REQUEST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.leave()
            return
        self._received += data
        self._next()

    def _next(self) -> None:
        """Take the next request if it is there as a whole."""
        if self.is_closed or self._working or self._leaving:
            return
        line, newline, rest = self._received.partition(b"\n")
        if len(line) > LONGEST_REQUEST_BYTES:
            self._working = True
            self._leaving = True
            self.end(
                f"a request has at most {LONGEST_REQUEST_BYTES} bytes, and ends with a newline",
                ExitStatus.USAGE,
            )
            self.leave()
        elif newline:
            self._received = rest
            self._working = True
            self._stop_timer("_say_by")
            self._on_request(self, bytes(line))
        self._watch()

    def _silent(self) -> None:
        self._say_by = None
        self.leave()

    def _send(self, message: dict[str, Any]) -> None:
        if self.is_closed:
            return
        self._pending += encode(message)
        self._flush()
        if len(self._pending) > MOST_PENDING_BYTES:
            self.close()

    def _flush(self) -> None:
        if self.is_closed:
            return
        sent = 0
        try:
            while self._pending:
                sent = self._sock.send(self._pending)
                del self._pending[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if sent or not self._pending:
            self._stop_timer("_send_by")
        if self._pending and self._send_by is None:
            self._send_by = self._loop.call_later(SEND_S, self.close)
        if self._leaving and not self._pending:
            self.close()
        self._watch()

    def _watch(self) -> None:
        """Watch for what matters now: reading goes on only between requests."""
        if self.is_closed:
            return
        events = 0 if self._working or self._leaving else select.EPOLLIN
        events |= select.EPOLLOUT if self._pending else 0
        if events != self._events:
            self._events = events
            self._loop.change_events(self._sock.fileno(), events)

    def _stop_timer(self, name: str) -> None:
        timer: Timer | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
