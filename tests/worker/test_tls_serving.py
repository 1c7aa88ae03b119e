"""TLS on the serve loop: handshakes, records cut anywhere, slow peers, ends, client certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pki import Pki
from serving_harness import Client, Gate, Serving, echo, eventually, serving
from tls_client import Endpoint, TlsClient

from prefork.http.sender import ProxyPolicy
from prefork.tls import make_context
from prefork.worker.tls_environ import distinguished_name

GET = b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n"
BIG = bytes(range(256)) * 4096 * 12  # 12 MiB: more than the socket buffers of both sides


def states(server: Serving) -> list[str]:
    return server.call(lambda: sorted(c.state.name for c in server.server.connections.values()))


def environ_of(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with what TLS has put into the environ."""
    start_response("200 OK", [])
    names = ("wsgi.url_scheme", "HTTPS", *sorted(name for name in environ if name.startswith("SSL_")))
    return [repr({name: environ[name] for name in names}).encode()]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_environ_tells_of_tls(pki: Pki, version: str) -> None:
    context = pki.client_context(newest=version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with serving(environ_of, tls=make_context(pki.tls())) as server:
        client = TlsClient(server, context)
        told = eval(client.get()[2])
        cipher = client.sock.cipher()
        assert cipher is not None
        assert told == {
            "wsgi.url_scheme": "https",
            "HTTPS": "on",
            "SSL_PROTOCOL": f"TLSv{version}",
            "SSL_CIPHER": cipher[0],
            "SSL_CLIENT_VERIFY": "NONE",
        }
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.sock.compression() is None


def test_versions_before_the_oldest_are_refused(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls(min_version="1.3"))) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
            TlsClient(server, pki.client_context(newest="1.2"))
        eventually(lambda: server.log.named("tls-failed"))
        assert "unsupported protocol" in server.log.named("tls-failed")[0]
        assert TlsClient(server, pki.client_context()).get()[0] == 200


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_byte_by_byte(pki: Pki, version: str) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        client = server.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        endpoint = Endpoint(pki.client_context(newest=version))
        endpoint.shake_hands(client, 1)
        for body in (b"", b"0123456789"):
            endpoint.tls.write(
                b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            endpoint.send(client, 1)
            assert endpoint.receive(client).endswith(b"\r\n\r\nPOST /x " + body)


def test_the_first_request_may_come_with_the_end_of_the_handshake(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        client = server.connect()
        endpoint = Endpoint(pki.client_context())
        client.send(endpoint.hello())
        while True:
            endpoint.incoming.write(client.sock.recv(65536))
            try:
                endpoint.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        endpoint.tls.write(GET % b"a" + GET % b"b")
        client.send(endpoint.outgoing.read())
        answers = b""
        while b"GET /b" not in answers:
            answers += endpoint.receive(client)
        assert answers.index(b"GET /a") < answers.index(b"GET /b")


@pytest.mark.parametrize("sent_bytes", [0, 1, 100])
def test_a_client_that_stops_in_the_handshake_is_cut_at_the_head_deadline(pki: Pki, sent_bytes: int) -> None:
    with serving(echo, tls=make_context(pki.tls()), timeouts={"head": 0.3}) as server:
        client = server.connect()
        client.send(Endpoint(pki.client_context()).hello()[:sent_bytes])
        assert client.rest() == b""
        assert len(server.log.named("tls-failed")) == (1 if sent_bytes else 0)


def test_two_hundred_halves_of_handshakes_hinder_nobody(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        context = pki.client_context()
        for number in range(200):
            server.connect().send(Endpoint(context).hello()[: 1 + number])
        assert TlsClient(server, context).get()[0] == 200
        assert states(server) == ["HANDSHAKE"] * 200 + ["IDLE"]


def test_kept_alive_and_pipelined(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        client = TlsClient(server, pki.client_context())
        for _ in range(3):
            assert client.get("/kept")[2] == b"GET /kept "
        client.send(b"".join(GET % b"%d" % number for number in range(5)) + (GET % b"last")[:8])
        client.send((GET % b"last")[8:])
        assert [client.response()[2] for _ in range(5)] == [b"GET /%d " % number for number in range(5)]
        assert client.response()[2] == b"GET /last "


def answer_with_body(environ: dict[str, Any], start_response: Any) -> Any:
    """Send back the body, as one block, in blocks, or as a file."""
    start_response("200 OK", [("Content-Length", environ["CONTENT_LENGTH"])])
    body = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/block":
        return [body.read()]
    if environ["PATH_INFO"] == "/file":
        return environ["wsgi.file_wrapper"](body)
    return iter(lambda: body.read(50_000), b"")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["block", "blocks", "file"])
@pytest.mark.parametrize("memory", [100_000, 100 * len(BIG)])
def test_large_bodies_both_ways_with_a_slow_client(pki: Pki, threads: int, way: str, memory: int) -> None:
    limits = {"body": 2 * len(BIG), "body_memory": memory, "response_memory": memory, "memory": 2 * memory}
    with serving(answer_with_body, tls=make_context(pki.tls()), threads=threads, limits=limits) as server:
        slow = TlsClient(server, pki.client_context())
        head = f"POST /{way} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(BIG)}\r\n\r\n"
        slow.send(head.encode() + BIG)  # and reads only after that
        eventually(lambda: states(server) == ["FLUSHING"])
        fast = TlsClient(server, pki.client_context())
        fast.send(b"POST /block HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nfast")
        assert fast.response()[2] == b"fast"
        assert slow.response()[2] == BIG
        slow.send(b"POST /block HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nagain")
        assert slow.response()[2] == b"again"


def test_a_stopped_reader_is_cut_at_the_send_deadline(pki: Pki) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [BIG]

    limits = {"response_memory": 2 * len(BIG), "memory": 2 * len(BIG)}
    with serving(app, tls=make_context(pki.tls()), timeouts={"send": 0.2}, limits=limits) as server:
        client = TlsClient(server, pki.client_context())
        client.send(GET % b"")
        eventually(lambda: states(server) == ["FLUSHING"])
        eventually(lambda: states(server) == [])


@pytest.mark.parametrize("first", [b"G", GET % b"x", b"\x80\x2e\x01\x00\x02", b"\0" * 20])
def test_what_is_not_tls(pki: Pki, first: bytes) -> None:
    """Plain HTTP gets a plain answer, anything else an alert or nothing; the application never sees it."""
    with serving(echo, tls=make_context(pki.tls())) as server:
        client = server.connect()
        client.send(first)
        client.sock.shutdown(socket.SHUT_WR)
        if first.startswith(b"G"):
            status, headers, body = client.response()
            assert (status, headers["connection"]) == (400, "close")
            assert b"https://" in body
            assert len(server.log.named("request-refused")) == 1
        assert b"HTTP" not in client.rest()
        eventually(lambda: states(server) == [])


def test_garbage_after_the_handshake_ends_that_connection_alone(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        other = TlsClient(server, pki.client_context())
        client = server.connect()
        endpoint = Endpoint(pki.client_context())
        endpoint.shake_hands(client, 65536)
        client.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
            endpoint.receive(client)
        assert other.get()[0] == 200
        assert len(server.log.named("tls-failed")) == 1


def fails_midway(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"part"
    raise RuntimeError("midway")


def test_our_close_is_announced_and_a_failure_is_not(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls()), timeouts={"keep_alive": 0.2}) as server:
        idle = TlsClient(server, pki.client_context())
        assert idle.get()[0] == 200
        asking = TlsClient(server, pki.client_context())
        assert asking.get("/", "Connection: close")[0] == 200
        assert asking.rest() == b""  # raises without close_notify
        assert idle.rest() == b""
        eventually(lambda: states(server) == ["LINGERING"])  # until the client closes, for a bounded time
        asking.close()
        eventually(lambda: states(server) == [])
    with serving(fails_midway, tls=make_context(pki.tls())) as server:
        client = TlsClient(server, pki.client_context())
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(OSError, match=r"EOF occurred|reset"):
            client.rest()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_client_that_says_that_it_ends_gets_its_answer(pki: Pki, threads: int) -> None:
    gate = Gate()
    with serving(gate, tls=make_context(pki.tls()), threads=threads) as server:
        client = server.connect()
        endpoint = Endpoint(pki.client_context())
        endpoint.shake_hands(client, 65536)
        endpoint.tls.write(GET % b"wait")
        with pytest.raises(ssl.SSLWantReadError):
            endpoint.tls.unwrap()
        endpoint.send(client, 65536)
        gate.await_entry()
        gate.opened.set()
        answer = client.sock.recv(65536)
        while data := client.sock.recv(65536):
            answer += data
        assert len(answer) > 60  # which cannot be decrypted after unwrap()
        eventually(lambda: states(server) == [])


def test_half_a_request_and_the_end_frees_the_connection(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        client = server.connect()
        endpoint = Endpoint(pki.client_context())
        endpoint.shake_hands(client, 65536)
        endpoint.tls.write(GET[:10])
        with pytest.raises(ssl.SSLWantReadError):
            endpoint.tls.unwrap()
        endpoint.send(client, 65536)
        eventually(lambda: states(server) == [])


@pytest.mark.parametrize("threads", [1, 2])
def test_draining(pki: Pki, threads: int) -> None:
    gate = Gate()
    with serving(gate, tls=make_context(pki.tls()), threads=threads) as server:
        idle, running = (TlsClient(server, pki.client_context()) for _ in range(2))
        assert idle.get()[0] == 200
        running.send(GET % b"wait")
        gate.await_entry()
        server.server.loop.post(server.server.drain)
        if threads > 1:
            eventually(lambda: server.server.draining)
        gate.opened.set()
        status, headers, _ = running.response()
        assert status == 200
        if threads > 1:  # With one thread the loop hears of it when the application is done.
            assert headers["connection"] == "close"
        assert running.rest() == idle.rest() == b""
        running.close()
        idle.close()
        eventually(server.ended)


# Client certificates

SUBJECT = r"CN=Zo\C3\AB #1,O=Jansen\, Zn.,C=NL"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_the_certificate_of_a_client(pki: Pki, version: str, wanted: str) -> None:
    tls = make_context(pki.tls(client_auth=wanted, client_ca=pki.path("ca.pem")))
    with serving(environ_of, tls=tls) as server:
        context = pki.client_context("client", newest=version)
        client = TlsClient(server, context)
        told = eval(client.get()[2])
        assert (told["SSL_CLIENT_VERIFY"], told["SSL_CLIENT_S_DN"]) == ("SUCCESS", SUBJECT)
        assert told["SSL_CLIENT_CERT"] in (pki.folder / "client.pem").read_text()
        # It is known in a resumed session, too.
        again = TlsClient(server, context, client.sock.session)
        assert eval(again.get()[2]) == told
        assert again.sock.session_reused


@pytest.mark.parametrize(
    ("wanted", "certificate", "told"),
    [
        ("optional", "", "NONE"),
        ("optional", "stranger", "certificate verify failed"),
        ("required", "stranger", "certificate verify failed"),
        ("required", "", "peer did not return a certificate"),
    ],
)
def test_clients_without_a_good_certificate(pki: Pki, wanted: str, certificate: str, told: str) -> None:
    tls = make_context(pki.tls(client_auth=wanted, client_ca=pki.path("ca.pem")))
    with serving(environ_of, tls=tls) as server:
        if told == "NONE":
            assert eval(TlsClient(server, pki.client_context()).get()[2])["SSL_CLIENT_VERIFY"] == "NONE"
            return
        with pytest.raises(OSError):  # noqa: PT011 (an alert, or the end before it)
            TlsClient(server, pki.client_context(certificate)).get()
        eventually(lambda: server.log.named("tls-failed"))
        assert told in server.log.named("tls-failed")[0]


def test_a_proxy_introduces_its_client_before_tls(pki: Pki) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}".encode()]

    policy = ProxyPolicy(trust=("127.0.0.1",))
    with serving(app, tls=make_context(pki.tls()), proxy_protocol=True, proxies=policy) as server:
        plain = server.connect()
        plain.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n")
        endpoint = Endpoint(pki.client_context())
        endpoint.shake_hands(plain, 65536)
        endpoint.tls.write(GET % b"")
        endpoint.send(plain, 65536)
        assert endpoint.receive(plain).endswith(b"192.0.2.7 https")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ((), ""),
        (((("commonName", "a"),),), "CN=a"),
        (((("countryName", "NL"),), (("commonName", "a"), ("userId", "b"))), "CN=a+UID=b,C=NL"),
        (((("commonName", ' #a,b+c"d\\e<f>g;h= '),),), r"CN=\ #a\,b\+c\"d\\e\<f\>g\;h=\ "),
        (((("commonName", "#1\r\n\0é"),),), r"CN=\#1\0D\0A\00\C3\A9"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
        (((("1.2.3.4", "ab"),),), "1.2.3.4=#0c026162"),
        (((("1.2.3.4", "x" * 200),),), "1.2.3.4=#0c81c8" + "78" * 200),
        (((("1.2.3.4", "x" * 300),),), "1.2.3.4=#0c82012c" + "78" * 300),
    ],
)
def test_distinguished_names(name: Any, text: str) -> None:
    assert distinguished_name(name) == text


def test_no_state_of_openssl_before_the_first_byte(pki: Pki) -> None:
    with serving(echo, tls=make_context(pki.tls())) as server:
        client: Client = server.connect()
        eventually(lambda: states(server) == ["HANDSHAKE"])
        (connection,) = server.server.connections.values()
        assert connection._stream is None
        assert threading.active_count() >= 1
        client.close()
        eventually(lambda: states(server) == [])
