"""A stop loses nothing, ends in time, and listens to nobody but the master's signals."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable

import pytest
from clients import GATE, Crowd, hold, release
from harness import Server, is_alive, stat_fields, wait_for
from wire_client import Client

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
"""
SLOW = """
import time

def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
HANGS_ON_IMPORT = """
import time
open("importing", "w").close()
time.sleep(600)
"""


def nobody_left(server: Server, family: list[int]) -> None:
    wait_for(lambda: not any(is_alive(pid) for pid in family), f"the end of {family}")


# Graceful


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("keep", [False, True], ids=["new connections", "kept connections"])
def test_no_request_is_lost_by_a_stop_under_load(server: Server, kind: str, keep: bool) -> None:
    path = str(server.folder / "web.sock")
    server.serve(CONFIG if kind == "tcp" else CONFIG.replace("127.0.0.1:0", f"unix:{path}"), SLOW)
    family = server.family()
    crowd = Crowd(("127.0.0.1", server.port) if kind == "tcp" else path, 32, keep)
    crowd.wait_until_served(40)
    server.send_signal(signal.SIGTERM if keep else signal.SIGQUIT)
    outcomes = crowd.wait()
    assert set(outcomes) == {"200", "refused"}
    assert outcomes["refused"] == 32
    assert server.wait() == 0
    nobody_left(server, family)
    assert not os.path.exists(path)


def test_repeated_terms_change_nothing(server: Server) -> None:
    server.serve(CONFIG, GATE)
    pending, pid = hold(server)
    server.send_signal(signal.SIGTERM)
    server.wait_for_log("stopping gracefully")
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        mark = server.mark()
        server.send_signal(number)
        if number == signal.SIGHUP:
            server.wait_for_log("no reload: the server stops", mark)
    server.wait_for_log("stopping gracefully")
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert server.wait() == 0
    assert server.log.count("stopping gracefully") == 1


@pytest.mark.measured
def test_it_serves_on_for_the_shutdown_delay_unless_told_to_hurry(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {shutdown_delay: 20s, graceful: 25s}\nhealth: {ready: /ready}\n")
    server.wait_for_workers(2)
    assert server.get("/ready")[0] == 200
    with Client(("127.0.0.1", server.port)) as kept:
        assert "connection" not in kept.get("/").headers
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping gracefully, serving on for 20 s")
        wait_for(lambda: server.get("/ready")[0] == 503, "readiness to be off")
        assert kept.get("/").headers["connection"] == "close"
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)  # it also heals
    wait_for(lambda: len(set(server.workers()) - {victim}) == 2, "a new worker")
    wait_for(lambda: server.log.count("ready after") == 3, "it to be ready")
    for stopped in server.workers():  # so that the other one answers, old and new
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda pid=stopped: (stat_fields(pid) or "?")[0] == "T", "it to stop")
        with Client(("127.0.0.1", server.port)) as client:
            answer = client.get("/")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        os.kill(stopped, signal.SIGCONT)
    assert server.stop(signal.SIGINT) == 0


def test_the_shutdown_delay_ends_by_itself(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {shutdown_delay: 300ms, graceful: 25s}\n")
    assert server.stop() == 0


# Quick


@pytest.mark.parametrize("first", [None, signal.SIGTERM], ids=["alone", "during a graceful stop"])
def test_int_cuts_what_runs(server: Server, first: int | None) -> None:
    server.serve(CONFIG, GATE)
    pending, pid = hold(server)
    if first:
        server.send_signal(first)
        wait_for(lambda: len(server.workers()) == 1, "the idle worker to leave")
        assert is_alive(pid)
    assert server.stop(signal.SIGINT) == 0
    assert pending.outcome() == "cut"


# While it boots or reloads


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_stop_while_it_boots(server: Server, number: int, preload: str) -> None:
    # nobody is served yet, so that there is nothing to delay
    server.configure(
        CONFIG + f"preload: {preload}\ntimeouts: {{shutdown_delay: 25s, graceful: 60s}}\n", HANGS_ON_IMPORT
    )
    server.start()
    wait_for((server.folder / "importing").exists, "the import")
    assert server.stop(number) == 0
    assert "Traceback" not in server.log
    assert "not expected" not in server.log


def test_a_stop_while_it_waits_for_an_address_leaves_nothing_behind(server: Server) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server.serve(CONFIG.replace(":0", f":{port}") + "pidfile: web.pid\n", GATE)
    pending, busy = hold(server)
    server.family()
    server.send_signal(signal.SIGKILL)
    server.wait()
    mark = server.mark()
    server.start()
    server.wait_for_log(f"still in use by pid {busy} .*trying again", mark)
    server.send_signal(signal.SIGTERM)
    release(server)
    assert pending.outcome() == (200, str(busy))
    assert server.wait() == 0
    assert not (server.folder / "web.pid").exists()


def test_a_stop_during_a_reload(server: Server) -> None:
    server.serve(CONFIG, GATE)
    pending, pid = hold(server)
    server.write("myapp.py", HANGS_ON_IMPORT)
    server.send_signal(signal.SIGHUP)
    wait_for((server.folder / "importing").exists, "the import")
    family = server.family()
    server.send_signal(signal.SIGTERM)
    server.wait_for_log("stopping gracefully")
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert server.wait() == 0
    nobody_left(server, family)
    assert "Traceback" not in server.log


# The ladder


def test_a_request_that_outlasts_the_stop_is_ended_with_its_stack_in_the_log(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {graceful: 500ms}\n", GATE)
    pending, pid = hold(server)
    assert server.stop() == 0
    assert pending.outcome() == "cut"
    assert re.search(r'myapp\.py", line \d+ in app', server.log)
    assert re.search(
        rf"pid {pid}: gone: killed by SIGABRT .*, not expected: .*timeouts\.graceful", server.log
    )


def test_who_does_not_die_of_sigabrt_is_killed(server: Server) -> None:
    server.serve(CONFIG + "timeouts: {graceful: 500ms}\n")
    victim = server.wait_for_workers(2)[0]
    os.kill(victim, signal.SIGSTOP)
    assert server.stop() == 0
    assert re.search(rf"pid {victim}: gone: killed by SIGKILL .*, not expected", server.log)


# Signals to the whole process group, and suspended processes


@pytest.mark.measured
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_of_the_whole_group_is_a_stop_of_the_master(server: Server, number: int) -> None:
    server.serve(CONFIG, GATE)
    family = server.family()
    pending, pid = hold(server)
    os.killpg(server.pid, number)
    server.wait_for_log("stopping gracefully")
    wait_for(lambda: len(server.workers()) == 1, "the idle worker to leave")
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert server.wait() == 0
    nobody_left(server, family)
    assert "not expected" not in server.log


def test_an_interrupt_of_the_whole_group_is_one_of_the_master(server: Server) -> None:
    server.serve(CONFIG)
    family = server.family()
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    nobody_left(server, family)
    assert "not expected" not in server.log
    assert "Traceback" not in server.log


def test_a_hangup_of_the_whole_group_is_a_reload(server: Server) -> None:
    server.serve(CONFIG + "reload: {batch: 100%}\n", GATE)
    pending, pid = hold(server)
    mark = server.mark()
    os.killpg(server.pid, signal.SIGHUP)
    server.wait_for_log("generation 2 serves", mark)
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert server.stop() == 0
    assert "not expected" not in server.log


@pytest.mark.measured
def test_other_signals_to_the_whole_group_harm_nobody(server: Server) -> None:
    server.serve(CONFIG)
    workers = server.wait_for_workers(2)
    for number in (signal.SIGWINCH, signal.SIGUSR1):
        os.killpg(server.pid, number)
    server.wait_for_log("reopened 0 log files")
    assert server.get() == (200, "hello")
    assert server.workers() == workers
    os.killpg(server.pid, signal.SIGUSR2)
    server.wait_for_log("generation 2 serves")
    assert server.get() == (200, "hello")
    assert server.stop() == 0


def test_a_worker_that_gets_term_is_replaced_before_it_goes(server: Server) -> None:
    server.serve(CONFIG, GATE)
    pending, pid = hold(server)
    os.kill(pid, signal.SIGTERM)
    assert is_alive(pid)  # it asks to be replaced when its request has ended
    release(server)
    assert pending.outcome() == (200, str(pid))
    wait_for(lambda: not is_alive(pid), "its end")
    server.wait_for_log(rf"pid {pid}: gone: exit status 0 .*, expected: asked to be replaced by SIGTERM")
    server.wait_for_workers(2)
    assert server.stop() == 0


@pytest.mark.parametrize(("suspend", "request_s"), [(os.killpg, 2), (os.kill, 60)], ids=["all", "the master"])
def test_who_is_suspended_kills_nobody_on_waking(
    server: Server, suspend: Callable[[int, int], None], request_s: int
) -> None:
    server.serve(
        CONFIG
        + f"timeouts: {{boot: 1s, slow: 500ms, request: {request_s}s, graceful: 1s, keep_alive: 1s}}\n",
        GATE,
    )
    workers = server.wait_for_workers(2)
    wait_for(lambda: server.log.count(": ready after") == 2, "both to be ready")
    pending, pid = hold(server)
    server.wait_for_log("is slow")
    suspend(server.pid, signal.SIGSTOP)
    woken_at = time.monotonic() + 4.5
    wait_for(lambda: time.monotonic() > woken_at, "the suspension to outlast every timeout")
    suspend(server.pid, signal.SIGCONT)
    server.wait_for_log("the master did not run for")
    release(server)
    assert pending.outcome() == (200, str(pid))
    assert server.workers() == workers
    assert "gone" not in server.log
    assert server.stop() == 0


def test_a_suspended_worker_hinders_nobody(server: Server) -> None:
    server.serve(CONFIG, GATE)
    first, second = server.wait_for_workers(2)
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: (stat_fields(first) or "?")[0] == "T", "it to stop")
    for _ in range(20):
        assert server.get() == (200, str(second))
    os.kill(first, signal.SIGCONT)
    assert server.stop() == 0


def test_the_port_is_free_when_it_has_stopped(server: Server) -> None:
    server.serve(CONFIG)
    port = server.port
    assert server.stop() == 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
