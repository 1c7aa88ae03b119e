"""The admin process: it answers whatever happens to workers, master, config and itself, and tells only who may know."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, Server, descriptors, is_alive, wait_for
from test_e2e_upgrade import APP, Versions, upgrade, versions  # noqa: F401 (a fixture)

TOKEN = "correct-horse"
CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
admin: {listen: %s}
control: off
log: {access: off}
"""
CLOSED = """
import os, time

if os.path.exists("closed"):
    while not os.path.exists("open"):
        time.sleep(0.01)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stuck":
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""


class UnixConnection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


class Admin:
    """The admin listener of a server; ``where`` is its TCP port, or the path of its unix socket."""

    def __init__(self, server: Server, where: int | Path | None = None) -> None:
        self.server = server
        self._where = where

    @property
    def port(self) -> int:
        """Where it answered last, as the log says."""
        return int(re.findall(r"answers on \S*:(\d+)", self.server.log)[-1])

    def connection(self) -> http.client.HTTPConnection:
        if isinstance(self._where, Path):
            return UnixConnection(self._where)
        return http.client.HTTPConnection("127.0.0.1", self._where or self.port, timeout=PATIENCE_S)

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = self.connection()
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, body = self.get("/status")
        assert code == 200, body
        return json.loads(body)  # type: ignore[no-any-return]

    def shows(self, expected: Any, picked: Callable[[dict[str, Any]], Any]) -> None:
        """Wait until the status shows it: a line is in the log before the turn of the master is published."""
        wait_for(lambda: picked(self.status()) == expected, f"{expected} in the status")

    @property
    def pid(self) -> int:
        (pid,) = self.server.titled("^prefork: admin myapp$")
        return pid

    def only(self, *, but: int = 0) -> int:
        """Wait until there is one admin process, another than ``but``, and it answers; return its pid."""
        found = wait_for(
            lambda: len(pids := self.server.titled("^prefork: admin ")) == 1 and pids[0] != but and pids[0],
            "a new admin process",
        )
        self.server.wait_for_log(rf"admin pid {found}: answers on")
        return found


@pytest.fixture
def admin(server: Server) -> Admin:
    return Admin(server)


def quiet(server: Server) -> list[str]:
    """Return the master's descriptors once nothing comes or goes."""
    server.wait_for_workers(2)
    wait_for(lambda: len(server.family()) == 4, "master, mold, admin process and two workers")
    return descriptors(server.pid)


@pytest.mark.measured
def test_it_answers_before_the_pools_boot_while_all_are_stuck_and_until_the_end(
    server: Server, admin: Admin
) -> None:
    server.configure(CONFIG % "127.0.0.1:0" + "timeouts: {shutdown_delay: 1s, graceful: 20s}\n", CLOSED)
    server.write("closed", "")
    server.start()
    server.wait_for_log("answers on")
    wait_for(lambda: admin.get("/readyz") == (503, "booting: no worker of myapp serves\n"), "readyz: booting")
    assert admin.get("/healthz") == (200, "ok\n")
    assert admin.status()["state"] == "booting"
    server.write("open", "")
    server.wait_for_log("serving on ")
    wait_for(lambda: admin.get("/readyz") == (200, "ok\n"), "readyz")
    stuck = [server.connect() for _ in range(2)]
    for connection in stuck:
        connection.request("GET", "/stuck?secret=1")
    shown = wait_for(
        lambda: (
            len(r := [w["current"] for w in admin.status()["pools"]["myapp"]["workers"] if w["current"]]) == 2
            and r
        ),
        "two requests in the status",
    )
    assert {each["target"] for each in shown} == {"/stuck"}
    assert admin.get("/readyz") == (200, "ok\n")
    family = server.family()
    server.send_signal(signal.SIGTERM)
    wait_for(lambda: admin.get("/readyz")[0] == 503, "readyz: not in the shutdown delay")
    assert admin.get("/healthz") == (200, "ok\n")
    server.wait_for_workers(2)
    wait_for(lambda: "draining" in {w["state"] for w in admin.status()["pools"]["myapp"]["workers"]}, "drain")
    assert admin.status()["state"] == "draining"
    server.write("go", "")
    for connection in stuck:
        assert connection.getresponse().status == 200
        connection.close()
    assert server.wait() == 0
    wait_for(lambda: not any(map(is_alive, family)), "the end of all")
    gone = [server.log.index("expected: the server stops"), server.log.rindex("is gone: exit status 0")]
    assert gone == sorted(gone)


