"""The gateway under the standard library's own check of both sides of PEP 3333."""

from __future__ import annotations

from typing import Any
from wsgiref.validate import validator

import pytest

from prefork.http.head import HeadLimits, HeadParser
from prefork.worker.exchange import Request
from prefork.worker.gateway import Gateway


class Log:
    def debug(self, event: str, message: str, /, **fields: Any) -> None:
        raise AssertionError(f"{event}: {message} {fields.get('traceback', '')}")

    warning = error = debug


class Recorder:
    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes | tuple[bytes, ...], last: bool = False) -> None:
        self.sent += data if isinstance(data, bytes) else b"".join(data)

    began_ns = 0

    def send_meanwhile(self) -> None:
        pass

    def abort(self) -> None:
        raise AssertionError("aborted")

    def enter(self, request_line: bytes, deadline_ns: int = 0, slow_ns: int = 0) -> int:
        return 0

    def leave(
        self, method: str, status: int, start_ns: int, sent_bytes: int, has_exchange: bool = False
    ) -> int:
        return 0


@validator
def app(environ: dict[str, Any], start_response: Any) -> Any:
    body = b"".join(environ["wsgi.input"])
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return iter([environ["PATH_INFO"].encode(), body])


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"GET /x HTTP/1.0\r\n\r\n", b""),
        (b"POST /p?q HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\n", b"a\nbc"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"abc"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/root"])
def test_valid(raw: bytes, body: bytes, root_path: str) -> None:
    gateway, recorder = Gateway(app, log=Log(), root_path=root_path), Recorder()
    base = gateway.connection_environ("h", "80", "c", "1")
    assert gateway.respond(Request(HeadParser(HeadLimits()).parse(raw), body, base), recorder, recorder) is (
        b"HTTP/1.1" in raw
    )
    assert recorder.sent.startswith(b"HTTP/1.1 200 OK\r\n")
