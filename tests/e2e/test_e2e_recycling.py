"""Workers that are replaced while the pool serves: nobody notices."""

from __future__ import annotations

import re
import socket

import pytest
from harness import HELLO, Server, is_alive, rests, wait_for
from load import Load, read_response

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 4
log: {access: off}
hooks: {worker_ready: 'notes:ready', worker_exit: 'notes:exit'}
"""

# What workers note of themselves: when they are ready, and when they have begun to leave. One write, so one line.
NOTES = """
import os
def note(sign):
    fd = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, sign)
    os.close(fd)
def ready(info):
    note(b"+")
def exit(info):
    note(b"-")
"""


def serve(server: Server, more: str, config: str = CONFIG, app: str = HELLO) -> None:
    server.write("notes.py", NOTES)
    server.serve(config + more, app, env={"PYTHONPATH": str(server.folder)})


def counts(server: Server) -> list[int]:
    """Return how many workers were ready and not leaving after each note."""
    notes = (server.folder / "notes").read_text()
    return [notes[:end].count("+") - notes[:end].count("-") for end in range(1, len(notes) + 1)]


# More clients than workers find all of them busy, so that each has its share.
PATIENT = """
import time
def app(environ, start_response):
    time.sleep(0.005)
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


@pytest.mark.measured
def test_a_worker_that_has_served_enough_is_replaced_and_nobody_notices(server: Server) -> None:
    serve(server, "recycle: {requests: 100, jitter: 50%}\n", app=PATIENT)
    first = server.wait_for_workers(4)
    connect = lambda: socket.create_connection(("127.0.0.1", server.port), 30)  # noqa: E731
    with connect() as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert read_response(idle)[0] == 200
        with Load(connect, kept=4, fresh=2) as load:
            for pid in first:
                server.wait_for_log(f"pid {pid}: gone: ")
        assert load.failures == []
        idle.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert read_response(idle)[:2] == (200, "hello")
    gone = re.findall(r"gone: (.*)", server.log)
    assert len(gone) >= 4
    for line in gone:
        served = int(re.search(r"and (\d+) requests", line)[1])  # type: ignore[index]
        assert served >= 100
        assert "exit status 0" in line
        assert line.endswith(", expected: it has served recycle.requests")
    numbers = counts(server)[3:]
    assert (min(numbers), max(numbers)) == (4, 5)  # one at a time, and its successor is ready first
    assert server.stop() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_that_lived_long_enough_is_replaced_though_it_is_idle(server: Server, threads: int) -> None:
    serve(server, f"recycle: {{lifetime: 1s}}\nthreads: {threads}\n")
    first = server.wait_for_workers(4)
    wait_for(lambda: not any(map(is_alive, first)), "the end of the first workers")
    assert re.search(r"asks to be replaced: it has lived for 1\.[01] s", server.log)
    server.wait_for_log("expected: it has lived for recycle.lifetime")
    numbers = counts(server)[3:]
    assert (min(numbers), max(numbers)) == (4, 5)
    assert server.stop() == 0


HOARD = """
hoard = []
def app(environ, start_response):
    if environ["PATH_INFO"] == "/hoard":
        hoard.append(b"x" * (64 << 20))
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


@pytest.mark.parametrize("more", ["", "threads: 2\n", "share_connections: false\n"])
def test_a_worker_that_uses_too_much_memory_is_replaced(server: Server, more: str) -> None:
    """It measures itself while requests come: from the steward's thread, or from the loop without one."""
    serve(server, "recycle: {memory: 48MiB}\n" + more, app=HOARD)
    first = server.wait_for_workers(4)
    assert server.get("/hoard")[0] == 200

    def is_replaced() -> bool:
        assert server.get() == (200, "hello")
        return not all(map(is_alive, first))

    wait_for(is_replaced, "the end of the worker that hoards")
    server.wait_for_log(r"gone: exit status 0 .* expected: it used more than recycle\.memory")
    assert re.search(
        r"asks to be replaced: it uses \d+\.\d MiB of its own, recycle\.memory is 48MiB", server.log
    )
    assert sum(map(is_alive, first)) == 3
    assert server.stop() == 0


# The real command in a made-up control group: "used limit" in MiB.
GROUP = """
from pathlib import Path
from prefork.master import cgroup, pressure, reloads, upkeep
def memory_use(root="/"):
    used, limit = map(int, Path("group").read_text().split())
    return cgroup.MemoryUse(used << 20, limit << 20)
for module in (pressure, reloads, upkeep):
    module.memory_use = memory_use
"""


# The first worker of slot 2 is fat from the beginning.
FAT = """
import os
hoard = []
def boot(info):
    if info.slot.endswith(".2") and not os.path.exists("fat"):
        open("fat", "w").close()
        hoard.append(b"x" * (64 << 20))
"""


@pytest.mark.parametrize("more", ["", "timeouts: {request: 0, slow: 0}\n"])
def test_near_the_memory_limit_the_biggest_worker_is_replaced(server: Server, more: str) -> None:
    server.write("sitecustomize.py", GROUP)
    server.write("group", "890 1000")
    server.write("fat.py", FAT)
    serve(server, more, CONFIG.replace("hooks: {", "hooks: {after_fork: 'fat:boot', "))
    first = server.wait_for_workers(4)
    assert server.get() == (200, "hello")
    if more:  # where no request has a limit, the next one must wake the master all the same
        wait_for(lambda: rests(server.pid, 2.5), "the master to rest")
    server.write("group", "930 1000")

    def is_replaced() -> bool:
        assert server.get() == (200, "hello")
        return not all(map(is_alive, first))

    wait_for(is_replaced, "the end of the fat worker")
    told = re.search(
        r"myapp\.2 gen 1 pid \d+: 930 MiB of 1000 MiB are in use, 93% with recycle\.pressure at 90%: this worker "
        r"is replaced, the biggest with (\d+) MiB of its own",
        server.log,
    )
    assert told
    assert int(told[1]) >= 64
    server.wait_for_log(
        r"gone: exit status 0 .* expected: it was the biggest when memory was beyond recycle\.pressure"
    )
    numbers = counts(server)[3:]
    assert (min(numbers), max(numbers)) == (4, 5)
    assert server.stop() == 0


def test_a_reload_that_memory_does_not_hold_goes_one_by_one_or_not_at_all(server: Server) -> None:
    server.write("sitecustomize.py", GROUP)
    server.write("group", "100 1000")
    ballast = HOARD.replace("hoard = []", "hoard = [b'x' * (64 << 20)]")
    serve(server, "preload: false\nreload: {batch: 100%}\n", app=ballast)
    server.wait_for_workers(4)
    server.write("group", "800 1000")
    assert server.reload() == "reloaded"
    assert re.search(
        r"workers are replaced one by one: needed are \d+ MiB \(myapp 4 x \d+ MiB and", server.log
    )
    server.wait_for_workers(4, "gen 2")
    numbers = counts(server)[3:]
    assert (min(numbers), max(numbers)) == (4, 5)
    server.write("group", "970 1000")
    assert server.reload() == "failed"
    server.wait_for_log(
        r"generation 2 serves on: memory does not hold a reload, not even worker by worker: needed are \d+ MiB "
        r"\(myapp 1 x \d+ MiB and \d+ MiB for a mold\), free are 30 MiB \(970 MiB of 1000 MiB are in use\)"
    )
    server.write("group", "100 1000")
    assert server.reload() == "reloaded"
    assert server.stop() == 0
