"""The lookout: reports requests that are slow, and finds those whose deadline has passed.

Runs in a worker: in the steward while the main thread is in the application, or in the loop beside application
threads. If neither gets to run, because C code holds the interpreter lock, the master speaks and acts a little
later (see ``master.request_watch``). Costs a request nothing: all it looks at is in the scoreboard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from prefork.stacks import stack_of_thread
from prefork.worker.absence import Absence
from prefork.worker.deadlines import Deadlines
from prefork.worker.exchange import WatchedCell
from prefork.worker.loop import Loop

if TYPE_CHECKING:
    from prefork.worker.response import Response

ROUND_S = 0.25
"""How often the loop looks while application threads run requests: more seldom it could not tell when it was
suspended.
"""


class Overdue(Protocol):
    """Is told of a request whose deadline has passed, once."""

    def __call__(self, cell: WatchedCell, response: Response, start_ns: int, stack: str) -> None: ...


class Vigil:
    """What is known of the request that a thread runs."""

    __slots__ = ("cell", "excused_ns", "intervals", "is_late", "start_ns")

    def __init__(self, cell: WatchedCell) -> None:
        self.cell = cell
        self.begin(0)

    def begin(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.intervals = 1
        """The next report is due after so many times ``timeouts.slow``."""
        self.excused_ns = 0
        self.is_late = False


class Lookout:
    """``slow`` is told of slow requests, with their stacks, at doubling intervals; ``overdue`` of late ones.

    ``failed`` is called when one of the two has raised: whoever looks has to live on.
    """

    def __init__(
        self,
        cells: Sequence[WatchedCell],
        slow: Callable[[Response, int, str], None],
        overdue: Overdue,
        failed: Callable[[], None],
    ) -> None:
        self._vigils = [Vigil(cell) for cell in cells]
        self._slow = slow
        self._overdue = overdue
        self._failed = failed

    def excuse(self, lost_s: float) -> None:
        """Move all limits: the process was suspended."""
        now_ns = monotonic_ns()
        for vigil in self._vigils:
            if start_ns := vigil.cell.limits()[0]:
                if vigil.start_ns != start_ns:
                    vigil.begin(start_ns)
                vigil.excused_ns += min(int(lost_s * 1e9), now_ns - start_ns)
                vigil.cell.excuse(start_ns, vigil.excused_ns)

    def look(self) -> int | None:
        """Act on what is due; return the next instant that matters in monotonic ns, 0 for none; None: nothing runs."""
        now_ns = monotonic_ns()
        running = []
        for vigil in self._vigils:
            try:
                if (instant := self._look_at(vigil, now_ns)) is not None:
                    running.append(instant)
            except Exception:
                self._failed()
        return min(filter(None, running), default=0) if running else None

    def _look_at(self, vigil: Vigil, now_ns: int) -> int | None:
        cell = vigil.cell
        start_ns, deadline_ns, slow_ns = cell.limits()
        response = cell.current
        # Its thread sets the object before the start, and the start is another for each request.
        if not start_ns or cell.limits()[0] != start_ns:
            return None
        if vigil.start_ns != start_ns:
            vigil.begin(start_ns)
            cell.identify(start_ns, response.request_id)
        interval_ns = slow_ns and slow_ns - start_ns
        slow_ns = interval_ns and start_ns + interval_ns * vigil.intervals + vigil.excused_ns
        if vigil.is_late or not deadline_ns:
            deadline_ns = 0
        else:
            deadline_ns += vigil.excused_ns
        if deadline_ns and now_ns >= deadline_ns:
            vigil.is_late = True
            self._overdue(cell, response, start_ns, stack_of_thread(cell.ident))
            deadline_ns = slow_ns = 0
        elif slow_ns and now_ns >= slow_ns:
            while slow_ns <= now_ns:
                vigil.intervals *= 2
                slow_ns = start_ns + interval_ns * vigil.intervals + vigil.excused_ns
            cell.told(start_ns, slow_ns)
            self._slow(response, now_ns - start_ns, stack_of_thread(cell.ident))
        return min(filter(None, (deadline_ns, 0 if vigil.is_late else slow_ns)), default=0)


class Rounds:
    """Has the loop look while application threads run requests, and not longer."""

    def __init__(self, loop: Loop, lookout: Lookout) -> None:
        self._lookout = lookout
        self._absence = Absence()
        self._round: Deadlines[None] = loop.deadlines(ROUND_S, lambda _: self._look())
        self._runs = self._round.entries

    def begin(self) -> None:
        """A request has been given to a thread."""
        if not self._runs:
            self._wait_until(0)

    def _look(self) -> None:
        if lost_s := self._absence.lost_s():
            self._lookout.excuse(lost_s)
        next_ns = self._lookout.look()
        if next_ns is not None:
            self._wait_until(next_ns)

    def _wait_until(self, instant_ns: int) -> None:
        self._round.start(None)
        due = self._round.entries[None]
        if instant_ns and instant_ns / 1e9 < due:
            due = instant_ns / 1e9
            self._round.start_at(None, due)
        self._absence.wait_until(due)
