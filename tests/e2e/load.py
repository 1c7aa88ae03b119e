"""Clients that keep a server busy while a test does something to it, and check every response.

Threads with plain sockets. A failure is any request that was sent and did not get its whole response: nothing is
retried. A kept-alive client does what a client has to do with a server that may close an idle connection: it
looks for end-of-file before it reuses one (a readable idle socket means closed), and reuses none that was idle for
longer than half of what a draining worker gives it.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

REUSE_S = 0.5
PATIENCE_S = 30.0


class ShortResponse(Exception):
    """The connection ended before the response did."""


def read_response(sock: socket.socket) -> tuple[int, str, bool]:
    """Return status, body, and whether the connection may be used again. The response must say its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(sock, data)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    length = next(int(f.partition(b":")[2]) for f in fields if f.startswith(b"content-length:"))
    while len(body) < length:
        body += _receive(sock, head + body)
    assert len(body) == length, f"{len(body)} bytes of {length}: {body!r}"
    return int(head.split(b" ", 2)[1]), body.decode(), b"connection: close" not in fields


def _receive(sock: socket.socket, so_far: bytes) -> bytes:
    received = sock.recv(65536)
    if not received:
        raise ShortResponse(f"end of file after {so_far!r}")
    return received


def is_closed(sock: socket.socket) -> bool:
    """Tell whether the server has closed an idle connection."""
    return bool(select.select([sock], [], [], 0)[0])


class Load:
    """``kept`` clients that keep their connection and ``fresh`` ones that make a new one for each request.

    A context manager: clients run inside the block. ``pause_s`` is the time between two requests of a client.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        *,
        kept: int = 1,
        fresh: int = 1,
        pause_s: float = 0.0,
        path: str = "/",
    ) -> None:
        self.bodies: Counter[str] = Counter()
        """How often each body came."""
        self.failures: list[str] = []
        self.connections = 0
        self._connect = connect
        self._pause_s = pause_s
        self._request = f"GET {path} HTTP/1.1\r\nHost: test\r\n"
        self._over = threading.Event()
        self._lock = threading.Lock()
        clients = [self._keep] * kept + [self._renew] * fresh
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in clients]

    @property
    def done(self) -> int:
        """How many requests were answered."""
        with self._lock:
            return self.bodies.total()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, client: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                client()
            except Exception as error:
                with self._lock:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self._over.wait(0.05)  # a server that is gone gets no flood of connects

    def _open(self) -> socket.socket:
        sock = self._connect()
        sock.settimeout(PATIENCE_S)
        with self._lock:
            self.connections += 1
        return sock

    def _keep(self) -> None:
        """Use one connection as long as the server lets us."""
        with self._open() as sock:
            while not self._over.is_set():
                if is_closed(sock):
                    return
                sock.sendall(f"{self._request}\r\n".encode())
                reusable = self._take(sock)
                used_at = time.monotonic()
                self._over.wait(self._pause_s)
                if not reusable or time.monotonic() - used_at > REUSE_S:
                    return

    def _renew(self) -> None:
        """Make one request on a connection of its own."""
        with self._open() as sock:
            sock.sendall(f"{self._request}Connection: close\r\n\r\n".encode())
            self._take(sock)
            assert sock.recv(1) == b"", "bytes after the response"
        self._over.wait(self._pause_s)

    def _take(self, sock: socket.socket) -> bool:
        status, body, reusable = read_response(sock)
        assert status == 200, f"{status}: {body}"
        with self._lock:
            self.bodies[body] += 1
        return reusable
