"""The master's loop: one epoll, timers, no threads; it sleeps until the nearest deadline and not a moment less.

It also notices when the master itself was suspended (SIGSTOP, a closed lid): nobody is late because the master
was, so all timers move by the time that was lost. Runs in the master.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

SUSPENDED_S = 1.0
"""A wake-up that comes this much after its deadline means that the master did not run."""


@dataclass(order=True, slots=True)
class Timer:
    """A call that is due at ``instant`` (monotonic seconds)."""

    instant: float
    serial: int
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = (
            _nothing  # it stays in the heap until its time has come, and must not keep pools alive
        )


def _nothing() -> None:
    pass


class Loop:
    """Calls back when a descriptor is readable (or what else is asked for) and when a timer is due.

    ``on_error`` is called in the handler of an exception that a callback lets out; the loop goes on.
    """

    def __init__(self, on_error: Callable[[], None], ran_until: float | None = None) -> None:
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._timers: list[Timer] = []
        self._serial = 0
        self._ran_until = monotonic() if ran_until is None else ran_until
        """The last instant at which the master is known to have run."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever ``fd`` is readable or at its end."""
        self.watch_events(fd, select.EPOLLIN, lambda _: callback())

    def watch_events(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call back with what has happened of ``events``; errors and the end of both directions are always told."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change_events(self, fd: int, events: int) -> None:
        """Watch for other events of a descriptor."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; to be called before it is closed."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call back once, ``delay_s`` from now."""
        self._serial += 1
        timer = Timer(monotonic() + delay_s, self._serial, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run_once(self, deadline: float | None) -> float:
        """Wait for the first of: a descriptor, a timer, ``deadline``; call back.

        Returns by how many seconds other deadlines should be moved: 0.0, or how long the master was suspended.
        """
        began = monotonic()
        lost_s = self._postpone_if_suspended(self._ran_until, began, began - self._ran_until)
        deadline = self._nearest(deadline)
        events = self._epoll.poll(None if deadline is None else max(0.0, deadline - began))
        now = self._ran_until = monotonic()
        if deadline is not None:
            lost_s += self._postpone_if_suspended(max(deadline, began), now, now - began)
        for fd, happened in events:
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this batch may have closed it
                self._call(partial(callback, happened))
        self._run_timers(monotonic())
        return lost_s

    def _postpone_if_suspended(self, expected: float, now: float, by_s: float) -> float:
        """Move all timers by ``by_s`` if ``now`` is much later than ``expected``; return by how much."""
        if now - expected <= SUSPENDED_S:
            return 0.0
        for timer in self._timers:
            timer.instant += by_s
        return by_s

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
                # Who holds on to its timer would else be held by it, a ring that lives until the next collection.
                callback, timer.callback = timer.callback, _nothing
                self._call(callback)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            self._on_error()
