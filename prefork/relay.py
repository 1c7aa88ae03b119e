"""The relay of a pool: the socket pair through which its workers hand connections to each other.

One ``SOCK_SEQPACKET`` pair for all generations of a pool. The master makes it and holds both ends for as long as the
pool lives, so that what is on its way outlives every worker; each worker inherits both. What the messages say is
between workers, see ``prefork.worker.handover``; the master sends none but nudges.
See docs/decisions/0010-relay-and-steward.md. Used by the master.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios

PROTOCOL = 3
"""Version of what is said in the relay: workers of different versions of prefork may share one."""

NUDGE = b"!"
"""A message without a connection: whoever gets it looks for work."""

_NUDGES = 16
"""More nudges than ever wait at a time."""

_TYPICAL_BYTES = 512
"""Of the message that goes with a connection."""

_SO_SNDBUFFORCE = 32
"""Not in Python's socket module; beyond net.core.wmem_max, for root. See socket(7)."""

_BUFFER_BYTES = 4 * 1024 * 1024
"""Room for some ten thousand idle connections that are on their way at once."""


class Relay:
    """Both ends, as the master holds them."""

    def __init__(self, way_in: socket.socket, way_out: socket.socket) -> None:
        self.way_in, self.way_out = way_in, way_out

    @classmethod
    def make(cls) -> Relay:
        """Raises ``OSError``."""
        way_in, way_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            way_in.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        except OSError:
            way_in.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)  # up to wmem_max
        return cls(way_in, way_out)

    @classmethod
    def adopt(cls, way_in: int, way_out: int) -> Relay:
        """Take over the ends that an older version of this process has opened."""
        return cls(socket.socket(fileno=way_in), socket.socket(fileno=way_out))

    def nudge(self) -> None:
        """Wake one idle worker: the one that had been woken may have died before it took anything."""
        nudge(self.way_in)

    def waiting(self) -> int:
        """Return roughly how many connections wait in here; nudges do not count."""
        size_bytes = array.array("i", [0])
        fcntl.ioctl(self.way_out, termios.FIONREAD, size_bytes)  # of all messages together
        return -(-max(0, size_bytes[0] - _NUDGES) // _TYPICAL_BYTES)

    def close(self) -> None:
        """Close both ends, and with the last holder every connection that is still on its way."""
        self.way_in.close()
        self.way_out.close()


def nudge(way_in: socket.socket) -> None:
    """Wake one idle worker of the pool, if there is one."""
    try:
        way_in.send(NUDGE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        pass  # full: each of those that are in there woke somebody
