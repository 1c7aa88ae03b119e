"""TLS as bytes in, bytes out: one connection's records, without its socket; runs only in a worker.

Used by whoever owns the connection. Why OpenSSL does not read the socket itself:
docs/decisions/0008-tls-through-memory.md.
"""

from __future__ import annotations

import ssl
from ssl import MemoryBIO, SSLContext, SSLWantReadError, SSLZeroReturnError

RECORD_BYTES = 16 * 1024
"""The most plaintext in one record. Memory BIOs keep the size that they once had, so they are fed no more."""


class TlsStream:
    """The server's side of one TLS connection. Its methods raise ``ssl.SSLError``."""

    __slots__ = ("_incoming", "_outgoing", "_said_goodbye", "ended", "established", "tls")

    def __init__(self, context: SSLContext) -> None:
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        self.tls: ssl.SSLObject = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.established = False
        """Is the handshake complete?"""
        self.ended = False
        """Has the client said that it sends no more (close_notify)?"""
        self._said_goodbye = False

    def handshake(self, received: bytes) -> None:
        """Go on with the handshake; ``received`` may hold application data after it."""
        self._incoming.write(received)
        try:
            self.tls.do_handshake()
        except SSLWantReadError:
            return
        self.established = True

    def decrypt(self, received: bytes) -> bytes:
        """Return all plaintext of complete records, so that nothing is pending that epoll cannot see."""
        if len(received) <= RECORD_BYTES:
            self._incoming.write(received)
            return self._read()
        pieces = []
        view = memoryview(received)
        for start in range(0, len(view), RECORD_BYTES):
            self._incoming.write(view[start : start + RECORD_BYTES])
            pieces.append(self._read())
        return b"".join(pieces)

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return records with ``data``, preceded by what TLS itself has to say."""
        if len(data) <= RECORD_BYTES:
            self.tls.write(data)
            return self._outgoing.read()
        pieces = []
        view = memoryview(data)
        for start in range(0, len(view), RECORD_BYTES):
            self.tls.write(view[start : start + RECORD_BYTES])
            pieces.append(self._outgoing.read())
        return b"".join(pieces)

    def outgoing(self) -> bytes:
        """Return what TLS itself has to say: handshakes, tickets, alerts, updates of keys."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def goodbye(self) -> bytes:
        """Return our close_notify; nothing if it was given already, or there is no connection to end."""
        if self._said_goodbye or not self.established:
            return b""
        self._said_goodbye = True
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # Mostly SSLWantReadError: the client's own is not here. It is not waited for here.
        return self._outgoing.read()

    def _read(self) -> bytes:
        read, incoming = self.tls.read, self._incoming
        pieces: list[bytes] = []
        try:
            # Asking once more only if there is more: being told that there is not is an exception.
            while incoming.pending or not pieces or self.tls.pending():
                piece = read(RECORD_BYTES)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
        except SSLWantReadError:
            pass
        except SSLZeroReturnError:
            self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
