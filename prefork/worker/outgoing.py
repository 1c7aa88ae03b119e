"""The way back to the client: write without waiting for a slow reader, up to a bound.

Used by whoever owns the connection (see ``connection``): the thread in which the application runs, or the
loop.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from fcntl import ioctl
from math import inf
from socket import MSG_DONTWAIT, MSG_MORE
from termios import TIOCOUTQ
from time import monotonic
from typing import TYPE_CHECKING

from prefork.worker.exchange import ClientGone
from prefork.worker.pending import VECTOR, Pending
from prefork.worker.storage import Storage

if TYPE_CHECKING:
    from prefork.worker.background import Loan

_JOIN_BYTES = 64 * 1024
"""Up to here copying the pieces into one is cheaper than a vectored write."""
_READ_BYTES = 64 * 1024
PATIENCE_S = 1.0
"""So long one client may hold up a worker; see docs/decisions/0009-slow-readers-without-room.md."""
STEADY_BYTES_PER_S = 256 * 1024
"""Who takes so much does not use up patience."""
WITH_APPLICATION = -1
"""The exchange began when the application was called, and does not end with it."""
_INT = struct.Struct("i")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Outgoing:
    """A socket and what it has not taken yet. A ``Writer`` for the gateway.

    All bytes leave by ``sock.send``, ``send_pieces`` and ``send_file``: what they are wrapped in is decided there.
    """

    __slots__ = (
        "began_ns",
        "gone",
        "loan",
        "memory_bytes",
        "output",
        "patience_s",
        "send_timeout_s",
        "sock",
        "storage",
    )

    def __init__(
        self, sock: socket.socket, storage: Storage, memory_bytes: int, send_timeout_s: float
    ) -> None:
        self.sock = sock
        self.storage = storage
        self.memory_bytes = memory_bytes
        self.send_timeout_s = send_timeout_s
        self.output: Pending | None = None
        """What waits for the socket; None in the ordinary case that nothing ever had to."""
        self.loan: Loan | None = None
        """While it is there, ``output`` is the background sender's, and may have become None; see ``background``."""
        self.patience_s = PATIENCE_S
        """What is left of it, on this connection."""
        self.gone = False
        """Is the connection useless, because the client is gone or it was aborted?"""
        self.began_ns = 0
        """When the first byte of the request was read. 0 if it came at once and the application began with it: then
        its exchange takes as long as that, unless something of the response was kept (``WITH_APPLICATION``)."""

    def write(self, data: bytes | Sequence[bytes], last: bool = False) -> None:
        """Send ``data`` (a sequence as if joined), keeping what the socket does not take.

        Up to ``memory_bytes`` are kept in memory, and more in a temporary file. If there can be no more of that
        either, wait, as long as the client takes some of it within each ``send_timeout_s``; while that holds up the
        whole worker, only for a steady reader. Raises ``ClientGone``.

        ``last``: the end-of-file follows at once. Both go in one packet then, which saves a ninth of all that a
        connection costs. (Should something hold that up, the kernel sends the data after 0.2 s.)
        """
        if not isinstance(data, bytes):
            if sum(map(len, data)) > _JOIN_BYTES:
                self._write_pieces(data)
                return
            data = b"".join(data)
        # The ordinary case is spared the call.
        if (self.output is not None or self.loan is not None or self.gone) and self._is_blocked():
            self._keep(data)
            return
        try:
            sent = self.sock.send(data, MSG_DONTWAIT | MSG_MORE if last else MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost(error) from error
        if sent != len(data):
            self._keep(data, sent)

    def write_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Send ``head`` and then ``count`` bytes of a file, from the loop as far as the socket does not take them.

        ``fd`` may be closed at once: the file is kept open under a descriptor of ours. Raises ``ClientGone``.
        """
        self.take_back()
        if self.gone:
            raise ClientGone("the connection is gone")
        try:
            copy = os.dup(fd)
        except OSError:  # No descriptor is left: do it the long way.
            self.write(head)
            while count and (block := os.pread(fd, min(count, _READ_BYTES), offset)):
                self.write(block)
                offset += len(block)
                count -= len(block)
            if count:
                raise self._lost(OSError("the file became shorter while it was sent")) from None
            return
        if self.output is None:
            self.output = Pending(self.storage)
        self.began_ns = self.began_ns or WITH_APPLICATION
        self.output.add(head, self.memory_bytes)
        self.output.add_file(copy, offset, count)
        self.flush()

    def send_meanwhile(self) -> None:
        """Have what is kept sent while the application works; the next call of another method ends that."""

    def take_back(self) -> None:
        """End the loan, if there is one: what is kept is ours alone again."""
        if (loan := self.loan) is not None:
            self.loan = (
                None  # First: ending it twice, after an exception of a signal handler, would not return.
            )
            loan.end()

    def flush(self) -> bool:
        """Give the socket what it takes of the kept output, or a good part; return whether it took any.

        Does not wait. Raises ``ClientGone``.
        """
        output = self.output
        if output is None:
            return False
        try:
            progress = output.send(self)
        except OSError as error:
            raise self._lost(error) from error
        if not output:
            self.output = None  # It takes 800 bytes, which a parked connection has no use for.
        return progress

    def send_pieces(self, pieces: Sequence[bytes | bytearray | memoryview], more: bool) -> int:
        """See ``pending.Socket``."""
        return self.sock.sendmsg(pieces, (), MSG_DONTWAIT | MSG_MORE if more else MSG_DONTWAIT)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """See ``pending.Socket``."""
        # There is no MSG_DONTWAIT for sendfile. All other calls have it, so that this changes nothing for them.
        if self.sock.gettimeout() != 0:
            self.sock.setblocking(False)
        try:
            return os.sendfile(self.sock.fileno(), fd, offset, count)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
        # Some file systems cannot.
        return self.sock.send(os.pread(fd, min(count, _READ_BYTES), offset), MSG_DONTWAIT)

    def end_output(self, asked_for: bool) -> bool:
        """Send our end-of-file after a response; return whether to close now, without waiting for the client's.

        A close on unread bytes would reset the response away. Who ``asked_for`` the close sends no more, so for
        them it is enough that nothing is unread now.
        """
        try:
            if asked_for and not self.sock.recv(1, MSG_DONTWAIT):
                return True
        except OSError:
            return True  # Mostly BlockingIOError: nothing is unread.
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return True
        return False

    def drop_unread(self, most_bytes: int) -> None:
        """Read what has come, so that a close does not reset the response away."""
        try:
            while most_bytes > 0 and (data := self.sock.recv(_READ_BYTES, MSG_DONTWAIT)):
                most_bytes -= len(data)
        except OSError:
            pass

    def abort(self) -> None:
        """Drop what is kept, and have the close reset the connection, so that nothing looks complete."""
        self.take_back()
        self.gone = True
        self.drop_output()
        self.reset_on_close()

    def reset_on_close(self) -> None:
        """Have the close reset the connection, whoever makes it; also the end of the process is one."""
        if self.sock.family != socket.AF_UNIX:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # Reset by the client already.

    def cut_off(self, reason: str) -> ClientGone:
        """Give up a client that does not read; return what its producer is to raise."""
        self.abort()
        return ClientGone(f"cut off a slow reader: {reason}")

    def holds_worker(self) -> bool:
        """While the thread in which this runs waits: is nobody else served?"""
        return True

    def drop_output(self) -> None:
        """Forget what is kept: memory, files and their descriptors."""
        if self.output is not None:
            self.output.close()
            self.output = None

    def _write_pieces(self, pieces: Sequence[bytes]) -> None:
        """Send without a copy as long as the socket takes all of what it is given."""
        at = sent = 0
        blocked = self._is_blocked()
        while at < len(pieces) and not blocked:
            batch = pieces[at : at + VECTOR]
            try:
                sent = self.send_pieces(batch, False)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._lost(error) from error
            for piece in batch:
                if sent < len(piece):
                    blocked = True
                    break
                sent -= len(piece)
                at += 1
        for piece in pieces[at:]:
            self._keep(piece, sent)
            sent = 0

    def _is_blocked(self) -> bool:
        """Return whether something has to be sent before anything else. Raises ``ClientGone``."""
        if self.loan is not None:
            self.take_back()
        if self.gone:
            raise ClientGone("the connection is gone")
        if self.output is not None:
            self.flush()
        return self.output is not None

    def _keep(self, data: bytes, start: int = 0) -> None:
        output = self.output
        if output is None:
            output = self.output = Pending(self.storage)
            self.began_ns = self.began_ns or WITH_APPLICATION
        if start < len(data):
            output.add(data, self.memory_bytes, start)
        if output.is_over(self.memory_bytes):
            self._wait_for_room(output)

    def _wait_for_room(self, output: Pending) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        timeout_s = self.send_timeout_s or inf
        left_bytes = self._left_bytes()
        looked_at = progress_at = monotonic()
        while output.is_over(self.memory_bytes):
            if looked_at - progress_at >= timeout_s:
                raise self.cut_off(f"it took nothing for {timeout_s:g} s")
            if not self.patience_s and self.holds_worker():
                raise self.cut_off("no memory or file has room for its response, and it held up the worker")
            if poll.poll(1 + int(1000 * min(self.patience_s or PATIENCE_S, timeout_s))):
                self.flush()
            now = monotonic()
            taken_bytes = left_bytes - self._left_bytes()
            if taken_bytes > 0:
                progress_at = now
            patience_s = self.patience_s - (now - looked_at) + taken_bytes / STEADY_BYTES_PER_S
            self.patience_s = min(max(patience_s, 0.0), PATIENCE_S)
            left_bytes -= taken_bytes
            looked_at = now

    def _left_bytes(self) -> int:
        """Return how much the client has not acknowledged: what is kept, and what the kernel holds.

        The kernel calls a socket writable only when a third of its buffer is free, which may be a megabyte: who goes
        by that takes a slow reader for one that has stopped.
        """
        kept_bytes = self.output.unsent_bytes if self.output is not None else 0
        try:
            queued_bytes: int = _INT.unpack(ioctl(self.sock, TIOCOUTQ, bytes(_INT.size)))[0]
        except OSError:
            return kept_bytes
        return kept_bytes + queued_bytes

    def _lost(self, error: OSError) -> ClientGone:
        self.gone = True
        self.drop_output()
        return ClientGone(str(error))
