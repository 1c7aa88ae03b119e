"""Heads: every rule, fed whole, byte by byte, and with bytes of the next request behind."""

from __future__ import annotations

from random import Random

import pytest

from prefork.http.head import Head, HeadLimits, HeadParser
from prefork.http.refusal import BadRequest

LIMITS = HeadLimits(request_line_bytes=100, fields=8, head_bytes=400, body_bytes=1000)


def feed(data: bytes, step: int) -> tuple[Head, bytes]:
    """Do what the serve loop does; return the head and the bytes behind it."""
    parser, buffer, seen = HeadParser(LIMITS), b"", 0
    for at in range(0, len(data), step):
        buffer += data[at : at + step]
        end = parser.find_end(buffer, seen)
        if end >= 0:
            return parser.parse(buffer[:end]), buffer[end:]
        seen = len(buffer)
    raise AssertionError(f"no end found in {data!r}")


def lines(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def get(*fields: str, line: str = "GET / HTTP/1.1") -> bytes:
    return lines(line, "Host: a", *fields)


ACCEPTED: dict[str, tuple[bytes, dict[str, object]]] = {
    "plain": (get(), {"method": "GET", "path": "/", "keep_alive": True, "content_length": 0}),
    "query": (get(line="GET /a%20b?x=%20?y HTTP/1.1"), {"path": "/a b", "query": "x=%20?y"}),
    "utf-8 path": (get(line="GET /%C3%A9 HTTP/1.1"), {"path": "/Ã©"}),
    "double slash": (get(line="GET //a/b HTTP/1.1"), {"path": "//a/b"}),
    "unknown method": (get(line="BREW / HTTP/1.1"), {"method": "BREW"}),
    "asterisk": (get(line="OPTIONS * HTTP/1.1"), {"target": "*", "path": ""}),
    "absolute": (
        lines("GET http://b:80/c?d HTTP/1.1", "Host: a"),
        {"path": "/c", "query": "d", "HTTP_HOST": "b:80"},
    ),
    "absolute, empty path": (lines("GET HTTP://b?d HTTP/1.1", "Host: a"), {"path": "/", "query": "d"}),
    "empty lines before": (b"\r\n\r\n" + get(), {"method": "GET", "request_line": b"GET / HTTP/1.1"}),
    "1.0": (lines("GET / HTTP/1.0"), {"keep_alive": False, "SERVER_PROTOCOL": "HTTP/1.0"}),
    "1.0 keep-alive": (lines("GET / HTTP/1.0", "Connection: Keep-Alive"), {"keep_alive": True}),
    "1.0 ignores expect": (
        lines("POST / HTTP/1.0", "Content-Length: 1", "Expect: 100-continue"),
        {"expect_continue": False},
    ),
    "close": (get("Connection: foo , Close"), {"keep_alive": False}),
    "close wins": (get("Connection: keep-alive", "Connection: close"), {"keep_alive": False}),
    "close is a token": (get("Connection: not-close"), {"keep_alive": True}),
    "length": (get("Content-Length: 0010"), {"content_length": 10, "CONTENT_LENGTH": "10"}),
    "chunked": (
        get("Transfer-Encoding: Chunked"),
        {"chunked": True, "content_length": 0, "HTTP_TRANSFER_ENCODING": None},
    ),
    "expect": (get("Content-Length: 1", "Expect: 100-Continue"), {"expect_continue": True}),
    "expect without body": (get("Expect: 100-continue"), {"expect_continue": False}),
    "spaces": (get("X-A: \t b c\t "), {"HTTP_X_A": "b c"}),
    "empty value": (get("X-A:"), {"HTTP_X_A": ""}),
    "latin-1": (get("X-A: \xe9"), {"HTTP_X_A": "\xe9"}),
    "joined": (get("X-A: 1", "x-a: 2"), {"HTTP_X_A": "1, 2"}),
    "cookies": (get("Cookie: a=1", "Cookie: b=2"), {"HTTP_COOKIE": "a=1; b=2"}),
    "cookie": (get("Accept: b", "Cookie: a=1", "X-A: c"), {"HTTP_COOKIE": "a=1", "HTTP_X_A": "c"}),
    "underscore": (get("X_Role: admin", "X-Role: user"), {"HTTP_X_ROLE": "user"}),
    "underscore alone": (get("Content_Length: 5"), {"content_length": 0, "CONTENT_LENGTH": None}),
    "httpoxy": (get("Proxy: http://evil", "proxy: x"), {"HTTP_PROXY": None}),
    "type": (get("content-type: text/plain"), {"CONTENT_TYPE": "text/plain", "HTTP_CONTENT_TYPE": None}),
    "host forms": (lines("GET / HTTP/1.1", "Host: [::1]:8000"), {"HTTP_HOST": "[::1]:8000"}),
    "longest line": (get(line=f"GET /{'a' * 86} HTTP/1.1"), {"path": "/" + "a" * 86}),
}

REFUSED: dict[str, tuple[bytes, int]] = {
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in fields": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    "bare CR before the end": (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    "NUL": (get("X: a\0b"), 400),
    "DEL": (get("X: a\x7fb"), 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 20, 400),
    "folded": (get("X: a", " b"), 400),
    "folded first": (lines("GET / HTTP/1.1", " Host: a"), 400),
    "space before colon": (get("X : a"), 400),
    "no colon": (get("X"), 400),
    "no name": (get(": a"), 400),
    "non-ASCII name": (get("X\xe9: a"), 400),
    "no Host": (lines("GET / HTTP/1.1", "X: a"), 400),
    "two Hosts": (get("host: a"), 400),
    "listed Host": (lines("GET / HTTP/1.1", "Host: a, b"), 400),
    "empty Host": (lines("GET / HTTP/1.1", "Host:"), 400),
    "Host with userinfo": (lines("GET / HTTP/1.1", "Host: u@a"), 400),
    "Host with path": (lines("GET / HTTP/1.1", "Host: a/b"), 400),
    "Host with bad port": (lines("GET / HTTP/1.1", "Host: a:8x"), 400),
    "Host malformed on 1.0": (lines("GET / HTTP/1.0", "Host: a b"), 400),
    "two lengths": (get("Content-Length: 1", "Content-Length: 1"), 400),
    "listed length": (get("Content-Length: 1, 1"), 400),
    "signed length": (get("Content-Length: +1"), 400),
    "hex length": (get("Content-Length: 0x1"), 400),
    "empty length": (get("Content-Length:"), 400),
    "non-ASCII digits": (get("Content-Length: \xb2"), 400),
    "length and coding": (get("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
    "coding on 1.0": (lines("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
    "chunked twice": (get("Transfer-Encoding: chunked, chunked"), 400),
    "chunked in two fields": (get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "chunked not last": (get("Transfer-Encoding: chunked, gzip"), 400),
    "no chunked": (get("Transfer-Encoding: xchunked"), 400),
    "chunked with parameter": (get("Transfer-Encoding: chunked;a=b"), 400),
    "empty coding": (get("Transfer-Encoding:"), 400),
    "vertical tab coding": (get("Transfer-Encoding: \x0bchunked"), 400),
    "unknown coding": (get("Transfer-Encoding: gzip, chunked"), 501),
    "HTTP/2.0": (get(line="GET / HTTP/2.0"), 505),
    "HTTP/1.2": (get(line="GET / HTTP/1.2"), 505),
    "h2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "lower-case version": (get(line="GET / http/1.1"), 400),
    "long version": (get(line="GET / HTTP/1.10"), 400),
    "no version": (get(line="GET /"), 400),
    "no target": (get(line="GET HTTP/1.1"), 400),
    "two spaces": (get(line="GET  / HTTP/1.1"), 400),
    "space in target": (get(line="GET /a b HTTP/1.1"), 400),
    "space at the end": (get(line="GET / HTTP/1.1 "), 400),
    "tab": (get(line="GET\t/ HTTP/1.1"), 400),
    "bad method": (get(line="G(T / HTTP/1.1"), 400),
    "fragment": (get(line="GET /a#b HTTP/1.1"), 400),
    "non-ASCII target": (get(line="GET /\xe9 HTTP/1.1"), 400),
    "bad escape": (get(line="GET /%zz HTTP/1.1"), 400),
    "NUL in path": (get(line="GET /a%00 HTTP/1.1"), 400),
    "relative target": (get(line="GET a HTTP/1.1"), 400),
    "asterisk with GET": (get(line="GET * HTTP/1.1"), 400),
    "authority form with GET": (get(line="GET a:80 HTTP/1.1"), 400),
    "CONNECT": (get(line="CONNECT a:80 HTTP/1.1"), 501),
    "other scheme": (get(line="GET ftp://a/ HTTP/1.1"), 400),
    "userinfo": (get(line="GET http://u@a/ HTTP/1.1"), 400),
    "no authority": (get(line="GET http:///a HTTP/1.1"), 400),
    "expectation": (get("Expect: 200-ok"), 417),
    "expectations": (get("Expect: 100-continue", "Expect: 100-continue"), 417),
    "long line": (get(line=f"GET /{'a' * 87} HTTP/1.1"), 414),
    "endless line": (b"GET /" + b"a" * 400, 414),
    "fields": (get(*(f"X-{n}: a" for n in range(8))), 431),
    "head": (get("X: " + "a" * 400), 431),
    "endless head": (b"GET / HTTP/1.1\r\nX: " + b"a" * 500, 431),
    "long body": (get("Content-Length: 1001"), 413),
    "immense body": (get("Content-Length: " + "9" * 30), 413),
    "empty lines": (b"\r\n" * 5 + get(), 400),
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("behind", [b"", b"GET /next HTTP/1.1\r\n\r\n", b"\0\n"])
def test_accepted(name: str, step: int, behind: bytes) -> None:
    data, wanted = ACCEPTED[name]
    head, rest = feed(data + behind, step)
    assert behind.startswith(rest)
    assert step < 10_000 or rest == behind
    for key, value in wanted.items():
        assert (head.environ.get(key) if key.isupper() else getattr(head, key)) == value, key
    assert all(type(value) is str for value in head.environ.values())


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_refused(name: str, step: int) -> None:
    data, status = REFUSED[name]
    with pytest.raises(BadRequest) as refusal:
        feed(data, step)
    assert refusal.value.status == status
    assert refusal.value.reason.isprintable()


def test_what_is_remembered_does_not_leak_between_requests() -> None:
    parser = HeadParser(LIMITS)
    absolute = lines("GET http://b/ HTTP/1.1", "Host: a", "Content-Length: 1")
    plain = lines("POST /p HTTP/1.1", "Host: a", "Content-Length: 1")
    for _ in range(2):
        assert parser.parse(absolute).environ["HTTP_HOST"] == "b"
        assert parser.parse(plain).environ["HTTP_HOST"] == "a"
        assert parser.parse(plain).environ["REQUEST_METHOD"] == "POST"


def test_mutations_are_accepted_or_refused_alike_whole_and_in_pieces() -> None:
    random = Random(3)
    valid = [data for data, _ in ACCEPTED.values()]
    for _ in range(2000):
        data = bytearray(random.choice(valid))
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(data) - 3)
            data[at : at + random.randint(0, 2)] = random.choice(
                [b"", b"\r\n", b"\n", b":", b" ", b"\0", b"%", b",", bytes([random.randrange(256)])]
            )
        data += b"\r\n\r\n"
        assert outcome(data, 1) == outcome(data, 10_000), data


def outcome(data: bytes, step: int) -> Head | None:
    try:
        return feed(bytes(data), step)[0]
    except BadRequest:
        return None


def test_what_is_remembered_changes_nothing() -> None:
    """Whatever came before, bytes mean what they mean to a parser that knows nothing."""
    random = Random(7)
    valid = [data for data, _ in (*ACCEPTED.values(), *REFUSED.values()) if data.endswith(b"\r\n\r\n")]
    cookies = [
        b"Cookie: %d",
        b"cookie:%d",
        b"Cookie:\t%d \xe9 ",
        b"Cookie: \0%d",
        b"Cookie: a\r%d",
        b"Cookie : %d",
    ]
    warm = HeadParser(LIMITS)
    for number in range(4000):
        head = random.choice(valid).split(b"\r\n")
        for _ in range(random.choice([0, 1, 1, 1, 2])):
            head.insert(random.randrange(len(head) - 1), random.choice(cookies) % (number // 9))
        data = b"\r\n".join(head)
        wanted = outcome_of(data, HeadParser(LIMITS))
        assert outcome_of(data, warm) == wanted, data
        assert outcome_of(data, warm) == wanted, data


def outcome_of(data: bytes, parser: HeadParser) -> tuple[Head, int] | None:
    try:
        end = parser.find_end(data)
        assert end > 0
        head = parser.known(data[:end]) or parser.parse(data[:end])
        return head, end
    except BadRequest:
        return None  # What is wrong in two ways may be refused for either.


def test_memory_is_bounded() -> None:
    parser = HeadParser(HeadLimits())
    for number in range(3000):
        for _ in range(3):
            parser.parse(get(f"Accept: {number}", f"Cookie: {number}", line=f"GET /{number} HTTP/1.1"))
            parser.parse(get(f"Content-Length: {number}", f"X-A: {'a' * 2000}"))
    memos = (parser._heads, parser._cookieless, parser._request_lines, parser._controls)
    assert all(0 < len(memo) <= 256 for memo in memos)
    assert len(parser._heads._seen) == 1024
    assert 0 < len(parser._fields._lines) <= 1024
    assert not any("X-A" in line or "Cookie" in line for line in parser._fields._lines)


def test_what_does_not_come_again_is_not_remembered() -> None:
    parser = HeadParser(LIMITS)
    for number in range(10):
        raw = get(f"Cookie: {number}")
        assert parser.parse(raw).environ["HTTP_COOKIE"] == str(number)
        assert parser.known(raw) is None
    assert list(parser._cookieless) == [get()]
    assert parser.parse(get()).environ.get("HTTP_COOKIE") is None
