"""The system gives no thread for a while: what does not need one is served, and everything when it does again."""

from __future__ import annotations

import threading

import pytest
from serving_harness import Gate, Serving, eventually, serving
from test_serving_sharing import GET, adopted, relay, sharing

from prefork.relay import Relay

__all__ = ["relay"]


def forbid(patch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)


def test_without_a_steward_requests_are_served(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with sharing(relay, gate) as first, sharing(relay) as second:
        running, waiting = first.connect(), first.connect()
        with monkeypatch.context() as patch:
            forbid(patch)
            for client in (running, waiting, running):
                assert client.get("/a")[2] == b"GET /a "
        assert adopted(second) == 0
        running.send(GET.replace(b"/a", b"/wait"))
        gate.await_entry()
        assert waiting.get("/a")[2] == b"GET /a "
        assert adopted(second) == 1
        gate.opened.set()


def test_fewer_threads_serve_all(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def three(server: Serving) -> None:
        clients = [server.connect() for _ in range(3)]
        clients[0].send(GET.replace(b"/a", b"/wait"))
        gate.await_entry()
        for client in clients[1:]:
            client.send(GET)
        server.call(lambda: None)
        gate.opened.set()
        for client in clients:
            assert client.response()[0] == 200

    with serving(gate, threads=3) as server:
        with monkeypatch.context() as patch:
            forbid(patch)
            client = server.connect()
            client.send(GET)
            assert client.reset()
            eventually(lambda: server.server.open_connections == 0)
        assert server.connect().get()[0] == 200
        with monkeypatch.context() as patch:
            forbid(patch)
            three(server)
        gate.opened.clear()
        three(server)
