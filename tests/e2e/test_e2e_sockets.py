"""Listeners of the running server: every kind of address, who may have it, and what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from harness import Server, exchange, running, wait_for

GET = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
FIRST_UNPRIVILEGED = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())

APP = """
import json, os, time

def app(environ, start_response):
    start_response("200 OK", [])
    names = ("SERVER_NAME", "REMOTE_ADDR")
    told = {name: environ.get(name) for name in names}
    told["listen"] = {k: v for k, v in os.environ.items() if k.startswith("LISTEN_")}
    told["cloexec"] = all(not os.get_inheritable(int(fd)) for fd in os.listdir("/proc/self/fd")
                          if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}"))
    return [json.dumps(told).encode()]

def api(environ, start_response):
    start_response("200 OK", [])
    return [b'"the api"']

def stuck(environ, start_response):
    open("stuck", "w").close()
    while os.path.exists("stuck"):
        time.sleep(0.01)
    return api(environ, start_response)
"""


def ask(family: int, address: Any) -> Any:
    """Return what the application at an address answers."""
    with socket.socket(family) as sock:
        sock.connect(address)
        head, _, body = exchange(sock, GET).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return json.loads(body)


def ask_unix(path: Path) -> Any:
    return ask(socket.AF_UNIX, str(path))


def mode(path: Path) -> int:
    assert stat.S_ISSOCK(path.lstat().st_mode)
    return stat.S_IMODE(path.lstat().st_mode)


def fails(server: Server, config: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a server that cannot listen; return its log."""
    server.configure(config, APP)
    server.start(prefix=prefix)
    assert server.wait() == 4
    assert "Traceback" not in server.log
    return server.log


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_two_pools_on_listeners_of_every_family(server: Server) -> None:
    server.serve(
        """
        workers: 1
        pools:
          web: {app: "myapp:app", listen: ["127.0.0.1:0", "[::1]:0", "unix:web.sock"]}
          api: {app: "myapp:api", listen: {address: "unix:api.sock", mode: "0600"}}
        """,
        APP,
    )
    web, api = server.folder / "web.sock", server.folder / "api.sock"
    ports = server.wait_for_log(
        r"serving on 127\.0\.0\.1:(\d+), \[::1\]:(\d+), unix:web.sock, unix:api.sock\n"
    )
    assert ask(socket.AF_INET, ("127.0.0.1", int(ports[1])))["REMOTE_ADDR"] == "127.0.0.1"
    v6 = ask(socket.AF_INET6, ("::1", int(ports[2])))
    assert (v6["REMOTE_ADDR"], v6["SERVER_NAME"], v6["cloexec"]) == ("::1", "::1", True)
    assert ask_unix(web)["REMOTE_ADDR"] == ""
    assert ask_unix(api) == "the api"
    assert (mode(web), mode(api)) == (0o660, 0o600)
    assert server.stop() == 0
    assert not web.exists()
    assert not api.exists()


@pytest.mark.measured
def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(server: Server, tmp_path: Path) -> None:
    path = server.folder / "shop.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server.serve("app: myapp:app\nlisten: unix:shop.sock\nworkers: 1", APP)
    ask_unix(path)
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other") as other:
        log = fails(other, f"app: myapp:app\nlisten: unix:{path}")
    assert (
        f"prefork: cannot listen on unix:{path}: already in use by pid {server.pid} (prefork: master" in log
    )
    ask_unix(path)
    assert server.stop() == 0


def test_a_socket_file_of_somebody_else_is_not_removed(server: Server) -> None:
    path = server.folder / "shop.sock"
    server.serve("app: myapp:app\nlisten: unix:shop.sock\nworkers: 1", APP)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        assert server.stop() == 0
        assert mode(path)


def test_a_file_that_is_no_socket_is_not_replaced(server: Server) -> None:
    server.write("shop.sock", "precious")
    log = fails(server, "app: myapp:app\nlisten: unix:shop.sock")
    assert "cannot listen on unix:shop.sock: the file exists and is not a socket" in log
    assert (server.folder / "shop.sock").read_text() == "precious"


def test_the_socket_of_a_killed_master_is_taken_over(server: Server) -> None:
    path = server.folder / "shop.sock"
    server.serve("app: myapp:app\nlisten: unix:shop.sock\nworkers: 1", APP)
    server.workers()
    server.send_signal(signal.SIGKILL)
    server.wait()
    mark = server.mark()
    server.start()
    server.wait_for_log("serving on ", mark)
    ask_unix(path)
    assert server.stop() == 0
    assert not path.exists()


