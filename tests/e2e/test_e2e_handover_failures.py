"""What is handed over is neither lost nor leaked: whoever is killed, or has no room."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from clients import GATE, release
from harness import Server, open_files, stat_fields, wait_for, works
from wire_client import Client

from bench.crowd import Crowd, steady

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
timeouts: {graceful: 20s}
"""
GET = "GET {} HTTP/1.1\r\nHost: test\r\n\r\n"

Opener = Callable[[Server], Client]


@pytest.fixture
def connect() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(Client(("127.0.0.1", server.port)))


def pid(client: Client, path: str = "/") -> int:
    answer = client.get(path)
    assert answer.status == 200
    return int(answer.body)


def stop(worker: int) -> None:
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: (stat_fields(worker) or "?")[0] == "T", f"{worker} to be stopped")


def connect_to(server: Server, connect: Opener, worker: int, count: int) -> list[Client]:
    """Return kept-alive connections of one worker: the others are stopped, and so wait for no events."""
    others = [other for other in server.workers() if other != worker]
    for other in others:
        stop(other)
    clients = [connect(server) for _ in range(count)]
    assert {pid(client) for client in clients} == {worker}
    for other in others:
        os.kill(other, signal.SIGCONT)
    return clients


def sockets(worker: int) -> int:
    return sum(name.startswith("socket:") for name in open_files(worker))


def test_only_the_connections_of_the_killed_are_lost(server: Server) -> None:
    """Under load, with hand-overs all the time, and some requests that take longer than a tick."""
    server.serve(
        CONFIG.replace("workers: 2", "workers: 4"),
        """
        import time

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/slow":
                time.sleep(0.02)
            start_response("200 OK", [])
            return [b"hello"]
        """,
    )
    own = sockets(server.wait_for_workers(4)[0])
    scripts = [*steady(30, (0.0, 0.2)), *steady(10, (0.0, 0.05), path="/slow")]
    owned = 0
    with Crowd(("127.0.0.1", server.port), scripts) as crowd:
        for _ in range(5):
            answers = crowd.answers
            wait_for(lambda more=answers + 300: crowd.answers > more, "more answers")
            victim = random.choice(server.wait_for_workers(4))
            stop(victim)
            owned += sockets(victim) - own
            os.kill(victim, signal.SIGKILL)
    assert {failure.kind for failure in crowd.failures} <= {"reset", "end of file"}
    assert crowd.connections <= 40 + len(crowd.failures)  # some had no time for another
    assert len(crowd.failures) <= crowd.closed <= owned  # some were idle to the end


FRAGILE = (
    GATE
    + """
import signal
from prefork.worker.http_server import HTTPServer

class Fragile(HTTPServer):
    application = staticmethod(app)

    def _serve(self, events):
        if any(fd == self.acceptor.relay.fileno() for fd, _ in events) and os.path.exists("fragile"):
            os.unlink("fragile")
            os.kill(os.getpid(), signal.SIGKILL)
        super()._serve(events)
"""
)
"""A worker that is killed after it was woken for a connection, and before it took it."""


def test_a_woken_worker_that_dies_is_not_waited_for(server: Server, connect: Opener) -> None:
    server.serve(CONFIG.replace("workers: 2", "workers: 3").replace("myapp:app", "myapp:Fragile"), FRAGILE)
    first, *others = server.wait_for_workers(3)
    running, client = connect_to(server, connect, first, 2)
    running.ask("/hold")
    wait_for((server.folder / "held-hold").exists, "the request to run")
    [mold] = server.molds()
    stop(mold)  # a new worker would look by itself
    (server.folder / "fragile").touch()
    assert pid(client) in others
    assert not (server.folder / "fragile").exists()
    os.kill(mold, signal.SIGCONT)
    server.wait_for_workers(3)
    release(server)
    assert int(running.answer().body) == first


def test_nothing_is_leaked_by_hundreds_of_hand_overs(server: Server, connect: Opener) -> None:
    def kinds() -> list[list[str]]:
        pids = [server.pid, *server.molds(), *server.workers()]
        return [sorted(name.partition(":")[0] for name in open_files(pid)) for pid in pids]

    server.serve(CONFIG, GATE)
    [first, _] = server.wait_for_workers(2)
    before = kinds()
    own = sockets(first)
    clients = connect_to(server, connect, first, 40)
    for round in range(6):
        assert server.reload() == "reloaded"
        workers = server.wait_for_workers(2)
        if round:
            assert len({pid(client) for client in clients}) <= 2
        # Each is in one process, also while nobody writes to it.
        wait_for(lambda workers=workers: sum(map(sockets, workers)) == 2 * own + 40, "each to have one owner")
    busy = pid(clients[0])
    theirs = [client for client in clients if pid(client) == busy]
    theirs[0].ask("/hold")
    wait_for((server.folder / "held-hold").exists, "the request to run")
    sent = server.counts()
    for client in theirs[1:]:
        assert pid(client) != busy
    now = server.counts()
    assert now.handed_over - sent.handed_over == now.adopted - sent.adopted == len(theirs) - 1
    release(server)
    assert int(theirs[0].answer().body) == busy
    for client in clients:
        client.close()
    wait_for(lambda: kinds() == before, "the descriptors of before")


def test_those_that_are_left_share_what_is_left(server: Server, connect: Opener) -> None:
    """Idle connections do not all go to the one that the kernel wakes first."""
    server.serve(CONFIG.replace("workers: 2", "workers: 4"), GATE)
    [first, *_] = server.wait_for_workers(4)
    clients = connect_to(server, connect, first, 90)
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: first not in server.workers(), "the end of the first")
    owners = Counter(pid(client) for client in clients)
    assert max(owners.values()) <= 60, owners


@pytest.mark.skipif(not works("prlimit", "--version"), reason="needs prlimit")
def test_a_worker_without_descriptors_takes_what_it_can(server: Server, connect: Opener) -> None:
    """One of two goes, and the other has not room for all: it closes idle ones, serves the rest, and goes on."""
    server.serve(CONFIG, GATE, prefix=("prlimit", "--nofile=64"))
    first, second = server.wait_for_workers(2)
    clients = [*connect_to(server, connect, first, 30), *connect_to(server, connect, second, 30)]
    server.send_signal(signal.SIGTTOU)
    [left] = server.wait_for_workers(1)
    server.wait_for_log("cannot accept a connection: Too many open files|out-of-descriptors")
    answered = 0
    for client in clients:
        try:
            answered += pid(client) == left
        except (OSError, AssertionError):
            client.close()  # closed by the server: make_room
    assert answered >= 30
    assert pid(connect(server)) == left
