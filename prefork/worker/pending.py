"""What a client has not taken yet: pieces in memory and in files, in the order in which they were produced.

Used by whoever owns the connection (see ``outgoing``). Most connections never have one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from prefork.worker.storage import SpoolFile, Storage

TURN_BYTES = 512 * 1024
"""So much is sent at a time: other connections have their turn, however fast this client is."""
VECTOR = 64
_SMALL_BYTES = 4096
"""Pieces below this are put together: each alone costs 35 bytes more."""
_JOINED_BYTES = 64 * 1024


class Socket(Protocol):
    """How bytes get to the client. Both raise ``BlockingIOError`` rather than wait."""

    def send_pieces(self, pieces: Sequence[bytes | bytearray | memoryview], more: bool) -> int:
        """Send the beginning of ``pieces``; return how much. ``more``: the next call follows at once."""

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send up to ``count`` bytes of a file; return how many. 0: the file ends there."""


class FilePart:
    """A range of a file that is open for this alone, or of a spool file that grows at its end."""

    __slots__ = ("end", "fd", "offset", "spool")

    def __init__(self, fd: int, offset: int, end: int, spool: SpoolFile | None = None) -> None:
        self.fd = fd
        self.offset = offset
        self.end = end
        self.spool = spool

    def close(self) -> None:
        if self.spool is None:
            os.close(self.fd)
        else:
            self.spool.close()


class Pending:
    """The unsent rest of a response."""

    __slots__ = ("_parts", "_sent", "_storage", "held_bytes", "unsent_bytes")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._parts: deque[bytes | bytearray | FilePart] = deque()
        self._sent = 0
        """Of the first part, if it is in memory: it is held until all of it is sent."""
        self.held_bytes = 0
        """In memory."""
        self.unsent_bytes = 0
        """In memory and in files."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, data: bytes, memory_bytes: int, start: int = 0) -> None:
        """Keep ``data`` from ``start`` on: in memory up to ``memory_bytes`` in all, else in a file if that can be.

        What fits in neither is held nevertheless; ``is_over`` then tells the producer to wait.
        """
        parts, storage = self._parts, self._storage
        size = len(data) - start
        self.unsent_bytes += size
        tail = parts[-1] if parts else None
        # What came after the file was begun must go after it.
        if not (isinstance(tail, FilePart) and tail.spool):
            if start and (parts or size < start or len(data) > memory_bytes):
                data, start = data[start:], 0  # A slice would hold the whole.
            if self.held_bytes + len(data) <= memory_bytes and storage.take_memory(len(data)):
                self._hold(data, start)
                return
            tail = self._begin_spool()
        if tail is not None and tail.spool is not None:
            written = tail.spool.append(memoryview(data)[start:])
            tail.end += written
            start += written
            if tail.offset == tail.end:
                parts.pop()
                tail.close()
        if start < len(data):
            if start and parts:
                data, start = data[start:], 0
            storage.force_memory(len(data))
            self._hold(data, start)

    def add_file(self, fd: int, offset: int, count: int) -> None:
        """Keep a range of a file, whose descriptor is ours from now on."""
        self._parts.append(FilePart(fd, offset, offset + count))
        self.unsent_bytes += count

    def is_over(self, memory_bytes: int) -> bool:
        """Must the producer wait? Either there is too much of this, or of everything together."""
        storage = self._storage
        return self.held_bytes > memory_bytes or (
            self.held_bytes > 0 and storage.memory_bytes > storage.bulk_limit_bytes
        )

    def send(self, socket: Socket) -> bool:
        """Give the socket what it takes now, up to ``TURN_BYTES``; return whether it took any. Raises ``OSError``."""
        parts = self._parts
        total = 0
        while parts and total < TURN_BYTES:
            first = parts[0]
            try:
                if isinstance(first, FilePart):
                    sent = self._send_file(socket, first, TURN_BYTES - total)
                else:
                    sent = self._send_memory(socket)
            except BlockingIOError:
                break
            total += sent
            self.unsent_bytes -= sent
        return total > 0

    def close(self) -> None:
        """Drop everything."""
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, FilePart):
                part.close()
        self._storage.free_memory(self.held_bytes)
        self.held_bytes = self.unsent_bytes = 0

    def _hold(self, data: bytes, sent: int) -> None:
        parts = self._parts
        self.held_bytes += len(data)
        if not parts:
            self._sent = sent
        if len(data) >= _SMALL_BYTES:
            parts.append(data)
        elif parts and isinstance(parts[-1], bytearray) and len(parts[-1]) < _JOINED_BYTES:
            parts[-1] += data
        else:
            parts.append(bytearray(data))

    def _begin_spool(self) -> FilePart | None:
        spool = self._storage.open_spool()
        if spool is None:
            return None
        part = FilePart(spool.fileno(), 0, 0, spool)
        self._parts.append(part)
        return part

    def _send_memory(self, socket: Socket) -> int:
        parts = self._parts
        pieces: list[bytes | bytearray | memoryview] = []
        more = False
        for part in islice(parts, VECTOR):
            if isinstance(part, FilePart):
                more = True
                break
            pieces.append(part)
        pieces[0] = memoryview(pieces[0])[self._sent :]
        sent = socket.send_pieces(pieces, more)
        pieces.clear()  # A bytearray that somebody looks at cannot grow.
        done = self._sent + sent
        freed = 0
        while parts and not isinstance(part := parts[0], FilePart) and done >= len(part):
            done -= len(part)
            freed += len(part)
            parts.popleft()
        self._sent = done
        if freed:
            self.held_bytes -= freed
            self._storage.free_memory(freed)
        return sent

    def _send_file(self, socket: Socket, part: FilePart, most: int) -> int:
        sent = socket.send_file(part.fd, part.offset, min(part.end - part.offset, most))
        if not sent:
            raise OSError("the file became shorter while it was sent")
        part.offset += sent
        if part.offset == part.end:
            self._parts.popleft()
            part.close()
        return sent
