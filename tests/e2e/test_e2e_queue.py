"""Requests that have waited too long for a worker are refused rather than run late."""

import time

import pytest
from clients import GATE, Pending, hold, release
from harness import Server, wait_for

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
timeouts: {queue: 300ms, slow: 0}
"""


def let_time_pass(seconds: float) -> None:
    over = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > over, "time to pass")


@pytest.mark.measured
def test_who_waited_too_long_in_the_queue_or_the_relay_is_refused(server: Server) -> None:
    server.serve(CONFIG, GATE)
    kept, idle = server.connect(), server.connect()
    kept.request("GET", "/")
    assert kept.getresponse().read()
    held = [hold(server, f"/hold/{n}")[0] for n in range(2)]
    assert len({path.read_text() for path in server.folder.glob("held-*")}) == 2
    queued = Pending(server, "/queued")
    kept.request("GET", "/relayed")
    let_time_pass(0.5)
    release(server)
    assert [pending.outcome()[0] for pending in held] == [200, 200]
    assert queued.outcome()[0] == 503
    response = kept.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "1")
    assert b"has waited for" in response.read()
    idle.request("GET", "/first")
    assert idle.getresponse().status == 200
    assert server.log.count("answered 503 to 127.0.0.1") == 2
    for connection in (kept, idle):
        connection.close()
    assert server.stop() == 0


def test_a_trusted_proxy_tells_how_long_a_request_is_on_its_way(server: Server) -> None:
    for trust, status in (("127.0.0.1", 503), ("10.0.0.1", 200)):
        server.log_path.unlink(missing_ok=True)
        server.serve(f"{CONFIG}proxy: {{trust: {trust}}}\n", GATE)
        for ago_s, expected in ((0.0, 200), (5.0, status)):
            connection = server.connect()
            connection.request("GET", "/", headers={"X-Request-Start": f"t={time.time() - ago_s:.3f}"})
            assert connection.getresponse().status == expected
            connection.close()
        assert server.stop() == 0
