"""Deadlines of requests: found in the scoreboard on a timer, and only while a request runs.

Runs in the master. A worker itself reports its slow requests and acts on its late ones (see ``worker.lookout``);
the master does it a moment later for a worker that cannot, because C code holds the interpreter lock, it is
stopped, or stuck in the kernel. While nothing runs the master is marked *asleep* in the scoreboards and makes no
wake-ups; a worker that enters the application then rings the doorbell. See
docs/decisions/0003-timeouts-without-heartbeats.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import NamedTuple

from prefork.figures import Running
from prefork.log import Log
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.scoreboard import Scoreboard
from prefork.timelimits import TimeLimits

CONFIRM_S = 0.02
"""After this a store to the scoreboard is visible to everyone: see ``Scoreboard.asleep``."""

SLOW_GRACE_NS = 500_000_000
"""How long a worker may take to report a slow request."""

LATE_GRACE_NS = 800_000_000
"""How long it may take to be gone after a deadline."""

UNHEARD_NS = 1_000_000_000
"""A request that rang this long before it was seen counts from then: the master was suspended."""


def make_doorbell() -> int:
    """Return an eventfd for the workers to ring."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


class _Key(NamedTuple):
    pool: str
    generation: int
    cell: int
    thread: int
    start_ns: int


@dataclass(slots=True)
class _Seen:
    request: Running
    slow_ns: int = 0
    deadline_ns: int = 0
    """Earlier instants than these, that the worker wrote, do not count."""
    overdue: bool = False

    def excuse(self, lost_ns: int) -> None:
        self.slow_ns = max(self.slow_ns, self.request.slow_ns) + lost_ns
        self.deadline_ns = max(self.deadline_ns, self.request.deadline_ns) + lost_ns


class RequestWatch:
    """Looks at running requests when ``next_look`` (monotonic seconds, None for never) has come."""

    def __init__(self, log: Log, doorbell: int) -> None:
        self.doorbell = doorbell
        self.next_look: float | None = None
        self._log = log
        self._asleep = True
        self._seen: dict[_Key, _Seen] = {}
        self._suspended_ns = (0, 0)
        """When the master was last suspended, as far as its loop noticed."""

    def adopt(self, scoreboard: Scoreboard) -> None:
        """Have the workers of a new scoreboard ring if the others do."""
        scoreboard.asleep = self._asleep

    @property
    def is_asleep(self) -> bool:
        """No request runs that has a limit, as far as is known."""
        return self._asleep

    def take_over(self, scoreboards: Iterable[Scoreboard]) -> None:
        """Begin with scoreboards whose workers may run requests: nobody needs to ring before the first look."""
        self._asleep = False
        for scoreboard in scoreboards:
            self.adopt(scoreboard)
        self.next_look = monotonic_ns() / 1e9

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
            seen.excuse(lost_ns)

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
            # A request that begins after this look has all of its time before it.
            rest = [limit for pool in pools for limit in _limits_s(pool)]
            nearest_s = min(rest, default=1.0) + now_ns / 1e9
            self.next_look = min([nearest_s, *(instant / 1e9 for instant in instants if instant)])
        elif not self._asleep:
            self._set_asleep(pools, True)
            self.next_look = now_ns / 1e9 + CONFIRM_S
        else:
            self.next_look = None

    def _judge(self, pool: Pool, key: _Key, request: Running, now_ns: int) -> int | None:
        """Act on one request; return the next instant that matters to it, in nanoseconds."""
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(request)
            if excused_ns := self._excuse_of_new(request.start_ns, now_ns):
                seen.excuse(excused_ns)
        seen.request = request
        worker = pool.worker_of_cell(key.generation, key.cell)
        slow_ns = request.slow_ns and max(request.slow_ns, seen.slow_ns) + SLOW_GRACE_NS
        deadline_ns = request.deadline_ns and max(request.deadline_ns, seen.deadline_ns) + LATE_GRACE_NS
        if seen.overdue or worker is None:
            return None
        if deadline_ns and now_ns >= deadline_ns:
            seen.overdue = True
            self._tell_late(pool, worker, request, now_ns)
            return None
        if slow_ns and now_ns >= slow_ns:
            seen.slow_ns = now_ns + (now_ns - request.start_ns)
            slow_ns = seen.slow_ns + SLOW_GRACE_NS
            pool.ask_stack(worker, lambda stack: self._tell_slow(pool, worker, request, stack))
        return min((instant for instant in (slow_ns, deadline_ns) if instant), default=None)

    def _excuse_of_new(self, start_ns: int, now_ns: int) -> int:
        """Return for how long the master was suspended since a request began that is seen for the first time."""
        if self._asleep:  # it rang, and without a deadline the loop cannot notice what kept the master
            age_ns = now_ns - start_ns
            return age_ns if age_ns > UNHEARD_NS else 0
        since_ns, until_ns = self._suspended_ns
        return max(0, until_ns - max(start_ns, since_ns))

    def _tell_slow(self, pool: Pool, worker: Worker, request: Running, stack: str) -> None:
        elapsed_s = (monotonic_ns() - request.start_ns) / 1e9
        why = "C code holds the interpreter lock" if stack else "it is stopped or stuck in the kernel"
        pool.log_of(worker).warning(
            "request-slow",
            f"{request.line!r} is slow: it has been running for {elapsed_s:.1f} s; "
            f"its worker cannot say so itself, {why}{_id(request)}",
            **_fields(request, elapsed_s),
            by="master",
            traceback=stack or None,
        )

    def _tell_late(self, pool: Pool, worker: Worker, request: Running, now_ns: int) -> None:
        elapsed_s = (now_ns - request.start_ns) / 1e9
        pool.log_of(worker).error(
            "request-deadline",
            f"{request.line!r} passed its deadline, and its worker does nothing: it has been running for "
            f"{elapsed_s:.1f} s{_id(request)}",
            **_fields(request, elapsed_s),
            by="master",
        )
        pool.overdue(worker, f"{request.line} after {elapsed_s:.1f} s")

    def _set_asleep(self, pools: Iterable[Pool], asleep: bool) -> None:
        if self._asleep is not asleep:
            self._asleep = asleep
            for pool in pools:
                for generation in pool.generations.values():
                    generation.scoreboard.asleep = asleep


def _fields(request: Running, elapsed_s: float) -> dict[str, object]:
    method, _, target = request.line.partition(" ")
    return {
        "method": method,
        "target": target.rpartition(" ")[0] or target,
        "elapsed_s": round(elapsed_s, 3),
        **({"request_id": request.request_id} if request.request_id else {}),
    }


def _id(request: Running) -> str:
    """Return how a text names the request's id, which is known once its worker had a moment for it."""
    return f", id {request.request_id}" if request.request_id else ""


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
        yield from TimeLimits(timeouts.request, timeouts.slow, timeouts.overrides).all_s()
