"""When a worker has had enough, and asks the master for a successor.

Runs in a worker, in the loop's thread. The worker serves on until the master tells it to drain, which is when its
successor is ready. Nothing is called in the turns of the loop when nothing of ``recycle`` is set.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from prefork.cell import Cell
from prefork.config import Pool, WorkerRange
from prefork.worker.backlog import Backlog
from prefork.worker.http_server import HTTPServer
from prefork.worker.memory import InTheLoop, MemoryWatch
from prefork.worker.server import Server
from prefork.worker.surroundings import Log

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


def watch_over(server: Server, pool: Pool, cell: Cell, ask: Callable[[str], bool], log: Log) -> None:
    """Have a worker publish what the master decides by, and ask for a successor when ``recycle`` says so."""
    recycle = pool.recycle

    def served() -> int:
        return cell.requests if isinstance(server, HTTPServer) else cell.counts().accepted

    made = Recycling(int(spread(recycle.requests, recycle.jitter)), served, ask, log)
    if recycle.lifetime:
        lifetime_s = spread(recycle.lifetime, recycle.jitter)
        why = f"it has lived for {lifetime_s:.1f} s"
        server.loop.deadlines(lifetime_s, lambda _: made.want("recycled-lifetime", why)).start(None)
    memory = MemoryWatch(
        cell,
        recycle.memory,
        lambda why: server.loop.post(lambda: made.want("recycled-memory", why)),
        log,
    )
    calls = [] if server.do_chore(memory.look) else [InTheLoop(server.loop, memory).turn]
    if recycle.requests or recycle.lifetime or recycle.memory:
        calls.append(made.look)
    if isinstance(pool.workers, WorkerRange):
        calls.append(Backlog(server, cell).turn)

    def before_turn() -> None:
        for call in calls:
            call()

    server.before_turn = before_turn if len(calls) > 1 else calls[0] if calls else None


def spread(value: float, jitter: float) -> float:
    """Return up to the share ``jitter`` more, so that workers that began together do not end together."""
    return value * (1 + jitter * random.random())
