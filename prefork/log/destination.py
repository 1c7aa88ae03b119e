"""Where log lines go: a descriptor that is written to without ever blocking or raising.

The master opens destinations, perhaps as root; every process inherits them and writes for itself.

A line is put into a queue, and whoever gets the turn at the first try writes out what is in the queue. What
a stalled reader does not take stays in a bounded buffer and goes out with a later write, so no timer is
needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Protocol

from prefork.errors import ConfigError
from prefork.log.format import Event
from prefork.log.turn import Turn, call_after_fork

BUFFER_BYTES = 256 * 1024
"""What is kept for a reader that has stalled, or a disk that is full, before lines are dropped."""

CHUNK_BYTES = select.PIPE_BUF
"""Longest write to a pipe: up to this length the kernel does not mix the writes of several processes."""

_QUEUED_LINES = 4096
_FILE_MODE = 0o640
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Sink(Protocol):
    """Where lines go: a ``Destination``, or ``datagrams.Datagrams``."""

    @property
    def path(self) -> str | None:
        """The file, if it is one."""

    @property
    def warning(self) -> str | None:
        """What could not be done in the best way."""

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a child must keep."""

    def put(self, event: Event, line: Callable[[Event], str]) -> int:
        """Write an event, of which ``line`` makes a line, now or later; return as ``write``."""

    def write(self, lines: bytes) -> int:
        """Write whole lines, now or later; return how many were lost before, once it has begun to work again."""

    def flush(self, timeout_s: float) -> int:
        """Wait for a stalled reader at the end of a process; return as ``write``."""


