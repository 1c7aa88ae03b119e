"""Errands: helpers one at a time, bounded in time and number, whatever becomes of the mold and of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork import last_words
from prefork.channel import Channel
from prefork.master import errands as module
from prefork.master.errands import Errands
from prefork.master.loop import Loop
from prefork.process import ended_children, reap, spawn

PATIENCE_S = 20.0


class Reports:
    """A log that remembers; and binds to itself."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tracebacks: list[str] = []

    def bind(self, identity: str, **fields: object) -> Reports:
        return self

    def error(self, event: str, message: str, **fields: Any) -> None:
        self.lines.append(message)
        self.tracebacks.append(fields.get("traceback") or "")

    def warning(self, event: str, message: str, **fields: object) -> None:
        self.lines.append(message)


class Pool:
    """What errands need of a pool: a mold that forks (here it is this process), and a loop with a reaper."""

    def __init__(self) -> None:
        self.loop = Loop(self._fail)
        self.log = Reports()
        self.idle = 0
        self.refusals = 0
        self.began: list[str] = []
        self.life: Callable[[], int] = lambda: 0
        self.errands = Errands("shop", self.loop, self.log, self._send, self._is_idle)  # type: ignore[arg-type]

    def _fail(self) -> None:
        raise  # noqa: PLE0704 (called in the handler of what went wrong)

    def _is_idle(self) -> None:
        self.idle += 1

    def _send(self, kind: str, fds: list[int], /, **fields: object) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        assert kind == "hook"
        self.began.append(f"{fields['hook']} {fields['told']}")
        channel, words = os.dup(fds[0]), os.dup(fds[1])

        def main() -> int:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            last_words.write_to(words)
            ours = Channel.from_fd(channel)
            ours.send("hello")
            status = self.life()
            ours.close()
            return status

        if fields["hook"] != "unborn":
            spawn(main)
        os.close(channel)
        os.close(words)
        return True

    def run_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.log.lines
            self.loop.run_once(time.monotonic() + 0.02)
            for pid in ended_children():
                self.errands.read_hello()
                assert self.errands.child_died(pid, reap)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    made = Pool()
    yield made
    made.errands.give_up("the test is over")
    made.run_until(lambda: made.errands.is_idle)


def test_one_at_a_time_in_order_and_an_order_that_is_not_taken_is_given_again(pool: Pool) -> None:
    pool.refusals = 3
    pool.errands.add("server_ready", addresses=["a"])
    pool.errands.add("unborn")
    pool.errands.add("worker_gone", slot="shop.1")
    assert not pool.began
    pool.run_until(lambda: pool.idle)
    assert pool.began == ["server_ready {'addresses': ['a']}", "unborn {}", "worker_gone {'slot': 'shop.1'}"]
    assert pool.log.lines == ["the hook unborn: its helper process could not be forked"]
    assert pool.idle == 1


def test_one_that_takes_too_long_leaves_its_stack_and_the_next_runs(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOOK_S", 0.2)
    pool.life = lambda: time.sleep(3600) or 0
    pool.errands.add("server_ready")
    pool.run_until(lambda: pool.log.lines)
    pool.life = lambda: 0
    pool.errands.add("worker_gone")
    pool.run_until(lambda: pool.idle)
    assert pool.log.lines[0] == "the hook server_ready runs for 0.2 s: sending SIGABRT"
    assert pool.log.lines[1] == "the hook server_ready: its helper process ended: killed by SIGABRT"
    assert "<lambda>" in pool.log.tracebacks[0]
    assert pool.began[1:] == ["worker_gone {}"]


def test_too_many_drop_the_oldest_and_after_the_end_none_is_run(pool: Pool) -> None:
    pool.refusals = 1_000_000
    for number in range(module.MOST_WAITING + 2):
        pool.errands.add(f"hook-{number}")
    assert [line.split(" is not")[0] for line in pool.log.lines] == ["the hook hook-0", "the hook hook-1"]
    pool.errands.end_by(time.monotonic() - 1)
    pool.run_until(lambda: pool.idle)
    assert pool.log.lines.count("the hook hook-9 is not run: the time to stop is over") == 1
    pool.errands.add("late")
    assert pool.log.lines[-1] == "the hook late is not run: the time to stop is over"
    assert not pool.began
