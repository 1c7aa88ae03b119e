"""The gateway: one small application for each behaviour that PEP 3333 or HTTP speaks of."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest

from prefork.http.head import HeadLimits, HeadParser
from prefork.worker.exchange import ClientGone, Request
from prefork.worker.gateway import Gateway
from prefork.worker.request_hooks import RequestHooks


class FakeLog:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, message: str, /, **fields: Any) -> None:
        self.events.append((event, message, fields))

    warning = error = debug

    def write(self, level: str, event: str, message: str, fields: dict[str, Any]) -> None:
        self.events.append((event, message, fields))


class FakeWriter:
    """Keeps each write apart; the client leaves after ``patience`` of them."""

    def __init__(self, patience: int = 1000) -> None:
        self.writes: list[bytes] = []
        self.patience = patience
        self.aborted = False
        self.last: list[bool] = []
        """Was it told at each write that the connection ends with it?"""

    def write(self, data: bytes | tuple[bytes, ...], last: bool = False) -> None:
        self.last.append(last)
        if len(self.writes) >= self.patience:
            raise ClientGone
        self.writes.append(data if isinstance(data, bytes) else b"".join(data))

    began_ns = 0

    def end_application(self, start_ns: int) -> None:
        raise AssertionError(start_ns)

    def send_meanwhile(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


class FakeCell:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def enter(self, request_line: bytes, deadline_ns: int = 0, slow_ns: int = 0) -> int:
        self.calls.append(("enter", request_line))
        return 5

    def leave(
        self, method: str, status: int, start_ns: int, sent_bytes: int, has_exchange: bool = False
    ) -> int:
        self.calls.append(("leave", method, status, start_ns, sent_bytes))
        return 1000

    def end_slow(self, start_ns: int) -> None:
        self.calls.append(("slow", start_ns))


@dataclass
class Answer:
    keep: bool
    writer: FakeWriter
    log: FakeLog
    cell: FakeCell
    events: list[str] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        return b"".join(self.writer.writes)

    @property
    def plain(self) -> bytes:
        """The answer without what every one has."""
        text, dates = re.subn(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", b"", self.raw)
        assert dates == text.count(b"Server: prefork\r\n") == 1
        return text.replace(b"Server: prefork\r\n", b"").replace(b"HTTP/1.1 ", b"", 1)


def call(
    app: Callable[..., Any],
    raw: bytes = b"GET /path?q HTTP/1.1\r\nHost: a\r\n\r\n",
    body: bytes = b"",
    *,
    patience: int = 1000,
    keep_alive: bool = True,
    **options: Any,
) -> Answer:
    log, writer, cell = FakeLog(), FakeWriter(patience), FakeCell()
    gateway = Gateway(app, log=log, **options)
    base = gateway.connection_environ("10.0.0.1", "8000", "10.0.0.2", "5000")
    request = Request(HeadParser(HeadLimits()).parse(raw), body, base, keep_alive)
    keep = gateway.respond(request, writer, cell)
    return Answer(keep, writer, log, cell, [event for event, _, _ in log.events])


HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
HTTP10_KEEP = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
KEEP = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Blocks:
    """An iterable with a ``close()`` that must be called once, whatever happens."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = iter(blocks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self.blocks)
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self) -> None:
        self.closed += 1


def answering(body: Any, *headers: tuple[str, str], status: str = "200 OK", written: Any = ()) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response(status, list(headers))
        for block in written:
            write(block)
        return body() if callable(body) else body

    return app


def length(number: int) -> tuple[str, str]:
    return ("Content-Length", str(number))


FIVE, SIX = length(5), length(6)

