"""Every rule of ``docs/supported-http.md`` on the wire, in its order: whole, byte by byte, cut at random."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from serving_harness import Client, Serving, eventually, serving

# The validator warns of methods that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")

LIMITS = {"request_line": 200, "fields": 10, "head": 1000, "body": 100}
END = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def head(line: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


def get(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "a") -> bytes:
    return head(line, *([f"Host: {host}"] if host is not None else []), *fields)


def post(*fields: str, body: bytes = b"", line: str = "POST / HTTP/1.1") -> bytes:
    return head(line, "Host: a", *fields, body=body)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


# What is served, and what the application sees; None: it must not see it.
SERVED: list[tuple[str, bytes, dict[str, str | None]]] = [
    # Request line
    ("1.1", get(), {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}),
    ("1.0 kept alive", get("Connection: keep-alive", line="GET / HTTP/1.0"), {"SERVER_PROTOCOL": "HTTP/1.0"}),
    ("1.0 without Host", head("GET / HTTP/1.0", "Connection: Keep-Alive"), {"HTTP_HOST": None}),
    ("empty lines before", b"\r\n" * 4 + get(), {}),
    ("visible ASCII", get(line='GET /|^{}"`\\<> HTTP/1.1'), {"PATH_INFO": '/|^{}"`\\<>'}),
    ("unknown method", get(line="BREW / HTTP/1.1"), {"REQUEST_METHOD": "BREW"}),
    ("methods have case", get(line="get / HTTP/1.1"), {"REQUEST_METHOD": "get"}),
    ("longest method", get(line="A" * 64 + " / HTTP/1.1"), {"REQUEST_METHOD": "A" * 64}),
    ("absolute form", get(line="GET http://b:80/p?q HTTP/1.1"), {"HTTP_HOST": "b:80", "PATH_INFO": "/p"}),
    ("absolute form, empty path", get(line="GET HTTPS://b?q HTTP/1.1"), {"PATH_INFO": "/", "QUERY_STRING": "q"}),
    ("asterisk", get(line="OPTIONS * HTTP/1.1"), {"PATH_INFO": "", "REQUEST_URI": "*"}),
    ("percent", get(line="GET /%2F%c3%A9?%2F% HTTP/1.1"), {"PATH_INFO": "//\xc3\xa9", "QUERY_STRING": "%2F%"}),
    ("dots stay", get(line="GET /a/../%2e/b HTTP/1.1"), {"PATH_INFO": "/a/.././b"}),
    # Header fields
    ("no space", get("X-A:b"), {"HTTP_X_A": "b"}),
    ("spaces and tabs", get("X-A: \t b \tc\t "), {"HTTP_X_A": "b \tc"}),
    ("latin-1", get("X-A: \xe9\xff"), {"HTTP_X_A": "\xe9\xff"}),
    ("empty value", get("X-A:"), {"HTTP_X_A": ""}),
    ("Host with port", get(host="[::1]:80"), {"HTTP_HOST": "[::1]:80"}),
    ("cookies", get("Cookie: a=1", "X-A: b", "cookie: b=2"), {"HTTP_COOKIE": "a=1; b=2"}),
    ("others", get("Accept: a", "ACCEPT: b"), {"HTTP_ACCEPT": "a, b"}),
    ("underscore", get("X_Role: admin", "X-Role: user"), {"HTTP_X_ROLE": "user"}),
    ("underscore alone", get("X_Role: admin", "Content_Length: 5"), {"HTTP_X_ROLE": None, "CONTENT_LENGTH": None}),
    ("underscore cannot frame", get("Transfer_Encoding: chunked"), {"HTTP_TRANSFER_ENCODING": None}),
    ("not close", get("Connection: closed, not-close", "Connection: x"), {}),
    ("1.0 ignores Expect", get("Expect: x", "Connection: keep-alive", line="GET / HTTP/1.0"), {}),
    ("Expect without a body", get("Expect: 100-continue"), {}),
    # Bodies
    ("length", post("Content-Length: 5", body=b"hello"), {"CONTENT_LENGTH": "5", "body": "hello"}),
    ("leading zeros", post("Content-Length: 0005", body=b"hello"), {"CONTENT_LENGTH": "5", "body": "hello"}),
    ("body of GET", get("Content-Length: 2") + b"ab", {"body": "ab"}),
    ("no body", post(), {"body": "", "CONTENT_LENGTH": None}),
    (
        "chunked",
        chunked(b"5\r\nhello\r\n0\r\n\r\n"),
        {"body": "hello", "CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": None},
    ),
    ("chunked has case", post("transfer-encoding: \tCHUNKED ", body=b"0\r\n\r\n"), {"CONTENT_LENGTH": "0"}),
    ("chunk extensions", chunked(b'A ; a = "\\"" ;b\r\n0123456789\r\n0;c\r\n\r\n'), {"body": "0123456789"}),
    ("size of 16 digits", chunked(b"0000000000000001\r\na\r\n" + b"0" * 16 + b"\r\n\r\n"), {"body": "a"}),
    ("trailers", chunked(b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), {"body": "a", "HTTP_X_SUM": None}),
    ("longest body", post("Content-Length: 100", body=b"x" * 100), {"body": "x" * 100}),
]  # fmt: skip

REFUSED: list[tuple[str, int, bytes]] = [
    # Request line
    ("two spaces", 400, get(line="GET  / HTTP/1.1")),
    ("tab", 400, get(line="GET\t/ HTTP/1.1")),
    ("space before", 400, get(line=" GET / HTTP/1.1")),
    ("space behind", 400, get(line="GET / HTTP/1.1 ")),
    ("space in the target", 400, get(line="GET /a b HTTP/1.1")),
    ("bare LF", 400, get().replace(b"\r\n", b"\n")),
    ("bare LF behind the line", 400, get().replace(b"\r\n", b"\n", 1)),
    ("bare CR behind the line", 400, get().replace(b"\r\n", b"\r", 1)),
    ("NUL in the target", 400, get(line="GET /\0 HTTP/1.1")),
    ("control byte in the target", 400, get(line="GET /\x7f HTTP/1.1")),
    ("byte above ASCII", 400, get(line="GET /\xe9 HTTP/1.1")),
    ("fragment", 400, get(line="GET /#a HTTP/1.1")),
    ("five empty lines", 400, b"\r\n" * 5 + get()),
    ("method of 65", 400, get(line="A" * 65 + " / HTTP/1.1")),
    ("method that is no token", 400, get(line="GE(T / HTTP/1.1")),
    ("TLS", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("absolute form with userinfo", 400, get(line="GET http://u@b/ HTTP/1.1")),
    ("absolute form without authority", 400, get(line="GET http:///p HTTP/1.1")),
    ("absolute form, other scheme", 400, get(line="GET ftp://b/ HTTP/1.1")),
    ("absolute form, malformed Host", 400, get(line="GET http://b/ HTTP/1.1", host="a b")),
    ("absolute form without Host", 400, get(line="GET http://b/ HTTP/1.1", host=None)),
    ("relative target", 400, get(line="GET a HTTP/1.1")),
    ("asterisk with GET", 400, get(line="GET * HTTP/1.1")),
    ("authority form with GET", 400, get(line="GET a:80 HTTP/1.1")),
    ("CONNECT", 501, get(line="CONNECT a:80 HTTP/1.1")),
    ("percent without digits", 400, get(line="GET /%2g HTTP/1.1")),
    ("percent at the end", 400, get(line="GET /% HTTP/1.1")),
    ("encoded NUL", 400, get(line="GET /%00 HTTP/1.1")),
    ("0.9", 400, b"GET /\r\n\r\n"),
    ("0.9 by number", 505, get(line="GET / HTTP/0.9")),
    ("1.2", 505, get(line="GET / HTTP/1.2")),
    ("2.0", 505, get(line="GET / HTTP/2.0")),
    ("HTTP/2 preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("1.10", 400, get(line="GET / HTTP/1.10")),
    ("version in lower case", 400, get(line="GET / http/1.1")),
    ("long line", 414, get(line=f"GET /{'a' * 190} HTTP/1.1")),
    ("endless line", 414, b"GET /" + b"a" * 500),
    # Header fields
    ("folding", 400, get("X-A: b", " c")),
    ("folding at once", 400, head("GET / HTTP/1.1", " Host: a")),
    ("space before the colon", 400, get("X-A : b")),
    ("no colon", 400, get("X-A")),
    ("no name", 400, get(": b")),
    ("name that is no token", 400, get("X(A: b")),
    ("name above ASCII", 400, get("X\xe9: b")),
    ("NUL in a value", 400, get("X-A: \0")),
    ("control byte in a value", 400, get("X-A: \x1b")),
    ("DEL in a value", 400, get("X-A: \x7f")),
    ("bare CR in a value", 400, get("X-A: b\rc")),
    ("bare LF in a value", 400, get("X-A: b\nContent-Length: 5")),
    ("CR CR LF", 400, get("X-A: b\r")),
    ("no Host", 400, get(host=None)),
    ("two Hosts", 400, get("Host: a")),
    ("two Hosts on 1.0", 400, get("Host: a", line="GET / HTTP/1.0")),
    ("empty Host", 400, get(host="")),
    ("empty Host on 1.0", 400, get(host="", line="GET / HTTP/1.0")),
    *((f"Host {host}", 400, get(host=host)) for host in (
        "a, b", "a b", "a/b", "u@a", "a:b", "a:80:80", "[::1", "::1", "a?", "a#", "a\\b", "a\xe9", ":80", "a:-1",
        "a:123456",
    )),
    ("fields", 431, get(*["X-A: b"] * 10)),
    ("long head", 431, get("X-A: " + "b" * 1000)),
    ("endless head", 431, b"GET / HTTP/1.1\r\nX-A: " + b"b" * 2000),
    ("Expect", 417, get("Expect: 200-ok")),
    ("Expect with more", 417, post("Expect: 100-continue, x", "Content-Length: 1")),
    # Bodies
    *((f"Content-Length {value!r}", 400, post(f"Content-Length: {value}", body=b"hello")) for value in (
        "", "+5", "-5", "0x5", "5, 5", "5,", "5 5", "5.0", "5;", "\xb2", "5\t5", "1e1", "5_0", "five",
    )),
    ("Content-Length twice", 400, post("Content-Length: 5", "content-length: 5", body=b"hello")),
    ("Content-Length on 1.0, list", 400, post("Content-Length: 5,5", line="POST / HTTP/1.0")),
    ("too long", 413, post("Content-Length: 101")),
    ("immense", 413, post("Content-Length: " + "9" * 20)),
    ("Content-Length and Transfer-Encoding", 400, post("Content-Length: 5", "Transfer-Encoding: chunked")),
    ("Transfer-Encoding and Content-Length", 400, post("Transfer-Encoding: chunked", "Content-Length: 5")),
    ("Transfer-Encoding on 1.0", 400, post("Transfer-Encoding: chunked", line="POST / HTTP/1.0")),
    *((f"Transfer-Encoding {value!r}", 400, post(f"Transfer-Encoding: {value}", body=b"0\r\n\r\n")) for value in (
        "", "chunked, chunked", "chunked, gzip", "gzip", "identity", "chunked;a=b", "xchunked", "chunked,", ", chunked",
        "\"chunked\"", "chunked x", "chunk\xe9d", "gzip;q=1, chunked",
    )),
    ("Transfer-Encoding twice", 400, post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")),
    ("Transfer-Encoding, last is none", 400, post("Transfer-Encoding: chunked", "Transfer-Encoding: identity")),
    ("other coding", 501, post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    ("other coding apart", 501, post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked")),
    *((f"chunk {data!r}", 400, chunked(data)) for data in (
        b"\r\n", b"g\r\n", b"+1\r\na\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"1_0\r\n", b" 1\r\na\r\n", b"1 \r\na\r\n",
        b"1\na\r\n", b"1\ra", b"1\r\nab", b"1\r\na\n0\r\n\r\n", b"1\r\na\r0", b"1;\r\na", b"1;a=\r\na", b'1;a="b\r\na',
        b"1;a=\x01\r\n", b"1;\xe9\r\n", b"1,a\r\n", b"0" * 17 + b"\r\n", b"1;" + b"a" * 300,
        b"1;" + b"a" * 300 + b"\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX : a\r\n\r\n",
        b"0\r\nX: a\n\r\n\r\n", b"0\r\nX: a\r\n b\r\n\r\n", b"0\r\n: a\r\n\r\n", b"0\r\nX: \0\r\n\r\n", b"0\r\n\n",
        b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nhost: b\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nAuthorization: b\r\n\r\n", b"0\r\nCookie: b\r\n\r\n", b"0\r\nX-Forwarded-For: b\r\n\r\n",
    )),
    ("chunked too long", 413, chunked(b"65\r\n")),
    ("chunked too long in all", 413, chunked(b"60\r\n" + b"x" * 96 + b"\r\n5\r\n")),
    ("immense chunk", 413, chunked(b"ffffffffffffffff\r\n")),
    ("trailers", 431, chunked(b"0\r\n" + b"X: a\r\n" * 11 + b"\r\n")),
    ("long trailers", 431, chunked(b"0\r\nX: " + b"a" * 2000)),
]  # fmt: skip


def show(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    shown["body"] = environ["wsgi.input"].read(-1).decode("latin-1")
    answer = json.dumps(shown).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


@pytest.fixture(scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Whatever a request looks like, the standard library's check of both sides of PEP 3333 is content."""
    with serving(validator(show), limits=LIMITS, threads=request.param) as made:
        yield made


