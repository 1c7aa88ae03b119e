"""Cases about the end of connections, about responses, and about ``Expect``."""

from __future__ import annotations

from collections.abc import Iterator

from bench.conformance.judge import (
    Verdict,
    answer,
    bodiless,
    both,
    cut,
    dated,
    drop,
    either,
    interim,
    old,
    reject,
    serve,
    uncalled,
    unsplit,
    whole,
)
from bench.conformance.request import Case, chunked, get, head, post


def ends() -> Iterator[Case]:
    """RFC 9112 §8, §9.3 and §9.6: what ends a connection, and what the end means."""
    last = serve(last=True)
    table: list[tuple[str, bytes, Verdict]] = [
        ("Connection: close", get("Connection: close"), last),
        ("close in a list, any case", get("Connection: x ,\tClose"), last),
        ("close wins", get("Connection: keep-alive", "Connection: close"), last),
        ("HTTP/1.0", get(line="GET / HTTP/1.0"), last),
        ("not close", get("Connection: closed, not-close"), serve()),
        (
            "answer to a refusal is not reset by what follows",
            b"GET\0/ HTTP/1.1\r\n\r\n" + b"x" * 300_000,
            reject(answered=True),
        ),
    ]
    for name, data, allowed in table:
        yield Case("Connection", name, data, allowed)
    for name, data, allowed in (
        ("end in the line", b"GET / HT", uncalled),
        ("end in the head", b"GET / HTTP/1.1\r\nHost: a\r\n", uncalled),
        ("end in the body", post("Content-Length: 50"), uncalled),
        ("end in a chunk", chunked(b"9\r\nhello"), uncalled),
        ("end between chunks", chunked(b"5\r\nhello\r\n"), uncalled),
        ("end before the last CRLF", chunked(b"5\r\nhello\r\n0\r\n"), uncalled),
        ("end in a trailer", chunked(b"5\r\nhello\r\n0\r\nX-A: b"), uncalled),
    ):
        yield Case("Connection", name, data, allowed, half_close=True)


def responses() -> Iterator[Case]:
    """RFC 9112 §6.3, RFC 9110 §6.6.1, §9.3.2 and §15: what the client gets, also of an application that errs."""
    for name, data, allowed in (
        ("HEAD has no body", get(line="HEAD / HTTP/1.1"), bodiless(200)),
        ("204 has no body", get(line="GET /204 HTTP/1.1"), either(bodiless(204), answer(500))),
        ("304 has no body", get(line="GET /304 HTTP/1.1"), either(bodiless(304), answer(500))),
        ("of unknown length", get(line="GET /stream HTTP/1.1"), whole(b"onetwothree")),
        ("of unknown length, HEAD", get(line="HEAD /stream HTTP/1.1"), bodiless(200)),
        ("of unknown length, HTTP/1.0", head("GET /stream HTTP/1.0"), old(b"onetwothree")),
        ("broken off", get(line="GET /breaks HTTP/1.1"), cut),
        ("shorter than its Content-Length", get(line="GET /short HTTP/1.1"), cut),
        (
            "longer than its Content-Length",
            get(line="GET /long HTTP/1.1"),
            either(whole(b"hel"), answer(500)),
        ),
        ("with a line break in a field", get(line="GET /split HTTP/1.1"), unsplit),
        ("Date", get(), dated),
        ("Date on a refusal", get(host=None), dated),
    ):
        yield Case("Responses", name, data, allowed)


def expectations() -> Iterator[Case]:
    """RFC 9110 §10.1.1."""
    expect = "Expect: 100-continue"
    line_1_0 = "POST / HTTP/1.0"
    continued, silent = interim(100), interim()
    hello = serve(body="hello")
    final = either(hello, reject())
    for name, data, body, allowed in (
        ("100-continue", post(expect, "Content-Length: 5", body=b""), b"hello", both(hello, continued)),
        ("100-continue, chunked", chunked(b"", expect), b"5\r\nhello\r\n0\r\n\r\n", both(hello, continued)),
        (
            "not on HTTP/1.0",
            post(expect, "Content-Length: 5", body=b"", line=line_1_0),
            b"hello",
            both(final, silent),
        ),
        (
            "not without Host",
            head("POST / HTTP/1.1", expect, "Content-Length: 5"),
            b"hello",
            both(reject(), silent),
        ),
        (
            "not for a malformed length",
            post(expect, "Content-Length: +5", body=b""),
            b"hello",
            both(drop(), silent),
        ),
    ):
        yield Case("Responses", name, data, allowed, body=body)
