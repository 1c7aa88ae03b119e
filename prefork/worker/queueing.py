"""Requests that have waited too long before a worker took them: ``timeouts.queue``; runs only in a worker.

Their clients have mostly given up, and to run them late makes those behind them late as well. What is known of
the wait:

- with TCP how long ago the last bytes came (``TCP_INFO``), be it in a listener's queue or in the relay;
- with unix sockets for how long a connection was in the relay, which its sender has noted;
- ``X-Request-Start`` of a trusted proxy, in front of which requests may have queued, too.

Only what is complete when the worker takes it waits for us; the rest waits for its client.
"""

from __future__ import annotations

import re
import socket
import struct
from time import monotonic, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefork.http.head import Head
    from prefork.worker.connection import Connection
    from prefork.worker.handover import Handover
    from prefork.worker.incoming import Incoming

_TCP_INFO_BYTES = 56
_LAST_DATA_RECEIVED = struct.Struct("=52xI")
"""``tcpi_last_data_recv`` of ``struct tcp_info``, in milliseconds."""

_START = re.compile(r"(?:t=)?([0-9]{1,19}(?:\.[0-9]{1,9})?)")
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))
"""What a number at least that large is counted in, per second: proxies differ."""

MOST_S = 3600.0
"""A proxy that speaks of an earlier start has another clock."""


class Queueing:
    """Notes since when the first request of a connection has waited; ``limit_s`` is ``timeouts.queue``."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._since: dict[Incoming, float] = {}

    def taken(self, connection: Connection, handover: Handover | None = None) -> None:
        """Note a connection that was accepted, or adopted from a sibling."""
        now, sock = monotonic(), connection.sock
        waited_s = 0.0
        if sock.family != socket.AF_UNIX:
            waited_s = last_received_s(sock)
        elif handover is not None:
            waited_s = now - handover.sent_at
        if connection.is_private:
            # The first bytes are a handshake, and the rest of it takes the client's time.
            counts = waited_s > self.limit_s
        else:
            counts = (handover is not None and not handover.is_idle) or has_bytes(sock)
        if counts:
            self._since[connection] = now - waited_s

    def forget(self, connection: Incoming) -> None:
        """It waits for its client, or is gone."""
        self._since.pop(connection, None)

    def excess_s(self, connection: Connection, head: Head) -> float | None:
        """Return how long a complete request has waited if that is too long, else None."""
        since = self._since.pop(connection, None)
        waited_s = monotonic() - since if since is not None else 0.0
        told = head.environ.get("HTTP_X_REQUEST_START")
        if told is not None and connection.origin.peer in connection.server.peers.trust:
            waited_s = max(waited_s, since_start_s(told))
        return waited_s if waited_s > self.limit_s else None


def last_received_s(sock: socket.socket) -> float:
    """Return how long ago the last bytes came over TCP; 0 if that is not known."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return 0.0
    milliseconds: int = _LAST_DATA_RECEIVED.unpack(info)[0]
    return milliseconds / 1e3


def has_bytes(sock: socket.socket) -> bool:
    """Tell whether something of a request has come."""
    try:
        return bool(sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except OSError:
        return False


def since_start_s(text: str) -> float:
    """Return for how long a request is on its way, by what a proxy says of its start; 0 if that makes no sense."""
    match = _START.fullmatch(text.strip())
    if match is None:
        return 0.0
    number = float(match[1])
    waited_s = time() - number / next(unit for least, unit in _UNITS if number >= least)
    return waited_s if 0 < waited_s < MOST_S else 0.0
