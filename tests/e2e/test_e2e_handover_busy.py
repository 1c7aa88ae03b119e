"""A request that arrives on a connection of a busy worker is served by another, while the first still runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import Server, stat_fields, wait_for
from wire_client import Client

APP = """
import json, os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/sleep"):
        open("in" + path.replace("/", "-"), "w").close()
        while not os.path.exists("release" + path.replace("/", "-")):
            time.sleep(0.01)
    if path.startswith("/spin"):
        open("in" + path.replace("/", "-"), "w").close()
        at = 0
        while at % 100_000 or not os.path.exists("release" + path.replace("/", "-")):
            at += 1
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "path": path, "port": environ.get("REMOTE_PORT")}).encode()]
"""
CONFIG = """
app: myapp:app
listen: [127.0.0.1:0, "unix:app.sock"]
workers: 2
threads: THREADS
"""
GET = "GET {} HTTP/1.1\r\nHost: test\r\n\r\n"


class Scene:
    """A server, and connections of which it is known which worker has them."""

    def __init__(self, server: Server, stack: ExitStack, threads: int = 1, more: str = "") -> None:
        self.server = server
        self._stack = stack
        server.serve(CONFIG.replace("THREADS", str(threads)) + more, APP)
        self.first, self.second = server.wait_for_workers(2)

    def connect(self, door: str = "tcp") -> Client:
        return self._stack.enter_context(Client(self._address(door)))

    def _address(self, door: str) -> tuple[str, int] | str:
        return ("127.0.0.1", self.server.port) if door == "tcp" else str(self.server.folder / "app.sock")

    def connect_to(self, worker: int, door: str = "tcp") -> Client:
        """Return a kept-alive connection of one worker: the other is stopped, and so waits for no events."""
        [other] = {self.first, self.second} - {worker}
        os.kill(other, signal.SIGSTOP)
        try:
            wait_for(lambda: (stat_fields(other) or "?")[0] == "T", f"{other} to be stopped")
            client = self.connect(door)
            assert pid(client, "/") == worker
        finally:
            os.kill(other, signal.SIGCONT)
        return client

    def begin(self, client: Client, path: str) -> None:
        """Send a request that runs until ``release``, and wait until it runs."""
        client.send(GET.format(path))
        wait_for((self.server.folder / ("in" + path.replace("/", "-"))).exists, f"{path} to run")

    def release(self, path: str) -> None:
        (self.server.folder / ("release" + path.replace("/", "-"))).touch()


@pytest.fixture
def scene(server: Server) -> Iterator[Callable[..., Scene]]:
    with ExitStack() as stack:
        yield lambda **options: Scene(server, stack, **options)


def told(client: Client) -> tuple[int, str]:
    answer = client.answer()
    assert answer.status == 200, answer
    assert "connection" not in answer.headers
    shown = json.loads(answer.body)
    return shown["pid"], shown["path"]


def pid(client: Client, path: str) -> int:
    client.send(GET.format(path))
    served_by, what = told(client)
    assert what == path
    return served_by


@pytest.mark.parametrize("door", ["tcp", "unix"])
@pytest.mark.parametrize("kind", ["/sleep", "/spin"])
def test_an_idle_worker_serves_the_connections_of_a_busy_one(
    scene: Callable[..., Scene], kind: str, door: str
) -> None:
    it = scene()
    busy, idle = it.first, it.second
    waiting = [it.connect_to(busy, door) for _ in range(3)]
    running = it.connect_to(busy, door)
    it.begin(running, kind)
    # One request, some in a row, and one whose bytes come singly.
    assert pid(waiting[0], "/a") == idle
    waiting[1].send(GET.format("/b") + GET.format("/c") + GET.format("/d"))
    assert [told(waiting[1]) for _ in range(3)] == [(idle, "/b"), (idle, "/c"), (idle, "/d")]
    for byte in GET.format("/e"):
        waiting[2].send(byte)
    assert told(waiting[2]) == (idle, "/e")
    it.release(kind)
    assert told(running) == (busy, kind)


def test_what_is_pipelined_behind_a_running_request_waits_for_it(scene: Callable[..., Scene]) -> None:
    """The order of the answers is the order of the requests; what follows may be answered elsewhere."""
    it = scene()
    running = it.connect_to(it.first)
    running.send(GET.format("/sleep") + GET.format("/a") + GET.format("/b"))
    wait_for((it.server.folder / "in-sleep").exists, "the request to run")
    assert pid(it.connect(), "/") == it.second
    it.release("/sleep")
    assert [told(running)[1] for _ in range(3)] == ["/sleep", "/a", "/b"]


def test_what_is_pipelined_behind_a_request_that_was_passed_on(scene: Callable[..., Scene]) -> None:
    """Each next one goes its own way, also when its turn comes while another connection's next one runs."""
    it = scene()
    first, second, third = (it.connect_to(it.first) for _ in range(3))
    it.begin(first, "/sleep/1")
    other = it.connect_to(it.second)
    it.begin(other, "/sleep/2")
    second.send(GET.format("/a") + GET.format("/sleep/3"))
    third.send(GET.format("/b") + GET.format("/c"))
    it.release("/sleep/2")
    assert told(other) == (it.second, "/sleep/2")
    assert told(second) == (it.second, "/a")
    it.release("/sleep/1")
    assert told(first) == (it.first, "/sleep/1")
    assert [told(third)[1] for _ in range(2)] == ["/b", "/c"]
    assert pid(first, "/d") == it.first
    it.release("/sleep/3")
    assert told(second) == (it.second, "/sleep/3")


