"""Load an application in a child process, to see whether it can be: nothing of it stays in the command."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import time
from dataclasses import dataclass

from prefork import environment
from prefork.application import load_application
from prefork.config import Pool
from prefork.errors import ExitStatus, PreforkError
from prefork.hooks import Hooks
from prefork.leftovers import leftovers
from prefork.process import Process, reap, spawn

# What a child that is out of time has for writing its stack, before it is killed.
_STACK_S = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended: ``error`` is empty when the application and its hooks loaded."""

    status: int
    error: str = ""
    leftovers: tuple[str, ...] = ()
    took_s: float = 0.0


def try_loading(pool: Pool) -> Outcome:
    """Load the pool's application and hooks in a child, in their surroundings and within ``timeouts.boot``.

    The child keeps the privileges of the command.
    """
    began = time.monotonic()
    reader, writer = os.pipe()
    pid = spawn(lambda: _child(pool, writer))
    os.close(writer)
    child = Process(pid)
    try:
        told, in_time = _read_line(reader, pool.timeouts.boot)
        if not in_time:
            child.signal(signal.SIGABRT)
            _read_line(reader, _STACK_S)
    finally:
        child.signal(signal.SIGKILL)
        child.close()
        ended = reap(pid)
        os.close(reader)
    took_s = time.monotonic() - began
    if told.endswith(b"\n"):
        answer = json.loads(told)
        return Outcome(answer["status"], answer["error"], tuple(answer["leftovers"]), took_s)
    if not in_time:
        why = f"did not load within timeouts.boot ({pool.timeouts.boot:g} s); see its stack above"
    else:
        why = f"ended the process that loaded it ({ended})"
    return Outcome(ExitStatus.APPLICATION, f"{pool.app} {why}", took_s=took_s)


def _child(pool: Pool, writer: int) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(2, 1)  # what the application prints must not mix with the config on stdout
    faulthandler.enable()  # SIGABRT, and a crash of the application, show its stack
    status, error = ExitStatus.OK, ""
    left: tuple[str, ...] = ()
    try:
        environment.enter(pool)
        known = {int(name) for name in os.listdir("/proc/self/fd")}
        load_application(pool.app)
        Hooks.load(pool.hooks)
        found = leftovers(known)
        left = (*found.threads, *found.sockets)
    except PreforkError as failure:
        status, error = failure.status, str(failure)
    with open(writer, "w", closefd=False) as pipe:
        pipe.write(json.dumps({"status": status, "error": error, "leftovers": left}) + "\n")
    return 0


def _read_line(fd: int, timeout_s: float) -> tuple[bytes, bool]:
    """Read until a line is complete or the writer is gone; return what came, and whether it was in time."""
    deadline = time.monotonic() + timeout_s
    told = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not told.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return bytes(told), False
        if not (data := os.read(fd, 65536)):
            break
        told += data
    return bytes(told), True
