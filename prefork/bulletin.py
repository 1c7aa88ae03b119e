"""The bulletin: what the master alone knows, in shared memory for whoever shows it.

A sealed memfd: a header, and two halves that hold a JSON document by turns. The number in the header is odd while the
master changes what readers put together from several places: it makes it odd (``touch``) before it folds the cell of
a dead worker into the totals of the pool and clears it, and even again when the document with those totals is there
(``publish``). A reader that finds the same even number before and after has a document and cells that belong
together, so no counter of it ever falls. The other half is written meanwhile: what is half done is never read, even
if the master is suspended in the middle of it.

Written by the master, read by the admin process. A store may pass an earlier one on its way to another processor, so
each half has a checksum.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from typing import NamedTuple

MAGIC = int.from_bytes(b"prefork\1", "little")
FORMAT = 1

HALF_BYTES = 4 * 1024 * 1024
"""Room for a document. What is not used takes no memory."""

_HEADER_BYTES = 4096
_H_MAGIC, _H_FORMAT, _H_HALF_BYTES, _H_NUMBER = range(4)
_H_LENGTHS = 4
_H_CHECKSUMS = 6


class Edition(NamedTuple):
    """A document as it was published; ``number`` is even, and another one for each."""

    number: int
    document: bytes


class Bulletin:
    """The mapped file. A process that the master forks does not inherit the mapping: it needs ``fd``.

    There the master's object must stay referenced: its end would unmap what has taken the place.
    """

    def __init__(self, fd: int, *, writable: bool = False) -> None:
        """Raises ``ValueError`` if the file is something else, or of another format."""
        self.fd = fd
        self._map = mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        self._map.madvise(mmap.MADV_DONTFORK)
        memory = memoryview(self._map)
        self._header = memory[:_HEADER_BYTES].cast("Q")
        if (self._header[_H_MAGIC], self._header[_H_FORMAT]) != (MAGIC, FORMAT):
            raise ValueError(f"descriptor {fd} holds no bulletin of format {FORMAT}")
        self.half_bytes = self._header[_H_HALF_BYTES]
        self._halves = tuple(
            memory[start : start + self.half_bytes]
            for start in (_HEADER_BYTES, _HEADER_BYTES + self.half_bytes)
        )

    @classmethod
    def create(cls, half_bytes: int = HALF_BYTES) -> Bulletin:
        """Make a sealed memfd without a document."""
        fd = os.memfd_create("prefork-bulletin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _HEADER_BYTES + 2 * half_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        with mmap.mmap(fd, _HEADER_BYTES) as header, memoryview(header) as memory, memory.cast("Q") as words:
            words[_H_FORMAT], words[_H_HALF_BYTES] = FORMAT, half_bytes
            words[_H_MAGIC] = MAGIC
        return cls(fd, writable=True)

    @classmethod
    def adopt(cls, fd: int | None) -> Bulletin:
        """Go on with the file of an older version of this process, or with a new one if that cannot be."""
        if fd is not None:
            try:
                return cls(fd, writable=True)
            except ValueError:
                os.close(fd)
        return cls.create()

    # The master

    def touch(self) -> None:
        """Say that cells are about to change in ways that need a new document; ``publish`` must follow."""
        self._header[_H_NUMBER] |= 1

    @property
    def is_touched(self) -> bool:
        return bool(self._header[_H_NUMBER] & 1)

    def publish(self, document: bytes) -> None:
        """Replace the document, which must not be longer than ``half_bytes``."""
        header = self._header
        number = (header[_H_NUMBER] | 1) + 1
        half = number // 2 % 2
        self._halves[half][: len(document)] = document
        header[_H_LENGTHS + half] = len(document)
        header[_H_CHECKSUMS + half] = zlib.crc32(document)
        header[_H_NUMBER] = number

    # Readers

    @property
    def number(self) -> int:
        """The number of the document; odd while it and the cells do not belong together."""
        return self._header[_H_NUMBER]

    def read(self) -> Edition | None:
        """Return the latest document, also while a newer one is in the making; None if there is none yet."""
        for _ in range(3):
            number = self._header[_H_NUMBER] & ~1
            half = number // 2 % 2
            length = min(self._header[_H_LENGTHS + half], self.half_bytes)
            document = bytes(self._halves[half][:length])
            is_whole = zlib.crc32(document) == self._header[_H_CHECKSUMS + half]
            if is_whole and number and self._header[_H_NUMBER] & ~1 == number:
                return Edition(number, document)
        return None

    def close(self) -> None:
        """Close the descriptor; the mapping goes with the object."""
        os.close(self.fd)
