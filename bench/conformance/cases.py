"""What is sent, by the sections of RFC 9112 (and RFC 9110), with all that they allow to come of it.

Where a recipient may be lenient, both ways are allowed; what is judged is what can do harm, or breaks clients.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.conformance.endings import ends, expectations, responses
from bench.conformance.judge import Verdict, answer, drop, either, reject, serve, uncalled, wait
from bench.conformance.mutations import mutations
from bench.conformance.request import Case, chunked, get, head, post


def cases() -> Iterator[Case]:
    """Yield all cases, each with its section."""
    tables = {
        "Request line": request_lines(),
        "Header fields": fields(),
        "Host": hosts(),
        "Content-Length": lengths(),
        "Transfer-Encoding": codings(),
        "Chunks": chunks(),
    }
    for section, table in tables.items():
        for name, data, allowed in table:
            yield Case(section, name, data, allowed)
    yield from mutations()
    yield from ends()
    yield from responses()
    yield from expectations()


Rows = Iterator[tuple[str, bytes, Verdict]]
LENIENT = either(reject(), serve(PATH_INFO="/"))


def request_lines() -> Rows:
    """RFC 9112 §2.2, §2.3 and §3."""
    yield "GET", get(), serve(REQUEST_METHOD="GET", PATH_INFO="/", body="")
    yield "query", get(line="GET /p?q=%20 HTTP/1.1"), serve(PATH_INFO="/p", QUERY_STRING="q=%20")
    yield "percent-encoded path", get(line="GET /a%2Fb%20c HTTP/1.1"), serve(PATH_INFO="/a/b c")
    yield "empty line before", b"\r\n" + get(), LENIENT
    yield (
        "unknown method",
        get(line="BREW / HTTP/1.1"),
        either(serve(REQUEST_METHOD="BREW"), answer(405, 501)),
    )
    yield "methods have case", get(line="get / HTTP/1.1"), either(serve(REQUEST_METHOD="get"), reject())
    yield (
        "absolute form",
        get(line="GET http://b/p?q HTTP/1.1", host="b"),
        serve(PATH_INFO="/p", QUERY_STRING="q"),
    )
    yield (
        "absolute form replaces Host",
        get(line="GET http://b/p HTTP/1.1"),
        serve(PATH_INFO="/p", HTTP_HOST="b"),
    )
    yield (
        "absolute form, empty path",
        get(line="GET http://a?q HTTP/1.1"),
        serve(PATH_INFO=("", "/"), QUERY_STRING="q"),
    )
    yield (
        "OPTIONS *",
        get(line="OPTIONS * HTTP/1.1"),
        either(serve(REQUEST_METHOD="OPTIONS"), answer(200, 204, 405, 501)),
    )
    yield "HTTP/1.0", head("GET / HTTP/1.0"), serve(PATH_INFO="/")
    yield "HTTP/1.2", get(line="GET / HTTP/1.2"), either(serve(), reject(505))
    yield "HTTP/1.0 with Host", get(line="GET / HTTP/1.0"), serve(HTTP_HOST="a")
    tunnel = serve(last=True, REQUEST_METHOD="CONNECT")
    yield "CONNECT", get(line="CONNECT a:80 HTTP/1.1"), either(reject(), tunnel)
    for name, line in {
        "asterisk with GET": "GET * HTTP/1.1",
        "authority form with GET": "GET a:80 HTTP/1.1",
        "relative target": "GET a HTTP/1.1",
        "space in the target": "GET /a b HTTP/1.1",
        "no target": "GET HTTP/1.1",
        "fragment": "GET /#a HTTP/1.1",
        "byte above ASCII in the target": "GET /\xe9 HTTP/1.1",
        "NUL in the target": "GET /\0 HTTP/1.1",
        "DEL in the target": "GET /\x7f HTTP/1.1",
        "method that is no token": "GE(T / HTTP/1.1",
        "method with a control byte": "G\x01T / HTTP/1.1",
        "blanks alone": "   ",
        "space before the method": " GET / HTTP/1.1",
        "words before the method": "x y GET / HTTP/1.1",
        "no version": "GET /",
        "version in lower case": "GET / http/1.1",
        "another protocol": "GET / HTTQ/1.1",
        "no minor version": "GET / HTTP/1",
        "three-digit version": "GET / HTTP/1.10",
        "leading zero in the version": "GET / HTTP/01.1",
        "space in the version": "GET / HTTP/ 1.1",
        "comma in the version": "GET / HTTP/1,1",
        "HTTP/0.9 by number": "GET / HTTP/0.9",
        "HTTP/2.0": "GET / HTTP/2.0",
        "HTTP/9.9": "GET / HTTP/9.9",
    }.items():
        yield name, get(line=line), reject()
    for name, line in {
        "two spaces": "GET  / HTTP/1.1",
        "tab": "GET\t/ HTTP/1.1",
        "space at the end": "GET / HTTP/1.1 ",
    }.items():
        yield name, get(line=line), LENIENT
    yield "bare LF everywhere", get().replace(b"\r\n", b"\n"), LENIENT
    yield "bare LF behind the line", get().replace(b"\r\n", b"\n", 1), LENIENT
    yield "bare CR behind the line", get().replace(b"\r\n", b"\r", 1), reject()
    yield "bare CR everywhere", get().replace(b"\r\n", b"\r"), reject()
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", uncalled
    yield "TLS", b"\x16\x03\x01\x00\xfc\x01\x00\x00\xf8\x03\x03" + b"\r\n" * 2, uncalled
    yield "noise", b"\xff\x00\x01\x02\r\n\r\n", uncalled
    yield (
        "100 KB of target",
        get(line=f"GET /{'a' * 100_000} HTTP/1.1"),
        either(reject(400, 414, 431, answered=True), serve()),
    )


def fields() -> Rows:
    """RFC 9112 §5, RFC 9110 §5."""
    yield "no space", get("X-A:b"), serve(HTTP_X_A="b")
    yield "spaces and tabs around", get("X-A: \t b \tc\t "), serve(HTTP_X_A="b \tc")
    yield "empty value", get("X-A:"), serve(HTTP_X_A="")
    yield "bytes above ASCII in a value", get("X-A: \xe9\xff"), either(serve(HTTP_X_A="\xe9\xff"), reject())
    yield "names have no case", get("x-a: b", "X-B: c"), serve(HTTP_X_A="b", HTTP_X_B="c")
    yield "odd but legal name", get("X-!#$%&'*+.^`|~9: b"), serve()
    yield "repeated", get("Accept: a", "ACCEPT: b"), serve(HTTP_ACCEPT=("a, b", "a,b"))
    yield "Upgrade to something unknown", get("Connection: upgrade", "Upgrade: x/1"), serve(PATH_INFO="/")
    yield "unknown field", get("X-A: b", 'X-B: "c, d"'), serve(HTTP_X_B='"c, d"')
    yield "space before the colon", get("X-A : b"), reject(400)
    yield "tab before the colon", get("X-A\t: b"), reject(400)
    yield "space before the colon of Host", head("GET / HTTP/1.1", "Host : a"), reject(400)
    yield "no colon", get("X-A"), reject()
    yield "no name", get(": b"), reject()
    yield "space in a name", get("X A: b"), reject()
    for name, character in {
        "(": "(",
        "/": "/",
        "[": "[",
        "@": "@",
        "NUL": "\0",
        "DEL": "\x7f",
        "É": "\xc9",
    }.items():
        yield f"name with {name}", get(f"X{character}A: b"), reject()
    clean = serve(HTTP_X_A=("b c", "b  c"))
    yield "folding", get("X-A: b", " c"), either(reject(), clean)
    yield "folding with a tab", get("X-A: b", "\tc"), either(reject(), clean)
    yield (
        "space before the first field",
        head("GET / HTTP/1.1", " X-A: b", "Host: a"),
        either(reject(), serve(HTTP_HOST="a", HTTP_X_A=None)),
    )
    yield "NUL in a value", get("X-A: b\0c"), either(reject(), clean)
    yield "bare CR in a value", get("X-A: b\rc"), either(reject(), clean)
    yield (
        "bare CR, then what looks like a field",
        get("X-A: b\rX-B: c"),
        either(reject(), serve(HTTP_X_B=None)),
    )
    yield "CR CR LF", get("X-A: b\r"), either(reject(), serve(HTTP_X_A="b"))
    yield "bare LF between fields", get("X-A: b\nX-B: c"), either(reject(), serve(HTTP_X_A="b", HTTP_X_B="c"))
    yield "LF CR at the end", get("X-A: b")[:-4] + b"\n\r\n\r\n", LENIENT
    yield (
        "underscore does not pose as hyphen",
        get("X_Role: b", "X-Role: c"),
        either(reject(), serve(HTTP_X_ROLE="c")),
    )
    yield (
        "underscore does not frame",
        get("Content_Length: 5", "Transfer_Encoding: chunked"),
        either(reject(), serve(CONTENT_LENGTH=(None, "", "0"), HTTP_TRANSFER_ENCODING=None, body="")),
    )
    yield (
        "1,000 fields",
        get(*(f"X-{number}: a" for number in range(1000))),
        either(reject(400, 413, 431, answered=True), serve()),
    )
    yield (
        "100 KB of value",
        get("X-A: " + "b" * 100_000),
        either(reject(400, 413, 431, answered=True), serve()),
    )


def hosts() -> Rows:
    """RFC 9112 §3.2."""
    yield "with port", get(host="a:80"), serve(HTTP_HOST="a:80")
    yield "IPv6", get(host="[::1]:80"), serve(HTTP_HOST="[::1]:80")
    yield "empty", get(host=""), either(serve(HTTP_HOST=""), reject())
    yield "missing", get(host=None), reject(400)
    yield "twice", get("Host: b"), reject(400)
    yield "twice, equal", get("host: a"), reject(400)
    yield "twice, apart", head("GET / HTTP/1.1", "Host: a", "X-A: b", "Host: b"), reject(400)
    yield "missing in absolute form", get(line="GET http://a/ HTTP/1.1", host=None), reject(400)
    for value in (
        "a b",
        "a, b",
        "u@a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a:b",
        "a:80:80",
        "[::1",
        "a\x01b",
        "http://a/",
    ):
        yield f"{value!r}", get(host=value), reject(400)


def lengths() -> Rows:
    """RFC 9110 §8.6, RFC 9112 §6.2 and §6.3."""
    hello = serve(body="hello")
    yield "valid", post("Content-Length: 5"), hello
    yield "zero", post("Content-Length: 0", body=b""), serve(body="")
    yield "absent", post(body=b""), serve(body="")
    yield "spaces around", post("Content-Length:  5 \t"), hello
    yield "body of GET", get("Content-Length: 5") + b"hello", either(hello, drop())
    for method in ("HEAD", "OPTIONS", "DELETE", "BREW"):
        data = post("Content-Length: 5", line=f"{method} / HTTP/1.1")
        yield f"body of {method}", data, either(hello, drop(), answer(405, 501))
    yield "leading zeros", post("Content-Length: 0005"), either(hello, drop())
    yield "list of equals", post("Content-Length: 5, 5"), either(hello, drop(400))
    yield "twice, equal", post("Content-Length: 5", "Content-Length: 5"), either(hello, drop(400))
    yield "twice, different", post("Content-Length: 5", "Content-Length: 6"), drop(400)
    yield "twice, the first 0", post("Content-Length: 0", "Content-Length: 5"), drop(400)
    yield "twice, one malformed", post("Content-Length: 5", "Content-Length: x"), drop(400)
    values = (
        "",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5_0",
        "5 5",
        "5, 6",
        "5,",
        "five",
        "5.0",
        "5;",
        "5e0",
        "0o5",
        "\xb2",
        "5\0",
    )
    for value in values:
        # An empty element of a list is no length, and none at all either.
        yield (
            f"{value!r}",
            post(f"Content-Length: {value}"),
            either(drop(), hello) if value == "5," else drop(),
        )
    yield "space before the colon", post("Content-Length : 5"), drop(400)
    yield "folded", post("Content-Length:", " 5"), either(drop(), hello)
    for size in (20, 40):
        yield f"{size} digits", post("Content-Length: " + "9" * size), either(drop(400, 413), wait)
    yield "2⁶⁴ + 5", post(f"Content-Length: {2**64 + 5}"), either(drop(400, 413), wait)


def codings() -> Rows:
    """RFC 9112 §6.1, §6.3 and §7."""
    body = b"5\r\nhello\r\n0\r\n\r\n"
    hello = serve(body="hello")
    ends = either(drop(), serve(last=True, body="hello"))
    yield "chunked", chunked(body), hello
    yield "any case", post("transfer-encoding: ChunKed", body=body), hello
    yield "spaces around", post("Transfer-Encoding: \t chunked \t", body=body), hello
    yield "with Content-Length", chunked(body, "Content-Length: 5"), ends
    yield "behind Content-Length", post("Content-Length: 5", "Transfer-Encoding: chunked", body=body), ends
    yield "with Content-Length: 0", chunked(body, "Content-Length: 0"), ends
    yield "on HTTP/1.0", post("Transfer-Encoding: chunked", body=body, line="POST / HTTP/1.0"), ends
    yield (
        "on HTTP/1.0, kept alive",
        post("Transfer-Encoding: chunked", "Connection: keep-alive", body=body, line="POST / HTTP/1.0"),
        ends,
    )
    yield "space before the colon", post("Transfer-Encoding : chunked", body=body), drop(400)
    yield "folded", post("Transfer-Encoding:", " chunked", body=body), either(drop(), hello)
    yield "empty elements", post("Transfer-Encoding: , chunked,", body=body), either(drop(), hello)
    for value in (
        "chunked, chunked", "chunked, gzip", "gzip", "identity", "chunked, identity", "xchunked", "chunkedx",
        "chunked x", "chunked;a=b", '"chunked"', "\x0bchunked", "chunked\x0c", "chunked\0", "chunk\xe9d", "cow",
        "chu nked", "gzip, chunked", "gzip;q=1, chunked",
    ):  # fmt: skip
        yield f"{value!r}", post(f"Transfer-Encoding: {value}", body=body), drop()
    yield "twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=body), drop()
    yield (
        "and then identity",
        post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=body),
        drop(),
    )
    yield "another before", post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=body), drop()
    for value in ("xchunked", "identity", "\x0bchunked", "chunked, cow"):
        yield (
            f"{value!r} with Content-Length",
            post(f"Transfer-Encoding: {value}", "Content-Length: 15", body=body),
            drop(),
        )


def chunks() -> Rows:
    """RFC 9112 §7.1."""
    for name, body, seen in (
        ("several", b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
        ("none", b"0\r\n\r\n", ""),
        (
            "hexadecimal in any case",
            b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
            "01234567890123456789a",
        ),
        ("leading zeros", b"005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("extension", b"5;a\r\nhello\r\n0;b=c\r\n\r\n", "hello"),
        ("quoted extension", b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n', "hello"),
        ("trailers", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", "hello"),
        ("CRLF in the data", b"6\r\n0\r\n\r\na\r\n0\r\n\r\n", "0\r\n\r\na"),
    ):
        yield name, chunked(body), serve(body=seen)
    for body in (
        b"g\r\n", b"\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"0_5\r\nhello\r\n",
        b" 5\r\nhello\r\n", b"5 a\r\nhello\r\n", b"5,5\r\nhello\r\n", b"5\nhello\r\n", b"5\rhello\r\n", b"5\r\nhello",
        b"5\r\nhello\n", b"5\r\nhello\r", b"5\r\nhello!!\r\n", b"5\r\nhelloXX", b"5;a\nb\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n", b"5;a\0\r\nhello\r\n", b"5\0\r\nhello\r\n", b"5\xb2\r\nhello\r\n", b"\xb2\r\nhello\r\n",
    ):  # fmt: skip
        yield f"{body.decode('latin-1')!r}", chunked(body + b"0\r\n\r\n"), drop()
    yield "space behind the size", chunked(b"5 \r\nhello\r\n0\r\n\r\n"), either(drop(), serve(body="hello"))
    yield "semicolon alone", chunked(b"5;\r\nhello\r\n0\r\n\r\n"), either(drop(), serve(body="hello"))
    for name, size in {
        "2⁶⁴ + 5": b"10000000000000005",
        "2³² + 5": b"100000005",
        "2⁶⁴ - 1": b"f" * 16,
    }.items():
        yield f"size {name}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"), either(drop(), wait)
    for tail in (
        b"0\r\n\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\n: a\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
    ):
        allowed = either(drop(), serve(body="hello")) if tail == b"0\r\n\n" else drop()
        yield f"end {tail.decode('latin-1')!r}", chunked(b"5\r\nhello\r\n" + tail), allowed
    for trailer in (b"Content-Length: 50", b"Transfer-Encoding: chunked", b"Host: b", b"X-Role: admin"):
        unharmed = serve(body="hello", HTTP_HOST="a", HTTP_X_ROLE=None)
        yield (
            f"trailer {trailer.decode()}",
            chunked(b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"),
            either(drop(), unharmed),
        )
    yield (
        "endless extension",
        chunked(b"5;" + b"a" * 200_000 + b"\r\nhello\r\n0\r\n\r\n"),
        either(drop(), serve(body="hello")),
    )
