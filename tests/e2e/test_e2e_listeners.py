"""What a reload does with listeners and pools: new ones serve, kept ones do not notice, old ones lose nothing."""

from __future__ import annotations

import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from harness import Server, descriptors, open_files, wait_for
from load import Load, read_response

CONFIG = """
app: myapp:app
listen: [%s]
workers: %s
control: off
log: {access: off}
"""
MAIN = "127.0.0.1:0"

GATED = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open(f"running-{os.getpid()}", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    body = f"{environ['SERVER_NAME'] or 'unix'} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
WAITS_FOR_FILE = """
import os, time
open("importing", "w").close()
while not os.path.exists("load"):
    time.sleep(0.01)
"""
REQUEST = b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def tcp(server: Server, host: str = "127.0.0.1") -> Callable[[], socket.socket]:
    """Return what connects to the TCP listener on ``host``, whatever port the system chose last."""
    port = int(re.findall(rf" on .*?{re.escape(host)}:(\d+)", server.log)[-1])
    return lambda: socket.create_connection((host, port), 30)


def unix(server: Server, name: str) -> Callable[[], socket.socket]:
    path = str(server.folder / name)

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(30)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    return connect


def send(connect: Callable[[], socket.socket], path: bytes = b"/") -> socket.socket:
    sock = connect()
    sock.sendall(REQUEST % path)
    return sock


def get(connect: Callable[[], socket.socket]) -> tuple[int, str]:
    with send(connect) as sock:
        return read_response(sock)[:2]


def is_refused(connect: Callable[[], socket.socket]) -> bool:
    try:
        connect().close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@contextmanager
def busy_workers(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Occupy ``count`` workers with requests that end when the file ``go`` exists."""
    with ExitStack() as stack:
        socks = [stack.enter_context(send(tcp(server), b"/slow")) for _ in range(count)]
        wait_for(lambda: len(list(server.folder.glob("running-*"))) == count, "the slow requests")
        yield socks


EXTRA = {"tcp": "127.0.0.2:0", "unix": "unix:extra.sock"}


def extra_of(server: Server, kind: str) -> Callable[[], socket.socket]:
    return tcp(server, "127.0.0.2") if kind == "tcp" else unix(server, "extra.sock")


def listener_inodes(pid: int) -> set[str]:
    """Return the listening sockets of a process, by inode."""
    tables = [f"/proc/{pid}/net/tcp", f"/proc/{pid}/net/unix"]
    tcp_rows = [line.split() for line in Path(tables[0]).read_text().splitlines()[1:]]
    unix_rows = [line.split() for line in Path(tables[1]).read_text().splitlines()[1:]]
    listening = {row[9] for row in tcp_rows if row[3] == "0A"} | {
        row[6] for row in unix_rows if row[3] == "00010000"
    }
    return {name[8:-1] for name in open_files(pid) if name.startswith("socket:[")} & listening


def test_added_listeners_serve_and_kept_ones_stay(server: Server) -> None:
    server.serve(CONFIG % (MAIN, 2), GATED)
    before = listener_inodes(server.pid)
    assert len(before) == 1
    with Load(tcp(server), kept=1, fresh=1, pause_s=0.005) as load:
        server.configure(CONFIG % (", ".join([MAIN, *EXTRA.values()]), 2), GATED)
        assert server.reload() == "reloaded"
        assert get(tcp(server, "127.0.0.2"))[1].startswith("127.0.0.2 ")
        assert get(unix(server, "extra.sock"))[0] == 200
    assert load.failures == []
    assert before < listener_inodes(server.pid)
    assert server.stop() == 0
    assert not (server.folder / "extra.sock").exists()


def test_what_waits_in_a_kept_listener_is_served_by_new_workers(server: Server) -> None:
    server.serve(CONFIG % (MAIN, 1), GATED)
    [old] = server.wait_for_workers(1)
    with busy_workers(server, 1) as [slow], send(tcp(server)) as waiting:
        assert server.reload() == "reloaded"
        status, body, _ = read_response(waiting)
        assert status == 200
        assert body != f"127.0.0.1 {old}"
        (server.folder / "go").touch()
        assert read_response(slow)[1] == f"127.0.0.1 {old}"
    assert server.stop() == 0


@pytest.mark.measured
@pytest.mark.parametrize("kind", EXTRA)
def test_what_waits_in_a_removed_listener_is_served(server: Server, kind: str) -> None:
    server.serve(CONFIG % (f"{MAIN}, {EXTRA[kind]}", 1), GATED)
    extra = extra_of(server, kind)
    with busy_workers(server, 1), ExitStack() as stack:
        waiting = [stack.enter_context(send(extra)) for _ in range(5)]
        server.configure(CONFIG % (MAIN, 1), GATED)
        assert server.reload() == "reloaded"
        assert is_refused(extra)
        wait_for(lambda: not (server.folder / "extra.sock").exists(), "the end of the socket's file")
        (server.folder / "go").touch()
        for sock in waiting:  # by the old worker, or handed over by it to the new one
            assert read_response(sock)[0] == 200
    server.wait_for_workers(0, "gen 1")
    assert len(listener_inodes(server.pid)) == 1
    assert server.stop() == 0


@pytest.mark.parametrize("kind", EXTRA)
def test_who_connects_to_a_listener_that_goes_is_refused_or_served(server: Server, kind: str) -> None:
    server.serve(CONFIG % (f"{MAIN}, {EXTRA[kind]}", 2), GATED)
    extra = extra_of(server, kind)
    failures: list[str] = []
    served: list[int] = []

    def client() -> None:
        while True:
            try:
                sock = extra()
            except (ConnectionRefusedError, FileNotFoundError):
                return
            try:
                with sock:
                    sock.sendall(REQUEST % b"/")
                    served.append(read_response(sock)[0])
            except Exception as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    wait_for(lambda: len(served) > 50, "the first responses")
    server.configure(CONFIG % (MAIN, 2), GATED)
    assert server.reload() == "reloaded"
    for thread in clients:
        thread.join(30)
    assert not any(thread.is_alive() for thread in clients)
    assert failures == []
    assert set(served) == {200}
    assert server.stop() == 0


@pytest.mark.parametrize("kind", EXTRA)
def test_a_listener_that_goes_and_comes_back_at_once(server: Server, kind: str) -> None:
    """The second reload waits until the first has done away with the listener, which a busy worker still holds."""
    with socket.create_server(("127.0.0.2", 0)) as chosen:
        port = chosen.getsockname()[1]
    extra_at = EXTRA[kind].replace(":0", f":{port}")
    both = CONFIG % (f"{MAIN}, {extra_at}", 2) + "reload: {batch: 3}\n"
    server.serve(both, GATED)
    extra = extra_of(server, kind)
    with busy_workers(server, 1) as [slow]:
        server.configure(CONFIG % (MAIN, 2) + "reload: {batch: 3}\n", WAITS_FOR_FILE + GATED)
        server.send_signal(signal.SIGHUP)
        wait_for((server.folder / "importing").exists, "the import of the new mold")
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("the reload waits")
        server.configure(both, GATED)
        (server.folder / "load").touch()
        server.wait_for_log("generation 3 serves")
        assert get(extra)[0] == 200
        server.wait_for_workers(1, "gen 1")
        (server.folder / "go").touch()
        assert read_response(slow)[0] == 200
    wait_for(lambda: len(server.family()) == 3, "the end of the old generations")
    assert get(extra)[0] == 200
    assert server.stop() == 0


def test_a_stop_right_after_a_reload_leaves_no_socket_file(server: Server) -> None:
    server.serve(CONFIG % (f"{MAIN}, {EXTRA['unix']}", 1), GATED)
    server.configure(CONFIG % (MAIN, 1), GATED)
    assert server.reload() == "reloaded"
    assert server.stop(signal.SIGINT) == 0
    assert not (server.folder / "extra.sock").exists()


def test_a_changed_mode_applies_to_a_kept_socket(server: Server) -> None:
    address = "127.0.0.1:0, {address: 'unix:extra.sock', mode: '%s'}"
    server.serve(CONFIG % (address % "0600", 1), GATED)
    path = server.folder / "extra.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    server.configure(CONFIG % (address % "0666", 1), GATED)
    assert server.reload() == "reloaded"
    wait_for(lambda: stat.S_IMODE(path.stat().st_mode) == 0o666, "the new mode")
    assert path.stat().st_ino == before
    assert server.stop() == 0


# Pools


HOOKS = "{server_exit: 'builtins:repr'}"
"""A pool that leaves waits for it."""


def pools(**listens: str) -> str:
    lines = [
        f"  {name}: {{app: myapp:app, listen: '{listen}', workers: 1, hooks: {HOOKS}}}"
        for name, listen in listens.items()
    ]
    return "\n".join(["log: {access: off}", "pools:", *lines, ""])


def test_pools_come_change_and_go(server: Server) -> None:
    server.serve(pools(web=MAIN), GATED)
    before = descriptors(server.pid)
    with Load(tcp(server), kept=1, fresh=1, pause_s=0.005) as load:
        server.configure(pools(web=MAIN, api="unix:api.sock"), GATED)
        assert server.reload() == "reloaded"
        assert get(unix(server, "api.sock"))[0] == 200
        [api] = server.wait_for_workers(1, r"api\.0 gen 2")

        server.configure(pools(web=MAIN, api="unix:other.sock"), GATED)
        assert server.reload() == "reloaded"
        assert get(unix(server, "other.sock"))[0] == 200
        wait_for(lambda: not (server.folder / "api.sock").exists(), "the end of the socket's file")
        wait_for(lambda: api not in server.family(), "the end of the old worker")

        server.configure(pools(web=MAIN), GATED)
        assert server.reload() == "reloaded"
        wait_for(lambda: not (server.folder / "other.sock").exists(), "the end of the socket's file")
        wait_for(lambda: len(server.family()) == 2, "the end of the pool that was removed")
    assert load.failures == []
    wait_for(lambda: descriptors(server.pid) == before, f"no more descriptors than {before}")
    assert "SIGABRT" not in server.log
    assert server.stop() == 0


@pytest.mark.measured
def test_a_listener_moves_from_pool_to_pool(server: Server) -> None:
    server.serve(pools(web=MAIN), GATED)
    before = listener_inodes(server.pid)
    with Load(tcp(server), kept=1, fresh=1, pause_s=0.005) as load:
        server.configure(pools(shop=MAIN), GATED)
        assert server.reload() == "reloaded"
        server.wait_for_workers(1, r"shop\.0 gen 2")
        wait_for(lambda: len(server.family()) == 2, "the end of the pool that was removed")
        server.configure(pools(web=MAIN), "raise ValueError")
        assert server.reload() == "failed"
        wait_for(lambda: len(server.family()) == 2, "the end of the pool that failed")
        assert server.workers(r"shop\.0 gen 2")
    assert load.failures == []
    assert listener_inodes(server.pid) == before
    assert "SIGABRT" not in server.log
    assert server.stop() == 0
