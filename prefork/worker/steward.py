"""The steward: a thread that does what the serve loop cannot while its thread is inside the application.

Runs in a worker with one application thread. It ticks while requests keep coming, and sleeps for good after a while
without one; the next request wakes it. See docs/decisions/0010-relay-and-steward.md for the baton and the races.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from time import sleep

from prefork.worker.exchange import ThreadCell

TICK_S = 0.004
"""A request that runs at two ticks in a row is one that others should not wait for."""

QUIET_TICKS = 250
"""After so many without a request it blocks."""


class Steward:
    """``attend`` is called with the baton, whenever a request has been running for longer than a tick."""

    def __init__(self, cell: ThreadCell, attend: Callable[[], None]) -> None:
        self._cell = cell
        self._attend = attend
        self.baton = _thread.allocate_lock()
        """Who holds it may do what the serve loop does. The main thread lets go of it only for the application."""
        self.asleep = True
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._started = False

    def wake(self) -> None:
        """Have it tick again. To be called without the baton, if it is ``asleep``."""
        self.asleep = False
        if self._started:
            self._bell.release()
            return
        try:
            threading.Thread(target=self._run, name="prefork-steward", daemon=True).start()
            self._started = True
        except RuntimeError:  # The system has no thread for us: the next request tries again.
            self.asleep = True

    def _run(self) -> None:
        cell, baton = self._cell, self.baton
        last = (0, 0)
        quiet_ticks = 0
        while True:
            sleep(TICK_S)
            now = cell.pulse()
            if now != last:
                last = now
                quiet_ticks = 0
            elif now[0]:
                if baton.acquire(False):
                    try:
                        if cell.pulse() == now:
                            self._attend()
                    finally:
                        baton.release()
            else:
                quiet_ticks += 1
                if quiet_ticks == QUIET_TICKS:
                    quiet_ticks = 0
                    self._sleep()

    def _sleep(self) -> None:
        """Block until a request begins. One that begins now is seen by one of the two: see the order in both."""
        self._bell.acquire(False)  # of a call that was not needed
        self.asleep = True
        if self.baton.locked():
            self._bell.acquire()
        else:
            self.asleep = False
