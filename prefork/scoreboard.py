"""The scoreboard: what each worker is doing, in shared memory.

One sealed memfd per pool and generation, with a self-describing header, a cell for each worker and in it a
sub-cell for each application thread. The master makes it; a cell is written only by its worker, without
locks or system calls, and read by anyone who maps it. The seals keep a child from truncating the file,
which would kill its readers with SIGBUS.

Also here, because it lives in the same memory: the doorbell, by which a worker wakes a master that sleeps
without a deadline. See docs/decisions/0003-timeouts-without-heartbeats.md.

Used by master, workers and (read-only) the admin process. All figures are native 64-bit words.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from time import monotonic_ns
from typing import Any, NamedTuple

MAGIC = int.from_bytes(b"prefork\0", "little")
FORMAT = 1

_WORD_BYTES = 8
_HEADER_BYTES = 4096
_CELL_BYTES = 512
_THREAD_BYTES = 1024
_LINE_OFFSET_BYTES = 768
LINE_BYTES = _THREAD_BYTES - _LINE_OFFSET_BYTES
"""Longest request line that is shown; longer ones are cut."""

# Words of the header.
_H_MAGIC, _H_FORMAT, _H_HEADER_BYTES, _H_CELL_BYTES, _H_CELLS, _H_THREAD_BYTES, _H_THREADS, _H_GENERATION = (
    range(8)
)
_H_ASLEEP = 8

# Words of a cell, before its threads.
_C_PID, _C_STATE, _C_CONNECTIONS, _C_ACCEPTED, _C_REFUSED, _C_HANDED_OVER = range(6)
_C_RSS_BYTES, _C_PSS_BYTES, _C_USS_BYTES = range(6, 9)
_C_ADOPTED, _C_WAITING = 9, 10

# Words of a thread.
_T_START_NS, _T_DEADLINE_NS, _T_SLOW_NS, _T_NATIVE_ID, _T_LINE_BYTES = range(5)
_T_SENT_BYTES, _T_ELAPSED_NS = range(5, 7)
# What the worker's lookout writes, each with the start of the request that it is about: when it will tell again of
# a slow one, for how long it was suspended, and that its deadline was dealt with.
_T_TOLD_START_NS, _T_TOLD_NS, _T_EXCUSED_START_NS, _T_EXCUSED_NS, _T_ENDED_START_NS = range(7, 12)
_T_COUNTS = 12

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "other")
"""Methods that are counted apart; no label of a metric comes from a client."""
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_COUNT_OF_METHOD = {method: _T_COUNTS + index * len(CLASSES) for index, method in enumerate(METHODS)}
_COUNT_OF_OTHER = _COUNT_OF_METHOD["other"]
_T_BUCKETS = _T_COUNTS + len(METHODS) * len(CLASSES)

_TENTHS_MS = (
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10_000,
    25_000,
    50_000,
    100_000,
    300_000,
    600_000,
)
BUCKETS_S = tuple(bound / 10_000 for bound in _TENTHS_MS)
"""Upper bounds of the latency histogram, in seconds; one more bucket holds what is longer."""
_BUCKETS_NS = tuple(int(bound * 1e9) for bound in BUCKETS_S)
_T_WORDS = _T_BUCKETS + len(BUCKETS_S) + 1
assert _T_WORDS * _WORD_BYTES <= _LINE_OFFSET_BYTES

EMPTY, BOOTING, READY, DRAINING = range(4)
"""States that a worker publishes; *idle* and *busy* are READY without and with a running request."""


class Running(NamedTuple):
    """A request that runs now; instants are ``time.monotonic_ns()``, 0 for none."""

    thread: int
    start_ns: int
    deadline_ns: int
    """0, too, if the worker has dealt with it."""
    slow_ns: int
    """When it is to be told of as slow for the first or the next time."""
    line: str


class Memory(NamedTuple):
    """What a worker uses, as it has measured itself."""

    rss_bytes: int
    pss_bytes: int
    uss_bytes: int
    """What it shares with nobody, and what its end would free."""


class Counts(NamedTuple):
    """Counters since the worker began (or, for a fold, of all dead workers of a pool)."""

    requests: int = 0
    errors: int = 0
    accepted: int = 0
    refused: int = 0
    handed_over: int = 0
    """Connections that went to another worker."""
    adopted: int = 0
    """Connections that came from another worker."""
    sent_bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class ThreadCell:
    """What one application thread does; written only by that thread, and by the lookout of its worker."""

    __slots__ = ("_doorbell", "_header", "_line", "_shown", "_words", "current", "ident")

    def __init__(self, header: memoryview[int], memory: memoryview[int], doorbell: int) -> None:
        self._header = header
        self._words = memory[:_LINE_OFFSET_BYTES].cast("Q")
        self._line = memory[_LINE_OFFSET_BYTES:]
        self._shown: bytes | None = None
        self._doorbell = doorbell
        self.current: Any = None
        """In the worker itself: its object for the request that runs. To be set before ``enter``."""
        self.ident = 0
        """In the worker itself: ``threading.get_ident()`` of the thread."""

    def bind(self) -> None:
        """Note the calling thread as the one that writes this cell."""
        self._words[_T_NATIVE_ID] = threading.get_native_id()
        self.ident = threading.get_ident()

    def enter(self, request_line: bytes, deadline_ns: int = 0, slow_ns: int = 0) -> int:
        """Publish a request just before the application is called.

        ``deadline_ns`` and ``slow_ns`` are durations from now, 0 for none. Returns the start in
        ``time.monotonic_ns()``. Rings the doorbell if the master sleeps and one of the two is set.
        """
        words = self._words
        if request_line is not self._shown:  # a kept-alive client repeats itself, and heads are remembered
            self._shown = request_line
            length = min(len(request_line), LINE_BYTES)
            self._line[:length] = request_line[:length]
            words[_T_LINE_BYTES] = length
        now = monotonic_ns()
        words[_T_DEADLINE_NS] = now + deadline_ns if deadline_ns else 0
        words[_T_SLOW_NS] = now + slow_ns if slow_ns else 0
        words[_T_START_NS] = now
        if self._header[_H_ASLEEP] and (deadline_ns or slow_ns):
            os.eventfd_write(self._doorbell, 1)
        return now

    def leave(self, method: str, status: int, start_ns: int, sent_bytes: int) -> int:
        """Publish that the request is over and count it; return how long it took, in nanoseconds."""
        words = self._words
        words[_T_START_NS] = 0
        self.current = None
        elapsed_ns = monotonic_ns() - start_ns
        words[
            _COUNT_OF_METHOD.get(method, _COUNT_OF_OTHER) + (status // 100 - 1 if 100 <= status < 600 else 4)
        ] += 1
        words[_T_BUCKETS + bisect_left(_BUCKETS_NS, elapsed_ns)] += 1
        words[_T_ELAPSED_NS] += elapsed_ns
        words[_T_SENT_BYTES] += sent_bytes
        return elapsed_ns

    def pulse(self) -> tuple[int, int]:
        """Return the start of the request that runs now, 0 for none, and how long all before it took: it is
        another pair whenever a request has begun or ended."""
        return self._words[_T_START_NS], self._words[_T_ELAPSED_NS]

    def limits(self) -> tuple[int, int, int]:
        """Return start, deadline and slow instant as ``enter`` wrote them; the start is 0 if nothing runs."""
        words = self._words
        return words[_T_START_NS], words[_T_DEADLINE_NS], words[_T_SLOW_NS]

    def extend(self, by_ns: int) -> None:
        """Move the deadline of the request that runs, if it has one; only its own thread may do that."""
        words = self._words
        if words[_T_START_NS] and words[_T_DEADLINE_NS]:
            words[_T_DEADLINE_NS] += by_ns

    def told(self, start_ns: int, again_ns: int) -> None:
        """Tell the master that the slow request of this start was reported, and when it will be again."""
        self._words[_T_TOLD_NS] = again_ns
        self._words[_T_TOLD_START_NS] = start_ns

    def excuse(self, start_ns: int, by_ns: int) -> None:
        """Tell the master that the request of this start was suspended with its worker."""
        self._words[_T_EXCUSED_NS] = by_ns
        self._words[_T_EXCUSED_START_NS] = start_ns

    def end(self, start_ns: int) -> None:
        """Tell the master that the worker has dealt with the deadline of the request of this start."""
        self._words[_T_ENDED_START_NS] = start_ns

    @property
    def native_id(self) -> int:
        """The kernel's id of the thread, as in ``/proc/PID/task``."""
        return self._words[_T_NATIVE_ID]

    def running(self, thread: int) -> Running | None:
        """Return the request that runs, or None; None also if it changed while it was read."""
        words = self._words
        start_ns = words[_T_START_NS]
        if not start_ns:
            return None
        deadline_ns, slow_ns = words[_T_DEADLINE_NS], words[_T_SLOW_NS]
        if words[_T_EXCUSED_START_NS] == start_ns:
            deadline_ns += deadline_ns and words[_T_EXCUSED_NS]
            slow_ns += slow_ns and words[_T_EXCUSED_NS]
        if words[_T_ENDED_START_NS] == start_ns:
            deadline_ns = 0
        if slow_ns and words[_T_TOLD_START_NS] == start_ns:
            slow_ns = max(slow_ns, words[_T_TOLD_NS])
        length = min(words[_T_LINE_BYTES], LINE_BYTES)
        line = bytes(self._line[:length]).decode("latin-1")
        if words[_T_START_NS] != start_ns:
            return None
        return Running(thread, start_ns, deadline_ns, slow_ns, line)

    def counts(self) -> Counts:
        matrix = self._words[_T_COUNTS:_T_BUCKETS].tolist()
        return Counts(
            requests=sum(matrix),
            errors=sum(matrix[len(CLASSES) - 1 :: len(CLASSES)]),
            sent_bytes=self._words[_T_SENT_BYTES],
        )


