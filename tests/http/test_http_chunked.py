"""The chunked coding: every rule, with the body cut everywhere."""

from __future__ import annotations

import pytest

from prefork.http.chunked import LAST_CHUNK, ChunkedDecoder, chunk
from prefork.http.head import HeadLimits
from prefork.http.refusal import BadRequest

LIMITS = HeadLimits(fields=4, head_bytes=300, body_bytes=100)


def decode(data: bytes, *cuts: int) -> tuple[bytes, bytes]:
    """Feed ``data`` cut at ``cuts``; return the body and the bytes behind it."""
    decoder, body, behind = ChunkedDecoder(LIMITS), b"", b""
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        if decoder.complete:
            behind += data[begin:end]
        else:
            body += decoder.feed(data[begin:end])
            behind += decoder.rest
    assert decoder.complete
    assert decoder.body_bytes == len(body)
    return body, behind


ACCEPTED = {
    b"0\r\n\r\n": b"",
    b"5\r\nhello\r\n0\r\n\r\n": b"hello",
    b"0000000000000A\r\n0123456789\r\n1\r\n\n\r\n000\r\n\r\n": b"0123456789\n",
    b'2;a;b=c ; d="e\\"f"\r\nab\r\n0;x\r\n\r\n': b"ab",
    b"1\r\na\r\n0\r\nX-Sum: 1\r\nX-B:\r\n\r\n": b"a",
}

REFUSED = {
    "no size": (b"\r\n", 400),
    "sign": (b"+1\r\na\r\n", 400),
    "0x": (b"0x1\r\na\r\n", 400),
    "underscore": (b"1_0\r\n", 400),
    "negative": (b"-1\r\n", 400),
    "space before": (b" 1\r\na\r\n", 400),
    "space after": (b"1 \r\na\r\n", 400),
    "bare LF": (b"1\na\r\n", 400),
    "bare CR": (b"1\ra\r\n0\r\n", 400),
    "too many digits": (b"00000000000000001\r\na\r\n", 400),
    "extension without name": (b"1;\r\na\r\n", 400),
    "extension with control byte": (b"1;a=\x01\r\na\r\n", 400),
    "extension with open quote": (b'1;a="b\r\na\r\n', 400),
    "long extension": (b"1;" + b"a" * 400, 400),
    "chunk too long": (b"1\r\nab\r\n", 400),
    "chunk end without CR": (b"1\r\na\n0\r\n\r\n", 400),
    "body": (b"65\r\n", 413),
    "body in several": (b"40\r\n" + b"a" * 64 + b"\r\n25\r\n", 413),
    "immense": (b"ffffffffffffffff\r\n", 413),
    "trailer without colon": (b"0\r\nX\r\n\r\n", 400),
    "trailer with bare LF": (b"0\r\nX: a\n\n", 400),
    "folded trailer": (b"0\r\nX: a\r\n b\r\n\r\n", 400),
    "forbidden trailer": (b"0\r\ncontent-Length: 1\r\n\r\n", 400),
    "forbidden authorization": (b"0\r\nAuthorization: b\r\n\r\n", 400),
    "trailers": (b"0\r\n" + b"X: a\r\n" * 5 + b"\r\n", 431),
    "long trailers": (b"0\r\nX: " + b"a" * 400, 431),
}


@pytest.mark.parametrize("data", ACCEPTED)
@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_accepted(data: bytes, behind: bytes) -> None:
    whole = data + behind
    wanted = (ACCEPTED[data], behind)
    assert decode(whole, *range(1, len(whole))) == wanted
    for first in range(len(whole) + 1):
        for second in range(first, len(whole) + 1):
            assert decode(whole, first, second) == wanted


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_refused(name: str, step: int) -> None:
    data, status = REFUSED[name]
    with pytest.raises(BadRequest) as refusal:
        decode(data, *range(step, len(data), step))
    assert refusal.value.status == status
    assert refusal.value.reason.isprintable()


def test_extensions_are_bounded_over_the_whole_body() -> None:
    with pytest.raises(BadRequest, match="extensions"):
        ChunkedDecoder(HeadLimits()).feed((b"1;" + b"a" * 200 + b"\r\nx\r\n") * 100)


def test_what_is_framed_is_decoded() -> None:
    data = chunk(b"a" * 17) + chunk(b"\r\n") + LAST_CHUNK
    assert data.startswith(b"11\r\n")
    assert decode(data) == (b"a" * 17 + b"\r\n", b"")