def in_pieces(data: bytes) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, and cut at random."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    places = sorted(random.Random(seed).sample(range(len(data)), min(len(data), 4)))
    yield [
        data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True) if begin < end
    ]


def sent(server: Serving, parts: list[bytes]) -> Client:
    client = server.connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        client.send(part)
    return client


@pytest.mark.parametrize(("rule", "data", "wanted"), SERVED, ids=[case[0] for case in SERVED])
def test_served(server: Serving, rule: str, data: bytes, wanted: dict[str, str | None]) -> None:
    mark = len(server.log.lines)
    for parts in in_pieces(data + END):
        client = sent(server, parts)
        status, headers, body = client.response()
        assert (status, headers.get("connection")) == (200, "keep-alive" if b"HTTP/1.0" in data else None)
        seen = json.loads(body)
        assert {key: seen.get(key) for key in wanted} == wanted
        # The next request begins where this one ends.
        status, headers, body = client.response()
        assert (status, json.loads(body)["PATH_INFO"], headers["connection"]) == (200, "/end", "close")
        assert client.rest() == b""
        client.close()
    assert server.log.lines[mark:] == []


@pytest.mark.parametrize(("rule", "status", "data"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(server: Serving, rule: str, status: int, data: bytes) -> None:
    for parts in in_pieces(data + END):
        mark = len(server.log.lines)
        client = sent(server, parts)
        peer = "{}:{}".format(*client.sock.getsockname())
        answered, headers, body = client.response()
        assert (answered, headers["connection"]) == (status, "close")
        assert headers["date"]
        assert headers["server"] == "prefork"
        assert body.startswith(f"{status} ".encode())
        assert len(body) < 300
        # Nothing behind it is taken for a request, and the end is not a reset.
        assert client.rest() == b""
        [(event, line, _)] = server.log.lines[mark:]
        assert event == "request-refused"
        assert f"answered {status} to {peer}: {body.splitlines()[1].decode()}" == line
        client.close()


@pytest.mark.parametrize(
    "data", [get(line="HEAD / HTTP/1.1", host=None), get("Expect: x", line="HEAD / HTTP/1.1")]
)
def test_a_refused_head_has_no_body(server: Serving, data: bytes) -> None:
    client = sent(server, [data])
    _, headers, _ = client.response(body=False)
    assert int(headers["content-length"]) > 0
    assert client.rest() == b""


@pytest.mark.parametrize(
    ("line", "fields", "kept"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: Close"], False),
        ("GET / HTTP/1.1", ["Connection: foo ,\tclose"], False),
        ("GET / HTTP/1.1", ["Connection: keep-alive", "Connection: x,close"], False),
        ("GET / HTTP/1.1", ["Connection: close, keep-alive"], False),
        ("GET / HTTP/1.1", ["Connection: TE, Upgrade", "Upgrade: websocket"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: KEEP-ALIVE"], True),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False),
        ("GET / HTTP/1.0", ["Keep-Alive: 5"], False),
    ],
)
def test_connection_options(server: Serving, line: str, fields: list[str], kept: bool) -> None:
    client = sent(server, [get(*fields, line=line)])
    _, headers, _ = client.response()
    if kept:
        assert headers.get("connection") == (None if "1.1" in line else "keep-alive")
        assert client.get()[0] == 200
    else:
        assert headers["connection"] == "close"
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post("Expect: 100-continue", "Content-Length: 101"), 413),
        (post("Expect: 100-continue", "Content-Length: x"), 400),
        (post("Expect: 100-continue", "Transfer-Encoding: gzip, chunked"), 501),
        (post("Expect: 100-continue", "Content-Length: 5", line="POST / HTTP/3.0"), 505),
        (post("Expect: 100-continue", "Content-Length: 0"), 200),
        (post("Expect: 100-Continue", "Transfer-Encoding: chunked"), 100),
        (post("Expect: 100-continue", "Content-Length: 5"), 100),
        (post("Expect: 100-continue", "Content-Length: 5", body=b"hello"), 200),
        (post("Expect: 100-continue", "Content-Length: 5", body=b"hello", line="POST / HTTP/1.0"), 200),
    ],
)
def test_continue(server: Serving, data: bytes, status: int) -> None:
    client = sent(server, [data])
    assert client.response()[0] == status


def test_a_chunk_too_large_after_continue_is_refused_once(server: Serving) -> None:
    client = sent(server, [post("Expect: 100-continue", "Transfer-Encoding: chunked")])
    assert client.response()[0] == 100
    client.send(b"fff\r\n")
    assert client.response()[0] == 413
    assert client.rest() == b""


# Responses: what the application does, and what follows on the connection.


def answer(environ: dict[str, Any], start_response: Any) -> Any:
    status, body, *headers = json.loads(environ["QUERY_STRING"].replace("'", '"').replace("%20", " "))
    write = start_response(status, [tuple(header) for header in headers])
    if environ["PATH_INFO"] == "/write":
        write(body.encode())
        return []
    if environ["PATH_INFO"] == "/raise":
        raise LookupError(body)
    return iter([body.encode()]) if environ["PATH_INFO"] == "/iter" else [body.encode()]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/list", "/iter", "/write", "/raise"])
@pytest.mark.parametrize(
    ("status", "length"),
    [("200", None), ("204", None), ("204", 5), ("304", None), ("304", 5), ("205", None), ("404", 5)],
)
def test_what_has_no_body_has_none(
    answers: Serving, method: str, path: str, status: str, length: int | None
) -> None:
    client = answers.connect()
    headers = f",['Content-Length','{length}']" if length else ""
    client.send(f"{method} {path}?['{status}%20x','hello'{headers}] HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    bodiless = method == "HEAD" or (status in ("204", "304") and path != "/raise")
    got, headers, body = chunked_response(client, bodiless)
    assert got == (500 if path == "/raise" else int(status))
    assert body == b"" if bodiless or got == 205 else body in (b"hello", b"500 Internal Server Error\n")
    if got == 204:
        assert "content-length" not in headers
    if got in (204, 205, 304):
        assert "transfer-encoding" not in headers
    # Not a byte too many: what comes next is a head.
    client.send(b"GET /list?['200%20x','next'] HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.response()[2] == b"next"


def chunked_response(client: Client, bodiless: bool) -> tuple[int, dict[str, str], bytes]:
    status, headers, _ = client.response(body=False)
    if bodiless:
        return status, headers, b""
    if headers.get("transfer-encoding") == "chunked":
        assert client._file.read(15) == b"5\r\nhello\r\n0\r\n\r\n"
        return status, headers, b"hello"
    return status, headers, client._file.read(int(headers["content-length"]))


@pytest.fixture(scope="module")
def answers() -> Iterator[Serving]:
    with serving(answer) as made:
        yield made


@pytest.mark.parametrize("status", ["100", "101", "103"])
def test_an_interim_status_of_the_application_ends_the_connection(answers: Serving, status: str) -> None:
    client = answers.connect()
    client.send(f"GET /list?['{status}%20x','hello'] HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert body == b""
    assert b"Connection: close" in head
    assert b"Content-Length" not in head


@pytest.mark.parametrize(
    "given",
    ["'fine',''", "'2000%20x',''", "'200',''", "'600%20x',''", "'200%20x\\r\\nX:%20a',''",
     "'200%20x','',['X','a\\nb']", "'200%20x','',['X','a\\u0000b']", "'200%20x','',['X\\r','a']",
     "'200%20x','',['X%20','a']", "'200%20x','',['X','\\u20ac']",
     "'200%20x','',['X',5]", "'200%20x','',['X']", "'200%20x','',['Connection','close']",
     "'200%20x','',['transfer-encoding','chunked']", "'200%20x','',['Content-Length','+1']",
     "'200%20x','',['Content-Length','1'],['content-length','1']"],
)  # fmt: skip
def test_what_the_application_may_not_say_is_a_500(answers: Serving, given: str) -> None:
    client = answers.connect()
    client.send(f"GET /list?[{given}] HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    status, headers, body = client.response()
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert {"date", "server", "content-length", "content-type"} == headers.keys()
    assert client.get("/list?['200%20x','next']")[2] == b"next"


def test_nothing_is_left(server: Serving, answers: Serving) -> None:
    for used in (server, answers):
        for client in used.clients:
            client.close()
        eventually(lambda used=used: used.server.open_connections == 0)
        assert used.log.named("internal-error") == []
