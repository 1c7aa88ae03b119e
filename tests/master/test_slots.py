"""The slot table: what it decides, driven with a fake clock; and that nothing breaks it."""

from collections.abc import Sequence

import pytest

from prefork.master.plan import (
    Action,
    AllReady,
    BackedOff,
    BootFailed,
    GateReached,
    Plan,
    React,
    Spawn,
    Worker,
    batch_size,
)
from prefork.master.slots import SlotTable
from prefork.master.worker_states import TRANSITIONS, Event, Reaction, State, transition


def plan(generation: int = 1, wanted: int = 4, batch: int = 1) -> Plan:
    return Plan(generation, wanted, batch, boot_s=10.0, graceful_s=20.0, cells=64)


class Pool:
    """A slot table with obedient workers and a clock that tests turn."""

    def __init__(self, first: Plan) -> None:
        self.table = SlotTable(first, random=lambda: 0.0)
        self.now = 100.0
        self.pid = 1000
        self.seen: list[Action] = []

    def do(self, actions: Sequence[Action]) -> list[Action]:
        self.seen += actions
        return list(actions)

    def boot(self, generation: int = 1) -> None:
        """Have the mold ready, every ordered worker ready, and the generation committed."""
        self.do(self.table.mold_ready(generation, self.now))
        self.make_ready()
        self.do(self.table.commit(self.now))

    def hello(self, worker: Worker) -> list[Action]:
        self.pid += 1
        return self.do(self.table.hello(worker, self.pid, self.now))

    def make_ready(self, generation: int | None = None) -> None:
        """Let all workers that boot say hello and ready, and those that these order in turn."""
        while True:
            booting = [
                worker
                for worker in self.table.workers.values()
                if worker.state in (State.SPAWNING, State.BOOTING) and generation in (None, worker.generation)
            ]
            if not booting:
                return
            for worker in booting:
                if worker.pid is None:
                    self.hello(worker)
                self.do(self.table.ready(worker, self.now))

    def bury(self, *states: State) -> None:
        """Let all workers in one of the states die."""
        for worker in list(self.table.workers.values()):
            if worker.state in states:
                self.do(self.table.gone(worker, self.now))

    def workers(self, state: State, generation: int | None = None) -> list[Worker]:
        return [
            worker
            for worker in self.table.workers.values()
            if worker.state is state and generation in (None, worker.generation)
        ]


@pytest.fixture
def pool() -> Pool:
    booted = Pool(plan())
    booted.boot()
    booted.seen.clear()
    return booted


@pytest.mark.parametrize(
    ("wanted", "batch", "expected"), [(4, 0.25, 1), (5, 0.25, 2), (1, 0.25, 1), (8, 3, 3)]
)
def test_batch_size(wanted: int, batch: float, expected: int) -> None:
    assert batch_size(wanted, batch) == expected


def test_no_worker_without_a_mold() -> None:
    fresh = Pool(plan())
    assert fresh.table.expire(fresh.now) == []
    assert [type(action) for action in fresh.table.mold_ready(1, fresh.now)] == [Spawn] * 4
    assert sorted(worker.slot for worker in fresh.table.workers.values()) == [0, 1, 2, 3]
    assert len({worker.cell for worker in fresh.table.workers.values()}) == 4


def test_all_ready_is_told_once() -> None:
    fresh = Pool(plan())
    fresh.do(fresh.table.mold_ready(1, fresh.now))
    fresh.make_ready()
    assert fresh.seen.count(AllReady(1)) == 1


def test_first_generation_that_does_not_get_ready_fails() -> None:
    fresh = Pool(plan())
    fresh.do(fresh.table.mold_ready(1, fresh.now))
    worker = next(iter(fresh.table.workers.values()))
    fresh.hello(worker)
    assert fresh.table.gone(worker, fresh.now) == [BootFailed(worker)]


