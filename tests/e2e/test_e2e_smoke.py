"""The server stands: it boots, serves, reloads, heals and stops."""

import os
import signal

from harness import Server, wait_for

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
"""


def test_serves_reloads_heals_and_stops(server: Server) -> None:
    server.serve(CONFIG)
    assert server.get() == (200, "hello")

    first = server.wait_for_workers(2, "gen 1")
    assert server.reload() == "reloaded"
    second = server.wait_for_workers(2, "gen 2")
    assert not set(first) & set(second)

    os.kill(second[0], signal.SIGKILL)
    wait_for(lambda: len(set(server.workers("gen 2")) - {second[0]}) == 2, "a new worker")
    assert server.get() == (200, "hello")

    assert server.stop() == 0
    assert "Traceback" not in server.log
