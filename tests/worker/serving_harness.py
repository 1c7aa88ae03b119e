"""A real server in a thread of the test, and a plain client that shows what is on the wire."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import SimpleNamespace
from typing import Any

from prefork.scoreboard import Scoreboard
from prefork.worker.gateway import Gateway
from prefork.worker.http_server import HTTPServer
from prefork.worker.server import Server

PATIENCE_S = 20.0
TIMEOUTS = {"keep_alive": 60.0, "head": 60.0, "body": 60.0, "send": 60.0}
LIMITS = {
    "request_line": 8192,
    "fields": 100,
    "head": 32 * 1024,
    "body": 1024 * 1024,
    "body_memory": 1024 * 1024,
    "response_memory": 1024 * 1024,
    "memory": 256 * 1024 * 1024,
    "spool": 1024 * 1024 * 1024,
    "connections": 1000,
}


class Events:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, message: str, **fields: Any) -> None:
        self.lines.append((event, message, fields))

    debug = warning = error = critical = info

    def named(self, event: str) -> list[str]:
        return [message for name, message, _ in self.lines if name == event]


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until ``condition()`` holds."""
    pause = threading.Event()
    end = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < end, "the condition did not come true in time"
        pause.wait(0.002)


class Client:
    """A client connection that reads one response at a time."""

    def __init__(self, address: Any, family: int = socket.AF_INET) -> None:
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(address)
        self._file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(self, target: str = "/", *fields: str) -> tuple[int, dict[str, str], bytes]:
        lines = [f"GET {target} HTTP/1.1", "Host: test", *fields, "", ""]
        self.send("\r\n".join(lines).encode())
        return self.response()

    def response(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Read one response that has a Content-Length, or ends with the connection."""
        line = self._file.readline()
        if not line:
            raise ConnectionAbortedError("closed without a response")
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (field := self._file.readline().rstrip(b"\r\n").decode()) != "":
            name, value = field.split(": ", 1)
            headers[name.lower()] = value
        status = int(line.split()[1])
        if status == 100 or not body:
            return status, headers, b""
        length = headers.get("content-length")
        return status, headers, self._file.read(-1 if length is None else int(length))

    def rest(self) -> bytes:
        """Read to the end of the connection."""
        return self._file.read()

    def reset(self) -> bool:
        """Read to the end; return whether it was a reset."""
        try:
            self._file.read()
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        self._file.close()
        self.sock.close()


class Serving:
    """A server and the thread it runs in."""

    def __init__(self, server: Server, log: Events, listener: socket.socket) -> None:
        self.server = server
        self.log = log
        self.address = listener.getsockname()
        self.family = listener.family
        self.clients: list[Client] = []
        self.turns = 0
        self.thread = threading.Thread(target=server.serve_forever)
        self.thread.start()

    def connect(self) -> Client:
        client = Client(self.address, self.family)
        self.clients.append(client)
        return client

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in the loop, as the callback of a channel would; return its result."""
        results: list[Any] = []
        done = threading.Event()
        self.server.loop.post(lambda: (results.append(function()), done.set()))
        assert done.wait(PATIENCE_S)
        return results[0]

    def cuts(self) -> list[str]:
        """Wait for what is said of clients that were cut off since they do not read: a turn of the loop later."""
        eventually(lambda: self.log.named("slow-reader-cut"))
        return self.log.named("slow-reader-cut")

    def ended(self) -> bool:
        return not self.thread.is_alive()

    def stop(self) -> None:
        if not self.ended():
            try:
                self.server.loop.post(self.server.quit)
            except OSError:
                pass  # It ended by itself in this moment.
        self.thread.join(PATIENCE_S)
        assert self.ended()
        for client in self.clients:
            client.close()


@contextmanager
def serving(
    app: Any = None,
    *,
    threads: int = 1,
    server_class: Any = HTTPServer,
    listener: socket.socket | None = None,
    timeouts: dict[str, float] | None = None,
    limits: dict[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
    gateway: dict[str, Any] | None = None,
    proxy_protocol: bool = False,
    **options: Any,
) -> Iterator[Serving]:
    """Serve ``app`` (or run a plain ``Server`` class); each listener is a duplicate, as in a worker."""
    log = Events()
    doorbell = os.eventfd(0, os.EFD_CLOEXEC)
    board = Scoreboard.create("test", 1, cells=1, threads=threads, doorbell=doorbell)
    own = listener.dup() if listener is not None else socket.create_server(("127.0.0.1", 0))
    bounds = LIMITS | (limits or {})
    if issubclass(server_class, HTTPServer):
        server = server_class(
            [own],
            log,
            board.cells[0],
            Gateway(app, log=log, multithread=threads > 1, **gateway or {}),
            introduced=[own.fileno()] if proxy_protocol else [],
            threads=threads,
            tls={own.fileno(): tls} if tls else {},
            timeouts=SimpleNamespace(**TIMEOUTS | (timeouts or {})),
            limits=SimpleNamespace(**bounds),
            **options,
        )
    else:
        server = server_class(
            [own], log, board.cells[0], threads=threads, connections=bounds["connections"], **options
        )
    running = Serving(server, log, own)
    try:
        yield running
    finally:
        running.stop()
        board.close()
        os.close(doorbell)


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with method, path and body."""
    body = environ["wsgi.input"].read()
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


class Gate:
    """An application that waits on ``/wait…`` until it is opened, and answers everything else at once."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"].startswith("/wait"):
            self.entered.release()
            assert self.opened.wait(PATIENCE_S)
        return echo(environ, start_response)

    def await_entry(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_S)