@pytest.mark.parametrize("free", [0, 1])
def test_who_gets_free_first_serves_it(scene: Callable[..., Scene], free: int) -> None:
    """All are busy: the request waits for none in particular."""
    it = scene()
    runners, waiting = [], []
    for number, worker in enumerate((it.first, it.second)):
        waiting += [it.connect_to(worker) for _ in range(2)]
        runners.append((worker, it.connect_to(worker)))
        it.begin(runners[number][1], f"/sleep/{number}")
    for client in waiting:
        client.send(GET.format("/a"))
    for number in (free, 1 - free):
        worker, runner = runners[number]
        it.release(f"/sleep/{number}")
        assert told(runner)[0] == worker
        while waiting:
            assert told(waiting.pop()) == (worker, "/a")


def test_new_connections_and_those_of_others_have_their_turns(scene: Callable[..., Scene]) -> None:
    """One worker is left for new connections, for those of the busy one, and for its own: none starves."""
    it = scene()
    busy, free = it.first, it.second
    theirs = [it.connect_to(busy) for _ in range(8)]
    running = it.connect_to(busy)
    it.begin(running, "/sleep")
    own = [it.connect_to(free) for _ in range(8)]
    for round in range(5):
        new = [it.connect() for _ in range(8)]
        for client in (*theirs, *own, *new):
            client.send(GET.format(f"/{round}") * 4)
        for client in (*theirs, *own, *new):
            assert [told(client) for _ in range(4)] == [(free, f"/{round}")] * 4
    it.release("/sleep")
    assert told(running)[0] == busy


def test_a_worker_whose_threads_are_all_busy(scene: Callable[..., Scene]) -> None:
    it = scene(threads=2)
    busy, idle = it.first, it.second
    runners = [it.connect_to(busy) for _ in range(2)]
    waiting = [it.connect_to(busy) for _ in range(3)]
    it.begin(runners[0], "/sleep/0")
    assert pid(waiting[0], "/a") == busy  # its other thread
    it.begin(runners[1], "/sleep/1")
    assert pid(waiting[0], "/b") == idle
    waiting[1].send(GET.format("/c") + GET.format("/d"))
    assert [told(waiting[1]) for _ in range(2)] == [(idle, "/c"), (idle, "/d")]
    body = "x" * 3000
    waiting[2].send(f"POST /e HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert told(waiting[2]) == (idle, "/e")
    for number, runner in enumerate(runners):
        it.release(f"/sleep/{number}")
        assert told(runner)[0] == busy


def test_without_sharing_a_request_waits_for_its_worker(scene: Callable[..., Scene]) -> None:
    it = scene(more="share_connections: false\n")
    running, waiting = it.connect_to(it.first), it.connect_to(it.first)
    it.begin(running, "/sleep")
    waiting.send(GET.format("/a"))
    assert pid(it.connect(), "/b") == it.second
    it.release("/sleep")
    assert told(running) == (it.first, "/sleep")
    assert told(waiting) == (it.first, "/a")
