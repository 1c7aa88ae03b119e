"""Proxies in front, health checks and request ids, on real connections."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving_harness import Client, Gate, Serving, eventually, serving

from prefork.http.sender import ProxyPolicy
from prefork.worker.health import Health
from prefork.worker.request_id import request_ids

SHOWN = (
    *("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"),
    *("SCRIPT_NAME", "PATH_INFO", "HTTP_X_FORWARDED_FOR"),
)
LOCAL = ProxyPolicy(("127.0.0.1", "unix"))
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, b"\xcb\0\x71\t", b"\xc0\0\2\1", 4711, 443)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Show the environ."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ.get(key) for key in SHOWN}).encode()]


def seen(client: Client) -> dict[str, str]:
    status, _, body = client.response()
    assert status == 200
    return dict(json.loads(body))


@pytest.fixture
def unix_listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        yield listener


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_only_a_trusted_peer_is_believed(family: str, unix_listener: socket.socket) -> None:
    listener = unix_listener if family == "unix" else None
    fields = ("X-Forwarded-For: 6.6.6.6, 203.0.113.9:4711", "X-Forwarded-Proto: https")
    with serving(app, listener=listener, proxies=LOCAL) as server:
        client = server.connect()
        for _ in range(2):  # parsed, then remembered
            environ = json.loads(client.get("/", *fields)[2])
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.9", "4711")
            assert environ["wsgi.url_scheme"] == "https"
        assert json.loads(client.get("/")[2])["wsgi.url_scheme"] == "http"
        status, headers, body = client.get("/", "X-Forwarded-Proto: https", "X-Forwarded-Proto: http")
        assert (status, headers["connection"]) == (400, "close")
        assert b"contradictory" in body
        assert client.rest() == b""
        assert len(server.log.named("request-refused")) == 1
    for policy in (ProxyPolicy(("192.0.2.1",)), None):
        with serving(app, listener=listener, proxies=policy) as server:
            client = server.connect()
            environ = json.loads(client.get("/", *fields)[2])
            assert environ["REMOTE_ADDR"] == ("" if family == "unix" else "127.0.0.1")
            assert (environ["wsgi.url_scheme"], environ["HTTP_X_FORWARDED_FOR"]) == ("http", None)


def test_a_forwarded_prefix_stands_for_the_root_path() -> None:
    policy = ProxyPolicy(("127.0.0.1",), use=("prefix",))
    with serving(app, proxies=policy, gateway={"root_path": "/shop"}) as server:
        client = server.connect()
        for target, fields, expected in (
            ("/shop/cart", (), ["/shop", "/cart"]),
            ("/shop/cart", ("X-Forwarded-Prefix: /eu",), ["/eu", "/shop/cart"]),
        ):
            environ = json.loads(client.get(target, *fields)[2])
            assert [environ["SCRIPT_NAME"], environ["PATH_INFO"]] == expected


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_proxy_protocol_whole_and_byte_by_byte(header: bytes, threads: int) -> None:
    with serving(app, threads=threads, proxies=LOCAL, proxy_protocol=True) as server:
        whole, slow = server.connect(), server.connect()
        whole.send(header + GET + GET)
        slow.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = header + GET
        for position in range(len(wire)):
            slow.send(wire[position : position + 1])
        for client in (whole, whole, slow):
            environ = seen(client)
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.9", "4711")
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("192.0.2.1", "443")
        whole.send(b"nonsense\r\n\r\n")
        assert whole.response()[0] == 400
        assert "203.0.113.9:4711" in server.log.named("request-refused")[0]
        slow.close()
        whole.close()
        eventually(lambda: server.server.open_connections == 0)
        assert len(server.server.introductions.entries) == 0


def test_whom_to_believe_behind_the_proxy_protocol() -> None:
    """The bytes are those of the header's source, so that one must be trusted, not only the proxy."""
    request = b"GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
    policy = ProxyPolicy(("127.0.0.1", "192.0.2.0/24"))
    with serving(app, proxies=policy, proxy_protocol=True) as server:
        for header, remote_addr in (
            (V1, "203.0.113.9"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", "6.6.6.6"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
            (local, "127.0.0.1"),
        ):
            client = server.connect()
            client.send(header + request)
            environ = seen(client)
            assert environ["REMOTE_ADDR"] == remote_addr
            if remote_addr == "127.0.0.1":
                assert environ["SERVER_PORT"] == str(server.address[1])


def test_no_proxy_header_no_service() -> None:
    with serving(app, proxies=LOCAL, proxy_protocol=True) as server:
        for wrong in (GET, GET, b"\x16\x03\x01\x02\x00", b"PROXY TCP4 x\r\n"):
            client = server.connect()
            client.send(wrong)
            try:
                assert client.rest() == b""
            except ConnectionResetError:
                pass  # what was not read makes the kernel say so
        client = server.connect()
        client.send(V1[:20])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b""
        eventually(lambda: server.server.open_connections == 0)
        (line,) = server.log.named("proxy-header-refused")
        assert "127.0.0.1" in line
        assert "no PROXY header" in line


def test_no_proxy_header_from_strangers() -> None:
    with serving(app, proxies=ProxyPolicy(("192.0.2.1",)), proxy_protocol=True) as server:
        for _ in range(3):
            client = server.connect()
            try:
                client.send(V1 + GET)
                assert client.rest() == b""
            except (ConnectionResetError, BrokenPipeError):
                pass
        eventually(lambda: server.server.open_connections == 0)
        (line,) = server.log.named("proxy-header-refused")
        assert "not in proxy.trust" in line


def test_the_proxy_header_has_a_deadline() -> None:
    with serving(app, proxies=LOCAL, proxy_protocol=True, timeouts={"head": 0.2}) as server:
        silent, half = server.connect(), server.connect()
        half.send(V2[:20])
        assert silent.rest() == half.rest() == b""
        (line,) = server.log.named("proxy-header-refused")
        assert "in time" in line
        # Connections that wait for it go with the worker.
        waiting = server.connect()
        eventually(lambda: server.server.open_connections == 1)
        server.call(server.server.quit)
        assert waiting.rest() == b""


def tell(server: Serving, target: str, *, line: str = "GET {} HTTP/1.1") -> tuple[int, bytes, str]:
    client = server.connect()
    client.send(f"{line.format(target)}\r\nHost: t\r\n\r\n".encode())
    status, headers, body = client.response(body=not line.startswith("HEAD"))
    return status, body, headers.get("connection", "")


def test_health_checks_do_not_enter_the_application() -> None:
    gate = Gate()
    with serving(gate, threads=2, health=Health("/live", "/ready")) as server:
        running, client = server.connect(), server.connect()
        assert client.get("/live")[1]["cache-control"] == "no-store"
        for busy in (running, server.connect()):
            busy.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            gate.await_entry()
        for target in ("/live", "/ready?verbose", "/%6Cive"):
            assert client.get(target)[::2] == (200, b"ok\n")
        gate.opened.set()
        assert server.clients[-1].response()[0] == 200
        assert running.response()[0] == 200
        gate.opened.clear()
        running.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
        gate.await_entry()
        assert tell(server, "/live", line="HEAD {} HTTP/1.1") == (200, b"", "")
        assert tell(server, "/ready", line="GET {} HTTP/1.0") == (200, b"ok\n", "close")
        server.call(server.server.announce_closing)
        assert tell(server, "/live") == (200, b"ok\n", "close")
        assert tell(server, "/ready") == (503, b"stopping\n", "close")
        assert client.get("/ready")[0] == 503
        assert client.rest() == b""
        gate.opened.set()
        # What was running then tells its client, too.
        assert running.response()[1]["connection"] == "close"
        assert tell(server, "/live", line="POST {} HTTP/1.1")[1] == b"POST /live "
        assert tell(server, "/liver")[1] == b"GET /liver "
        eventually(lambda: server.server.cell.counts().requests == 5)  # counted just after the answer


def test_every_request_has_an_id() -> None:
    ids: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ids.append(environ["prefork.request_id"])
        headers = [("X-Request-ID", "own")] if environ["PATH_INFO"] == "/own" else []
        if environ["PATH_INFO"] == "/fail":
            raise LookupError
        start_response("200 OK", headers)
        return [b""]

    sent = []
    for _ in range(2):
        with serving(app, proxies=LOCAL, gateway={"responds_with_id": True}) as server:
            client = server.connect()
            sent += [client.get(target)[1]["x-request-id"] for target in ("/", "/fail", "/")]
            assert client.get("/", "X-Request-ID: from-proxy")[1]["x-request-id"] == "from-proxy"
            assert client.get("/own")[1]["x-request-id"] == "own"
            ((_, _, fields),) = [line for line in server.log.lines if line[0] == "request-failed"]
            assert fields["request_id"] == sent[-2]
    assert sent == [one for at, one in enumerate(ids) if at % 5 < 3]
    assert len(set(sent)) == 6
    assert all(len(one) == len(sent[0]) for one in sent)
    with serving(app) as server:
        _, headers, _ = server.connect().get("/", "X-Request-ID: from-a-stranger")
        assert "x-request-id" not in headers
        assert ids[-1] != "from-a-stranger"


def test_threads_share_the_ids() -> None:
    ids = request_ids()
    with ThreadPoolExecutor(4) as threads:
        lists = list(threads.map(lambda _: [next(ids) for _ in range(5000)], range(8)))
    assert len({one for some in lists for one in some}) == 40_000
