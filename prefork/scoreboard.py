"""The scoreboard: what each worker is doing, in shared memory.

One sealed memfd per pool and generation, with a self-describing header, a cell for each worker and in it a
sub-cell for each application thread. The master makes it; a cell is written only by its worker, without
locks or system calls, and read by anyone who maps it. The seals keep a child from truncating the file,
which would kill its readers with SIGBUS.

Its parts are in ``cell`` and ``thread_cell``, what they tell is in ``figures``. Also here, because it lives in
the same memory: whether the master sleeps without a deadline, so that a worker has to ring the doorbell. See
docs/decisions/0003-timeouts-without-heartbeats.md.

Used by master, workers and (read-only) the admin process. All figures are native 64-bit words.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prefork.cell import EMPTY, READY, Cell, cell_bytes
from prefork.figures import BUCKETS_S, Running, bounds_ns
from prefork.thread_cell import ASLEEP_WORD, THREAD_BYTES

MAGIC = int.from_bytes(b"prefork\0", "little")
FORMAT = 2
"""Of this layout. Workers of another one cannot be adopted, see ``master.state``."""

_HEADER_BYTES = 4096

# Words of the header; the one after them is ``ASLEEP_WORD``.
_H_MAGIC, _H_FORMAT, _H_HEADER_BYTES, _H_CELL_BYTES, _H_CELLS, _H_THREAD_BYTES, _H_THREADS, _H_GENERATION = (
    range(8)
)
# How many bounds the latency histograms have, and these in nanoseconds.
_H_BUCKETS, _H_BOUNDS_NS = 16, 17


class Snapshot:
    """Copies of some cells: they change no more, and can be read at leisure."""

    def __init__(
        self, header: memoryview[int], bounds_ns: Sequence[int], copies: Mapping[int, bytes]
    ) -> None:
        self.bounds_ns = bounds_ns
        self._header = header
        self._copies = copies

    @property
    def cells(self) -> Snapshot:
        return self

    def __getitem__(self, index: int, /) -> Cell:
        """Raises ``LookupError`` for a cell that was not copied."""
        memory = memoryview(self._copies[index])
        return Cell(self._header, memory, self._header[_H_THREADS], self.bounds_ns, -1)


class Scoreboard:
    """The cells of one pool and generation.

    A child that is forked inherits the mapping; only who gets it otherwise needs ``fd``.
    """

    def __init__(self, fd: int, doorbell: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, 0)
        memory = memoryview(self._map)
        self._header = memory[:_HEADER_BYTES].cast("Q")
        if (self._header[_H_MAGIC], self._header[_H_FORMAT]) != (MAGIC, FORMAT):
            raise ValueError(f"descriptor {fd} holds no scoreboard of format {FORMAT}")
        self.generation = self._header[_H_GENERATION]
        self.bounds_ns = tuple(self._header[_H_BOUNDS_NS : _H_BOUNDS_NS + self._header[_H_BUCKETS]])
        """Upper bounds of the buckets of the latency histograms."""
        threads, size_bytes = self._header[_H_THREADS], self._header[_H_CELL_BYTES]
        self.cells = tuple(
            Cell(self._header, memory[start : start + size_bytes], threads, self.bounds_ns, doorbell)
            for start in range(_HEADER_BYTES, _HEADER_BYTES + self._header[_H_CELLS] * size_bytes, size_bytes)
        )

    @classmethod
    def create(
        cls,
        pool: str,
        generation: int,
        *,
        cells: int,
        threads: int,
        doorbell: int,
        buckets_s: Sequence[float] = BUCKETS_S,
    ) -> Scoreboard:
        """Make a sealed memfd with room for ``cells`` workers of ``threads`` application threads each.

        ``doorbell`` is the master's eventfd. ``buckets_s``: upper bounds for the latency histograms. Untouched cells
        cost no memory. Raises ``ValueError`` for bounds that cannot be.
        """
        bounds = bounds_ns(buckets_s)
        size_bytes = cell_bytes(threads)
        fd = os.memfd_create(f"prefork-{pool}-{generation}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _HEADER_BYTES + cells * size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        with mmap.mmap(fd, _HEADER_BYTES) as header, memoryview(header) as memory, memory.cast("Q") as words:
            words[_H_FORMAT] = FORMAT
            words[_H_HEADER_BYTES], words[_H_CELL_BYTES], words[_H_CELLS] = _HEADER_BYTES, size_bytes, cells
            words[_H_THREAD_BYTES], words[_H_THREADS] = THREAD_BYTES, threads
            words[_H_GENERATION] = generation
            words[_H_BUCKETS] = len(bounds)
            for at, bound in enumerate(bounds, _H_BOUNDS_NS):
                words[at] = bound
            words[_H_MAGIC] = MAGIC
        return cls(fd, doorbell)

    @property
    def asleep(self) -> bool:
        return bool(self._header[ASLEEP_WORD])

    @asleep.setter
    def asleep(self, value: bool) -> None:
        """Say whether workers must ring; only the master does.

        A store and the load of the other side that follows it may pass each other in the processors' store
        buffers. So who sets it scans the cells once more a little later before it relies on being rung.
        """
        self._header[ASLEEP_WORD] = int(value)

    def snapshot(self, indices: Iterable[int]) -> Snapshot:
        """Return copies of some cells; without those that it does not have."""
        cells = self.cells
        copies = {index: cells[index].snapshot() for index in indices if 0 <= index < len(cells)}
        return Snapshot(self._header, self.bounds_ns, copies)

    def connections_of_ready(self) -> list[int]:
        """Return the number of open connections of each worker that is ready."""
        return [cell.open_connections for cell in self.cells if cell.state == READY]

    def running(self) -> Iterator[tuple[int, Running]]:
        """Yield ``(cell index, request)`` for each request that runs now."""
        for index, cell in enumerate(self.cells):
            if cell.state != EMPTY:
                for request in cell.running():
                    yield index, request

    def close(self) -> None:
        """Close the descriptor; the mapping goes with the object."""
        os.close(self.fd)
