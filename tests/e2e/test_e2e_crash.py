"""What dies, by SIGKILL or by its application, is replaced, and takes nothing with it but what it ran."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from clients import GATE, Crowd, Pending, hold, release, zombies_of
from harness import Server, is_alive, wait_for, works

from prefork.master.cgroup import oom_file

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def resident_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def replaced(server: Server, dead: int, count: int = 2) -> list[int]:
    """Wait until the dead worker has a successor that is ready; return the workers."""
    wait_for(lambda: not is_alive(dead) and len(server.workers()) == count, "a successor")
    for pid in server.workers():
        server.wait_for_log(rf"pid {pid}: ready")
    return server.workers()


# Workers


def test_a_killed_worker_loses_only_what_it_ran(server: Server) -> None:
    server.serve(CONFIG, GATE)
    pending, victim = hold(server)
    (survivor,) = set(server.wait_for_workers(2)) - {victim}
    crowd = Crowd(("127.0.0.1", server.port), 4)
    crowd.wait_until_served(20)
    os.kill(victim, signal.SIGKILL)
    assert pending.outcome() == "cut"
    replaced(server, victim)
    crowd.wait_until_served(crowd.outcomes["200"] + 20)
    assert set(crowd.leave()) == {"200"}
    assert is_alive(survivor)
    assert server.stop() == 0


@pytest.mark.measured
def test_each_death_has_one_line_that_tells_all(server: Server) -> None:
    server.serve(
        CONFIG.replace("workers: 2", "workers: 1"),
        """
        import os

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/exit":
                os._exit(7)
            start_response("200 OK", [])
            return [b"x"]
        """,
    )
    for _ in range(4):  # the last one may be answered and not yet counted
        server.get()
    (first,) = server.workers()
    os.kill(first, signal.SIGKILL)
    (second,) = replaced(server, first, 1)
    assert Pending(server, "/exit").outcome() == "cut"
    (third,) = replaced(server, second, 1)
    server.reload()
    wait_for(lambda: not is_alive(third), "the end of the replaced worker")
    (fourth,) = server.wait_for_workers(1)
    assert server.stop() == 0
    lines = re.findall(r"myapp\.0 gen .* gone: .*", server.log)
    expected = [
        rf"gen 1 pid {first}: gone: killed by SIGKILL after \d+\.\d s and [34] requests, not expected$",
        rf"gen 1 pid {second}: gone: exit status 7 after \d+\.\d s and 0 requests, not expected$",
        rf"gen 1 pid {third}: gone: exit status 0 after \d+\.\d s and 0 requests, expected: replaced$",
        rf"gen 2 pid {fourth}: gone: exit status 0 after \d+\.\d s and 0 requests, expected: the server stops$",
    ]
    assert len(lines) == len(expected)
    for pattern, line in zip(expected, lines, strict=True):
        assert re.search(pattern, line)


def test_the_first_respawn_is_at_once_then_the_slot_backs_off(server: Server) -> None:
    server.serve(CONFIG)
    server.wait_for_workers(2)
    (victim,) = server.workers(r"myapp\.0 ")
    (other,) = server.workers(r"myapp\.1 ")
    for _ in range(4):
        os.kill(victim, signal.SIGKILL)
        replaced(server, victim)
        (victim,) = server.workers(r"myapp\.0 ")
    found = re.findall(r"(\S+): failure (\d) in a row, next worker in (\S+) s", server.log)
    assert [(slot, failures) for slot, failures, _ in found] == [("myapp.0", n) for n in "234"]
    delays_s = [float(delay) for *_, delay in found]
    for delay_s, longest_s in zip(delays_s, (0.5, 1, 2), strict=True):
        assert 0.7 * longest_s <= delay_s <= longest_s
    os.kill(other, signal.SIGKILL)  # a slot of its own
    replaced(server, other)
    assert "myapp.1: failure" not in server.log


def test_a_pool_that_crash_loops_is_not_noticed_by_another(server: Server) -> None:
    server.write(
        "bad.py",
        """
        import os
        def app(environ, start_response):
            pass
        def ready(argument):
            if os.path.exists("curse"):
                os._exit(3)
        """,
    )
    server.serve(
        """
        log: {access: off}
        pools:
          good: {app: 'myapp:app', listen: '127.0.0.1:0', workers: 2}
          bad: {app: 'bad:app', listen: 'unix:bad.sock', workers: 2, hooks: {worker_ready: 'bad:ready'}}
        """
    )
    good, bad = server.workers("good"), server.workers("bad")
    server.write("curse", "")
    crowd = Crowd(("127.0.0.1", server.port), 2)
    for pid in bad:
        os.kill(pid, signal.SIGKILL)
    server.wait_for_log(r"bad\.\d: failure 4 in a row")
    assert set(crowd.leave()) == {"200"}
    assert server.workers("good") == good
    (server.folder / "curse").unlink()
    server.wait_for_workers(2, "bad")
    assert server.stop() == 0


def test_two_hundred_killed_workers_leave_nothing_in_the_master(server: Server) -> None:
    server.serve(CONFIG.replace("workers: 2", "workers: 50"))
    sizes: list[tuple[int, int]] = []
    everyone: set[int] = set()
    for _ in range(4):
        victims = server.wait_for_workers(50)
        everyone.update(victims)
        for pid in victims:
            server.wait_for_log(rf"pid {pid}: ready")
        sizes.append((len(os.listdir(f"/proc/{server.pid}/fd")), resident_kib(server.pid)))
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda victims=victims: not set(victims) & set(server.workers()), "their deaths")
    server.wait_for_workers(50)
    wait_for(lambda: server.log.count("gone: killed by SIGKILL") == 200, "200 obituaries")
    assert len(everyone) == 200
    assert not zombies_of(server.pid)
    descriptors, kib = len(os.listdir(f"/proc/{server.pid}/fd")), resident_kib(server.pid)
    assert descriptors <= sizes[0][0]
    assert kib < sizes[1][1] + 1024
    assert server.get() == (200, "hello")
    assert server.stop() == 0


@pytest.mark.parametrize("when", ["before its hello", "after its hello"])
def test_a_worker_that_dies_at_birth_stays_in_the_books(server: Server, when: str) -> None:
    server.serve(
        CONFIG + "hooks: {after_fork: 'myapp:after_fork'}\n",
        """
        import os, signal

        forks = 0

        def die(name):
            if os.path.exists(name):
                os.kill(os.getpid(), signal.SIGKILL)

        def at_fork():
            global forks
            forks += 1
            if forks == 2:  # 1 is the intermediate
                die("before its hello")

        os.register_at_fork(after_in_child=at_fork)

        def after_fork(worker):
            die("after its hello")

        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"hello"]
        """,
    )
    victim, other = server.wait_for_workers(2)
    (server.folder / when).touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log(r"failure 3 in a row")
    assert server.workers() == [other]
    assert server.get() == (200, "hello")
    (server.folder / when).unlink()
    replaced(server, victim)
    assert not zombies_of(server.pid)
    if when == "before its hello":
        assert re.search(r"myapp\.\d gen 1: gone: .* not expected: it could not be forked", server.log)
    else:
        assert re.search(r"myapp\.\d gen 1 pid \d+: gone: killed by SIGKILL after .* 0 requests", server.log)
    assert server.stop() == 0


@pytest.mark.measured
def test_a_kill_by_the_kernel_for_lack_of_memory_is_told_as_such(server: Server) -> None:
    """The kernel's counter is played by a file, which only this server sees in its place."""
    counter = server.write("counter", "oom_kill 5\n")
    covered = ("unshare", "--mount", "sh", "-c", f'mount --bind {counter} {oom_file()} && exec "$@"', "sh")
    if not works(*covered, "true"):
        pytest.skip("needs root, unshare, and a control group that tells")
    server.serve(CONFIG, prefix=covered)

    def kill(pid: int, kills_so_far: int) -> None:
        counter.write_text(f"oom_kill {kills_so_far}\n")
        os.kill(pid, signal.SIGKILL)

    first, second = server.wait_for_workers(2)
    kill(first, 6)
    server.wait_for_log(rf"pid {first}: gone: killed by SIGKILL .* not expected: killed by the kernel .*OOM")
    kill(second, 6)
    server.wait_for_log(rf"pid {second}: gone: killed by SIGKILL after .*, not expected\n")
    (mold,) = server.molds()
    kill(mold, 7)
    server.wait_for_log(rf"the mold died: killed by SIGKILL by the kernel .*OOM.* \(pid {mold}\)")
    server.wait_for_log("mold gen 1: loaded the application", server.log.index("the mold died"))
    assert server.stop() == 0


