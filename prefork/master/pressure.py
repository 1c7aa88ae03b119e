"""``recycle.pressure``: when the control group comes near its memory limit, the biggest worker is replaced in time.

Under Kubernetes the kernel kills the whole container for one process that finds no memory. Runs in the master, which
looks only while requests run; the workers measure themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prefork.figures import Memory
from prefork.master.cgroup import memory_use
from prefork.master.plan import Worker
from prefork.master.pool import Pool

LOOK_S = 2.0
REASON = "recycled-pressure"

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
"""After a worker was recycled; doubling up to this while that does not help, since the memory is somebody else's."""

MIB = 1 << 20


class Pressure:
    """Recycles one worker at a time, of whatever pool. ``root``: see ``cgroup``."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._next_look = 0.0
        self._is_limited = True
        self._next_recycling = 0.0
        self._pause_s = FIRST_PAUSE_S

    def look(self, pools: Sequence[Pool], now: float) -> float | None:
        """Act, if it is time; return after how many seconds to look again, None if there is no limit."""
        if not any(pool.current.config.recycle.pressure for pool in pools):
            return None
        if now < self._next_look:
            return self._next_look - now if self._is_limited else None
        self._next_look = now + LOOK_S
        use = memory_use(self._root)
        self._is_limited = use is not None
        if use is None:
            return None
        pressed = [pool for pool in pools if 0 < pool.current.config.recycle.pressure < use.share]
        if not pressed:
            self._pause_s = FIRST_PAUSE_S
        elif now >= self._next_recycling and not any(map(_is_recycling, pools)):
            found = max(_candidates(pressed), key=lambda found: found[2].uss_bytes, default=None)
            if found is not None:
                self._next_recycling = now + self._pause_s
                self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
                pool, worker, memory = found
                pool.recycle(worker, REASON)
                share = pool.current.config.recycle.pressure
                pool.log_of(worker).warning(
                    "memory-pressure",
                    f"{use.used_bytes // MIB} MiB of {use.limit_bytes // MIB} MiB are in use, {use.share:.0%} with "
                    f"recycle.pressure at {share:.0%}: this worker is replaced, the biggest with "
                    f"{memory.uss_bytes // MIB} MiB of its own",
                    used_bytes=use.used_bytes,
                    limit_bytes=use.limit_bytes,
                    uss_bytes=memory.uss_bytes,
                )
        return LOOK_S


def _candidates(pools: Sequence[Pool]) -> Iterable[tuple[Pool, Worker, Memory]]:
    for pool in pools:
        if pool.table.is_settled:
            for worker, cell in pool.serving():
                if cell.memory is not None:
                    yield pool, worker, cell.memory


def _is_recycling(pool: Pool) -> bool:
    return any(worker.reason == REASON for worker in pool.table.workers.values())
