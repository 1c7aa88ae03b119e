"""A worker's ends of its pool's relay: sending a connection to whoever is free, and taking one.

Runs only in a worker. Nothing here blocks. See docs/decisions/0010-relay-and-steward.md.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from prefork import relay
from prefork.worker.handover import MESSAGE_BYTES, Handover, decode

_DESCRIPTORS = 2
"""Of a message: the connection, and what is spooled of a body."""


class Nudged(Exception):
    """A message without a connection: look for work, a sibling that was woken for it may have died."""


class HandoverLost(Exception):
    """A message came without its connection, or in another version; the text says which."""


class Relay:
    """Looks like a listener to who takes from it: ``fileno`` becomes readable, ``accept`` returns a connection."""

    def __init__(self, way_in: int, way_out: int) -> None:
        self.way_in = socket.socket(fileno=way_in)
        self._way_out = socket.socket(fileno=way_out)

    def fileno(self) -> int:
        return self._way_out.fileno()

    def send(self, handover: Handover, fds: Sequence[int]) -> bool:
        """Send a connection; return False if the relay is full or the kernel refuses. Then it still is ours."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        try:
            self.way_in.sendmsg([handover.encode()], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # Full, or ETOOMANYREFS: more than RLIMIT_NOFILE of this user are on their way.
            return False
        return True

    def accept(self) -> tuple[socket.socket, tuple[Handover, int | None]]:
        """Take a connection; return it with what was said of it, and the descriptor of the spooled body.

        Raises ``BlockingIOError`` when there is none, ``Nudged``, ``HandoverLost``, and ``OSError`` (EMFILE) before
        it takes anything when no descriptors are free: ``recvmsg`` would lose the connection.
        """
        _check_free_descriptors(self.fileno())
        message, ancillary, flags, _ = self._way_out.recvmsg(
            MESSAGE_BYTES,
            socket.CMSG_SPACE(4 * _DESCRIPTORS),
            socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
        )
        if message == relay.NUDGE:
            raise Nudged
        fds = [fd for _, _, data in ancillary for fd in array.array("i", data)]
        try:
            if flags & socket.MSG_CTRUNC or not fds:
                raise ValueError("a handed-over connection was lost: no descriptors are free")
            handover = decode(message)
        except (ValueError, TypeError, LookupError) as error:
            for fd in fds:
                os.close(fd)
            raise HandoverLost(str(error)) from error
        sock = socket.socket(handover.family, socket.SOCK_STREAM, 0, fileno=fds[0])
        return sock, (handover, fds[1] if len(fds) > 1 else None)

    def nudge(self) -> None:
        """Wake an idle sibling."""
        relay.nudge(self.way_in)

    def descriptors(self) -> list[int]:
        return [self.way_in.fileno(), self._way_out.fileno()]

    def close(self) -> None:
        self.way_in.close()
        self._way_out.close()


def _check_free_descriptors(fd: int) -> None:
    """Raise ``OSError`` unless as many descriptors are free as a message may bring."""
    probes: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            probes.append(os.dup(fd))
    finally:
        for probe in probes:
            os.close(probe)
