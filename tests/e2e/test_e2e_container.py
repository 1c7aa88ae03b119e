"""Duties of a service: privileges, PID 1, orphans, systemd's protocol, the pidfile, a read-only file system."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import (
    AS_NOBODY,
    HELLO,
    PATIENCE_S,
    Server,
    children,
    is_alive,
    stat_fields,
    title,
    wait_for,
    works,
)

CONFIG = """
app: myapp:app
name: shop
listen: 127.0.0.1:0
workers: 2
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


# Privileges

IDENTITY = """
import json, os

def identity():
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "key": os.environ.get("KEY")}

at_import = identity()

def app(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps([at_import, identity()]).encode()]
"""


def free_port_below_1024() -> int:
    for port in range(1023, 511, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no port below 1024 is free")


def ids(pid: int, name: str) -> list[int]:
    """Return the numbers of a line of /proc/PID/status."""
    [line] = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith(f"{name}:")]
    return [int(number) for number in line.split()[1:]]


@needs_root
@pytest.mark.parametrize("preload", ["auto", "false"])
def test_privileges_are_dropped_before_any_application_code(public_server: Server, preload: str) -> None:
    server, nobody = public_server, pwd.getpwnam("nobody")
    server.write("secrets.env", "KEY=for root's eyes").chmod(0o600)
    port = free_port_below_1024()
    config = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    server.serve(
        config + f"user: nobody\npreload: {preload}\nenv_file: [secrets.env]",
        IDENTITY,
        prefix=("setpriv", "--groups=4,24"),  # which must not be inherited
    )
    expected = {
        "uids": [nobody.pw_uid] * 3,
        "gids": [nobody.pw_gid] * 3,
        "groups": sorted(set(os.getgrouplist("nobody", nobody.pw_gid))),
        "key": "for root's eyes",
    }
    assert json.loads(server.get()[1]) == [expected, expected]
    assert ids(server.pid, "Uid") == [0] * 4
    for pid in (*server.molds(), *server.wait_for_workers(2)):
        assert ids(pid, "Uid") == [nobody.pw_uid] * 4
        assert ids(pid, "Gid") == [nobody.pw_gid] * 4

    # Root's port and file are there for the next generation, too.
    assert server.reload() == "reloaded"
    assert json.loads(server.get()[1]) == [expected, expected]
    assert server.stop() == 0


@pytest.mark.measured
@needs_root
def test_a_group_alone_is_enough(public_server: Server) -> None:
    server = public_server
    server.serve(CONFIG + "group: '12345'", IDENTITY, prefix=("setpriv", "--groups=4,24"))
    told, _ = json.loads(server.get()[1])
    assert (told["uids"], told["gids"], told["groups"]) == ([0] * 3, [12345] * 3, [12345])


@needs_root
def test_who_is_not_root_cannot_become_another(public_server: Server) -> None:
    server = public_server
    server.configure(CONFIG + "user: daemon")
    server.start(prefix=AS_NOBODY)
    assert server.wait() == 2
    assert server.log.splitlines()[-1].startswith("only root can switch to user daemon")


# PID 1

PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
ORPHANS = """
import os, subprocess, threading

entered = threading.Event()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        subprocess.run("sleep 1000 & sleep 1000 & exit", shell=True)  # the shell leaves two children behind
    if environ["PATH_INFO"] == "/slow":
        open("entered", "w").close()
        while not os.path.exists("go"):
            threading.Event().wait(0.01)
    start_response("200 OK", [])
    return [str(os.getppid()).encode()]
"""


@pytest.mark.parametrize("as_pid_1", [True, False], ids=["as PID 1", "as any process"])
def test_orphans_are_reaped_and_let_live(server: Server, as_pid_1: bool) -> None:
    if as_pid_1 and not works(*PID_NAMESPACE, "true"):
        pytest.skip("needs unshare, and the permission to make PID namespaces")
    server.serve(CONFIG + "log: {level: debug}", ORPHANS, prefix=PID_NAMESPACE if as_pid_1 else ())
    master = children(server.pid)[0] if as_pid_1 else server.pid
    assert title(master) == "prefork: master shop (app.yaml)"
    wait_for(lambda: len(children(master)) == 3, "the workers to be the master's, and not an intermediate's")
    status, parent = server.get("/orphan")
    assert (status, parent) == (200, str(1 if as_pid_1 else server.pid))

    # Those who live are adopted and not killed, those who die are reaped.
    def orphans() -> list[int]:
        return [pid for pid in children(master) if title(pid) == "sleep 1000"]

    wait_for(lambda: len(orphans()) == 2, "the adoption of the orphans")
    first, second = orphans()
    os.kill(first, signal.SIGKILL)
    server.wait_for_log(r"reaped pid \d+, an orphan of the application")
    assert (stat_fields(first), is_alive(second)) == (None, True)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: len(children(master)) == 3, "nobody but mold and workers to be there, alive or not")
    os.kill(master, signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.skipif(not works(*PID_NAMESPACE, "true"), reason="needs unshare and PID namespaces")
def test_as_pid_1_term_stops_gracefully(server: Server) -> None:
    server.serve(CONFIG, ORPHANS, prefix=PID_NAMESPACE)
    [master] = children(server.pid)
    wait_for(lambda: len(children(master)) == 3, "mold and workers")
    family = [master, *children(master)]
    answers: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: answers.append(server.get("/slow")))
    client.start()
    wait_for((server.folder / "entered").exists, "the request to begin")
    os.kill(master, signal.SIGTERM)
    server.wait_for_log("SIGTERM: stopping gracefully")
    server.write("go", "")
    client.join(PATIENCE_S)
    assert answers == [(200, "1")]
    assert server.wait() == 0
    assert not any(map(is_alive, family))


