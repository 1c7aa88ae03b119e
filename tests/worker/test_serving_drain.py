"""How a worker leaves: nothing that was received is lost, and everybody is told."""

from __future__ import annotations

import socket
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from serving_harness import Gate, echo, eventually, serving

from prefork.worker.server import Server

WAIT = b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("threads", [1, 3])
def test_drain_finishes_everything_and_announces_the_close(threads: int) -> None:
    gate = Gate()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(gate, threads=threads, listener=listener) as s,
    ):
        idle, partial, body, pipelined, running = (s.connect() for _ in range(5))
        assert idle.get()[1].get("connection") != "close"
        partial.send(b"GET /partial HTTP/1.1\r\n")
        body.send(b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhe")
        eventually(lambda: s.call(lambda: (len(s.server.head.entries), len(s.server.body.entries))) == (1, 1))
        if threads == 1:
            s.call(s.server.drain)
        running.send(WAIT)
        pipelined.send(WAIT + b"GET /second HTTP/1.1\r\nHost: t\r\n\r\n")
        if threads > 1:
            gate.await_entry()
            gate.await_entry()
            s.call(s.server.drain)
        gate.opened.set()
        status, headers, answer = running.response()
        assert (status, headers["connection"], answer) == (200, "close", b"GET /wait ")
        # What was pipelined is answered; the close is announced on the last one.
        assert "connection" not in pipelined.response()[1]
        status, headers, answer = pipelined.response()
        assert (status, headers["connection"], answer) == (200, "close", b"GET /second ")
        partial.send(b"Host: t\r\n\r\n")
        body.send(b"llo")
        assert partial.response()[1]["connection"] == body.response()[1]["connection"] == "close"
        assert idle.rest() == b""  # after the quiet period
        for client in (partial, body, pipelined, running):
            assert client.rest() == b""
            client.close()
        eventually(s.ended)
        listener.settimeout(10)
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()  # still open for the siblings


def test_an_idle_connection_may_send_within_the_quiet_period() -> None:
    with serving(echo) as server:
        client = server.connect()
        assert client.get()[0] == 200
        before = monotonic()
        server.call(server.server.drain)
        assert all(due >= before + 1 for due in server.server.keep_alive.entries.values())
        assert client.get("/on")[1]["connection"] == "close"
        client.close()
        eventually(server.ended)


def test_a_silent_connection_does_not_hold_a_drain_without_any_timeout() -> None:
    with serving(echo, timeouts={"keep_alive": 0.0, "head": 0.0}) as server:
        client = server.connect()
        eventually(lambda: server.server.open_connections == 1)
        server.call(server.server.drain)
        assert client.rest() == b""
        eventually(server.ended)


@pytest.mark.parametrize("kind", ["tcp", "unix", "unix shut down"])
@pytest.mark.parametrize("threads", [1, 2])
def test_final_drain_accepts_until_told_and_loses_nobody(kind: str, threads: int, tmp_path: Path) -> None:
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if kind == "tcp" else str(tmp_path / "socket"))
        listener.listen(100)
        gate = Gate()
        with serving(gate, threads=threads, listener=listener) as server:
            server.call(lambda: server.server.drain(final=True))
            new = server.connect()
            status, headers, _ = new.get("/new")
            assert (status, headers["connection"]) == (200, "close")
            new.close()
            blocking = [server.connect() for _ in range(threads)]
            for client in blocking:
                client.send(WAIT)
                gate.await_entry()
            waiting = [server.connect() for _ in range(20)]
            for client in waiting:
                client.send(b"GET /queued HTTP/1.1\r\nHost: t\r\n\r\n")
            if kind == "unix shut down":
                listener.shutdown(socket.SHUT_RD)
            server.server.loop.post(server.server.close_listeners)
            gate.opened.set()
            for client in blocking + waiting:
                status, headers, _ = client.response()
                assert (status, headers["connection"]) == (200, "close")
                client.close()
            eventually(server.ended)


@pytest.mark.parametrize("threads", [1, 2])
def test_without_a_master_it_finishes_what_it_has_and_leaves(threads: int) -> None:
    gate = Gate()
    with serving(gate, threads=threads) as server:
        idle, partial, running = (server.connect() for _ in range(3))
        assert idle.get()[0] == 200
        partial.send(b"GET /never HTTP/1.1\r\n")
        eventually(lambda: server.call(lambda: len(server.server.head.entries)) == 1)
        running.send(WAIT)
        gate.await_entry()
        server.server.loop.post(server.server.master_gone)
        if threads > 1:
            assert idle.rest() == b""
        gate.opened.set()
        status, headers, _ = running.response()
        assert status == 200
        # With one thread the loop hears of it when the application is done.
        assert headers.get("connection") == ("close" if threads > 1 else None)
        assert idle.rest() == b""
        # The partial request is not waited for longer than two seconds.
        eventually(server.ended)
        assert partial.rest() == b""


@pytest.mark.parametrize("threads", [1, 2])
def test_quit_drops_what_is_open(threads: int) -> None:
    gate = Gate()
    with serving(gate, threads=threads) as server:
        idle, running = server.connect(), server.connect()
        assert idle.get()[0] == 200
        running.send(WAIT)
        gate.await_entry()
        # The answer may arrive before the loop has taken the connection back from its thread.
        eventually(lambda: len(server.server.keep_alive.entries) == 1)
        server.server.loop.post(server.server.quit)
        if threads > 1:
            eventually(server.ended)
        gate.opened.set()
        eventually(server.ended)
        assert idle.rest() == b""


def test_a_generic_service_drains() -> None:
    class Reader(Server):
        def process_request(self, request: Any, client_address: Any) -> None:
            request.sendall(request.recv(100))

    for threads in (1, 2):
        with serving(server_class=Reader, threads=threads) as server:
            client = server.connect()
            eventually(lambda: server.server.open_connections == 1)
            server.server.loop.post(server.server.drain)
            client.send(b"last")
            assert client.rest() == b"last"
            eventually(server.ended)
