"""The last stop, with connections that are kept alive: what was sent before the close is answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from clients import GATE, release
from harness import Server, wait_for
from load import Load
from wire_client import Client

from prefork.cell import DRAINING

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
threads: THREADS
timeouts: {graceful: 20s}
"""

NAP = """
import time

def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [])
    return [b"hello"]
"""

Opener = Callable[[Server], Client]


@pytest.fixture
def connect() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(Client(("127.0.0.1", server.port)))


def hold(server: Server, client: Client, path: str) -> int:
    """Begin a request that runs until ``release``; return the pid of its worker."""
    client.ask(path)
    note = server.folder / ("held" + path.replace("/", "-"))
    wait_for(lambda: note.exists() and note.read_text(), f"{path} to run")
    return int(note.read_text())


@pytest.mark.parametrize("threads", [1, 2])
def test_requests_behind_busy_workers_are_answered(server: Server, connect: Opener, threads: int) -> None:
    """All workers are busy when the stop comes, and until after it has."""
    server.serve(CONFIG.replace("THREADS", str(threads)), GATE)
    waiting, late, idle = ([connect(server) for _ in range(12)] for _ in range(3))
    for client in (*waiting, *late, *idle):
        assert client.get("/").status == 200
    runners = [connect(server) for _ in range(2 * threads)]
    workers = {hold(server, runner, f"/hold/{number}") for number, runner in enumerate(runners)}
    assert len(workers) == 2
    for client in waiting:
        client.ask("/before")
    server.send_signal(signal.SIGTERM)
    wait_for(lambda: server.workers_in(DRAINING) == 2, "both to know")
    for client in late:
        client.ask("/after")
    release(server)
    for client in (*runners, *waiting, *late):
        answer = client.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert client.file.read() == b""
        client.close()
    for client in idle:
        assert client.file.read() == b""
        client.close()
    assert server.wait() == 0


def test_a_stop_during_a_reload(server: Server, connect: Opener) -> None:
    """The worker of before still runs a request, and has handed the rest over, when all are told to stop."""
    server.serve(CONFIG.replace("workers: 2", "workers: 1").replace("THREADS", "1"), GATE)
    running, other, idle = (connect(server) for _ in range(3))
    old = hold(server, running, "/hold/0")
    for client in (other, idle):
        client.ask("/")
    assert server.reload() == "reloaded"
    for client in (other, idle):
        assert int(client.answer().body) != old
    hold(server, other, "/hold/1")
    server.send_signal(signal.SIGTERM)
    wait_for(lambda: server.workers_in(DRAINING) == 1, "the new one to know")
    release(server)
    for client in (running, other):
        answer = client.answer()
        assert answer.headers["connection"] == "close"
        assert (int(answer.body) == old) == (client is running)
    for client in (running, other, idle):
        assert client.file.read() == b""
        client.close()
    assert server.wait() == 0


def test_a_stop_under_load_answers_what_was_sent(server: Server) -> None:
    """More clients than workers, so that requests wait and connections change hands in the moment of the stop."""
    server.serve(CONFIG.replace("THREADS", "1"), NAP)
    with Load(lambda: server.connect().sock, kept=16, fresh=4) as load:
        wait_for(lambda: load.done > 100, "answers")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert {failure.partition(":")[0] for failure in load.failures} <= {"ConnectionRefusedError"}


def test_a_reload_under_load_loses_nothing(server: Server) -> None:
    """The same load, and every connection is passed on, some of them several times."""
    server.serve(CONFIG.replace("THREADS", "1"), NAP)
    with Load(lambda: server.connect().sock, kept=16, fresh=4) as load:
        for _ in range(4):
            done = load.done
            assert server.reload() == "reloaded"
            worker = server.workers()[-1]
            os.kill(worker, signal.SIGTERM)
            wait_for(lambda done=done: load.done > done + 50, "answers")
    assert load.failures == []