# Molds


@pytest.mark.measured
def test_a_killed_mold_is_loaded_again_from_disk_and_nobody_notices(server: Server) -> None:
    server.serve(CONFIG)
    workers = server.wait_for_workers(2)
    (mold,) = server.molds()
    crowd = Crowd(("127.0.0.1", server.port), 4)
    crowd.wait_until_served(20)
    mark = server.mark()
    server.write(
        "myapp.py",
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'new']\n",
    )
    os.kill(mold, signal.SIGKILL)
    server.wait_for_log("its workers serve on, but the mold died: killed by SIGKILL", mark)
    server.wait_for_log("mold gen 1: loaded the application", mark)
    crowd.wait_until_served(crowd.outcomes["200"] + 20)
    assert set(crowd.leave()) == {"200"}
    assert server.workers() == workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(workers) & set(server.workers()), "their deaths")
    server.wait_for_workers(2, "gen 1")
    assert server.get() == (200, "new")
    assert server.stop() == 0


def test_a_mold_that_cannot_load_again_is_tried_until_it_can(server: Server) -> None:
    server.serve(CONFIG)
    workers = server.wait_for_workers(2)
    good = (server.folder / "myapp.py").read_text()
    server.write("myapp.py", "raise RuntimeError('broken meanwhile')")
    os.kill(server.molds()[0], signal.SIGKILL)
    server.wait_for_log("its workers serve on, but the application cannot be loaded")
    server.wait_for_log("RuntimeError: broken meanwhile")
    for number in ("0.0", r"0\.[345]", r"(0\.[789]|1\.0)"):  # the waits grow
        server.wait_for_log(rf"loads the application again from disk in {number} s")
    assert server.workers() == workers
    assert server.get() == (200, "hello")
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: server.workers() == [workers[1]], "the death of a worker")
    assert server.get() == (200, "hello")
    server.write("myapp.py", good)
    replaced(server, workers[0])
    assert server.stop() == 0


