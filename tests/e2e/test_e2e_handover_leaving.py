"""A worker that leaves hands its connections over: the client cannot tell, whatever it was in the middle of.

One worker only, so that every connection is with the one that leaves, and goes to the one that comes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from harness import PATIENCE_S, Server, wait_for
from pki import Pki
from wire_client import Answer, Client

APP = """
import hashlib, json, os, time

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path.startswith("/hold"):
        open("held", "w").close()
        while not os.path.exists("release"):
            time.sleep(0.01)
    shown = {key: environ.get(key) for key in ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")}
    shown |= {"pid": os.getpid(), "path": path, "size": len(body), "digest": hashlib.sha256(body).hexdigest()}
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = json.dumps(shown).encode()
    return [answer.ljust(6_000_000)] if path == "/big" else [answer]
"""
CONFIG = """
app: myapp:app
listen: [127.0.0.1:0, "unix:app.sock", {address: "unix:proxied.sock", proxy_protocol: true}]
proxy: {trust: [unix, 127.0.0.1], use: [for]}
workers: 1
threads: THREADS
timeouts: {graceful: 20s}
limits: {body_memory: 64KiB}
"""
PROXY = b"PROXY TCP4 192.0.2.7 198.51.100.3 4711 8443\r\n"
SMALL = bytes(range(256)) * 8
LARGE = bytes(range(256)) * 1600
MANY = SMALL * 20  # in memory, but more than fits into a message beside others


def post(path: str, body: bytes, *fields: str) -> bytes:
    head = "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *fields, "", ""]
    )
    return head.encode() + body


def chunked(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


Opener = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Opener]:
    """Open clients, and close them in the end."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Client(*args, **kwargs))


GET = b"GET /%s HTTP/1.1\r\nHost: test\r\n\r\n"


@dataclass(frozen=True)
class Stage:
    """What was sent before the worker leaves, what after, and what then is answered."""

    before: bytes
    after: bytes
    answers: tuple[tuple[str, bytes], ...]
    """Path and body of each request."""
    stays: bool = False
    """Does the worker that leaves finish it?"""


def cut(request: bytes, at: int, path: str, body: bytes = b"", stays: bool = False) -> Stage:
    return Stage(request[:at], request[at:], ((path, body),), stays)


STAGES = {
    "nothing": cut(GET % b"one", 0, "/one"),
    "one byte": cut(GET % b"one", 1, "/one"),
    "half a head": cut(GET % b"one", 20, "/one"),
    "a head": cut(post("/two", SMALL), -len(SMALL), "/two", SMALL),
    "half a body in memory": cut(post("/two", SMALL), -100, "/two", SMALL),
    "a body too long for a message": cut(post("/four", MANY[:65000]), -1, "/four", MANY[:65000]),
    "half a body in a file": cut(post("/three", LARGE), -1000, "/three", LARGE),
    "half a body and the next request": Stage(
        post("/two", SMALL)[:-100],
        SMALL[-100:] + GET % b"one" + post("/three", LARGE),
        (("/two", SMALL), ("/one", b""), ("/three", LARGE)),
    ),
    "half a chunked body": cut(chunked("/five", SMALL), -30, "/five", SMALL, stays=True),
}


def told(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    assert "connection" not in answer.headers, "the client was told that its connection ends"
    shown: dict[str, Any] = json.loads(answer.body)
    return shown


class Doors:
    """The ways in: how to connect by each, and who the client then is to the application."""

    def __init__(self, server: Server, connect: Opener) -> None:
        self._server = server
        self._connect = connect

    def open(self, door: str) -> tuple[Client, dict[str, str | None]]:
        """Return a client, and its part of the environ."""
        folder = self._server.folder
        if door == "unix":
            return self._connect(str(folder / "app.sock")), {"REMOTE_ADDR": "", "REMOTE_PORT": None}
        if door == "proxied":
            client = self._connect(str(folder / "proxied.sock"))
            client.send(PROXY)
            return client, {"REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "4711", "SERVER_PORT": "8443"}
        client = self._connect(("127.0.0.1", self._server.port))
        host, port = client.sock.getsockname()
        expected: dict[str, str | None] = {"REMOTE_ADDR": host, "REMOTE_PORT": str(port)}
        return client, {**expected, "SERVER_PORT": str(self._server.port)}


def settle(server: Server) -> int:
    """Wait until the only worker has received all that was sent before; return its pid."""
    with Client(("127.0.0.1", server.port)) as client:
        for _ in range(3):  # the events of a batch may come in any order
            pid: int = told(client.get("/"))["pid"]
    return pid


def by_reload(server: Server, old: int) -> None:
    assert server.reload() == "reloaded"


def by_term(server: Server, old: int) -> None:
    mark = server.mark()
    os.kill(old, signal.SIGTERM)
    server.wait_for_log("ready after", mark)


@pytest.mark.measured
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("leave", [by_reload, by_term])
def test_whatever_a_client_is_in_the_middle_of(
    server: Server, connect: Opener, threads: int, leave: Callable[[Server, int], None]
) -> None:
    server.serve(CONFIG.replace("THREADS", str(threads)), APP)
    doors = Doors(server, connect)
    open_ones = []
    for door in ("tcp", "unix", "proxied"):
        for used in (False, True):
            for name, stage in STAGES.items():
                client, expected = doors.open(door)
                if used:
                    told(client.get("/before"))
                client.send(stage.before)
                open_ones.append((f"{door}, {name}, {used}", client, expected, stage))
    half_introduced, expected = connect(str(server.folder / "proxied.sock")), {"REMOTE_ADDR": "192.0.2.7"}
    half_introduced.send(PROXY[:20])
    open_ones.append(
        (
            "half a PROXY header",
            half_introduced,
            expected,
            Stage(b"", PROXY[20:] + GET % b"x", (("/x", b""),)),
        )
    )
    old = settle(server)
    leave(server, old)
    # Those whose chunked body only the old one can finish keep it here.
    wait_for(lambda: len(server.workers()) == 2, "the new worker beside the old")
    [new] = [pid for pid in server.workers() if pid != old]
    for what, client, expected, stage in open_ones:
        client.send(stage.after)
        for path, body in stage.answers:
            shown = told(client.answer())
            wanted = {"path": path, "size": len(body), "digest": hashlib.sha256(body).hexdigest(), **expected}
            assert {key: shown[key] for key in wanted} == wanted, what
            assert shown["pid"] == (old if stage.stays else new), what
        assert told(client.get("/after"))["pid"] == new, what
    wait_for(lambda: old not in server.workers(), "the end of the old worker")
    for what, client, expected, _ in open_ones:
        shown = told(client.get("/last"))
        assert shown["pid"] == new, what
        assert shown.items() >= expected.items(), what


@pytest.mark.parametrize("threads", [1, 4])
def test_a_running_request_keeps_only_itself(server: Server, connect: Opener, threads: int) -> None:
    """What is idle leaves although the application runs; what was pipelined behind the running request follows it."""
    server.serve(CONFIG.replace("THREADS", str(threads)), APP)
    address = ("127.0.0.1", server.port)
    idle, half, running = connect(address), connect(address), connect(address)
    old = told(idle.get("/"))["pid"]
    half.send(STAGES["half a body in memory"].before)
    running.send(GET % b"hold" + GET % b"second" + post("/third", SMALL))
    wait_for((server.folder / "held").exists, "the request to run")
    assert server.reload() == "reloaded"
    assert told(idle.get("/"))["pid"] != old
    half.send(STAGES["half a body in memory"].after)
    new = told(half.answer())["pid"]
    assert new != old
    (server.folder / "release").touch()
    first, second, third = (told(running.answer()) for _ in range(3))
    assert [first["path"], second["path"], third["path"]] == ["/hold", "/second", "/third"]
    assert [first["pid"], second["pid"], third["pid"]] == [old, new, new]
    assert third["size"] == len(SMALL)
    wait_for(lambda: old not in server.workers(), "the end of the old worker")
    for client in (idle, half, running):
        assert told(client.get("/"))["pid"] == new


def test_unsent_output_is_finished_by_who_has_it(server: Server, connect: Opener) -> None:
    server.serve(CONFIG.replace("THREADS", "1"), APP)
    slow = connect(("127.0.0.1", server.port), receive_bytes=4096)
    slow.send(GET % b"big" + GET % b"next")
    old = settle(server)
    assert server.reload() == "reloaded"
    big, following = slow.answer(), slow.answer()
    assert told(big)["pid"] == old
    assert len(big.body) == 6_000_000
    assert told(following)["path"] == "/next"
    assert told(following)["pid"] != old
    wait_for(lambda: old not in server.workers(), "the end of the old worker")


def test_a_slow_head_does_not_get_more_time_by_reloads(server: Server, connect: Opener) -> None:
    server.serve(CONFIG.replace("THREADS", "1").replace("graceful", "head: 3s, graceful"), APP)
    slow = connect(("127.0.0.1", server.port))
    slow.send("GET / HTTP/1.1\r\nX-Slow: ")
    slow.sock.settimeout(0)
    until = time.monotonic() + PATIENCE_S
    while True:  # if each reload began the time for a head anew, it would never be over
        assert time.monotonic() < until, "no end in sight"
        try:
            slow.send("a")
            if slow.sock.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            assert server.reload() == "reloaded"
    slow.sock.settimeout(PATIENCE_S)
    assert slow.answer().status == 408
    assert len(re.findall("generation [0-9]+ serves", server.log)) > 2


def test_one_of_two_workers_goes(server: Server, connect: Opener) -> None:
    """TTOU, and reloads before the last has ended, with connections on both."""
    server.serve(CONFIG.replace("THREADS", "1").replace("workers: 1", "workers: 2"), APP)
    clients = [connect(("127.0.0.1", server.port)) for _ in range(40)]
    for _ in range(3):
        for client in clients:
            told(client.get("/"))
    for client in clients:
        client.send(STAGES["half a head"].before)
    server.send_signal(signal.SIGTTOU)
    [left] = server.wait_for_workers(1)
    for client in clients:
        client.send(STAGES["half a head"].after)
        assert told(client.answer())["pid"] == left
    mark = server.mark()
    for _ in range(3):
        server.send_signal(signal.SIGHUP)
        for client in clients:
            told(client.get("/"))
    server.wait_for_log("generation [234] serves", mark)
    assert server.reload() == "reloaded"
    # A HUP that came during a reload may have started one more. It takes the number from the config again.
    wait_for(
        lambda: {told(client.get("/"))["pid"] for client in clients} <= set(server.wait_for_workers(2)),
        "the last of the reloads",
    )


def assert_ends_with_its_worker(server: Server, asking: Client, silent: Client, old: int) -> None:
    """Check that the worker ``old`` answers one last time, then closes both connections and goes."""
    last = asking.answer()
    assert last.headers["connection"] == "close"
    assert json.loads(last.body)["pid"] == old
    assert asking.sock.recv(1) == b""
    assert silent.sock.recv(1) == b""
    wait_for(lambda: old not in server.workers(), "the end of the old worker")


@pytest.mark.parametrize("threads", [1, 4])
def test_without_sharing_a_connection_ends_with_its_worker(
    server: Server, connect: Opener, threads: int
) -> None:
    server.serve(CONFIG.replace("THREADS", str(threads)) + "share_connections: false\n", APP)
    asking, silent = connect(("127.0.0.1", server.port)), connect(("127.0.0.1", server.port))
    old = told(asking.get("/"))["pid"]
    assert told(silent.get("/"))["pid"] == old
    asking.send(STAGES["half a body in memory"].before)
    settle(server)
    assert server.reload() == "reloaded"
    asking.send(STAGES["half a body in memory"].after)
    assert_ends_with_its_worker(server, asking, silent, old)


def test_sharing_is_switched_off_by_a_reload(server: Server, connect: Opener) -> None:
    """What was handed over is served on; from then on a connection ends with its worker."""
    config = CONFIG.replace("THREADS", "1")
    server.serve(config, APP)
    client = connect(("127.0.0.1", server.port))
    first = told(client.get("/"))["pid"]
    client.send(STAGES["half a body in a file"].before)
    settle(server)
    server.configure(config + "share_connections: false\n", None)
    assert server.reload() == "reloaded"
    client.send(STAGES["half a body in a file"].after)
    second = told(client.answer())
    assert second["pid"] != first
    assert second["size"] == len(LARGE)
    server.configure(config, None)
    assert server.reload() == "reloaded"
    assert client.sock.recv(1) == b""
    assert told(connect(("127.0.0.1", server.port)).get("/"))["pid"] not in (first, second["pid"])


@pytest.mark.measured
def test_connections_with_tls_are_told_to_end(server: Server, connect: Opener, pki: Pki) -> None:
    for file in pki.folder.iterdir():
        shutil.copy(file, server.folder)
    config = CONFIG.replace(
        "127.0.0.1:0", '{address: "127.0.0.1:0", tls: {cert: server.pem, key: server.key}}'
    )
    server.serve(config.replace("THREADS", "1"), APP)
    context = pki.client_context()
    asking, silent = (connect(("127.0.0.1", server.port)) for _ in range(2))
    for client in (asking, silent):
        client.file.close()
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
        client.file = client.sock.makefile("rb")
        old = told(client.get("/"))["pid"]
    asking.send(STAGES["half a body in memory"].before)
    assert server.reload() == "reloaded"
    asking.send(STAGES["half a body in memory"].after)
    assert_ends_with_its_worker(server, asking, silent, old)
