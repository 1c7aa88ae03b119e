"""HTTP over the wire, and clients that are slow, wrong or gone: none of them costs the others anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import wait_for
from wire_client import Wire, descriptors, wire

GET = "GET /echo?{} HTTP/1.1\r\nHost: test\r\n\r\n"
POST = "POST /echo?{} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = (
    "POST /echo?{} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    "4;a=b\r\n0123\r\n6\r\n456789\r\n0\r\nX-Trailer: c\r\n\r\n"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One worker with one thread and patience."""
    with wire(tmp_path_factory.mktemp("serving"), "workers: 1\nlog: {access: off}") as running:
        yield running
        assert running.server.stop() == 0
        assert running.server.log.count(": ready after") == 1
        assert "internal-error" not in running.server.log


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One worker with short timeouts and small limits."""
    config = """
workers: 1
timeouts: {keep_alive: 300ms, head: 400ms, body: 400ms, send: 500ms}
limits: {request_line: 300, fields: 10, head: 600, body: 1000, response_memory: 16MiB}
"""
    with wire(tmp_path_factory.mktemp("impatient"), config) as running:
        yield running
        assert running.server.stop() == 0
        assert running.server.log.count(": ready after") == 1


def worker_of(site: Wire) -> int:
    [pid] = site.server.wait_for_workers(1)
    return pid


# Requests


@pytest.mark.parametrize("request_text", [GET, POST, CHUNKED], ids=["none", "length", "chunked"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_requests_cut_anywhere(site: Wire, request_text: str, unix: bool) -> None:
    raw = request_text.format("q")
    wanted = b"GET q " if request_text is GET else b"POST q 0123456789"
    with site.connect(unix=unix) as client, site.connect() as other:
        for cut in range(1, len(raw)):
            client.send(raw[:cut])
            if cut % 8 == 0:
                # The one worker has read the first part when it answers this.
                assert other.get("/echo?o").body == b"GET o "
            client.send(raw[cut:])
            assert client.answer().body == wanted
        for byte in raw:
            client.send(byte)
        assert client.answer().body == wanted


@pytest.mark.parametrize(
    ("version", "field", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: Close", False),
        ("1.1", "Connection: x, close", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive", True),
    ],
)
@pytest.mark.parametrize("page", ["echo", "stream", "fail?what=error"])
def test_keep_alive(site: Wire, version: str, field: str, kept: bool, page: str) -> None:
    kept = kept and not (version == "1.0" and page == "stream")
    with site.connect() as client:
        for _ in range(3):
            client.send(f"GET /{page} HTTP/{version}\r\nHost: test\r\n{field}\r\n" + "\r\n" * bool(field))
            announced = client.answer().headers.get("connection")
            if not kept:
                assert announced == "close"
                assert client.rest() == b""
                break
            assert announced == ("keep-alive" if version == "1.0" else None)


def test_pipelined_requests_are_answered_in_order_across_a_slow_one(site: Wire) -> None:
    with site.connect() as client:
        kinds = [GET, CHUNKED, POST, GET.replace("echo", "wait"), CHUNKED, GET, POST]
        client.send("".join(kind.format(number) for number, kind in enumerate(kinds)))
        visitor = site.gate.visitor()
        assert [client.answer().body.split()[1] for _ in range(3)] == [b"0", b"1", b"2"]
        client.send(GET.format(7))
        visitor.release()
        assert [client.answer().body.split()[1] for _ in range(5)] == [b"3", b"4", b"5", b"6", b"7"]


def test_many_pipelined_requests(site: Wire) -> None:
    with site.connect() as client:
        client.send("".join(GET.format(number) for number in range(500)))
        assert [int(client.answer().body.split()[1]) for _ in range(500)] == list(range(500))


def test_expect_100_continue(site: Wire) -> None:
    head = "POST /echo?{} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
    with site.connect() as client:
        client.send(head.format("asked") + "Content-Length: 4\r\n\r\n")
        assert client.answer().line == "HTTP/1.1 100 Continue"
        client.send("body")
        assert client.answer().body == b"POST asked body"
        # It did not wait, or there is nothing to wait for.
        client.send(head.format("sent") + "Content-Length: 4\r\n\r\nbody")
        assert client.answer().body == b"POST sent body"
        client.send(head.format("none") + "\r\n")
        assert client.answer().body == b"POST none "
        client.send(head.format("chunked") + "Transfer-Encoding: chunked\r\n\r\n")
        assert client.answer().status == 100
        client.send("4\r\nbody\r\n0\r\n\r\n")
        assert client.answer().body == b"POST chunked body"
        client.send(head.format("large") + f"Content-Length: {1 << 40}\r\n\r\n")
        assert client.answer().status == 413


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_half_closed_clients_get_their_answers(site: Wire, unix: bool) -> None:
    big = "GET /big?2000 HTTP/1.1\r\nHost: test\r\n\r\n"
    with site.connect(unix=unix) as client:
        client.send(GET.format("a") + big + GET.replace("echo", "wait").format("b") + CHUNKED.format("c"))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"GET a "
        assert client.answer().body == bytes(2000 * 1024)
        site.gate.visitor().release()
        assert client.answer().body == b"GET b "
        assert client.answer().body == b"POST c 0123456789"
        assert client.rest() == b""


# Mistakes and limits

LONG = "x" * 700
# Each with what the answer says, in the config of ``impatient``.
REFUSED = {
    "nonsense": ("nonsense\r\n\r\n", 400),
    "TLS": ("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no Host": ("GET / HTTP/1.1\r\n\r\n", 400),
    "bare LF": ("GET / HTTP/1.1\nHost: a\n\n", 400),
    "two lengths": ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "length and chunked": (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "bad chunk": ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", 400),
    "gzip": ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "expectation": ("GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
    "long line": (f"GET /{LONG} HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "long line, not at its end": (f"GET /{LONG}", 414),
    "many fields": ("GET / HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n" * 20 + "\r\n", 431),
    "long field": (f"GET / HTTP/1.1\r\nHost: a\r\nX: {LONG}\r\n\r\n", 431),
    "long field, not at its end": (f"GET / HTTP/1.1\r\nHost: a\r\nX: {LONG}", 431),
    "long body": ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
    "long chunk": ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\nx", 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_answered_and_close(impatient: Wire, name: str) -> None:
    raw, status = REFUSED[name]
    mark = impatient.server.mark()
    with impatient.connect() as client:
        client.send(GET.format("good") + raw)
        assert client.answer().body == b"GET good "
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert len(answer.body) > 10, "says why"
        assert client.rest() == b""
    impatient.server.wait_for_log(f"answered {status} to 127.0.0.1:", mark)


def test_a_refusal_can_be_read_by_a_client_that_goes_on_sending(impatient: Wire) -> None:
    for head in ("nonsense\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"):
        with impatient.connect() as client:
            client.send(head.encode() + bytes(4_000_000))
            assert client.answer().status in (400, 413)


# Timeouts


def test_an_idle_connection_is_closed_without_a_word(impatient: Wire) -> None:
    with impatient.connect() as used, impatient.connect() as silent:
        assert used.get("/echo").status == 200
        assert used.rest() == b""
        assert silent.rest() == b""


@pytest.mark.parametrize("part", ["G", GET[:-3], POST[:-3], CHUNKED[:-3]])
def test_what_does_not_arrive_is_408(impatient: Wire, part: str) -> None:
    with impatient.connect() as client:
        client.send(part.format("q"))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert client.rest() == b""


# More than the sockets hold, less and more than is kept in memory.
@pytest.mark.parametrize("size_kib", [12 * 1024, 64 * 1024])
def test_who_stops_reading_is_cut(impatient: Wire, size_kib: int) -> None:
    worker = worker_of(impatient)
    wait_for(lambda: not connections(worker, impatient), "no connection")
    with impatient.connect(receive_bytes=4096) as client:
        client.ask(f"/big?{size_kib}")
        assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"
        wait_for(lambda: not connections(worker, impatient), "the end of the connection")
        assert client.is_reset()
    with impatient.connect() as client:
        assert client.get("/echo").status == 200


def test_keep_alive_0_keeps_none(tmp_path: Path) -> None:
    with wire(tmp_path, "workers: 1\ntimeouts: {keep_alive: 0}") as site, site.connect() as client:
        # What is pipelined is answered all the same.
        client.send(GET.format(0) + GET.format(1))
        assert client.answer().headers.get("connection") is None
        assert client.answer().headers["connection"] == "close"
        assert client.rest() == b""


def connections(worker: int, site: Wire) -> int:
    """Return how many TCP connections to the site the kernel has, in the worker or still on the way out."""
    port = f"0100007F:{site.server.port:04X}"
    lines = Path(f"/proc/{worker}/net/tcp").read_text().splitlines()
    return sum(line.split()[1] == port and line.split()[3] == "01" for line in lines)


# Slow clients beside others, in one worker with one thread


def test_half_sent_requests_do_not_hinder(site: Wire) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(site.connect()) for _ in range(100)]
        for number, client in enumerate(clients):
            client.send((GET if number % 2 else POST).format(number)[:-5])
        with site.connect() as other:
            for _ in range(20):
                assert other.get("/echo?o").body == b"GET o "
        for number, client in enumerate(clients):
            client.send((GET if number % 2 else POST)[-5:])
            assert client.answer().body.split()[1] == str(number).encode()


def test_slow_readers_do_not_hinder(site: Wire) -> None:
    with ExitStack() as stack:
        # 1 MiB each: what limits.response_memory keeps, whatever the sockets take.
        slow = [stack.enter_context(site.connect(receive_bytes=4096)) for _ in range(10)]
        for client in slow:
            client.ask("/big?1024")
        with site.connect() as other:
            for _ in range(20):
                assert other.get("/echo?o").body == b"GET o "
        for client in slow:
            assert client.answer().body == bytes(1024 * 1024)
            assert client.get("/echo?kept").status == 200


def test_a_slow_reader_of_more_is_served_to_the_end(site: Wire) -> None:
    with site.connect(receive_bytes=65536) as client:
        client.ask("/big?5120")
        assert client.answer().body == bytes(5 * 1024 * 1024)


def test_clients_that_leave_free_what_they_held(site: Wire) -> None:
    worker = worker_of(site)
    with site.connect() as client:
        client.get("/echo")
    wait_for(lambda: not connections(worker, site), "no connection")
    before = descriptors(worker)
    for text in ("", "GET / HT", POST[:-3], "GET /big?1024 HTTP/1.1\r\nHost: a\r\n\r\n", GET):
        for reset in (False, True):
            with site.connect(receive_bytes=4096) as client:
                client.send(text)
                if reset:
                    client.abort()
    wait_for(lambda: descriptors(worker) == before, "as few descriptors as before")


# Several workers


def test_no_new_connection_waits_while_a_worker_is_idle(tmp_path: Path) -> None:
    with wire(tmp_path, "workers: 4\nlog: {access: off}") as site, ExitStack() as stack:
        site.server.wait_for_workers(4)
        slow, busy = [], []
        for number in range(3):
            client = stack.enter_context(site.connect())
            client.ask(f"/wait?{number}")
            slow.append(client)
            busy.append(site.gate.visitor())
        assert len({visitor.pid for visitor in busy}) == 3
        # One worker is left, and serves all that come: one after the other, and at the same time.
        served = []
        for unix in (False, True):
            for _ in range(50):
                with site.connect(unix=unix) as client:
                    served.append(client.get("/echo?fast").body)

        def ask_ten() -> None:
            for _ in range(10):
                with site.connect() as client:
                    served.append(client.get("/echo?fast").body)

        threads = [threading.Thread(target=ask_ten) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert served == [b"GET fast "] * 180
        # All the while the slow ones were running: none of them has been answered.
        for client, visitor in zip(slow, busy, strict=True):
            client.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.sock.recv(1)
            client.sock.setblocking(True)
            visitor.release()
            assert client.answer().status == 200


def test_connections_that_wait_are_taken_by_all_workers(tmp_path: Path) -> None:
    with wire(tmp_path, "workers: 4\nlog: {access: off}") as site, ExitStack() as stack:
        site.server.wait_for_workers(4)
        clients, busy = [], []
        for number in range(24):
            client = stack.enter_context(site.connect())
            client.ask(f"/wait?{number}", "Connection: close")
            clients.append(client)
            if number < 4:
                busy.append(site.gate.visitor())
        # The rest waits in the kernel. Each worker that is done takes one, and only one.
        for _ in range(5):
            for visitor in busy:
                visitor.release()
            busy = [site.gate.visitor() for _ in range(4)]
            assert len({visitor.pid for visitor in busy}) == 4
        for visitor in busy:
            visitor.release()
        assert [client.answer().status for client in clients] == [200] * 24
