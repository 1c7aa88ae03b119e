"""The application that slow clients meet: a small answer, a large one, and one that reads a body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer ``/mib/N`` with N MiB of memory of its own, everything else with a few bytes."""
    environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    body = bytes(int(path.rpartition("/")[2]) << 20) if path.startswith("/mib/") else b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