#   application, request, the answer, kept?, events
ANSWERS: dict[str, tuple[Any, bytes | None, bytes, bool, list[str]]] = {
    "list of one": (answering([b"hello"]), None, b"200 OK\r\nContent-Length: 5\r\n\r\nhello", True, []),
    "list of several": (
        answering([b"he", b"", b"llo"]),
        None,
        b"200 OK\r\nContent-Length: 5\r\n\r\nhello",
        True,
        [],
    ),
    "tuple": (answering((b"hello",)), None, b"200 OK\r\nContent-Length: 5\r\n\r\nhello", True, []),
    "empty list": (answering([]), None, b"200 OK\r\nContent-Length: 0\r\n\r\n", True, []),
    "empty iterable": (answering(lambda: iter([])), None, b"200 OK\r\nContent-Length: 0\r\n\r\n", True, []),
    "given length": (
        answering(lambda: Blocks(b"he", b"llo"), FIVE),
        None,
        b"200 OK\r\nContent-Length: 5\r\n\r\nhello",
        True,
        [],
    ),
    "chunked": (
        answering(lambda: Blocks(b"", b"hello", b"", b"0123456789abcdef")),
        None,
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        True,
        [],
    ),
    "until close on 1.0": (
        answering(lambda: Blocks(b"he", b"llo")),
        HTTP10_KEEP,
        b"200 OK\r\nConnection: close\r\n\r\nhello",
        False,
        [],
    ),
    "1.0": (
        answering([b"a"]),
        HTTP10,
        b"200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
        False,
        [],
    ),
    "1.0 kept": (
        answering([b"a"]),
        HTTP10_KEEP,
        b"200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na",
        True,
        [],
    ),
    "close asked": (
        answering([b"a"]),
        CLOSE,
        b"200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
        False,
        [],
    ),
    "HEAD": (answering([b"hello"]), HEAD, b"200 OK\r\nContent-Length: 5\r\n\r\n", True, []),
    "HEAD given": (answering([], SIX), HEAD, b"200 OK\r\nContent-Length: 6\r\n\r\n", True, []),
    "HEAD unknown": (answering(lambda: Blocks(b"hello")), HEAD, b"200 OK\r\n\r\n", True, []),
    "HEAD and write()": (answering([b"b"], written=[b"a"]), HEAD, b"200 OK\r\n\r\n", True, []),
    "204": (answering([b"x"], status="204 No Content"), None, b"204 No Content\r\n\r\n", True, []),
    "304 and write()": (
        answering([], FIVE, status="304 Not Modified", written=[b"hello"]),
        None,
        b"304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        True,
        [],
    ),
    "write()": (
        answering([b"c"], written=[b"a", b"", b"b"]),
        None,
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
        True,
        [],
    ),
    "write() with length": (
        answering([b"c"], length(3), written=[b"a", b"b"]),
        None,
        b"200 OK\r\nContent-Length: 3\r\n\r\nabc",
        True,
        [],
    ),
    "too long": (
        answering(lambda: Blocks(b"hel", b"lo wor", b"ld", b"!"), FIVE),
        None,
        b"200 OK\r\nContent-Length: 5\r\n\r\nhello",
        True,
        ["response-long"],
    ),
    "too long, list": (
        answering([b"hello!"], FIVE),
        None,
        b"200 OK\r\nContent-Length: 5\r\n\r\nhello",
        True,
        ["response-long"],
    ),
    "too short": (
        answering([b"hello"], SIX),
        None,
        b"200 OK\r\nContent-Length: 6\r\n\r\nhello",
        False,
        ["response-short"],
    ),
    "too short, nothing": (
        answering(Blocks, SIX),
        None,
        b"200 OK\r\nContent-Length: 6\r\n\r\n",
        False,
        ["response-short"],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    app, raw, wanted, keep, events = ANSWERS[name]
    answer = call(app, raw) if raw else call(app)
    assert answer.plain == wanted
    assert answer.keep is keep
    assert answer.events == events
    assert not answer.writer.aborted


def raising(error: BaseException) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        raise error

    return app


def never_started(environ: dict[str, Any], start_response: Any) -> Any:
    return [b"hello"]


def started_twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [])
    start_response("200 OK", [])


# Nothing was sent: the client gets a 500 and may go on. Each with what the log must name.
FAILURES: dict[str, tuple[Any, str]] = {
    "raises": (raising(LookupError("spam")), "LookupError: spam"),
    "SystemExit": (raising(SystemExit(3)), "SystemExit: 3"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "raises in the first block": (answering(lambda: Blocks(b"", LookupError("spam"))), "LookupError: spam"),
    "never started": (never_started, "start_response was not called"),
    "started twice": (started_twice, "second time"),
    "bad status": (answering([], status="fine"), "'fine'"),
    "bad header": (answering([], ("X-A", "b\r\nc")), "b\\r\\nc"),
    "hop-by-hop": (answering([], ("Connection", "close")), "'Connection'"),
    "None": (answering(None), "NoneType"),
    "str": (answering("hello"), "'h'"),
    "list of str": (answering([b"a", "hello"]), "'hello'"),
    "write() of str": (answering([], written=["hello"]), "'hello'"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_before_the_head(name: str) -> None:
    app, named = FAILURES[name]
    answer = call(app)
    assert answer.plain == (
        b"500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 26\r\n\r\n"
        b"500 Internal Server Error\n"
    )
    assert answer.keep
    assert answer.cell.calls[-1] == ("leave", "GET", 500, 5, 26)
    [(event, message, fields)] = answer.log.events
    assert event == "request-failed"
    assert "GET /path?q" in message
    assert (fields["method"], fields["target"]) == ("GET", "/path?q")
    assert named in fields["traceback"]


def test_failure_for_head_has_no_body() -> None:
    assert call(raising(LookupError()), HEAD).plain.endswith(b"Content-Length: 26\r\n\r\n")


# The head was sent. Aborted: the client could otherwise take what it has for a whole response.
@pytest.mark.parametrize(
    ("headers", "raw", "aborted"),
    [([], None, True), ([SIX], None, True), ([], HTTP10, True), ([FIVE], None, False), ([], HEAD, None)],
)
def test_failure_after_the_head(
    headers: list[tuple[str, str]], raw: bytes | None, aborted: bool | None
) -> None:
    body = Blocks(b"hello", LookupError("spam"))
    answer = call(answering(body, *headers), *([raw] if raw else []))
    assert body.closed == 1
    assert not answer.raw.endswith(b"0\r\n\r\n")
    assert answer.events == ([] if aborted is None else ["request-failed"])
    assert answer.keep is (aborted is None)
    assert answer.writer.aborted is bool(aborted)


def test_failing_close_is_logged_and_the_response_stands() -> None:
    class Failing(Blocks):
        def close(self) -> None:
            raise SystemExit(1)

    answer = call(answering(Failing(b"a"), length(1)))
    assert answer.keep
    assert answer.events == ["request-failed"]
    assert answer.raw.endswith(b"\r\n\r\na")


def test_exc_info_before_the_head_replaces_the_response() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("X-A", "b")])
        try:
            raise LookupError
        except LookupError:
            start_response("503 Busy", [], sys.exc_info())
        return [b"sorry"]

    assert call(app).plain == b"503 Busy\r\nContent-Length: 5\r\n\r\nsorry"


def test_exc_info_after_the_head_raises_it_again() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])(b"hello")
        try:
            raise LookupError("spam")
        except LookupError:
            start_response("503 Busy", [], sys.exc_info())
        return [b"never"]

    answer = call(app)
    assert answer.writer.aborted
    assert answer.events == ["request-failed"]
    assert "LookupError: spam" in answer.log.events[0][2]["traceback"]
    assert b"never" not in answer.raw


