"""A thread's part of the scoreboard: the request that it runs, and what it has counted.

Also here: the ring at the doorbell, which belongs to the start of a request. Used by workers, which write, and by
the master and the admin process, which read. Offsets are in native 64-bit words, unless they say bytes.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from time import monotonic_ns
from typing import Any

from prefork.figures import Counts, Running

_WORD_BYTES = 8
THREAD_BYTES = 1024
_LINE_OFFSET_BYTES = 768
LINE_BYTES = THREAD_BYTES - _LINE_OFFSET_BYTES
"""Longest request line that is shown; longer ones are cut."""

ASLEEP_WORD = 8
"""Word of the scoreboard's header: does the master sleep, so that it has to be rung?"""

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
        if self._header[ASLEEP_WORD] and (deadline_ns or slow_ns):
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
