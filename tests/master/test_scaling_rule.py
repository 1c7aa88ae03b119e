"""How many workers there should be, on a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest

from prefork.figures import Memory
from prefork.master.cgroup import MemoryUse
from prefork.master.headroom import room_for_workers
from prefork.master.scaling_rule import QUIET_S, STEP_S, Bounds, Decision, ScalingRule, Sight

LOOK_S = 0.1
MIB = 1 << 20


class Pool:
    """Obedient: the workers that are wanted are ready at the next look."""

    def __init__(self, wanted: int, least: int = 1, most: int = 8) -> None:
        self.now = 1000.0
        self.wanted = self.ready = wanted
        self.bounds = Bounds(least, most)
        self.rule = ScalingRule(self.now)
        self.decisions: list[Decision] = []
        self.steps: list[tuple[float, int]] = []
        """After how many seconds, and to how many workers."""

    def look(
        self, *, idle: int = 0, work: float | None = None, queued: int = 0, room: int | None = None
    ) -> None:
        self.now += LOOK_S
        sight = Sight(
            self.wanted, self.ready, idle, self.ready - idle if work is None else work, queued, room
        )
        decision = self.rule.decide(sight, self.bounds, self.now)
        self.ready = self.wanted
        if decision is not None:
            self.decisions.append(decision)
            if decision.wanted != self.wanted:
                self.steps.append((round(self.now - 1000.0, 1), decision.wanted))
            self.wanted = decision.wanted

    def busy(self, seconds: float, queued: int = 100, room: int | None = None) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.look(queued=queued, room=room)

    def quiet(self, seconds: float, work: float = 0.0) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.look(idle=self.ready, work=work)


def test_it_grows_quickly_while_somebody_waits() -> None:
    pool = Pool(1, most=16)
    pool.busy(3.0)
    assert [wanted for _, wanted in pool.steps] == [2, 3, 4, 6, 9, 13, 16]
    assert pool.steps[0][0] <= 0.4
    assert pool.steps[-1][0] <= 2.5
    assert pool.decisions[0].why == "for 0.2 s no worker was idle, and 100 waited"


def test_no_more_than_wait() -> None:
    pool = Pool(8, most=16)
    pool.busy(0.4, queued=1)
    assert pool.wanted == 9


@pytest.mark.parametrize(
    "look",
    [
        lambda pool: pool.look(idle=1, queued=5),  # they are about to be taken
        lambda pool: pool.look(queued=0),  # all are busy, but nobody waits
        lambda pool: pool.look(queued=round(pool.now / LOOK_S) % 2),  # a wait that is over at the next look
    ],
)
def test_it_does_not_grow_without_need(look: Callable[[Pool], None]) -> None:
    pool = Pool(2)
    for _ in range(100):
        look(pool)
    assert pool.steps == []


def test_it_waits_for_workers_that_boot_and_for_a_pool_that_has_none() -> None:
    pool = Pool(2)
    for _ in range(50):
        pool.ready = 1
        pool.look(queued=9)
    assert pool.steps == []
    for _ in range(50):
        pool.ready = 0
        pool.look(queued=9)
    assert pool.steps == []


def test_it_shrinks_slowly_and_not_below_the_least() -> None:
    pool = Pool(5, least=2)
    pool.quiet(QUIET_S + 4 * STEP_S)
    waits = [after for after, _ in pool.steps]
    assert [wanted for _, wanted in pool.steps] == [4, 3, 2]
    assert waits[0] >= QUIET_S
    assert all(later - earlier >= STEP_S for earlier, later in pairwise(waits))
    assert pool.decisions[0].why == "for 30 s there was work for 0.0 workers at most"


def test_no_worker_goes_because_of_some_quiet_seconds() -> None:
    pool = Pool(4)
    for _ in range(10):
        pool.busy(1.5, queued=0)
        pool.quiet(QUIET_S - 3)
    assert pool.steps == []


def test_as_many_stay_as_there_is_work_for() -> None:
    pool = Pool(8)
    pool.quiet(120.0, work=2.0)
    assert pool.wanted == 3


def test_after_growth_it_is_not_in_a_hurry() -> None:
    pool = Pool(1)
    pool.quiet(QUIET_S * 3)
    pool.busy(0.5)
    grown = pool.wanted
    assert grown > 1
    pool.quiet(QUIET_S - 1)
    assert pool.wanted == grown


def test_memory_limits_growth_and_is_named_now_and_then() -> None:
    pool = Pool(4)
    pool.busy(0.4, room=1)
    assert pool.wanted == 5
    assert pool.decisions[-1].why == "for 0.2 s no worker was idle, and 100 waited; memory holds 1 more"
    pool.busy(70.0, room=0)
    assert pool.wanted == 5
    assert [decision.wanted for decision in pool.decisions[1:]] == [
        5,
        5,
    ]  # in the first second and after a minute


@pytest.mark.parametrize("seed", range(20))
def test_any_load_keeps_the_bounds(seed: int) -> None:
    chance = random.Random(seed)
    least = chance.randint(1, 3)
    pool = Pool(least, least=least, most=least + chance.randint(0, 6))
    for _ in range(3000):
        before, looks = pool.wanted, len(pool.steps)
        room = chance.choice((None, 0, 1, 2))
        pool.look(
            idle=chance.choice((0, 0, 0, chance.randint(0, pool.ready))),
            work=chance.random() * pool.ready,
            queued=chance.choice((0, 1, 5, 5, 5)),
            room=room,
        )
        assert pool.bounds.least <= pool.wanted <= pool.bounds.most
        assert pool.wanted >= before - 1
        assert room is None or pool.wanted <= before + room
        assert len(pool.steps) == looks or pool.steps[-1][1] != before
    shrinks = _shrinks(pool.steps, least)
    assert all(later - earlier >= STEP_S - 0.01 for earlier, later in pairwise(shrinks))


def _shrinks(steps: Iterable[tuple[float, int]], first: int) -> list[float]:
    found, before = [], first
    for after, wanted in steps:
        if wanted < before:
            found.append(after)
        before = wanted
    return found


@pytest.mark.parametrize(
    ("use", "share", "uss", "room"),
    [
        (None, 0.9, [10], None),
        (MemoryUse(500 * MIB, 1000 * MIB), 0.9, [], None),  # nothing is known
        (MemoryUse(500 * MIB, 1000 * MIB), 1.0, [100, 100], 5),
        (MemoryUse(500 * MIB, 1000 * MIB), 0.9, [100, 100], 4),
        (MemoryUse(500 * MIB, 1000 * MIB), 1.0, [100, 20, 20], 3),  # the new ones will grow, too
        (MemoryUse(990 * MIB, 1000 * MIB), 1.0, [100], 0),
        (MemoryUse(1001 * MIB, 1000 * MIB), 1.0, [100], 0),
    ],
)
def test_room_for_workers(use: MemoryUse | None, share: float, uss: list[int], room: int | None) -> None:
    siblings = [Memory(0, 0, size * MIB) for size in uss]
    assert room_for_workers(use, share, siblings) == room
