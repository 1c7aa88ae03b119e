"""What the processes are to the system: titles, descriptors, threads, and their sleep when nothing is to do."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from harness import Server, context_switches, title, wait_for

CONFIG = """
app: myapp:app
name: shop
listen: 127.0.0.1:0
workers: 2
"""


LAST_WORDS = "memfd:prefork-last-words (deleted)"


def descriptors(pid: int) -> dict[int, str]:
    """Return what the descriptors of a process are, above the standard ones."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(path.name)] = os.readlink(path)
        except FileNotFoundError:
            pass  # closed meanwhile
    return {fd: link for fd, link in sorted(found.items()) if fd > 2}


def kinds(pid: int) -> Counter[str]:
    return Counter(re.sub(r":\[\d+\]$|^.*/", "", link) for link in descriptors(pid).values())


def pipe_ends(pid: int, mode: int) -> set[str]:
    """Return the pipes of which a process holds an end that is open for reading, or for writing."""
    found = set()
    for fd, link in descriptors(pid).items():
        if link.startswith("pipe:"):
            flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text())
            assert flags
            if int(flags[1], 8) & os.O_ACCMODE == mode:
                found.add(link)
    return found


def wait_for_generation(server: Server, generation: int) -> None:
    """Wait until the children are one mold and two workers of a generation, and nobody else."""
    expected = [
        f"prefork: mold shop gen {generation}",
        f"prefork: worker shop.0 gen {generation}",
        f"prefork: worker shop.1 gen {generation}",
    ]
    wait_for(lambda: sorted(map(title, server.family())) == expected, f"generation {generation} alone")


def test_titles(server: Server) -> None:
    server.serve(CONFIG)
    assert title(server.pid) == "prefork: master shop (app.yaml)"
    wait_for_generation(server, 1)
    server.reload()
    wait_for_generation(server, 2)


@pytest.mark.parametrize("preload", ["auto", "false"])
def test_a_child_holds_its_heritage_and_nothing_else(server: Server, preload: str) -> None:
    """Also a child of a master that has seen more: a reload, and deaths of a worker and a mold."""
    server.serve(CONFIG + f"preload: {preload}\nlog: {{access: stdout}}")
    server.reload()
    wait_for_generation(server, 2)
    [mold], [worker, _] = server.molds(), server.workers()
    for victim, reborn in ((mold, r"mold gen 2: (loaded|ready)"), (worker, r"gen 2 pid \d+: ready")):
        mark = server.mark()
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log(reborn, mark)
        wait_for_generation(server, 2)
    [mold], workers = server.molds(), server.workers()

    # logs, lifeline, doorbell, channel and listener and relay, last words
    heritage = Counter({"server.log": 2, "pipe": 1, "anon_inode:[eventfd]": 1, "socket": 4, LAST_WORDS: 1})
    # A mold has the descriptors of a worker, too, until the intermediate that forks it has left.
    wait_for(lambda: kinds(mold) == heritage, f"{heritage}, and not {kinds(mold)}")
    for worker in workers:
        # its own: the epoll, and eventfds that wake it from other threads and by SIGTERM
        assert kinds(worker) == heritage + Counter({"anon_inode:[eventpoll]": 1, "anon_inode:[eventfd]": 2})

    sockets = [
        {link for link in descriptors(pid).values() if link.startswith("socket:")} for pid in (mold, *workers)
    ]
    listener_and_relay = set.intersection(*sockets)
    assert len(listener_and_relay) == 3
    assert len(set.union(*sockets)) == 3 + 3  # each has a channel of its own

    [lifeline] = set.union(*(pipe_ends(pid, os.O_RDONLY) for pid in (mold, *workers)))
    assert lifeline in pipe_ends(server.pid, os.O_WRONLY)
    assert not any(pipe_ends(pid, os.O_WRONLY) for pid in (mold, *workers))


def test_nobody_has_threads_but_the_steward(server: Server) -> None:
    server.serve(CONFIG + "share_connections: false\ntimeouts: {slow: 0, request: 0}\n")
    server.get()
    for pid in (server.pid, *server.molds(), *server.wait_for_workers(2)):
        assert len(os.listdir(f"/proc/{pid}/task")) == 1, title(pid)


def test_threads_of_the_application_are_only_in_workers(server: Server) -> None:
    server.serve(CONFIG + "threads: 3\n")
    server.get()
    assert [len(os.listdir(f"/proc/{pid}/task")) for pid in (server.pid, *server.molds())] == [1, 1]
    assert sum(len(os.listdir(f"/proc/{pid}/task")) for pid in server.wait_for_workers(2)) > 2


def sleeps(pids: Iterable[int], for_s: float = 0.5) -> bool:
    """Tell whether no process of these ran for a while."""
    pids = list(pids)
    before = list(map(context_switches, pids))
    time.sleep(for_s)  # not a wait: that nothing happens is the subject
    return list(map(context_switches, pids)) == before


def test_an_idle_server_sleeps(server: Server) -> None:
    """Ten idle seconds without one context switch, after it has served and with nobody connected."""
    # After a request the master looks once more when `slow` has passed, so that it need not be told of the end.
    server.serve(CONFIG + "timeouts: {slow: 200ms}")
    for _ in range(4):
        assert server.get() == (200, "hello")
    processes = [server.pid, *server.molds(), *server.wait_for_workers(2)]
    wait_for(lambda: sleeps(processes), "the server to fall asleep")
    assert sleeps(processes, 10.0)


def test_a_parked_connection_costs_one_wake_at_its_deadline(server: Server) -> None:
    server.serve(CONFIG.replace("workers: 2", "workers: 1") + "timeouts: {keep_alive: 4s, slow: 200ms}")
    [worker], others = server.wait_for_workers(1), [server.pid, *server.molds()]
    connection = server.connect()
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    wait_for(lambda: sleeps((worker, *others)), "the server to fall asleep")
    before, others_before = naps(worker), sum(map(context_switches, others))
    assert connection.sock.recv(1) == b""  # closed by the deadline
    connection.close()
    wait_for(lambda: sleeps([worker]), "the worker to sleep again")
    assert 1 <= naps(worker) - before <= 2  # woken by the deadline, and by the client's end
    assert sum(map(context_switches, others)) == others_before


def naps(pid: int) -> int:
    """Return how often a process has gone to sleep; unlike other switches, the load does not add to these."""
    found = re.search(
        r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1])
