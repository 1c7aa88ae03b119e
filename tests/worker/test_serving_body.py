"""A body is put together from any pieces, and small ones do not take more memory than they hold."""

from __future__ import annotations

import pytest

from prefork.http.head import HeadLimits, HeadParser
from prefork.worker.body import IncomingBody

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
def test_body_from_pieces(field: str, wire: bytes, step: int) -> None:
    limits = HeadLimits()
    head = HeadParser(limits).parse(f"POST / HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n".encode())
    body = IncomingBody(head, limits)
    wire += b"GET "
    for start in range(0, len(wire), step):
        if body.feed(wire[start : start + step]):
            break
    assert body.take() == BODY
    assert body.rest + wire[start + step :] == b"GET "
    assert len(body._pieces) <= 2 + len(BODY) // 4000
