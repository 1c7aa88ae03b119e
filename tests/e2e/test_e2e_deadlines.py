"""Requests that take too long, and what the application may raise, harm nobody but themselves."""

import re
import signal

import pytest
from clients import GATE, Pending, hold, release
from harness import Server, context_switches, is_alive, wait_for

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
"""


def wait_until_asleep(server: Server) -> None:
    """Wait until the master has not run for a while: whatever happens next must wake it."""
    looks: list[int] = []

    def is_quiet() -> bool:
        looks.append(context_switches(server.pid))
        return len(looks) > 30 and looks[-1] == looks[-30]

    wait_for(is_quiet, "the master to sleep")


def test_a_slow_request_is_told_once(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {slow: 200ms}\n", GATE)
    assert server.get()[0] == 200
    wait_until_asleep(server)
    first, pid = hold(server, "/hold/1")
    server.wait_for_log(rf"warning  myapp\.\d gen 1 pid {pid}: 'GET /hold/1 .*is slow: .* 0\.\d s")
    second, _ = hold(server, "/hold/2")
    server.wait_for_log("'GET /hold/2 .*is slow")
    assert server.log.count("is slow") == 2
    release(server)
    assert [first.outcome()[0], second.outcome()[0]] == [200, 200]
    assert "deadline" not in server.log


STUCK = """
import os, signal, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/python":
        time.sleep(600)
    if path == "/c":
        sum(range(10**11))
    if path == "/ignores":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(600)
    if path == "/body":
        start_response("200 OK", [("Content-Length", "10")])
        def body():
            yield b"12345"
            time.sleep(600)
        return body()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize(
    ("path", "threads"), [("/python", 1), ("/c", 1), ("/ignores", 1), ("/body", 1), ("/c", 2)]
)
def test_a_stuck_request_ends_its_worker_and_nobody_else(server: Server, path: str, threads: int) -> None:
    server.serve(CONFIG + f"threads: {threads}\ntimeouts: {{slow: 0, request: 500ms}}\n", STUCK)
    workers = server.wait_for_workers(2)
    assert server.get()[0] == 200
    wait_until_asleep(server)
    pending = Pending(server, path)
    assert pending.outcome() == "cut"
    wait_for(lambda: len(set(server.workers()) - set(workers)) == 1, "a new worker")
    found = re.search(
        rf"gen 1 pid (\d+): 'GET {path} HTTP/1.1' passed its deadline: .* for \S+ s", server.log
    )
    assert found
    victim = int(found[1])
    server.wait_for_log(
        rf"pid {victim}: gone: killed by {'SIGKILL' if path == '/ignores' else 'SIGABRT'} .*"
        "not expected: a request passed timeouts.request"
    )
    if path != "/ignores":
        assert re.search(r'myapp\.py", line \d+ in (app|body)', server.log)
    (survivor,) = set(workers) - {victim}
    assert is_alive(survivor)
    assert "failure" not in server.log  # no back-off: the slot was filled at once
    for _ in range(5):
        assert server.get()[0] == 200
    assert server.stop() == 0


def test_without_a_limit_nobody_is_ended(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {slow: 0, request: 0}\n", GATE)
    pending, pid = hold(server)
    wait_until_asleep(server)  # there is nothing to look at
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert "deadline" not in server.log
    assert server.stop() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_no_exception_stops_a_worker(server: Server, threads: int) -> None:
    server.serve(
        CONFIG.replace("workers: 2", "workers: 1") + f"threads: {threads}\n",
        """
        import os, sys

        def app(environ, start_response):
            path = environ["PATH_INFO"]
            if path == "/exit":
                sys.exit(3)
            if path == "/interrupt":
                raise KeyboardInterrupt
            if path == "/generator":
                raise GeneratorExit
            if path == "/error":
                raise ValueError("on purpose")
            start_response("200 OK", [])
            return [str(os.getpid()).encode()]
        """,
    )
    (pid,) = server.wait_for_workers(1)
    for path in ("/exit", "/interrupt", "/generator", "/error"):
        assert server.get(path)[0] == 500
        assert server.get() == (200, str(pid))
    for name in ("SystemExit", "KeyboardInterrupt", "GeneratorExit", "ValueError"):
        assert f"the application raised {name}: GET /" in server.log
    assert server.workers() == [pid]
    assert server.stop(signal.SIGTERM) == 0
