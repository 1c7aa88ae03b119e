"""How many workers a pool with ``workers: {min, max}`` should have: from what was seen to a decision.

Pure: ``(sight, bounds, now) -> decision``. It grows at once when it must: no worker was idle for a moment, and somebody
waits. It shrinks one by one, when fewer workers would have done for half a minute. Runs in the master.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

GROW_AFTER_S = 0.2
"""So long no worker is idle and somebody waits before there are more workers, and before there are still more."""

QUIET_S = 30.0
"""The work of so long decides how many workers would have done; at the earliest so long after the last growth."""

STEP_S = 5.0
"""The least time between two workers that go."""

FULL = 0.7
"""A pool with so much work for each worker has none to spare."""

TELL_AGAIN_S = 60.0
"""How often it is said that memory holds no more workers."""


class Sight(NamedTuple):
    """What a look at a pool has found."""

    wanted: int
    ready: int
    idle: int
    """Workers that had time for one more request, at some instant since the last look."""
    work: float
    """Work of so many workers was done for each second since the last look."""
    queued: int
    """Connections that wait for a worker, roughly."""
    room: int | None
    """How many more workers the memory holds; None if nothing limits it."""


class Bounds(NamedTuple):
    least: int
    most: int


class Decision(NamedTuple):
    """The number of workers to have, the same as before if memory forbids more; and why."""

    wanted: int
    why: str


@dataclass(slots=True)
class ScalingRule:
    """What is remembered of a pool between two looks; ``began`` is the instant of the first."""

    began: float
    _short_since: float | None = None
    """Since when nobody is idle though somebody waits."""
    _quiet_from: float = field(init=False)
    _shrunk_at: float = float("-inf")
    _told_at: float = float("-inf")
    _seconds: deque[tuple[float, float]] = field(default_factory=deque)
    """(end, mean work) of each second or so, for as long as it matters."""
    _last: float = field(init=False)
    _second_began: float = field(init=False)
    _done: float = 0.0

    def __post_init__(self) -> None:
        self._quiet_from = self._last = self._second_began = self.began

    def decide(self, sight: Sight, bounds: Bounds, now: float) -> Decision | None:
        """Return what should change, or None."""
        self._note_work(sight.work, now)
        if sight.ready == 0 or sight.idle or not sight.queued:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        if self._short_since is not None and now - self._short_since >= GROW_AFTER_S:
            return self._grow(sight, bounds, now, now - self._short_since)
        return self._shrink(sight, bounds, now)

    def _grow(self, sight: Sight, bounds: Bounds, now: float, short_s: float) -> Decision | None:
        if sight.ready < sight.wanted or sight.wanted >= bounds.most:
            return None  # more are on their way, or may not be
        step = min(bounds.most - sight.wanted, max(1, sight.wanted // 2), sight.queued)
        why = f"for {short_s:.1f} s no worker was idle, and {sight.queued} waited"
        if sight.room is not None and sight.room < step:
            step = sight.room
            why += f"; memory holds {step} more"
            if step <= 0:
                return self._tell_of_memory(sight.wanted, why, now)
        self._short_since = now
        self._quiet_from = now
        return Decision(sight.wanted + step, why)

    def _tell_of_memory(self, wanted: int, why: str, now: float) -> Decision | None:
        if now - self._told_at < TELL_AGAIN_S:
            return None
        self._told_at = now
        return Decision(wanted, why)

    def _shrink(self, sight: Sight, bounds: Bounds, now: float) -> Decision | None:
        if sight.wanted <= bounds.least or now - self._quiet_from < QUIET_S:
            return None
        if now - self._shrunk_at < STEP_S:
            return None
        most_work = max((work for _, work in self._seconds), default=0.0)
        if ceil(most_work / FULL) >= sight.wanted:
            return None
        self._shrunk_at = now
        return Decision(
            sight.wanted - 1, f"for {QUIET_S:.0f} s there was work for {most_work:.1f} workers at most"
        )

    def _note_work(self, work: float, now: float) -> None:
        """Keep means over a second: what is shorter is a burst, for which nobody needs a worker of his own."""
        self._done += work * (now - self._last)
        self._last = now
        if now - self._second_began >= 1.0:
            self._seconds.append((now, self._done / (now - self._second_began)))
            self._second_began, self._done = now, 0.0
            while self._seconds[0][0] <= now - QUIET_S:
                self._seconds.popleft()
