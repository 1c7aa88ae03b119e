"""Collecting the body of a request in memory until it is complete; used by a connection in the serve loop."""

from __future__ import annotations

from prefork.http.chunked import ChunkedDecoder
from prefork.http.head import Head, HeadLimits

_SMALL_BYTES = 4096
"""Pieces below this are put together as they come: kept apart, a byte would take fifty."""


class IncomingBody:
    """The body of one request, whichever way it is framed."""

    __slots__ = ("_chunked", "_missing_bytes", "_pieces", "head", "rest")

    def __init__(self, head: Head, limits: HeadLimits) -> None:
        self.head = head
        self.rest = b""
        """Once complete: the bytes after the body, which are the next request's."""
        self._missing_bytes = head.content_length
        self._chunked = ChunkedDecoder(limits) if head.chunked else None
        self._pieces: list[bytes | bytearray] = []

    def feed(self, data: bytes) -> bool:
        """Take what was received; return whether the body is complete. Raises ``BadRequest``."""
        chunked = self._chunked
        if chunked is not None:
            self._collect(chunked.feed(data))
            self.rest = chunked.rest
            return chunked.complete
        missing_bytes = self._missing_bytes
        if len(data) > missing_bytes:
            self.rest = data[missing_bytes:]
            data = data[:missing_bytes]
        self._missing_bytes -= len(data)
        self._collect(data)
        return not self._missing_bytes

    def take(self) -> bytes:
        """Return the complete body."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else b"".join(pieces)

    def _collect(self, data: bytes) -> None:
        pieces = self._pieces
        if len(data) >= _SMALL_BYTES:
            pieces.append(data)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += data
        elif pieces:
            pieces.append(bytearray(data))
        elif data:
            # Mostly the whole body, which then is not copied.
            pieces.append(data)