@pytest.mark.measured
def test_a_mold_that_dies_again_while_it_loads_says_so_each_time(server: Server) -> None:
    server.serve(CONFIG)
    server.wait_for_workers(2)
    server.write("myapp.py", "import os; os._exit(9)")
    os.kill(server.molds()[0], signal.SIGKILL)
    server.wait_for_log(
        r"its workers serve on, but the mold died while it loaded the application: exit status 9"
    )
    assert server.get() == (200, "hello")
    assert server.stop() == 0


# The master


def test_workers_of_a_killed_master_finish_and_leave_and_a_new_one_waits_for_them(server: Server) -> None:
    server.serve(CONFIG.replace(":0", f":{free_port()}"), GATE)
    server.wait_for_workers(2)
    pending, busy = hold(server)
    idle = set(server.family()) - {busy}
    idle_connection = server.connect()  # lands on the idle worker
    idle_connection.request("GET", "/")
    assert idle_connection.getresponse().read()
    server.send_signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    wait_for(lambda: not any(is_alive(pid) for pid in idle), "the end of mold and idle worker")
    assert idle_connection.sock.recv(1) == b""
    idle_connection.close()
    assert is_alive(busy)

    mark = server.mark()
    server.start()
    server.wait_for_log("still in use by pid .*trying again", mark)
    release(server)
    assert pending.outcome() == (200, str(busy))
    wait_for(lambda: not is_alive(busy), "the end of the busy worker")
    server.wait_for_log("serving on", mark)
    assert server.get()[0] == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("unix", "keep", "threads"), [(False, True, 1), (False, False, 4), (True, False, 1), (True, True, 4)]
)
def test_a_master_killed_under_load_loses_nothing_that_ran(
    server: Server, unix: bool, keep: bool, threads: int
) -> None:
    path = str(server.folder / "web.sock")
    config = CONFIG.replace("127.0.0.1:0", f"unix:{path}") if unix else CONFIG
    server.serve(config + f"threads: {threads}\n")
    family = server.family()
    crowd = Crowd(path if unix else ("127.0.0.1", server.port), 8, keep)
    crowd.wait_until_served(100)
    server.send_signal(signal.SIGKILL)
    server.wait()
    outcomes = crowd.wait()
    assert set(outcomes) == {"200", "refused"}
    wait_for(lambda: not any(is_alive(pid) for pid in family), "the end of all")