@pytest.mark.parametrize("patience", [0, 1])
def test_client_gone(patience: int) -> None:
    body = Blocks(b"a", b"b", b"c")
    answer = call(answering(body), patience=patience)
    assert body.closed == 1
    assert not answer.keep
    assert answer.events == ["client-gone"]
    assert answer.cell.calls[-1][:3] == ("leave", "GET", 200)


def test_client_gone_is_no_failure_of_an_application_that_wraps_it() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        try:
            write(b"a")
        except ClientGone as error:
            raise LookupError from error

    assert call(app, patience=0).events == ["client-gone"]


def test_head_and_first_block_are_one_write_and_nothing_is_sent_before() -> None:
    sent: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [length(2)])
        sent.append(len(writer.writes))
        yield b""
        sent.append(len(writer.writes))
        yield b"a"
        sent.append(len(writer.writes))
        yield b"b"

    writer = FakeWriter()
    gateway = Gateway(app, log=FakeLog())
    base = gateway.connection_environ("", "", "", "")
    gateway.respond(Request(HeadParser(HeadLimits()).parse(HTTP10), b"", base), writer, FakeCell())
    assert sent == [0, 0, 1]
    assert [write[-1:] for write in writer.writes] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "options", "last"),
    [
        ([b"a"], {}, [True]),
        ((b"a", b"b"), {}, [True]),
        ([b"a"], {"raw": KEEP}, [False]),
        ([b"a"], {"multithread": True}, [False]),
        ([b"a"], {"hooks": RequestHooks(finished=lambda *_: None)}, [False]),
        (Blocks(b"a"), {}, [False, False]),
        (Blocks(LookupError()), {}, [False]),
    ],
    ids=["list", "tuple", "kept", "threads", "hook", "has close()", "fails, has close()"],
)
def test_a_response_waits_for_the_end_only_if_nothing_runs_before(
    body: Any, options: dict[str, Any], last: list[bool]
) -> None:
    answer = call(answering(body), **{"raw": CLOSE} | options)
    assert answer.writer.last == last


