"""A worker's part of the scoreboard: its state, connections and memory, and a sub-cell for each thread.

Used by workers, which write, and by the master and the admin process, which read. Offsets are in native 64-bit words.
"""

from __future__ import annotations

from prefork.figures import Counts, Memory, Running
from prefork.thread_cell import THREAD_BYTES, ThreadCell

_OWN_BYTES = 512
"""What is before the threads."""

# Words of a cell, before its threads.
_C_PID, _C_STATE, _C_CONNECTIONS, _C_ACCEPTED, _C_REFUSED, _C_HANDED_OVER = range(6)
_C_RSS_BYTES, _C_PSS_BYTES, _C_USS_BYTES = range(6, 9)
_C_ADOPTED, _C_WAITING = 9, 10

EMPTY, BOOTING, READY, DRAINING = range(4)
"""States that a worker publishes; *idle* and *busy* are READY without and with a running request."""


def cell_bytes(threads: int) -> int:
    """Return the size of the cell of a worker with so many application threads."""
    return _OWN_BYTES + threads * THREAD_BYTES


class Cell:
    """A worker's place in shared memory; written only by it, cleared by the master after its death."""

    __slots__ = ("_memory", "_words", "threads")

    def __init__(self, header: memoryview[int], memory: memoryview[int], threads: int, doorbell: int) -> None:
        self._memory = memory
        self._words = memory[:_OWN_BYTES].cast("Q")
        self.threads = tuple(
            ThreadCell(header, memory[start : start + THREAD_BYTES], doorbell)
            for start in range(_OWN_BYTES, _OWN_BYTES + threads * THREAD_BYTES, THREAD_BYTES)
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
