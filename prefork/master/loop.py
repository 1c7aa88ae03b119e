"""The master's loop: one epoll, timers, no threads; it sleeps until the nearest deadline and not a moment less.

It also notices when the master itself was suspended (SIGSTOP, a closed lid): nobody is late because the master
was, so all timers move by the time that was lost. Runs in the master.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

SUSPENDED_S = 1.0
"""A wake-up that comes this much after its deadline means that the master did not run."""


@dataclass(order=True, slots=True)
class Timer:
    """A call that is due at ``instant`` (monotonic seconds)."""

    instant: float
    serial: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Calls back when a descriptor is readable and when a timer is due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readable: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._serial = 0

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever ``fd`` is readable or at its end."""
        self._readable[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; to be called before it is closed."""
        del self._readable[fd]
        self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, ``delay_s`` from now."""
        self._serial += 1
        timer = Timer(monotonic() + delay_s, self._serial, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run_once(self, deadline: float | None) -> float:
        """Wait for the first of: a descriptor, a timer, ``deadline``; call back.

        Returns by how many seconds other deadlines should be moved: 0.0, or the length of the sleep if the
        master was suspended during it.
        """
        deadline = self._nearest(deadline)
        began = monotonic()
        wait_s = None if deadline is None else max(0.0, deadline - began)
        events = self._epoll.poll(wait_s)
        now = monotonic()
        lost_s = 0.0
        if deadline is not None and now - max(deadline, began) > SUSPENDED_S:
            lost_s = now - began
            for timer in self._timers:
                timer.instant += lost_s
        for fd, _ in events:
            callback = self._readable.get(fd)
            if callback is not None:  # an earlier callback of this batch may have closed it
                callback()
        self._run_timers(monotonic())
        return lost_s

    def _nearest(self, deadline: float | None) -> float | None:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return deadline
        first = self._timers[0].instant
        return first if deadline is None else min(first, deadline)

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0].instant <= now:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback()
