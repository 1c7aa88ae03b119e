"""When a worker asks for a successor, with counters of the test's own."""

from types import SimpleNamespace
from typing import Any

import pytest

from prefork.worker import recycling
from prefork.worker.recycling import MOST_A_TURN, Recycling, spread

LOG: Any = SimpleNamespace(info=lambda event, message, **fields: None)


class Worker:
    """Serves ``a_turn`` requests in each turn; its master takes the question at the second time."""

    def __init__(self, most: int, a_turn: int) -> None:
        self.served = 0
        self.looked = 0
        self.asked: list[tuple[int, str]] = []
        self.recycling = Recycling(most, self._count, self._ask, LOG)
        for _ in range(2 * most):
            self.served += a_turn
            self.recycling.look()

    def _count(self) -> int:
        self.looked += 1
        return self.served

    def _ask(self, reason: str) -> bool:
        self.asked.append((self.served, reason))
        return len(self.asked) == 2


@pytest.mark.parametrize(("most", "a_turn"), [(1, 1), (100, 1), (10_000, 1), (10_000, MOST_A_TURN), (10, 25)])
def test_it_asks_when_it_has_served_enough_and_seldom_counts(most: int, a_turn: int) -> None:
    worker = Worker(most, a_turn)
    first, second = worker.asked
    assert first == (-(-most // a_turn) * a_turn, "recycled-requests")
    assert second == (first[0] + a_turn, "recycled-requests")
    assert worker.looked <= MOST_A_TURN + 10 + most // a_turn // 10


def test_without_a_limit_it_counts_nothing_and_still_can_be_told() -> None:
    worker = Worker(0, 1)
    worker.recycling.look()
    worker.recycling.want("recycled-lifetime", "")
    worker.recycling.want("recycled-memory", "")
    for _ in range(5):
        worker.recycling.look()
    assert worker.asked == [(0, "recycled-lifetime")] * 2
    assert worker.looked == 0


def test_jitter_only_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    for chance, expected in ((0.0, 1000), (0.5, 1050), (0.999, 1099.9)):
        monkeypatch.setattr(recycling.random, "random", lambda chance=chance: chance)
        assert spread(1000, 0.1) == pytest.approx(expected)
    assert spread(1000, 0) == 1000
