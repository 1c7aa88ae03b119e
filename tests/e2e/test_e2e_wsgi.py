"""PEP 3333 over the wire: what an application is given, and what becomes of what it does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from wire_client import Wire, wire


@pytest.fixture(scope="module", params=[1, 4], ids=["1 thread", "4 threads"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    config = f"workers: 1\nthreads: {request.param}\nroot_path: /shop\nlimits: {{response_memory: 64KiB}}"
    with wire(tmp_path_factory.mktemp("wsgi"), config) as running:
        running.threads = request.param
        yield running
        # Whatever the tests did, it is the same worker that lives.
        assert running.server.stop() == 0
        assert running.server.log.count(": ready after") == 1


def environ(site: Wire, target: str, *fields: str, unix: bool = False, **kwargs: object) -> dict[str, object]:
    with site.connect(unix=unix) as client:
        shown: dict[str, object] = json.loads(client.get(target, *fields, **kwargs).body)
        shown["port"] = None if unix else str(client.sock.getsockname()[1])
        return shown


def test_environ(site: Wire) -> None:
    shown = environ(
        site, "/shop/environ/caf%C3%A9%2f?a=%20b", "X-Two: 1", "X-Two: 2", "Bad_Name: x", "Content-Type: a/b"
    )
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/environ/caf\xc3\xa9/",
        "QUERY_STRING": "a=%20b",
        "REQUEST_URI": "/shop/environ/caf%C3%A9%2f?a=%20b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(site.server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": shown["port"],
        "CONTENT_TYPE": "a/b",
        "HTTP_HOST": "test",
        "HTTP_X_TWO": "1, 2",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.multithread": site.threads > 1,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {name: shown.get(name) for name in wanted} == wanted
    assert not {"HTTP_BAD_NAME", "HTTP_CONTENT_TYPE", "CONTENT_LENGTH"} & set(shown)


def test_environ_of_a_unix_socket(site: Wire) -> None:
    shown = environ(site, "/shop/environ", unix=True)
    assert (shown["REMOTE_ADDR"], shown["SERVER_NAME"], shown["SERVER_PORT"]) == ("", "localhost", "80")
    assert "REMOTE_PORT" not in shown


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_methods_and_their_bodies(site: Wire, method: str) -> None:
    with site.connect() as client:
        for body in (b"", b"\0\xff" * 40_000):
            answer = client.get("/echo?q", method=method, body=body)
            assert (answer.status, answer.body) == (200, method.encode() + b" q " + body)


def test_input_has_all_its_methods(site: Wire) -> None:
    text = b"abcdef\nghij\nkl\nmn\nop\nrest"
    parts = [b"abc", b"def\n", b"gh", b"ij\n", [b"kl\n", b"mn\n"], b"op\n", b"", b"rest", b"", b"", []]
    with site.connect() as client:
        assert client.get("/read", method="POST", body=text).body == repr(parts).encode()
        # Not read at all: the next request is still found.
        assert client.get("/stream?unread", method="POST", body=text).status == 200
        assert client.get("/echo?next").body == b"GET next "


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_the_validator_of_the_standard_library_is_content(site: Wire, method: str) -> None:
    with site.connect() as client:
        body = b"checked" if method == "POST" else b""
        answer = client.get("/validated?a=b", "X-A: b", method=method, body=body)
        assert (answer.status, answer.body) == (200, body)


def test_write_and_iterables_without_length_are_chunked(site: Wire) -> None:
    with site.connect() as client:
        answer = client.get("/write")
        assert answer.framed == b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"
        answer = client.get("/stream?chunked")
        assert answer.framed == b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"
        assert client.get("/echo?kept").status == 200
    site.wait_for_note("closed chunked")


@pytest.mark.parametrize("field", ["", "Connection: keep-alive\r\n"])
def test_on_http_1_0_the_end_of_the_connection_ends_it(site: Wire, field: str) -> None:
    with site.connect() as client:
        client.send(f"GET /stream?old HTTP/1.0\r\n{field}\r\n")
        answer = client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"one two three", "close")
        assert not {"transfer-encoding", "content-length"} & set(answer.headers)


def test_exc_info(site: Wire) -> None:
    with site.connect() as client:
        answer = client.get("/exc_info_before")
        assert (answer.line, answer.body) == ("HTTP/1.1 503 Service Unavailable", b"replaced")
        mark = site.server.mark()
        client.ask("/exc_info_after")
        # The client can tell: the last chunk is not there.
        with pytest.raises(ConnectionResetError):
            client.answer()
    site.server.wait_for_log("ValueError: too late for this", mark)


def test_file_wrapper(site: Wire) -> None:
    with site.connect() as client:
        assert client.get("/file").body == bytes(range(256)) * 1000
        assert client.get("/echo?kept").status == 200
    site.wait_for_note("closed file False")


def test_errors_go_to_the_log_with_identity(site: Wire) -> None:
    with site.connect() as client:
        assert client.get("/errors").body == b"said"
    for line in ("first of wsgi.errors", "second of wsgi.errors", "third of wsgi.errors"):
        site.server.wait_for_log(rf"error +wire\.0 gen 1 pid \d+: {line}\n")


@pytest.mark.parametrize("target", ["/stream?head", "/write", "/big?64", "/file", "/exc_info_before"])
def test_head_has_the_headers_and_no_body(site: Wire, target: str) -> None:
    with site.connect() as client:
        # What came as a body would be taken for the next response.
        head = client.get(target, method="HEAD").headers
        get = client.get(target).headers
    same = {"content-type", "content-length", "server"}
    assert {name: head.get(name) for name in same} == {name: get.get(name) for name in same}


@pytest.mark.parametrize("reset", [False, True])
def test_close_is_called_also_when_the_client_is_gone(site: Wire, reset: bool) -> None:
    tag = f"gone{reset}"
    with site.connect() as client:
        client.ask(f"/gated?{tag}")
        visitor = site.gate.visitor()
        if reset:
            client.abort()
    assert f"closed {tag}" not in site.notes
    visitor.release()
    site.wait_for_note(f"closed {tag}")
    with site.connect() as client:
        assert client.get("/echo?next").status == 200


def test_failures_before_the_head_are_answered_500(site: Wire) -> None:
    mark = site.server.mark()
    with site.connect() as client:
        for what in ("error", "exit", "interrupt", "generator-exit"):
            answer = client.get(f"/fail?what={what}")
            assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
            found = site.server.wait_for_log(
                rf"wire\.0 gen 1 pid \d+: .*GET /fail\?what={what}, id [0-9a-f-]+\n", mark
            )
            assert "pid" in found[0]
        assert client.get("/echo?kept").status == 200
    log = site.server.log[mark:]
    for name in ("LookupError: spam", "SystemExit: 3", "KeyboardInterrupt", "GeneratorExit"):
        assert name in log
    assert "in fail\n" in log  # the application's frames …
    assert "gateway.py" not in log  # … and not ours


@pytest.mark.parametrize("what", ["error", "exit", "interrupt"])
@pytest.mark.parametrize(
    ("version", "length"), [("1.1", ""), ("1.1", "&length=9"), ("1.0", ""), ("1.0", "&length=9")]
)
def test_failures_after_the_head_cut_the_connection(site: Wire, what: str, version: str, length: str) -> None:
    with site.connect() as client:
        client.send(f"GET /fail?what={what}&after=1{length} HTTP/{version}\r\nHost: a\r\n\r\n")
        # On 1.0 without a length a plain end would look complete.
        assert client.is_reset()
    with site.connect(unix=True) as client:
        client.send(f"GET /fail?what={what}&after=1{length} HTTP/{version}\r\nHost: a\r\n\r\n")
        assert not client.rest_until_cut().endswith(b"0\r\n\r\n")


def test_a_failure_after_all_that_was_promised_is_none_for_the_client(site: Wire) -> None:
    with site.connect() as client:
        assert client.get("/fail?what=error&after=1&length=5").body == b"begun"
        assert client.rest() == b""


def test_a_body_shorter_than_promised_ends_the_connection(site: Wire) -> None:
    mark = site.server.mark()
    with site.connect() as client:
        client.ask("/short")
        assert client.rest().endswith(b"\r\n\r\nshort")
    site.server.wait_for_log("5 bytes shorter than its Content-Length", mark)
