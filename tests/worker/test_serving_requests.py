"""From bytes on the wire to the application and back, however the bytes are cut."""

from __future__ import annotations

import select
import socket
from pathlib import Path
from typing import Any

import pytest
from serving_harness import PATIENCE_S, Gate, echo, eventually, serving

HEAD = "Host: test\r\n"
REQUESTS = {
    "get": (f"GET /a HTTP/1.1\r\n{HEAD}\r\n", "GET /a "),
    "length": (f"POST /b HTTP/1.1\r\n{HEAD}Content-Length: 5\r\n\r\nhello", "POST /b hello"),
    "chunked": (
        f"POST /c HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        "POST /c hello",
    ),
    "empty": (f"POST /d HTTP/1.1\r\n{HEAD}Content-Length: 0\r\n\r\n", "POST /d "),
}


@pytest.mark.parametrize("threads", [1, 3])
def test_requests_whole_byte_by_byte_and_pipelined(threads: int) -> None:
    wire = "".join(request for request, _ in REQUESTS.values()).encode()
    wanted = [answer.encode() for _, answer in REQUESTS.values()]
    with serving(echo, threads=threads) as server:
        pipelined = server.connect()
        pipelined.send(wire * 5)
        assert [pipelined.response()[2] for _ in range(5 * len(wanted))] == wanted * 5
        slow = server.connect()
        slow.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(wire)):
            slow.send(wire[position : position + 1])
        assert [slow.response()[2] for _ in wanted] == wanted
        whole = server.connect()
        for (request, _), answer in zip(REQUESTS.values(), wanted, strict=True):
            whole.send(request.encode())
            assert whole.response()[2] == answer
        assert server.call(lambda: server.server.open_connections) == 3
        assert server.server.cell.open_connections == 3


def test_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with serving(echo, listener=listener) as server:
            assert server.connect().get("/u")[2] == b"GET /u "


def test_a_parked_connection_holds_nothing_of_its_request() -> None:
    with serving(echo) as server:
        client = server.connect()
        large = b"X-Large: %020000d\r\n" % 1
        client.send(
            b"POST / HTTP/1.1\r\nHost: t\r\n" + large + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000
        )
        assert len(client.response()[2]) == 100000 + len("POST / ")
        (connection,) = server.call(lambda: list(server.server.connections.values()))
        eventually(lambda: connection.state.name == "IDLE")
        assert (connection.raw, connection.request.body, connection.body, connection.output) == (
            b"",
            b"",
            None,
            None,
        )
        assert (connection.request.head.environ, connection.request.head.request_line) == ({}, b"")
        assert client.get("/next")[2] == b"GET /next "


def test_half_closed_client_gets_its_answers() -> None:
    with serving(echo) as server:
        client = server.connect()
        client.send(b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\nGET /cut")
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.response()[2], client.response()[2], client.rest()] == [b"GET /1 ", b"GET /2 ", b""]
        eventually(lambda: server.server.open_connections == 0)


def test_a_truncated_body_never_reaches_the_application() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        return echo(environ, start_response)

    with serving(app) as server:
        for framing in ("Content-Length: 9\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n9\r\nhello"):
            client = server.connect()
            client.send(f"POST / HTTP/1.1\r\nHost: t\r\n{framing}".encode())
            client.sock.shutdown(socket.SHUT_WR)
            assert client.rest() == b""
    assert seen == []


def test_continue_is_said_only_when_the_body_is_wanted() -> None:
    expect = b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with serving(echo, limits={"body": 1000}) as server:
        client = server.connect()
        client.send(expect % 5)
        assert client.response()[0] == 100
        client.send(b"hello")
        assert client.response()[2] == b"POST / hello"
        client.send(expect % 5 + b"again")
        assert client.response()[2] == b"POST / again"
        client.send(expect % 1001)
        assert client.response()[0] == 413


@pytest.mark.parametrize(
    ("request_bytes", "status", "cause"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed"),
        (b"GET /" + b"x" * 9000, 414, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431, "head-too-large"),
        (
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 500_000,
            413,
            "body-too-large",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * 500_000,
            413,
            "body-too-large",
        ),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n", 400, "malformed"),
    ],
)
def test_a_refusal_reaches_a_client_that_goes_on_sending(
    request_bytes: bytes, status: int, cause: str
) -> None:
    with serving(echo) as server:
        client = server.connect()
        client.send(request_bytes)
        answered, headers, body = client.response()
        assert (answered, headers["connection"]) == (status, "close")
        assert body
        assert client.rest() == b""
        (line,) = server.log.named("request-refused")
        assert str(status) in line
        assert str(client.sock.getsockname()[1]) in line
        assert server.server.cell.counts().refused == {cause: 1}
        client.close()
        eventually(lambda: server.server.open_connections == 0)


def test_close_with_unread_input_does_not_reset_the_response() -> None:
    """The application answers with a close while bytes that nobody will read wait in the socket."""
    gate = Gate()
    with serving(gate) as server:
        client = server.connect()
        client.send(b"GET /wait HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        gate.await_entry()
        client.send(b"x" * 100_000)
        gate.opened.set()
        assert client.response()[2] == b"GET /wait "
        assert client.rest() == b""


def test_the_end_comes_in_one_packet_with_a_last_response() -> None:
    with serving(echo) as server:
        client = server.connect()
        ready = select.poll()
        ready.register(client.sock, select.POLLIN | select.POLLRDHUP)
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        ((_, told),) = ready.poll(PATIENCE_S * 1000)
        assert told & select.POLLRDHUP
        assert client.response()[2] == b"GET / "


def test_failing_application_is_answered_and_the_worker_lives() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/exit":
            raise SystemExit(1)
        return echo(environ, start_response)

    for threads in (1, 2):
        with serving(app, threads=threads) as server:
            client = server.connect()
            assert client.get("/exit")[0] == 500
            assert server.connect().get("/on")[2] == b"GET /on "


def test_an_internal_error_costs_only_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(head: Any, *rest: Any) -> Any:
        raise RuntimeError("a bug of ours")

    with serving(echo) as server:
        client = server.connect()
        assert client.get()[0] == 200
        monkeypatch.setattr("prefork.worker.connection.Connection.run", broken)
        for broken_client in (client, server.connect()):
            broken_client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert broken_client.reset()
        monkeypatch.undo()
        assert server.connect().get()[0] == 200
        assert len(server.log.named("internal-error")) == 2
        assert server.server.open_connections == 1
