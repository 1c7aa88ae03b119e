"""Deadlines of connections: one queue for each kind of timeout; used by the serve loop of a worker.

All that wait in one queue wait equally long, so the order of insertion is the order of expiry: starting and
stopping are one operation each on an ordered dict, the nearest deadline is its first entry, and nothing is
sorted or scanned. (A plain dict is as fast but scans the holes that removed first entries leave: 3 µs with
10,000 of them.) What was started elsewhere, on a connection that was handed over, is due earlier than its place in that
order says; such entries are in a heap besides. Instants are ``time.monotonic()``.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

NEVER = float("inf")
"""The instant that does not come."""

_FEW = 16
"""So many entries in a heap are not worth tidying up."""


class Deadlines(Generic[T]):
    """Things that expire ``timeout_s`` after their start; with 0 they never do."""

    __slots__ = ("_serial", "early", "entries", "expire", "stop", "timeout_s")

    def __init__(self, timeout_s: float, expire: Callable[[T], None]) -> None:
        self.timeout_s = timeout_s
        self.expire = expire
        """Called with each thing that is over, after it was taken out."""
        self.entries: OrderedDict[T, float] = OrderedDict()
        self.stop: Callable[[T, None], float | None] = self.entries.pop
        """``stop(thing, None)``: the dict's own method, since every request calls it."""
        self.early: list[tuple[float, int, T]] = []
        """Entries that are due before those in front of them; one counts only while ``entries`` says the same."""
        self._serial = count()

    def start(self, thing: T) -> None:
        """Give ``thing`` its full time from now on, also if it had been started before."""
        timeout_s = self.timeout_s
        entries = self.entries
        entries.pop(thing, None)
        entries[thing] = monotonic() + timeout_s if timeout_s else NEVER

    def start_at(self, thing: T, due: float) -> None:
        """Have ``thing`` expire at ``due``, or after its full time from now on if that is earlier."""
        self.start(thing)
        if due < self.entries[thing]:
            self.entries[thing] = due
            if len(self.early) > 2 * len(self.entries) + _FEW:
                # Those that were stopped would keep their things until they are due.
                self.early = [entry for entry in self.early if self.entries.get(entry[2]) == entry[0]]
                heapq.heapify(self.early)
            heapq.heappush(self.early, (due, next(self._serial), thing))

    def nearest_early(self) -> float:
        """Return the first instant of those that were started at one; infinity for none."""
        early = self.early
        while early:
            due, _, thing = early[0]
            if self.entries.get(thing) == due:
                return due
            heapq.heappop(early)
        return NEVER

    def run(self, now: float) -> None:
        """Expire what is due at ``now``."""
        entries = self.entries
        while self.nearest_early() <= now and self.early:
            _, _, thing = heapq.heappop(self.early)
            del entries[thing]
            self.expire(thing)
        while entries:
            thing, due = next(iter(entries.items()))
            if due > now:
                break
            del entries[thing]
            self.expire(thing)


def nearest(queues: list[Deadlines[T]]) -> float:
    """Return the first instant at which any of ``queues`` is due; infinity for never."""
    first = NEVER
    for queue in queues:
        if queue.entries:
            due = next(iter(queue.entries.values()))
            if queue.early:
                due = min(due, queue.nearest_early())
            if due < first:
                first = due
    return first
