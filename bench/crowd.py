"""Clients that keep their connection and never check whether the server has closed it.

Each follows a script: pause, send a request, take the answer, and so on. An idle connection is not looked at: the next
request is written to it, and a reset, an end of file or a refused connect is a failure. All clients run in one
thread around one epoll, so that tests and benchmarks can send signals meanwhile. Only the standard library is
needed, and nothing else of ``bench``.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import select
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from types import TracebackType
from typing import NamedTuple

RETRY_S = 0.05
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Step(NamedTuple):
    """A request and the pause before it. With ``close`` it asks for the end of its connection."""

    pause_s: float
    path: str = "/"
    close: bool = False


class Failure(NamedTuple):
    """A request that was not answered with 200.

    ``kind`` is ``refused`` (no connection was made), ``reset``, ``end of file``, ``status N`` or ``unanswered``;
    ``reused`` tells whether the connection had carried an answer before; ``at_s`` counts from the start.
    """

    kind: str
    reused: bool
    path: str
    at_s: float


def steady(
    clients: int = 40, idle_s: tuple[float, float] = (0.1, 4.0), *, seed: int = 1, path: str = "/"
) -> list[Iterator[Step]]:
    """Return the scripts of clients that are idle for a random time between two requests."""

    def script(chooser: Random) -> Iterator[Step]:
        while True:
            yield Step(chooser.uniform(*idle_s), path)

    return [script(Random(f"{seed}/{number}")) for number in range(clients)]


@dataclass(slots=True)
class Client:
    """One client: its script, its request under way, its connection if it has one."""

    script: Iterator[Step]
    step: Step = field(default_factory=lambda: Step(0.0))
    sock: socket.socket | None = None
    connecting: bool = False
    reused: bool = False
    began: float = 0.0
    wanted: float = 0.0
    """When it began to want the answer that it waits for; failures do not change it. 0 if it waits for none."""
    received: bytes = b""


@dataclass
class Crowd:
    """Run ``scripts`` against ``address`` (host and port, or a path) inside a ``with`` block.

    At the end of the block no new request is begun, and those under way get ``patience_s`` to be answered.
    ``core`` pins the clients' thread. What was counted may be read at any time.
    """

    address: tuple[str, int] | str
    scripts: Iterable[Iterator[Step]] = field(default_factory=steady)
    core: int | None = None
    patience_s: float = 10.0

    failures: list[Failure] = field(default_factory=list, init=False)
    closed: int = field(default=0, init=False)
    """Connections that the server ended, by announcement or without; not those that a client asked to end."""
    connections: int = field(default=0, init=False)
    latencies_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list), init=False)
    """By path, of the requests that were answered: from the write, or from the connect if there is one."""
    longest_stall_s: float = field(default=0.0, init=False)
    """The longest that a client went without an answer that it wanted, failures and new attempts included."""

    def __post_init__(self) -> None:
        self._poller = select.epoll()
        self._busy: dict[int, Client] = {}
        self._pausing: list[tuple[float, int, Client]] = []
        self._serial = count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd")
        self._error: BaseException | None = None
        self._started = 0.0

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return sum(len(latencies) for latencies in list(self.latencies_s.values()))

    @property
    def requests(self) -> int:
        """How many requests were answered or failed."""
        return self.answers + len(self.failures)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    # The loop

    def _run(self) -> None:
        if self.core is not None:
            os.sched_setaffinity(0, {self.core})
        self._started = time.monotonic()
        clients = [Client(script) for script in self.scripts]
        try:
            for client in clients:
                self._plan(client)
            while not self._over.is_set():
                self._turn()
            self._pausing.clear()
            deadline = time.monotonic() + self.patience_s
            while self._busy and time.monotonic() < deadline:
                self._turn(begin=False)
            for client in list(self._busy.values()):
                self._fail(client, "unanswered")
            for client in clients:
                self.longest_stall_s = max(self.longest_stall_s, self._waited(client))
                self.closed += client.sock is not None and _is_closed(client.sock)
        except BaseException as error:  # told to who leaves the block
            self._error = error
        finally:
            for client in clients:
                if client.sock is not None:
                    client.sock.close()
            self._poller.close()

    def _turn(self, *, begin: bool = True) -> None:
        """Wait for something to do, for a moment at most, and do it."""
        wait_s = 0.05
        if begin and self._pausing:
            wait_s = min(wait_s, max(0.0, self._pausing[0][0] - time.monotonic()))
        select.select([self._poller], [], [], wait_s)  # epoll's own timeout is in whole milliseconds
        for fd, _ in self._poller.poll(0):
            client = self._busy[fd]
            try:
                if client.connecting:
                    self._connected(client)
                else:
                    self._receive(client)
            except OSError as error:
                self._fail(client, _kind(error))
        while begin and self._pausing and self._pausing[0][0] <= time.monotonic():
            self._begin(heapq.heappop(self._pausing)[2])

    def _plan(self, client: Client, at_least_s: float = 0.0) -> None:
        """Take the next step of the script, and pause."""
        client.step = next(client.script)
        due = time.monotonic() + max(client.step.pause_s, at_least_s)
        heapq.heappush(self._pausing, (due, next(self._serial), client))

    # A request

    def _begin(self, client: Client) -> None:
        client.received = b""
        client.began = time.monotonic()
        client.wanted = client.wanted or client.began
        try:
            if client.sock is None:
                self._connect(client)
            else:
                self._watch(client, select.EPOLLIN)
                self._send(client)
        except OSError as error:
            self._fail(client, _kind(error))

    def _connect(self, client: Client) -> None:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        client.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.connecting, client.reused = True, False
        problem = client.sock.connect_ex(self.address)
        if problem not in (0, errno.EINPROGRESS):
            raise OSError(problem, os.strerror(problem))
        self._watch(client, select.EPOLLOUT)

    def _connected(self, client: Client) -> None:
        assert client.sock is not None
        problem = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))
        if client.sock.family == socket.AF_INET:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connecting = False
        self.connections += 1
        self._poller.modify(client.sock, select.EPOLLIN)
        self._send(client)

    def _send(self, client: Client) -> None:
        assert client.sock is not None
        close = "Connection: close\r\n" if client.step.close else ""
        # So few bytes always fit into the send buffer of a connection whose answers have been read.
        client.sock.send(f"GET {client.step.path} HTTP/1.1\r\nHost: crowd\r\n{close}\r\n".encode())

    def _receive(self, client: Client) -> None:
        assert client.sock is not None
        piece = client.sock.recv(65536)
        if not piece:
            self._fail(client, "end of file")
            return
        client.received += piece
        head, end, body = client.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = LENGTH.search(head)
        if length is None:
            raise ValueError(f"the response does not say its length: {head!r}")
        if len(body) >= int(length[1]):
            self._finish(client, head)

    def _finish(self, client: Client, head: bytes) -> None:
        assert client.sock is not None
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            self._fail(client, f"status {status}")
            return
        self.latencies_s[client.step.path].append(time.monotonic() - client.began)
        self.longest_stall_s = max(self.longest_stall_s, self._waited(client))
        client.wanted, client.reused = 0.0, True
        announced = CLOSE.search(head) is not None
        self.closed += announced and not client.step.close
        if announced or client.step.close:
            self._hang_up(client)
        else:
            self._unwatch(client)  # From here on it is idle, and nobody looks.
        self._plan(client)

    def _fail(self, client: Client, kind: str) -> None:
        """Count a failure, and let the client go on with a new connection after its pause."""
        if client.connecting:
            kind = "refused"
        at_s = time.monotonic() - self._started
        self.failures.append(Failure(kind, client.reused, client.step.path, at_s))
        self.closed += kind in ("reset", "end of file")
        self._hang_up(client)
        self._plan(client, RETRY_S)  # A server that is gone gets no flood of connects.

    def _waited(self, client: Client) -> float:
        return time.monotonic() - client.wanted if client.wanted else 0.0

    # The connection

    def _watch(self, client: Client, events: int) -> None:
        assert client.sock is not None
        self._poller.register(client.sock, events)
        self._busy[client.sock.fileno()] = client

    def _unwatch(self, client: Client) -> None:
        assert client.sock is not None
        if self._busy.pop(client.sock.fileno(), None) is not None:
            self._poller.unregister(client.sock)

    def _hang_up(self, client: Client) -> None:
        assert client.sock is not None
        self._unwatch(client)
        client.sock.close()
        client.sock, client.connecting = None, False


def _is_closed(sock: socket.socket) -> bool:
    """Tell whether the server has ended an idle connection; only asked at the end."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _kind(error: OSError) -> str:
    """Name what a system call said in the words of a failure."""
    return "reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else str(error)
