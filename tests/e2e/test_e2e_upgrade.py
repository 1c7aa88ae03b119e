"""An upgrade never hurts: another version of prefork takes over in place, or the one that runs serves on.

Each version is a copy of the package in a folder of its own, to which the link ``current`` leads or does not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Server, children, descriptors, exchange, is_alive, wait_for, works
from load import Load
from pki import Pki

import prefork

PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
log: {access: off}
"""

APP = """
import prefork

def app(environ, start_response):
    body = prefork.__version__.encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ADOPT = "    supervisor, belongings = _supervisor(fd, words)\n"


class Versions:
    """Versions of prefork, of which one is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env = {"PYTHONPATH": str(folder / "current")}

    def make(self, version: str, changes: dict[str, tuple[str, str]] | None = None) -> None:
        """Copy the package; ``changes`` are texts to replace, by file."""
        package = self._folder / version / "prefork"
        source = Path(prefork.__file__).parent
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        named = {"__init__.py": (f'__version__ = "{prefork.__version__}"', f'__version__ = "{version}"')}
        for name, (before, after) in {**named, **(changes or {})}.items():
            text = (package / name).read_text()
            assert before in text, name
            (package / name).write_text(text.replace(before, after, 1))

    def install(self, version: str) -> None:
        link = self._folder / "new"
        link.symlink_to(version)
        link.replace(self._folder / "current")


@pytest.fixture
def versions(server: Server) -> Versions:
    folder = server.folder / "versions"
    folder.mkdir()
    made = Versions(folder)
    made.make("1.0")
    made.install("1.0")
    return made


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 30)


def upgrade(server: Server) -> str:
    """Send USR2 and wait for the outcome: the line that tells it."""
    mark = server.mark()
    server.send_signal(signal.SIGUSR2)
    pattern = r"generation \d+ serves,.*|the upgrade (is refused|failed).*|the reload failed.*"
    return server.wait_for_log(pattern, mark)[0]


def test_from_version_to_version_under_load_nothing_fails_and_no_connection_is_closed(
    server: Server, versions: Versions
) -> None:
    versions.make("2.0")
    config = CONFIG.replace("access: off", "access: ./access.log")
    server.serve(config + "pidfile: server.pid", APP, env=versions.env)
    server.settle()
    before = descriptors(server.pid)
    connection = lambda: connect(server)  # noqa: E731
    with Load(connection, kept=4, fresh=0) as kept, Load(connection, kept=0, fresh=2) as fresh:
        for version in ("2.0", "1.0", "2.0"):
            versions.install(version)
            mark = server.mark()
            assert "serves" in upgrade(server)
            new = server.wait_for_log(r"prefork (\S+) goes on in the place of (\S+);", mark)
            assert new[1] == version != new[2]
            answers = kept.bodies[version] + fresh.bodies[version]
            wait_for(
                lambda version=version, answers=answers: (
                    kept.bodies[version] + fresh.bodies[version] > answers or kept.failures or fresh.failures
                ),
                f"an answer of version {version}",
            )
    assert kept.failures + fresh.failures == []
    assert kept.connections == 4
    assert (server.folder / "server.pid").read_text() == f"{server.pid}\n"
    server.settle()
    assert len(server.workers("gen 4")) == 2
    log = server.folder / "access.log"
    log.rename(server.folder / "old.log")
    server.send_signal(signal.SIGUSR1)
    wait_for(lambda: server.get() and log.exists() and "GET /" in log.read_text(), "a line in the new log")
    wait_for(lambda: descriptors(server.pid) == before, f"no more descriptors than {before}")
    assert server.stop() == 0
    assert "mistake in prefork" not in server.log


