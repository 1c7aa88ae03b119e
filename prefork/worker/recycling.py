"""When a worker has had enough, and asks the master for a successor.

Runs in a worker, in the loop's thread; it is not there at all when nothing of ``recycle`` is set. The worker serves
on until the master tells it to drain, which is when its successor is ready.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from prefork.config import Recycle

if TYPE_CHECKING:
    from prefork.worker.loop import Loop
    from prefork.worker.server import Log

MOST_A_TURN = 64
"""More requests than one turn of the loop usually ends: the counters are read only when it may matter."""

_NEVER = 1 << 62


class Recycling:
    """Asks once, when ``served()`` is at least ``most`` (0: never) or when told to.

    ``ask`` sends the reason to the master, and returns False if it has to be sent again.
    """

    def __init__(self, most: int, served: Callable[[], int], ask: Callable[[str], bool], log: Log) -> None:
        self._most = most
        self._served = served
        self._ask = ask
        self._log = log
        self._skip = 0 if most else _NEVER
        """So many turns of the loop may pass before the next look."""
        self._reason: str | None = None

    def look(self) -> None:
        """Ask if it is time. To be called in each turn of the loop."""
        self._skip -= 1
        if self._skip >= 0:
            return
        if self._reason is None:
            served = self._served()
            if served < self._most:
                self._skip = (self._most - served) // MOST_A_TURN
                return
            self.want("recycled-requests", f"it has served {served} requests, and may {self._most}")
        if self._reason is not None and self._ask(self._reason):
            self._skip = _NEVER

    def want(self, reason: str, why: str) -> None:
        """Ask in the next turn of the loop; ``why`` is for the log."""
        if self._reason is None:
            self._reason = reason
            self._skip = 0
            self._log.info("worker-recycling", f"asks to be replaced: {why}", reason=reason)


def recycling(
    recycle: Recycle, served: Callable[[], int], loop: Loop, ask: Callable[[str], bool], log: Log
) -> Recycling | None:
    """Return what watches over this worker, or None if it may live for ever."""
    if not (recycle.requests or recycle.lifetime):
        return None
    made = Recycling(int(spread(recycle.requests, recycle.jitter)), served, ask, log)
    if recycle.lifetime:
        lifetime_s = spread(recycle.lifetime, recycle.jitter)
        why = f"it has lived for {lifetime_s:.1f} s"
        loop.deadlines(lifetime_s, lambda _: made.want("recycled-lifetime", why)).start(None)
    return made


def spread(value: float, jitter: float) -> float:
    """Return up to the share ``jitter`` more, so that workers that began together do not end together."""
    return value * (1 + jitter * random.random())
