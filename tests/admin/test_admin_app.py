"""The admin application: who may see what, and what every answer has."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from prefork.admin.access import Access, is_loopback, presented
from prefork.admin.answer import Answer, NotYet
from prefork.admin.app import HEADERS, App, Route

TOKEN = "correct-horse"


class FakeSource:
    """A server that a test describes."""

    def __init__(self, master: bool = True, **status: Any) -> None:
        self._master = master
        self._status = {"state": "serving", "healthy": True, "ready": True, "pools": {}, **status}

    def status(self) -> dict[str, Any]:
        return self._status

    def document(self) -> dict[str, Any]:
        return self._status

    def is_master_alive(self) -> bool:
        return self._master


def environ(path: str = "/status", method: str = "GET", peer: str = "127.0.0.1", **fields: str) -> Any:
    host = {"HTTP_HOST": "127.0.0.1:9180"}
    return {"PATH_INFO": path, "REQUEST_METHOD": method, "REMOTE_ADDR": peer, **host, **fields}


def ask(request: Any, token: str | None = None, source: FakeSource | None = None) -> Answer:
    return App(source or FakeSource(), Access("shop", token, ["healthz", "readyz"])).answer(request)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("request_", "token", "status"),
    [
        (environ(), None, 200),
        (environ(peer="::1", HTTP_HOST="[::1]:9180"), None, 200),
        (environ(peer="::ffff:127.0.0.1", HTTP_HOST="localhost"), None, 200),
        (environ(peer="", HTTP_HOST="anything"), None, 200),
        (environ(HTTP_HOST="app.localhost:9180"), None, 200),
        (environ(peer="10.0.0.1"), None, 403),
        (environ(peer="10.0.0.1", HTTP_X_FORWARDED_FOR="127.0.0.1"), None, 403),
        (environ(HTTP_X_FORWARDED_FOR="10.0.0.1"), None, 403),
        (environ(peer="", HTTP_X_REAL_IP="127.0.0.1"), None, 403),
        (environ(HTTP_FORWARDED="for=10.0.0.1"), None, 403),
        (environ(HTTP_VIA="1.1 proxy"), None, 403),
        (environ(HTTP_HOST="rebound.example:9180"), None, 403),
        (environ("/healthz", peer="10.0.0.1", HTTP_HOST="pod"), None, 200),
        (environ("/healthz", peer="10.0.0.1"), TOKEN, 200),
        (environ(), TOKEN, 401),
        (environ(peer=""), TOKEN, 401),
        (environ(HTTP_AUTHORIZATION=f"Bearer {TOKEN}", HTTP_VIA="1.1 proxy", HTTP_HOST="x"), TOKEN, 200),
        (environ(HTTP_AUTHORIZATION=f"bearer  {TOKEN}"), TOKEN, 200),
        (environ(HTTP_AUTHORIZATION=basic("anyone", TOKEN)), TOKEN, 200),
        (environ(HTTP_AUTHORIZATION=basic("", TOKEN)), TOKEN, 200),
        (environ(HTTP_AUTHORIZATION=f"Bearer {TOKEN}x"), TOKEN, 401),
        (environ(HTTP_AUTHORIZATION=basic(TOKEN, "")), TOKEN, 401),
        (environ(HTTP_AUTHORIZATION="Bearer \xff"), TOKEN, 401),
        (environ(HTTP_AUTHORIZATION="Basic ???"), TOKEN, 401),
        (environ(HTTP_AUTHORIZATION=TOKEN), TOKEN, 401),
        (environ(QUERY_STRING=f"token={TOKEN}"), TOKEN, 401),
        (environ("/nothing"), None, 404),
        (environ("/status/"), None, 404),
        (environ(method="POST"), None, 405),
        (environ("/healthz", method="DELETE"), None, 405),
        (environ(method="HEAD"), None, 200),
    ],
)
def test_who_may_see_what(request_: Any, token: str | None, status: int) -> None:
    answer = ask(request_, token)
    assert answer.status.startswith(str(status)), answer
    assert TOKEN not in f"{answer}"


def test_refusals_tell_what_to_do() -> None:
    assert ("Allow", "GET, HEAD") in ask(environ(method="PUT")).headers
    assert b"/readyz" in ask(environ("/metric")).body
    challenges = [value for name, value in ask(environ(), TOKEN).headers if name == "WWW-Authenticate"]
    assert challenges == ['Basic realm="prefork shop", charset="UTF-8"', "Bearer"]
    assert b"admin.token" in ask(environ(peer="10.0.0.1")).body


def test_every_answer_has_a_length_and_the_headers_that_protect_it() -> None:
    app = App(FakeSource(), Access("shop", None, []))
    started: list[Any] = []
    bodies = [b"".join(app(environ(path), lambda *a: started.append(a))) for path in ("/status", "/nothing")]
    for (_, headers), body in zip(started, bodies, strict=True):
        assert set(HEADERS) < set(headers)
        assert dict(headers)["Content-Length"] == str(len(body))
    assert json.loads(ask(environ()).body)["state"] == "serving"


@pytest.mark.parametrize(
    ("source", "live", "ready"),
    [
        (FakeSource(), "200 ok", "200 ok"),
        (FakeSource(master=False), "503 the master is gone", "503 the master is gone"),
        (FakeSource(ready=False, state="stopping"), "200 ok", "503 stopping"),
        (
            FakeSource(healthy=False, ready=False, state="booting", pools={"web": {"workers": []}}),
            "503 booting: no pool can boot workers",
            "503 booting: no worker of web serves",
        ),
    ],
)
def test_health(source: FakeSource, live: str, ready: str) -> None:
    for path, expected in (("/healthz", live), ("/readyz", ready)):
        answer = ask(environ(path), source=source)
        assert f"{answer.status[:3]} {answer.body.decode()}" == f"{expected}\n"


def test_before_the_master_has_published_anything() -> None:
    source = FakeSource()
    source.document = lambda: None  # type: ignore[method-assign,assignment,return-value]

    def status() -> dict[str, Any]:
        raise NotYet

    source.status = status  # type: ignore[method-assign]
    answers = [ask(environ(path), source=source).status[:3] for path in ("/healthz", "/readyz", "/status")]
    assert answers == ["200", "503", "503"]


def test_an_endpoint_is_one_line_in_the_table() -> None:
    mine = Route("mine", lambda: lambda source, environ: Answer.of_text(source.status()["state"]))
    app = App(FakeSource(), Access("shop", None, []), {"/mine": mine})
    assert app.answer(environ("/mine")).body == b"serving\n"


def test_pure_parts() -> None:
    assert is_loopback("127.8.8.8")
    assert not is_loopback("::ffff:10.0.0.1")
    assert presented("Bearer") is None
    assert presented("") is None
    assert presented("Digest abc") is None