def test_an_address_in_use_is_told_with_its_holder(server: Server, tmp_path: Path) -> None:
    server.serve("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1", APP)
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other") as other:
        log = fails(other, f"app: myapp:app\nlisten: 0.0.0.0:{server.port}")
    told = (
        f"cannot listen on 0.0.0.0:{server.port}: already in use by pid {server.pid} (prefork: master myapp"
    )
    assert told in log
    assert server.get()[0] == 200


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("203.0.113.7:8000", "no interface of this machine has the address 203.0.113.7"),
        ("unix:/nowhere/x.sock", "the directory /nowhere does not exist"),
        ("fd:77", "this process was started without an open descriptor 77"),
        ("systemd", "no sockets were passed to this process (LISTEN_FDS is not set)"),
    ],
)
def test_what_cannot_be_is_one_line(server: Server, address: str, told: str) -> None:
    log = fails(server, f"app: myapp:app\nlisten: {address}")
    (line,) = (line for line in log.splitlines() if " info " not in line)
    assert line.startswith(f"prefork: cannot listen on {address}: ")
    assert told in line


@pytest.mark.measured
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or FIRST_UNPRIVILEGED <= 80,
    reason="needs root, setpriv, and a system where port 80 is privileged",
)
def test_a_port_that_needs_privileges(server: Server) -> None:
    log = fails(
        server, "app: myapp:app\nlisten: 127.0.0.1:80", ("setpriv", "--bounding-set=-net_bind_service")
    )
    assert "cannot listen on 127.0.0.1:80: ports below 1024 need root" in log


def test_an_inherited_descriptor_outlives_the_server(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for round in range(2):
            server.configure(f"app: myapp:app\nlisten: fd:{listener.fileno()}\nworkers: 1", APP)
            server.start(pass_fds=(listener.fileno(),))
            assert ask(socket.AF_INET, listener.getsockname())["cloexec"]
            assert server.stop() == 0, round
        # What comes between two servers waits for the next one.
        with socket.create_connection(listener.getsockname()) as early:
            server.start(pass_fds=(listener.fileno(),))
            assert exchange(early, GET).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0


def test_as_many_connections_wait_as_the_backlog_says(server: Server) -> None:
    server.serve("app: myapp:stuck\nlisten: {address: unix:shop.sock, backlog: 3}\nworkers: 1", APP)
    path = str(server.folder / "shop.sock")
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        first.sendall(GET)
        wait_for((server.folder / "stuck").exists, "the worker to be busy")
        try:
            for _ in range(9):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(path)
        except BlockingIOError:
            pass
        finally:
            for sock in waiting:
                sock.close()
        assert len(waiting) == 5  # the kernel lets one more than the backlog wait, and this one not
        (server.folder / "stuck").unlink()
        assert exchange(first, b"").endswith(b'the api"')
    assert server.stop() == 0


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate"
)


def activate(server: Server, *options: str) -> None:
    """Start the server as systemd would, at the first connection."""
    server.start(prefix=("systemd-socket-activate", *options))
    server.wait_for_log("Listening on ")


@needs_systemd
def test_one_socket_of_systemd(server: Server) -> None:
    server.configure("app: myapp:app\nlisten: systemd\nworkers: 1", APP)
    path = server.folder / "web.sock"
    activate(server, f"--listen={path}")
    wait_for(path.exists, "the socket")
    answer = ask_unix(path)
    assert (answer["listen"], answer["cloexec"]) == ({}, True)
    assert server.reload() == "reloaded"
    assert ask_unix(path)["listen"] == {}
    assert server.stop() == 0
    assert path.exists()  # it is systemd's


@needs_systemd
def test_named_sockets_of_systemd(server: Server) -> None:
    server.configure(
        """
        workers: 1
        pools:
          web: {app: "myapp:app", listen: "systemd:web"}
          api: {app: "myapp:api", listen: "systemd:api"}
        """,
        APP,
    )
    web, api = server.folder / "web.sock", server.folder / "api.sock"
    activate(server, f"--listen={web}", f"--listen={api}", "--fdname=web:api")
    wait_for(api.exists, "the sockets")
    assert ask_unix(web)["listen"] == {}
    assert ask_unix(api) == "the api"
    assert server.stop() == 0
