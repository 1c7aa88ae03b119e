"""A slow reader costs a buffer, not a worker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from serving_harness import Events, echo, eventually, serving

from prefork.worker import outgoing
from prefork.worker.exchange import ClientGone
from prefork.worker.outgoing import Outgoing
from prefork.worker.storage import Storage

BIG = bytes(range(256)) * 4096 * 16  # 16 MiB: more than the socket buffers of both sides


def big(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] != "/big":
        return echo(environ, start_response)
    start_response("200 OK", [("Content-Length", str(len(BIG)))])
    return [BIG]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_rest_of_a_response_is_sent_while_others_are_served(threads: int) -> None:
    with serving(big, threads=threads, limits={"response_memory": 2 * len(BIG)}) as server:
        slow = server.connect()
        slow.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\nGET /after HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: _states(server) == ["FLUSHING"])
        assert server.connect().get("/fast")[2] == b"GET /fast "
        assert slow.response()[2] == BIG
        assert slow.response()[2] == b"GET /after "
        eventually(lambda: _states(server) == ["IDLE", "IDLE"])


def test_a_client_that_goes_away_while_its_response_waits_frees_it() -> None:
    with serving(big, limits={"response_memory": 2 * len(BIG)}) as server:
        slow = server.connect()
        slow.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: _states(server) == ["FLUSHING"])
        slow.close()
        eventually(lambda: server.server.open_connections == 0)


@pytest.mark.parametrize("limit", [2 * len(BIG), 1024 * 1024])
def test_a_stopped_reader_is_cut_at_the_send_deadline(limit: int) -> None:
    """In the loop with what is buffered, and in the application's thread beyond the buffer."""
    with serving(big, timeouts={"send": 0.2}, limits={"response_memory": limit, "spool": 0}) as server:
        stopped = server.connect()
        stopped.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: server.server.cell.counts().accepted == 1 and server.server.open_connections == 0)
        assert stopped.reset()
        eventually(lambda: server.server.cell.counts().refused == {"slow-reader": 1})  # a turn later
        [line] = server.cuts()
        assert "took nothing for 0.2 s" in line


def test_without_room_a_stopped_reader_does_not_hold_up_the_worker() -> None:
    with serving(big, limits={"spool": 0}) as server:
        stopped = server.connect()
        stopped.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(server.server.cell.running)
        # The send deadline is that of the harness, a minute, for which nobody has the patience.
        assert server.connect().get("/fast")[2] == b"GET /fast "
        assert stopped.reset()
        [line] = server.cuts()
        assert "it held up the worker" in line


def test_a_stopped_reader_may_have_a_thread_as_long_as_there_is_another(monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing, "PATIENCE_S", 0.1)
    with serving(big, threads=2, limits={"spool": 0}) as server:
        stopped = [server.connect() for _ in range(2)]
        stopped[0].send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: 0.0 in [c.patience_s for c in list(server.server.connections.values())])
        fast = server.connect()
        for _ in range(100):
            assert fast.get("/fast")[2] == b"GET /fast "
        assert not server.log.lines
        stopped[1].send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        assert fast.get("/fast")[2] == b"GET /fast "
        assert server.cuts()


def test_without_room_a_trickle_is_not_enough(monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing, "STEADY_BYTES_PER_S", 1 << 50)

    def endless(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while True:
            yield bytes(100_000)

    with serving(endless, limits={"spool": 0, "response_memory": 0}) as server:
        reader = server.connect()
        reader.send(b"GET / HTTP/1.0\r\n\r\n")
        assert reader.reset()
        assert "it held up the worker" in server.cuts()[0]


def test_beyond_the_memory_limit_the_producer_waits() -> None:
    produced = 0

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal produced
        start_response("200 OK", [])
        for _ in range(256):
            produced += 1
            yield bytes(256 * 1024)

    with serving(app, threads=2, limits={"response_memory": 512 * 1024, "spool": 0}) as server:
        client = server.connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda: produced > 2)
        connection = next(iter(server.server.connections.values()))
        eventually(lambda: connection.output is not None and connection.output.held_bytes > 512 * 1024)
        # It waits with at most one block more than the limit, and goes on as the client reads.
        assert connection.output.held_bytes < (512 + 257) * 1024
        assert produced < 256
        assert len(client.response()[2]) == 256 * 256 * 1024


def test_outgoing_keeps_order_and_gives_up_when_the_client_is_gone() -> None:
    ours, theirs = socket.socketpair()
    way = Outgoing(ours, Storage(1 << 30, 0, "", Events()), 64 * 1024 * 1024, 1.0)
    pieces = [bytes([number]) * (number * 1000) for number in range(1, 200)]
    received = bytearray()

    def read() -> None:
        while data := theirs.recv(65536):
            received.extend(data)

    for piece in pieces:
        way.write([piece, b"", piece])
    assert way.output
    reader = threading.Thread(target=read)
    reader.start()
    while way.output:
        way.flush()
    ours.shutdown(socket.SHUT_WR)
    reader.join()
    assert received == b"".join(piece * 2 for piece in pieces)
    theirs.close()
    with pytest.raises(ClientGone):
        way.write(b"x")
    assert way.gone
    with pytest.raises(ClientGone):
        way.write(b"x")
    way.abort()
    ours.close()


def _states(server: Any) -> list[str]:
    connections = server.call(lambda: [c.state.name for c in server.server.connections.values()])
    return sorted(connections)
