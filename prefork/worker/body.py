"""Collecting the body of a request until it is complete, in memory or in a temporary file; used by a connection in
the serve loop.
"""

from __future__ import annotations

from prefork.http.chunked import ChunkedDecoder
from prefork.http.head import Head, HeadLimits
from prefork.http.refusal import BadRequest
from prefork.worker.storage import SpoolFile, Storage


class IncomingBody:
    """The body of one request, whichever way it is framed; to be closed once the application has had it."""

    __slots__ = (
        "_chunked",
        "_held",
        "_memory_bytes",
        "_missing_bytes",
        "_spool",
        "_storage",
        "_taken_bytes",
        "head",
        "rest",
    )

    def __init__(self, head: Head, limits: HeadLimits, storage: Storage, memory_bytes: int) -> None:
        """``memory_bytes``: how much may be held in memory. Raises ``BadRequest`` if there can be no room."""
        self.head = head
        self.rest = b""
        """Once complete: the bytes after the body, which are the next request's."""
        self._missing_bytes = head.content_length
        self._chunked = ChunkedDecoder(limits) if head.chunked else None
        # One buffer: pieces as they are received leave holes in the heap (a fifth more memory), and a byte by
        # itself takes fifty. But a body that comes at once is not copied.
        self._held: bytes | bytearray = b""
        self._taken_bytes = 0
        """Of the worker's memory; none for a body that came at once."""
        self._spool: SpoolFile | None = None
        self._storage = storage
        self._memory_bytes = memory_bytes
        if head.content_length > memory_bytes:
            self._check_room(head.content_length)

    def feed(self, data: bytes) -> bool:
        """Take what was received; return whether the body is complete. Raises ``BadRequest``."""
        chunked = self._chunked
        if chunked is not None:
            self._collect(chunked.feed(data))
            self.rest = chunked.rest
            complete = chunked.complete
        else:
            missing_bytes = self._missing_bytes
            if len(data) > missing_bytes:
                self.rest = data[missing_bytes:]
                data = data[:missing_bytes]
            self._missing_bytes = missing_bytes - len(data)
            self._collect(data)
            complete = missing_bytes == len(data)
        if self._taken_bytes or self._spool is not None or not complete:
            self._settle()
        return complete

    def take(self) -> bytes | SpoolFile:
        """Return the complete body."""
        if self._spool is not None:
            return self._spool
        held, self._held = self._held, b""
        return bytes(held)

    def close(self) -> None:
        """Give back what it holds; more than once does no harm."""
        self._held = b""
        self._release_memory()
        if self._spool is not None:
            self._spool.close()

    def _collect(self, data: bytes) -> None:
        if self._held:
            self._hold_in_buffer().extend(data)
        else:
            self._held = data

    def _hold_in_buffer(self) -> bytearray:
        held = self._held
        if not isinstance(held, bytearray):
            held = self._held = bytearray(held)
        return held

    def _settle(self) -> None:
        """Have what is held counted, or move it to a file, which then gets the rest too."""
        if self._spool is None:
            more_bytes = len(self._held) - self._taken_bytes
            announced_bytes = max(self.head.content_length, len(self._held))
            if announced_bytes <= self._memory_bytes and self._storage.take_memory(more_bytes):
                self._taken_bytes += more_bytes
                self._hold_in_buffer()
                return
            self._spool = self._storage.open_spool()
            if self._spool is None:
                raise _no_room()
        if self._spool.append(self._held) < len(self._held):
            raise _no_room()
        self._held = b""
        self._release_memory()

    def _release_memory(self) -> None:
        if self._taken_bytes:
            self._storage.free_memory(self._taken_bytes)
            self._taken_bytes = 0

    def _check_room(self, size: int) -> None:
        """Refuse at once what will not fit, before the client sends it."""
        limit = self._storage.spool_limit_bytes
        if size > limit:
            raise BadRequest(413, f"body longer than the {limit} bytes of limits.spool")
        if size > limit - self._storage.spool_bytes:
            raise _no_room()


def _no_room() -> BadRequest:
    return BadRequest(507, "no room for the body of the request at the moment")
