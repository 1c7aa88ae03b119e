"""A reload never hurts: it is rolled out without a failed request, or rolled back without one."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from harness import HELLO, Server, descriptors, wait_for
from load import Load, read_response

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
log: {access: off}
"""

NUMBERED = """
import os
VERSION = "%s"

def app(environ, start_response):
    body = VERSION.encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def connector(server: Server) -> Callable[[], socket.socket]:
    port = server.port
    return lambda: socket.create_connection(("127.0.0.1", port), 30)


@contextmanager
def light_load(server: Server) -> Iterator[Load]:
    """Ask now and then while a test does something, and see that nobody notices."""
    with Load(connector(server), kept=1, fresh=1, pause_s=0.01) as load:
        wait_for(lambda: load.done >= 4, "the first responses")
        yield load
        before = load.done
        wait_for(lambda: load.done >= before + 4 or load.failures, "responses afterwards")
    assert load.failures == []


# Nothing is lost


def hup_under_load(server: Server, times: int) -> Load:
    """Reload ``times`` times, each with new code, under full load."""
    with Load(connector(server), kept=4, fresh=4) as load:
        for number in range(times):
            server.write("myapp.py", NUMBERED % number)
            assert server.reload() == "reloaded"
            new = str(number)
            wait_for(lambda new=new: load.bodies[new] or load.failures, f"an answer of version {number}")
    return load


def test_thirty_reloads_under_load_lose_nothing_and_leak_nothing(server: Server) -> None:
    server.serve(CONFIG + "reload: {batch: 100%}\n", NUMBERED % "first")
    server.reload()
    server.settle()
    before = descriptors(server.pid)
    load = hup_under_load(server, 30)
    assert load.failures == []
    assert load.connections > 30
    server.settle()
    wait_for(lambda: descriptors(server.pid) == before, f"no more descriptors than {before}")
    assert server.stop() == 0


@pytest.mark.parametrize("more", ["", "threads: 2\n", "preload: false\n"])
def test_reloads_in_batches_lose_nothing(server: Server, more: str) -> None:
    server.serve(CONFIG + more, NUMBERED % "first")
    assert hup_under_load(server, 3).failures == []
    assert server.get() == (200, "2")
    assert server.stop() == 0


# Whatever goes wrong, the old generation serves on

HOOKED = CONFIG + "hooks: {after_fork: 'bad:hook'}\n"
FAILURES = {
    "yaml": ({"app.yaml": "app: myapp:app\nlisten: [127.0.0.1:0\nworkers: 2\n"}, r"app\.yaml:\d+:\d+: "),
    "unknown-key": ({"app.yaml": CONFIG + "wrokers: 3\n"}, r"app\.yaml:6:1: .*wrokers.*workers"),
    "no-file": ({"app.yaml": None}, r"app\.yaml: .*[Nn]o such file"),
    "import-error": ({"myapp.py": "import no_such_module\n"}, r"cannot be loaded.*No module named 'no_such"),
    "syntax-error": ({"myapp.py": "def app(:\n"}, r"cannot be loaded.*myapp\.py.*SyntaxError"),
    "no-such-name": ({"myapp.py": "def ap(): pass\n"}, r"cannot be loaded.*\bap\b"),
    "exit-at-import": ({"myapp.py": "import os; os._exit(5)\n"}, r"the mold died while it loaded.*: exit status 5"),
    "hangs-at-import": (
        {"app.yaml": CONFIG + "timeouts: {boot: 1s}\n", "myapp.py": "import time\ntime.sleep(60)\n"},
        r"did not load within timeouts\.boot \(1 s\)",
    ),
    "worker-raises": (
        {"app.yaml": HOOKED, "bad.py": "def hook(info): raise OSError('no db')\n"},
        r"worker myapp\.\d did not get ready.*OSError: no db",
    ),
    "worker-dies": (
        {"app.yaml": HOOKED, "bad.py": "import os\ndef hook(info): os._exit(7)\n"},
        r"worker myapp\.\d did not get ready: exit status 7",
    ),
    "worker-hangs": (
        {
            "app.yaml": CONFIG + "timeouts: {boot: 1s}\nhooks: {after_fork: 'bad:hook'}\n",
            "bad.py": "import time\ndef hook(info): time.sleep(60)\n",
        },
        r"worker myapp\.\d did not get ready within timeouts\.boot \(1 s\)",
    ),
    "no-such-user": ({"app.yaml": CONFIG + "user: no-such-user\n"}, r"no-such-user"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_reload_changes_nothing(server: Server, case: str) -> None:
    files, why = FAILURES[case]
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    mold = server.molds()
    with light_load(server) as load:
        for name, text in files.items():
            if text is None:
                (server.folder / name).unlink()
            else:
                server.write(name, text)
        mark = server.mark()
        assert server.reload() == "failed"
        server.wait_for_log(rf"(?s)the reload failed.*generation 1 serves on: .*{why}", mark)
        wait_for(lambda: server.family() == sorted(mold + workers), "the end of the failed generation")
        assert set(load.bodies) == {"old"}

        server.configure(CONFIG, NUMBERED % "new")
        assert server.reload() == "reloaded"
        wait_for(lambda: load.bodies["new"], "an answer of the new code")
    server.wait_for_answer(200, "new")
    assert server.stop() == 0


def test_an_address_in_use_fails_the_reload(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    with socket.create_server(("127.0.0.1", 0)) as taken, light_load(server):
        port = taken.getsockname()[1]
        two = CONFIG.replace("127.0.0.1:0", f"['127.0.0.1:0', 'unix:new.sock', '127.0.0.1:{port}']")
        server.write("app.yaml", two)
        mark = server.mark()
        assert server.reload() == "failed"
        server.wait_for_log(rf"serves on: cannot listen on 127\.0\.0\.1:{port}: already in use by pid", mark)
        assert not (server.folder / "new.sock").exists()
        assert server.workers() == workers
        taken.close()
        assert server.reload() == "reloaded"
        socket.create_connection(("127.0.0.1", port), 30).close()
    assert server.stop() == 0


TWO_POOLS = """
pools:
  one: {app: myapp:app, listen: "127.0.0.1:0", workers: 2}
  two: {app: other:app, listen: "unix:two.sock", workers: 1%s}