@pytest.mark.parametrize("preload", ["true", "false"])
def test_who_still_loads_the_application_goes_with_its_master(server: Server, preload: str) -> None:
    server.configure(
        CONFIG + f"preload: {preload}\n",
        "import os, time\nopen(f'loading-{os.getpid()}', 'w')\ntime.sleep(600)",
    )
    server.start()
    wait_for(lambda: len(list(server.folder.glob("loading-*"))) == 1 + (preload == "false"), "the import")
    family = server.family()
    server.send_signal(signal.SIGKILL)
    server.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in family), "the end of who loads")


# What an application does to its own worker

ODD = """
import asyncio, multiprocessing, os, signal, socket, sys, time

def seqpacket():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET:
            return sock

def odd(path):
    if path == "/exit":
        os._exit(7)
    if path == "/close":
        os.closerange(0, 256)
    if path == "/asyncio":
        async def nothing():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, print)
            await asyncio.sleep(0)
        asyncio.run(nothing())
    if path == "/orphans":
        for _ in range(20):
            if os.fork() == 0:
                if os.fork() == 0:
                    time.sleep(0.05)
                os._exit(0)
        for _ in range(20):
            os.wait()
    if path == "/fork":
        pid = os.fork()
        if pid == 0:
            open("forked", "w").write(str(os.getpid()))
            time.sleep(600)
        while not os.path.exists("forked") or not open("forked").read():
            time.sleep(0.01)
    if path == "/fork-exit":
        if os.fork() == 0:
            sys.exit()
        os.wait()
    if path == "/multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join()
    if path == "/junk":
        sock = seqpacket()
        sock.setblocking(True)
        junk = [
            b"junk", b"\\0" * 60000, b"[]", b"{}", b"null", b'{"kind": []}', b'{"kind": "hello"}', b"[" * 30000,
            b'{"kind": "ready"}', b'{"kind": "failed"}', b'{"kind": "failed", "text": "a lie"}', b"1" * 10000,
            b'{"kind": "hello", "protocol": {}}', b"\\xff\\xfe", b'{"kind": "spawn", "slot": -1}', b'"kind"',
        ]
        for packet in junk * 200:
            sock.send(packet)
        for fd in (0, 1, 2):
            socket.send_fds(sock, [b"with a descriptor"], [fd])

def app(environ, start_response):
    odd(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


ODD_PATHS = ["/asyncio", "/junk", "/orphans", "/fork", "/fork-exit", "/multiprocessing", "/close", "/exit"]
WITH_THREADS = ["/fork", "/fork-exit", "/multiprocessing", "/exit"]
"""For the others threads make no difference."""


@pytest.mark.parametrize(
    ("path", "threads"), [*((path, 1) for path in ODD_PATHS), *((path, 2) for path in WITH_THREADS)]
)
def test_no_application_breaks_the_server(server: Server, path: str, threads: int) -> None:
    server.serve(CONFIG + f"threads: {threads}\n", ODD)
    first = server.wait_for_workers(2)
    descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
    outcome = Pending(server, path).outcome()
    if path in ("/close", "/exit"):
        assert outcome == "cut"
        server.wait_for_log(r"gone: .* not expected")
        server.wait_for_workers(2)
    else:
        assert outcome in {(200, str(pid)) for pid in first}
        assert server.wait_for_workers(2) == first
        assert "not expected" not in server.log
        assert "a lie" not in server.log
    for _ in range(5):
        assert server.get()[0] == 200
    wait_for(lambda: not zombies_of(server.pid), "reaping")
    wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= descriptors, "no more descriptors")
    assert server.reload() == "reloaded"
    wait_for(lambda: not any(is_alive(pid) for pid in first), "the end of the old workers")
    ours = server.wait_for_workers(2, "gen 2") + server.molds()
    assert "cannot get ready" not in server.log
    forked = server.folder / "forked"
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    wait_for(lambda: not any(is_alive(pid) for pid in ours), "the end of all")
    if forked.exists():
        child = int(forked.read_text())
        assert is_alive(child)  # it is the application's, and holds nothing of ours:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", server.port))
        os.kill(child, signal.SIGKILL)
