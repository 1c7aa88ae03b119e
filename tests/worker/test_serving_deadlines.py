"""Deadlines of connections, and that waiting for them costs one wake each."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import pytest
from serving_harness import PATIENCE_S, Gate, echo, eventually, serving

from prefork.worker.deadlines import NEVER, Deadlines, nearest
from prefork.worker.http_server import HTTPServer
from prefork.worker.loop import Loop

PART_OF_HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"
PART_OF_BODY = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nhello"


class CountingServer(HTTPServer):
    """Counts its turns."""

    turns = 0

    def service_actions(self) -> None:
        self.turns += 1


def test_deadlines_expire_in_order_and_zero_means_never() -> None:
    expired: list[str] = []
    queue: Deadlines[str] = Deadlines(60.0, expired.append)
    off: Deadlines[str] = Deadlines(0.0, expired.append)
    for name in "abc":
        queue.start(name)
        off.start(name)
    queue.start("a")
    assert list(queue.entries) == ["b", "c", "a"]
    queue.stop("c", None)
    due = nearest([off, queue])
    assert due == queue.entries["b"]
    queue.run(due)
    assert expired == ["b"]
    queue.run(NEVER)
    off.run(1e12)
    assert expired == ["b", "a"]
    assert nearest([off, queue]) == NEVER


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"])
def test_an_idle_connection_is_closed_silently_at_one_wake(first: bytes) -> None:
    with serving(echo, server_class=CountingServer, timeouts={"keep_alive": 0.3}) as server:
        client = server.connect()
        client.send(first)
        if first:
            client.response()
        eventually(lambda: len(server.server.keep_alive.entries) == 1)
        before = server.server.turns
        assert client.rest() == b""
        eventually(lambda: server.server.turns > before)
        assert server.server.turns - before <= 2  # the end of the turn under way, and the one that closed it


def test_a_silent_connection_has_the_time_of_a_head_where_none_is_kept() -> None:
    with serving(echo, timeouts={"keep_alive": 0.0, "head": 0.2}) as server:
        assert server.connect().rest() == b""
        assert server.connect().get()[1]["connection"] == "close"


@pytest.mark.parametrize(
    ("part", "timeouts"),
    [(PART_OF_HEAD, {"head": 0.2}), (PART_OF_BODY, {"body": 0.2}), (b"G", {"head": 0.2})],
)
def test_a_request_that_does_not_arrive_in_time_is_408(part: bytes, timeouts: dict[str, float]) -> None:
    with serving(echo, timeouts=timeouts) as server:
        client = server.connect()
        client.send(part)
        status, headers, _ = client.response()
        assert (status, headers["connection"]) == (408, "close")
        assert client.rest() == b""
        assert len(server.log.named("request-refused")) == 1


def test_a_byte_at_a_time_does_not_stretch_the_head_but_is_progress_of_a_body() -> None:
    pause = threading.Event()
    with serving(echo, timeouts={"head": 0.5, "body": 0.5}) as server:
        body = server.connect()
        body.send(PART_OF_BODY[:-5])
        client = server.connect()
        client.sock.settimeout(0)
        client.send(PART_OF_HEAD + b"X: ")
        answer = b""
        for _ in range(1000):
            # Longer than either deadline in all, a byte well within each.
            client.send(b"x")
            body.send(b"b")
            pause.wait(0.02)
            try:
                answer = client.sock.recv(1000)
            except BlockingIOError:
                continue
            break
        assert answer.startswith(b"HTTP/1.1 408 ")
        eventually(lambda: [c.state.name for c in server.server.body.entries] == ["BODY"])


def test_bytes_that_came_while_the_application_ran_count_before_the_deadline() -> None:
    gate = Gate()
    with serving(gate, timeouts={"head": 0.2, "body": 0.2, "keep_alive": 0.2}) as server:
        parts = [PART_OF_HEAD, PART_OF_BODY, b""]
        rests = [b"\r\n", b"x" * 995, PART_OF_HEAD + b"\r\n"]
        clients = [server.connect() for _ in parts]
        for client, part in zip(clients, parts, strict=True):
            client.send(part)
        eventually(lambda: server.call(lambda: server.server.open_connections) == 3)
        blocking = server.connect()
        blocking.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
        gate.await_entry()
        for client, rest in zip(clients, rests, strict=True):
            client.send(rest)
        threading.Event().wait(0.4)  # not for a condition: the deadlines are to pass
        gate.opened.set()
        assert [client.response()[0] for client in clients] == [200, 200, 200]


def test_lingering_is_bounded() -> None:
    with serving(echo) as server:
        server.server.linger.timeout_s = 0.2
        client = server.connect()
        client.send(b"nonsense\r\n\r\n")
        assert client.response()[0] == 400
        # The client neither closes nor stops sending.
        eventually(lambda: server.server.open_connections == 0)


def test_a_turn_before_which_nothing_was_waited_for_looks_at_no_deadlines() -> None:
    """As in each of a worker whose clients send one request on each connection."""
    loop = Loop()
    expired: list[str] = []
    queue = loop.deadlines(1e-9, expired.append)
    os.eventfd_write(loop._wake_fd, 1)
    loop.wait()
    queue.start("over at once")
    loop.finish_turn()
    assert expired == []
    loop.wait()
    loop.finish_turn()
    assert expired == ["over at once"]
    loop.close()


def test_no_wake_while_nothing_is_due() -> None:
    with serving(echo, server_class=CountingServer, timeouts={"keep_alive": 3600.0}) as server:
        clients = [server.connect() for _ in range(5)]
        for client in clients:
            client.get()
        waits: list[Any] = []
        epoll = server.server.loop.epoll

        class Recorder:
            def poll(self, *timeout: Any) -> list[tuple[int, int]]:
                waits.append(timeout)
                return epoll.poll(*timeout)

        server.call(lambda: setattr(server.server.loop, "epoll", Recorder()))
        eventually(lambda: waits)
        server.call(lambda: setattr(server.server.loop, "epoll", epoll))
        assert waits[0][0] == pytest.approx(3600, abs=PATIENCE_S)
        for client in clients:
            client.close()
        eventually(lambda: server.server.open_connections == 0)
        waits.clear()
        server.call(lambda: setattr(server.server.loop, "epoll", Recorder()))
        eventually(lambda: waits)
        server.call(lambda: setattr(server.server.loop, "epoll", epoll))
        assert waits[0][0] is None  # for ever
        assert isinstance(server.connect().sock, socket.socket)
