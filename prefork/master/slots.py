"""Slots: which workers a pool should have, and what to do about it.

Pure: ``(event, now) -> actions``. No clock, no process, no randomness of its own; tests drive it with a fake
clock. Runs in the master; ``pool.py`` carries the actions out. What one worker goes through is a table in
``worker_states.py``, the rule over a pool is in ``slot_rule.py``; this module says what each event changes.

A reload changes the plan, a rollback changes it back; a recycled worker is one that is leaving.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefork.master.plan import Action, BackedOff, BootFailed, Plan, Worker
from prefork.master.slot_rule import LATE, Slots
from prefork.master.worker_states import ACTIVE, Event, State

MOST_FAILURES_ON_TRIAL = 3
"""A new generation whose workers die this often in one slot, though they got ready, is given up."""

_FAULTS = frozenset({"boot-timeout", "spawn-failed"})
"""Reasons for which the master ended a worker that are the worker's own fault."""

_TIMEOUTS = {
    State.SPAWNING: "spawn-failed",
    State.BOOTING: "boot-timeout",
    State.DRAINING: "drain-timeout",
}
"""The reason that a passed deadline gives a worker, by the state it was in."""


@dataclass(slots=True)
class SlotTable(Slots):
    """The workers of one pool, and what happens to them."""

    # Events of the pool

    def mold_ready(self, generation: int, now: float) -> list[Action]:
        """A mold can fork workers of this generation."""
        self._molds.add(generation)
        return self._settle(now)

    def mold_gone(self, generation: int) -> None:
        """No workers of this generation can be forked for now."""
        self._molds.discard(generation)

    def begin(self, plan: Plan, now: float) -> list[Action]:
        """Start to roll to a new generation, whose mold is ready."""
        self._previous, self._wanted_before = self.plan, self.wanted
        self.plan, self.wanted = plan, plan.wanted
        self._gate_open = False
        self._announced.clear()
        self._backoffs.clear()  # new code deserves a fresh start
        return self.mold_ready(plan.generation, now)

    def open_gate(self, now: float) -> list[Action]:
        """Every pool has its first batch: old workers may go."""
        self._gate_open = True
        return self._settle(now)

    def commit(self, now: float) -> list[Action]:
        """The new generation has taken over: the last old workers may go, and there is no way back."""
        self._previous = None
        self._established = True
        self._gate_open = True  # it is still closed if the other pools were slower than this one
        return self._settle(now)

    def roll_back(self, now: float) -> list[Action]:
        """Return to the plan before ``begin``; its mold still lives."""
        if self._previous is None:
            return []
        self.plan, self._previous = self._previous, None
        self.wanted = self._wanted_before
        self._gate_open = True
        self._backoffs.clear()  # the failures were the new code's
        return self._settle(now)

    def scale(self, wanted: int, now: float) -> list[Action]:
        """Want another number of workers until the next reload."""
        self.wanted = wanted
        return self._settle(now)

    def stop(self, deadline: float, reason: str, now: float) -> list[Action]:
        """Retire everyone, until ``deadline``; nobody is spawned any more."""
        self._stopping = True
        actions: list[Action] = []
        for worker in self.workers.values():
            actions += self._happens(worker, Event.RETIRE, now, reason)
            if worker.state is State.DRAINING:
                worker.reason = reason  # also if it was leaving for another
                worker.deadline = min(worker.deadline or deadline, deadline)
        return actions

    # Events of a worker

    def hello(self, worker: Worker, pid: int, now: float) -> list[Action]:
        worker.pid = pid
        return self._happens(worker, Event.HELLO, now)

    def ready(self, worker: Worker, now: float) -> list[Action]:
        if worker.state is State.BOOTING:
            worker.ready_at = now
        return self._happens(worker, Event.READY, now) + self._settle(now)

    def leave(self, worker: Worker, reason: str, now: float) -> list[Action]:
        """Replace a worker: its successor is ready before it drains."""
        worker.leaving = True
        worker.reason = worker.reason or reason
        return self._settle(now)

    def late(self, worker: Worker, detail: str, now: float) -> list[Action]:
        """It says that one of its requests passed its deadline, and that it leaves for that."""
        worker.reason, worker.detail = LATE, detail
        worker.leaving = True
        return self._settle(now)

    def overdue(self, worker: Worker, detail: str, now: float) -> list[Action]:
        """One of its requests passed its deadline, and it does nothing about that."""
        worker.reason, worker.detail = LATE, worker.detail or detail
        return self._happens(worker, Event.OVERDUE, now) + self._settle(now)

    def gone(self, worker: Worker, now: float) -> list[Action]:
        """It died, or was never there (``LOST``)."""
        if self.workers.pop(worker.id, None) is None:
            return []
        actions: list[Action] = []
        unasked = worker.state in ACTIVE or worker.reason in _FAULTS
        if unasked and worker.reason != LATE and not self._stopping:
            backoff = self._backoff(worker.slot)
            lived_s = now - worker.ready_at if worker.ready_at is not None else 0.0
            delay_s = backoff.failed(now, lived_s, self.random())
            if self.is_on_trial(worker.generation) and (
                worker.ready_at is None or backoff.failures >= MOST_FAILURES_ON_TRIAL
            ):
                return [BootFailed(worker)]
            if delay_s:
                actions.append(BackedOff(worker.slot, delay_s, backoff.failures))
        return actions + self._settle(now)

    def expire(self, now: float) -> list[Action]:
        """Act on all deadlines that have passed."""
        actions: list[Action] = []
        for worker in list(self.workers.values()):
            if worker.deadline is not None and worker.deadline <= now:
                actions += self._happens(worker, Event.EXPIRE, now, _TIMEOUTS.get(worker.state))
                if worker.state is State.LOST:
                    actions += self.gone(worker, now)
        return actions + self._settle(now)

    def lose(self, worker: Worker, now: float) -> list[Action]:
        """Its channel closed before a hello came: the spawn failed."""
        if worker.state not in (State.SPAWNING, State.DOOMED):
            return []
        worker.reason = worker.reason or "spawn-failed"
        return self._happens(worker, Event.EXPIRE, now) + self.gone(worker, now)

    def postpone(self, by_s: float) -> None:
        """Move every deadline: the master itself was suspended, so nobody is late."""
        for worker in self.workers.values():
            if worker.deadline is not None:
                worker.deadline += by_s

    def backing_off(self, now: float) -> list[int]:
        """Return the slots that wait before their next worker, since some have failed in a row."""
        return [index for index in range(self.wanted) if not self._backoff(index).is_over(now)]

    def next_deadline(self) -> float | None:
        """Return the instant at which ``expire`` should be called, or None."""
        instants = [worker.deadline for worker in self.workers.values() if worker.deadline is not None]
        if not self._stopping and self.plan.generation in self._molds:
            for index in range(self.wanted):
                retry_at = self._backoff(index).retry_at
                if retry_at is not None and not any(worker.fills for worker in self._in_slot(index)):
                    instants.append(retry_at)
        return min(instants, default=None)
