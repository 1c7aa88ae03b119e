"""The crowd counts what a server does to clients that do not look at their idle connections."""

from __future__ import annotations

import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.crowd import Crowd, Failure, Step, steady

PATIENCE_S = 30.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def take(sock: socket.socket) -> bool:
    """Read a request; return whether there was one."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(4096)
        if not piece:
            return False
        data += piece
    return True


def keeps(sock: socket.socket) -> None:
    while take(sock):
        sock.sendall(ANSWER)


def announces(sock: socket.socket) -> None:
    take(sock)
    sock.sendall(LAST)


def answers_once(sock: socket.socket) -> None:
    take(sock)
    sock.sendall(ANSWER)


def resets(sock: socket.socket) -> None:
    take(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cuts_short(sock: socket.socket) -> None:
    take(sock)
    sock.sendall(ANSWER[:-1])


def refuses(sock: socket.socket) -> None:
    while take(sock):
        sock.sendall(ANSWER.replace(b"200 OK", b"503 Busy"))


def is_silent(sock: socket.socket) -> None:
    while take(sock):
        pass


@contextmanager
def serving(behaviour: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """Serve one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                if select.select([listener], [], [], 0.01)[0]:
                    with listener.accept()[0] as sock:
                        sock.settimeout(PATIENCE_S)
                        behaviour(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            over.set()
            thread.join(PATIENCE_S)


def run(address: tuple[str, int], requests: int, *, close: bool = False, patience_s: float = 10.0) -> Crowd:
    """Let one client make so many requests."""
    enough = threading.Event()

    def script() -> Iterator[Step]:
        yield from itertools.repeat(Step(0.01, close=close), requests)
        enough.set()
        yield from itertools.repeat(Step(1e6))

    with Crowd(address, [script()], patience_s=patience_s) as crowd:
        enough.wait(PATIENCE_S if patience_s else 0.3)
    return crowd


@pytest.mark.parametrize(
    ("behaviour", "answers", "closed", "failures"),
    [
        (keeps, 3, 0, []),
        (announces, 3, 3, []),
        (answers_once, 1, 1, [("end of file", True)]),
        (resets, 0, 3, [("reset", False)] * 3),
        (cuts_short, 0, 3, [("end of file", False)] * 3),
        (refuses, 0, 0, [("status 503", False)] * 3),
    ],
)
def test_outcomes(
    behaviour: Callable[[socket.socket], None], answers: int, closed: int, failures: list[tuple[str, bool]]
) -> None:
    with serving(behaviour) as address:
        crowd = run(address, answers + len(failures))
    assert [(failure.kind, failure.reused) for failure in crowd.failures] == failures
    assert (crowd.answers, crowd.closed) == (answers, closed)


def test_an_idle_connection_that_was_closed_counts_at_the_end() -> None:
    closed = threading.Event()

    def close(sock: socket.socket) -> None:
        answers_once(sock)
        sock.close()
        closed.set()

    with serving(close) as address, Crowd(address, [iter([Step(0), Step(1e6)])]) as crowd:
        assert closed.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while not crowd.answers and time.monotonic() < deadline:
            time.sleep(0.01)  # between two looks at the condition
    assert (crowd.answers, crowd.closed, crowd.failures) == (1, 1, [])


def test_a_close_that_the_client_asked_for_is_not_the_servers() -> None:
    with serving(announces) as address:
        crowd = run(address, 3, close=True)
    assert (crowd.answers, crowd.connections, crowd.closed, crowd.failures) == (3, 3, 0, [])


def test_a_refused_connect_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    crowd = run(address, 2)
    assert [failure.kind for failure in crowd.failures] == ["refused"] * 2
    assert crowd.connections == 0


def test_who_is_not_answered_until_the_end_is_a_failure_and_the_longest_stall() -> None:
    with serving(is_silent) as address:
        crowd = run(address, 1, patience_s=0)
    [failure] = crowd.failures
    assert failure == Failure("unanswered", False, "/", failure.at_s)
    assert 0 < crowd.longest_stall_s <= failure.at_s
    assert crowd.closed == 0


def test_the_scripts_of_a_seed_are_always_the_same() -> None:
    first, again, other = (steady(2, (0.1, 4.0), seed=seed) for seed in (7, 7, 8))

    def pauses(scripts: list[Iterator[Step]]) -> list[float]:
        return [next(script).pause_s for script in scripts for _ in range(100)]

    some = pauses(first)
    assert some == pauses(again)
    assert some != pauses(other)
    assert 0.1 <= min(some) <= max(some) <= 4.0
