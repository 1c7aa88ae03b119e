"""Start a server on one core, load it from another, and count what its processes cost."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.scenarios import Scenario
from bench.servers import HOME, PYTHON, ROOT, Server

CONNECTIONS = 32
START_S, STOP_S = 30.0, 10.0


@dataclass(frozen=True)
class Result:
    """One run; ``cpu_us`` is CPU time of the whole process tree for each request.

    ``starved`` counts connections that got no answer at all, and so are missing in ``p99_ms``.
    """

    cpu_us: float
    requests_per_s: float
    p99_ms: float
    errors: int
    starved: int


def cores() -> tuple[int, int]:
    """Return the core for the server and the one for the load; the same one if there is no other."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def measure(pid: int, port: int, scenario: Scenario, load: Path, seconds: float) -> Result:
    """Load a running server with one scenario, after a warm-up of a quarter of the time."""
    send(load, port, scenario, seconds / 4)
    before_ns = cpu_ns(pid)
    sent = send(load, port, scenario, seconds)
    spent_ns = cpu_ns(pid) - before_ns
    if sent["errors"] * 2 >= sent["answers"]:
        raise RuntimeError(f"{sent['errors']} errors for {sent['answers']} answers")
    return Result(
        spent_ns / 1000 / sent["answers"],
        sent["answers"] / sent["seconds"],
        sent["p99_us"] / 1000,
        int(sent["errors"]),
        int(sent["starved"]),
    )


def send(load: Path, port: int, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Run the load generator on its core."""
    command = ["taskset", "-c", str(cores()[1]), str(load), str(port), str(CONNECTIONS), str(seconds)]
    sent = subprocess.run(
        command, check=False, capture_output=True, input=scenario.request, timeout=seconds + 30
    )
    if sent.returncode != 0:
        raise RuntimeError(sent.stderr.decode().strip())
    found: dict[str, float] = json.loads(sent.stdout)
    return found


@contextmanager
def running(
    server: Server, *, access_log: bool = False, pinned: bool = True, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server, on its core if ``pinned``; yield its pid and port."""
    port = free_port()
    line = server.command.format(bin=PYTHON.parent, home=HOME, port=port)
    line += f" {server.log if access_log else server.no_log}"
    command = [*(("taskset", "-c", str(cores()[0])) if pinned else ()), *shlex.split(line)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    with open(HOME / "server.log", "wb") as log, open(os.devnull, "wb") as nothing:
        # Lines for accesses go nowhere, so that no disk is measured; what else a server says is kept.
        output = nothing if access_log else log
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=output, stderr=log, start_new_session=True
        )
    try:
        wait_for(port, process)
        yield process.pid, port
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers; raise ``RuntimeError`` when it ends first or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if client.recv(12).endswith(b"200"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"does not serve; see {HOME / 'server.log'}")


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, its threads and all its descendants that live."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
        total += sum(cpu_ns(int(child)) for child in (task / "children").read_text().split())
    return total
