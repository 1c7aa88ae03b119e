"""``wsgi.file_wrapper`` (PEP 3333), and which files the kernel can send by itself; runs only in a worker.

A file is sent from a duplicate of its descriptor, so that ``close()`` can be called as soon as the response is
handed over, as with every other body: PEP 3333 asks for it at the end of the request, which is when the
application has produced everything, not when the client has read it. What an application deletes in
``close()`` is sent all the same. What it overwrites in place is not what it was: with that, do not return a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader, FileIO
from typing import IO, Any, NamedTuple


class FileRange(NamedTuple):
    """The rest of a regular file, from its current position."""

    fd: int
    offset: int
    size: int


class FileWrapper:
    """``wsgi.file_wrapper``: iterates over a file in blocks.

    It is its own iterator and can seek, as frameworks expect that cut a range out of it.
    """

    def __init__(self, filelike: IO[bytes], block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size
        for name in ("close", "seek", "tell", "seekable"):
            if hasattr(filelike, name):
                setattr(self, name, getattr(filelike, name))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self.filelike.read(self.block_size):
            return block
        raise StopIteration

    def range(self) -> FileRange | None:
        """Return what ``read()`` would return to the end, if that is just the content of a regular file."""
        # Not whoever has a fileno(): GzipFile has that of the compressed file. What counts is whose read() it is.
        # Django's File has that of its file, tempfile's wrapper a function around it.
        read = getattr(self.filelike, "read", None)
        file: Any = getattr(getattr(read, "__wrapped__", read), "__self__", None)
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            file.flush()
            offset, fd = file.tell(), file.fileno()
            status = os.fstat(fd)
        except (OSError, ValueError):
            return None  # A pipe, or closed: reading it will tell.
        # In /proc are regular files that say they are empty.
        if not stat.S_ISREG(status.st_mode) or status.st_size <= offset:
            return None
        return FileRange(fd, offset, status.st_size - offset)
