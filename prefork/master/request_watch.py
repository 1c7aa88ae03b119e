"""Deadlines of requests: found in the scoreboard on a timer, and only while a request runs.

Runs in the master. While nothing runs the master is marked *asleep* in the scoreboards and makes no wake-ups; a
worker that enters the application then rings the doorbell. See docs/decisions/0003-timeouts-without-heartbeats.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import NamedTuple

from prefork.log import Log
from prefork.master.pool import Pool
from prefork.scoreboard import Running, Scoreboard

CONFIRM_S = 0.02
"""After this a store to the scoreboard is visible to everyone: see ``Scoreboard.asleep``."""

UNHEARD_NS = 1_000_000_000
"""A request that rang this long before it was seen counts from then: the master was suspended."""


class _Key(NamedTuple):
    pool: str
    generation: int
    cell: int
    thread: int
    start_ns: int


@dataclass(slots=True)
class _Seen:
    excused_ns: int
    """By how much its deadlines are later than the worker wrote."""
    told_slow: bool = False
    overdue: bool = False


class RequestWatch:
    """Looks at running requests when ``next_look`` (monotonic seconds, None for never) has come."""

    def __init__(self, log: Log) -> None:
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.next_look: float | None = None
        self._log = log
        self._asleep = True
        self._confirming = False
        self._seen: dict[_Key, _Seen] = {}
        self._suspended_ns = (0, 0)
        """When the master was last suspended, as far as its loop noticed."""

    def adopt(self, scoreboard: Scoreboard) -> None:
        """Have the workers of a new scoreboard ring if the others do."""
        scoreboard.asleep = self._asleep

    def rung(self) -> None:
        """Take the doorbell's call: look at once."""
        try:
            os.eventfd_read(self.doorbell)
        except BlockingIOError:
            return
        self.next_look = monotonic_ns() / 1e9

    def excuse(self, lost_s: float) -> None:
        """Move the deadlines of all that runs: the master itself was suspended."""
        now_ns, lost_ns = monotonic_ns(), int(lost_s * 1e9)
        self._suspended_ns = (now_ns - lost_ns, now_ns)
        for seen in self._seen.values():
            seen.excused_ns += lost_ns

    def look(self, pools: Iterable[Pool]) -> None:
        """Report slow requests, end overdue ones, and decide when to look again."""
        pools = list(pools)
        now_ns = monotonic_ns()
        running = list(_limited(pools))
        keys = {key for _, key, _ in running}
        for key in [key for key in self._seen if key not in keys]:
            del self._seen[key]
        instants = [self._judge(pool, key, request, now_ns) for pool, key, request in running]
        if running:
            self._set_asleep(pools, False)
            self._confirming = False
            # A request that begins after this look has all of its time before it.
            rest = [limit for pool in pools for limit in _limits_s(pool)]
            nearest_s = min(rest, default=1.0) + now_ns / 1e9
            self.next_look = min([nearest_s, *(instant / 1e9 for instant in instants if instant)])
        elif not self._asleep:
            self._set_asleep(pools, True)
            self._confirming = True
            self.next_look = now_ns / 1e9 + CONFIRM_S
        else:
            self._confirming = False
            self.next_look = None

    def _judge(self, pool: Pool, key: _Key, request: Running, now_ns: int) -> int | None:
        """Act on one request; return the next instant that matters to it, in nanoseconds."""
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(self._excuse_of_new(request.start_ns, now_ns))
        slow_ns = request.slow_ns + seen.excused_ns if request.slow_ns and not seen.told_slow else 0
        if slow_ns and now_ns >= slow_ns:
            seen.told_slow = True
            slow_ns = 0
            self._tell(pool, key, request, now_ns, "request-slow", "is slow: it has been running")
        deadline_ns = request.deadline_ns + seen.excused_ns if request.deadline_ns and not seen.overdue else 0
        if deadline_ns and now_ns >= deadline_ns:
            seen.overdue = True
            deadline_ns = 0
            worker = pool.worker_of_cell(key.generation, key.cell)
            self._tell(
                pool, key, request, now_ns, "request-deadline", "passed its deadline: it has been running"
            )
            if worker is not None:
                pool.overdue(worker)
        return min((instant for instant in (slow_ns, deadline_ns) if instant), default=None)

    def _excuse_of_new(self, start_ns: int, now_ns: int) -> int:
        """Return for how long the master was suspended since a request began that is seen for the first time."""
        if self._asleep:  # it rang, and without a deadline the loop cannot notice what kept the master
            age_ns = now_ns - start_ns
            return age_ns if age_ns > UNHEARD_NS else 0
        since_ns, until_ns = self._suspended_ns
        return max(0, until_ns - max(start_ns, since_ns))

    def _tell(self, pool: Pool, key: _Key, request: Running, now_ns: int, event: str, what: str) -> None:
        worker = pool.worker_of_cell(key.generation, key.cell)
        log = pool.log_of(worker) if worker is not None else self._log
        write = log.warning if event == "request-slow" else log.error
        elapsed_s = (now_ns - request.start_ns) / 1e9
        method, _, target = request.line.partition(" ")
        write(
            event,
            f"{request.line!r} {what} for {elapsed_s:.1f} s",
            method=method,
            target=target.rpartition(" ")[0] or target,
            elapsed_s=round(elapsed_s, 3),
        )

    def _set_asleep(self, pools: Iterable[Pool], asleep: bool) -> None:
        if self._asleep is not asleep:
            self._asleep = asleep
            for pool in pools:
                for generation in pool.generations.values():
                    generation.scoreboard.asleep = asleep


def _limited(pools: Iterable[Pool]) -> Iterator[tuple[Pool, _Key, Running]]:
    """Yield each running request that has a limit."""
    for pool in pools:
        for number, generation in pool.generations.items():
            for cell, request in generation.scoreboard.running():
                if request.deadline_ns or request.slow_ns:
                    yield pool, _Key(pool.name, number, cell, request.thread, request.start_ns), request


def _limits_s(pool: Pool) -> Iterator[float]:
    for generation in pool.generations.values():
        timeouts = generation.config.timeouts
        yield from (limit for limit in (timeouts.slow, timeouts.request) if limit)
