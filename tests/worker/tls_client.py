"""A client that speaks TLS to the server of a test, and may stop halfway."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from serving_harness import PATIENCE_S, Client, Serving


class TlsClient(Client):
    """A client connection that is encrypted; ``rest`` fails if the server does not say that it ends."""

    def __init__(self, server: Serving, context: ssl.SSLContext, session: Any = None) -> None:
        plain = socket.create_connection(server.address, PATIENCE_S)
        self.sock: ssl.SSLSocket = context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False, session=session
        )
        self._file = self.sock.makefile("rb")
        server.clients.append(self)


class Endpoint:
    """The client's side of TLS without a socket: what it sends can be cut anywhere."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """Return the first message of the handshake."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def shake_hands(self, client: Client, piece_bytes: int) -> None:
        """Complete the handshake, sending in pieces of this size."""
        while True:
            try:
                self.tls.do_handshake()
                self.send(client, piece_bytes)
                return
            except ssl.SSLWantReadError:
                self.send(client, piece_bytes)
                self.incoming.write(client.sock.recv(65536))

    def send(self, client: Client, piece_bytes: int) -> None:
        """Send what there is in pieces of this size."""
        data = self.outgoing.read()
        for start in range(0, len(data), piece_bytes):
            client.send(data[start : start + piece_bytes])

    def receive(self, client: Client) -> bytes:
        """Return some plaintext; empty when the server says that it ends."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = client.sock.recv(65536)
                assert data, "the connection ended without a word"
                self.incoming.write(data)
            except ssl.SSLZeroReturnError:
                return b""
