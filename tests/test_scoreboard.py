"""The scoreboard: shared between processes, sealed, counted, and the doorbell."""

import fcntl
import os
from collections.abc import Iterator

import pytest

from prefork.cell import BOOTING, EMPTY, READY
from prefork.figures import Counts
from prefork.process import spawn
from prefork.scoreboard import Scoreboard
from prefork.thread_cell import CLASSES, LINE_BYTES, METHODS


@pytest.fixture
def doorbell() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def board(doorbell: int) -> Iterator[Scoreboard]:
    made = Scoreboard.create("web", 7, cells=3, threads=2, doorbell=doorbell)
    yield made
    made.close()


def in_child(work: object) -> None:
    """Run a callable in a forked child and wait for it."""

    def main() -> int:
        work()  # type: ignore[operator]
        return 0

    _, status = os.waitpid(spawn(main), 0)
    assert status == 0


def test_what_a_child_writes_is_seen(board: Scoreboard) -> None:
    cell = board.cells[1]
    assert cell.state == EMPTY

    def work() -> None:
        cell.claim(4711)
        cell.set_state(READY)
        cell.connections(5)
        cell.threads[1].enter(b"GET /slow HTTP/1.1", 9_000_000_000, 1_000_000_000)

    in_child(work)
    assert cell.state == READY
    assert cell.open_connections == 5
    [(index, request)] = board.running()
    assert (index, request.thread, request.line) == (1, 1, "GET /slow HTTP/1.1")
    assert request.deadline_ns - request.start_ns == 9_000_000_000
    assert request.slow_ns - request.start_ns == 1_000_000_000


def test_a_second_mapping_describes_itself(board: Scoreboard, doorbell: int) -> None:
    board.cells[2].claim(1)
    other = Scoreboard(os.dup(board.fd), doorbell)
    assert (other.generation, len(other.cells), len(other.cells[0].threads)) == (7, 3, 2)
    assert other.cells[2].state == BOOTING
    other.close()


def test_foreign_memory_is_refused(doorbell: int) -> None:
    fd = os.memfd_create("foreign")
    os.ftruncate(fd, 8192)
    with pytest.raises(ValueError, match="holds no scoreboard of format 1"):
        Scoreboard(fd, doorbell)
    os.close(fd)


def test_a_child_cannot_truncate_it(board: Scoreboard) -> None:
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(board.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(board.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.mark.parametrize("status", [100, 204, 302, 404, 500, 599])
@pytest.mark.parametrize("method", [*METHODS[:-1], "BREW"])
def test_each_request_is_counted_once(board: Scoreboard, method: str, status: int) -> None:
    cell = board.cells[0]
    thread = cell.threads[0]
    elapsed_ns = thread.leave(method, status, thread.enter(b"X"), 12)
    assert elapsed_ns > 0
    assert cell.counts() == Counts(requests=1, errors=int(status >= 500), sent_bytes=12)
    assert cell.running() == []


def test_counts_add_up_over_threads_and_clear(board: Scoreboard) -> None:
    cell = board.cells[0]
    for thread in cell.threads:
        for status in range(100, 100 * len(CLASSES) + 100, 100):
            thread.leave("GET", status, thread.enter(b"X"), 1)
    cell.add_accepted()
    cell.add_refused()
    assert cell.counts() == Counts(requests=10, errors=2, accepted=1, refused=1, sent_bytes=10)
    cell.clear()
    assert cell.counts() == Counts()
    assert cell.state == EMPTY


def test_a_long_request_line_is_cut_and_stays_in_its_cell(board: Scoreboard) -> None:
    first, second = board.cells[0].threads
    second.enter(b"GET / HTTP/1.1")
    first.enter(b"G" * 5000)
    assert [len(request.line) for request in board.cells[0].running()] == [14, LINE_BYTES]


@pytest.mark.parametrize(
    ("asleep", "deadline_ns", "rings"), [(True, 10**9, True), (False, 10**9, False), (True, 0, False)]
)
def test_doorbell(board: Scoreboard, doorbell: int, asleep: bool, deadline_ns: int, rings: bool) -> None:
    board.asleep = asleep
    board.cells[0].threads[0].enter(b"GET / HTTP/1.1", deadline_ns)
    if rings:
        assert os.eventfd_read(doorbell) == 1
    else:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(doorbell)
