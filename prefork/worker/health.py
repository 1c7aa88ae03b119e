"""The health checks that a worker answers itself, on the application's own listeners; runs only in a worker.

They do not enter the application, nor wait for one of its threads, and are neither counted nor in the access log.
"""

from __future__ import annotations

from prefork.http.head import Head
from prefork.http.response import connection_line

_METHODS = ("GET", "HEAD")


class Health:
    """The answers to ``health.live`` and ``health.ready``, either of which may be empty: not served."""

    def __init__(self, live: str, ready: str) -> None:
        self._paths = frozenset({live, ready} - {""})
        self._ready = ready

    def asks(self, head: Head) -> bool:
        """Tell whether the request is a health check; other methods are the application's."""
        return head.path in self._paths and head.method in _METHODS

    def answer(self, head: Head, closing: bool, keep: bool, server_lines: bytes) -> bytes:
        """Return the whole response. ``closing``: the server stops, so it is not ready for more."""
        if closing and head.path == self._ready:
            status, body = b"503 Service Unavailable", b"stopping\n"
        else:
            status, body = b"200 OK", b"ok\n"
        lines = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: %d\r\n%b%b"
        connection = connection_line(keep, head.version == (1, 1))
        return lines % (status, len(body), connection, server_lines) + (
            b"" if head.method == "HEAD" else body
        )