def test_through_reloads_it_stays_as_long_as_its_config_does(server: Server, admin: Admin) -> None:
    server.serve(CONFIG % "127.0.0.1:0", CLOSED)
    pid, port, before = admin.only(), admin.port, quiet(server)
    for _ in range(3):
        assert server.get()[0] == 200
    assert server.reload() == "reloaded"
    assert quiet(server) == before
    admin.shows((2, 1), lambda status: (status["generation"], status["reloads_total"]["ok"]))
    assert admin.pid == pid
    status = admin.status()
    assert status["pools"]["myapp"]["requests"] == 3
    assert {worker["requests"] for worker in status["pools"]["myapp"]["workers"]} == {
        0
    }  # of the new generation

    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.configure(CONFIG % f"127.0.0.1:{taken.getsockname()[1]}")
        assert server.reload() == "failed"
    admin.shows("failed", lambda status: status["last_reload"]["result"])
    assert admin.pid == pid

    server.configure(CONFIG % "unix:admin.sock", "broken = 1 / 0\n")
    assert server.reload() == "failed"
    wait_for(lambda: not (server.folder / "admin.sock").exists(), "the end of its socket")
    assert admin.only() == pid
    assert admin.get("/readyz")[0] == 200

    server.configure(CONFIG % "unix:admin.sock", CLOSED)
    assert server.reload() == "reloaded"
    admin.only(but=pid)
    moved = Admin(server, server.folder / "admin.sock")
    moved.shows({"ok": 2, "failed": 2}, lambda status: status["reloads_total"])
    assert (server.folder / "admin.sock").stat().st_mode & 0o777 == 0o660
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    assert [fd for fd in quiet(server) if "socket" not in fd] == [fd for fd in before if "socket" not in fd]

    server.configure((CONFIG % "x").replace("admin: {listen: x}\n", ""), CLOSED)
    assert server.reload() == "reloaded"
    wait_for(lambda: server.titled("^prefork: admin ") == [], "its end")
    assert not (server.folder / "admin.sock").exists()
    assert server.stop() == 0


@pytest.mark.measured
def test_it_may_die_and_hang_and_goes_with_the_master(server: Server, admin: Admin) -> None:
    server.serve((CONFIG % "127.0.0.1:0").replace("access: off", "access: ./access.log"), CLOSED)
    pid, before = admin.only(), quiet(server)
    os.kill(pid, signal.SIGKILL)
    pid = admin.only(but=pid)
    assert quiet(server) == before
    assert admin.get("/readyz") == (200, "ok\n")
    os.kill(pid, signal.SIGTERM)  # asks for a successor
    pid = admin.only(but=pid)
    os.kill(pid, signal.SIGSTOP)
    mark = server.mark()
    for _ in range(400):  # orders until its channel is full
        server.send_signal(signal.SIGUSR1)
        server.wait_for_log("reopened", mark)
        mark = server.mark()
        if "reads no orders" in server.log:
            break
    else:
        raise AssertionError("its channel takes 400 orders")
    pid = admin.only(but=pid)
    assert quiet(server) == before
    assert admin.get("/readyz") == (200, "ok\n")
    family = server.family()
    server.send_signal(signal.SIGKILL)
    server.wait()
    wait_for(lambda: not any(map(is_alive, family)), "the end of all")


