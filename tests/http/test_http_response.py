"""Heads of responses: what an application may say, and how the body is framed."""

from __future__ import annotations

from typing import Any

import pytest

from prefork.http.response import HeadEncoder, frame, own_response

OK = "200 OK"

BAD: dict[str, tuple[Any, Any, str]] = {
    "status bytes": (b"200 OK", [], "b'200 OK'"),
    "status number": (200, [], "200"),
    "status without reason": ("200", [], "'200'"),
    "status unknown": ("999 Odd", [], "'999 Odd'"),
    "status with CR": ("200 OK\r\nX: y", [], "OK\\r\\nX"),
    "status with euro": ("200 \u20ac", [], "\u20ac"),
    "headers tuple": (OK, (("A", "b"),), "(('A', 'b'),)"),
    "headers dict": (OK, {"A": "b"}, "{'A': 'b'}"),
    "header list": (OK, [["A", "b"]], "['A', 'b']"),
    "header triple": (OK, [("A", "b", "c")], "('A', 'b', 'c')"),
    "name bytes": (OK, [(b"A", "b")], "b'A'"),
    "value number": (OK, [("Content-Length", 5)], "5"),
    "value unhashable": (OK, [("A", [])], "('A', [])"),
    "name with space": (OK, [("A b", "c")], "'A b'"),
    "name empty": (OK, [("", "c")], "('', 'c')"),
    "value with LF": (OK, [("A", "b\nc")], "b\\nc"),
    "value with CR": (OK, [("A", "b\rc")], "b\\rc"),
    "value with NUL": (OK, [("A", "b\0")], "b\\x00"),
    "value beyond latin-1": (OK, [("A", "\u20ac")], "\u20ac"),
    "hop-by-hop": (OK, [("connection", "close")], "'connection'"),
    "transfer-encoding": (OK, [("Transfer-Encoding", "chunked")], "'Transfer-Encoding'"),
    "length": (OK, [("Content-Length", "-1")], "'-1'"),
    "lengths": (OK, [("Content-Length", "1"), ("content-length", "1")], "more than one"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name: str) -> None:
    status, headers, named = BAD[name]
    with pytest.raises((TypeError, ValueError)) as error:
        HeadEncoder().encode(status, headers)
    assert named in str(error.value)


def test_encoding() -> None:
    encoder = HeadEncoder()
    headers = [("Set-Cookie", "a=\xe9"), ("set-cookie", " b "), ("date", "x"), ("Content-Length", "3")]
    for _ in range(2):
        encoded = encoder.encode("201 Made", headers)
        assert encoded.lines == (
            b"HTTP/1.1 201 Made\r\nSet-Cookie: a=\xe9\r\nset-cookie: b\r\ndate: x\r\nContent-Length: 3\r\n"
        )
        assert (encoded.content_length, encoded.has_date, encoded.has_server) == (3, True, False)


@pytest.mark.parametrize("given", [None, 5])
@pytest.mark.parametrize("status", ["101 Switching Protocols", "204 No Content", "304 Not Modified"])
def test_statuses_without_body(status: str, given: int | None) -> None:
    encoded = HeadEncoder().encode(status, [] if given is None else [("Content-Length", str(given))])
    framing = frame(encoded, False, True, 7)
    assert framing.bodiless
    assert framing.line == b""
    assert (b"Content-Length" in encoded.lines) is (given is not None and status.startswith("304"))
    assert framing.ends is not status.startswith("1")


def test_reset_content_is_empty_and_says_so() -> None:
    encoded = HeadEncoder().encode("205 Reset Content", [("Content-Length", "5")])
    assert encoded.lines.endswith(b"\r\nContent-Length: 0\r\n")
    assert frame(encoded, False, True, 5).length == 0


#          given, HEAD,  1.1,   known -> line, length, chunked, ends
FRAMES = [
    (5, False, True, None, b"", 5, False, True),
    (5, False, True, 9, b"", 5, False, True),
    (5, True, True, None, b"", 0, False, True),
    (None, True, True, None, b"", 0, False, True),
    (None, True, True, 0, b"", 0, False, True),
    (None, True, True, 7, b"Content-Length: 7\r\n", 0, False, True),
    (None, False, True, 7, b"Content-Length: 7\r\n", 7, False, True),
    (None, False, False, 0, b"Content-Length: 0\r\n", 0, False, True),
    (None, False, True, None, b"Transfer-Encoding: chunked\r\n", None, True, True),
    (None, False, False, None, b"", None, False, False),
]


@pytest.mark.parametrize(("given", "is_head", "modern", "known", "line", "length", "chunked", "ends"), FRAMES)
def test_framing(
    given: int | None,
    is_head: bool,
    modern: bool,
    known: int | None,
    line: bytes,
    length: int | None,
    chunked: bool,
    ends: bool,
) -> None:
    encoded = HeadEncoder().encode(OK, [] if given is None else [("Content-Length", str(given))])
    assert frame(encoded, is_head, modern, known) == (line, length, chunked, ends, is_head)


def test_own_response() -> None:
    answer = own_response(431, "more than 2 fields", b"Connection: close\r\n", b"Server: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"Server: x",
    ]
    assert body == b"431 Request Header Fields Too Large\nmore than 2 fields\n"
