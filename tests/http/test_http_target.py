"""What a refused request was about, for the access log."""

import pytest

from prefork.http.target import readable_line


@pytest.mark.parametrize(
    ("received", "method", "target", "protocol"),
    [
        (b"GET /a?b HTTP/1.1\r\nbroken", "GET", "/a?b", "HTTP/1.1"),
        (b"\r\nGET / HTTP/1.1", "GET", "/", "HTTP/1.1"),
        (b"GET /%00 HTTP/2.0\r\n", "GET", "/%00", "HTTP/2.0"),
        (b"GET / HTTP/1.11\r\n", "GET", "/", ""),
        (b"POST /" + b"x" * 9000, "POST", "/" + "x" * 511 + "...", ""),
        (b"GET /\xe9 HTTP/1.1\r\n", "GET", "/", ""),
        (b"GET", "", "", ""),
        (b"\x16\x03\x01\x02\x00", "", "", ""),
        (b"", "", "", ""),
    ],
)
def test_readable_line(received: bytes, method: str, target: str, protocol: str) -> None:
    assert readable_line(received) == (method, target, protocol)
