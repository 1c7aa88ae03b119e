"""Requests that take too long, and what the application may raise, harm nobody but themselves."""

import os
import re
import signal
import time

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


@pytest.mark.parametrize(
    "how",
    ["threads: 1", "{threads: 1, share_connections: false}", "threads: 2"],
    ids=["steward", "alone", "loop"],
)
def test_a_slow_request_is_told_of_again_and_again_and_when_it_ends(server: Server, how: str) -> None:
    server.serve(f"{CONFIG}{how.strip('{}').replace(', ', chr(10))}\ntimeouts: {{slow: 200ms}}\n", GATE)
    assert server.get()[0] == 200
    wait_until_asleep(server)
    first, pid = hold(server, "/hold/1")
    told = rf"warning  myapp\.\d gen 1 pid {pid}: 'GET /hold/1 HTTP/1.1' "
    for elapsed in ("0.[2-6]", "0.[4-9]", "0.[89]|1.[0-4]"):
        server.wait_for_log(
            told + rf"is slow: it has been running for ({elapsed}) s, from 127\.0\.0\.1:\d+, id \S+"
        )
    source = r'\n    > File "\S+/myapp\.py", line \d+ in app\n          time\.sleep\(0\.01\)\n(?!    )'
    assert re.search(source.replace(" in app", ", in app"), server.log)
    assert "gateway.py" not in server.log
    second, _ = hold(server, "/hold/2")
    server.wait_for_log("'GET /hold/2 .*is slow")
    release(server)
    assert [first.outcome()[0], second.outcome()[0]] == [200, 200]
    server.wait_for_log(told + r"was slow: it ended with 200 after \d\.\d s, id \S+")
    assert "deadline" not in server.log
    assert server.stop() == 0


STUCK = """
import os, signal, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/sleeps":
        time.sleep(600)
    while path == "/spins":
        pass
    if path == "/ignores":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
    if path in ("/c", "/ignores"):
        sum(range(10**11))
    if path == "/large":
        start_response("200 OK", [("Content-Length", "30000000")])
        return [bytes(30_000_000)]
    if path == "/body":
        start_response("200 OK", [("Content-Length", "10")])
        def body():
            yield b"12345"
            time.sleep(600)
        return body()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
LATE = (504, "504 Gateway Timeout\nthe application did not answer in time\n")


@pytest.mark.parametrize(
    ("path", "threads", "outcome", "end"),
    [
        ("/sleeps", 1, LATE, "exit status 7"),
        ("/spins", 1, LATE, "exit status 7"),
        ("/body", 1, "cut", "exit status 7"),
        ("/sleeps", 2, LATE, "exit status 0"),
        ("/c", 1, "cut", "killed by SIGABRT"),
        ("/ignores", 1, "cut", "killed by SIGKILL"),
    ],
)
def test_a_stuck_request_ends_its_worker_and_nobody_else(
    server: Server, path: str, threads: int, outcome: object, end: str
) -> None:
    server.serve(CONFIG + f"threads: {threads}\ntimeouts: {{slow: 0, request: 500ms}}\n", STUCK)
    workers = server.wait_for_workers(2)
    assert server.get()[0] == 200
    wait_until_asleep(server)
    pending = Pending(server, path)
    assert pending.outcome() == outcome
    wait_for(lambda: len(set(server.workers()) - set(workers)) == 1, "a new worker")
    found = server.wait_for_log(rf"error    \S+ gen 1 pid (\d+): 'GET {path} HTTP/1.1' passed its deadline")
    victim = int(found[1])
    server.wait_for_log(
        rf"pid {victim}: gone: {end} .*"
        rf"not expected: a request passed timeouts.request: GET {path} HTTP/1.1 after \d\.\d+ s"
    )
    if path != "/ignores":
        assert re.search(r'myapp\.py", line \d+,? in (app|body)', server.log)
    (survivor,) = set(workers) - {victim}
    assert is_alive(survivor)
    assert "failure" not in server.log  # no back-off: the slot was filled at once
    if outcome == LATE:
        assert f'"GET {path} HTTP/1.1" 504 ' in server.log
    for _ in range(5):
        assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_stack_is_told_though_c_code_holds_the_interpreter_lock(server: Server) -> None:
    # A thread that waits for the lock in a tracer's code is, in a dump, a thread of the application.
    server.serve(CONFIG + "timeouts: {slow: 200ms, request: 2s}\n", STUCK)
    pending = Pending(server, "/c")
    server.wait_for_log(
        r"warning  myapp\.\d gen 1 pid \d+: 'GET /c HTTP/1.1' is slow: it has been running for \d\.\d s; "
        r"its worker cannot say so itself, C code holds the interpreter lock\n"
        r'    > File "\S+/myapp\.py", line \d+ in app\n(?!    )'
    )
    assert pending.outcome() == "cut"
    assert server.stop() == 0


def test_a_worker_that_is_stopped_is_spoken_for_and_killed(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {slow: 200ms, request: 2s}\n", GATE)
    held, pid = hold(server)
    os.kill(pid, signal.SIGSTOP)
    server.wait_for_log(
        rf"pid {pid}: 'GET /hold .* is slow: .*, it is stopped or stuck in the kernel(, id \S+)?\n(?!    )"
    )
    assert held.outcome() == "cut"
    server.wait_for_log(
        rf"pid {pid}: gone: killed by SIGKILL .* a request passed timeouts.request: GET /hold"
    )
    assert server.get()[0] == 200
    assert server.stop() == 0


HOOK = """
def told(deadline):
    file = "myapp.py" if "> File" in deadline.stack and "myapp.py" in deadline.stack else deadline.stack
    with open("told", "w") as note:
        note.write(f"{deadline.slot} {deadline.environ['PATH_INFO']} {deadline.elapsed_s:.1f} {file}")
