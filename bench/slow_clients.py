"""``python -m bench.slow_clients``: what slow and idle clients cost one worker with one thread.

Measures the latency of a fast client beside stalled ones, and the memory of idle kept-alive connections, and
writes the figures into docs/slow-clients.md.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from bench.measure import cpu_ns, free_port
from bench.report import fill, machine
from bench.servers import ROOT

PAGE = ROOT / "docs" / "slow-clients.md"
REQUESTS = 1000
ROUNDS = 7
REST_S = 3.0
HELLO = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: bench\r\nX-Slow: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 500000\r\n\r\n" + bytes(400_000)
LARGE = b"GET /mib/1 HTTP/1.1\r\nHost: bench\r\n\r\n"
LARGER = b"GET /mib/8 HTTP/1.1\r\nHost: bench\r\n\r\n"
SERVER = (
    *(sys.executable, "-m", "prefork", "bench.slow_app:application", "-w", "1"),
    # The stalled ones are to be there to the end, which takes longer than they would be given.
    *("--set", "timeouts={head: 10m, body: 10m, send: 10m, keep_alive: 10m}", "--set", "log.access=off"),
    *("--set", "limits.connections=20000"),
)


def main() -> int:
    """Measure with so many clients, and write the page unless told otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients", description="Stall a worker.")
    parser.add_argument("--stalled", type=int, default=1000, help="of each kind (default 1000)")
    parser.add_argument("--idle", type=int, default=10_000, help="kept-alive connections (default 10000)")
    parser.add_argument("--print", action="store_true", help="do not write the page")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lines = [f"Machine: {machine()}, shared by the worker and the clients.", "", *stalled(options.stalled)]
    lines += ["", *idle(options.idle)]
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.print:
        fill(PAGE, "bench.slow_clients", text)
    return 0


def stalled(count: int) -> Iterator[str]:
    """Yield a table: the fast client's latency beside more and more stalled ones."""
    yield "| beside the fast client | its median, µs | its p99, µs | memory of the worker, MiB | temporary files, MiB |"
    yield "|---|---:|---:|---:|---:|"
    with running() as (port, worker):
        clients: list[socket.socket] = []

        def row(title: str) -> str:
            half, worst = latency(port)
            files = spooled_bytes(worker) / (1 << 20)
            return f"| {title} | {half:.0f} | {worst:.0f} | {memory_bytes(worker) / (1 << 20):.0f} | {files:.0f} |"

        latency(port)
        yield row("nobody")
        for number, title, request in (
            (count, "half-sent heads", HALF_HEAD),
            (count, "bodies of which 400 kB of 500 kB were sent", HALF_BODY),
            (count, "stopped readers of 1 MiB", LARGE),
            (count // 10, "stopped readers of 8 MiB", LARGER),
        ):
            clients += [stall(port, request) for _ in range(number)]
            if request in (LARGE, LARGER):
                for client in clients[-number:]:
                    client.recv(1, socket.MSG_PEEK)
            settle(worker, lambda: is_idle(worker))
            yield row(f"and {number:,} {title}")
        for client in clients:
            client.close()
        settle(worker, lambda: spooled_bytes(worker) == 0)
        yield row("nobody again")


def idle(count: int) -> Iterator[str]:
    """Yield what idle kept-alive connections cost."""
    with running() as (port, worker):
        latency(port)
        before = memory_bytes(worker)
        clients = []
        for _ in range(count):
            clients.append(stall(port, HELLO))
            clients[-1].recv(1000)
        each = (memory_bytes(worker) - before) / count
        spent_ns = cpu_ns(worker)
        time.sleep(REST_S)
        spent_ns = cpu_ns(worker) - spent_ns
        yield f"{count:,} idle kept-alive connections: {each:,.0f} bytes of process memory each,"
        yield f"{spent_ns / 1e6:.1f} ms of CPU in {REST_S:g} s; the fast client's median beside them is"
        yield f"{latency(port)[0]:.0f} µs."
        for client in clients:
            client.close()


def stall(port: int, request: bytes) -> socket.socket:
    """Connect, send, and take nothing that comes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


def latency(port: int) -> tuple[float, float]:
    """Return median and p99 of one request after the other on a kept-alive connection, in µs.

    It is the round with the lowest median: what else runs on the machine is not measured.
    """
    rounds = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUNDS):
            taken = []
            for _ in range(REQUESTS):
                began = time.perf_counter()
                client.sendall(HELLO)
                client.recv(1000)
                taken.append((time.perf_counter() - began) * 1e6)
            rounds.append((median(taken), quantiles(taken, n=100)[98]))
    return min(rounds)


@contextmanager
def running() -> Iterator[tuple[int, int]]:
    """Run prefork with one worker; yield its port and the worker's pid."""
    port = free_port()
    process = subprocess.Popen([*SERVER, "-b", f"127.0.0.1:{port}"], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        log = ""
        while "serving on" not in log:
            log += process.stderr.readline().decode()
        [worker] = [pid for pid in children(process.pid) if b"worker" in title(pid)]
        yield port, worker
    finally:
        process.terminate()
        process.stderr.read()
        process.wait()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def title(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def memory_bytes(pid: int) -> int:
    """Return what the process alone has in memory (USS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(
        int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", text, re.MULTILINE)
    )


def spooled_bytes(pid: int) -> int:
    """Return the size of all files without a name that the process has open."""
    total = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(fd)
            if link.startswith("/tmp/") and link.endswith(" (deleted)"):
                total += fd.stat().st_size
        except OSError:
            pass  # Closed since.
    return total


def is_idle(pid: int) -> bool:
    """Return whether the process has spent no time for a moment."""
    spent_ns = cpu_ns(pid)
    time.sleep(0.1)
    return cpu_ns(pid) == spent_ns


def settle(pid: int, condition: Callable[[], bool]) -> None:
    """Wait until the worker has done what its clients did to it."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
