"""One thread, and hundreds of clients that send or read nothing: a fast one does not notice.

The full figures are in docs/slow-clients.md, from ``python -m bench.slow_clients``.
"""

from __future__ import annotations

import socket
from statistics import median
from time import perf_counter
from typing import Any

from serving_harness import Client, echo, eventually, serving

EACH = 100
LARGE = bytes(6 << 20)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] != "/large":
        return echo(environ, start_response)
    start_response("200 OK", [("Content-Length", str(len(LARGE)))])
    return [LARGE]


def median_latency_s(client: Client) -> float:
    """Return the least of several medians: what else runs on the machine is not measured."""
    medians = []
    for _ in range(5):
        taken = []
        for _ in range(200):
            began = perf_counter()
            assert client.get()[0] == 200
            taken.append(perf_counter() - began)
        medians.append(median(taken))
    return min(medians)


def test_a_fast_client_does_not_notice_stalled_ones(tmp_path: Any) -> None:
    limits = {"body": 1 << 30, "body_memory": 100_000, "memory": 4 << 20, "response_memory": 100_000}
    with serving(app, limits=limits, tmp_dir=str(tmp_path)) as server:
        fast = server.connect()
        alone_s = median_latency_s(fast)
        for _ in range(EACH):
            server.connect().send(b"GET / HTTP/1.1\r\nHost: t\r\nX-Slow: ")
            server.connect().send(
                b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 90000\r\n\r\n" + bytes(50_000)
            )
        for _ in range(10):
            reader = server.connect()
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.send(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n")

        def states() -> list[str]:
            return server.call(lambda: [c.state.name for c in server.server.connections.values()])

        eventually(lambda: [states().count(n) for n in ("HEAD", "BODY", "FLUSHING")] == [EACH, EACH, 10])
        storage = server.server.storage
        assert storage.memory_bytes <= 4 << 20
        assert storage.memory_bytes + storage.spool_bytes > EACH * 50_000
        assert median_latency_s(fast) < 4 * alone_s + 0.001
        for client in server.clients:
            if client is not fast:
                client.close()
        eventually(lambda: (storage.memory_bytes, storage.spool_bytes) == (0, 0))
        assert fast.get()[0] == 200
