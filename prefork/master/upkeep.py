"""What the master sees to while workers work, and only then: that there are enough of them, and memory for them.

Runs in the master. It looks on a timer while requests run, or while a pool has more workers than it must have; then
there are no timers. What wakes it is ``RequestWatch``, see there.
"""

from __future__ import annotations

from collections.abc import Iterable

from prefork.log import Log
from prefork.master.cgroup import memory_use
from prefork.master.headroom import room_for_workers
from prefork.master.pool import Pool
from prefork.master.pressure import Pressure
from prefork.master.scaling import Scaling

LOOK_S = 0.1
"""Between two looks at a pool that may have to grow."""

CALM_LOOK_S = 1.0
"""Between two looks at pools that can only shrink."""


class Upkeep:
    """Looks when ``next_look`` (monotonic seconds, None for never) has come. ``root``: see ``cgroup``."""

    def __init__(self, log: Log, root: str = "/") -> None:
        self.next_look: float | None = None
        self._log = log
        self._root = root
        self._scalings: dict[str, Scaling] = {}
        self._pressure = Pressure(root)
        self._stirred = False
        """Has a request begun, or anything else that matters, since the last look?"""

    def wake(self, now: float) -> None:
        """Look soon: a request has begun, or a pool has other workers."""
        self._stirred = True
        self.next_look = now if self.next_look is None else min(self.next_look, now + LOOK_S)

    def look(self, pools: Iterable[Pool], now: float, *, busy: bool) -> None:
        """Look at all pools; ``busy``: requests run."""
        pools = list(pools)
        living = {pool.name: pool for pool in pools}
        self._scalings = {n: s for n, s in self._scalings.items() if s.pool is living.get(n)}
        busy = busy or self._stirred
        self._stirred = False
        pressure_s = self._pressure.look(pools, now)
        waits = [pressure_s if busy else None]
        waits += [self._scale(pool, now, busy) for pool in pools]
        self.next_look = min((now + wait_s for wait_s in waits if wait_s is not None), default=None)

    def _scale(self, pool: Pool, now: float, busy: bool) -> float | None:
        """Return after how many seconds to look at the pool again, None for not at all."""
        if pool.bounds is None or not pool.table.is_settled:
            self._scalings.pop(pool.name, None)
            return CALM_LOOK_S if pool.bounds is not None and not pool.table.is_stopping else None
        if pool.name not in self._scalings:
            self._scalings[pool.name] = Scaling(pool, self._room, self._log, now)
        self._scalings[pool.name].look(now)
        if busy:
            return LOOK_S
        return CALM_LOOK_S if pool.table.wanted > pool.bounds.least else None

    def _room(self, pool: Pool) -> int | None:
        memories = [cell.memory for _, cell in pool.serving()]
        share = pool.current.config.recycle.pressure or 1.0
        return room_for_workers(memory_use(self._root), share, [m for m in memories if m is not None])
