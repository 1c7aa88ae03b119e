"""workers: {min, max}: as many as the load needs."""

from __future__ import annotations

import re
import signal
import socket

import pytest
from harness import Server, rests, wait_for
from load import Load

CONFIG = """
app: myapp:app
listen: %s
workers: {min: 1, max: 4}
log: {access: off}
"""

# Sleeps for as long as the path says: the time of an application that waits for its database.
SLEEPER = """
import time
def app(environ, start_response):
    time.sleep(float(environ["PATH_INFO"][1:] or 0))
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""

# The real command, in less of a hurry to be slow.
HASTY = """
import sys
from prefork.master import scaling_rule, upkeep
scaling_rule.QUIET_S, scaling_rule.STEP_S, upkeep.CALM_LOOK_S = 1.0, 0.1, 0.1
"""


def scaled(server: Server) -> list[int]:
    """Return the numbers of workers that were decided for."""
    return [int(number) for number in re.findall(r": (\d+) workers wanted, ", server.log)]


@pytest.mark.parametrize(
    ("listen", "more"),
    [
        ("127.0.0.1:0", ""),
        ("127.0.0.1:0", "threads: 2\n"),
        ("unix:web.sock", "timeouts: {request: 0, slow: 0}\n"),
    ],
)
def test_it_grows_while_somebody_waits_and_shrinks_to_where_it_rests(
    server: Server, listen: str, more: str
) -> None:
    server.write("sitecustomize.py", HASTY)
    server.serve(CONFIG % listen + more, SLEEPER, env={"PYTHONPATH": str(server.folder)})
    (first,) = server.wait_for_workers(1)

    def connect() -> socket.socket:
        if listen.startswith("unix"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(server.folder / "web.sock"))
            return sock
        return socket.create_connection(("127.0.0.1", server.port))

    with Load(connect, kept=6, fresh=6, path="/0.3") as load:
        server.wait_for_workers(4)
    assert load.failures == []
    assert re.search(r"workers wanted, 1 before: for 0\.\d s no worker was idle, and \d+ waited", server.log)
    server.wait_for_log(r": 1 workers wanted, 2 before: for 1 s there was work for 0\.\d workers at most")
    assert server.wait_for_workers(1) == [first]  # the youngest went first
    assert scaled(server)[-4:] == [4, 3, 2, 1]
    wait_for(lambda: len(re.findall(r"gone: .*, expected: scaled away", server.log)) == 3, "three obituaries")
    wait_for(lambda: rests(server.pid), "the master to rest")
    assert server.stop() == 0


# Takes a millisecond of CPU time: on kept-alive connections nobody ever sees such requests wait.
SPINNER = """
import time
def app(environ, start_response):
    until = time.thread_time() + 0.001
    while time.thread_time() < until:
        pass
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


@pytest.mark.measured
def test_it_grows_for_short_requests_on_kept_connections(server: Server) -> None:
    server.serve(CONFIG % "127.0.0.1:0", SPINNER)
    with Load(lambda: socket.create_connection(("127.0.0.1", server.port)), kept=8, fresh=0) as load:
        server.wait_for_workers(2)
    assert load.failures == []
    assert server.stop() == 0


def test_one_busy_client_needs_no_second_worker(server: Server) -> None:
    server.serve(CONFIG % "127.0.0.1:0", SPINNER)
    with Load(lambda: socket.create_connection(("127.0.0.1", server.port)), kept=1, fresh=0) as load:
        wait_for(lambda: load.bodies["hello"] > 1000, "a thousand requests")
    assert load.failures == []
    assert scaled(server) == []
    assert server.stop() == 0


def test_signals_set_a_floor_until_the_next_reload(server: Server) -> None:
    server.write("sitecustomize.py", HASTY)
    config = CONFIG % "127.0.0.1:0"
    server.serve(config, SLEEPER, env={"PYTHONPATH": str(server.folder)})
    for number, wanted in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
        server.send_signal(number)
        server.wait_for_workers(wanted)
    wait_for(lambda: rests(server.pid), "the master to rest")
    assert scaled(server) == []
    # A reload keeps what there is, and forgets the floor: it shrinks as it does after any load.
    assert server.reload() == "reloaded"
    server.wait_for_log(r": 1 workers wanted, 2 before")
    server.wait_for_workers(1, "gen 2")
    server.write("app.yaml", config.replace("min: 1", "min: 2"))
    assert server.reload() == "reloaded"
    server.wait_for_workers(2, "gen 3")
    assert server.stop() == 0


# The real command in a made-up control group, of which nothing is left.
FULL_GROUP = """
from prefork.master import cgroup, upkeep
upkeep.memory_use = lambda root: cgroup.MemoryUse(990 << 20, 1000 << 20)
"""


@pytest.mark.measured
def test_it_does_not_grow_beyond_what_memory_holds(server: Server) -> None:
    server.write("sitecustomize.py", FULL_GROUP)
    server.serve(CONFIG % "127.0.0.1:0", SLEEPER, env={"PYTHONPATH": str(server.folder)})
    first = server.wait_for_workers(1)
    with Load(lambda: socket.create_connection(("127.0.0.1", server.port)), fresh=4, path="/0.3") as load:
        server.wait_for_log(
            r"myapp: no more than 1 workers: for 0\.\d s no worker was idle, and \d waited; memory holds 0 more"
        )
        wait_for(lambda: load.done > 3, "some answers")
    assert load.failures == []
    assert server.workers() == first
    assert scaled(server) == []
    assert server.stop() == 0


@pytest.mark.measured
def test_a_plain_service_does_not_tell_when_it_is_busy(server: Server) -> None:
    server.configure(
        CONFIG % "127.0.0.1:0",
        """
        from prefork.worker.server import Server
        class app(Server):
            def process_request(self, request, client_address):
                pass
        """,
    )
    server.start()
    assert server.wait() == 3
    assert "with workers: {min, max}: only the web server tells when it is busy" in server.log
