"""The master's turns: asleep until the nearest deadline, then whatever is due, of workers, requests and upkeep.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Protocol

from prefork.log import Log
from prefork.master.loop import Loop
from prefork.master.pool import Pool
from prefork.master.request_watch import RequestWatch
from prefork.master.upkeep import Upkeep


class Master(Protocol):
    """What the turns need of the supervisor."""

    def pools(self) -> Sequence[Pool]:
        """Return all pools, coming and leaving ones too."""

    def turn_ended(self) -> None:
        """Tell of what has changed."""

    def internal_error(self) -> None:
        """Report the exception that is being handled as a mistake of our own."""


class Turns:
    """One after the other; each may move every deadline."""

    def __init__(self, loop: Loop, requests: RequestWatch, upkeep: Upkeep, log: Log, master: Master) -> None:
        self._loop = loop
        self._requests = requests
        self._upkeep = upkeep
        self._log = log
        self._master = master

    def turn(self) -> None:
        """Sleep until something happens or a deadline passes, and act on what is due."""
        instants = [pool.table.next_deadline() for pool in self._master.pools()]
        instants += [self._requests.next_look, self._upkeep.next_look]
        lost_s = self._loop.run_once(min((i for i in instants if i is not None), default=None))
        if lost_s:
            self._log.warning(
                "suspended",
                f"the master did not run for {lost_s:.1f} s; all deadlines move by that",
                lost_s=round(lost_s, 3),
            )
            self._requests.excuse(lost_s)
            for pool in self._master.pools():
                pool.table.postpone(lost_s)
        try:
            self._act_on_deadlines(monotonic())
            self._master.turn_ended()
        except Exception:
            self._master.internal_error()
            sleep(1.0)  # it may come again at once, and must not become a busy loop

    def _act_on_deadlines(self, now: float) -> None:
        for pool in self._master.pools():
            deadline = pool.table.next_deadline()
            if deadline is not None and deadline <= now:
                pool.expire(now)
        if self._requests.next_look is not None and self._requests.next_look <= now:
            self._requests.look(self._master.pools())
            if not self._requests.is_asleep:
                self._upkeep.wake(now)
        if self._upkeep.next_look is not None and self._upkeep.next_look <= now:
            self._upkeep.look(self._master.pools(), now, busy=not self._requests.is_asleep)

    def rung(self) -> None:
        """A worker rang the doorbell: requests run."""
        self._requests.rung()
        self._upkeep.wake(monotonic())
