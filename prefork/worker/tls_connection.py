"""A client connection with TLS: between the socket and the state machine of ``connection``; runs in a worker.

The socket carries records. What comes is decrypted at once and in full; what goes is encrypted when the socket
has room, so that what waits for a slow reader (``Outgoing``) is plaintext, in memory or in files.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from socket import MSG_DONTWAIT, socket
from ssl import SSLContext, SSLError
from typing import TYPE_CHECKING

from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.exchange import ClientGone, Environ
from prefork.worker.handover import Origin
from prefork.worker.pending import Pending
from prefork.worker.tls_environ import tls_environ
from prefork.worker.tls_stream import TlsStream

if TYPE_CHECKING:
    from prefork.http.head import HeadParser
    from prefork.worker.http_server import HTTPServer

SLICE_BYTES = 32 * 1024
"""So much of a response is encrypted at a time; what of it the socket does not take stays in memory."""

_UNFINISHED = (State.IDLE, State.HEAD, State.BODY)


class TlsConnection(Connection):
    """A client's connection to the web server, encrypted."""

    __slots__ = ("_context", "_owed", "_stream", "_took", "_unsent")

    is_private = True

    def __init__(
        self,
        server: HTTPServer,
        sock: socket,
        origin: Origin,
        base: Environ,
        parser: HeadParser,
        *,
        context: SSLContext,
    ) -> None:
        super().__init__(server, sock, origin, base, parser)
        self.state = State.HANDSHAKE
        self._context = context
        self._stream: TlsStream | None = None
        """None before the first byte: a silent connection costs no state of OpenSSL."""
        self._unsent = b""
        """Records that the socket did not take."""
        self._owed = 0
        """How much plaintext is in them."""
        self._took = False
        """Has the socket taken anything since it was last asked?"""

    def start(self) -> None:
        self.server.has_census = True
        self.server.head.start(self)
        self.on_readable(0)
        if self.state is State.HANDSHAKE and not self.watched:
            self.watch(self.on_readable)

    def wait(self) -> None:
        self.start()  # a handshake does not run the application

    def write(self, data: bytes | Sequence[bytes], last: bool = False) -> None:
        if self._stream is None:  # plain HTTP gets a plain answer
            super().write(data, last)
        else:
            self._write_pieces((data,) if isinstance(data, bytes) else data)

    def flush(self) -> bool:
        self._took = False
        return super().flush() or self._took

    def send_pieces(self, pieces: Sequence[bytes | bytearray | memoryview], more: bool) -> int:
        owed = self._settle()
        if owed:
            return owed
        size = sum(map(len, pieces))
        if size <= SLICE_BYTES:
            return self._send(b"".join(pieces)) if size else 0
        total = 0
        try:
            for piece in pieces:
                view = memoryview(piece)
                for start in range(0, len(view), SLICE_BYTES):
                    total += self._send(view[start : start + SLICE_BYTES])
        except BlockingIOError:
            if not total:
                raise
        return total

    def send_file(self, fd: int, offset: int, count: int) -> int:
        owed = self._settle()
        return owed or self._send(os.pread(fd, min(count, SLICE_BYTES), offset))

    def close(self) -> None:
        if self.state is State.CLOSED:
            return
        stream = self._stream
        if stream is not None and stream.established and self.output is None and not self.gone:
            try:
                self.sock.send(stream.goodbye(), MSG_DONTWAIT)
            except OSError:
                pass  # The client was faster.
        super().close()
        self._stream = None
        self._unsent = b""

    def end_output(self, asked_for: bool) -> bool:
        """Send our end-of-file, and always wait for the client's: its close_notify would reset the response."""
        return super().end_output(False)

    def expire_head(self) -> None:
        super().expire_head()
        if self.state is State.HANDSHAKE and self not in self.server.head.entries:
            if self._stream is not None:
                self.server.complaints.note_tls_failure(self, "it was not complete in time")
            self.close()

    def _received(self, data: bytes) -> None:
        if self.state is State.HANDSHAKE:
            self._shake_hands(data)
        elif self.state is not State.LINGERING:
            self._decrypt(data)

    # The handshake.

    def _shake_hands(self, data: bytes) -> None:
        if self._stream is None:
            if data[:1].isalpha():
                self.server.head.stop(self, None)
                self.refuse(400, "this port speaks TLS: the address begins with https://", data, "tls")
                return
            self._stream = TlsStream(self._context)
        try:
            self._stream.handshake(data)
        except SSLError as error:
            self._fail(error)
            return
        self._transmit(self._stream.outgoing())
        self._go_on()

    def _go_on(self) -> None:
        """After our part of the handshake was written: is it all sent, and complete?"""
        stream = self._stream
        assert stream is not None
        if self.gone:
            self.close()
        elif self.output is not None:
            self.watch(self._on_handshake_writable, select.EPOLLOUT)
        elif stream.established:
            self.server.head.stop(self, None)
            self.base.update(tls_environ(stream.tls))
            self.state = State.IDLE
            self._decrypt(b"")  # The first request often comes with the end of the handshake.
            if self.state is State.IDLE and self not in self.server.keep_alive.entries:
                self._park()

    def _on_handshake_writable(self, events: int) -> None:
        if self.state is not State.HANDSHAKE:
            return
        try:
            self.flush()
        except ClientGone:
            self.close()
            return
        if self.output is None:
            self.watch(self.on_readable)
            self._go_on()

    # After it.

    def _decrypt(self, data: bytes) -> None:
        stream = self._stream
        assert stream is not None
        try:
            plain = stream.decrypt(data)
        except SSLError as error:
            self._fail(error)
            return
        self._transmit(stream.outgoing())
        if self.gone:
            self.close()
            return
        if plain:
            super()._received(plain)
        elif self.state is State.BODY:
            self.server.body.start(self)  # part of a record is progress, too
        if stream.ended and self.state in _UNFINISHED:
            self.close()

    def _park(self) -> None:
        if self._stream is not None and self._stream.ended:
            self.close()
        else:
            super()._park()

    def _end(self) -> None:
        stream = self._stream
        if stream is not None and (goodbye := stream.goodbye()):
            self._transmit(goodbye)
            if self.gone or self.output is not None:
                self.finish()  # it comes here again when all is sent
                return
        super()._end()

    # Sending. A slice counts as sent when the socket has all of its records, so that as long as some of them are
    # in ``_unsent``, the plaintext is in ``output``.

    def _send(self, plain: bytes | memoryview) -> int:
        assert self._stream is not None
        try:
            self._unsent = self._stream.encrypt(plain)
        except SSLError as error:
            raise self._lost(error) from error
        self._owed = len(plain)
        return self._settle()

    def _settle(self) -> int:
        """Send the records that are left; return how much plaintext was owed. Raises ``BlockingIOError``."""
        if self._unsent:
            sent = self.sock.send(self._unsent, MSG_DONTWAIT)
            self._took = True
            self._unsent = self._unsent[sent:]
            if self._unsent:
                raise BlockingIOError
        owed, self._owed = self._owed, 0
        return owed

    def _transmit(self, records: bytes) -> None:
        """Send what TLS itself has to say, or keep it in ``output``; if the client is gone, so are we."""
        if self.gone or not records:
            return
        self._unsent += records
        if self.output is not None:
            return
        try:
            self._settle()
        except BlockingIOError:
            self.output = Pending(self.storage)
            self.output.add(b"", self.memory_bytes)  # stands for it: it is sent when what precedes it is
        except OSError as error:
            self._lost(error)

    def _fail(self, error: SSLError) -> None:
        """End a connection whose client does not speak TLS as it should, or refuses us; it gets our alert."""
        server = self.server
        for queue in (server.head, server.keep_alive, server.body):
            queue.stop(self, None)
        server.complaints.note_tls_failure(
            self, error.reason.lower().replace("_", " ") if error.reason else str(error)
        )
        assert self._stream is not None
        self._transmit(self._stream.outgoing())
        self.keep = False
        self.hold(b"")
        self.finish()
