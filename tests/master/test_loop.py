"""The master's loop: timers, descriptors, errors, and a master that was suspended."""

import os
import signal
import weakref
from time import monotonic

import pytest

from prefork.master.loop import SUSPENDED_S, Loop
from prefork.process import Process, spawn


@pytest.fixture
def errors() -> list[int]:
    return []


@pytest.fixture
def loop(errors: list[int]) -> Loop:
    return Loop(lambda: errors.append(1))


def test_timers_run_in_order_and_not_when_cancelled(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_later(0.02, lambda: ran.append("second"))
    loop.call_later(0.01, lambda: ran.append("first"))
    loop.call_later(0.005, lambda: ran.append("never")).cancel()
    while len(ran) < 2:
        loop.run_once(None)
    assert ran == ["first", "second"]


def test_a_cancelled_timer_holds_nothing_until_its_time_comes(loop: Loop) -> None:
    class Pool:
        def expire(self) -> None: ...

    pool = Pool()
    alive = weakref.ref(pool)
    loop.call_later(50, print)
    loop.call_later(100, pool.expire).cancel()
    del pool
    loop.run_once(monotonic())
    assert alive() is None


def test_a_deadline_ends_the_wait(loop: Loop) -> None:
    before = monotonic()
    assert loop.run_once(before + 0.01) == 0.0
    assert monotonic() >= before + 0.01


def test_a_callback_that_fails_does_not_end_the_loop(loop: Loop, errors: list[int]) -> None:
    read_fd, write_fd = os.pipe()
    loop.watch(read_fd, lambda: os.read(read_fd, 1)[5])  # type: ignore[arg-type]
    loop.call_later(0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    os.write(write_fd, b"x")
    loop.run_once(None)
    assert errors == [1, 1]
    loop.unwatch(read_fd)
    os.close(read_fd)
    os.close(write_fd)


def test_unwatched_in_the_same_turn(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def callback(index: int) -> None:
        called.append(index)
        loop.unwatch(pipes[1 - index][0])

    for index, (read_fd, write_fd) in enumerate(pipes):
        loop.watch(read_fd, lambda index=index: callback(index))  # type: ignore[misc]
        os.write(write_fd, b"x")
    loop.run_once(None)
    assert len(called) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_suspended_master_moves_its_timers() -> None:
    """A child is stopped for longer than its timer: asleep in the loop or before, as it happens."""
    read_fd, write_fd = os.pipe()

    def main() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        loop = Loop(lambda: None)
        ran: list[float] = []
        began = monotonic()
        loop.call_later(0.3, lambda: ran.append(monotonic()))
        os.write(write_fd, b"begin,")
        lost_s = 0.0
        while not ran:
            lost_s += loop.run_once(None)
        os.write(write_fd, b"lost," if lost_s > SUSPENDED_S else b"nothing lost,")
        os.write(write_fd, b"moved" if ran[0] - began > lost_s else b"not moved")
        return 0

    child = Process(spawn(main))
    os.close(write_fd)
    assert os.read(read_fd, 6) == b"begin,"
    child.signal(signal.SIGSTOP)
    until = monotonic() + SUSPENDED_S + 0.6
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    while (left_s := until - monotonic()) > 0:
        signal.sigtimedwait([], left_s)
    child.signal(signal.SIGCONT)
    os.waitpid(child.pid, 0)
    child.close()
    with open(read_fd, "rb") as pipe:
        assert pipe.read() == b"lost,moved"
