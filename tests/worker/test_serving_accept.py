"""The generic server: a blocking socket service, and how connections are taken."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from typing import Any

import pytest
from serving_harness import PATIENCE_S, Gate, echo, eventually, serving

from prefork.figures import Connections
from prefork.worker.http_server import HTTPServer
from prefork.worker.server import Server


class EchoServer(Server):
    """The whole of a blocking service."""

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return bool(client_address[1] != getattr(self, "refused_port", None))

    def process_request(self, request: Any, client_address: Any) -> None:
        while data := request.recv(1000):
            if data == b"fail":
                raise RuntimeError("asked to fail")
            request.sendall(data.upper())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_subclass_makes_a_blocking_service(threads: int) -> None:
    with serving(server_class=EchoServer, threads=threads) as server:
        for _ in range(3):
            client = server.connect()
            for word in (b"one", b"two"):
                client.send(word)
                assert client.sock.recv(100) == word.upper()
            client.sock.shutdown(socket.SHUT_WR)
            assert client.rest() == b""
        failing = server.connect()
        failing.send(b"fail")
        assert failing.rest() == b""
        assert "asked to fail" in server.log.named("request-failed")[0]
        with socket.socket() as refused:
            refused.settimeout(PATIENCE_S)
            refused.bind(("127.0.0.1", 0))
            server.server.refused_port = refused.getsockname()[1]
            refused.connect(server.address)
            assert refused.recv(100) == b""
        eventually(lambda: server.server.open_connections == 0)
        assert server.server.cell.counts().accepted == 5
        assert server.server.cell.counts().refused == {"application": 1}


def test_threads_serve_at_the_same_time() -> None:
    with serving(server_class=EchoServer, threads=3) as server:
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(b"x")
        assert [client.sock.recv(10) for client in clients] == [b"X"] * 3
        assert server.server.cell.connections_by_state() == Connections(running=3)
        for client in clients:
            client.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: server.server.cell.connections_by_state() == Connections())


def test_watch_calls_from_the_loop() -> None:
    called: list[int] = []
    reader, writer = os.pipe()

    def callback() -> None:
        called.append(threading.get_ident())
        os.read(reader, 1)

    with serving(echo) as server:
        server.call(lambda: server.server.watch(reader, callback))
        os.write(writer, b"x")
        eventually(lambda: called == [server.thread.ident])
        server.call(lambda: server.server.unwatch(reader))
        os.write(writer, b"x")
        assert server.connect().get()[0] == 200
        assert len(called) == 1
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_busy_worker_leaves_new_connections_to_its_siblings(threads: int) -> None:
    """Also with threads: when all are busy the worker must not take what it cannot serve at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy_gate = Gate()
        with (
            serving(busy_gate, threads=threads, listener=listener) as busy,
            serving(echo, listener=listener) as idle,
        ):
            # The sibling must not be woken for the first ones.
            idle.call(lambda: idle.server.acceptor.hold("test"))
            for _ in range(threads):
                busy.connect().send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
                busy_gate.await_entry()
            if threads > 1:
                eventually(lambda: not busy.server.acceptor.listening)
            idle.call(lambda: idle.server.acceptor.release("test"))
            for _ in range(20):
                assert idle.connect().get()[0] == 200
            assert idle.server.cell.counts().accepted == 20
            busy_gate.opened.set()
            for client in busy.clients:
                assert client.response()[0] == 200
            eventually(lambda: busy.server.acceptor.listening)


def test_one_connection_at_a_time_is_taken() -> None:
    """Two connections wait when a worker looks: it takes one of them and serves it first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gate = Gate()
        with serving(gate, listener=listener) as server:
            server.call(lambda: server.server.acceptor.hold("test"))
            first, second = server.connect(), server.connect()
            first.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            second.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            server.call(lambda: server.server.acceptor.release("test"))
            gate.await_entry()
            assert select.select([listener], [], [], 0)[0] == [listener]  # the other one is for a sibling
            gate.opened.set()
            assert first.response()[0] == second.response()[0] == 200


def test_the_longest_idle_connection_makes_room_and_then_accepting_pauses() -> None:
    with serving(echo, limits={"connections": 3}) as server:
        idle = [server.connect() for _ in range(3)]
        for client in idle:
            assert client.get()[0] == 200
        assert idle[0].get()[0] == 200  # so the second is idle for longest
        partial = server.connect()
        partial.send(b"GET /late HTTP/1.1\r\n")
        assert idle[1].rest() == b""
        more = [server.connect() for _ in range(2)]
        for client in more:
            client.send(b"GET / HTTP/1.1\r\n")
        assert idle[2].rest() == idle[0].rest() == b""
        eventually(lambda: server.server.acceptor.reasons == {"connections"})
        waiting = server.connect()
        waiting.send(b"GET /waited HTTP/1.1\r\nHost: t\r\n\r\n")
        assert server.call(lambda: server.server.open_connections) <= 4  # one may be taken once more
        partial.send(b"Host: t\r\n\r\n")
        more[0].close()
        assert waiting.response()[2] == b"GET /waited "
        assert partial.response()[2] == b"GET /late "


class ShortOfDescriptors(HTTPServer):
    """Cannot accept for some time."""

    failing = 0
    attempts = 0

    def get_request(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        self.attempts += 1
        if self.failing:
            self.failing -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().get_request(listener)


def test_without_descriptors_it_pauses_says_so_once_and_recovers() -> None:
    with serving(echo, server_class=ShortOfDescriptors) as server:
        server.server.acceptor._pause.timeout_s = 0.1
        idle = server.connect()
        assert idle.get()[0] == 200
        before = server.call(lambda: server.server.attempts)
        server.server.failing = 4
        client = server.connect()
        assert client.get()[0] == 200
        assert idle.rest() == b""  # it made room
        assert len(server.log.named("out-of-descriptors")) == 1
        # 4 failures, the one that worked, and at most as many looks at an empty queue.
        assert server.server.attempts - before <= 10
