"""The way back to the client: write without waiting for a slow reader, up to a bound.

Used by whoever owns the connection (see ``connection``): the thread in which the application runs, or the
loop.
"""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from itertools import islice
from socket import MSG_DONTWAIT

from prefork.worker.exchange import ClientGone

_JOIN_BYTES = 64 * 1024
"""Up to here copying the pieces into one is cheaper than a vectored write."""
_VECTOR = 64
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Outgoing:
    """A socket and what it has not taken yet. A ``Writer`` for the gateway."""

    __slots__ = ("gone", "memory_bytes", "output", "output_bytes", "send_timeout_s", "sock")

    def __init__(self, sock: socket.socket, memory_bytes: int, send_timeout_s: float) -> None:
        self.sock = sock
        self.memory_bytes = memory_bytes
        self.send_timeout_s = send_timeout_s
        self.output: deque[memoryview] | None = None
        """What waits for the socket; None in the ordinary case that nothing ever had to."""
        self.output_bytes = 0
        self.gone = False
        """Is the connection useless, because the client is gone or it was aborted?"""

    def write(self, data: bytes | Sequence[bytes]) -> None:
        """Send ``data`` (a sequence as if joined), keeping in memory what the socket does not take.

        Waits while more than ``memory_bytes`` are kept, as long as the client takes some of it within each
        ``send_timeout_s``. Raises ``ClientGone``.
        """
        if not isinstance(data, bytes):
            if sum(map(len, data)) > _JOIN_BYTES:
                self._keep(data)
                return
            data = b"".join(data)
        if self.output_bytes or self.gone:
            self._keep((data,))
            return
        try:
            sent = self.sock.send(data, MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost(error) from error
        if sent != len(data):
            self._keep((memoryview(data)[sent:],))

    def flush(self) -> bool:
        """Give the socket what it takes of the kept output; return whether it took any.

        Does not wait. Raises ``ClientGone``.
        """
        output = self.output
        before = self.output_bytes
        while output:
            try:
                sent = self.sock.sendmsg(islice(output, _VECTOR), (), MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._lost(error) from error
            self.output_bytes -= sent
            while output and sent >= len(output[0]):
                sent -= len(output.popleft())
            if sent:
                output[0] = output[0][sent:]
        if not output:
            self.output = None  # A deque takes 600 bytes, which a parked connection has no use for.
        return self.output_bytes < before

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

    def abort(self) -> None:
        """Drop what is kept, and have the close reset the connection, so that nothing looks complete."""
        self.gone = True
        self._drop_output()
        if self.sock.family != socket.AF_UNIX:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # Reset by the client already.

    def _keep(self, pieces: Sequence[bytes | memoryview]) -> None:
        if self.gone:
            raise ClientGone("the connection is gone")
        if self.output is None:
            self.output = deque()
        for piece in pieces:
            if piece:
                self.output.append(memoryview(piece))
                self.output_bytes += len(piece)
        self.flush()
        if self.output_bytes > self.memory_bytes:
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        timeout_ms = int(self.send_timeout_s * 1000) or None
        while self.output_bytes > self.memory_bytes:
            if not poll.poll(timeout_ms):
                self.abort()
                raise ClientGone(f"the client took nothing for {self.send_timeout_s:g} s")
            self.flush()

    def _lost(self, error: OSError) -> ClientGone:
        self.gone = True
        self._drop_output()
        return ClientGone(str(error))

    def _drop_output(self) -> None:
        self.output = None
        self.output_bytes = 0
