"""Hooks of requests, of TLS, and those about the server, which run in helper processes and can harm nobody."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
from typing import Any

import pytest
from harness import PATIENCE_S, Server, is_alive, wait_for
from pki import Pki

CONFIG = """
app: myapp:app
name: shop
listen: 127.0.0.1:0
workers: 2
"""
# Each hook prints its process and its argument, without what is no plain value.
APP = """
import dataclasses, os, signal, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/boom":
        raise LookupError("nothing there")
    start_response("201 Created", [])
    return [environ.get("shop.trace", "").encode()]

def note(argument):
    told = {f.name: getattr(argument, f.name) for f in dataclasses.fields(argument)}
    environ = told.pop("environ", {})
    told["path"] = environ.get("PATH_INFO")
    print("NOTED", type(argument).__name__, os.getpid(), told, flush=True)

def trace(argument):
    argument.environ["shop.trace"] = "trace-7"

def broken(argument):
    raise LookupError("no broker")

def die(argument):
    os.kill(os.getpid(), signal.SIGSEGV)

def hang(argument):
    print("HANGS", type(argument).__name__, flush=True)
    time.sleep(3600)
"""


def noted(server: Server, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Return what one hook printed: its processes and arguments."""
    found = re.findall(rf"NOTED {kind} (\d+) (.*)", server.log)
    return [(int(pid), eval(told)) for pid, told in found]


def test_the_hooks_of_a_request_know_it_and_its_outcome(server: Server) -> None:
    hooks = "{request_started: [myapp:broken, myapp:trace, myapp:note], request_finished: [myapp:broken, myapp:note]}"
    server.serve(CONFIG.replace("workers: 2", "workers: 1") + f"hooks: {hooks}", APP)
    [worker] = server.wait_for_workers(1)
    assert server.get("/fine") == (201, "trace-7")
    assert server.get("/boom")[0] == 500
    wait_for(lambda: len(noted(server, "RequestFinished")) == 2, "the hooks of both requests")
    identity = {"pool": "shop", "generation": 1, "slot": "shop.0", "pid": worker}
    assert noted(server, "RequestStarted") == [
        (worker, {**identity, "path": "/fine"}),
        (worker, {**identity, "path": "/boom"}),
    ]
    finished = noted(server, "RequestFinished")
    assert all(0 < told.pop("elapsed_s") < PATIENCE_S for _, told in finished)
    assert finished == [
        (worker, {**identity, "path": "/fine", "status": 201, "sent_bytes": 7}),
        (worker, {**identity, "path": "/boom", "status": 500, "sent_bytes": 26}),
    ]
    for name in ("request_started", "request_finished"):
        assert server.log.count(f"the hook {name} (myapp:broken) raised LookupError") == 2


@pytest.mark.parametrize("preload", ["true", "false"])
def test_hooks_about_the_server_run_in_helpers_one_after_the_other(server: Server, preload: str) -> None:
    hooks = ", ".join(f"{name}: myapp:note" for name in ("server_ready", "worker_gone", "server_exit"))
    server.serve(CONFIG + f"preload: {preload}\nhooks: {{{hooks}}}", APP)
    server.wait_for_log("NOTED ServerReady")
    killed, stopped = server.wait_for_workers(2)
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log("NOTED WorkerGone")
    wait_for(lambda: len(server.workers()) == 2, "its successor")
    assert server.reload() == "reloaded"
    wait_for(lambda: len(noted(server, "WorkerGone")) == 3, "the ends of the old generation")
    assert server.stop() == 0

    [(ready_in, ready)] = noted(server, "ServerReady")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", ready.pop("addresses")[0])
    assert ready == {"pool": "shop", "generation": 1, "path": None}
    gone = noted(server, "WorkerGone")
    by_pid = {told["pid"]: told for _, told in gone}
    assert len(by_pid) == len(gone) == 5
    first = by_pid[killed]
    assert (first["reason"], first["expected"], first["signal"], first["generation"]) == (
        "died",
        False,
        "SIGKILL",
        1,
    )
    second = by_pid[stopped]
    assert (second["reason"], second["exit_status"], second["signal"]) == ("retired", 0, None)
    assert sorted(told["reason"] for told in by_pid.values()) == [
        "died",
        "retired",
        "retired",
        "stop",
        "stop",
    ]
    [(exit_in, told)] = noted(server, "ServerExit")
    assert told == {"pool": "shop", "generation": 2, "reason": "stop", "path": None}
    assert server.log.rindex("NOTED WorkerGone") < server.log.index("NOTED ServerExit")
    helpers = {ready_in, exit_in, *(pid for pid, _ in gone)}
    assert len(helpers) == 7
    assert not helpers & {server.pid, *by_pid}
    complaints = [line for line in server.log.splitlines() if re.search(" (error|warning) ", line)]
    assert len(complaints) == 1, complaints
    assert "gone: killed by SIGKILL" in complaints[0]


def test_a_helper_that_hangs_or_dies_harms_nothing_and_the_stop_keeps_its_budget(server: Server) -> None:
    hooks = "server_ready: myapp:die, worker_gone: myapp:broken, server_exit: [myapp:hang, myapp:note]"
    # Unmeasured: two helpers must have ended before the one that hangs takes the rest of the budget.
    server.serve(CONFIG + f"timeouts: {{graceful: 3s}}\nhooks: {{{hooks}}}", APP)
    server.wait_for_log("the hook server_ready: its helper process ended: killed by SIGSEGV")
    assert "in die" in server.log  # the stack that it left
    assert server.get()[0] == 201
    assert server.stop() == 0  # and nobody is left
    assert server.log.count("the hook worker_gone (myapp:broken) raised LookupError") == 2
    assert "HANGS ServerExit" in server.log
    assert "the hook server_exit: its helper process ended: killed by SIGKILL" in server.log
    assert "NOTED" not in server.log


def test_nobody_waits_for_a_helper_and_it_does_not_outlive_the_master(server: Server) -> None:
    server.serve(CONFIG + "hooks: {server_ready: myapp:hang, worker_gone: myapp:note}", APP)
    server.wait_for_log("HANGS ServerReady")
    [helper] = wait_for(lambda: server.titled("^prefork: helper shop server_ready gen 1"), "its title")
    assert not [path for path in os.listdir(f"/proc/{helper}/fd") if _is_listener(helper, path)]
    assert server.reload() == "reloaded"
    assert server.get()[0] == 201
    assert not noted(server, "WorkerGone")  # those wait for the first one
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(helper), "the end of the helper")


def _is_listener(pid: int, fd: str) -> bool:
    name = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
    if name is None:
        return False
    with open("/proc/net/tcp") as table:
        return any(line.split()[9] == name[1] for line in table)


def test_ssl_context_may_be_changed_and_must_not_fail(server: Server, pki: Pki) -> None:
    for file in pki.folder.iterdir():
        shutil.copy(file, server.folder)
    app = (
        APP
        + """
import ssl
def strict(argument):
    argument.context.minimum_version = ssl.TLSVersion.TLSv1_3
    print("STRICT", argument.addresses, flush=True)
"""
    )
    config = CONFIG + "tls: {cert: server.pem, key: server.key}\n"
    server.serve(config + "hooks: {ssl_context: myapp:strict}", app)
    old = ssl.create_default_context(cafile=str(pki.folder / "ca.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as plain,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(plain, server_hostname="localhost")
    assert server.log.count(f"STRICT ('127.0.0.1:{server.port}',)") == 2
    server.configure(config + "hooks: {ssl_context: myapp:broken}", app)
    assert server.reload() == "failed"
    assert "the hook ssl_context (myapp:broken) raised LookupError" in server.log
