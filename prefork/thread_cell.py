"""A thread's part of the scoreboard: the request that it runs, and what it has counted.

Also here: the ring at the doorbell, which belongs to the start of a request. Used by workers, which write, and by
the master and the admin process, which read. Offsets are in native 64-bit words, unless they say bytes.

Each word has one writer: the thread itself, or the worker's lookout, which has the baton.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

from prefork.figures import CLASSES, METHODS, MOST, MOST_BUCKETS, OVER_NS, Counts, Histogram, Running

_WORDS_BYTES = 1024
_ID_OFFSET_BYTES = _WORDS_BYTES
ID_BYTES = 128
"""Longest id of a request that is shown; a proxy's has at most so many."""
_LINE_OFFSET_BYTES = _ID_OFFSET_BYTES + ID_BYTES
LINE_BYTES = 256
"""Longest request line that is shown; longer ones are cut."""
THREAD_BYTES = _LINE_OFFSET_BYTES + LINE_BYTES

ASLEEP_WORD = 8
"""Word of the scoreboard's header: does the master sleep, so that it has to be rung?"""

# Words of a thread. First what it writes itself. A request is counted in one of two histograms: in the second one, with
# its time, if its exchange took longer than the application and is counted in the worker's cell when it is over.
_T_START_NS, _T_DEADLINE_NS, _T_SLOW_NS, _T_NATIVE_ID, _T_LINE_BYTES, _T_SENT_BYTES, _T_SLOW_ENDED = range(7)
_T_ELAPSED_NS, _T_ELAPSED_APART_NS = 7, 8
# What the worker's lookout writes, each with the start of the request that it is about: when it will tell again of
# a slow one, for how long it was suspended, that its deadline was dealt with, and was counted, and its id.
_T_TOLD_START_NS, _T_TOLD_NS, _T_EXCUSED_START_NS, _T_EXCUSED_NS, _T_ENDED_START_NS = range(9, 14)
_T_ENDED_STATUS, _T_SLOW_TOLD, _T_LATE_START_NS, _T_LATE, _T_ID_START_NS, _T_ID_BYTES = range(14, 20)
_T_COUNTS = 20

_COUNT_OF_METHOD = {method: _T_COUNTS + index * len(CLASSES) for index, method in enumerate(METHODS)}
_COUNT_OF_OTHER = _COUNT_OF_METHOD["other"]
_T_BUCKETS = _T_COUNTS + len(METHODS) * len(CLASSES)
_T_BUCKETS_APART = _T_BUCKETS + MOST_BUCKETS + 1
_T_END = _T_BUCKETS_APART + MOST_BUCKETS + 1
assert _T_END * 8 <= _WORDS_BYTES

_MOST_CLAIMS = 8