def test_back_off(pool: Pool) -> None:
    delays = []
    for _ in range(9):
        worker = next(w for w in pool.workers(State.READY) if w.slot == 0)
        actions = pool.table.gone(worker, pool.now)
        delay_s = sum(action.delay_s for action in actions if isinstance(action, BackedOff))
        delays.append(delay_s)
        if delay_s:
            pool.now += delay_s
            assert pool.table.next_deadline() == pool.now
        pool.do(pool.table.expire(pool.now))
        pool.make_ready()
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    pool.now += 61.0
    worker = next(w for w in pool.workers(State.READY) if w.slot == 0)
    assert [type(action) for action in pool.table.gone(worker, pool.now)] == [Spawn]


def test_a_pool_keeps_failing_when_workers_of_every_slot_do(pool: Pool) -> None:
    seen = []
    for _ in range(3):
        pool.bury(State.READY)
        seen.append(pool.table.keeps_failing)
        pool.make_ready()  # those that need not wait
        seen.append(pool.table.keeps_failing)
    assert seen == [False, False, True, True, True, True]
    pool.now += 1.0
    pool.do(pool.table.expire(pool.now))
    pool.make_ready()
    assert not pool.table.keeps_failing


def test_reload_rolls_batch_by_batch(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2), pool.now))
    assert len(pool.workers(State.SPAWNING, 2)) == 1
    pool.make_ready(2)
    assert pool.seen.count(GateReached(2)) == 1
    assert pool.workers(State.DRAINING) == []  # not before the gate is open in every pool
    pool.do(pool.table.open_gate(pool.now))
    for step in range(1, 4):
        assert len(pool.workers(State.DRAINING, 1)) == 1, step
        assert len(pool.table.workers) == 5
        assert len(pool.workers(State.READY)) == 4
        pool.bury(State.DRAINING)
        pool.make_ready(2)
    assert pool.seen.count(AllReady(2)) == 1
    assert len(pool.workers(State.READY, 1)) == 1  # the last one stays until the commit
    pool.do(pool.table.commit(pool.now))
    pool.bury(State.DRAINING)
    assert {worker.generation for worker in pool.table.workers.values()} == {2}
    assert len(pool.workers(State.READY)) == 4


def test_commit_opens_the_gate(pool: Pool) -> None:
    """Of several pools the fastest is complete before the gate is open."""
    pool.do(pool.table.begin(plan(2, batch=4), pool.now))
    pool.make_ready(2)
    pool.do(pool.table.commit(pool.now))
    assert len(pool.workers(State.DRAINING, 1)) == 4


def test_reload_whose_worker_dies_in_boot_fails_and_rolls_back(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2), pool.now))
    pool.make_ready(2)
    pool.do(pool.table.open_gate(pool.now))
    pool.bury(State.DRAINING)
    young = pool.workers(State.SPAWNING, 2)[0]
    pool.hello(young)
    assert pool.table.gone(young, pool.now) == [BootFailed(young)]
    pool.do(pool.table.roll_back(pool.now))
    pool.make_ready(1)
    pool.bury(State.DRAINING, State.KILLED)
    assert {worker.generation for worker in pool.table.workers.values()} == {1}
    assert len(pool.workers(State.READY)) == 4
    assert len(pool.table.workers) == 4


def test_rollback_keeps_new_workers_until_old_ones_are_back(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2, batch=2), pool.now))
    pool.make_ready(2)
    pool.do(pool.table.open_gate(pool.now))
    pool.bury(State.DRAINING)
    before = len(pool.workers(State.READY))
    pool.do(pool.table.roll_back(pool.now))
    assert len(pool.workers(State.READY)) == before
    for worker in pool.workers(State.DOOMED, 2):
        pool.hello(worker)
    pool.bury(State.KILLED)
    assert pool.workers(State.SPAWNING, 1)
    pool.make_ready()
    pool.bury(State.DRAINING)
    pool.make_ready()
    assert len(pool.workers(State.READY, 1)) == 4


def test_reload_to_fewer_workers_keeps_all_until_the_commit(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2, wanted=2), pool.now))
    pool.make_ready(2)
    pool.do(pool.table.open_gate(pool.now))
    pool.bury(State.DRAINING)
    pool.make_ready(2)
    assert AllReady(2) in pool.seen
    assert len(pool.workers(State.READY, 1)) >= 2
    pool.do(pool.table.commit(pool.now))
    pool.bury(State.DRAINING)
    assert len(pool.table.workers) == 2