"""


def test_the_other_connections_of_a_stuck_worker_go_on_elsewhere(server: Server) -> None:
    config = CONFIG.replace("workers: 2", "workers: 1")
    server.serve(config + "timeouts: {request: 500ms}\nhooks: {deadline: myapp:told}\n", STUCK + HOOK)
    (pid,) = server.wait_for_workers(1)
    kept, slots_of = server.connect(), []
    for when in ("before", "after"):
        kept.request("GET", "/")
        slots_of.append(int(kept.getresponse().read()))
        if when == "before":
            assert Pending(server, "/sleeps").outcome() == LATE
    kept.close()
    assert re.fullmatch(r"myapp\.0 /sleeps 0\.\d myapp\.py", (server.folder / "told").read_text())
    assert slots_of[0] == pid != slots_of[1]
    assert server.stop() == 0


@pytest.mark.measured
@pytest.mark.parametrize("sharing", ["", "share_connections: false\n"])
def test_a_stuck_worker_stays_for_who_still_reads(server: Server, sharing: str) -> None:
    config = CONFIG.replace("workers: 2", "workers: 1")
    server.serve(config + "timeouts: {request: 500ms}\n" + sharing, STUCK)
    (pid,) = server.wait_for_workers(1)
    reader = server.connect()
    reader.request("GET", "/large")
    answer = reader.getresponse()
    assert len(answer.read(1000)) == 1000
    assert Pending(server, "/sleeps").outcome() == LATE
    wait_for(lambda: set(server.workers()) - {pid}, "the successor")
    assert server.get()[0] == 200
    until = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > until, "the time in which the master would end a worker that hangs")
    assert len(answer.read()) == 30_000_000 - 1000
    if not sharing:
        reader.request("GET", "/")
        assert int(reader.getresponse().read()) != pid
    reader.close()
    server.wait_for_log(rf"pid {pid}: gone: .* GET /sleeps HTTP/1.1 after")
    assert server.stop() == 0


@pytest.mark.measured
def test_beside_a_stuck_request_the_others_of_its_worker_are_finished(server: Server) -> None:
    config = CONFIG.replace("workers: 2", "workers: 1") + "threads: 3\n"
    server.serve(
        config
        + "hooks: {deadline: myapp:told}\ntimeouts: {slow: 0, overrides: [{path: /sleeps, request: 1s}]}\n",
        GATE.replace('if path.startswith("/hold")', SLEEP_OR_HOLD) + HOOK,
    )
    (pid,) = server.wait_for_workers(1)
    late = Pending(server, "/sleeps")
    held, worker = hold(server)
    assert worker == pid
    assert late.outcome() == LATE
    wait_for(lambda: set(server.workers()) - {pid}, "the successor")
    release(server)
    assert held.outcome() == (200, str(pid))
    server.wait_for_log(rf"pid {pid}: gone: exit status 0 .* GET /sleeps HTTP/1.1 after")
    assert (server.folder / "told").read_text().startswith("myapp.0 /sleeps 1.")
    assert server.get()[0] == 200
    assert server.stop() == 0


SLEEP_OR_HOLD = """if path == "/sleeps":
        time.sleep(600)
    if path.startswith("/hold")"""


@pytest.mark.measured
def test_a_path_and_a_request_may_have_a_deadline_of_their_own(server: Server) -> None:
    config = (
        CONFIG.replace("workers: 2", "workers: 3")
        + "timeouts: {request: 500ms, overrides: [{path: /hold/long, request: 0}]}\n"
    )
    server.serve(config, GATE.replace('if path.startswith("/hold")', EXTEND))
    extended, pid = hold(server, "/hold/extended")
    unlimited, other = hold(server, "/hold/long")
    late, _ = hold(server, "/hold/extended-briefly")
    assert late.outcome() == LATE
    release(server)
    assert [extended.outcome(), unlimited.outcome()] == [(200, str(pid)), (200, str(other))]
    assert server.log.count("passed its deadline") == 1
    assert server.stop() == 0


EXTEND = """extend = environ["prefork.extend_deadline"]
    if path.endswith("/extended"):
        extend(60)
    if path.endswith("/extended-briefly"):
        extend(0.5)
        try:
            extend(-1)
        except ValueError:
            extend(0)
    if path.startswith("/hold")"""


def test_nobody_is_late_for_having_been_suspended(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {request: 3s, slow: 0}\n", GATE)
    held, pid = hold(server)
    everybody = [pid, server.pid]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in everybody:
            os.kill(process, number)
        if number == signal.SIGSTOP:
            began = time.monotonic()
            wait_for(lambda: time.monotonic() > began + 4, "time to pass")  # noqa: B023
    server.wait_for_log("the master did not run for")
    release(server)
    assert held.outcome() == (200, str(pid))
    assert "deadline" not in server.log.replace("all deadlines move", "")
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