REFUSED = {
    "syntax error": ({"master/supervisor.py": ("import os", "import os(")}, r"SyntaxError: "),
    "syntax error in the first stage": ({"first_stage.py": ("def main", "def (main")}, r"SyntaxError: "),
    "missing dependency": ({"cli/run.py": ("from prefork import mold", "import absent")}, "No module named 'absent'"),
    "unknown state": ({"master/state.py": ("FORMAT = 2", "FORMAT = 3")}, "has format 2, and prefork 2.0 knows"),
    "another protocol": ({"channel.py": ("PROTOCOL = 1", "PROTOCOL = 2")}, "restart the server instead"),
    "another scoreboard": ({"scoreboard.py": ("FORMAT = 2", "FORMAT = 3")}, "'scoreboard': 3}: restart the server"),
    "changed schema": ({"config/schema.py": (" server_header:", " banner:")}, "app.yaml:6:1: server_header: unknown"),
}  # fmt: skip


def test_what_cannot_take_over_is_refused(server: Server, versions: Versions) -> None:
    server.serve(CONFIG + "server_header: shop\n", APP, env=versions.env)
    server.settle()
    family, before = server.family(), descriptors(server.pid)
    with Load(lambda: connect(server), kept=1, fresh=1, pause_s=0.01) as load:
        for number, (changes, reason) in enumerate(REFUSED.values()):
            versions.make(f"2.{number}", changes)
            versions.install(f"2.{number}")
            line = upgrade(server)
            assert "the upgrade is refused, prefork 1.0 serves on: " in line
            assert re.search(reason.replace("2.0", f"2.{number}"), line), line
    assert load.failures == []
    assert set(load.bodies) == {"1.0"}
    assert (server.family(), descriptors(server.pid)) == (family, before)
    versions.install("1.0")
    assert server.reload() == "reloaded"


def test_a_check_that_hangs_is_ended(server: Server, versions: Versions) -> None:
    versions.make("1.1", {"master/upgrade.py": ("CHECK_S = 60.0", "CHECK_S = 0.2")})
    versions.install("1.1")
    server.serve(CONFIG, APP, env=versions.env)
    versions.make("2.0", {"cli/resume.py": ("import os\n", "import os, time\ntime.sleep(100)\n")})
    versions.install("2.0")
    assert "its check did not end within 0.2 s" in upgrade(server)
    server.settle()
    assert server.get() == (200, "1.1")


@pytest.mark.parametrize("way_back", [True, False], ids=["old code there", "old code gone"])
def test_after_a_failed_adoption_the_old_code_goes_on(
    server: Server, versions: Versions, way_back: bool
) -> None:
    """It fails when it has closed everything, which the rehearsal did not."""
    fails = ADOPT + '    del supervisor\n    raise RuntimeError("no luck")\n'
    versions.make("2.0", {"cli/resume.py": (ADOPT, fails)})
    server.serve(CONFIG, APP, env=versions.env)
    server.settle()
    family, before = server.family(), descriptors(server.pid)
    if not way_back:
        (server.folder / "versions/1.0/prefork/first_stage.py").unlink()
    with Load(lambda: connect(server), kept=2, fresh=1, pause_s=0.01) as load:
        versions.install("2.0")
        if not way_back:
            server.send_signal(signal.SIGUSR2)
            assert server.wait() == 1
            assert "RuntimeError: no luck" in server.log
            wait_for(lambda: not any(map(is_alive, family)), "the end of the orphans")
            return
        assert "the upgrade failed, prefork 1.0 serves on: RuntimeError: no luck" in upgrade(server)
        assert (server.family(), descriptors(server.pid)) == (family, before)
        versions.install("1.0")
        assert server.reload() == "reloaded"
        assert "serves" in upgrade(server)
    assert load.failures == []
    assert (load.connections - load.done) < load.done
    assert server.stop() == 0


