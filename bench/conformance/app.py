"""The application that is asked: it reports what it sees over a socket of its own, so that no server can embellish it.

It behaves like a careful WSGI application of today: a body is read by ``CONTENT_LENGTH``, or to its end where the
server says that there is one, or where the request was chunked; by uWSGI's own function if that is the server.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

REPORT_TO = "CONFORMANCE_SOCKET"
LONGEST_BYTES = 1 << 24
SHOWN = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "CONTENT_LENGTH", "CONTENT_TYPE")

uwsgi: Any = None
with suppress(ImportError):
    uwsgi = import_module("uwsgi")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read all of the request, report it, and answer as the path says."""
    seen = {
        key: value
        for key, value in environ.items()
        if isinstance(value, str) and (key in SHOWN or key.startswith("HTTP_")) and len(value) < 500
    }
    try:
        body = read_body(environ)
    except BaseException:
        report(seen | {"complete": False})
        raise
    length = environ.get("CONTENT_LENGTH", "")
    short = length.isdecimal() and len(body) < int(length)
    report(seen | {"body": body[:1000].decode("latin-1"), "complete": not short})
    return answer(environ["PATH_INFO"], start_response)


def read_body(environ: WSGIEnvironment) -> bytes:
    """Return what the server gives as the body, whatever it makes of the length."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    body: bytes
    if length and length.isdecimal():
        body = stream.read(min(int(length), LONGEST_BYTES))
    elif uwsgi is not None and environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        body = b"".join(iter(uwsgi.chunked_read, b""))
    elif environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ:
        body = stream.read()
    else:
        body = b""
    return body


def report(seen: dict[str, object]) -> None:
    """Tell the judge, if it listens."""
    with suppress(BlockingIOError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reports:
        reports.sendto(json.dumps(seen).encode(), socket.MSG_DONTWAIT, os.environ[REPORT_TO])


def answer(path: str, start_response: StartResponse) -> Iterable[bytes]:
    """Answer ordinarily, or do what an application should not."""
    if path == "/stream":
        start_response("200 OK", [])
        return iter((b"one", b"two", b"three"))
    if path == "/breaks":
        start_response("200 OK", [])
        return broken()
    if path == "/split":
        start_response("200 OK", [("X-A", "b\r\nX-Injected: c")])
        return [b"split"]
    status = {"/204": "204 No Content", "/304": "304 Not Modified"}.get(path, "200 OK")
    length = {"/short": "9", "/long": "3", "/204": ""}.get(path, "5")
    start_response(status, [("Content-Length", length)] if length else [])
    return [b"hello"]


def broken() -> Iterator[bytes]:
    """Fail when some of the answer was sent."""
    yield b"one"
    raise RuntimeError("meant to fail")