log: {access: off}
"""


@pytest.mark.parametrize(
    ("more", "other", "why"),
    [
        ("", "raise ValueError('broken')", r"two gen 2: .*broken"),
        (", user: no-such-user", NUMBERED % "two", "no-such-user"),
        (", hooks: {after_fork: 'no:hook'}", NUMBERED % "two", r"two gen 2: .*there is no module"),
    ],
    ids=["import-error", "no-such-user", "no-such-hook"],
)
def test_one_failing_pool_of_two_holds_both_back(server: Server, more: str, other: str, why: str) -> None:
    server.write("other.py", NUMBERED % "two")
    server.serve(TWO_POOLS % "", NUMBERED % "old")
    workers = server.wait_for_workers(3)
    family = server.family()
    with light_load(server) as load:
        server.write("other.py", other)
        server.configure(TWO_POOLS % more, NUMBERED % "new")
        mark = server.mark()
        assert server.reload() == "failed"
        server.wait_for_log(rf"(?s)the reload failed.*generation 1 serves on: .*{why}", mark)
        wait_for(lambda: server.family() == family, "the end of the failed generation")
        assert server.workers() == workers
        assert server.get() == (200, "old")

        server.write("other.py", NUMBERED % "two")
        server.configure(TWO_POOLS % "", NUMBERED % "newer")
        assert server.reload() == "reloaded"
        wait_for(lambda: load.bodies["newer"], "the new code")
    assert server.stop() == 0


# One after the other

WAITS_FOR_FILE = """
import os, time
open("importing", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def test_a_reload_during_a_reload_is_done_after_it(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "first")
    with light_load(server):
        server.write("myapp.py", WAITS_FOR_FILE + NUMBERED % "second")
        server.send_signal(signal.SIGHUP)
        wait_for((server.folder / "importing").exists, "the import of the first reload")
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("the reload waits: the server is reloading")
        (server.folder / "go").touch()
        server.wait_for_log("generation 3 serves")
        assert server.log.index("generation 2 serves") < server.log.index("reload to generation 3")
    assert server.stop() == 0


def test_a_reload_that_waits_is_done_though_the_first_fails(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "first")
    server.write("myapp.py", WAITS_FOR_FILE + "raise ValueError")
    server.send_signal(signal.SIGHUP)
    wait_for((server.folder / "importing").exists, "the import of the first reload")
    server.write("myapp.py", NUMBERED % "third")
    server.send_signal(signal.SIGHUP)
    server.wait_for_log("the reload waits")
    (server.folder / "go").touch()
    server.wait_for_log("generation 3 serves")
    server.wait_for_answer(200, "third")
    assert server.stop() == 0


def test_a_reload_while_booting_is_done_after_it(server: Server) -> None:
    server.configure(CONFIG, WAITS_FOR_FILE + NUMBERED % "first")
    server.start()
    wait_for(lambda: server.process is not None and server.molds("gen 1"), "the first mold")
    server.send_signal(signal.SIGHUP)
    server.wait_for_log("the reload waits: the server is booting")
    (server.folder / "go").touch()
    server.wait_for_log("generation 2 serves")
    assert server.stop() == 0


def test_a_reload_while_stopping_is_ignored(server: Server) -> None:
    server.serve(CONFIG, SLOW)
    with start_slow_request(server) as request:
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping gracefully")
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("no reload: the server stops")
        (server.folder / "go").touch()
        assert read_response(request)[:2] == (200, "slow first")
    assert server.wait() == 0
    assert "gen 2" not in server.log


def test_a_stop_during_a_reload_stops(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "first")
    server.configure(
        CONFIG.replace("127.0.0.1:0", "['127.0.0.1:0', 'unix:new.sock']"), "import time; time.sleep(60)"
    )
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: server.molds("gen 2"), "the new mold")
    assert (server.folder / "new.sock").exists()
    assert server.stop(signal.SIGINT) == 0
    assert not (server.folder / "new.sock").exists()


