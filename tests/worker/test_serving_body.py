"""A body is put together from any pieces, and small ones do not take more memory than they hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from serving_harness import Events

from prefork.http.head import HeadLimits, HeadParser
from prefork.worker.body import IncomingBody
from prefork.worker.storage import Storage

BODY = bytes(range(256)) * 64
CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:10], BODY[10:9000], BODY[9000:]))


@pytest.mark.parametrize("step", [1, 3, 4095, 4096, 5000, 100_000])
@pytest.mark.parametrize(
    ("field", "wire"),
    [
        (f"Content-Length: {len(BODY)}", BODY),
        ("Transfer-Encoding: chunked", CHUNKED + b"0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("memory_bytes", [1 << 20, 3000])
def test_body_from_pieces(field: str, wire: bytes, step: int, memory_bytes: int, tmp_path: Path) -> None:
    limits = HeadLimits()
    head = HeadParser(limits).parse(f"POST / HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n".encode())
    storage = Storage(1 << 20, 1 << 20, str(tmp_path), Events())
    body = IncomingBody(head, limits, storage, memory_bytes)
    wire += b"GET "
    most_bytes = 0
    for start in range(0, len(wire), step):
        complete = body.feed(wire[start : start + step])
        most_bytes = max(most_bytes, sys.getsizeof(body._buffer))
        if complete:
            break
    taken = body.take()
    assert (taken if isinstance(taken, bytes) else taken.reader().read()) == BODY
    assert len(taken) == len(BODY)
    assert body.rest + wire[start + step :] == b"GET "
    assert most_bytes <= 1.2 * len(BODY) + 100
    assert storage.memory_bytes <= len(BODY)
    assert list(tmp_path.iterdir()) == []
    body.close()
    assert (storage.memory_bytes, storage.spool_bytes) == (0, 0)
