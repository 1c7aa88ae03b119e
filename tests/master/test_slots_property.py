"""The slot table under random sequences of events, on a clock of the test's own.

Whatever happens: never more than the allowed processes, nothing is unhandled, and when all calms down every slot has
a ready worker, or backs off because its workers go on dying.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from test_slots import Pool, plan

from prefork.master import slot_rule
from prefork.master.plan import (
    Action,
    AllReady,
    BootFailed,
    GateReached,
    Plan,
    Spawn,
    Worker,
    leavers_at_once,
)
from prefork.master.slot_rule import MOST_STUCK
from prefork.master.worker_states import ACTIVE, TRANSITIONS, Event, Reaction, State, transition

EVENTS = 400
MOST = 6
"""The most workers that are ever wanted."""


class Wild(Pool):
    """A pool to which anything happens; what the supervisor does about reloads, it does at once."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.generation = 1
        self.reloads = False
        first = plan(wanted=self.chance.randint(1, MOST), batch=self.chance.randint(1, MOST))
        super().__init__(first)
        self.boot()

    def do(self, actions: Sequence[Action]) -> list[Action]:
        super().do(actions)
        self.check(actions)
        for action in actions:
            match action:
                case GateReached():
                    self.do(self.table.open_gate(self.now))
                case AllReady() if self.reloads:
                    self.reloads = False
                    self.do(self.table.commit(self.now))
                case BootFailed() if self.reloads:
                    self.reloads = False
                    self.do(self.table.roll_back(self.now))
        return list(actions)

    def check(self, actions: Sequence[Action]) -> None:
        table = self.table
        workers = list(table.workers.values())
        batch = table.plan.batch
        spawned = {action.worker.id for action in actions if isinstance(action, Spawn)}
        if spawned:
            assert len(workers) <= 2 * MOST + MOST + MOST_STUCK
        for worker in (w for w in workers if w.id in spawned):
            beside = [w for w in workers if w.slot == worker.slot and w is not worker]
            replaced = [w for w in beside if w.state in ACTIVE and w.reason != "request-deadline"]
            assert not any(w.fills and w.generation == worker.generation for w in replaced)
            if replaced:  # a successor comes early only while there is room beside all that still live
                before = len(workers) - len(spawned)
                assert before < max(table.wanted, MOST if self.reloads else 0) + batch
                if any(w.leaving for w in replaced) and not self.reloads:
                    assert before < table.wanted + min(batch, leavers_at_once(table.wanted))
        cells = [(w.generation, w.cell) for w in workers]
        assert len(cells) == len(set(cells)), "two workers in one cell"

    def happen(self) -> None:
        """Have anything happen to anybody: mostly what is due, so that the pool gets somewhere between the mishaps."""
        chance, table = self.chance, self.table
        workers = list(table.workers.values())
        unborn = [w for w in workers if w.pid is None]
        booting = [w for w in workers if w.state is State.BOOTING]
        ending = [w for w in workers if w.state not in ACTIVE and w.state is not State.DOOMED]
        anybody = chance.choice(workers) if workers else None
        match chance.choices(range(13), (8, 8, 6, 2, 1, 4, 1, 2, 1, 3, 1, 1, 12))[0]:
            case 0 if unborn:
                self.hello(chance.choice(unborn))
            case 1 if booting:
                self.do(table.ready(chance.choice(booting), self.now))
            case 2 if ending:
                self.do(table.gone(chance.choice(ending), self.now))
            case 3 if anybody and anybody.state is not State.SPAWNING:
                self.do(table.gone(anybody, self.now))
            case 4 if anybody:
                self.do(table.ready(anybody, self.now))
            case 5 if anybody:
                reason = chance.choice(("asked", "recycled-requests", "recycled-pressure"))
                self.do(table.leave(anybody, reason, self.now))
            case 6 if anybody:
                self.do(table.lose(anybody, self.now))
            case 7 if anybody:
                self.do(chance.choice((table.overdue, table.late))(anybody, "GET /", self.now))
            case 8 if not self.reloads:
                self.generation += 1
                self.reloads = True
                self.do(table.begin(self.any_plan(), self.now))
            case 9:
                step = chance.choice((-1, -1, 1, 1, 3))
                self.do(table.scale(max(1, min(MOST, table.wanted + step)), self.now))
            case 10:
                table.mold_gone(table.plan.generation)
                self.do(table.mold_ready(table.plan.generation, self.now))
            case 11:
                table.postpone(5.0)
            case _:
                self.now += chance.choice((0.01, 0.1, 0.1, 1.0, 1.0, 6.0, 25.0))
                self.do(table.expire(self.now))

    def any_plan(self) -> Plan:
        return plan(self.generation, self.chance.randint(1, MOST), self.chance.randint(1, MOST))

    def calm_down(self, cursed: frozenset[int]) -> None:
        """Have workers do what they should, but for those of cursed slots, who die as soon as they are ready."""
        for _ in range(300):
            for worker in list(self.table.workers.values()):
                if worker.id not in self.table.workers:
                    continue
                if worker.state in (State.SPAWNING, State.DOOMED):
                    self.hello(worker)
                self.do(self.table.ready(worker, self.now))
                if worker.state not in ACTIVE or worker.leaving or worker.slot in cursed:
                    self.do(self.table.gone(worker, self.now))
            self.now += 1.0
            self.do(self.table.expire(self.now))


@pytest.mark.parametrize("seed", range(40))
def test_any_sequence_of_events_ends_well(seed: int) -> None:
    wild = Wild(seed)
    for _ in range(EVENTS):
        wild.happen()
    table = wild.table
    cursed = frozenset(wild.chance.sample(range(MOST), wild.chance.randint(0, 1)))
    wild.calm_down(cursed)
    assert not wild.reloads
    assert len(table.workers) <= table.wanted
    for slot in range(table.wanted):
        ready = [w for w in table.workers.values() if w.slot == slot and w.state is State.READY]
        if slot in cursed:
            assert not ready
        else:
            assert [w.generation for w in ready] == [table.plan.generation]
    backs_off = bool(cursed & set(range(table.wanted)))
    assert (table.next_deadline() is not None) == backs_off
    wild.do(table.stop(wild.now + 5.0, "stop", wild.now))
    for worker in list(table.workers.values()):
        wild.do(table.gone(worker, wild.now))
    assert table.workers == {}
    assert table.next_deadline() is None


def test_the_sequences_reach_every_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[State, Event]] = set()

    def noted(state: State, event: Event) -> tuple[State, Reaction]:
        seen.add((state, event))
        return transition(state, event)

    monkeypatch.setattr(slot_rule, "transition", noted)
    for seed in range(10):
        wild = Wild(seed)
        for _ in range(EVENTS):
            wild.happen()
    assert set(TRANSITIONS) <= seen


def test_flapping_is_no_way_to_more_and_more_processes() -> None:
    """Those that were scaled away take their time, and more are wanted again, and fewer."""
    pool = Pool(plan(wanted=4))
    pool.boot()
    for _ in range(50):
        pool.do(pool.table.scale(1, pool.now))
        pool.do(pool.table.scale(4, pool.now))
        pool.make_ready()
    assert len(pool.table.workers) <= 2 * 4 + 1 + MOST_STUCK
    kept: list[Worker] = pool.workers(State.READY)
    assert kept
    pool.bury(State.DRAINING)
    pool.make_ready()
    assert sorted(worker.slot for worker in pool.workers(State.READY)) == [0, 1, 2, 3]