@pytest.mark.parametrize("body", [[b"a"], Blocks(b"a"), Blocks(b"a", LookupError()), LookupError()])
def test_late_write_does_nothing(body: Any) -> None:
    kept: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.append(start_response("200 OK", []))
        if isinstance(body, LookupError):
            raise body
        return body

    answer = call(app)
    before = answer.raw
    kept[0](b"late")
    assert answer.raw == before


def test_large_block_is_whole() -> None:
    assert call(answering([b"x" * 100_000])).raw.endswith(b"\r\n\r\n" + b"x" * 100_000)


def test_order_of_the_scoreboard() -> None:
    cell_at_close: list[int] = []

    class Noting(Blocks):
        def close(self) -> None:
            cell_at_close.append(1)

    answer = call(answering(Noting(b"abc")))
    assert answer.cell.calls == [("enter", b"GET /path?q HTTP/1.1"), ("leave", "GET", 200, 5, 3)]
    assert cell_at_close == [1]


def test_drain_while_the_application_runs_becomes_connection_close() -> None:
    assert not call(answering([b"a"]), keep_alive=False).keep
    requests: list[Request] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        requests[0].keep_alive = False
        return [b"a"]

    gateway, writer = Gateway(app, log=FakeLog()), FakeWriter()
    head = HeadParser(HeadLimits()).parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    requests.append(Request(head, b"", gateway.connection_environ("", "", "", "")))
    assert not gateway.respond(requests[0], writer, FakeCell())
    assert b"Connection: close\r\n" in writer.writes[0]


def test_date_and_server_of_the_application_stand() -> None:
    raw = call(answering([], ("Date", "today"), ("server", "mine"))).raw
    assert (raw.count(b"Date:"), raw.lower().count(b"server:")) == (1, 1)
    raw = call(answering([], ("Date", "today"))).raw
    assert (raw.count(b"Date:"), raw.count(b"Server: prefork\r\n\r\n")) == (1, 1)
    assert b"Server" not in call(answering([]), server_header=None).raw


