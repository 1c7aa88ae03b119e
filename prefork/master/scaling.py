"""Looks at a pool with ``workers: {min, max}``, and gives it the workers that ``scaling_rule`` says.

Runs in the master. All figures come from shared memory and from the kernel; no worker is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from prefork.cell import Cell
from prefork.listen_queue import queue_of
from prefork.log import Log
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.scaling_rule import ScalingRule, Sight
from prefork.process import cpu_time_ns

SATURATED = 0.8
"""What waits in a worker's own sockets counts if it has worked for this share of the time: else it just came."""


class _Trace(NamedTuple):
    """What a worker had done at some instant."""

    at_ns: int
    pulses: tuple[tuple[int, int], ...]
    cpu_ns: int

    def work_since(self, earlier: _Trace) -> float:
        """Return how much of the time it worked: in the application, or at anything that takes CPU time."""
        span_ns = max(1, self.at_ns - earlier.at_ns)
        in_application_ns = self._in_application_ns() - earlier._in_application_ns()
        return min(1.0, max(in_application_ns / len(self.pulses), self.cpu_ns - earlier.cpu_ns) / span_ns)

    def was_idle_since(self, earlier: _Trace) -> bool:
        """Tell whether a thread has done nothing at all."""
        return any(
            pulse == before and not pulse[0]
            for pulse, before in zip(self.pulses, earlier.pulses, strict=True)
        )

    def _in_application_ns(self) -> int:
        return sum(
            ended_ns + (self.at_ns - start_ns if start_ns else 0) for start_ns, ended_ns in self.pulses
        )


class Scaling:
    """The memory of one pool's looks. ``room`` tells how many workers more its memory holds."""

    def __init__(self, pool: Pool, room: Callable[[Pool], int | None], log: Log, now: float) -> None:
        self.pool = pool
        self._room = room
        self._log = log
        self._rule = ScalingRule(now)
        self._traces: dict[int, _Trace] = {}

    def look(self, now: float) -> None:
        """Look, and scale the pool if that is called for."""
        pool = self.pool
        bounds = pool.bounds
        if bounds is None:
            return
        sight = self._see()
        decision = self._rule.decide(sight, bounds, now)
        if decision is None:
            return
        if decision.wanted == sight.wanted:
            self._log.warning(
                "scale-held",
                f"{pool.name}: no more than {sight.wanted} workers: {decision.why}",
                pool=pool.name,
                workers=sight.wanted,
            )
            return
        pool.scale_to(decision.wanted)
        self._log.info(
            "scaled",
            f"{pool.name}: {decision.wanted} workers wanted, {sight.wanted} before: {decision.why}",
            pool=pool.name,
            workers=decision.wanted,
        )

    def _see(self) -> Sight:
        pool = self.pool
        idle, work, queued = 0, 0.0, pool.relay.waiting()
        traces: dict[int, _Trace] = {}
        for worker, cell in pool.serving():
            trace = traces[worker.id] = _trace(worker, cell)
            before = self._traces.get(worker.id)
            if before is None:
                idle += not all(start_ns for start_ns, _ in trace.pulses)
            else:
                idle += trace.was_idle_since(before)
                done = trace.work_since(before)
                work += done
                if done >= SATURATED and trace.pulses != before.pulses:
                    queued += cell.waiting
        self._traces = traces
        for listener in pool.current.listeners:
            depth = queue_of(listener.sock)
            queued += depth[0] if depth else 0
        is_short = queued > 0 and idle == 0
        room = self._room(pool) if is_short else None
        return Sight(pool.table.wanted, len(traces), idle, work, queued, room)


def _trace(worker: Worker, cell: Cell) -> _Trace:
    pulses = tuple(thread.pulse() for thread in cell.threads)
    return _Trace(monotonic_ns(), pulses, cpu_time_ns(worker.pid) if worker.pid else 0)
