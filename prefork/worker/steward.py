"""The steward: a thread that does what the serve loop cannot while its thread is inside the application.

Runs in a worker with one application thread. It ticks while requests keep coming, and sleeps for good after a while
without one; the next request wakes it. See docs/decisions/0010-relay-and-steward.md for the baton and the races.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING

from prefork.worker.absence import Absence
from prefork.worker.exchange import ThreadCell

if TYPE_CHECKING:
    from prefork.worker.lookout import Lookout

TICK_S = 0.004
"""A request that runs at two ticks in a row is one that others should not wait for."""

QUIET_TICKS = 250
"""After so many without a request it blocks."""

CHORE_TICKS = 250


class Steward:
    """``attend`` is called with the baton, whenever a request has been running for longer than a tick.

    ``chore(last)``, when it is set, is called without it about once a second while the steward is awake, the last time
    just before it blocks.
    """

    def __init__(self, cell: ThreadCell, attend: Callable[[], None]) -> None:
        self._cell = cell
        self._attend = attend
        self.chore: Callable[[bool], None] | None = None
        self.lookout: Lookout | None = None
        """Looks at the request that has been running for so long; to be set before it runs."""
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
        absence = Absence()
        last = (0, 0)
        quiet_ticks = ticks = 0
        while True:
            absence.wait_until(monotonic() + TICK_S)
            sleep(TICK_S)
            if self.lookout is not None and (lost_s := absence.lost_s()):
                self.lookout.excuse(lost_s)
            ticks += 1
            if ticks >= CHORE_TICKS:
                ticks = 0
                if self.chore is not None:
                    self.chore(False)
            now = cell.pulse()
            if now != last:
                last = now
                quiet_ticks = 0
            elif now[0]:
                if baton.acquire(False):
                    try:
                        if cell.pulse() == now:
                            self._attend()
                            if self.lookout is not None:
                                self.lookout.look()
                    finally:
                        baton.release()
            else:
                quiet_ticks += 1
                if quiet_ticks == QUIET_TICKS:
                    quiet_ticks = 0
                    if self.chore is not None:
                        self.chore(True)
                    self._sleep()

    def _sleep(self) -> None:
        """Block until a request begins. One that begins now is seen by one of the two: see the order in both."""
        self._bell.acquire(False)  # of a call that was not needed
        self.asleep = True
        if self.baton.locked():
            self._bell.acquire()
        else:
            self.asleep = False