def test_refusal() -> None:
    raw = Gateway(raising(LookupError()), log=FakeLog()).refuse(400, "no Host", b"", {"REMOTE_ADDR": ""})
    assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert raw.endswith(b"\r\n\r\n400 Bad Request\nno Host\n")
    for line in (b"Connection: close\r\n", b"Date: ", b"Server: prefork\r\n"):
        assert raw.count(line) == 1


def environ_of(raw: bytes, body: bytes = b"", **options: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    assert call(app, raw, body, **options).keep
    return seen


def test_environ() -> None:
    raw = b"POST /a%20b?c=d HTTP/1.1\r\nHost: x:1\r\nContent-Type: t/t\r\nX-Y: z\r\nContent-Length: 4\r\n\r\n"
    environ = environ_of(raw, b"a\nb\n")
    wanted = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=d",
        "REQUEST_URI": "/a%20b?c=d",
        "CONTENT_TYPE": "t/t",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "10.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.2",
        "REMOTE_PORT": "5000",
        "HTTP_HOST": "x:1",
        "HTTP_X_Y": "z",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in wanted} == wanted
    assert environ["wsgi.input"].readlines() == [b"a\n", b"b\n"]


def test_environ_of_a_chunked_body_has_its_length() -> None:
    environ = environ_of(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"abc")
    assert environ["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert environ["wsgi.input"].read() == b"abc"


def test_environ_of_a_unix_socket_and_root_path() -> None:
    environ = Gateway(raising(LookupError()), log=FakeLog(), root_path="/é").connection_environ(
        "", "", "", ""
    )
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
    assert environ["SCRIPT_NAME"] == "/Ã©"


@pytest.mark.parametrize(
    ("target", "path"), [("/shop/a", "/a"), ("/shop", ""), ("/shopping", "/shopping"), ("/a", "/a")]
)
def test_root_path_is_taken_off_if_it_is_there(target: str, path: str) -> None:
    environ = environ_of(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), root_path="/shop")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/shop", path)


def test_environ_is_the_applications_own() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        assert "seen" not in environ
        environ["seen"] = environ["PATH_INFO"] = environ["REMOTE_ADDR"] = "x"
        start_response("200 OK", [])
        return []

    gateway = Gateway(app, log=FakeLog())
    base = gateway.connection_environ("", "", "1.2.3.4", "5")
    head = HeadParser(HeadLimits()).parse(b"GET /p HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(2):
        assert gateway.respond(Request(head, b"", base), FakeWriter(), FakeCell())
    assert head.environ["PATH_INFO"] == "/p"
    assert base["REMOTE_ADDR"] == "1.2.3.4"


def test_errors_become_whole_lines_of_the_log() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        errors = environ["wsgi.errors"]
        errors.write("one ")
        errors.write("line\ntwo")
        errors.flush()
        errors.flush()
        return []

    assert [event[:2] for event in call(app).log.events] == [
        ("wsgi-errors", "one line"),
        ("wsgi-errors", "two"),
    ]


def test_file_wrapper() -> None:
    file = BytesIO(b"0123456789")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [length(10)])
        return environ["wsgi.file_wrapper"](file, 4)

    answer = call(app)
    assert answer.raw.endswith(b"\r\n\r\n0123456789")
    assert file.closed


def test_access_entry() -> None:
    class FakeAccess:
        def record(self, entry: Any) -> None:
            entries.append(entry)

    entries: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["REMOTE_USER"] = "bob"
        start_response("404 Not Found", [("X-A", "b")])
        return [b"gone"]

    call(app, recorder=FakeAccess())
    [entry] = entries
    assert (entry.remote_addr, entry.method, entry.target, entry.protocol) == (
        "10.0.0.2",
        "GET",
        "/path?q",
        "HTTP/1.1",
    )
    assert (entry.status, entry.sent_bytes, entry.elapsed_ns, entry.remote_user) == (404, 4, 1000, "bob")
    assert entry.response_headers == [("X-A", "b")]
    assert entry.environ["HTTP_HOST"] == "a"
