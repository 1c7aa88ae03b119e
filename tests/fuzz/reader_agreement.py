"""What must be true of any bytes that the pure readers of heads and chunked bodies are given.

Read whole or in pieces, by a parser that is new or has seen similar ones, they mean the same. Used like
``wire_agreement``, which is about whole connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from prefork.http.chunked import ChunkedDecoder
from prefork.http.head import Head, HeadLimits, HeadParser
from prefork.http.refusal import BadRequest

# Small, so that mutations reach them.
LIMITS = HeadLimits(request_line_bytes=100, fields=8, head_bytes=400, body_bytes=200)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut ``data`` at the positions in ``cuts``, which may be any numbers."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]


def cuts_of(data: bytes) -> list[int]:
    """Return the cuts that the first byte of a fuzzer's input stands for."""
    seed = data[0] if data else 0
    return [seed, seed * 7 % 256, seed * 31 % 256]


def read_head(parts: Sequence[bytes], parser: HeadParser) -> tuple[Head, int] | int | None:
    """Return the head and its length, the status of a refusal, or None when the head is incomplete."""
    buffer = b""
    try:
        for part in parts:
            known_bytes = len(buffer)
            buffer += part
            end = parser.find_end(buffer, known_bytes)
            if end >= 0:
                head = parser.parse(buffer[:end])
                assert parser.known(buffer[:end]) in (head, None)
                return head, end
    except BadRequest as refusal:
        check_refusal(refusal)
        return refusal.status
    return None


def check_refusal(refusal: BadRequest) -> None:
    assert refusal.status in (400, 413, 414, 417, 431, 501, 505, 507)
    assert refusal.reason.isprintable()


def check_head(data: bytes, cuts: Iterable[int] = ()) -> None:
    """Check that ``data`` is the same head, or none, however it arrives and whatever came before."""
    parser = HeadParser(LIMITS)
    whole = read_head([data], parser)
    for parts in (pieces(data, range(len(data))), pieces(data, cuts)):
        for reader in (parser, HeadParser(LIMITS)):
            assert same(whole, read_head(parts, reader)), (whole, read_head(parts, reader))
    check_memory(data)
    reader = HeadParser(LIMITS)
    for _ in range(2):  # What comes again is remembered, but for its cookie.
        read_head([data.replace(b"\r\nCookie:", b"\r\nCookie:x", 1)], reader)
    assert same(whole, read_head([data], reader)), (whole, read_head([data], reader))
    if isinstance(whole, tuple):
        check_what_was_promised(*whole, data)


def check_memory(data: bytes) -> None:
    """Check that what a parser remembers of similar heads does not change what it makes of ``data``."""
    parser = HeadParser(LIMITS)
    cookie = re.compile(rb"\r\nCookie:[^\r]*")
    similar = [cookie.sub(b"", data, count=1), cookie.sub(b"\r\nCookie: z", data), data]
    for head in [*similar, *similar]:
        for _ in range(2):  # Only what comes again is remembered.
            read_head([head], parser)
    for head in similar:
        fresh = read_head([head], HeadParser(LIMITS))
        assert same(fresh, read_head([head], parser)), (fresh, read_head([head], parser))


def same(whole: object, cut: object) -> bool:
    """Bytes that are wrong in two ways may be refused for either, whichever is seen first."""
    return cut == whole or (isinstance(whole, int) and isinstance(cut, int))


def check_what_was_promised(head: Head, length: int, data: bytes) -> None:
    """Check what applications rely on and what would let a request be smuggled."""
    raw = data[:length]
    environ = head.environ
    assert all(type(value) is str for value in environ.values())
    for key, value in environ.items():
        assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Z]+", key), key
        assert key == "PATH_INFO" or not re.search(r"[\0-\x08\x0a-\x1f\x7f]", value), (key, value)
        assert "\0" not in value
    assert length <= LIMITS.head_bytes
    assert head.path.startswith("/") or (head.method, head.target, head.path) == ("OPTIONS", "*", "")
    assert head.method != "CONNECT"
    assert raw.endswith(b"\r\n\r\n")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    lines = raw.strip(b"\r\n").lower().split(b"\r\n")
    names = [line.partition(b":")[0] for line in lines[1:]]
    assert not any(name != name.strip() for name in names)
    assert names.count(b"host") == 1 or head.version == (1, 0)
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert head.chunked == (b"transfer-encoding" in names)
    assert head.content_length <= LIMITS.body_bytes
    assert environ.get("CONTENT_LENGTH", "0") == str(head.content_length)
    assert len(names) <= LIMITS.fields


def read_chunks(parts: Sequence[bytes]) -> tuple[bytes, bytes | None] | int:
    """Return the body and what is behind it (None when it is incomplete), or the status of a refusal."""
    decoder, body, behind = ChunkedDecoder(LIMITS), b"", b""
    try:
        for part in parts:
            if decoder.complete:
                behind += part
                continue
            body += decoder.feed(part)
            behind += decoder.rest
    except BadRequest as refusal:
        check_refusal(refusal)
        return refusal.status
    assert len(body) <= decoder.body_bytes <= LIMITS.body_bytes
    return body, behind if decoder.complete else None


def check_chunks(data: bytes, cuts: Iterable[int] = ()) -> None:
    """Check that ``data`` is the same chunked body, or none, however it arrives."""
    whole = read_chunks([data])
    for parts in (pieces(data, range(len(data))), pieces(data, cuts)):
        assert same(whole, read_chunks(parts)), (whole, read_chunks(parts))
