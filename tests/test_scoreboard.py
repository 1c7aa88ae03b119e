"""The scoreboard: shared between processes, sealed, counted, and the doorbell."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence

import pytest

from prefork import thread_cell
from prefork.cell import BOOTING, EMPTY, READY
from prefork.figures import CLASSES, METHODS, REFUSALS, Connections, Counts, in_buckets
from prefork.process import spawn
from prefork.records import build, plain
from prefork.scoreboard import Scoreboard
from prefork.thread_cell import ID_BYTES, LINE_BYTES


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
    with pytest.raises(ValueError, match="holds no scoreboard of format 2"):
        Scoreboard(fd, doorbell)
    os.close(fd)


def test_a_child_cannot_truncate_it(board: Scoreboard) -> None:
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(board.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(board.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.mark.parametrize(
    ("status", "kind"), {100: "1xx", 204: "2xx", 302: "3xx", 404: "4xx", 500: "5xx", 599: "5xx"}.items()
)
def test_each_request_is_counted_once(board: Scoreboard, status: int, kind: str) -> None:
    cell = board.cells[0]
    thread = cell.threads[0]
    for method in (*METHODS[:-1], "BREW"):
        assert thread.leave(method, status, thread.enter(b"X"), 12) > 0
    counts = cell.counts()
    assert (counts.requests, cell.requests, counts.sent_bytes) == (
        len(METHODS),
        len(METHODS),
        12 * len(METHODS),
    )
    assert counts.errors == (len(METHODS) if kind == "5xx" else 0)
    assert counts.by_method == {method: {kind: 1} for method in METHODS}
    assert cell.running() == []


def test_both_latencies_fall_into_their_buckets(
    monkeypatch: pytest.MonkeyPatch, doorbell: int, board: Scoreboard
) -> None:
    now_ns = 10**15
    monkeypatch.setattr(thread_cell, "monotonic_ns", lambda: now_ns)
    other = Scoreboard.create(
        "web", 1, cells=1, threads=1, doorbell=doorbell, buckets_s=[0.0005, 0.001, 0.002, 0.003]
    )
    assert other.bounds_ns == (500_000, 1_000_000, 2_000_000, 3_000_000)
    cell = other.cells[0]
    [thread] = cell.threads
    for elapsed_ns, exchange_ns in (
        (500_000, 0),
        (500_001, 0),
        (3_000_000, 9_000_000),
        (4_000_000, 4_100_000),
    ):
        start_ns = thread.enter(b"X")
        now_ns += elapsed_ns
        assert thread.leave("GET", 200, start_ns, 0, exchange_ns > 0) == elapsed_ns
        if exchange_ns:
            cell.add_exchange(exchange_ns)
    counts = cell.counts()
    assert in_buckets(counts.application, other.bounds_ns) == [1, 1, 0, 1, 1]
    assert in_buckets(counts.exchange, other.bounds_ns) == [1, 1, 0, 0, 2]
    assert (counts.application_ns, counts.exchange_ns) == (8_000_001, 14_100_001)
    # Other bounds came with a reload: each is in the bucket that surely holds it.
    total = counts.plus(board.cells[0].counts()).plus(counts)
    assert in_buckets(total.application, [1_000_000, 2_500_000, 10_000_000]) == [4, 0, 2, 2]
    assert build(Counts, json.loads(json.dumps(plain(total)))) == total
    other.close()


@pytest.mark.parametrize("bounds_s", [(), (1, 1), (2, 1), (0, 1), range(1, 26)])
def test_bounds_that_cannot_be_are_refused(bounds_s: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="must be 1 to 24 positive rising numbers"):
        Scoreboard.create("web", 1, cells=1, threads=1, doorbell=-1, buckets_s=bounds_s)


def test_counts_add_up_over_threads_and_clear(board: Scoreboard) -> None:
    cell = board.cells[0]
    for thread in cell.threads:
        for status in range(100, 100 * len(CLASSES) + 100, 100):
            thread.leave("GET", status, thread.enter(b"X"), 1)
    cell.add_accepted()
    cell.add_adopted()
    cell.add_handed_over()
    for reason in REFUSALS:
        cell.add_refused(reason)
    cell.received[0] += 17
    counts = cell.counts()
    assert counts.by_method == {"GET": dict.fromkeys(CLASSES, 2)}
    assert counts.refused == dict.fromkeys(REFUSALS, 1)
    assert sum(counts.application.values()) == sum(counts.exchange.values()) == 10
    assert counts.application_ns == counts.exchange_ns > 0
    plain_ones = (counts.requests, counts.errors, counts.accepted, counts.handed_over, counts.adopted)
    assert (*plain_ones, counts.received_bytes, counts.sent_bytes) == (10, 2, 1, 1, 1, 17, 10)
    cell.clear()
    assert cell.counts() == Counts()
    assert cell.state == EMPTY


def test_a_slow_request_is_counted_once_whoever_notices_first(board: Scoreboard) -> None:
    cell = board.cells[0]
    thread = cell.threads[0]
    for notices in ("told", "told again, and ended", "ended", "ended, and told too late", "neither"):
        before = cell.counts().slow
        start_ns = thread.enter(b"GET / HTTP/1.1", 0, 1)
        if "told" in notices and "late" not in notices:
            thread.told(start_ns, start_ns + 1)
        if "again" in notices:
            thread.told(start_ns, start_ns + 2)
        thread.leave("GET", 200, start_ns, 0)
        if "ended" in notices:
            thread.end_slow(start_ns)
        if "late" in notices:
            thread.told(start_ns, start_ns + 1)
        assert cell.counts().slow - before == (notices != "neither"), notices


def test_what_a_worker_died_of_is_counted_afterwards(board: Scoreboard) -> None:
    cell = board.cells[0]
    first, second = cell.threads
    start_ns = first.enter(b"GET / HTTP/1.1", 200, 100)
    second.enter(b"GET / HTTP/1.1")
    for after_ns, slow, deadlines in ((99, 0, 0), (100, 1, 0), (200, 1, 1)):
        counts = cell.last_counts(start_ns + after_ns)
        assert (counts.requests, counts.slow, counts.deadlines) == (0, slow, deadlines)
    first.told(start_ns, start_ns + 300)
    first.count_late(start_ns)
    counts = cell.last_counts(start_ns + 200)
    assert (counts.slow, counts.deadlines) == (1, 1)


def test_connections_by_state_are_never_more_than_are_open(board: Scoreboard) -> None:
    cell = board.cells[0]
    cell.connections(10)
    cell.census(2, 3, 1)
    assert cell.connections_by_state() == Connections(4, 2, 1, 3)
    cell.threads[0].enter(b"GET / HTTP/1.1")
    assert cell.connections_by_state() == Connections(3, 2, 2, 3)
    cell.connections(3)
    assert cell.connections_by_state() == Connections(0, 1, 2, 0)


def test_the_id_is_that_of_the_request_that_runs(board: Scoreboard) -> None:
    cell = board.cells[0]
    thread = cell.threads[1]
    thread.identify(thread.enter(b"GET / HTTP/1.1"), "9319f38349bcfb0a-000000002a")
    [running] = cell.running()
    assert running.request_id == "9319f38349bcfb0a-000000002a"
    thread.identify(thread.enter(b"GET / HTTP/1.1"), "i" * 200)
    assert cell.running()[0].request_id == "i" * ID_BYTES
    thread.enter(b"GET / HTTP/1.1")
    assert cell.running()[0].request_id == ""


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