def test_an_upgrade_replaces_it_and_its_counters_go_on(
    server: Server,
    admin: Admin,
    versions: Versions,  # noqa: F811
) -> None:
    versions.make("2.0")
    broken = "UNAVAILABLE, Answer, Environ, Source"
    versions.make("3.0", {"admin/health.py": (broken, f"{broken}, MISSING")})
    server.serve(CONFIG % "127.0.0.1:0", APP, env=versions.env)
    pid, before = admin.only(), quiet(server)
    for _ in range(3):
        server.get()
    versions.install("2.0")
    assert "serves" in upgrade(server)
    pid = admin.only(but=pid)
    wait_for(lambda: quiet(server) == before, "the same descriptors as before")
    admin.shows(("2.0", "ok"), lambda status: (status["version"], status["last_upgrade"]["result"]))
    assert admin.status()["pools"]["myapp"]["requests"] == 3
    # One that does not get ready takes no place: the old one answers, and a reload that needs a new one fails.
    versions.install("3.0")
    assert "serves" in upgrade(server)
    server.wait_for_log("admin: it cannot get ready: ImportError")
    admin.shows("3.0", lambda status: status["version"])
    server.configure(CONFIG % "[127.0.0.1:0, unix:admin.sock]", APP)
    assert server.reload() == "failed"
    assert "the admin process: it cannot get ready: ImportError" in server.log
    assert admin.get("/readyz") == (200, "ok\n")
    os.kill(pid, signal.SIGKILL)
    assert server.get() == (200, "3.0")
    assert server.stop() == 0


def test_who_may_see_what(server: Server, admin: Admin) -> None:
    config = (CONFIG % "[127.0.0.1:0, unix:admin.sock]").replace("]}", "], token: '${file:token}'}")
    server.write("token", TOKEN + "\n")
    server.serve(config)
    admin.only()
    for place in (admin, Admin(server, server.folder / "admin.sock")):
        assert place.get("/readyz", **{"X-Forwarded-For": "10.0.0.1"}) == (200, "ok\n")
        assert place.get("/status")[0] == 401
        assert place.get("/status?token=" + TOKEN)[0] == 401
        code, body = place.get("/status", Authorization=f"Bearer {TOKEN}")
        assert (code, json.loads(body)["name"]) == (200, "myapp")
        assert place.get("/status", "HEAD", Authorization=f"Bearer {TOKEN}") == (200, "")
        assert place.get("/status", "POST", Authorization=f"Bearer {TOKEN}")[0] == 405
    check = subprocess.run(
        [sys.executable, "-m", "prefork", "check", "--no-app", "-c", "app.yaml"],
        cwd=server.folder, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert "token: ***" in check.stdout.replace('"', "")
    assert TOKEN not in check.stdout
    # Without a token: who is on this machine, and says so.
    server.configure(CONFIG % "[127.0.0.1:0, unix:admin.sock]")
    assert server.reload() == "reloaded"
    admin.only()
    wait_for(lambda: admin.get("/status")[0] == 200, "the new rule")
    assert admin.get("/status", **{"X-Forwarded-For": "127.0.0.1"})[0] == 403
    assert admin.get("/status", Host="rebound.example")[0] == 403
    assert Admin(server, server.folder / "admin.sock").get("/status", Host="x")[0] == 200


def test_clients_that_never_read_keep_nobody_waiting(server: Server, admin: Admin) -> None:
    server.serve(CONFIG % "127.0.0.1:0")
    admin.only()
    request = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
    deaf = []
    for _ in range(8):  # more than it has threads
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", admin.port))
        sock.setblocking(False)
        try:
            sock.send(request)
        except BlockingIOError:
            pass
        deaf.append(sock)
    for _ in range(20):
        assert admin.get("/healthz")[0] == 200
        assert admin.status()["ready"]
    for sock in deaf:
        sock.close()


def test_as_root_it_gives_up_its_rights_and_has_the_groups_of_all_pools(public_server: Server) -> None:
    server, nobody = public_server, pwd.getpwnam("nobody")
    server.serve(
        """
        name: myapp
        admin: {listen: 127.0.0.1:0}
        control: off
        workers: 1
        pools:
          a: {app: "myapp:app", listen: 127.0.0.1:0, user: nobody}
          b: {app: "myapp:app", listen: 127.0.0.1:0, user: nobody, group: '12345'}
        """
    )
    pid = Admin(server).only()
    lines = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert set(lines["Uid"].split()) == {str(nobody.pw_uid)}
    assert {str(nobody.pw_gid), "12345"} <= set(lines["Groups"].split())
    assert Admin(server).get("/readyz")[0] == 200