def test_what_happens_during_the_exec_is_not_lost(server: Server, versions: Versions) -> None:
    """The new version is held up while it takes over, and meanwhile a worker dies and signals come."""
    waits = ADOPT + '    import time\n    while not os.path.exists("go"):\n        time.sleep(0.01)\n'
    versions.make("2.0", {"cli/resume.py": (ADOPT, waits)})
    server.serve(CONFIG, APP, env=versions.env)

    def begin() -> int:
        (server.folder / "go").unlink(missing_ok=True)
        mark = server.mark()
        server.send_signal(signal.SIGUSR2)
        server.wait_for_log("makes way", mark)
        return mark

    versions.install("2.0")
    victim = server.workers()[0]
    mark = begin()
    server.send_signal(signal.SIGHUP)
    os.kill(victim, signal.SIGKILL)
    server.write("go", "")
    server.wait_for_log("generation 3 serves", mark)
    assert len(re.findall(r"generation \d serves", server.log)) == 2  # its own reload, and the one asked for
    assert re.search(rf"pid {victim}: .*SIGKILL", server.log)
    server.wait_for_workers(2, "gen 3")

    begin()
    server.send_signal(signal.SIGTERM)
    family = server.family()
    server.write("go", "")
    assert server.wait() == 0
    wait_for(lambda: not any(map(is_alive, family)), f"the end of {family}")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_right_after_usr2(server: Server, versions: Versions, number: int) -> None:
    versions.make("2.0")
    server.serve(CONFIG, APP, env=versions.env)
    versions.install("2.0")
    server.send_signal(signal.SIGUSR2)
    server.send_signal(number)
    if number == signal.SIGTERM:
        assert server.wait() == 0
        return
    server.wait_for_log("goes on in the place of 1.0")
    server.wait_for_log("generation 3 serves")
    assert server.stop() == 0


def test_an_application_that_the_new_version_cannot_serve_keeps_its_old_workers(
    server: Server, versions: Versions
) -> None:
    """The follow-up reload fails: the new master serves on with workers of the old code, and their mold."""
    versions.make("2.0")
    server.serve(CONFIG, APP, env=versions.env)
    family = server.family()
    versions.install("2.0")
    server.write("myapp.py", "import absent\n")
    assert "the reload failed" in upgrade(server)
    wait_for(lambda: server.family() == family, "the end of the new mold")
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: server.family() != family, "the end of a worker")
    server.wait_for_workers(2, "gen 1")
    assert server.get() == (200, "1.0")

    server.write("myapp.py", APP)  # a mold of the old generation is one of the new code
    mark = server.mark()
    [mold] = server.molds("gen 1")
    os.kill(mold, signal.SIGKILL)
    server.wait_for_log(r"mold gen 1: loaded", mark)
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    server.wait_for_answer(200, "2.0")
    server.wait_for_workers(2, "gen 1")
    assert server.reload() == "reloaded"
    assert server.stop() == 0


def test_hooks_about_the_server_go_on(server: Server, versions: Versions) -> None:
    """One is running when the new version takes over, and one comes later; ``server_ready`` is not told twice."""
    server.write(
        "hooked.py",
        """
        import os, time

        def ready(argument):
            while not os.path.exists("go"):
                time.sleep(0.01)
            note("ready")

        def exit(argument):
            note("exit")

        def note(what):
            with open("notes", "a") as file:
                file.write(what + " ")
        """,
    )
    server.serve(
        CONFIG + "hooks: {server_ready: 'hooked:ready', server_exit: 'hooked:exit'}\n", APP, env=versions.env
    )
    [helper] = wait_for(lambda: server.titled("^prefork: helper"), "the helper")
    assert "serves" in upgrade(server)
    assert is_alive(helper)
    notes = server.folder / "notes"
    server.write("go", "")
    wait_for(notes.exists, "the end of the first hook")
    assert server.stop() == 0
    assert notes.read_text() == "ready exit "
    assert "hook-" not in server.log