class ThreadCell:
    """What one application thread does; written only by that thread, and by the lookout of its worker."""

    __slots__ = (
        "_bounds_ns",
        "_doorbell",
        "_header",
        "_id",
        "_line",
        "_shown",
        "_slow_claims",
        "_words",
        "current",
        "ident",
    )

    def __init__(
        self, header: memoryview[int], memory: memoryview[int], bounds_ns: Sequence[int], doorbell: int
    ) -> None:
        self._header = header
        self._words = memory[:_WORDS_BYTES].cast("Q")
        self._id = memory[_ID_OFFSET_BYTES:_LINE_OFFSET_BYTES]
        self._line = memory[_LINE_OFFSET_BYTES:]
        self._bounds_ns = bounds_ns
        self._shown: bytes | None = None
        self._doorbell = doorbell
        self._slow_claims: dict[int, object] | None = None
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

    def leave(
        self, method: str, status: int, start_ns: int, sent_bytes: int, has_exchange: bool = False
    ) -> int:
        """Publish that the request is over and count it; return how long it took, in nanoseconds.

        ``has_exchange``: its exchange takes longer, and is counted when it is over (``Cell.add_exchange``). Else it
        counts as having taken as long.
        """
        words = self._words
        words[_T_START_NS] = 0
        self.current = None
        elapsed_ns = monotonic_ns() - start_ns
        words[
            _COUNT_OF_METHOD.get(method, _COUNT_OF_OTHER) + (status // 100 - 1 if 100 <= status < 600 else 4)
        ] += 1
        bucket = bisect_left(self._bounds_ns, elapsed_ns)
        if has_exchange:
            words[_T_BUCKETS_APART + bucket] += 1
            words[_T_ELAPSED_APART_NS] += elapsed_ns
        else:
            words[_T_BUCKETS + bucket] += 1
            words[_T_ELAPSED_NS] += elapsed_ns
        if sent_bytes:
            words[_T_SENT_BYTES] += sent_bytes
        return elapsed_ns

    def end_slow(self, start_ns: int) -> None:
        """Count the request of this start as slow, unless the lookout did; called by its thread after ``leave``."""
        if self._claim_slow(start_ns):
            self._words[_T_SLOW_ENDED] += 1

    def pulse(self) -> tuple[int, int]:
        """Return the start of the request that runs now, 0 for none, and how long all before it took: it is
        another pair whenever a request has begun or ended."""
        words = self._words
        return words[_T_START_NS], words[_T_ELAPSED_NS] + words[_T_ELAPSED_APART_NS]

    def limits(self) -> tuple[int, int, int]:
        """Return start, deadline and slow instant as ``enter`` wrote them; the start is 0 if nothing runs."""
        words = self._words
        return words[_T_START_NS], words[_T_DEADLINE_NS], words[_T_SLOW_NS]

    def extend(self, by_ns: int) -> None:
        """Move the deadline of the request that runs, if it has one; only its own thread may do that."""
        words = self._words
        if words[_T_START_NS] and words[_T_DEADLINE_NS]:
            words[_T_DEADLINE_NS] += by_ns

    # For the lookout.

    def identify(self, start_ns: int, request_id: str) -> None:
        """Show the id of the request of this start: written only for those that run for more than a moment."""
        encoded = request_id.encode("latin-1", "replace")[:ID_BYTES]
        self._words[_T_ID_START_NS] = 0
        self._id[: len(encoded)] = encoded
        self._words[_T_ID_BYTES] = len(encoded)
        self._words[_T_ID_START_NS] = start_ns

    def told(self, start_ns: int, again_ns: int) -> None:
        """Tell the master that the slow request of this start was reported, and when it will be again; count it."""
        words = self._words
        words[_T_TOLD_NS] = again_ns
        if words[_T_TOLD_START_NS] != start_ns:
            words[_T_TOLD_START_NS] = start_ns
            if self._claim_slow(start_ns):
                words[_T_SLOW_TOLD] += 1

    def excuse(self, start_ns: int, by_ns: int) -> None:
        """Tell the master that the request of this start was suspended with its worker."""
        self._words[_T_EXCUSED_NS] = by_ns
        self._words[_T_EXCUSED_START_NS] = start_ns

    def count_late(self, start_ns: int) -> None:
        """Count that the deadline of the request of this start has passed."""
        self._words[_T_LATE_START_NS] = start_ns
        self._words[_T_LATE] += 1

    def end(self, start_ns: int, status: int) -> None:
        """Tell the master that the worker has dealt with the deadline of the request of this start, and what its
        client got."""
        self._words[_T_ENDED_STATUS] = status
        self._words[_T_ENDED_START_NS] = start_ns

    # For readers.

    @property
    def native_id(self) -> int:
        """The kernel's id of the thread, as in ``/proc/PID/task``."""
        return self._words[_T_NATIVE_ID]

    @property
    def is_running(self) -> bool:
        return self._words[_T_START_NS] != 0

    @property
    def requests(self) -> int:
        return sum(self._words[_T_COUNTS:_T_BUCKETS])

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
        slow_from_ns = slow_ns
        if words[_T_ENDED_START_NS] == start_ns:
            deadline_ns = 0
        if slow_ns and words[_T_TOLD_START_NS] == start_ns:
            slow_ns = max(slow_ns, words[_T_TOLD_NS])
        length = min(words[_T_LINE_BYTES], LINE_BYTES)
        line = bytes(self._line[:length]).decode("latin-1")
        request_id = ""
        if words[_T_ID_START_NS] == start_ns:
            request_id = bytes(self._id[: min(words[_T_ID_BYTES], ID_BYTES)]).decode("latin-1")
        if words[_T_START_NS] != start_ns:
            return None
        return Running(thread, start_ns, deadline_ns, slow_ns, line, slow_from_ns, request_id)

    def words(self) -> list[int]:
        """Return the words as they are now, for ``counts_in``."""
        return self._words[:_T_END].tolist()

    def counts(self) -> Counts:
        return counts_in(self.words(), self._bounds_ns)

    def last_counts(self, thread: int, now_ns: int) -> Counts:
        """Return the counts of a thread that is dead: what its worker did not come to count is counted now."""
        counts = self.counts()
        request = self.running(thread)
        if request is None:
            return counts
        words, start_ns = self._words, request.start_ns
        slow = 0 < request.slow_from_ns <= now_ns and words[_T_TOLD_START_NS] != start_ns
        late = 0 < request.deadline_ns <= now_ns and words[_T_LATE_START_NS] != start_ns
        counts = counts._replace(slow=counts.slow + slow, deadlines=counts.deadlines + late)
        if words[_T_ENDED_START_NS] != start_ns:
            return counts
        # It was answered, and its thread has stayed in the application.
        method, elapsed_ns = request.line.partition(" ")[0], max(0, now_ns - start_ns)
        kind = _class_of(words[_T_ENDED_STATUS])
        took = histogram(self._bounds_ns, [0] * bisect_left(self._bounds_ns, elapsed_ns) + [1])
        return counts.plus(
            Counts(
                requests=1,
                errors=int(CLASSES[kind] == "5xx"),
                by_method={method if method in METHODS else "other": {CLASSES[kind]: 1}},
                application=took,
                application_ns=elapsed_ns,
                exchange=took,
                exchange_ns=elapsed_ns,
            )
        )

    def _claim_slow(self, start_ns: int) -> bool:
        """Tell whether the request of this start is to be counted as slow by the caller; for its thread and the
        lookout, who may ask at once, exactly one is told so."""
        claims = self._slow_claims
        if claims is None:
            claims = self._slow_claims = {}
        claim = object()
        is_ours = claims.setdefault(start_ns, claim) is claim
        if len(claims) > _MOST_CLAIMS:
            claims.pop(min(list(claims)), None)
        return is_ours


def _class_of(status: int) -> int:
    return status // 100 - 1 if 100 <= status < 600 else 4


def counts_in(words: Sequence[int], bounds_ns: Sequence[int]) -> Counts:
    """Return what a thread has counted, or several, if ``words`` are the sums of theirs."""
    matrix = words[_T_COUNTS:_T_BUCKETS]
    by_method = {}
    for at, method in enumerate(METHODS):
        row = matrix[at * len(CLASSES) : (at + 1) * len(CLASSES)]
        if any(row):
            by_method[method] = {name: count for name, count in zip(CLASSES, row, strict=True) if count}
    both = words[_T_BUCKETS:_T_BUCKETS_APART]
    apart = words[_T_BUCKETS_APART:_T_END]
    return Counts(
        requests=sum(matrix),
        errors=errors_in(words),
        slow=words[_T_SLOW_ENDED] + words[_T_SLOW_TOLD],
        deadlines=words[_T_LATE],
        sent_bytes=words[_T_SENT_BYTES],
        by_method=by_method,
        application=histogram(bounds_ns, list(map(int.__add__, both, apart))),
        application_ns=words[_T_ELAPSED_NS] + words[_T_ELAPSED_APART_NS],
        exchange=histogram(bounds_ns, both),
        exchange_ns=words[_T_ELAPSED_NS],
    )


def requests_in(words: Sequence[int]) -> int:
    return sum(words[_T_COUNTS:_T_BUCKETS])


def errors_in(words: Sequence[int]) -> int:
    return sum(words[_T_COUNTS + len(CLASSES) - 1 : _T_BUCKETS : len(CLASSES)])


def are_credible(words: Sequence[int]) -> bool:
    """Could these be counters, or is it nonsense that somebody has written into the scoreboard?"""
    counts = (words[_T_SENT_BYTES], words[_T_SLOW_ENDED], words[_T_SLOW_TOLD], words[_T_LATE])
    times_ns = words[_T_ELAPSED_NS], words[_T_ELAPSED_APART_NS]
    return max(*counts, *words[_T_COUNTS:_T_END]) < MOST and max(times_ns) < OVER_NS


def histogram(bounds_ns: Sequence[int], counts: Sequence[int]) -> Histogram:
    """Return what is not zero of counts, which may be more than there are buckets."""
    bounds = (*bounds_ns, OVER_NS)
    return {bound: count for bound, count in zip(bounds, counts, strict=False) if count}