# What is under way

SLOW = """
import os, time
VERSION = "first"

def app(environ, start_response):
    body = VERSION.encode()
    if environ["PATH_INFO"] == "/slow":
        open("running", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        body = b"slow " + body
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def start_slow_request(server: Server) -> socket.socket:
    """Send a request that ends when the file ``go`` exists, and wait until it runs."""
    sock = connector(server)()
    sock.settimeout(30)
    sock.sendall(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
    wait_for((server.folder / "running").exists, "the slow request")
    (server.folder / "running").unlink()
    return sock


def test_a_long_request_of_an_old_worker_ends_whole(server: Server) -> None:
    server.serve(CONFIG + "reload: {batch: 2}\n", SLOW)
    with start_slow_request(server) as request:
        server.write("myapp.py", SLOW.replace("first", "second"))
        assert server.reload() == "reloaded"
        server.wait_for_answer(200, "second")
        server.wait_for_workers(1, "gen 1")
        (server.folder / "go").touch()
        assert read_response(request)[:2] == (200, "slow first")
        server.wait_for_workers(0, "gen 1")
        request.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert read_response(request)[:2] == (200, "second")
    assert server.stop() == 0


def test_a_reload_waits_for_room_and_not_in_vain(server: Server) -> None:
    """No more than ``wanted + batch`` at once: the next new worker waits for the old one with a long request."""
    server.serve(CONFIG, SLOW)
    with start_slow_request(server) as request:
        busy = server.log.count("ready after")
        server.send_signal(signal.SIGHUP)
        server.wait_for_workers(1, "gen 2")
        server.wait_for_workers(3)
        (server.folder / "go").touch()
        assert read_response(request)[:2] == (200, "slow first")
        server.wait_for_log("generation 2 serves")
    assert server.log.count("ready after") == busy + 2
    server.wait_for_workers(0, "gen 1")
    assert server.stop() == 0


# Accidents


def test_the_new_mold_killed_while_it_imports(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    with light_load(server):
        server.write("myapp.py", "import time; time.sleep(60)")
        server.send_signal(signal.SIGHUP)
        [mold] = wait_for(lambda: server.molds("gen 2"), "the new mold")
        os.kill(mold, signal.SIGKILL)
        server.wait_for_log(
            "the reload failed .*generation 1 serves on: .*mold died while it loaded the application: killed by SIGKILL"
        )
        assert server.workers() == workers
        server.write("myapp.py", NUMBERED % "new")
        assert server.reload() == "reloaded"
    server.wait_for_answer(200, "new")
    assert server.stop() == 0


BOOT_WAITS = CONFIG + "hooks: {after_fork: 'gate:after_fork'}\n"
GATE = """
import os, time
def after_fork(info):
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def begin_reload(server: Server) -> None:
    """Have a reload in the state in which the new mold is ready and its first worker boots."""
    server.write("gate.py", GATE)
    server.configure(BOOT_WAITS, NUMBERED % "new")
    server.send_signal(signal.SIGHUP)
    server.wait_for_workers(1, "gen 2")