def test_old_mold_refills_until_the_new_one_is_ready(pool: Pool) -> None:
    dead = pool.workers(State.READY)[0]
    assert [type(action) for action in pool.table.gone(dead, pool.now)] == [Spawn]
    assert all(worker.generation == 1 for worker in pool.table.workers.values())


def test_new_generation_that_dies_again_and_again_is_given_up(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2), pool.now))
    failed: list[Action] = []
    for _ in range(3):
        pool.make_ready(2)
        failed = pool.do(pool.table.gone(pool.workers(State.READY, 2)[0], pool.now))
        pool.now += 40.0
        pool.do(pool.table.expire(pool.now))
    assert [type(action) for action in failed] == [BootFailed]


def test_leaving_worker_is_replaced_first(pool: Pool) -> None:
    leaver = pool.workers(State.READY)[0]
    pool.do(pool.table.leave(leaver, "asked", pool.now))
    assert leaver.state is State.READY
    pool.make_ready()
    assert leaver.state is State.DRAINING
    assert leaver.reason == "asked"
    assert len(pool.workers(State.READY)) == 4


@pytest.mark.parametrize(
    ("wanted", "batch", "at_once"), [(1, 1, 1), (4, 4, 1), (7, 7, 1), (12, 12, 3), (12, 2, 2)]
)
def test_a_quarter_of_the_leavers_is_replaced_at_a_time(wanted: int, batch: int, at_once: int) -> None:
    pool = Pool(plan(wanted=wanted, batch=batch))
    pool.boot()
    first = pool.workers(State.READY)
    for worker in first:
        pool.do(pool.table.leave(worker, "recycled-requests", pool.now))
    while pool.workers(State.SPAWNING):
        assert len(pool.table.workers) - wanted == len(pool.workers(State.SPAWNING)) <= at_once
        assert len(pool.workers(State.READY)) == wanted
        pool.make_ready()
        assert len(pool.workers(State.READY)) == wanted
        assert {worker.reason for worker in pool.workers(State.DRAINING)} == {"recycled-requests"}
        pool.bury(State.DRAINING)
    assert not set(first) & set(pool.table.workers.values())
    assert pool.table.next_deadline() is None


def test_every_leaver_has_its_turn(pool: Pool) -> None:
    """Also beside slots whose workers are due again as soon as they are ready."""
    first = pool.workers(State.READY)
    for _ in first:
        for worker in pool.workers(State.READY):
            pool.do(pool.table.leave(worker, "recycled-requests", pool.now))
        [successor] = pool.workers(State.SPAWNING)
        pool.hello(successor)
        pool.do(pool.table.ready(successor, pool.now))
        pool.bury(State.DRAINING)
    assert not set(first) & set(pool.table.workers.values())


def test_a_reload_ends_though_new_workers_are_due_again_at_once(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2), pool.now))
    pool.make_ready(2)
    pool.do(pool.table.open_gate(pool.now))
    for _ in range(12):
        for worker in pool.workers(State.READY, 2):
            pool.do(pool.table.leave(worker, "recycled-requests", pool.now))
        pool.bury(State.DRAINING)
        for worker in pool.workers(State.SPAWNING):
            pool.hello(worker)
            pool.do(pool.table.ready(worker, pool.now))
    assert AllReady(2) in pool.seen
    pool.do(pool.table.commit(pool.now))
    for _ in range(12):
        pool.bury(State.DRAINING)
        pool.make_ready(2)
    assert pool.workers(State.READY, 1) == []


def test_a_leaver_that_dies_makes_room_for_no_more_than_its_successor(pool: Pool) -> None:
    leaver, other = pool.workers(State.READY)[:2]
    pool.do(pool.table.leave(leaver, "recycled-lifetime", pool.now))
    pool.do(pool.table.leave(other, "recycled-lifetime", pool.now))
    pool.bury(State.SPAWNING)
    pool.do(pool.table.gone(leaver, pool.now))
    pool.make_ready()
    pool.bury(State.DRAINING)
    pool.make_ready()
    pool.bury(State.DRAINING)
    assert sorted(worker.slot for worker in pool.workers(State.READY)) == [0, 1, 2, 3]
    assert not {leaver.id, other.id} & pool.table.workers.keys()


