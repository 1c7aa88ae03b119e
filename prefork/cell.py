"""A worker's part of the scoreboard: its state, connections and memory, and a sub-cell for each thread.

Used by workers, which write, and by the master and the admin process, which read. Offsets are in native 64-bit words.

Each word has one writer at a time: whoever has the baton of the worker.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from prefork.figures import MOST, MOST_BUCKETS, OVER_NS, REFUSALS, Connections, Counts, Memory, Running
from prefork.thread_cell import (
    THREAD_BYTES,
    ThreadCell,
    are_credible,
    counts_in,
    errors_in,
    histogram,
    requests_in,
)

_OWN_BYTES = 512
"""What is before the threads."""

# Words of a cell, before its threads.
_C_PID, _C_STATE, _C_CONNECTIONS, _C_ACCEPTED, _C_HANDED_OVER, _C_ADOPTED = range(6)
_C_RSS_BYTES, _C_PSS_BYTES, _C_USS_BYTES, _C_BACKLOG = range(6, 10)
_C_RECEIVED_BYTES, _C_READING, _C_WRITING, _C_AWAITING, _C_EXCHANGE_NS = range(10, 15)
_C_REFUSED = 16
_C_EXCHANGE = _C_REFUSED + 16
_C_END = _C_EXCHANGE + MOST_BUCKETS + 1
_REFUSED_FOR = {reason: _C_REFUSED + at for at, reason in enumerate(REFUSALS)}
assert len(REFUSALS) <= _C_EXCHANGE - _C_REFUSED
assert _C_END * 8 <= _OWN_BYTES

EMPTY, BOOTING, READY, DRAINING = range(4)
"""States that a worker publishes; *idle* and *busy* are READY without and with a running request."""


def cell_bytes(threads: int) -> int:
    """Return the size of the cell of a worker with so many application threads."""
    return _OWN_BYTES + threads * THREAD_BYTES


class CellWords(NamedTuple):
    """The words of a worker at some instant, and the sums of those of its threads."""

    own: Sequence[int]
    threads: Sequence[int]

    @property
    def requests(self) -> int:
        return requests_in(self.threads)

    @property
    def errors(self) -> int:
        return errors_in(self.threads)

    @property
    def handed_over(self) -> int:
        return self.own[_C_HANDED_OVER]

    def is_credible(self) -> bool:
        """Could this be counted, or is it nonsense that somebody has written into the scoreboard?"""
        own = self.own
        counts = *own[_C_ACCEPTED : _C_ADOPTED + 1], *own[_C_REFUSED:_C_END], own[_C_RECEIVED_BYTES]
        return max(counts) < MOST and own[_C_EXCHANGE_NS] < OVER_NS and are_credible(self.threads)


class Cell:
    """A worker's place in shared memory; written only by it, cleared by the master after its death."""

    __slots__ = ("_bounds_ns", "_memory", "_words", "received", "threads")

    def __init__(
        self,
        header: memoryview[int],
        memory: memoryview[int],
        threads: int,
        bounds_ns: Sequence[int],
        doorbell: int,
    ) -> None:
        self._memory = memory
        self._words = memory[:_OWN_BYTES].cast("Q")
        self._bounds_ns = bounds_ns
        self.received = self._words[_C_RECEIVED_BYTES : _C_RECEIVED_BYTES + 1]
        """One word, the bytes received of requests: to be added to without a call, since each request does it."""
        self.threads = tuple(
            ThreadCell(header, memory[start : start + THREAD_BYTES], bounds_ns, doorbell)
            for start in range(_OWN_BYTES, _OWN_BYTES + threads * THREAD_BYTES, THREAD_BYTES)
        )

    def snapshot(self) -> bytes:
        """Return all that is in it now, for ``Cell`` to read later."""
        return bytes(self._memory)

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

    def census(self, reading: int, writing: int, awaiting: int) -> None:
        """Publish how many of them read or write, or have a request that waits for a thread; the rest is idle or
        runs."""
        words = self._words
        words[_C_READING], words[_C_WRITING], words[_C_AWAITING] = reading, writing, awaiting

    def add_accepted(self) -> None:
        self._words[_C_ACCEPTED] += 1

    def add_refused(self, reason: str) -> None:
        """Count a client that is not served, or no further, for one of ``REFUSALS``."""
        self._words[_REFUSED_FOR[reason]] += 1

    def add_handed_over(self) -> None:
        self._words[_C_HANDED_OVER] += 1

    def add_adopted(self) -> None:
        self._words[_C_ADOPTED] += 1

    def add_exchange(self, elapsed_ns: int) -> None:
        """Count an exchange that took longer than the application; see ``ThreadCell.leave``."""
        self._words[_C_EXCHANGE + bisect_left(self._bounds_ns, elapsed_ns)] += 1
        self._words[_C_EXCHANGE_NS] += elapsed_ns

    def publish_memory(self, memory: Memory) -> None:
        self._words[_C_RSS_BYTES], self._words[_C_PSS_BYTES], self._words[_C_USS_BYTES] = memory

    def clear(self) -> None:
        """Make the cell ready for its next worker; only the master does this, after a death."""
        self._memory[:] = bytes(len(self._memory))

    @property
    def pid(self) -> int:
        return self._words[_C_PID]

    @property
    def state(self) -> int:
        return self._words[_C_STATE]

    @property
    def open_connections(self) -> int:
        return self._words[_C_CONNECTIONS]

    @property
    def waiting(self) -> int:
        """How many requests waited at the end of some turn of its loop; only a pool that scales has it written."""
        return self._words[_C_BACKLOG]

    @waiting.setter
    def waiting(self, count: int) -> None:
        self._words[_C_BACKLOG] = count

    @property
    def memory(self) -> Memory | None:
        """What its worker has measured last; None before the first time."""
        found = Memory(*self._words[_C_RSS_BYTES : _C_USS_BYTES + 1])
        return found if found.rss_bytes else None

    @property
    def requests(self) -> int:
        """How many have ended; the same as in ``counts``, for less."""
        return sum(thread.requests for thread in self.threads)

    def connections_by_state(self) -> Connections:
        """Return the open connections by state; what runs is as of now, the rest as of its loop's last turn."""
        words = self._words
        left = words[_C_CONNECTIONS]
        running = min(left, sum(thread.is_running for thread in self.threads) + words[_C_AWAITING])
        left -= running
        reading = min(left, words[_C_READING])
        left -= reading
        writing = min(left, words[_C_WRITING])
        return Connections(left - writing, reading, running, writing)

    def running(self) -> list[Running]:
        """Return the requests that run now, oldest first."""
        found = [request for index, thread in enumerate(self.threads) if (request := thread.running(index))]
        return sorted(found, key=lambda request: request.start_ns)

    def counts(self) -> Counts:
        return sum_of([self.words()], self._bounds_ns)

    def words(self) -> CellWords:
        """Return what is counted, as it is written: ``sum_of`` makes sense of it."""
        return CellWords(self._words[:_C_END].tolist(), _columns([thread.words() for thread in self.threads]))

    def last_counts(self, now_ns: int) -> Counts:
        """Return the counts of a worker that is dead by ``now_ns``, with what it did not come to count itself: the
        request that it died of."""
        total = _own_counts(self.words().own, self._bounds_ns)
        for index, thread in enumerate(self.threads):
            total = total.plus(thread.last_counts(index, now_ns))
        return total


def sum_of(cells: Sequence[CellWords], bounds_ns: Sequence[int]) -> Counts:
    """Return what workers of one scoreboard have counted together: it is made of sums of words, and so is cheap."""
    if not cells:
        return Counts()
    total = _own_counts(_columns([cell.own for cell in cells]), bounds_ns)
    return total.plus(counts_in(_columns([cell.threads for cell in cells]), bounds_ns))


def _columns(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    return rows[0] if len(rows) == 1 else [sum(column) for column in zip(*rows, strict=True)]


def _own_counts(words: Sequence[int], bounds_ns: Sequence[int]) -> Counts:
    return Counts(
        accepted=words[_C_ACCEPTED],
        handed_over=words[_C_HANDED_OVER],
        adopted=words[_C_ADOPTED],
        received_bytes=words[_C_RECEIVED_BYTES],
        refused={reason: words[at] for reason, at in _REFUSED_FOR.items() if words[at]},
        exchange=histogram(bounds_ns, words[_C_EXCHANGE:_C_END]),
        exchange_ns=words[_C_EXCHANGE_NS],
    )
