"""The response and the 504 compete for the first byte: the client gets one of them, whole."""

from __future__ import annotations

from typing import Any

import pytest
from serving_harness import Events

from prefork.http.head import Head
from prefork.scoreboard import Scoreboard
from prefork.worker.exchange import ClientGone, Request
from prefork.worker.gateway import Gateway
from prefork.worker.late import Late
from prefork.worker.response import Response

ENVIRON = {"PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
BASE = {"REMOTE_ADDR": "192.0.2.1"}


class Wire:
    """What has reached the client."""

    def __init__(self) -> None:
        self.sent = b""
        self.gone = False
        self.began_ns = 0

    def write(self, data: Any, last: bool = False) -> None:
        if self.gone:
            raise ClientGone
        self.sent += data if isinstance(data, bytes) else b"".join(data)

    def send_meanwhile(self) -> None:
        pass

    def abort(self) -> None:
        self.sent += b"<reset>"


def respond(when: str, method: str = "GET") -> tuple[Wire, list[bool], Any]:
    """Have the deadline pass in the middle of the application; return what the client got, and what came of it."""
    cell = Scoreboard.create("web", 1, cells=1, threads=1, doorbell=-1).cells[0].threads[0]
    wire, outcomes = Wire(), []

    def pass_deadline() -> None:
        response: Response = cell.current
        late = response.late = Late()

        def send() -> None:
            wire.sent += gateway.answer_late(response, cell.limits()[0])
            wire.gone = True

        outcomes.append(late.answer(response, send))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if when == "before start_response":
            pass_deadline()
        write = start_response("200 OK", [("Content-Length", "3")])
        if when == "before the head":
            pass_deadline()
        if when == "and an error":
            pass_deadline()
            raise ValueError("late, too")
        write(b"a")
        if when == "after the head":
            pass_deadline()
        return [b"bc"]

    log: Any = Events()
    gateway = Gateway(app, log=log)
    head = Head(method, "/", "/", "", (1, 1), ENVIRON, 0, False, True, False, f"{method} / HTTP/1.1".encode())
    assert gateway.respond(Request(head, b"", BASE), wire, cell) is (when == "after the head")
    return wire, outcomes, cell


@pytest.mark.parametrize("when", ["before start_response", "before the head", "and an error"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_of_the_response_follows_the_504(when: str, method: str) -> None:
    wire, outcomes, cell = respond(when, method)
    assert outcomes == [True]
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in head
    text = b"504 Gateway Timeout\nthe application did not answer in time\n"
    assert body == (b"" if method == "HEAD" else text)
    assert cell.counts().errors == 1


def test_a_response_that_has_begun_is_not_disturbed() -> None:
    wire, outcomes, cell = respond("after the head")
    assert outcomes == [False]
    assert wire.sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.sent.endswith(b"\r\n\r\nabc")
    assert cell.counts().errors == 0
