"""Connections that go from one worker to another: two servers in one process, with one relay."""

from __future__ import annotations

import array
import errno
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import pytest
from serving_harness import Client, Gate, Serving, echo, eventually, serving

from prefork.http.sender import ProxyPolicy
from prefork.relay import PROTOCOL, Relay
from prefork.worker import accepting
from prefork.worker import relay as worker_relay
from prefork.worker.handover import Handover, Origin, Stage, decode
from prefork.worker.http_server import HTTPServer
from prefork.worker.relay import HandoverLost
from prefork.worker.server import MOST_HANDED_OVER, Server
from prefork.worker.sharing import SLACK, Sharing

GET = b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n"
ORIGIN = Origin(("127.0.0.1", "80"), ("192.0.2.7", 4711), "192.0.2.7")


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay.make()
    yield made
    made.close()


def ends(relay: Relay) -> worker_relay.Relay:
    return worker_relay.Relay(os.dup(relay.way_in.fileno()), os.dup(relay.way_out.fileno()))


@contextmanager
def sharing(
    relay: Relay, app: Any = echo, *, give_up_s: float = 60.0, ready: int = 2, **options: Any
) -> Iterator[Serving]:
    """A worker that shares its connections; it believes that so many are ready."""
    own = ends(relay)

    class Sharer(HTTPServer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.share_connections(own, lambda: [0] * ready, give_up_s=give_up_s)

    with serving(app, server_class=Sharer, **options) as server:
        yield server
    own.close()


def links() -> Iterator[str]:
    """Yield what the descriptors of this process lead to."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # that of the listing


def handed_over(server: Serving) -> int:
    return int(server.server.cell.counts().handed_over)


def adopted(server: Serving) -> int:
    return int(server.server.cell.counts().adopted)


# The messages.


@pytest.mark.parametrize(
    "handover",
    [
        Handover(Stage.REQUEST, ORIGIN, socket.AF_INET, b"", 12.5),
        Handover(
            Stage.REQUEST,
            Origin(("::1", "80"), ("::1", 1, 0, 2), ""),
            socket.AF_INET6,
            b"GET /\n\r\0\xff",
            None,
        ),
        Handover(Stage.BODY, Origin(("", ""), "", "unix"), socket.AF_UNIX, GET, 0.1, 70_000),
        Handover(Stage.INTRODUCTION, ORIGIN, socket.AF_INET, b"PROXY ", 1e9),
    ],
)
def test_a_message_says_what_was_told(handover: Handover) -> None:
    assert decode(handover.encode()) == handover


@pytest.mark.parametrize(
    "message",
    [
        b'[%d,"request",2,["",""],null,"",null,null,0]\n' % (PROTOCOL + 1),
        b'[%d,"another stage",2,["",""],null,"",null,null,0]\n' % PROTOCOL,
        b'[%d,"request",2,["",""],null,""]\n' % PROTOCOL,
        b'[%d,"req' % PROTOCOL,
        b"{}\n",
        b"\xff",
    ],
)
def test_what_cannot_be_understood_is_lost_and_leaks_nothing(relay: Relay, message: bytes) -> None:
    own = ends(relay)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()] * 2))
        own.way_in.sendmsg([message], [rights])
        theirs.close()
        with pytest.raises(HandoverLost):
            own.accept()
        assert ours.recv(1) == b""  # nobody holds the other end
    own.close()


def use_up() -> list[int]:
    """Open descriptors until there are no more."""
    used = []
    while True:
        try:
            used.append(os.dup(0))
        except OSError:
            return used


def test_a_worker_without_descriptors_leaves_it_to_others(relay: Relay) -> None:
    gc.collect()  # what other tests have left behind would free descriptors meanwhile
    own = ends(relay)
    ours, theirs = socket.socketpair()
    spare: list[int] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert own.send(Handover(Stage.REQUEST, ORIGIN, socket.AF_UNIX, b"", None), [theirs.fileno()])
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 16, limits[1]))
        spare = use_up()
        for _ in range(2):  # none is free, then one: a message may bring two
            with pytest.raises(OSError, match="Too many open files"):
                own.accept()
            os.close(spare.pop())
        sock, _ = own.accept()
        sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in (*spare, ours.detach(), theirs.detach()):
            os.close(fd)
        own.close()


# A relay that takes nothing, or little.


def refusals(server: Serving, *outcomes: OSError | None) -> list[OSError | None]:
    """Have the next hand-overs of a worker fail so; return what is left of it."""
    left = list(outcomes)
    sharer = server.server.sharing
    real = sharer._relay.way_in

    class WayIn:
        def sendmsg(self, *args: Any) -> int:
            if left and (error := left.pop(0)) is not None:
                raise error
            return int(real.sendmsg(*args))

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    sharer._relay.way_in = WayIn()
    return left


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ETOOMANYREFS, errno.EMSGSIZE, errno.ENOBUFS])
def test_who_leaves_tries_again_when_there_is_room(relay: Relay, number: int) -> None:
    with sharing(relay) as first:
        clients = [first.connect() for _ in range(3)]
        for client in clients:
            client.get()
        error = BlockingIOError(number, "full") if number == errno.EAGAIN else OSError(number, "refused")
        left = first.call(lambda: refusals(first, *[error] * 4))
        first.call(first.server.drain)
        eventually(lambda: not left)
        with sharing(relay) as second:
            eventually(first.ended)
            for client in clients:
                assert client.get()[1].get("connection") is None
            assert handed_over(first) == adopted(second) == 3


def test_who_leaves_serves_what_the_relay_does_not_take(relay: Relay) -> None:
    full = BlockingIOError(errno.EAGAIN, "full")
    with sharing(relay) as first:
        client = first.connect()
        client.get()
        first.call(lambda: refusals(first, *[full] * 1_000_000))
        first.call(first.server.drain)
        for _ in range(3):
            assert client.get("/here")[1].get("connection") is None
        client.send(GET[:10])
        first.call(lambda: None)
        client.send(GET[10:] + GET * 2)
        assert [client.response()[2] for _ in range(3)] == [b"GET /a "] * 3
        client.close()
        eventually(first.ended)
        assert handed_over(first) == 0


def test_who_leaves_gives_up_in_time(relay: Relay) -> None:
    """Nobody takes anything: it ends as without siblings, announcing that before."""
    full = BlockingIOError(errno.EAGAIN, "full")
    with sharing(relay, give_up_s=0.05) as first:
        asking, silent = first.connect(), first.connect()
        for client in (asking, silent):
            client.get()
        first.call(lambda: refusals(first, *[full] * 1_000_000))
        first.call(first.server.drain)
        eventually(lambda: not first.server.keeps_connections)
        assert asking.get()[1]["connection"] == "close"
        for client in (asking, silent):
            assert client.rest() == b""
            client.close()
        eventually(first.ended)


def test_hundreds_go_through_a_small_relay(relay: Relay) -> None:
    relay.way_in.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least: a few messages
    with sharing(relay) as first:
        clients = [first.connect() for _ in range(80)]
        for client in clients:
            client.get()
        before = len(os.listdir("/proc/self/fd"))
        first.call(first.server.drain)
        assert handed_over(first) < 40
        with sharing(relay) as second:
            eventually(lambda: adopted(second) == 80)
            for client in clients:
                assert client.get()[0] == 200
            eventually(first.ended)
            assert second.server.open_connections == 80
        assert before - len(os.listdir("/proc/self/fd")) >= 80


@pytest.mark.parametrize("connections", [1, 1000])
def test_no_idle_connection_is_closed_for_one_that_a_sibling_can_take(
    relay: Relay, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has no room: all the connections, or all the descriptors, that it may have."""
    monkeypatch.setattr(accepting, "LEAVE_S", 60.0)
    monkeypatch.setattr(accepting, "FORGET_S", 60.0)

    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with sharing(relay, limits={"connections": connections}) as first:
        idle = first.connect()
        idle.get()
        if connections > 1:
            first.server.acceptor.relay.accept = refuse
        # Nobody else is there, for a while.
        with sent(relay, Stage.REQUEST, GET, b"", None) as client:
            eventually(lambda: first.server.acceptor._short_since > 0)
            with sharing(relay) as second:
                assert client.response()[0] == 200
                assert adopted(second) == 1
                assert idle.get()[0] == 200


def test_an_idle_connection_is_closed_for_one_that_nobody_takes(relay: Relay) -> None:
    with (
        sharing(relay, limits={"connections": 1}) as only,
        sent(relay, Stage.REQUEST, b"", b"", None) as early,
    ):
        eventually(lambda: adopted(only) == 1)
        with sent(relay, Stage.REQUEST, GET, b"", None) as late:
            assert late.response()[0] == 200
            assert early.rest() == b""


# What goes along.


@contextmanager
def sent(
    relay: Relay, stage: Stage, raw: bytes, unread: bytes, due: float | None, spooled: bytes | None = None
) -> Iterator[Client]:
    """Put a connection into the relay, as a worker would; yield the client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname())
        sock, _ = listener.accept()
    client.send(unread)
    fds = [sock.fileno()]
    if spooled is not None:
        spool = os.memfd_create("spool")
        os.write(spool, spooled)
        fds.append(spool)
    own = ends(relay)
    size = None if spooled is None else len(spooled)
    assert own.send(Handover(stage, ORIGIN, sock.family, raw, due, size), fds)
    own.close()
    sock.close()
    for fd in fds[1:]:
        os.close(fd)
    try:
        yield client
    finally:
        client.close()


POST = b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize(
    ("stage", "raw", "unread", "then", "status"),
    [
        (Stage.REQUEST, b"", GET, b"", 200),
        (Stage.REQUEST, b"", GET[:9], GET[9:], 200),
        (Stage.REQUEST, b"", POST + b"123", b"4567890", 200),
        (Stage.REQUEST, GET[:9], GET[9:], b"", 200),
        (Stage.REQUEST, GET[:9], b"", b"", 408),
        (Stage.BODY, POST + b"123", b"4567890", b"", 200),
        (Stage.BODY, POST + b"123", b"", b"", 408),
        (Stage.REQUEST, b"", b"", b"", None),
    ],
)
def test_a_deadline_goes_along_but_is_not_that_of_what_follows(
    relay: Relay, stage: Stage, raw: bytes, unread: bytes, then: bytes, status: int | None
) -> None:
    """It has passed while the connection was on its way. What had arrived by then counts."""
    with sharing(relay) as server, sent(relay, stage, raw, unread, monotonic() - 1) as client:
        if then:
            eventually(lambda: adopted(server) == 1)
            server.call(lambda: None)
            server.call(lambda: None)  # deadlines that have passed have been acted on
            client.send(then)
        if status is None:
            assert client.rest() == b""
            return
        assert client.response()[0] == status
        if status == 200:
            server.call(lambda: None)
            server.call(lambda: None)
            assert client.get()[0] == 200


def test_a_body_that_was_spooled_counts_once(relay: Relay) -> None:
    limits = {"body_memory": 1000, "spool": 70_000}
    head = POST.replace(b"10", b"60000")
    with (
        sharing(relay, limits=limits) as server,
        sent(relay, Stage.BODY, head, b"", None, b"x" * 50_000) as client,
    ):
        eventually(lambda: server.server.storage.spool_bytes == 50_000)
        client.send(b"y" * 10_000)
        assert client.response()[2] == b"POST /p " + b"x" * 50_000 + b"y" * 10_000
        eventually(lambda: server.server.storage.spool_bytes == 0)


def test_a_spooled_body_that_is_refused_counts_no_more(relay: Relay) -> None:
    """The config has changed between the two."""
    head = POST.replace(b"Host", b"X: " + b"x" * 300 + b"\r\nHost").replace(b"10", b"60000")
    with (
        sharing(relay, limits={"head": 200}) as server,
        sent(relay, Stage.BODY, head, b"", None, b"x" * 50_000) as client,
    ):
        assert client.response()[0] == 431
        assert server.server.storage.spool_bytes == 0


def test_who_has_more_than_its_share_lets_others_take(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers that are ready have none on average, so eight and one more are too many."""
    nudges = []

    def nudge(end: worker_relay.Relay) -> None:
        nudges.append(end)

    monkeypatch.setattr("prefork.worker.accepting.REST_S", 60.0)
    monkeypatch.setattr(worker_relay.Relay, "nudge", nudge)
    with ExitStack() as stack:
        clients = [stack.enter_context(sent(relay, Stage.REQUEST, b"", b"", None)) for _ in range(20)]
        first = stack.enter_context(sharing(relay))
        eventually(lambda: adopted(first) == SLACK + 1)
        second = stack.enter_context(sharing(relay))
        eventually(lambda: adopted(second) == SLACK + 1)
        third = stack.enter_context(sharing(relay))
        eventually(lambda: adopted(third) == len(clients) - 2 * (SLACK + 1))
        assert adopted(first) == adopted(second) == SLACK + 1
        assert len(nudges) == 2
        for client in clients:
            assert client.get()[0] == 200


def test_what_comes_by_the_relay_starves_nobody(relay: Relay) -> None:
    gate = Gate()
    order = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        order.append(environ["PATH_INFO"])
        return gate(environ, start_response)

    with ExitStack() as stack:
        server = stack.enter_context(sharing(relay, app, ready=1))
        running, own = server.connect(), server.connect()
        for client in (running, own):
            client.get()
        running.send(GET.replace(b"/a", b"/wait"))
        gate.await_entry()
        own.send(GET.replace(b"/a", b"/own"))
        new = server.connect()
        new.send(GET.replace(b"/a", b"/new"))
        theirs = [stack.enter_context(sent(relay, Stage.REQUEST, GET, b"", None)) for _ in range(60)]
        gate.opened.set()
        for client in (running, own, new, *theirs):
            assert client.response()[0] == 200
    assert order.index("/own") < 3 + 2 * (MOST_HANDED_OVER + 1)
    assert order.index("/new") < 3 + 3 * (MOST_HANDED_OVER + 1)
    assert order[-1] == "/a"


@pytest.mark.parametrize("threads", [1, 2])
def test_who_waits_to_be_asked_for_a_body_is_asked_once(relay: Relay, threads: int) -> None:
    with sharing(relay, threads=threads) as first, sharing(relay, threads=threads) as second:
        client = first.connect()
        client.send(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert client.response()[0] == 100
        first.call(first.server.drain)
        eventually(lambda: adopted(second) == 1)
        client.send(b"1234567890")
        assert client.response()[2] == b"POST /p 1234567890"
        client.send(GET)
        assert client.response()[2] == b"GET /a "


def test_a_proxy_is_asked_for_its_name_also_when_others_go_first(relay: Relay) -> None:
    policy = ProxyPolicy(trust=("192.0.2.1",))
    with sharing(relay, proxy_protocol=True, proxies=policy) as server:
        ours, theirs = socket.socketpair()
        with ours:
            ours.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n" + GET)
            [listener] = server.server._entrances
            server.call(lambda: server.server.admit_later(theirs, ("127.0.0.1", 5), listener))
            ours.settimeout(20)
            with pytest.raises(ConnectionResetError):
                ours.recv(100)
        assert server.log.named("proxy-header-refused")


def test_another_kind_of_server_closes_what_it_gets(relay: Relay) -> None:
    """The config has changed between the two: the application is now a plain service."""
    own = ends(relay)

    class Plain(Server):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.use_relay(own)

    with sent(relay, Stage.BODY, POST, b"", None, b"123") as client, serving(server_class=Plain) as server:
        assert client.rest() == b""
        assert server.log.named("handover-lost")
        eventually(lambda: server.server.open_connections == 0)
        assert not any("spool" in link for link in links())
    own.close()


# The end.


def test_a_worker_that_leaves_passes_on_what_reaches_it_late(relay: Relay) -> None:
    with (
        sharing(relay) as first,
        sharing(relay) as second,
        sent(relay, Stage.REQUEST, b"", b"", None) as client,
    ):
        eventually(lambda: adopted(first) + adopted(second) == 1)
        owner, other = (first, second) if adopted(first) else (second, first)
        owner.call(owner.server.drain)
        eventually(lambda: adopted(other) == 1)
        assert client.get()[0] == 200


def test_who_leaves_takes_again_when_all_stop(relay: Relay) -> None:
    """A reload's last worker, when the whole server is told to stop: there may be nobody else."""
    gate = Gate()
    with ExitStack() as stack:
        server = stack.enter_context(sharing(relay, gate, threads=2))
        running = server.connect()
        running.send(GET.replace(b"/a", b"/wait"))
        gate.await_entry()
        server.call(server.server.drain)
        client = stack.enter_context(sent(relay, Stage.REQUEST, GET, b"", None))
        server.call(lambda: None)
        assert adopted(server) == 0
        server.call(server.server.announce_closing)
        answer = client.response()
        assert answer[0] == 200
        assert answer[1]["connection"] == "close"
        gate.opened.set()
        assert running.response()[1]["connection"] == "close"
        eventually(server.ended)
        assert handed_over(server) == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_last_takes_what_was_sent_in_the_last_moment(relay: Relay, threads: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(sharing(relay, threads=threads))
        clients = []

        def stop() -> None:
            server.server.announce_closing()
            server.server.drain()
            clients.extend(stack.enter_context(sent(relay, Stage.REQUEST, GET, b"", None)) for _ in range(3))

        server.call(stop)
        for client in clients:
            assert client.response()[2] == b"GET /a "
            assert client.rest() == b""
            client.close()
        eventually(server.ended)


def test_who_leaves_hears_of_the_stop_in_the_last_moment(relay: Relay) -> None:
    """Its last connection is on its way, and nobody else is left to take it."""
    order = os.eventfd(0, os.EFD_NONBLOCK)
    with sharing(relay) as server:
        client = server.connect()
        client.get()

        def hear() -> None:
            server.server.unwatch(order)
            server.server.announce_closing()

        def leave() -> None:
            server.server.watch(order, hear)
            server.server.drain()
            os.eventfd_write(order, 1)

        server.call(leave)
        assert client.get()[1]["connection"] == "close"
        eventually(server.ended)
        assert handed_over(server) == adopted(server) == 1
    os.close(order)


def test_a_failure_does_not_end_the_steward(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with sharing(relay, gate) as first, sharing(relay):
        running, waiting = first.connect(), first.connect()
        for client in (running, waiting):
            client.get()
        running.send(GET.replace(b"/a", b"/wait"))
        gate.await_entry()
        with monkeypatch.context() as patch:
            patch.setattr(Sharing, "_settle_taken", fail)
            eventually(lambda: first.log.named("internal-error"))
        assert waiting.get("/a")[2] == b"GET /a "
        gate.opened.set()


def fail(sharing: Sharing) -> None:
    raise ZeroDivisionError


# With threads.


def test_all_threads_are_busy_here_and_there(relay: Relay) -> None:
    """It waits for whoever has a thread first, and is answered once."""
    gates = [Gate(), Gate()]
    with sharing(relay, gates[0], threads=2) as first, sharing(relay, gates[1], threads=2) as second:
        clients = [server.connect() for server in (first, second) for _ in range(3)]
        for client in clients:
            client.get()
        for server, gate in ((first, gates[0]), (second, gates[1])):
            for _ in range(2):
                server.connect().send(GET.replace(b"/a", b"/wait"))
                gate.await_entry()
        for client in clients:
            client.send(GET + POST + b"1234567890")
        gates[1].opened.set()
        for client in clients:
            assert client.response()[2] == b"GET /a "
            assert client.response()[2] == b"POST /p 1234567890"
        assert not gates[0].opened.is_set()
        gates[0].opened.set()
        # Who sends counts when it has sent, which may be after the answer.
        eventually(lambda: handed_over(first) + handed_over(second) == adopted(first) + adopted(second) > 0)


def test_a_body_that_came_after_its_head_goes_along(relay: Relay) -> None:
    """Complete, and in one piece: neither was it received with the head, nor collected."""
    gate = Gate()
    with sharing(relay, gate, threads=2) as first:
        client = first.connect()
        client.get()
        for _ in range(2):
            first.connect().send(GET.replace(b"/a", b"/wait"))
            gate.await_entry()
        client.send(POST)
        eventually(lambda: first.server.body.entries)
        client.send(b"1234567890" + GET)
        eventually(lambda: handed_over(first) == 1)
        with sharing(relay) as second:
            assert client.response()[2] == b"POST /p 1234567890"
            assert client.response()[2] == b"GET /a "
            assert adopted(second) == 1
        gate.opened.set()