class Destination:
    """A descriptor of our own, made from ``fd``; ``path`` is what ``reopen`` opens again.

    ``fd`` -1 is the destination *off*. ``warning`` says what could not be done in the best way, or is None.
    """

    def __init__(self, fd: int, path: str | None = None) -> None:
        self.path = path
        self.warning: str | None = None
        self.fd = -1
        self._send: Callable[[bytes | bytearray], int] = self._write
        self._socket: socket.socket | None = None
        self._chunk_bytes = CHUNK_BYTES
        self._incoming: deque[bytes] = deque(maxlen=_QUEUED_LINES)  # full only while one write hangs
        # All below is touched only by the thread whose turn it is.
        self._turn = Turn()
        self._pending = bytearray()
        self._dropped = 0
        self._inside_line = False
        self._stalled = False
        self._replaced = False
        if fd >= 0:
            self._adopt(fd)
        call_after_fork(self)

    @classmethod
    def open(cls, where: str, key: str = "log.to") -> Destination:
        """Open ``stderr``, ``stdout``, ``off`` or a path; ``key`` is named in the error.

        Raises ``ConfigError``.
        """
        if where == "off":
            return cls(-1)
        # The devices cannot be opened when they are sockets, as under systemd.
        standard = {"stdout": 1, "/dev/stdout": 1, "stderr": 2, "/dev/stderr": 2}.get(where)
        if standard is not None:
            return cls(standard)
        try:
            fd = _open_path(where)
        except OSError as error:
            hint = ": nobody reads this pipe" if error.errno == errno.ENXIO else ""
            raise ConfigError(f"{key}: cannot open {where}: {error.strerror}{hint}") from error
        destination = cls(fd, os.path.abspath(where))
        os.close(fd)
        return destination

    @classmethod
    def adopt(cls, fd: int, path: str) -> Destination:
        """Go on with a file that an older version of this process has opened."""
        destination = cls(-1, os.path.abspath(path))
        destination.fd = fd
        destination._chunk_bytes = _chunk_bytes(fd)
        return destination

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a child must keep."""
        return () if self.fd < 0 else (self.fd,)

    def put(self, event: Event, line: Callable[[Event], str]) -> int:
        """Write an event, of which ``line`` makes a line, now or later; return as ``write``."""
        return self.write(f"{line(event)}\n".encode("utf-8", "backslashreplace"))

    def write(self, lines: bytes) -> int:
        """Write whole lines, now or later.

        Returns how many lines were lost before, when the destination has just begun to work again, else 0.
        """
        if self.fd < 0:
            return 0
        self._incoming.append(lines)
        lost = 0
        # Another thread whose turn it is looks at the queue once more after it has given it back.
        while self._incoming and self._turn.take():
            try:
                lost += self._drain()
            finally:
                self._turn.give_back()
        return lost

    def flush(self, timeout_s: float) -> int:
        """Wait for a stalled reader, at most ``timeout_s``, at the end of a process; return as ``write``."""
        deadline = monotonic() + timeout_s
        poll = select.poll()
        if self.fd >= 0:
            poll.register(self.fd, select.POLLOUT)
        while (left_s := deadline - monotonic()) > 0:
            if not self._turn.take():
                sleep(0.001)  # another thread is writing just now
                continue
            try:
                lost = self._drain()
            finally:
                self._turn.give_back()
            if not (self._stalled and self._pending):
                return lost
            poll.poll(left_s * 1000)
        return 0

    def reopen(self) -> OSError | None:
        """Open the path again under the same descriptor number; the master does this after a log rotation.

        Returns the error if that fails; the old file is then written on. Nothing happens without a path.
        """
        if self.path is None:
            return None
        try:
            fd = _open_path(self.path)
        except OSError as error:
            return error
        self.replace(fd)
        return None

    def replace(self, fd: int) -> None:
        """Put ``fd``, which the master has opened, in the place of the descriptor, and close it."""
        self._chunk_bytes = _chunk_bytes(fd)
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self._replaced = True

    def after_fork(self) -> None:
        """Forget, in a child, what its parent has yet to write, and whose turn it was there."""
        self._turn = Turn()
        self._incoming.clear()
        self._pending.clear()
        self._dropped = 0
        self._inside_line = False

    def close(self) -> None:
        """Close the descriptor without writing what is left; the destination is then off."""
        if self._socket is not None:
            self._socket.close()
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def _drain(self) -> int:
        """Write what there is; return the count of lost lines if this has worked to the end."""
        worked = False
        if self._replaced:
            self._replaced = False
            self._drop_begun_line()
        while True:
            while self._incoming:
                self._keep(self._incoming.popleft())
            if not self._pending:
                break
            if not self._write_chunk():
                return 0
            worked = True
        if not worked:
            return 0
        lost, self._dropped = self._dropped, 0
        return lost

    def _keep(self, lines: bytes) -> None:
        if self._pending and len(self._pending) + len(lines) > BUFFER_BYTES:
            self._dropped += lines.count(b"\n")
        else:
            self._pending += lines

    def _write_chunk(self) -> bool:
        chunk = self._pending
        if len(chunk) > self._chunk_bytes:
            end = chunk.rfind(b"\n", 0, self._chunk_bytes) + 1
            chunk = chunk[: end or self._chunk_bytes]  # one line longer than that goes out in pieces
        self._stalled = False
        try:
            written = self._send(chunk)
        except BlockingIOError:
            self._stalled = True
            return False
        except OSError:  # a full disk, a closed pipe: a later write tries again
            return False
        if written:
            self._inside_line = chunk[written - 1] != ord("\n")
            del self._pending[:written]
        return True

    def _drop_begun_line(self) -> None:
        """A new file must not begin with the end of a line that was begun in the old one."""
        if self._inside_line:
            self._inside_line = False
            del self._pending[: self._pending.find(b"\n") + 1]
            self._dropped += 1

    def _adopt(self, fd: int) -> None:
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return  # closed (``2>&-``): its number may soon be anybody's, so this destination is off
        self._chunk_bytes = _chunk_bytes(fd)
        if stat.S_ISSOCK(mode):
            # O_NONBLOCK would hold for all who share the socket; a flag of the call holds for the call.
            sock = socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
            self.fd, self._socket = sock.fileno(), sock
            self._send = lambda data: sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        elif stat.S_ISREG(mode) or self.path is not None:
            self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        else:
            # A pipe or terminal: O_NONBLOCK on our own open file description, not on that of our parent.
            try:
                self.fd = os.open(f"/proc/self/fd/{fd}", _OPEN_FLAGS)
            except OSError as error:
                self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
                self._send = self._write_if_ready
                self.warning = (
                    f"cannot open /proc/self/fd/{fd} again: {error.strerror}; "
                    "the log shares the descriptor of the parent process and may block if others fill it"
                )

    def _write(self, data: bytes | bytearray) -> int:
        return os.write(self.fd, data)

    def _write_if_ready(self, data: bytes | bytearray) -> int:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self.fd, data)


def _open_path(path: str) -> int:
    return os.open(path, _OPEN_FLAGS | os.O_CREAT, _FILE_MODE)


def _chunk_bytes(fd: int) -> int:
    """A file takes any length in one piece (O_APPEND); whatever else takes what a pipe takes."""
    return 2 * BUFFER_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else CHUNK_BYTES
