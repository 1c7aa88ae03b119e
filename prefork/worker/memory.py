"""What memory this worker uses: measured by itself, for nobody else may once privileges are dropped.

Runs in a worker: in the steward's thread where there is one, else in the loop's, and only while requests come. The
figures go to the scoreboard. ``recycle.memory`` is about the USS: the pages that the worker shares with nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time

from prefork.cell import Cell
from prefork.config.units import format_size
from prefork.figures import Memory
from prefork.worker.deadlines import Deadlines
from prefork.worker.loop import Loop
from prefork.worker.surroundings import Log

EVERY_S = 3.0
LAST_S = 1.0
"""When nothing comes any more the last measurement may be no older: what it missed would stay unknown."""
COST_SHARE = 1 / 200
"""The kernel walks all pages, some 15 ms for each GiB: a big worker measures itself less often."""

_PARTS = {b"Rss:": 0, b"Pss:": 1, b"Private_Clean:": 2, b"Private_Dirty:": 2, b"Private_Hugetlb:": 2}


class MemoryWatch:
    """Publishes the figures in ``cell``.

    Calls ``exceeded(why)`` each time that the USS is above ``most_bytes`` (0: never).
    """

    def __init__(self, cell: Cell, most_bytes: int, exceeded: Callable[[str], None], log: Log) -> None:
        self._cell = cell
        self._exceeded = exceeded
        self._measured_at = 0.0
        self._rest_s = 0.0
        """At least so long until the next time, for what the last one took."""
        self._most_bytes = 0
        uss_bytes = self._measure()
        if 0 < most_bytes < uss_bytes:
            log.warning(
                "recycle-memory-too-low",
                f"recycle.memory ({format_size(most_bytes)}) does not hold for this worker: it begins with "
                f"{mib(uss_bytes)} of its own, so each successor would have to go at once; raise it",
                uss_bytes=uss_bytes,
            )
        else:
            self._most_bytes = most_bytes

    def look(self, last: bool = False) -> None:
        """Measure, if the last time was long enough ago. ``last``: no request has come for a while."""
        if monotonic() < self._measured_at + max(LAST_S if last else EVERY_S, self._rest_s):
            return
        uss_bytes = self._measure()
        if 0 < self._most_bytes < uss_bytes:
            limit = format_size(self._most_bytes)
            self._exceeded(f"it uses {mib(uss_bytes)} of its own, recycle.memory is {limit}")

    def _measure(self) -> int:
        began = thread_time()  # what it costs, not how long others on the machine made it wait
        memory = measure()
        self._measured_at = monotonic()
        self._rest_s = (thread_time() - began) / COST_SHARE
        if memory is None:
            return 0
        self._cell.publish_memory(memory)
        return memory.uss_bytes


class InTheLoop:
    """Has a watch look about once a second while the loop turns, for a worker without a steward."""

    def __init__(self, loop: Loop, watch: MemoryWatch) -> None:
        self._watch = watch
        self._timer: Deadlines[None] = loop.deadlines(LAST_S, self._look)
        self._is_own_turn = True
        """Is the next turn the one after our own timer, or the first one, and no request's?"""
        self._has_turned = False

    def turn(self) -> None:
        """To be called in each turn."""
        if self._is_own_turn:
            self._is_own_turn = False
            return
        self._has_turned = True
        if not self._timer.entries:
            self._timer.start(None)

    def _look(self, _: None) -> None:
        self._watch.look(last=not self._has_turned)
        if self._has_turned:
            self._timer.start(None)
        self._has_turned = False
        self._is_own_turn = True


def measure(path: str = "/proc/self/smaps_rollup") -> Memory | None:
    """Return the figures of this process, or None where the kernel does not tell. See proc_pid_smaps(5)."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        return None
    found = [0, 0, 0]
    for line in text.splitlines():
        name, *value = line.split()
        if name in _PARTS and value:
            found[_PARTS[name]] += int(value[0]) * 1024
    return Memory(*found)


def mib(size_bytes: int) -> str:
    """Return a measured size for the log."""
    return f"{size_bytes / (1 << 20):.1f} MiB"
