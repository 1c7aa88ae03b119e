"""One thread, and hundreds of clients that send or read nothing: a fast one does not notice.

The full figures are in docs/slow-clients.md, from ``python -m bench.slow_clients``.
"""

from __future__ import annotations

import resource
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import clock_gettime_ns, perf_counter_ns, pthread_getcpuclockid
from typing import Any

import pytest
from serving_harness import Client, Serving, echo, eventually, serving

EACH = 300
ROUNDS, REQUESTS = 15, 40
MEMORY_BYTES = 8 << 20
LARGE = bytes(300_000)
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: t\r\nX-Slow: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 90000\r\n\r\n" + bytes(50_000)
GET_LARGE = b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n"


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] != "/large":
        return echo(environ, start_response)
    start_response("200 OK", [("Content-Length", str(len(LARGE)))])
    return [LARGE]


@pytest.fixture
def open_files() -> Iterator[None]:
    """Allow both ends of all connections in one process, and a temporary file for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cost(server: Serving, client: Client) -> tuple[int, int]:
    """Return the CPU of the worker's thread for some requests, and the median latency of one, in ns."""
    assert server.thread.ident is not None
    clock = pthread_getcpuclockid(server.thread.ident)
    began_ns = clock_gettime_ns(clock)
    taken_ns = []
    for _ in range(REQUESTS):
        sent_ns = perf_counter_ns()
        assert client.get()[0] == 200
        taken_ns.append(perf_counter_ns() - sent_ns)
    return clock_gettime_ns(clock) - began_ns, int(median(taken_ns))


def test_a_fast_client_does_not_notice_stalled_ones(tmp_path: Path, open_files: None) -> None:
    limits = {"body": 1 << 30, "body_memory": 100_000, "memory": MEMORY_BYTES, "response_memory": 100_000}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4608
        )  # inherited; the kernel is to hold little
        with (
            serving(app, listener=listener, limits=limits, tmp_dir=str(tmp_path)) as crowded,
            serving(app) as empty,
        ):
            for request in (HALF_HEAD, HALF_BODY, GET_LARGE):
                for _ in range(EACH):
                    client = crowded.connect()
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    client.send(request)
            stalled = list(crowded.clients)

            def states() -> Counter[str]:
                return Counter(
                    crowded.call(lambda: [c.state.name for c in crowded.server.connections.values()])
                )

            eventually(lambda: states() == {"HEAD": EACH, "BODY": EACH, "FLUSHING": EACH})
            storage = crowded.server.storage
            assert storage.memory_bytes <= MEMORY_BYTES
            assert storage.memory_bytes + storage.spool_bytes > EACH * (50_000 + 200_000)

            # In turns, so that whatever else the machine does slows down both.
            beside, alone = (crowded, crowded.connect()), (empty, empty.connect())
            ratios = []
            for _ in range(ROUNDS):
                measured, compared = cost(*beside), cost(*alone)
                ratios.append((measured[0] / compared[0], measured[1] / compared[1]))
            cpu, latency = (median(kind) for kind in zip(*ratios, strict=True))
            assert cpu < 2
            assert latency < 2

            for client in stalled:
                client.close()
            eventually(lambda: (storage.memory_bytes, storage.spool_bytes) == (0, 0))
            assert beside[1].get()[0] == 200