def test_a_private_key_is_read_again_for_a_new_mold(server: Server, versions: Versions, pki: Pki) -> None:
    """It is in no record, and workers of the adopted generation may have to be forked by a mold of the new code."""
    for name in ("server.pem", "server.key"):
        shutil.copy(pki.path(name), server.folder)
    server.serve(CONFIG + "tls: {cert: server.pem, key: server.key}\n", APP, env=versions.env)
    context = ssl.create_default_context(cafile=pki.path("ca.pem"))

    def ask() -> bytes:
        with context.wrap_socket(connect(server), server_hostname="localhost") as sock:
            return exchange(sock, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    server.write("myapp.py", "import absent\n")
    assert "the reload failed" in upgrade(server)
    assert ask().endswith(b"1.0")
    server.write("myapp.py", APP)
    mark = server.mark()
    for child in [*server.workers("gen 1"), *server.molds("gen 1")]:
        os.kill(child, signal.SIGKILL)
    server.wait_for_log(r"mold gen 1: loaded", mark)
    server.wait_for_workers(2, "gen 1")
    assert ask().endswith(b"1.0")
    assert server.stop() == 0


def test_as_pid_1_with_what_systemd_gives(server: Server, versions: Versions) -> None:
    """A PID namespace, NOTIFY_SOCKET, a watchdog, and a socket that systemd has opened."""
    if not works(*PID_NAMESPACE, "true"):
        pytest.skip("needs unshare, and the permission to make PID namespaces")
    versions.make("2.0")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        systemd.bind(str(server.folder / "notify"))
        systemd.settimeout(30)

        def receive(word: str) -> None:
            while word not in systemd.recv(4096).decode():
                pass

        server.configure("app: myapp:app\nlisten: systemd:web\nworkers: 2\nlog: {access: off}", APP)
        give = f'exec {listener.fileno()}<&{listener.fileno()} 3<&{listener.fileno()}; LISTEN_PID=1 exec "$@"'
        server.start(
            prefix=(*PID_NAMESPACE, "bash", "-c", give, "bash"),
            pass_fds=(listener.fileno(),),
            env={
                **versions.env,
                "NOTIFY_SOCKET": str(server.folder / "notify"),
                "WATCHDOG_USEC": "200000",
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "web",
            },
        )
        receive("READY=1")
        [master] = children(server.pid)
        server.wait_for_log(r"master pid 1: serving on")
        versions.install("2.0")
        with Load(lambda: socket.create_connection(listener.getsockname(), 30), pause_s=0.01) as load:
            os.kill(master, signal.SIGUSR2)
            receive("RELOADING=1")
            receive("READY=1")
            wait_for(lambda: load.bodies["2.0"] or load.failures, "an answer of the new version")
            receive("WATCHDOG=1")
        assert load.failures == []
        assert children(server.pid) == [master]
        os.kill(master, signal.SIGTERM)
        receive("STOPPING=1")
        assert server.wait() == 0
        with socket.create_connection(listener.getsockname(), 30) as waiting:  # it is still systemd's
            assert waiting.fileno() >= 0


def test_the_command_waits_across_the_exec_and_tells_how_it_went(server: Server, versions: Versions) -> None:
    def ask(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "prefork", *arguments, "--control", "ctl"],
            cwd=server.folder,
            env={**os.environ, **versions.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    versions.make("2.0")
    versions.make("3.0", {"master/state.py": ("FORMAT = 2", "FORMAT = 9")})
    versions.make("4.0", {"cli/resume.py": (ADOPT, f"{ADOPT}    assert not fd\n")})
    server.serve(CONFIG + "control: ./ctl\n", APP, env=versions.env)
    versions.install("3.0")
    mark = server.mark()
    status, _, told = ask("upgrade")
    assert (status, "the upgrade is refused, prefork 1.0 serves on" in told) == (1, True), told
    assert "has format 2, and prefork 3.0 knows" in told
    versions.install("2.0")
    assert "needs prefork upgrade: 1.0 runs, 2.0 is installed" in ask("diff")[1]
    status, out, told = ask("upgrade")
    assert status == 0, told
    assert out.startswith("prefork 2.0 has taken over from 1.0; generation 2 serves, "), out
    for line in ("the installed version rehearses", "the installed version takes over"):
        assert line in told, told
    assert server.get() == (200, "2.0")
    assert server.workers("gen 1") == []
    server.write("myapp.py", "import absent\n")
    versions.install("1.0")
    status, _, told = ask("upgrade")
    assert status == 3
    assert "prefork 1.0 has taken over from 2.0; the reload failed, the generation before serves on: " in told
    server.write("myapp.py", APP)
    versions.install("4.0")
    status, _, told = ask("upgrade")
    assert (status, "the upgrade failed, prefork 1.0 serves on" in told) == (1, True), told
    assert "mistake in prefork" not in server.log[mark:]
    assert server.stop() == 0
    assert not (server.folder / "ctl").exists()
