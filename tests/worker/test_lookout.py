"""When requests are reported slow and found late, on a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from prefork import thread_cell
from prefork.scoreboard import Scoreboard
from prefork.worker import absence, lookout
from prefork.worker.absence import Absence
from prefork.worker.lookout import Lookout

SECOND_NS = 10**9


class Watched:
    """A worker of two threads, its lookout, and what the lookout told of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1000 * SECOND_NS
        for module in (thread_cell, lookout):
            monkeypatch.setattr(module, "monotonic_ns", lambda: self.now_ns)
        self._board = Scoreboard.create("web", 1, cells=1, threads=2, doorbell=-1)
        self.cells = self._board.cells[0].threads
        self.told: list[tuple[str, str, float]] = []
        self.failures = 0
        self.lookout = Lookout(self.cells, self._slow, self._overdue, self._failed)

    def begin(self, thread: int, name: str, deadline_s: int = 60, slow_s: int = 5) -> None:
        self.cells[thread].current = SimpleNamespace(name=name, request_id=f"id-{name}")
        self.cells[thread].enter(name.encode(), deadline_s * SECOND_NS, slow_s * SECOND_NS)

    def end(self, thread: int) -> None:
        self.cells[thread].leave("GET", 200, self.cells[thread].limits()[0], 0)

    def run_until(self, second: float) -> None:
        """Look whenever the lookout wants to, and not in between."""
        end_ns = int((1000 + second) * SECOND_NS)
        while (instant_ns := self.lookout.look()) and instant_ns <= end_ns:
            self.now_ns = max(self.now_ns, instant_ns)
        self.now_ns = end_ns

    def seen_by_master(self, thread: int) -> tuple[float, float]:
        """Return deadline and slow instant in seconds, as the master reads them."""
        running = self.cells[thread].running(thread)
        assert running is not None
        return tuple(ns / 1e9 - 1000 if ns else 0 for ns in (running.deadline_ns, running.slow_ns))  # type: ignore

    def _slow(self, response: Any, elapsed_ns: int, stack: str) -> None:
        self._note("slow", response)

    def _overdue(self, cell: Any, response: Any, start_ns: int, stack: str) -> None:
        self._note("late", response)

    def _note(self, what: str, response: Any) -> None:
        self.told.append((what, response.name, self.now_ns / 1e9 - 1000))
        if response.name == "raises":
            raise ValueError

    def _failed(self) -> None:
        self.failures += 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_slow_request_is_told_of_at_doubling_intervals_and_late_once(watched: Watched) -> None:
    watched.begin(0, "first")
    assert watched.seen_by_master(0) == (60, 5)
    watched.run_until(7)
    assert watched.seen_by_master(0) == (60, 10)
    watched.begin(1, "second", deadline_s=4, slow_s=0)
    watched.run_until(200)
    assert watched.told == [
        ("slow", "first", 5),
        ("slow", "first", 10),
        ("late", "second", 11),
        ("slow", "first", 20),
        ("slow", "first", 40),
        ("late", "first", 60),
    ]
    watched.end(0)
    watched.end(1)
    assert watched.lookout.look() is None


def test_what_is_known_of_a_request_is_not_used_for_the_next(watched: Watched) -> None:
    watched.begin(0, "first")
    watched.run_until(50)
    watched.lookout.excuse(3)
    watched.cells[0].end(watched.cells[0].limits()[0], 504)
    assert watched.seen_by_master(0) == (0, 80)
    watched.end(0)
    watched.begin(0, "second")
    assert watched.seen_by_master(0) == (110, 55)
    watched.told.clear()
    watched.run_until(130)
    assert watched.told[0] == ("slow", "second", 55)
    assert watched.told[-1] == ("late", "second", 110)


def test_nobody_is_late_for_having_been_suspended_but_not_for_longer_than_that(watched: Watched) -> None:
    watched.begin(0, "before")
    watched.run_until(2)
    watched.now_ns += 100 * SECOND_NS
    watched.begin(1, "just now")
    watched.now_ns += SECOND_NS
    watched.lookout.excuse(100)
    assert watched.seen_by_master(0) == (160, 105)
    assert watched.seen_by_master(1)[0] == 102 + 60 + 1
    watched.run_until(300)
    assert [told for told in watched.told if told[0] == "late"] == [
        ("late", "before", 160),
        ("late", "just now", 163),
    ]


def test_a_request_may_move_its_deadline(watched: Watched) -> None:
    watched.begin(0, "extended", slow_s=0)
    watched.cells[0].extend(30 * SECOND_NS)
    watched.run_until(100)
    assert watched.told == [("late", "extended", 90)]
    watched.begin(1, "unlimited", deadline_s=0, slow_s=0)
    watched.cells[1].extend(30 * SECOND_NS)
    assert watched.seen_by_master(1) == (0, 0)


def test_who_looks_lives_on_whatever_fails(watched: Watched) -> None:
    watched.begin(0, "raises", deadline_s=7)
    watched.begin(1, "second", deadline_s=8, slow_s=0)
    for second in (5, 7, 8):
        watched.now_ns = (1000 + second) * SECOND_NS
        watched.lookout.look()
    assert watched.told == [("slow", "raises", 5), ("late", "raises", 7), ("late", "second", 8)]
    assert watched.failures == 2


@pytest.mark.parametrize(
    ("overslept_s", "cpu_s", "lost_s"),
    [(0.5, 0.0, 0.0), (10.0, 0.1, 10.0), (10.0, 9.0, 0.0), (0.0, 0.0, 0.0)],
)
def test_who_slept_too_long_and_did_not_compute_was_suspended(
    monkeypatch: pytest.MonkeyPatch, overslept_s: float, cpu_s: float, lost_s: float
) -> None:
    clock = {"monotonic": 100.0, "process_time": 7.0}
    for name in clock:
        monkeypatch.setattr(absence, name, lambda name=name: clock[name])
    away = Absence()
    away.wait_until(100.25)
    clock.update(monotonic=100.25 + overslept_s, process_time=7.0 + cpu_s)
    assert away.lost_s() == pytest.approx(lost_s)