def test_the_old_mold_killed_during_a_reload(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    with light_load(server):
        begin_reload(server)
        [mold] = server.molds("gen 1")
        os.kill(mold, signal.SIGKILL)
        server.wait_for_log("gen 1: its workers serve on, but the mold died: killed by SIGKILL")
        (server.folder / "go").touch()
        server.wait_for_log("generation 2 serves")
    wait_for(lambda: len(server.family()) == 3, "only the new generation")
    assert server.stop() == 0


def test_the_ready_new_mold_killed_during_a_reload(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    with light_load(server):
        begin_reload(server)
        [mold] = server.molds("gen 2")
        os.kill(mold, signal.SIGKILL)
        server.wait_for_log("the reload failed .*generation 1 serves on: .*killed by SIGKILL")
        assert server.workers("gen 1") == workers
        server.wait_for_workers(2)
        (server.folder / "go").touch()
        assert server.reload() == "reloaded"
    assert server.stop() == 0


def test_an_old_worker_killed_during_a_reload_has_a_successor(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    begin_reload(server)
    workers = server.workers("gen 1")
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: len(server.workers("gen 2")) == 2 or len(server.workers("gen 1")) == 2, "its successor")
    assert server.get() == (200, "old")
    (server.folder / "go").touch()
    server.wait_for_log("generation 2 serves")
    server.wait_for_workers(2, "gen 2")
    server.wait_for_workers(2)
    assert server.stop() == 0


def test_a_new_worker_killed_before_it_is_ready_fails_the_reload(server: Server) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    with light_load(server):
        begin_reload(server)
        os.kill(server.workers("gen 2")[0], signal.SIGKILL)
        server.wait_for_log(r"the reload failed .*did not get ready: killed by SIGKILL")
        wait_for(lambda: server.workers() == workers, "only the old workers")
    assert server.stop() == 0


@pytest.mark.parametrize("spare", [0, 2, 4])
def test_a_master_short_of_descriptors_fails_the_reload_and_lives(server: Server, spare: int) -> None:
    server.serve(CONFIG, NUMBERED % "old")
    workers = server.wait_for_workers(2)
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    with light_load(server):
        few = len(descriptors(server.pid)) + spare
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, hard))
        server.write("myapp.py", NUMBERED % "new")
        assert server.reload() == "failed"
        server.wait_for_log("the reload failed.*generation 1 serves on: .*Too many open files")
        wait_for(lambda: server.workers() == workers, "only the old workers")
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert server.reload() == "reloaded"
    server.wait_for_answer(200, "new")
    assert server.stop() == 0


# What a reload applies


def test_new_values_apply(server: Server) -> None:
    app = """
    import os
    SEEN = os.environ["COLOUR"]
    def app(environ, start_response):
        body = f'{SEEN} {environ["wsgi.multithread"]} {environ["SCRIPT_NAME"]}'.encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """
    server.serve(CONFIG + "env: {COLOUR: red}\n", app)
    assert server.get() == (200, "red False ")
    server.write("app.yaml", CONFIG + "env: {COLOUR: blue}\nthreads: 2\nroot_path: /shop\n")
    assert server.reload() == "reloaded"
    server.wait_for_answer(200, "blue True /shop", "/shop/")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("key", "line"),
    [("name", "name: other"), ("pidfile", "pidfile: pid"), ("log.level", "log: {level: debug}")],
)
def test_what_needs_a_restart_says_so(server: Server, key: str, line: str) -> None:
    server.serve(CONFIG.replace("log: {access: off}\n", ""), HELLO)
    server.write("app.yaml", CONFIG.replace("log: {access: off}\n", "") + line + "\n")
    for _ in range(2):  # it is as true after the first reload
        mark = server.mark()
        assert server.reload() == "reloaded"
        server.wait_for_log(f"{key}: a reload does not apply it, a restart does", mark)
    assert not (server.folder / "pid").exists()
    assert server.stop() == 0
