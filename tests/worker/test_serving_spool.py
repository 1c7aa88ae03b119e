"""Bodies and responses of any size: memory up to its limits, then temporary files, then refusing or waiting."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_harness import Events, Gate, Serving, echo, eventually, serving

from prefork import temporary
from prefork.worker.exchange import ClientGone
from prefork.worker.outgoing import Outgoing
from prefork.worker.storage import Storage

KIB = 1 << 10
BODY = b"".join(b"line %d\n" % number for number in range(200_000))  # 2.5 MB
BIG = random.Random(1).randbytes(16 << 20)  # more than the socket buffers of both sides

UPLOAD = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n%b\r\n"
GET_BIG = b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n"


def length_framed(body: bytes) -> bytes:
    return UPLOAD % (len(body), b"") + body


def chunked(body: bytes) -> bytes:
    cuts = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts)
    return b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + wire + b"0\r\n\r\n"


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/echo":
        return echo(environ, start_response)
    start_response("200 OK", [("Content-Length", str(len(BIG)))])
    if environ["PATH_INFO"] == "/stream":
        return (BIG[at : at + 10_000] for at in range(0, len(BIG), 10_000))
    return [BIG]


def state(server: Serving) -> tuple[int, int, int]:
    """Return bytes in memory, without those of complete heads, and in files, and open temporary files."""
    storage = server.server.storage
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass  # That of the listing itself.
    heads = sum(c.head_cost_bytes for c in list(server.server.connections.values()))
    return (
        storage.memory_bytes - heads,
        storage.spool_bytes,
        sum(link.startswith(storage._folder + "/") for link in links),
    )


def flushing(server: Serving) -> int:
    found = server.call(lambda: [c.state.name for c in server.server.connections.values()])
    return found.count("FLUSHING")


@pytest.mark.parametrize("body_memory", [4096, 16 << 20], ids=["spooled", "in-memory"])
@pytest.mark.parametrize("framed", [length_framed, chunked])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_body_is_a_complete_seekable_file(
    tmp_path: Path, threads: int, framed: Any, body_memory: int
) -> None:
    seen: list[Any] = []

    def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        given = environ["wsgi.input"]
        lines = BODY.splitlines(keepends=True)
        assert environ["CONTENT_LENGTH"] == str(len(BODY))
        assert environ["wsgi.input_terminated"] is True
        assert given.readline() == lines[0]
        assert given.readline(2) == lines[1][:2]
        assert given.read(3) == lines[1][2:5]
        given.seek(0)
        assert given.readlines(20) == lines[:3]
        assert next(iter(given)) == lines[3]
        assert given.seek(0, 2) == given.tell() == len(BODY)
        given.seek(-10, 1)
        assert given.read() == BODY[-10:]
        assert given.read() == given.readline() == b""
        given.seek(0)
        seen.append((given, given.read(), state(server)[1:]))
        start_response("200 OK", [])
        return [b"ok"]

    limits = {"body_memory": body_memory, "body": 16 << 20}
    with serving(reading, threads=threads, limits=limits, tmp_dir=str(tmp_path)) as server:
        client = server.connect()
        for _ in range(2):
            client.send(framed(BODY))
            assert client.response()[2] == b"ok"
        given, content, (spool_bytes, files) = seen[-1]
        assert content == BODY
        assert (spool_bytes, files) == ((len(BODY), 1) if body_memory == 4096 else (0, 0))
        eventually(lambda: state(server) == (0, 0, 0))
        if spool_bytes:
            with pytest.raises(ValueError, match="closed file"):  # Its number may be somebody else's.
                given.seek(0)
        assert list(tmp_path.iterdir()) == []
        assert server.log.lines == []


def test_half_sent_bodies_are_counted_to_the_byte_and_freed_at_once(tmp_path: Path) -> None:
    limits = {"body_memory": 100_000, "memory": 150_000, "body": 1 << 30}
    with serving(app, limits=limits, tmp_dir=str(tmp_path)) as server:
        clients = []
        # Below body_memory, below it but above what is left of memory, and above body_memory.
        for announced, sent, expected in [
            (100_000, 90_000, (90_000, 0, 0)),
            (100_000, 80_000, (90_000, 80_000, 1)),
            (100_001, 30_000, (90_000, 110_000, 2)),
        ]:
            clients.append(server.connect())
            clients[-1].send(UPLOAD % (announced, b"") + bytes(sent))
            eventually(lambda expected=expected: state(server) == expected)  # type: ignore[misc]
        clients[0].send(bytes(10_000))
        assert len(clients[0].response()[2]) == 100_000 + len(b"POST /echo ")
        eventually(lambda: state(server) == (0, 110_000, 2))
        clients[1].close()
        eventually(lambda: state(server) == (0, 30_000, 1))
        clients[2].send(bytes(1))
        clients[2].close()
        eventually(lambda: state(server) == (0, 0, 0))


def test_a_body_that_has_no_room_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    limits = {"body_memory": 1000, "spool": 200_000, "body": 1 << 30}
    with serving(app, limits=limits, tmp_dir=str(tmp_path)) as server:
        never = server.connect()
        never.send(UPLOAD % (200_001, b"Expect: 100-continue\r\n"))
        assert never.response()[0] == 413
        first = server.connect()
        first.send(UPLOAD % (150_000, b"Expect: 100-continue\r\n"))
        assert first.response()[0] == 100
        first.send(bytes(120_000))
        eventually(lambda: state(server) == (0, 120_000, 1))
        not_now = server.connect()
        not_now.send(UPLOAD % (80_001, b"Expect: 100-continue\r\n"))
        assert not_now.response()[0] == 507
        # Of unknown length: it is told when it is too much, and what it took is given back.
        unknown = server.connect()
        unknown.send(chunked(bytes(150_000)))
        assert unknown.response()[0] == 507
        eventually(lambda: state(server) == (0, 120_000, 1))
        first.send(bytes(30_000))
        assert first.response()[0] == 200
        assert len(server.log.named("request-refused")) == 3


@pytest.mark.parametrize("full", ["disk", "directory"])
def test_a_full_disk_is_507_with_one_line_in_the_log(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"body_memory": 1000, "response_memory": 1000, "body": 1 << 30}
    if full == "disk":
        monkeypatch.setattr(temporary, "open_unlinked", lambda folder: os.open("/dev/full", os.O_RDWR))
    # With a thread to spare, or a reader that a busy machine keeps waiting is cut off.
    with serving(app, threads=2, limits=limits, tmp_dir="/nonexistent") as server:
        for _ in range(2):
            client = server.connect()
            client.send(length_framed(bytes(500_000)))
            assert client.response()[0] == 507
        # A response is not lost: its producer waits for the reader.
        reader = server.connect()
        for target in (b"/big", b"/stream"):
            reader.send(GET_BIG.replace(b"/big", target))
            assert reader.response()[2] == BIG
        eventually(lambda: state(server)[:2] == (0, 0))
        [line] = server.log.named("spool-failed")
        assert "/nonexistent" in line
        monkeypatch.undo()


@pytest.mark.parametrize("target", [b"/big", b"/stream"])
def test_a_slow_reader_of_a_large_response_costs_no_memory_and_no_worker(
    tmp_path: Path, target: bytes
) -> None:
    limits = {"response_memory": 100_000, "memory": 250_000}
    with serving(app, limits=limits, tmp_dir=str(tmp_path)) as server:
        readers = [server.connect() for _ in range(4)]
        for count, reader in enumerate(readers, 1):
            reader.send(GET_BIG.replace(b"/big", target) + GET_BIG.replace(b"/big", b"/echo"))
            eventually(lambda count=count: flushing(server) == count)  # type: ignore[misc]
        memory_bytes, spool_bytes, files = state(server)
        assert memory_bytes <= 250_000
        assert spool_bytes > len(BIG)
        assert files == 4
        assert server.connect().get("/echo")[2] == b"GET /echo "
        readers[0].close()
        eventually(lambda: state(server)[2] == 3)
        for reader in readers[1:]:
            assert reader.response()[2] == BIG
            assert reader.response()[2] == b"GET /echo "
        eventually(lambda: state(server) == (0, 0, 0))
        assert list(tmp_path.iterdir()) == []


def test_beyond_the_spool_the_producer_waits(tmp_path: Path) -> None:
    produced = 0

    def producing(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal produced
        start_response("200 OK", [("Content-Length", str(len(BIG)))])
        for at in range(0, len(BIG), 64 * KIB):
            produced += 1
            yield BIG[at : at + 64 * KIB]

    limits = {"response_memory": 100 * KIB, "spool": 300 * KIB}
    with serving(producing, threads=2, limits=limits, tmp_dir=str(tmp_path)) as server:
        reader = server.connect()
        reader.send(GET_BIG)
        eventually(lambda: state(server)[1] == 300 * KIB)
        eventually(lambda: state(server)[0] > 100 * KIB)
        assert state(server)[0] <= 164 * KIB  # One block beyond the limit: that of the producer who waits.
        assert produced < 256
        assert reader.response()[2] == BIG
        eventually(lambda: state(server) == (0, 0, 0))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_arrives_in_order_and_is_accounted_for(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    storage = Storage(chance.choice([0, 20_000, 1 << 20]), 400_000, str(tmp_path), Events())
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    theirs.setblocking(False)
    outgoing = Outgoing(ours, storage, chance.choice([0, 10_000, 100_000]), 1.0)
    written, received = bytearray(), bytearray()
    file = tmp_path / "file"
    file.write_bytes(BODY[:50_000])

    def read(count: int) -> None:
        while count > 0:
            try:
                data = theirs.recv(count)
            except BlockingIOError:
                return
            received.extend(data)
            count -= len(data)

    with open(file, "rb") as opened:
        while len(written) < 1_000_000:
            # Room enough for the next one: nobody reads while it waits.
            while outgoing.output and outgoing.output.unsent_bytes > 150_000:
                read(20_000)
                outgoing.flush()
            pieces = [
                chance.randbytes(chance.choice([0, 1, 100, 5000, 30_000])) for _ in range(chance.randrange(4))
            ]
            if chance.random() < 0.2:
                outgoing.write_file(b"head", opened.fileno(), 100, 20_000)
                written += b"head" + BODY[100:20_100]
            if sum(map(len, pieces)) <= 400_000 - storage.spool_bytes:
                outgoing.write(pieces if chance.random() < 0.5 else b"".join(pieces))
                written += b"".join(pieces)
            read(chance.choice([0, 1000, 50_000]))
    while outgoing.output:
        read(50_000)
        outgoing.flush()
    ours.close()
    theirs.setblocking(True)
    while data := theirs.recv(65536):
        received.extend(data)
    assert received == written
    assert (storage.memory_bytes, storage.spool_bytes) == (0, 0)
    theirs.close()


def test_a_client_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    storage = Storage(1000, 1 << 30, str(tmp_path), Events())
    ours, theirs = socket.socketpair()
    outgoing = Outgoing(ours, storage, 1000, 1.0)
    outgoing.write([BODY, BODY])
    assert storage.spool_bytes > 1_000_000
    theirs.close()
    with pytest.raises(ClientGone):
        outgoing.write(b"x")
    assert (storage.memory_bytes, storage.spool_bytes, outgoing.output) == (0, 0, None)
    ours.close()


def test_a_file_system_that_knows_no_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # What an old kernel takes it for: EISDIR.
    fd = temporary.open_unlinked(str(tmp_path))
    assert os.pwrite(fd, b"x", 0) == 1
    assert list(tmp_path.iterdir()) == []
    os.close(fd)
    assert temporary.problem(str(tmp_path)) is None
    assert temporary.problem(str(tmp_path / "absent")) == "No such file or directory"


HALF_HEAD = b"GET /echo HTTP/1.1\r\nHost: t\r\nX-Slow: " + b"x" * 20_000


@pytest.mark.parametrize("threads", [1, 2])
def test_half_sent_heads_and_pipelined_bytes_are_counted_and_freed(tmp_path: Path, threads: int) -> None:
    with serving(app, threads=threads, tmp_dir=str(tmp_path)) as server:
        halves = [server.connect() for _ in range(3)]
        for count, half in enumerate(halves, 1):
            half.send(HALF_HEAD[:5000])
            half.send(HALF_HEAD[5000:])
            eventually(lambda count=count: state(server)[0] == count * len(HALF_HEAD))  # type: ignore[misc]
        halves[0].send(b"\r\n\r\n")
        assert halves[0].response()[0] == 200
        halves[1].send(b"\r\nContent-Length: 3\r\n\r\nabcGET ")
        assert halves[1].response()[2] == b"GET /echo abc"
        eventually(lambda: state(server)[0] == len(HALF_HEAD) + len(b"GET "))
        halves[1].send(b"/echo HTTP/1.1\r\nHost: t\r\n\r\n")
        assert halves[1].response()[2] == b"GET /echo "
        halves[2].send(b"\r\nspace before colon : x\r\n\r\n")
        assert halves[2].response()[0] == 400
        eventually(lambda: state(server)[0] == 0)

        reader = server.connect()
        reader.send(GET_BIG.replace(b"big", b"big") + HALF_HEAD)
        eventually(lambda: flushing(server) == 1)
        [connection] = [c for c in server.server.connections.values() if c.state.name == "FLUSHING"]
        assert state(server)[0] == len(HALF_HEAD) + connection.output.held_bytes
        assert reader.response()[2] == BIG
        eventually(lambda: state(server)[0] == len(HALF_HEAD))
        reader.close()
        eventually(lambda: state(server) == (0, 0, 0))


def test_heads_beyond_the_memory_are_refused_and_bodies_leave_room_for_them(tmp_path: Path) -> None:
    limits = {"memory": 164_000, "body_memory": 200_000}
    with serving(app, limits=limits, tmp_dir=str(tmp_path)) as server:
        body = server.connect()
        body.send(UPLOAD % (200_000, b"") + bytes(140_000))
        eventually(lambda: state(server)[0] == 140_000)
        more = server.connect()
        more.send(UPLOAD % (10_000, b"") + bytes(8_000))  # it would take the heads' part
        eventually(lambda: state(server) == (140_000, 8_000, 1))
        waiting = server.connect()
        waiting.send(HALF_HEAD[:15_000])
        eventually(lambda: state(server)[0] == 155_000)
        refused = server.connect()
        refused.send(HALF_HEAD[:10_000])
        assert refused.response()[0] == 503
        pipelining = server.connect()
        pipelining.send(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n" + HALF_HEAD[:10_000])
        assert pipelining.response()[0] == 503
        waiting.send(b"\r\n\r\n")
        assert waiting.response()[0] == 200
        body.send(bytes(60_000) + b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n")
        assert body.response()[0] == body.response()[0] == 200
        more.close()
        eventually(lambda: state(server) == (0, 0, 0))
        assert len(server.log.named("request-refused")) == 2


def test_requests_that_wait_for_a_thread_are_counted(tmp_path: Path) -> None:
    gate = Gate()
    limits = {"memory": 64 * KIB, "body_memory": 100_000}
    with serving(gate, threads=2, limits=limits, tmp_dir=str(tmp_path)) as server:
        busy, queued = [server.connect() for _ in range(2)], [server.connect() for _ in range(2)]
        for client in queued:
            assert client.get()[0] == 200  # accepted, as it would not be later
        for client in busy:
            client.send(b"POST /wait HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc")
            gate.await_entry()
        assert state(server) == (0, 0, 0)
        for client, expected in zip(queued, [(40_000, 0, 0), (40_000, 40_000, 1)], strict=True):
            client.send(length_framed(bytes(40_000)))
            eventually(lambda expected=expected: state(server) == expected)  # type: ignore[misc]
        gate.opened.set()
        for client in busy + queued:
            assert client.response()[0] == 200
        eventually(lambda: state(server) == (0, 0, 0))


@pytest.mark.parametrize("way", ["of a body that arrives", "that wait for a thread"])
def test_heads_are_counted(way: str) -> None:
    gate = Gate()
    arriving = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n%s\r\n" % (b"X-Y: z\r\n" * 90)
    wire = arriving.replace(b"Content-Length: 9\r\n", b"") if way == "that wait for a thread" else arriving
    with serving(gate, threads=2, limits={"memory": 4 * len(wire)}) as server:
        storage = server.server.storage
        clients = [server.connect() for _ in range(8)]
        for client in clients:
            assert client.get()[0] == 200  # accepted, as it would not be later
        busy = [server.connect() for _ in range(2)]
        for client in busy:
            client.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            gate.await_entry()
        for client in clients:
            client.send(wire)
        eventually(lambda: server.log.named("request-refused"))
        assert len(wire) < storage.memory_bytes <= 4 * len(wire)
        for client in clients:
            client.close()
        gate.opened.set()
        eventually(lambda: storage.memory_bytes == 0)
