"""Preloading: who imports the application, what workers share, what keeps them from sharing it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Server, wait_for

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
preload: {preload}
"""

# Answers with the pid of the process that imported it, and its own.
WHO = """
import os

IMPORTED_BY = os.getpid()

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{IMPORTED_BY} {os.getpid()}".encode()]
"""


def who(server: Server) -> tuple[int, int]:
    importer, worker = map(int, server.get()[1].split())
    return importer, worker


@pytest.mark.parametrize("preload", ["auto", "true"])
def test_the_mold_imports_once_and_workers_are_forked_from_it(server: Server, preload: str) -> None:
    server.serve(CONFIG.format(preload=preload), WHO)
    [mold] = server.molds()
    importer, worker = who(server)
    assert importer == mold
    assert worker in server.wait_for_workers(2)
    assert "preload-" not in server.log
    assert server.stop() == 0


def test_without_preload_each_worker_imports(server: Server) -> None:
    server.serve(CONFIG.format(preload="false"), WHO + '\nprint("imported by", os.getpid(), flush=True)\n')
    workers = server.wait_for_workers(2)
    importer, worker = who(server)
    assert importer == worker
    assert sorted(map(int, re.findall(r"imported by (\d+)", server.log))) == workers
    assert server.stop() == 0


@pytest.fixture
def database() -> Iterator[int]:
    """A port of a server to which an application connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


THREAD = """
import threading
threading.Thread(target=threading.Event().wait, name="flusher", daemon=True).start()
"""
CONNECTION = """
import socket
connection = socket.create_connection(("127.0.0.1", {port}))
"""


@pytest.mark.measured
@pytest.mark.parametrize("left", ["thread", "connection"])
def test_auto_tells_once_what_the_import_left_and_lets_workers_import(
    server: Server, database: int, left: str
) -> None:
    code = THREAD if left == "thread" else CONNECTION.format(port=database)
    name = "flusher" if left == "thread" else f"127.0.0.1:{database} (TCP)"
    server.serve(CONFIG.format(preload="auto"), WHO + code)
    importer, worker = who(server)
    assert importer == worker
    [warning] = [line for line in server.log.splitlines() if " warning " in line]
    assert "workers load the application for themselves" in warning
    assert name in warning
    # A worker that dies is replaced by one that imports again, and nobody warns again.
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(set(server.workers()) - {worker}) == 2, "a new worker")
    assert server.log.count(" warning ") == 1
    assert server.stop() == 0


def test_true_warns_and_goes_on(server: Server, database: int) -> None:
    server.serve(CONFIG.format(preload="true"), WHO + THREAD + CONNECTION.format(port=database))
    [mold] = server.molds()
    assert who(server)[0] == mold
    [warning] = [line for line in server.log.splitlines() if " warning " in line]
    assert "flusher" in warning
    assert f"127.0.0.1:{database} (TCP)" in warning
    assert server.stop() == 0


def test_what_harms_nobody_is_no_reason_to_warn(server: Server) -> None:
    """A thread that has ended, a listening socket, a datagram sender."""
    harmless = """
import socket, threading
thread = threading.Thread(target=int)
thread.start()
thread.join()
listener = socket.create_server(("127.0.0.1", 0))
statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
statsd.connect(("127.0.0.1", 8125))
"""
    server.serve(CONFIG.format(preload="auto"), WHO + harmless)
    assert who(server)[0] in server.molds()
    assert " warning " not in server.log
    assert server.stop() == 0


def test_files_that_the_import_opened_are_open_in_workers(server: Server) -> None:
    """A worker closes nothing of the application's: not its log file, not its locks, not their numbers."""
    server.serve(
        CONFIG.format(preload="true"),
        """
import os
journal = open("journal", "a", buffering=1)

def app(environ, start_response):
    journal.write(f"{os.getpid()}\\n")
    start_response("200 OK", [])
    return [str(os.fstat(journal.fileno()).st_ino).encode()]
""",
    )
    journal = server.folder / "journal"
    status, inode = server.get()
    assert (status, inode) == (200, str(journal.stat().st_ino))
    assert int(journal.read_text()) in server.wait_for_workers(2)


def test_the_mold_is_frozen_and_workers_collect(server: Server) -> None:
    server.serve(
        CONFIG.format(preload="auto"),
        """
import gc
at_import = gc.isenabled()

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{at_import} {gc.isenabled()} {gc.get_freeze_count() > 1000}".encode()]
""",
    )
    assert server.get()[1] == "False True True"


def test_workers_do_not_share_the_molds_random_sequence(server: Server) -> None:
    server.serve(
        CONFIG.format(preload="auto") + "hooks: {worker_ready: myapp:ready}\n",
        """
import random
random.seed(1)

def ready(argument):
    print("random", random.getrandbits(64), flush=True)

def app(environ, start_response): ...
""",
    )
    numbers = re.findall(r"random (\d+)", server.log)
    assert len(set(numbers)) == 2


def test_master_and_mold_are_small(server: Server) -> None:
    server.configure("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1")
    server.start()
    server.wait_for_log("serving on ")
    [mold] = server.molds()
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in (server.pid, mold)]
    pss_kib = [int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) for text in rollups]
    assert sum(pss_kib) < 40 * 1024
