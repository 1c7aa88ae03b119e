"""Subclasses of ``Server`` as the application: docs/services.md."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Server, wait_for
from wire_client import APPS, Client, Wire, wire


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    config = f"workers: 2\nthreads: {request.param}"
    with wire(tmp_path, config, app="services:Echo") as site:
        site.server.wait_for_workers(2)
        site.threads = request.param
        yield site


def say(client: Client, line: str) -> str:
    client.send(f"{line}\n")
    return client.file.readline().decode().rstrip("\n")


@pytest.mark.measured
def test_an_echo_service_over_tcp_and_unix(echo: Wire) -> None:
    refuse = echo.server.folder / "notes-refuse"
    for unix, kind in ((False, "127.0.0.1"), (True, "unix")):
        with echo.connect(unix=unix) as client:
            for line in ("one", "two"):
                assert say(client, line).split()[1:] == [kind, line]
            client.sock.shutdown(1)
            assert client.rest() == b"bye\n"
        refuse.touch()
        with echo.connect(unix=unix) as client:
            assert client.rest() == b"bye\n"
        refuse.unlink()
        mark = echo.server.mark()
        for line in ("fail", "exit"):
            with echo.connect(unix=unix) as client:
                assert say(client, line) == "sorry"
                assert client.rest() == b"bye\n"
        shown = r"127\.0\.0\.1:\d+" if not unix else "a local client"
        for error in ("LookupError", "SystemExit"):
            echo.server.wait_for_log(rf"services\.\d gen 1 pid \d+: serving {shown} failed: {error}", mark)
    assert echo.server.stop() == 0
    assert echo.server.log.count(": ready after") == 2


def test_all_threads_of_all_workers_serve_at_a_time_and_are_drained(echo: Wire) -> None:
    count = 2 * echo.threads
    with ExitStack() as stack:
        clients = [stack.enter_context(echo.connect()) for _ in range(count)]
        for number, client in enumerate(clients):
            client.send(f"wait {number}\n")
        visitors = [echo.gate.visitor() for _ in clients]
        assert len({visitor.thread for visitor in visitors}) == count
        assert len({visitor.pid for visitor in visitors}) == 2

        mark = echo.server.mark()
        echo.server.send_signal(signal.SIGTERM)
        echo.server.wait_for_log("stopping|stops", mark)
        for visitor in visitors:
            visitor.release()
        for number, client in enumerate(clients):
            assert client.file.readline().decode().split()[-2:] == ["wait", str(number)]
            assert say(client, "more").split()[-1] == "more"
            client.sock.shutdown(1)
            assert client.rest() == b"bye\n"
        assert echo.server.wait() == 0


def test_a_reload_leaves_connections_to_the_worker_that_has_them(echo: Wire) -> None:
    with echo.connect() as old:
        assert say(old, "one").endswith(" one")
        mark = echo.server.mark()
        echo.server.send_signal(signal.SIGHUP)
        echo.server.wait_for_log(r"services\.0 gen 2 pid \d+: ready", mark)
        with echo.connect() as new:
            # The other old worker may have taken it just before it was told to drain.
            assert re.search("127.0.0.1 (draining )?new$", say(new, "new"))
        assert say(old, "two").endswith(" two")
        if echo.threads > 1:
            # With threads the loop goes on, so that a service can know.
            wait_for(lambda: say(old, "three").endswith(" draining three"), "the service to know")
    echo.server.wait_for_log("generation 2 serves, ", mark)
    echo.server.wait_for_workers(2)
    assert echo.server.stop() == 0


@pytest.mark.measured
def test_a_web_server_with_methods_of_its_own(tmp_path: Path) -> None:
    with wire(tmp_path, "workers: 1\nroot_path: /shop", app="services:Site") as site:
        with site.connect() as client:
            assert client.get("/shop/echo?a").body == b"GET a "
            assert client.get("/shop/fail?what=error").status == 500
        assert site.notes == [
            "verified",
            "processing /shop/echo?a of 127.0.0.1",
            "processing /shop/fail?what=error of 127.0.0.1",
        ]
        assert site.server.stop() == 0


@pytest.mark.measured
@pytest.mark.parametrize("name", ["Nothing"])
def test_a_web_server_without_application_does_not_boot(server: Server, name: str) -> None:
    server.configure(f"app: services:{name}\npythonpath: [{APPS}]\nlisten: 127.0.0.1:0", app=None)
    server.start()
    assert server.wait() == 3
    assert "needs the class attribute `application`" in server.log
