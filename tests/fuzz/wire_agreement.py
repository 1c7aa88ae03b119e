"""What must be true of any bytes: read whole or in pieces, they mean the same, and every one ends well.

Used by the property tests, by the replay of the corpus, and by the fuzz targets. A violation is an ``AssertionError``
(or whatever the product raises). Nothing here waits: the server's loop is turned by hand, over a socketpair.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ssl import SSLContext
from types import SimpleNamespace
from typing import Any
from wsgiref.validate import validator

from reader_agreement import LIMITS, pieces

from prefork.http.sender import REQUEST_ID_KEY, ProxyPolicy
from prefork.scoreboard import Scoreboard
from prefork.worker.connection_state import State
from prefork.worker.gateway import Gateway
from prefork.worker.http_server import HTTPServer

PEER = "192.0.2.1"
EVERYTHING = ("for", "proto", "host", "port", "prefix")
POLICIES = {
    "connection": None,
    "proxied": ProxyPolicy(trust=(PEER, "10.0.0.0/8"), use=EVERYTHING, allow_names=("X_Role",)),
    "forwarded": ProxyPolicy(trust=(PEER, "10.0.0.0/8"), use=EVERYTHING, forwarded="forwarded"),
    "introduced": ProxyPolicy(trust=(PEER,)),
}
"""The servers that are asked, by the name of their fuzz target."""

_VARYING = re.compile(rb"HTTP/1\.1 100 Continue\r\n\r\n|Date: [^\r]*\r\n")
_VARYING_KEYS = {"wsgi.errors", "wsgi.input", "wsgi.file_wrapper", "prefork.extend_deadline", REQUEST_ID_KEY}


class Record:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, event: str, message: str, /, **fields: Any) -> None:
        self.lines.append((event, f"{message} {fields.get('traceback', '')}"))

    debug = warning = error = info


class Outcome:
    """What one connection came to."""

    def __init__(self) -> None:
        self.answered = b""
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        """Environ and body of those that the application saw."""
        self.closed = False
        """Was it closed by the server before the client said that it sends no more?"""

    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) (?!Continue)", self.answered)]


class Machine:
    """A web server whose loop the caller turns; one connection at a time, from ``PEER``.

    The standard library's validator stands between the gateway and the application.
    """

    def __init__(
        self,
        policy: ProxyPolicy | None = None,
        *,
        introduced: bool = False,
        app: Any = None,
        tls: SSLContext | None = None,
    ) -> None:
        """``app``: instead of the one that echoes, and that may not fail."""
        self.log = Record()
        self._may_fail = app is not None
        self._outcome = Outcome()
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC)
        self._board = Scoreboard.create("fuzz", 1, cells=1, threads=1, doorbell=self._doorbell)
        # Never accepted from; it only gives the server its name.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._name = self._listener.getsockname()
        self.server = HTTPServer(
            [self._listener],
            self.log,
            self._board.cells[0],
            Gateway(app or validator(self._record), log=self.log),  # type: ignore[arg-type]
            timeouts=SimpleNamespace(keep_alive=60.0, head=60.0, body=60.0, send=60.0),
            limits=SimpleNamespace(
                request_line=LIMITS.request_line_bytes,
                fields=LIMITS.fields,
                head=LIMITS.head_bytes,
                body=LIMITS.body_bytes,
                body_memory=100,
                response_memory=1000,
                memory=100_000,
                spool=100_000,
                connections=10,
            ),
            proxies=policy,
            introduced={self._listener.fileno()} if introduced else (),
            tls={self._listener.fileno(): tls} if tls else {},
        )
        self.server.main_cell.bind()

    @classmethod
    def of_kind(cls, kind: str) -> Machine:
        """Make one of ``POLICIES``."""
        return cls(POLICIES[kind], introduced=kind == "introduced")

    def close(self) -> None:
        self.server.server_close()
        self._board.close()
        os.close(self._doorbell)

    def connection(self, parts: Sequence[bytes]) -> Outcome:
        """Send ``parts`` one after the other, then the end of the file; return what came back."""
        outcome = Outcome()
        with self.client(outcome) as ours:
            for part in parts:
                self.deliver(ours, part, outcome)
                if outcome.closed:
                    break
        return outcome

    @contextmanager
    def client(self, outcome: Outcome) -> Iterator[socket.socket]:
        """Open a connection, and in the end send the end of the file: it must be answered, and nothing be left."""
        self._outcome = outcome
        self.log.lines.clear()
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            self.server.open_connections += 1
            self.server.admit(theirs, (PEER, 1), self._listener)
            self.turn(ours, outcome)
            yield ours
            ended, outcome.closed = outcome.closed, False
            with suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
            self.turn(ours, outcome)
            assert outcome.closed or ended, "the client has said that it sends no more, and is not answered"
            outcome.closed = ended
        self.turn(None, outcome)
        assert self.server.open_connections == 0, "a connection is left behind"
        assert (self.server.storage.memory_bytes, self.server.storage.spool_bytes) == (0, 0)
        unexpected = [line for line in self.log.lines if not line[0].endswith(("-refused", "tls-failed"))]
        assert self._may_fail or not unexpected, unexpected

    def deliver(self, client: socket.socket, part: bytes, outcome: Outcome) -> None:
        """Send ``part``, and see what becomes of it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            client.send(part)
        self.turn(client, outcome)

    def turn(self, client: socket.socket | None, outcome: Outcome) -> None:
        """Turn the loop, and read as a client does, until nothing happens any more; then check the rest state."""
        server = self.server
        for _ in range(1000):
            events = server.loop.epoll.poll(0)
            idle = not events and not server.loop.soon
            server._serve(events)
            received = _receive(client) if client is not None else None
            if received is not None:
                outcome.answered += received
                outcome.closed = outcome.closed or not received
            if idle and not received:
                break
        else:
            raise AssertionError("the loop does not come to rest")
        self._check_deadlines()

    def _check_deadlines(self) -> None:
        """Check that nothing hangs: whatever a connection waits for has a deadline, and is watched."""
        server = self.server
        queues = [
            ((State.IDLE,), server.keep_alive),
            ((State.HANDSHAKE, State.HEAD), server.head),
            ((State.BODY,), server.body),
            ((State.FLUSHING,), server.sending),
            ((State.LINGERING,), server.linger),
        ]
        if hasattr(server, "introductions"):
            queues.append(((State.INTRODUCTION,), server.introductions))
        for connection in server.connections.values():
            for states, queue in queues:
                assert (connection in queue.entries) == (connection.state in states), connection.state
            assert any(connection.state in states for states, _ in queues), connection.state
            assert connection.fd in server.loop.handlers

    def _record(self, environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(-1)
        shown = {key: value for key, value in environ.items() if key not in _VARYING_KEYS}
        self._outcome.requests.append((shown, body))
        return _echo(environ, start_response, body)


def _receive(client: socket.socket) -> bytes | None:
    """Return what is there; empty at the end, None for nothing."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _echo(environ: dict[str, Any], start_response: Any, body: bytes) -> Any:
    """Answer in a way that the query chooses: with a length, or in chunks."""
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode("latin-1") + body
    in_chunks = "c" in environ["QUERY_STRING"]
    length = [] if in_chunks else [("Content-Length", str(len(answer)))]
    start_response("200 OK", [("Content-Type", "text/plain"), *length])
    return iter([answer[:5], b"", answer[5:]]) if in_chunks else [answer]


def check_answers(outcome: Outcome) -> None:
    """Read what was answered as a client does: each response ends where it says, and nothing is between them."""
    rest = outcome.answered
    methods = [environ["REQUEST_METHOD"] for environ, _ in outcome.requests]
    while rest:
        head, found, rest = rest.partition(b"\r\n\r\n")
        assert found, "a head without an end"
        line, *lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]+", line)
        assert status, line
        if status[1] == b"100":
            continue
        fields = {}
        for line in lines:
            field = re.fullmatch(rb"([A-Za-z-]+): ([ -~]+)", line)
            assert field, line
            assert field[1] not in fields, line
            fields[field[1]] = field[2]
        assert {b"Date", b"Server"} <= fields.keys()
        assert not {b"Content-Length", b"Transfer-Encoding"} <= fields.keys()
        method = methods.pop(0) if methods else None
        if method is None:
            assert status[1] >= b"400", "more answers than requests"
            assert fields[b"Connection"] == b"close"
        if method == "HEAD":
            pass
        elif b"Transfer-Encoding" in fields:
            size = None
            while size != 0:
                line, _, rest = rest.partition(b"\r\n")
                size = int(line, 16)
                assert rest[size : size + 2] == b"\r\n"
                rest = rest[size + 2 :]
        elif b"Content-Length" in fields:
            length = int(fields[b"Content-Length"])
            # Perhaps a HEAD that was refused.
            assert len(rest) >= length or (method is None and not rest)
            rest = rest[length:]
        else:
            assert fields[b"Connection"] == b"close"
            rest = b""
        if fields.get(b"Connection") == b"close":
            assert not rest, "something follows the last response"
    assert not methods, "a request without an answer"


def check_connection(machine: Machine, data: bytes, cuts: Iterable[int] = ()) -> Outcome:
    """Check that ``data`` is answered in the same way however it arrives; return the outcome."""
    whole = machine.connection([data] if data else [])
    check_answers(whole)
    for parts in (pieces(data, cuts), pieces(data, range(len(data)))):
        check_alike(whole, machine.connection(parts))
    return whole


def check_alike(whole: Outcome, cut: Outcome) -> None:
    """Check that the same bytes came to the same, however they arrived."""
    assert cut.requests == whole.requests
    if cut.statuses() == whole.statuses():
        if 400 not in cut.statuses():  # The reason is part of the answer.
            assert _VARYING.sub(b"", cut.answered) == _VARYING.sub(b"", whole.answered)
    else:
        # Wrong in two ways: see ``same``.
        assert cut.statuses()[:-1] == whole.statuses()[:-1]
        assert whole.closed
        assert min(cut.statuses()[-1], whole.statuses()[-1]) >= 400
