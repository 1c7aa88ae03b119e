"""Clients that never look whether their idle connection was closed, while workers come and go.

They fail on a reset, an end of file or a refused connect. None may fail, and no connection may be closed. With
``UNCHECKED_S=60`` in the environment each run takes so long, and the clients are idle for as long as in a deployment.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from harness import Server, wait_for

from bench.crowd import Crowd, steady

LONG_S = float(os.environ.get("UNCHECKED_S", "0"))
IDLE_S = (0.1, 4.0) if LONG_S else (0.05, 0.8)
PAUSE_S = 2.0 if LONG_S else 0.3
TIMES = 6
RECYCLED = "expected: it has served recycle.requests"

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 3
threads: THREADS
"""


def reload(server: Server) -> None:
    assert server.reload() == "reloaded"


def scale(server: Server) -> None:
    for number, left in ((signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2), (signal.SIGTTIN, 3)):
        server.send_signal(number)
        server.wait_for_workers(left)


def end_one(server: Server) -> None:
    worker = random.choice(server.wait_for_workers(3))
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: worker not in server.workers(), f"the end of {worker}")


def recycle(server: Server) -> None:
    """Wait until another worker has been replaced because of ``recycle.requests``."""
    seen = server.log.count(RECYCLED)
    wait_for(lambda: server.log.count(RECYCLED) > seen, "a worker that has served its share")


@pytest.mark.parametrize(
    ("act", "threads"), [(reload, 1), (reload, 4), (scale, 1), (end_one, 1), (recycle, 1), (recycle, 4)]
)
def test_clients_that_never_check_notice_nothing(
    server: Server, act: Callable[[Server], None], threads: int
) -> None:
    recycling = f"recycle: {{requests: {100 if LONG_S else 20}}}\n" if act is recycle else ""
    server.serve(CONFIG.replace("THREADS", str(threads)) + recycling)
    with Crowd(("127.0.0.1", server.port), steady(40, IDLE_S)) as crowd:
        wait_for(lambda: crowd.connections == 40, "all clients to be connected")
        until = time.monotonic() + LONG_S
        times = 0
        while times < TIMES or time.monotonic() < until:
            act(server)
            times += 1
            time.sleep(PAUSE_S)  # not a wait: clients write to connections that have just changed hands
    assert not crowd.failures
    assert crowd.closed == 0
    assert crowd.connections == 40
    if LONG_S:
        print(
            f"{act.__name__} {threads}: {times} times, {crowd.answers} answers, stall {crowd.longest_stall_s:.3f} s"
        )