def test_a_reload_ends_though_the_pool_grew_and_shrank_meanwhile(pool: Pool) -> None:
    pool.do(pool.table.begin(plan(2), pool.now))
    pool.do(pool.table.mold_ready(2, pool.now))
    pool.make_ready(2)
    pool.do(pool.table.open_gate(pool.now))
    pool.do(pool.table.scale(5, pool.now))
    pool.make_ready(2)
    pool.do(pool.table.scale(4, pool.now))
    for _ in range(8):
        pool.bury(State.DRAINING)
        pool.make_ready(2)
    assert AllReady(2) in pool.seen


def test_scale(pool: Pool) -> None:
    pool.do(pool.table.scale(6, pool.now))
    pool.make_ready()
    assert len(pool.workers(State.READY)) == 6
    pool.do(pool.table.scale(3, pool.now))
    assert sorted(worker.slot for worker in pool.workers(State.DRAINING)) == [3, 4, 5]
    assert {worker.reason for worker in pool.workers(State.DRAINING)} == {"scaled"}


@pytest.mark.parametrize(
    ("state", "ladder"),
    [
        (State.BOOTING, [(10.0, Reaction.ABORT), (1.0, Reaction.KILL), (5.0, Reaction.KILL)]),
        (State.DRAINING, [(20.0, Reaction.ABORT), (1.0, Reaction.KILL), (5.0, Reaction.KILL)]),
    ],
)
def test_kill_ladder(pool: Pool, state: State, ladder: list[tuple[float, Reaction]]) -> None:
    worker = pool.workers(State.READY)[0]
    if state is State.BOOTING:
        pool.do(pool.table.gone(worker, pool.now))
        worker = pool.workers(State.SPAWNING)[0]
        pool.hello(worker)
    else:
        pool.do(pool.table.stop(pool.now + 20.0, "stop", pool.now))
    for after_s, reaction in ladder:
        assert React(worker, reaction) not in pool.table.expire(pool.now + after_s - 0.1)
        pool.now += after_s
        assert React(worker, reaction) in pool.table.expire(pool.now)


def test_spawn_without_hello_is_lost(pool: Pool) -> None:
    pool.do(pool.table.gone(pool.workers(State.READY)[0], pool.now))
    worker = pool.workers(State.SPAWNING)[0]
    pool.now += 10.0
    actions = pool.table.expire(pool.now)
    assert React(worker, Reaction.FORGET) in actions
    assert worker.id not in pool.table.workers


def test_suspended_master_moves_deadlines(pool: Pool) -> None:
    pool.do(pool.table.stop(pool.now + 20.0, "stop", pool.now))
    pool.table.postpone(1000.0)
    assert pool.table.expire(pool.now + 1000.0) == []
    assert pool.table.next_deadline() == pool.now + 1020.0


def test_stop_spawns_nobody(pool: Pool) -> None:
    pool.do(pool.table.stop(pool.now + 5.0, "stop", pool.now))
    assert len(pool.workers(State.DRAINING)) == 4
    pool.bury(State.DRAINING)
    assert pool.table.workers == {}
    assert pool.table.next_deadline() is None


def test_an_idle_pool_has_no_deadline(pool: Pool) -> None:
    assert pool.table.next_deadline() is None


def test_unknown_event_changes_nothing() -> None:
    for state in State:
        for event in Event:
            if (state, event) not in TRANSITIONS:
                assert transition(state, event) == (state, Reaction.NONE)


def test_a_late_request_has_its_slot_filled_at_once_however_often() -> None:
    pool = Pool(plan(wanted=1))
    pool.boot()
    for _ in range(5):
        (worker,) = pool.table.workers.values()
        actions = pool.do(pool.table.late(worker, "GET /", pool.now))
        assert [type(action) for action in actions] == [Spawn]
        pool.do(pool.table.gone(worker, pool.now))
        (successor,) = pool.table.workers.values()
        pool.hello(successor)
        pool.do(pool.table.ready(successor, pool.now))
    assert pool.table.next_deadline() is None
