"""The application that is served: as little as possible, so that what is measured is the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Flask

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BODY = b"Hello, world!\n"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
LARGE = bytes(1 << 20)
PIECE, PIECES = b"some of a long answer, as it is made\n" * 28, 16

flask = Flask(__name__)


@flask.get("/json")
def json() -> dict[str, object]:
    """Answer with a small object."""
    return {"message": "Hello, world!", "numbers": [1, 2, 3], "ok": True}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer ``/`` with the same few bytes, and each other path of the scenarios in its way."""
    path = environ["PATH_INFO"]
    if path == "/":
        start_response("200 OK", list(HEADERS))
        return [BODY]
    if path == "/post":
        received = str(len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(received)))])
        return [received]
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(LARGE)))])
        return [LARGE]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()
    return flask(environ, start_response)


def stream() -> Iterator[bytes]:
    """Yield pieces of 1 KiB and a little."""
    for _ in range(PIECES):
        yield PIECE