class Cell:
    """A worker's place in shared memory; written only by it, cleared by the master after its death."""

    __slots__ = ("_memory", "_words", "threads")

    def __init__(self, header: memoryview[int], memory: memoryview[int], threads: int, doorbell: int) -> None:
        self._memory = memory
        self._words = memory[:_CELL_BYTES].cast("Q")
        self.threads = tuple(
            ThreadCell(header, memory[start : start + _THREAD_BYTES], doorbell)
            for start in range(_CELL_BYTES, _CELL_BYTES + threads * _THREAD_BYTES, _THREAD_BYTES)
        )

    def claim(self, pid: int) -> None:
        """Mark the cell as the calling worker's, which boots."""
        self._words[_C_PID] = pid
        self._words[_C_STATE] = BOOTING

    def set_state(self, state: int) -> None:
        """Publish one of ``BOOTING``, ``READY``, ``DRAINING``."""
        self._words[_C_STATE] = state

    def connections(self, count: int) -> None:
        """Publish how many connections are open now."""
        self._words[_C_CONNECTIONS] = count

    def add_accepted(self) -> None:
        self._words[_C_ACCEPTED] += 1

    def add_refused(self) -> None:
        self._words[_C_REFUSED] += 1

    def add_handed_over(self) -> None:
        self._words[_C_HANDED_OVER] += 1

    def add_adopted(self) -> None:
        self._words[_C_ADOPTED] += 1

    def publish_memory(self, memory: Memory) -> None:
        self._words[_C_RSS_BYTES], self._words[_C_PSS_BYTES], self._words[_C_USS_BYTES] = memory

    def clear(self) -> None:
        """Make the cell ready for its next worker; only the master does this, after a death."""
        self._memory[:] = bytes(len(self._memory))

    @property
    def state(self) -> int:
        return self._words[_C_STATE]

    @property
    def open_connections(self) -> int:
        return self._words[_C_CONNECTIONS]

    @property
    def waiting(self) -> int:
        """How many requests waited at the end of some turn of its loop; only a pool that scales has it written."""
        return self._words[_C_WAITING]

    @waiting.setter
    def waiting(self, count: int) -> None:
        self._words[_C_WAITING] = count

    @property
    def memory(self) -> Memory | None:
        """What its worker has measured last; None before the first time."""
        found = Memory(*self._words[_C_RSS_BYTES : _C_USS_BYTES + 1])
        return found if found.rss_bytes else None

    def running(self) -> list[Running]:
        """Return the requests that run now, oldest first."""
        found = [request for index, thread in enumerate(self.threads) if (request := thread.running(index))]
        return sorted(found, key=lambda request: request.start_ns)

    def counts(self) -> Counts:
        total = Counts(
            accepted=self._words[_C_ACCEPTED],
            refused=self._words[_C_REFUSED],
            handed_over=self._words[_C_HANDED_OVER],
            adopted=self._words[_C_ADOPTED],
        )
        for thread in self.threads:
            total = total.plus(thread.counts())
        return total


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
        threads, cell_bytes = self._header[_H_THREADS], self._header[_H_CELL_BYTES]
        self.cells = tuple(
            Cell(self._header, memory[start : start + cell_bytes], threads, doorbell)
            for start in range(_HEADER_BYTES, _HEADER_BYTES + self._header[_H_CELLS] * cell_bytes, cell_bytes)
        )

    @classmethod
    def create(cls, pool: str, generation: int, *, cells: int, threads: int, doorbell: int) -> Scoreboard:
        """Make a sealed memfd with room for ``cells`` workers of ``threads`` application threads each.

        ``doorbell`` is the master's eventfd. Untouched cells cost no memory.
        """
        cell_bytes = _CELL_BYTES + threads * _THREAD_BYTES
        fd = os.memfd_create(f"prefork-{pool}-{generation}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _HEADER_BYTES + cells * cell_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        with mmap.mmap(fd, _HEADER_BYTES) as header, memoryview(header) as memory, memory.cast("Q") as words:
            words[_H_FORMAT] = FORMAT
            words[_H_HEADER_BYTES], words[_H_CELL_BYTES], words[_H_CELLS] = _HEADER_BYTES, cell_bytes, cells
            words[_H_THREAD_BYTES], words[_H_THREADS] = _THREAD_BYTES, threads
            words[_H_GENERATION] = generation
            words[_H_MAGIC] = MAGIC
        return cls(fd, doorbell)

    @property
    def asleep(self) -> bool:
        return bool(self._header[_H_ASLEEP])

    @asleep.setter
    def asleep(self, value: bool) -> None:
        """Say whether workers must ring; only the master does.

        A store and the load of the other side that follows it may pass each other in the processors' store
        buffers. So who sets it scans the cells once more a little later before it relies on being rung.
        """
        self._header[_H_ASLEEP] = int(value)

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
