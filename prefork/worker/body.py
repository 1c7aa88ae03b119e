"""Collecting the body of a request until it is complete, in memory or in a temporary file; used by a connection in
the serve loop.
"""

from __future__ import annotations

from io import BufferedReader, BytesIO

from prefork.http.chunked import ChunkedDecoder
from prefork.http.head import Head, HeadLimits
from prefork.http.refusal import BadRequest
from prefork.worker.storage import SpoolFile, Storage


class IncomingBody:
    """The body of one request, whichever way it is framed; to be closed once the application has had it."""

    __slots__ = (
        "_buffer",
        "_chunked",
        "_memory_bytes",
        "_missing_bytes",
        "_received",
        "_size",
        "_spool",
        "_storage",
        "_taken_bytes",
        "head",
        "head_bytes",
        "rest",
    )

    def __init__(
        self,
        head: Head,
        limits: HeadLimits,
        storage: Storage,
        memory_bytes: int,
        spool: SpoolFile | None = None,
    ) -> None:
        """``memory_bytes``: how much may be held in memory. ``spool``: the first part, from another process.

        Raises ``BadRequest`` if there can be no room.
        """
        self.head = head
        self.head_bytes = b""
        """The head as it was received; empty if the body came with it."""
        self.rest = b""
        """Once complete: the bytes after the body, which are the next request's."""
        self._missing_bytes = head.content_length - (spool.size if spool is not None else 0)
        self._chunked = ChunkedDecoder(limits) if head.chunked else None
        self._received = b""
        """Not yet settled; the whole body if it came at once, which then is neither copied nor counted."""
        self._buffer: BytesIO | None = None
        self._spool = spool
        self._size = spool.size if spool is not None else 0
        """In the buffer, or in the spool file."""
        self._taken_bytes = 0
        """Of the worker's memory."""
        self._storage = storage
        self._memory_bytes = memory_bytes
        if head.content_length > memory_bytes and spool is None:
            self._check_room(head.content_length)

    def portable(self, most_bytes: int) -> tuple[bytes, SpoolFile | None] | None:
        """Return the head and, behind it or in a file, what is held of the body; None if it has to stay here.

        Head and body have at most ``most_bytes`` when they are returned together.
        """
        if self._chunked is not None or not self.head_bytes:
            return None
        if self._spool is None:
            held = self._buffer.getvalue() if self._buffer is not None else b""
            if len(self.head_bytes) + len(held) <= most_bytes:
                return self.head_bytes + held, None
            spool = self._storage.open_spool()
            if spool is None:
                return None
            if spool.append(held) < len(held):
                spool.close()
                return None
            self._spool = spool
            self._size = len(held)
            self._release_memory()
        return self.head_bytes, self._spool

    def feed(self, data: bytes) -> bool:
        """Take what was received; return whether the body is complete. Raises ``BadRequest``."""
        chunked = self._chunked
        if chunked is not None:
            self._received = chunked.feed(data)
            self.rest = chunked.rest
            complete = chunked.complete
        else:
            missing_bytes = self._missing_bytes
            if len(data) > missing_bytes:
                self.rest = data[missing_bytes:]
                data = data[:missing_bytes]
            self._received = data
            self._missing_bytes = missing_bytes - len(data)
            complete = missing_bytes == len(data)
        if not complete or self._size:
            self._settle()
        return complete

    def take(self, will_wait: bool = False) -> bytes | IncomingBody:
        """Return the complete body: bytes if it came at once, else this, as a ``FileBody``.

        ``will_wait``: so do many others, for a thread, so it is to be counted however it came. Raises ``BadRequest``.
        """
        if will_wait and not self._size:
            self._settle()
        return self if self._size else self._received

    def __len__(self) -> int:
        return self._size

    def reader(self) -> BytesIO | BufferedReader:
        """Return a file at the start of the body."""
        if self._spool is not None:
            return self._spool.reader()
        assert self._buffer is not None
        self._buffer.seek(0)
        return self._buffer

    def close(self) -> None:
        """Give back what it holds; more than once does no harm."""
        self._received = b""
        self._release_memory()
        if self._spool is not None:
            self._spool.close()

    def _settle(self) -> None:
        """Add what was received to what is held: in memory, or in a file, which then gets everything."""
        received, self._received = self._received, b""
        if self._spool is None:
            size = max(self.head.content_length, self._size + len(received))
            if size <= self._memory_bytes and self._storage.take_memory(len(received)):
                self._taken_bytes += len(received)
                if self._buffer is None:
                    # Pieces as they are received leave holes in the heap, a fifth more memory.
                    self._buffer = BytesIO()
                self._size += self._buffer.write(received)
                return
            self._spool = self._storage.open_spool()
            if self._spool is None:
                raise _no_room()
            if self._buffer is not None:
                self._append(self._spool, self._buffer.getvalue())
            self._release_memory()
            self._size = len(self._spool)
        self._append(self._spool, received)
        self._size += len(received)

    def _append(self, spool: SpoolFile, data: bytes) -> None:
        if spool.append(data) < len(data):
            raise _no_room()

    def _release_memory(self) -> None:
        self._buffer = None
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
