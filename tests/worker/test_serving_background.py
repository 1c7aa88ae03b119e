"""PEP 3333: a block goes on being sent while the application works on the next one."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from pki import Pki
from serving_harness import PATIENCE_S, Client, Events, Serving, eventually, serving
from tls_client import TlsClient

from prefork.tls import make_context
from prefork.worker.background import BackgroundSender, Loan
from prefork.worker.exchange import ClientGone
from prefork.worker.outgoing import Outgoing
from prefork.worker.storage import Storage

BLOCK = Random(1).randbytes(8 << 20)  # more than the socket buffers of both sides
REST = b"the rest"
HEADERS = [("Content-Length", str(len(BLOCK) + len(REST)))]
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
RESET = struct.pack("ii", 1, 0)

KINDS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
THREADS = pytest.mark.parametrize("threads", [1, 4])


class Pause:
    """Where an application is when it works on its next block."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.closed = threading.Event()
        self.began = threading.Event()

    def __call__(self) -> None:
        self.began.set()
        assert self.over.wait(PATIENCE_S)

    def blocks(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        try:
            yield BLOCK
            self()
            yield REST
        finally:
            self.closed.set()

    def writes(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", HEADERS)(BLOCK)
        self()
        return [REST]

    def closes(self, environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        return Closing([BLOCK, REST], self)


class Closing(list[bytes]):
    def __init__(self, blocks: list[bytes], close: Callable[[], None]) -> None:
        super().__init__(blocks)
        self.close = close


def connect(server: Serving, pki: Pki, tls: bool) -> Client:
    return TlsClient(server, pki.client_context()) if tls else server.connect()


def options(pki: Pki, tls: bool, **limits: int) -> dict[str, Any]:
    return {"tls": make_context(pki.tls()) if tls else None, "limits": limits}


def read(client: Client, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += client._file.read(count - len(data))
    return data


@KINDS
@THREADS
@pytest.mark.parametrize("app", [Pause.blocks, Pause.writes, Pause.closes])
@pytest.mark.parametrize("memory", [1 << 20, 1 << 24], ids=["file", "memory"])
def test_a_block_arrives_while_the_next_is_worked_on(
    pki: Pki, tls: bool, threads: int, app: Any, memory: int
) -> None:
    pause = Pause()
    kept = options(pki, tls, response_memory=memory)
    with serving(lambda *given: app(pause, *given), threads=threads, **kept) as server:
        client = connect(server, pki, tls)
        for _ in range(2):
            client.send(GET)
            while client._file.readline() != b"\r\n":
                pass
            assert read(client, len(BLOCK)) == BLOCK
            assert pause.began.wait(PATIENCE_S)
            pause.began.clear()
            pause.over.set()
            assert read(client, len(REST)) == REST
            pause.over.clear()  # who waits has been woken
        eventually(lambda: not server.server.background.loans)
        assert server.server.storage.memory_bytes == server.server.storage.spool_bytes == 0


@KINDS
@THREADS
def test_who_stops_reading_meanwhile_is_cut_when_the_response_has_ended(
    pki: Pki, tls: bool, threads: int
) -> None:
    pause = Pause()
    with serving(pause.blocks, threads=threads, timeouts={"send": 0.2}, **options(pki, tls)) as server:
        client = connect(server, pki, tls)
        client.send(GET)
        eventually(lambda: server.server.background.loans)
        pause.over.set()
        eventually(lambda: server.server.open_connections == 0)
        assert "took nothing for 0.2 s" in server.cuts()[0]
        assert pause.closed.is_set()


@KINDS
@THREADS
def test_a_client_that_resets_meanwhile_frees_what_is_kept(pki: Pki, tls: bool, threads: int) -> None:
    pause = Pause()
    with serving(pause.blocks, threads=threads, **options(pki, tls, response_memory=1 << 24)) as server:
        client = connect(server, pki, tls)
        client.send(GET)
        eventually(lambda: server.server.background.loans)
        assert server.server.storage.memory_bytes
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        eventually(lambda: server.server.storage.memory_bytes == 0)
        assert not pause.closed.is_set()
        pause.over.set()
        eventually(lambda: server.server.open_connections == 0)
        assert pause.closed.is_set()
        assert server.log.named("client-gone")
        assert not server.log.named("request-failed")


@KINDS
@THREADS
def test_many_blocks_arrive_in_order(pki: Pki, tls: bool, threads: int) -> None:
    """Through memory, files, and waiting for room, with a reader that is slower at times and faster at others."""
    sent = hashlib.sha256()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        chance = Random(2)
        for _ in range(300):
            block = chance.randbytes(int(2 ** chance.uniform(0, 20)))
            sent.update(block)
            yield block
            for _ in range(chance.choice([0, 0, 1, 8])):
                hashlib.sha256(block).digest()

    limits = {"response_memory": 128 << 10, "spool": 512 << 10}
    with serving(app, threads=threads, **options(pki, tls, **limits)) as server:
        client = connect(server, pki, tls)
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        while client._file.readline() != b"\r\n":
            pass
        received, chance = hashlib.sha256(), Random(3)
        while data := client._file.read1(int(2 ** chance.uniform(0, 18))):
            received.update(data)
        assert received.digest() == sent.digest()
        eventually(lambda: not server.server.connections)


class Socketpair:
    """A way out that keeps something, without a server."""

    def __init__(self, way: type[Outgoing]) -> None:
        self.log = Events()
        self.ours, self.theirs = socket.socketpair()
        self.way = way(self.ours, Storage(1 << 30, 0, "", self.log), 1 << 30, 1.0)
        self.way.write(BLOCK)
        self.sender = BackgroundSender(self.log)

    def lend(self) -> Loan:
        self.sender.lend(self.way)
        assert self.way.loan is not None
        return self.way.loan


@contextmanager
def socketpair(way: type[Outgoing] = Outgoing) -> Iterator[Socketpair]:
    pair = Socketpair(way)
    yield pair
    pair.way.abort()
    pair.ours.close()
    pair.theirs.close()


def test_a_fork_neither_sends_nor_waits_for_a_thread_that_it_does_not_have() -> None:
    with socketpair() as pair:
        turn = pair.lend()._turn
        assert turn.acquire(False)  # As if the thread were halfway through it at the fork.
        assert pair.sender.epoll is not None
        assert pair.sender.disown() == [pair.sender.epoll.fileno()]
        with pytest.raises(ClientGone):
            pair.way.write(b"more")
        pair.sender.lend(pair.way)
        assert pair.way.loan is None


def test_without_a_thread_it_waits_for_the_next_block(monkeypatch: Any) -> None:
    def start(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with socketpair() as pair:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            pair.sender.lend(pair.way)
            assert pair.way.loan is None
        pair.lend()


class Failing(Outgoing):
    def flush(self) -> bool:
        raise ValueError("a mistake")


def test_a_failure_in_the_background_is_logged_and_its_owner_told() -> None:
    with socketpair(Failing) as pair:
        pair.lend()
        reader = threading.Thread(target=pair.theirs.recv, args=(len(BLOCK), socket.MSG_WAITALL), daemon=True)
        reader.start()
        eventually(lambda: pair.log.named("internal-error"))
        with pytest.raises(ClientGone):
            pair.way.write(b"more")
        assert not pair.sender.loans
        pair.ours.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE_S)


class Lingering(Outgoing):
    """Takes its time in the background, and tells when its owner meets that."""

    inside = threading.Event()
    met = False

    def flush(self) -> bool:
        if threading.current_thread().name == "prefork-background":
            self.inside.set()
            threading.Event().wait(0.2)
            self.inside.clear()
        elif self.inside.is_set():
            Lingering.met = True
        return super().flush()


def test_the_owner_waits_until_the_turn_of_the_sender_is_over() -> None:
    with socketpair(Lingering) as pair:
        pair.lend()
        pair.theirs.recv(1 << 20)
        assert Lingering.inside.wait(PATIENCE_S)
        pair.way.write(b"more")
        assert not Lingering.met
