"""The rule of the slots: which workers a pool should have, and what to do about it.

Pure. Runs in the master. ``slots.py`` says what events change; after each of them this is applied.

A pool has ``wanted`` slots. A worker fills its slot while it is of the plan's generation, is not leaving, and
has not been told to go. All that makes workers change places is one rule:

- a slot that nobody fills gets a worker (after its back-off); an empty one first, then that of the oldest;
- a worker that should go (of another generation, leaving, or of a slot that is no longer wanted) is retired
  when its slot is filled by one that is *ready*; one of another generation also by one that is leaving. While
  a reload is not committed nobody is retired before the gate is open (the first batch is ready in every
  pool), and the last ones stay until all slots are ready;
- no more workers live at once than ``wanted + batch``, unless a slot is empty; with those that are leaving
  no more than a quarter of the pool, at least one, change places at a time;
- no more workers live at all than twice the wanted, a batch and a few: those that end take their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prefork.master.backoff import BackOff
from prefork.master.plan import (
    Action,
    AllReady,
    GateReached,
    Plan,
    React,
    Spawn,
    Worker,
    leavers_at_once,
)
from prefork.master.worker_states import ABORT_S, ACTIVE, REKILL_S, Event, Reaction, State, transition
from prefork.records import TRANSIENT

MOST_STUCK = 8
"""So many workers may hang in the kernel, where no signal ends them, before slots stay empty for it."""

LATE = "request-deadline"
"""Says nothing of whether the next worker will do: its slot is filled at once, however often that happens."""


@dataclass(slots=True)
class Slots:
    """The workers of one pool, and the plan for them. ``random`` returns a float in [0, 1)."""

    plan: Plan
    random: Callable[[], float] = field(metadata=TRANSIENT)
    wanted: int = field(init=False)
    workers: dict[int, Worker] = field(init=False, default_factory=dict)
    _previous: Plan | None = field(init=False, default=None)
    """The plan to go back to, while a reload is not committed."""
    _wanted_before: int = field(init=False, default=0)
    """How many workers were wanted then: signals may have changed it since that plan."""
    _established: bool = field(init=False, default=False)
    """The pool has served once."""
    _gate_open: bool = field(init=False, default=True)
    _announced: set[type] = field(init=False, default_factory=set, metadata=TRANSIENT)
    _molds: set[int] = field(init=False, default_factory=set)
    _backoffs: dict[int, BackOff] = field(init=False, default_factory=dict)
    _stopping: bool = field(init=False, default=False)
    _last_id: int = field(init=False, default=0)
    _last_cell: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self.wanted = self.plan.wanted

    # Questions

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    @property
    def is_settled(self) -> bool:
        """No generation is about to take over, and the pool does not stop."""
        return self._established and self._previous is None and not self._stopping

    def is_on_trial(self, generation: int) -> bool:
        """Tell whether a generation has workers, but has not taken over yet."""
        uncommitted = self._previous is not None or not self._established
        return uncommitted and generation == self.plan.generation

    @property
    def keeps_failing(self) -> bool:
        """No worker is ready, and in every slot several in a row have failed."""
        return not any(worker.state is State.READY for worker in self.workers.values()) and all(
            index in self._backoffs and self._backoffs[index].failures > 1 for index in range(self.wanted)
        )

    def ready_count(self, generation: int) -> int:
        """Return how many workers of a generation are ready."""
        return sum(w.state is State.READY and w.generation == generation for w in self.workers.values())

    def serving(self) -> list[Worker]:
        """Return the workers that are ready and are to stay."""
        return [w for w in self.workers.values() if w.state is State.READY and self._is_wanted(w)]

    # The rule

    def _settle(self, now: float) -> list[Action]:
        if self._stopping:
            return []
        actions = self._dismiss_unready(now) + self._fill(now)
        complete = self._is_complete()
        if self._previous is not None and self._batch_is_ready():
            actions += self._announce(GateReached(self.plan.generation))
        if complete and (self._previous is not None or not self._established):
            return actions + self._announce(AllReady(self.plan.generation))
        if self._gate_open:
            actions += self._retire_replaced(now)
        return actions

    def _dismiss_unready(self, now: float) -> list[Action]:
        """End those that should go and do not serve yet: nothing is lost with them."""
        actions: list[Action] = []
        for worker in self.workers.values():
            if worker.state in (State.SPAWNING, State.BOOTING) and not self._is_wanted(worker):
                actions += self._happens(
                    worker, Event.RETIRE, now, worker.reason or self._why_unwanted(worker)
                )
        return actions

    def _fill(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.plan.generation not in self._molds:
            return actions
        peak = self.wanted if self._previous is None else max(self.wanted, self._wanted_before)
        allowance = peak + self.plan.batch - len(self.workers)
        held_back = max(0, self.plan.batch - leavers_at_once(self.wanted))
        most = min(self.plan.cells, 2 * peak + self.plan.batch + MOST_STUCK)
        for index in self._by_age():
            if len(self.workers) >= most:
                break
            occupants = list(self._in_slot(index))
            if any(self._is_wanted(worker) and worker.fills for worker in occupants):
                continue
            replaced = [w for w in occupants if w.state in ACTIVE and w.reason != LATE]
            room = allowance - (held_back if any(worker.leaving for worker in replaced) else 0)
            if not self._backoff(index).is_over(now) or (replaced and room <= 0):
                continue
            if any(self._is_failing_trial(worker) for worker in occupants):
                continue
            allowance -= 1
            actions.append(Spawn(self._new_worker(index, now)))
        return actions

    def _by_age(self) -> list[int]:
        """Return the slots, first those without a worker that may stay on, then by the age of theirs.

        Thus every leaver has its turn: a slot whose workers are soon due again does not go before an older one.
        """
        oldest: dict[int, int] = {}
        for worker in self.workers.values():
            if worker.state in ACTIVE:
                oldest[worker.slot] = min(worker.id, oldest.get(worker.slot, worker.id))
        return sorted(range(self.wanted), key=lambda index: oldest.get(index, 0))

    def _retire_replaced(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for worker in self.workers.values():
            if worker.state is not State.READY or self._is_wanted(worker):
                continue
            beyond = worker.slot >= self.wanted
            # If an old generation's worker waited for one that is to stay, leavers in all slots would leave no room for
            # any successor. Beyond the number an old one may be needed again, by a rollback; a new one takes up room.
            is_old = worker.generation != self.plan.generation
            replaced = self._slot_is_served(worker.slot) if is_old else self._slot_is_ready(worker.slot)
            if replaced or (beyond and (self._previous is None or not is_old)):
                actions += self._happens(
                    worker, Event.RETIRE, now, worker.reason or self._why_unwanted(worker)
                )
        return actions

    def _announce(self, action: GateReached | AllReady) -> list[Action]:
        """Say it once in a plan."""
        if type(action) in self._announced:
            return []
        self._announced.add(type(action))
        return [action]

    def _happens(self, worker: Worker, event: Event, now: float, reason: str | None = None) -> list[Action]:
        before = worker.state
        worker.state, reaction = transition(before, event)
        if worker.state is before and reaction is Reaction.NONE:
            return []
        if reason == "drain-timeout" and worker.reason != "quick-stop":
            worker.reason = reason
        worker.reason = worker.reason or reason
        worker.deadline = self._deadline_of(worker, now)
        return [] if reaction is Reaction.NONE else [React(worker, reaction)]

    def _deadline_of(self, worker: Worker, now: float) -> float | None:
        match worker.state:
            case State.SPAWNING | State.DOOMED | State.BOOTING:
                return worker.deadline  # one deadline from the order to ready
            case State.DRAINING:
                return now + self.plan.graceful_s
            case State.ABORTING:
                return now + ABORT_S
            case State.KILLED:
                return now + REKILL_S
        return None

    def _new_worker(self, slot: int, now: float) -> Worker:
        self._last_id += 1
        worker = Worker(
            self._last_id, slot, self.plan.generation, self._free_cell(), now, now + self.plan.boot_s
        )
        self.workers[worker.id] = worker
        return worker

    def _free_cell(self) -> int:
        """Return a cell nobody uses; the last one used comes last, for a lost spawn may still write."""
        used = {w.cell for w in self.workers.values() if w.generation == self.plan.generation}
        cell = (self._last_cell + 1) % self.plan.cells
        while cell in used:
            cell = (cell + 1) % self.plan.cells
        self._last_cell = cell
        return cell

    def _is_wanted(self, worker: Worker) -> bool:
        return worker.generation == self.plan.generation and not worker.leaving and worker.slot < self.wanted

    def _why_unwanted(self, worker: Worker) -> str:
        return "scaled" if worker.slot >= self.wanted else "retired"

    def _slot_is_ready(self, index: int) -> bool:
        return any(self._is_wanted(w) and w.state is State.READY for w in self._in_slot(index))

    def _slot_is_served(self, index: int) -> bool:
        """Tell whether the plan's generation serves there, be it by a worker that is soon to be replaced."""
        return any(
            w.state is State.READY and w.generation == self.plan.generation for w in self._in_slot(index)
        )

    def _is_failing_trial(self, worker: Worker) -> bool:
        """Tell whether a worker is being ended that did not get ready: its death will end the trial."""
        ends = worker.state in (State.ABORTING, State.KILLED) and worker.ready_at is None
        return ends and self.is_on_trial(worker.generation)

    def _is_complete(self) -> bool:
        return all(self._slot_is_served(index) for index in range(self.wanted))

    def _batch_is_ready(self) -> bool:
        return self.ready_count(self.plan.generation) >= min(self.plan.batch, self.wanted)

    def _in_slot(self, index: int) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.slot == index)

    def _backoff(self, index: int) -> BackOff:
        return self._backoffs.setdefault(index, BackOff())
