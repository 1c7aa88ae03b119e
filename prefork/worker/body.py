"""Collecting the body of a request in memory until it is complete; used by a connection in the serve loop."""

from __future__ import annotations

from prefork.http.chunked import ChunkedDecoder
from prefork.http.head import Head, HeadLimits


class IncomingBody:
    """The body of one request, whichever way it is framed."""

    __slots__ = ("_chunked", "_collected", "_length", "head", "rest")

    def __init__(self, head: Head, limits: HeadLimits) -> None:
        self.head = head
        self.rest = b""
        """Once complete: the bytes after the body, which are the next request's."""
        self._collected = bytearray()
        self._length = head.content_length
        self._chunked = ChunkedDecoder(limits) if head.chunked else None

    def feed(self, data: bytes) -> bool:
        """Take what was received; return whether the body is complete. Raises ``BadRequest``."""
        if self._chunked is not None:
            self._collected += self._chunked.feed(data)
            self.rest = self._chunked.rest
            return self._chunked.complete
        missing = self._length - len(self._collected)
        if len(data) > missing:
            self.rest = data[missing:]
            data = data[:missing]
        self._collected += data
        return len(data) == missing

    def take(self) -> bytes:
        """Return the complete body."""
        return bytes(self._collected)
