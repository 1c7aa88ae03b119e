"""Log lines as datagrams: to a daemon of the machine or the network, without ever blocking or raising.

The master makes the socket, every process inherits it and sends for itself. What the daemon does not take now, for it
is busy or starts anew, stays in a bounded buffer and goes out with a later line. A datagram is whole or lost; how an
event becomes one or several is the business of a ``Wire``: see ``journal`` and ``syslog``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep, time
from typing import Any

from prefork.log.destination import BUFFER_BYTES
from prefork.log.format import Event
from prefork.log.turn import Turn, call_after_fork

Wire = Callable[[Event, Callable[[Event], str]], Sequence[bytes]]
"""Makes datagrams of an event; the second argument is the configured format, which makes a line of it."""

Address = tuple[Any, ...] | str
"""As ``socket.sendto`` takes it."""

_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENOENT)
"""The daemon is busy, or is being started anew."""

_QUEUED = 4096


class Datagrams:
    """A socket that sends to ``address``; what an event becomes is up to ``wire``.

    ``big`` says that a datagram that is too long may go as a file, as the journal takes it.
    """

    path = None
    """No file: there is nothing to rotate."""
    warning = None

    def __init__(self, family: int, address: Address, wire: Wire, *, big: bool = False) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()
        self._address = address
        self._wire = wire
        self._big = big
        self._incoming: deque[bytes] = deque(maxlen=_QUEUED)
        # All below is touched only by the thread whose turn it is.
        self._turn = Turn()
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._dropped = 0
        self._stalled = False
        call_after_fork(self)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a child must keep."""
        return (self.fd,)

    def put(self, event: Event, line: Callable[[Event], str]) -> int:
        """Send an event, now or later; return as ``Destination.put``."""
        return self._send_all(self._wire(event, line))

    def write(self, lines: bytes) -> int:
        """Send each line of the access log; return as ``Destination.write``."""
        now = time()
        texts = lines.decode("utf-8", "replace").splitlines()
        lost = 0
        for text in texts:
            lost += self.put(Event(now, "info", "access", "", text, {}), lambda event: event.message)
        return lost

    def flush(self, timeout_s: float) -> int:
        """Wait for a busy daemon, at most ``timeout_s``, at the end of a process; return as ``write``."""
        deadline = monotonic() + timeout_s
        lost = self._send_all(())
        while self._stalled and (left_s := deadline - monotonic()) > 0:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            if poll.poll(left_s * 1000):
                sleep(0.01)  # of an unconnected socket it does not tell whether the receiver is busy
            lost += self._send_all(())
        return lost

    def after_fork(self) -> None:
        """Forget, in a child, what its parent has yet to send, and whose turn it was there."""
        self._turn = Turn()
        self._incoming.clear()
        self._pending.clear()
        self._pending_bytes = self._dropped = 0

    def close(self) -> None:
        """Close the socket without sending what is left."""
        self._socket.close()

    def _send_all(self, datagrams: Sequence[bytes]) -> int:
        self._incoming.extend(datagrams)
        lost = 0
        while (self._incoming or self._pending) and self._turn.take():
            try:
                lost += self._drain()
            finally:
                self._turn.give_back()
            if self._stalled:
                break
        return lost

    def _drain(self) -> int:
        """Send what there is; return the count of lost datagrams if this has worked to the end."""
        while self._incoming:
            datagram = self._incoming.popleft()
            if self._pending_bytes + len(datagram) > BUFFER_BYTES and self._pending:
                self._dropped += 1
            else:
                self._pending.append(datagram)
                self._pending_bytes += len(datagram)
        self._stalled = False
        while self._pending:
            if not self._send(self._pending[0]):
                self._stalled = True
                return 0
            self._pending_bytes -= len(self._pending.popleft())
        lost, self._dropped = self._dropped, 0
        return lost

    def _send(self, datagram: bytes) -> bool:
        """Send one datagram; return False if that is to be tried again later."""
        try:
            self._socket.sendto(datagram, self._address)
        except OSError as error:
            if error.errno in _LATER:
                return False
            if error.errno != errno.EMSGSIZE or not (self._big and self._send_as_file(datagram)):
                self._dropped += 1
        return True

    def _send_as_file(self, datagram: bytes) -> bool:
        """See "Native journal protocol" of systemd: a sealed file in memory instead of the data."""
        try:
            fd = os.memfd_create("prefork-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            os.write(fd, datagram)
            fcntl.fcntl(
                fd,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
            )
            # socket.send_fds does not pass the address on (CPython 3.11).
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            self._socket.sendmsg([], rights, 0, self._address)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
