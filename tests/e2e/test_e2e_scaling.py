"""How many workers there are, and in which order they change places."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from harness import HELLO, Server, is_alive, wait_for
from load import Load, read_response

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: %s
log: {access: off}
hooks: {worker_ready: 'notes:ready', worker_exit: 'notes:exit'}
"""

# What a worker notes of itself: when it is ready, and when it has begun to leave. One write, so one line.
NOTES = """
import os
def note(line):
    fd = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)
def ready(info):
    note(f"+ {info.generation} {info.pid}\\n")
def exit(info):
    note(f"- {info.generation} {info.pid}\\n")
"""


def serve(server: Server, config: str, app: str = HELLO) -> None:
    server.write("notes.py", NOTES)
    server.serve(config, app)


def notes(server: Server) -> list[tuple[str, int, int]]:
    """Return (``+`` or ``-``, generation, pid) in the order in which it happened."""
    lines = (server.folder / "notes").read_text().splitlines()
    return [(sign, int(generation), int(pid)) for sign, generation, pid in map(str.split, lines)]


def counts(server: Server) -> list[int]:
    """Return the number of workers between ready and exit after each note."""
    total, found = 0, []
    for sign, _, _ in notes(server):
        total += 1 if sign == "+" else -1
        found.append(total)
    return found


def settle(server: Server, wanted: int, generation: int) -> list[int]:
    """Wait until exactly the wanted workers of a generation are left, and return their pids."""
    wait_for(
        lambda: len(server.workers(f"gen {generation}$")) == wanted == len(server.workers()),
        f"{wanted} workers of generation {generation} alone",
    )
    return server.workers()


@pytest.mark.parametrize(
    ("batch", "most"), [("", 5), ("reload: {batch: 2}\n", 6), ("reload: {batch: 100%}\n", 8)]
)
def test_ready_workers_never_drop_below_what_is_wanted(server: Server, batch: str, most: int) -> None:
    serve(server, CONFIG % 4 + batch)
    booted = len(counts(server))
    for generation in (2, 3):
        assert server.reload() == "reloaded"
        settle(server, 4, generation)
    later = counts(server)[booted - 1 :]
    assert min(later) == 4
    assert max(later) <= most
    first_batch = notes(server)[4 : 4 + most - 4]
    assert [(sign, generation) for sign, generation, _ in first_batch] == [("+", 2)] * (most - 4)
    assert server.stop() == 0


@pytest.mark.parametrize("batch", ["", "reload: {batch: 100%}\n"])
def test_a_reload_changes_the_number_of_workers(server: Server, batch: str) -> None:
    serve(server, CONFIG % 1 + batch)
    with Load(lambda: socket.create_connection(("127.0.0.1", server.port)), pause_s=0.01) as load:
        for generation, wanted in enumerate((4, 1, 3, 2), start=2):
            server.write("app.yaml", CONFIG % wanted + batch)
            assert server.reload() == "reloaded"
            settle(server, wanted, generation)
    assert load.failures == []
    assert min(counts(server)) == 1
    assert server.stop() == 0


def test_ttin_and_ttou_hold_until_the_next_reload(server: Server) -> None:
    serve(server, CONFIG % 2)
    first = server.wait_for_workers(2)
    for number, wanted in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3)):
        server.send_signal(number)
        assert set(first) < set(server.wait_for_workers(wanted))

    # A reload that fails leaves them, even one that fails when workers have begun to change places.
    server.write("bad.py", "def boot(info):\n    if info.slot.endswith('.1'): raise ValueError\n")
    server.write("app.yaml", (CONFIG % 2).replace("worker_ready", "after_fork: 'bad:boot', worker_ready"))
    assert server.reload() == "failed"
    assert ("+", 2) in [(sign, generation) for sign, generation, _ in notes(server)]
    settle(server, 3, 1)

    server.write("app.yaml", CONFIG % 2)
    assert server.reload() == "reloaded"
    settle(server, 2, 3)
    assert server.stop() == 0


@pytest.mark.measured
def test_ttou_leaves_one_worker(server: Server) -> None:
    serve(server, CONFIG % 2)
    for times in (1, 2, 3):
        server.send_signal(signal.SIGTTOU)
        wait_for(lambda times=times: server.log.count("1 workers wanted") == times, f"signal {times}")
    server.wait_for_workers(1)
    assert server.get() == (200, "hello")
    server.send_signal(signal.SIGTTIN)
    server.wait_for_workers(2)
    assert server.stop() == 0


GATE = """
import os, time
def boot(info):
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def test_ttou_during_a_reload_does_not_stall_it(server: Server) -> None:
    serve(server, CONFIG % 4)
    server.write("gate.py", GATE)
    server.write("app.yaml", (CONFIG % 4).replace("worker_ready", "after_fork: 'gate:boot', worker_ready"))
    server.send_signal(signal.SIGHUP)
    server.wait_for_workers(1, "gen 2")
    server.send_signal(signal.SIGTTOU)
    server.wait_for_log("3 workers wanted")
    (server.folder / "go").touch()
    server.wait_for_log("generation 2 serves")
    settle(server, 3, 2)
    assert server.stop() == 0


SLOW = """
import os, time

def app(environ, start_response):
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/slow":
        open("running", "w").write(body.decode())
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_that_gets_term_is_replaced_first(server: Server, threads: int) -> None:
    serve(server, CONFIG % 2 + f"threads: {threads}\n", SLOW)
    workers = server.wait_for_workers(2)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(30)
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_for(
            lambda: (server.folder / "running").exists() and (server.folder / "running").read_text(),
            "it to run",
        )
        busy = int((server.folder / "running").read_text())
        os.kill(busy, signal.SIGTERM)
        if threads == 2:  # it hears of the signal while the application runs
            server.wait_for_workers(3)
            assert set(server.workers()) > set(workers)
        (server.folder / "go").touch()
        assert read_response(sock)[:2] == (200, str(busy))
    wait_for(lambda: not is_alive(busy), "the end of the old worker")
    assert len(server.wait_for_workers(2)) == 2
    *_, ready, gone = notes(server)
    assert (ready[0], gone) == ("+", ("-", 1, busy))
    assert min(counts(server)[1:]) == 2
    server.wait_for_log(rf"pid {busy}: gone: exit status 0 .*, expected")
    assert server.stop() == 0


def test_term_to_all_workers_replaces_all(server: Server) -> None:
    serve(server, CONFIG % 2)
    workers = server.wait_for_workers(2)
    with Load(lambda: socket.create_connection(("127.0.0.1", server.port)), pause_s=0.01) as load:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the old workers")
    assert load.failures == []
    assert not set(server.wait_for_workers(2)) & set(workers)
    assert min(counts(server)[1:]) == 2
    assert server.stop() == 0


def test_winch_is_ignored(server: Server) -> None:
    serve(server, CONFIG % 2)
    workers = server.wait_for_workers(2)
    family = server.family()
    for pid in [server.pid, *family]:
        os.kill(pid, signal.SIGWINCH)
    before = server.log
    server.send_signal(signal.SIGUSR1)
    server.wait_for_log("reopened 0 log files")
    assert server.log[len(before) :].count("\n") == 1
    assert server.family() == family
    assert server.workers() == workers
    assert server.get() == (200, "hello")
    assert server.stop() == 0
