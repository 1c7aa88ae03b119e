"""What the status shows of a load of known size: exactly that, in whatever way it came."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from clients import Pending, hold, release
from harness import PATIENCE_S, Server, wait_for
from pki import Pki

from prefork.bulletin import Bulletin
from prefork.scoreboard import Scoreboard
from prefork.status import status

APP = """
import os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/error":
        raise ValueError("on purpose")
    if path.startswith("/hold"):
        open("held" + path.replace("/", "-"), "w").write(str(os.getpid()))
        while not os.path.exists("release"):
            time.sleep(0.01)
    if path == "/slow":
        time.sleep(0.15)
    if path == "/late":
        time.sleep(600)
    if path == "/c":
        sum(range(10**11))
    body = environ["wsgi.input"].read()
    start_response("404 Not Found" if path == "/missing" else "200 OK", [("Content-Type", "text/plain")])
    if path == "/big":
        return [bytes(16_000_000)]
    if path == "/stream":
        return (b"0123456789" for _ in range(3))
    return [body or b"hello"]
"""
CONFIG = "app: myapp:app\n"
HOST = b" HTTP/1.1\r\nHost: t\r\n"


def shown(server: Server) -> dict[str, Any]:
    """Return what the status says of the only pool, from the shared memory that the master keeps."""
    boards = {}
    with ExitStack() as opened:
        for entry in Path(f"/proc/{server.pid}/fd").iterdir():
            try:
                name = os.readlink(entry)
            except FileNotFoundError:  # closed since
                continue
            if "memfd:prefork-bulletin" in name:
                bulletin = Bulletin(os.open(entry, os.O_RDWR))
                opened.callback(bulletin.close)
            elif found := re.search(r"memfd:prefork-myapp-([0-9]+)", name):
                boards["myapp", int(found[1])] = board = Scoreboard(os.open(entry, os.O_RDWR), -1)
                opened.callback(board.close)
        while True:
            edition = bulletin.read()
            if edition is not None:
                found = status(json.loads(edition.document), boards, time.monotonic())
                if bulletin.number == edition.number:
                    return found["pools"]["myapp"]  # type: ignore[no-any-return]


def figures(server: Server) -> dict[str, Any]:
    """Return the counters."""
    pool = shown(server)
    latency = pool.pop("latency")
    for name in ("application", "exchange"):
        pool[name] = sum(latency[name])
        pool[f"{name}_sum_s"] = latency[f"{name}_sum_s"]
    return pool


def expect(server: Server, **wanted: object) -> dict[str, Any]:
    """Wait until the counters are these; return all."""
    found: dict[str, Any] = {}

    def is_so() -> bool:
        found.update(figures(server))
        return all(found[name] == value for name, value in wanted.items())

    try:
        wait_for(is_so, "the counters", 10)
    except AssertionError:
        assert {name: found[name] for name in wanted} == wanted
    return found


class Load:
    """Connections one after the other, and how many bytes they have sent."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self.connections = self.sent_bytes = 0

    def converse(self, *sendings: bytes, answers: int = 1) -> None:
        """Send all on one connection, each after ``answers`` to the one before; then wait for its end."""
        self.connections += 1
        with self._connect() as sock:
            for sending in sendings:
                sock.sendall(sending)
                self.sent_bytes += len(sending)
                received = b""
                while received.count(b"HTTP/1.1 ") < answers:
                    received += (data := sock.recv(65536))
                    assert data, (sending, received, self.sent_bytes)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_load_of_known_size_is_counted_exactly(server: Server, pki: Pki, threads: int) -> None:
    for file in pki.folder.iterdir():
        shutil.copy(file, server.folder)
    tls = "{address: '127.0.0.2:0', tls: {cert: server.pem, key: server.key}}"
    server.serve(f"{CONFIG}workers: 2\nthreads: {threads}\nlisten: ['127.0.0.1:0', {tls}]\n", APP)
    plain_port, tls_port = map(int, re.findall(r":(\d+)", server.wait_for_log(r"serving on [^\n]*")[0])[-2:])

    def plain() -> socket.socket:
        return plain_to(plain_port)

    def encrypted() -> socket.socket:
        return pki.client_context().wrap_socket(plain_to(tls_port, "127.0.0.2"), server_hostname="localhost")

    total = 0
    for round_, connect in enumerate((plain, encrypted), 1):
        load = Load(connect)
        load.converse(*[b"GET /" + HOST + b"\r\n"] * 3, b"HEAD /" + HOST + b"\r\n")
        load.converse((b"GET /missing" + HOST + b"\r\n") * 3, answers=3)
        load.converse(b"POST /" + HOST + b"Content-Length: 1000\r\n\r\n" + bytes(1000))
        load.converse(b"POST /" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        load.converse(
            b"GET /stream" + HOST + b"\r\n", b"BREW /" + HOST + b"\r\n", b"GET /error" + HOST + b"\r\n"
        )
        # What does not get to the application.
        load.converse(b"GET / HTTP/1.1\r\n\r\n")
        load.converse(b"GET /" + b"x" * 9000 + HOST + b"\r\n")
        load.converse(b"POST /" + HOST + b"Content-Length: 2000000000\r\n\r\n")
        load.converse(b"POST /" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n")
        load.converse(b"GET / HTTP/1.1\r\nHos", answers=0)
        total += load.sent_bytes
        counts = {
            "GET": {"2xx": 4, "4xx": 3, "5xx": 1},
            "HEAD": {"2xx": 1},
            "POST": {"2xx": 2},
            "other": {"2xx": 1},
        }
        refused = {"malformed": 1, "head-too-large": 1, "body-too-large": 1, "unsupported": 1}
        if connect is encrypted:
            with plain_to(tls_port, "127.0.0.2") as sock:
                sock.sendall(b"GET /" + HOST + b"\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
            refused = dict.fromkeys(refused, 2) | {"tls": 1}
        found = expect(
            server,
            requests=12 * round_,
            errors=round_,
            by_method={m: {c: n * round_ for c, n in row.items()} for m, row in counts.items()},
            received_bytes=total,
            # hello four times, the echoes, hello three times with 404, the stream, and the page of the error
            sent_bytes=(4 * 5 + 1000 + 3 + 3 * 5 + 30 + 26) * round_,
            refused=refused,
            accepted=10 * round_ + (round_ == 2),
            application=12 * round_,
            exchange=12 * round_,
            connections={"idle": 0, "reading": 0, "running": 0, "writing": 0},
            deadlines=0,
        )
    assert 0 < found["application_sum_s"] <= found["exchange_sum_s"]
    assert server.stop() == 0


def plain_to(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), PATIENCE_S)


@pytest.mark.parametrize("threads", [1, 4])
def test_connections_by_state_and_the_request_that_runs(server: Server, threads: int) -> None:
    """With one thread, too, in which the loop cannot run while the application does."""
    server.serve(f"{CONFIG}workers: 1\nthreads: {threads}\nlisten: 127.0.0.1:0\n", APP)
    head = b"GET /hold?key=1" + HOST + b"X-Request-ID: from-the-proxy\r\n\r\n"
    with ExitStack() as opened:
        idle, half_head, half_body, reader, held = (
            opened.enter_context(plain_to(server.port)) for _ in range(5)
        )
        half_head.sendall(head[:5])
        half_body.sendall(b"POST /" + HOST + b"Content-Length: 10\r\n\r\n12345")
        reader.sendall(b"GET /big" + HOST + b"\r\n")
        expect(
            server, connections={"idle": 2, "reading": 2, "running": 0, "writing": 1}, requests=1, exchange=0
        )
        begun = time.monotonic()
        held.sendall(head)
        expect(server, connections={"idle": 1, "reading": 2, "running": 1, "writing": 1})
        wait_for(lambda: shown(server)["workers"][0]["running"][0]["request_id"], "the id of the request")
        [worker] = shown(server)["workers"]
        assert worker["state"] == "busy"
        assert worker["current"] == worker["running"][0]
        assert worker["current"]["elapsed_s"] <= time.monotonic() - begun
        assert {key: worker["current"][key] for key in ("method", "target", "request_id", "slow")} == {
            "method": "GET", "target": "/hold?key=1", "request_id": "from-the-proxy", "slow": False
        }  # fmt: skip
        release(server)
        expect(server, connections={"idle": 2, "reading": 2, "running": 0, "writing": 1}, requests=2)
        # The exchange goes from the first byte to the last; a client that leaves ends it, too.
        waited_s = time.monotonic() - begun
        half_head.sendall(head[5:])
        expect(server, requests=3, exchange=2)
        reader.close()
        half_body.close()
        idle.close()
        found = expect(server, exchange=3, connections={"idle": 2, "reading": 0, "running": 0, "writing": 0})
        assert found["exchange_sum_s"] - found["application_sum_s"] >= waited_s
    expect(server, sent_bytes=16_000_000 + 2 * 5, by_method={"GET": {"2xx": 3}}, refused={})
    assert server.stop() == 0


def test_a_half_received_request_that_changes_its_worker_is_counted_once(server: Server) -> None:
    server.serve(f"{CONFIG}workers: 2\nlisten: 127.0.0.1:0\n", APP)
    request = b"POST /" + HOST + b"Content-Length: 10\r\n\r\n1234567890"
    with plain_to(server.port) as sock:
        sock.sendall(request[:-5])
        found = expect(server, received_bytes=len(request) - 5)
        began = time.monotonic()  # received is counted before it is looked at
        wait_for(lambda: time.monotonic() - began > 0.2, "time that belongs to the exchange")
        [old] = [worker["pid"] for worker in found["workers"] if worker["connections"]]
        os.kill(old, signal.SIGTERM)
        expect(server, handed_over=1, adopted=1)
        wait_for(lambda: old not in server.workers(), "the end of the worker")
        sock.sendall(request[-5:])
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        found = expect(
            server,
            requests=1, accepted=1, handed_over=1, adopted=1, exchange=1,
            received_bytes=len(request), sent_bytes=10,
            connections={"idle": 1, "reading": 0, "running": 0, "writing": 0},
        )  # fmt: skip
    assert found["exchange_sum_s"] > 0.19 > found["application_sum_s"]
    assert server.stop() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_slow_and_late_requests_are_counted_once(server: Server, threads: int) -> None:
    limits = "timeouts: {slow: 100ms, request: 700ms, overrides: [{path: /hold, request: 0}]}\n"
    server.serve(f"{CONFIG}workers: 2\nthreads: {threads}\nlisten: 127.0.0.1:0\n{limits}", APP)
    held, _ = hold(server)
    found = expect(server, slow=1, requests=0)  # while it runs
    assert [request["slow"] for worker in found["workers"] for request in worker["running"]] == [True]
    release(server)
    assert held.outcome() == (200, "hello")
    assert Pending(server, "/slow").outcome() == (200, "hello")
    expect(server, slow=2, requests=2)
    late = Pending(server, "/late").outcome()
    assert late[0] == 504
    expect(server, slow=3, deadlines=1, requests=3, errors=1, deaths={"request-deadline": 1})
    if threads == 1:  # the worker itself can do nothing: the master acts, and counts
        assert Pending(server, "/c").outcome() == "cut"
        expect(server, slow=4, deadlines=2, requests=3, errors=1, deaths={"request-deadline": 2})
    assert server.stop() == 0


def test_a_client_that_does_not_read_on_is_counted_as_cut_off(server: Server) -> None:
    limits = "timeouts: {send: 300ms, head: 300ms, body: 300ms}\n"
    server.serve(f"{CONFIG}workers: 1\nlisten: 127.0.0.1:0\n{limits}", APP)
    for sending in (
        b"GET /big" + HOST + b"\r\n",
        b"GET /",
        b"POST /" + HOST + b"Content-Length: 10\r\n\r\n12345",
    ):
        with plain_to(server.port) as sock:
            sock.sendall(sending)
            if b"/big" in sending:
                expect(server, refused={"slow-reader": 1})
            else:
                assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
    expect(
        server,
        refused={"slow-reader": 1, "head-timeout": 1, "body-timeout": 1},
        connections={"idle": 0, "reading": 0, "running": 0, "writing": 0},
        requests=1, exchange=1,
    )  # fmt: skip
    assert server.stop() == 0