# systemd


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.settimeout(PATIENCE_S)

    def receive(self) -> dict[str, str]:
        """Return the next message that is no sign of life."""
        while (message := self._next()) == {"WATCHDOG": "1"}:
            pass
        return message

    def receive_watchdog(self) -> None:
        while self._next() != {"WATCHDOG": "1"}:
            pass

    def _next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._sock.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


@pytest.mark.measured
def test_systemd_hears_of_ready_reload_and_stop(server: Server, systemd: Systemd) -> None:
    server.serve(CONFIG, env={"NOTIFY_SOCKET": str(systemd.path)})
    ready = systemd.receive()
    assert ready["READY"] == "1"
    assert ready["STATUS"].startswith("serving on 127.0.0.1:")

    before_us = time.monotonic_ns() // 1000
    assert server.reload() == "reloaded"
    reloading = systemd.receive()
    assert reloading["RELOADING"] == "1"
    assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert systemd.receive()["READY"] == "1"

    for config, app, reason in (
        ("app: [", HELLO, "app.yaml:"),
        (CONFIG, "import nosuchmodule", "cannot load myapp:app: importing it raised ModuleNotFoundError"),
        (CONFIG + "user: nosuchuser", HELLO, "there is no user 'nosuchuser'"),
    ):
        server.configure(config, app)
        assert server.reload() == "failed"
        assert systemd.receive()["RELOADING"] == "1"
        failed = systemd.receive()
        assert failed["READY"] == "1"
        assert failed["STATUS"].startswith("the reload failed: ")
        assert reason in failed["STATUS"]

    assert server.stop() == 0
    assert systemd.receive()["STOPPING"] == "1"


def test_the_watchdog_is_fed(server: Server, systemd: Systemd) -> None:
    server.serve(CONFIG, env={"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "200000"})
    for _ in range(3):
        systemd.receive_watchdog()


def test_a_watchdog_for_another_process_is_not_fed(server: Server, systemd: Systemd) -> None:
    server.serve(CONFIG, env={"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "2", "WATCHDOG_PID": "1"})
    assert systemd._next()["READY"] == "1"
    assert server.stop() == 0
    assert systemd._next()["STOPPING"] == "1"


def test_a_notify_socket_that_nobody_reads_harms_nobody(server: Server) -> None:
    server.serve(CONFIG, env={"NOTIFY_SOCKET": str(server.folder / "gone")})
    assert server.get() == (200, "hello")
    assert server.stop() == 0


# Files


def test_the_pidfile_lives_as_long_as_the_server(server: Server) -> None:
    pidfile = server.folder / "shop.pid"
    server.serve(CONFIG + "pidfile: shop.pid")
    assert pidfile.read_text() == f"{server.pid}\n"
    second = subprocess.run(
        [sys.executable, "-m", "prefork", "-c", "app.yaml"],
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode == 2
    assert f"the server with pid {server.pid} that wrote it still runs" in second.stderr
    assert pidfile.read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert not pidfile.exists()


def test_the_pidfile_is_removed_after_a_failed_boot(server: Server) -> None:
    server.configure(CONFIG + "pidfile: shop.pid", "import nosuchmodule")
    server.start()
    assert server.wait() == 3
    assert not (server.folder / "shop.pid").exists()


def read_only(folder: Path) -> tuple[str, ...]:
    """Return a prefix that makes a folder and the root read-only for a command."""
    remount = "mount -o remount,bind,ro"
    script = f'mount --bind "$0" "$0" && {remount} "$0" && {remount} / && cd "$0" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(folder))


def test_a_read_only_file_system_is_enough(server: Server) -> None:
    prefix = read_only(server.folder)
    if not works(*prefix, "true"):
        pytest.skip("needs unshare, and the permission to mount")
    app = """
    import errno, os, pathlib

    def app(environ, start_response):
        failures = []
        for folder in (os.getcwd(), "/"):
            try:
                pathlib.Path(folder, "written").write_text("")
            except OSError as error:
                failures.append(errno.errorcode[error.errno])
        start_response("200 OK", [])
        return [" ".join(failures).encode()]
    """
    # Bodies too large for memory need a folder; a read-only container has a tmpfs for that.
    server.serve(CONFIG + "tmp_dir: /dev/shm\n", app, prefix=prefix)
    assert server.get() == (200, "EROFS EROFS")
    assert server.reload() == "reloaded"
    server.wait_for_answer(200, "EROFS EROFS")
    assert server.stop() == 0
    assert not re.search(r" (warning|error) ", server.log)
