"""``threads: N``: N requests at a time in a worker, with the properties that one has."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from wire_client import Client, Load, Visitor, Wire, wire

pytestmark = pytest.mark.measured

GET = "GET /{}?{} HTTP/1.1\r\nHost: test\r\n\r\n"
CONFIG = "workers: 1\nthreads: 4\nlog: {access: off}\n"


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wire(tmp_path_factory.mktemp("threads"), CONFIG) as running:
        yield running
        assert running.server.stop() == 0
        assert running.server.log.count(": ready after") == 1
        assert "internal-error" not in running.server.log


@pytest.fixture
def site(threaded: Wire) -> Iterator[Wire]:
    yield threaded
    threaded.gate.release_all()


def fill(site: Wire, stack: ExitStack, behind: str = "") -> tuple[list[Client], list[Visitor]]:
    """Have four requests run in the application, with ``behind`` pipelined."""
    clients = [stack.enter_context(site.connect()) for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(GET.format("wait", number) + behind)
    return clients, [site.gate.visitor() for _ in clients]


def test_four_requests_run_at_a_time_and_the_fifth_when_one_is_done(site: Wire) -> None:
    with ExitStack() as stack, site.connect() as fifth, site.connect() as bad:
        fifth.get("/echo")
        bad.get("/echo")
        _, visitors = fill(site, stack)
        assert len({visitor.thread for visitor in visitors}) == 4
        assert len({visitor.pid for visitor in visitors}) == 1
        fifth.ask("/wait?fifth")
        # A refusal needs no thread. By now the loop has read the fifth request as well.
        bad.send("nonsense\r\n\r\n")
        assert bad.answer().status == 400
        assert site.gate.nobody()
        visitors[2].release()
        last = site.gate.visitor()
        assert (last.tag, last.thread) == ("fifth", visitors[2].thread)
        for visitor in (*visitors, last):
            visitor.release()
        assert fifth.answer().status == 200


def test_busy_connections_do_not_starve_new_ones(site: Wire) -> None:
    with ExitStack() as stack:
        busy = {f"busy{number}": stack.enter_context(site.connect()) for number in range(8)}
        for client in busy.values():
            client.get("/echo")
        for tag, client in busy.items():
            client.ask(f"/wait?{tag}")
        # Four run, four wait, and the new one must not wait until fewer than four do either.
        visitors = [site.gate.visitor() for _ in range(4)]
        new = stack.enter_context(site.connect())
        new.ask("/wait?new")
        for _ in range(32):
            visitor = visitors.pop(0)
            if visitor.tag == "new":
                break
            visitor.release()
            client = busy[visitor.tag]
            assert client.answer().status == 200
            client.ask(f"/wait?{visitor.tag}")
            visitors.append(site.gate.visitor())
        assert visitor.tag == "new"
        for waiting in (visitor, *visitors):
            waiting.release()
        for _ in range(len(busy) + 1 - 4):
            site.gate.visitor().release()


def test_pipelined_requests_stay_in_order(site: Wire) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(site.connect()) for _ in range(6)]
        pages = ["echo", "stream", "write", "big", "file"]
        for client in clients:
            client.send("".join(GET.format("echo", number) for number in range(100)))
        for client in clients:
            assert [client.answer().body.split()[1] for _ in range(100)] == [b"%d" % n for n in range(100)]
        for client in clients:
            client.send("".join(GET.format(page, 3) for page in pages))
        for client in clients:
            assert [len(client.answer().body) for _ in pages] == [6, 13, 13, 3072, 256_000]


def test_a_slow_request_holds_only_what_was_pipelined_behind_it(site: Wire) -> None:
    with site.connect() as client, site.connect() as other:
        client.send(GET.format("echo", 0) + GET.format("wait", 1) + GET.format("echo", 2))
        visitor = site.gate.visitor()
        assert client.answer().body == b"GET 0 "
        for _ in range(20):
            assert other.get("/echo?o").body == b"GET o "
        client.send(GET.format("echo", 3))
        client.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.sock.recv(1)
        client.sock.setblocking(True)
        visitor.release()
        assert [client.answer().body for _ in range(3)] == [b"GET 1 ", b"GET 2 ", b"GET 3 "]


def test_exceptions_end_no_thread(site: Wire) -> None:
    with ExitStack() as stack:
        for what in ("error", "exit", "interrupt", "generator-exit") * 3:
            with site.connect() as client:
                assert client.get(f"/fail?what={what}").status == 500
            with site.connect() as client:
                client.ask(f"/fail?what={what}&after=1")
                assert client.is_reset()
        _, visitors = fill(site, stack)
        assert len({visitor.thread for visitor in visitors}) == 4
        for visitor in visitors:
            visitor.release()


def test_slow_readers_of_much_hold_a_thread_each_and_no_more(site: Wire) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(site.connect(receive_bytes=4096)) for _ in range(3)]
        for client in slow:
            client.ask("/big?12288")
        with site.connect() as other:
            for _ in range(20):
                assert other.get("/echo?o").body == b"GET o "
        for client in slow:
            client.sock.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_drain_finishes_what_runs_and_what_waits(tmp_path: Path, number: int) -> None:
    with wire(tmp_path, CONFIG) as site, ExitStack() as stack:
        idle = [stack.enter_context(site.connect()) for _ in range(4)]
        for client in idle:
            client.get("/echo")
        clients, visitors = fill(site, stack, GET.format("echo", "pipelined"))
        waiting, parked = idle[:2], idle[2:]
        for client in waiting:
            client.ask("/echo?waiting")
        mark = site.server.mark()
        site.server.send_signal(number)
        if number == signal.SIGHUP:
            site.server.wait_for_log("generation 2 serves, ", mark)
            with site.connect() as new:
                assert new.get("/echo").status == 200
        for client in parked:
            if number == signal.SIGHUP:
                assert client.get("/echo?parked").body == b"GET parked "
            else:
                assert client.rest() == b""
        if number == signal.SIGHUP:  # what waits for a thread there need not wait for it here
            for client in waiting:
                assert client.answer().body == b"GET waiting "
        for visitor in visitors:
            visitor.release()
        if number != signal.SIGHUP:
            for client in waiting:
                assert client.answer().body == b"GET waiting "
        for client in idle:
            client.close()
        for index, client in enumerate(clients):
            assert client.answer().body == f"GET {index} ".encode()
            last = client.answer()
            assert last.body == b"GET pipelined "
            if number != signal.SIGHUP:
                assert last.headers["connection"] == "close"
                assert client.rest() == b""
            client.close()
        if number == signal.SIGHUP:
            site.server.wait_for_workers(1)
            assert site.server.stop() == 0
        else:
            assert site.server.wait() == 0


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "new"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_term_under_load_answers_all_that_was_sent(tmp_path: Path, keep_alive: bool, unix: bool) -> None:
    with wire(tmp_path, CONFIG.replace("workers: 1", "workers: 2")) as site:
        site.server.wait_for_workers(2)
        address = site.unix_path if unix else site.address
        load = Load(address, 16, "/nap?20", keep_alive=keep_alive)
        with load:
            load.wait_for(100)
            assert site.server.stop() == 0
            load.join()
        assert load.failures == []
        assert load.refused == 16


def test_reload_under_load_fails_no_request(tmp_path: Path) -> None:
    with wire(tmp_path, CONFIG.replace("workers: 1", "workers: 2")) as site:
        site.server.wait_for_workers(2)
        kept = Load(site.address, 8, "/nap?5", keep_alive=True)
        new = Load(site.address, 4, "/nap?5", keep_alive=False)
        with kept, new:
            for _ in range(3):
                new.wait_for(20)
                kept.wait_for(20)
                assert site.server.reload() == "reloaded"
        assert (kept.failures, new.failures, kept.refused, new.refused) == ([], [], 0, 0)
        assert site.server.stop() == 0
