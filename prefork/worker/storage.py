"""What a worker holds for its clients, in memory and in temporary files, and how much of each it may.

Runs in a worker: in the serve loop, and in application threads. A request that came whole and waits for
no thread, and a response that the socket took at once, are never counted, so ordinary traffic does not come here.

Bodies and responses that find no memory go to files; heads cannot. So a part of the memory is for heads (and what
else was received and not yet read) alone: slow readers of large responses must not keep others from being heard.
"""

from __future__ import annotations

import os
from io import BufferedReader, FileIO
from threading import Lock
from typing import Protocol

from prefork import temporary

_SPARE = 8
"""An eighth of the memory is not for bodies and responses."""


class Log(Protocol):
    """The part of ``prefork.log.Log`` that is needed here."""

    def error(self, event: str, message: str, /, **fields: object) -> None: ...


class Storage:
    """The account of one worker: ``limits.memory`` and ``limits.spool``, and what is taken of them."""

    def __init__(self, memory_limit_bytes: int, spool_limit_bytes: int, folder: str, log: Log) -> None:
        self.memory_limit_bytes = memory_limit_bytes
        self.bulk_limit_bytes = memory_limit_bytes - memory_limit_bytes // _SPARE
        """Above this nothing of a body or a response is taken into memory."""
        self.spool_limit_bytes = spool_limit_bytes
        self.memory_bytes = 0
        """Held in memory now: heads, bodies and what was pipelined, until it is used, and unsent responses."""
        self.spool_bytes = 0
        """Held in temporary files now."""
        self._folder = folder
        self._log = log
        self._failing = False
        self._lock = Lock()

    def take_memory(self, count: int) -> bool:
        """Reserve ``count`` bytes for a body or a response; return False, and take nothing, if there are not so
        many left."""
        return not count or self._take_memory(count, self.bulk_limit_bytes)

    def take_received(self, count: int) -> bool:
        """Reserve ``count`` bytes for what was received and cannot be used yet; return whether there was room."""
        return self._take_memory(count, self.memory_limit_bytes)

    def force_memory(self, count: int) -> None:
        """Count what is held in spite of the limit, because its producer waits until it is gone."""
        with self._lock:
            self.memory_bytes += count

    def free_memory(self, count: int) -> None:
        with self._lock:
            self.memory_bytes -= count

    def _take_memory(self, count: int, limit_bytes: int) -> bool:
        with self._lock:
            if self.memory_bytes + count > limit_bytes:
                return False
            self.memory_bytes += count
        return True

    def take_spool(self, wanted: int) -> int:
        """Reserve up to ``wanted`` bytes; return how many."""
        with self._lock:
            count = max(0, min(wanted, self.spool_limit_bytes - self.spool_bytes))
            self.spool_bytes += count
        return count

    def force_spool(self, count: int) -> None:
        """Count what another process has written, in spite of the limit."""
        with self._lock:
            self.spool_bytes += count

    def free_spool(self, count: int) -> None:
        with self._lock:
            self.spool_bytes -= count

    def open_spool(self) -> SpoolFile | None:
        """Return a new temporary file; None, and a line in the log, if there can be none."""
        if not self.spool_limit_bytes:
            return None
        try:
            return SpoolFile(self, temporary.open_unlinked(self._folder))
        except OSError as error:
            self.spool_failed(error)
            return None

    def spool_failed(self, error: OSError) -> None:
        """Log the first failure since it last worked."""
        if not self._failing:
            self._failing = True
            self._log.error(
                "spool-failed",
                f"cannot spool to a temporary file in {self._folder}: {error.strerror or error}; until that works, "
                "large request bodies are answered with 507, and slow readers of large responses may be cut off",
            )

    def spool_works(self) -> None:
        self._failing = False

    def after_fork(self) -> None:
        """Forget a lock that another thread held, in a process that the application has forked."""
        self._lock = Lock()


class SpoolFile:
    """A temporary file that counts what it holds."""

    __slots__ = ("_file", "_reader", "_storage", "size")

    def __init__(self, storage: Storage, fd: int, size: int = 0) -> None:
        """``size``: what another process has written."""
        storage.force_spool(size)
        self._storage = storage
        self._file = FileIO(fd, "rb+")
        self._reader: BufferedReader | None = None
        self.size = size

    def fileno(self) -> int:
        return self._file.fileno()

    def __len__(self) -> int:
        return self.size

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write ``data``; return how much of it, which is less when ``limits.spool`` or the disk is full."""
        storage = self._storage
        granted = storage.take_spool(len(data))
        left = memoryview(data)[:granted]
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, self.size)
                self.size += written
                left = left[written:]
        except OSError as error:
            storage.free_spool(len(left))
            storage.spool_failed(error)
        else:
            storage.spool_works()
        return granted - len(left)

    def reader(self) -> BufferedReader:
        """Return a buffered file at the start. It is closed with this one, whoever still has it."""
        self._file.seek(0)
        self._reader = BufferedReader(self._file)
        return self._reader

    def close(self) -> None:
        """Give everything back; more than once does no harm."""
        self._storage.free_spool(self.size)
        self.size = 0
        self._file.close()
        self._reader = None
