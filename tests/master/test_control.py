"""The control socket in a loop of its own: where it is, who may connect, and that nobody holds the master up."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from prefork.config import load
from prefork.control_protocol import LONGEST_REQUEST_BYTES, shown
from prefork.errors import ListenError
from prefork.log import Log, Logs
from prefork.master import control, control_client
from prefork.master.control import Control
from prefork.master.control_place import ControlPlace, open_control
from prefork.master.loop import Loop
from prefork.master.news import News


class Master:
    """Stands for the server: it has a status, of any size."""

    def __init__(self) -> None:
        self.size_bytes = 10

    def status(self) -> dict[str, Any]:
        return {"pad": "x" * self.size_bytes}

    is_stopping = False

    def serving_pools(self) -> list[SimpleNamespace]:
        """One pool that boots."""
        return [SimpleNamespace(name="shop", table=SimpleNamespace(wanted=2, workers={}))]


class Socket:
    """A control socket that listens, with the loop that it runs in."""

    def __init__(self, folder: Path) -> None:
        self.errors = 0
        self.master = Master()
        self.loop = Loop(self.failed)
        log: Log = Logs(load([str(folder / "app.yaml")], environ={}).config.log).log
        self.path = str(folder / "control.sock")
        self.control = Control(self.loop, log, News(self.failed), self.master)  # type: ignore[arg-type]
        self.control.open(self.path, "shop")

    def failed(self) -> None:
        self.errors += 1

    def turn(self) -> None:
        self.loop.call_later(0.01, lambda: None)
        self.loop.run_once(None)

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2000):
            if condition():
                return
            self.turn()
        raise AssertionError("waited in vain")

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.setblocking(False)
        return sock

    def read(self, sock: socket.socket, lines: int = 1) -> list[dict[str, Any]]:
        """Return so many lines, or fewer if the connection ends before."""
        data = bytearray()

        def complete() -> bool:
            try:
                while part := sock.recv(1 << 20):
                    data.extend(part)
                return True
            except BlockingIOError:
                return data.count(b"\n") >= lines
            except ConnectionResetError:
                return True

        self.until(complete)
        return [json.loads(line) for line in data.splitlines()]

    def is_closed(self, sock: socket.socket) -> bool:
        try:
            while sock.recv(1 << 20):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Socket]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.yaml").write_text("app: a:b\nlog: {to: ./events.log}\n")
    made = Socket(tmp_path)
    yield made
    made.control.close()
    assert made.errors == 0
    assert not os.path.exists(made.path)


STATUS = b'{"v":1,"command":"status"}\n'


def test_requests_one_after_the_other_on_one_connection(served: Socket) -> None:
    with served.connect() as sock:
        sock.send(STATUS + STATUS + STATUS[:5])
        assert [answer["status"] for answer in served.read(sock, 2)] == [0, 0]
        sock.send(STATUS[5:])
        assert served.read(sock)[0]["result"] == {"pad": "x" * 10}
        sock.send(STATUS)
        sock.shutdown(socket.SHUT_WR)
        assert len(served.read(sock, 2)) == 1
        served.until(lambda: served.is_closed(sock))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense\n", "expected a line of JSON"),
        (b"[" * 10_000 + b"\n", "expected a line of JSON"),
        (b'{"command":"status"}\n', "expected a line of JSON"),
        (b'{"v":2,"command":"status"}\n', "speaks version 1 of the control protocol, not 2"),
        (b'{"v":1,"command":"dance"}\n', "has no command 'dance'"),
        (b'{"v":1,"command":"scale","workers":2,"pool":[]}\n', "there is no pool []; there is shop"),
        (b'{"v":1,"command":"scale","workers":2,"pool":{}}\n', "there is no pool {}; there is shop"),
        (b'{"v":1,"command":"recycle","slot":[]}\n', "expected a slot such as shop.0, got []"),
        (
            b'{"v":1,"command":"recycle","slot":"shop.2"}\n',
            "there is no slot shop.2; slots go from shop.0 to shop.1",
        ),
    ],
)
def test_what_is_no_request_is_answered(served: Socket, line: bytes, told: str) -> None:
    """And nobody can write what he likes to the log, or make it look like a mistake of ours."""
    with served.connect() as sock:
        sock.send(line)
        [answer] = served.read(sock)
        assert (answer["type"], answer["status"]) == ("end", 2)
        assert told in answer["message"]
    assert "dance" not in Path("events.log").read_text()


def test_a_slot_whose_worker_is_not_there_is_no_mistake_of_who_asks(served: Socket) -> None:
    with served.connect() as sock:
        sock.send(b'{"v":1,"command":"recycle","slot":"shop.1"}\n')
        [answer] = served.read(sock)
    assert (answer["status"], "shop.1 has no worker that serves" in answer["message"]) == (1, True), answer


def test_a_client_that_says_nothing_is_dropped(served: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "SAY_S", 0.05)
    with served.connect() as silent, served.connect() as slow:
        slow.send(STATUS[:-1])  # all but the end of the line
        served.until(lambda: served.is_closed(silent) and served.is_closed(slow))


def test_a_client_that_sends_a_megabyte_is_dropped(served: Socket) -> None:
    with served.connect() as sock:
        sent = 0

        def full() -> bool:
            nonlocal sent
            try:
                while sent < 1 << 20:
                    sent += sock.send(b"x" * 65536)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                pass
            return True

        served.until(full)
        assert sent < 1 << 20
        [answer] = served.read(sock)
        assert f"at most {LONGEST_REQUEST_BYTES} bytes" in answer["message"]


@pytest.mark.parametrize("by", ["time", "size"])
def test_a_client_that_never_reads_is_dropped(
    served: Socket, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "time":
        monkeypatch.setattr(control_client, "SEND_S", 0.05)
    served.master.size_bytes = (1 if by == "time" else 5) << 20
    with served.connect() as sock, served.connect() as other:
        sock.send(STATUS)
        served.until(lambda: len(served.control._clients) == 1)
        served.master.size_bytes = 10
        other.send(STATUS)  # nobody else notices
        assert served.read(other)[0]["status"] == 0


def test_a_slow_reader_gets_all(served: Socket) -> None:
    served.master.size_bytes = 3 << 20
    with served.connect() as sock:
        sock.send(STATUS)
        for _ in range(3):
            served.turn()
        assert len(served.read(sock)[0]["result"]["pad"]) == 3 << 20


def test_too_many_clients_are_told_so(served: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_CLIENTS", 2)
    with served.connect() as one, served.connect(), served.connect() as third:
        assert "2 others are connected already" in served.read(third)[0]["message"]
        one.close()
        served.until(lambda: len(served.control._clients) == 1)
        with served.connect() as fourth:
            fourth.send(STATUS)
            assert served.read(fourth)[0]["status"] == 0


def test_nobody_is_left_to_wake_up_for(served: Socket) -> None:
    with served.connect() as sock, served.connect():
        sock.send(STATUS)
        served.read(sock)
    served.until(lambda: not served.control._clients)
    soon = monotonic() + 1.0  # the turns of this test have a timer each
    assert not [timer for timer in served.loop._timers if not timer.cancelled and timer.instant > soon]


# Where it is


@pytest.fixture
def opened() -> Iterator[Callable[..., ControlPlace]]:
    made: list[ControlPlace] = []

    def open_one(*args: Any, **kwargs: Any) -> ControlPlace:
        made.append(open_control(*args, **kwargs))
        return made[-1]

    yield open_one
    for place in made:
        place.close()


def test_auto_takes_the_first_usable_place(
    tmp_path: Path, opened: Callable[..., ControlPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, run, user = (tmp_path / name for name in ("runtime", "run", "user"))
    environ = {"RUNTIME_DIRECTORY": f"{runtime}:/other", "XDG_RUNTIME_DIR": str(user)}
    user.mkdir()
    assert opened("auto", "shop", environ, str(run)).address == f"{user}/prefork-shop.sock"
    run.mkdir()
    assert opened("auto", "shop", environ, str(run)).address == f"{run}/prefork-shop.sock"
    runtime.mkdir()
    place = opened("auto", "shop", environ, str(run))
    assert place.address == f"{runtime}/prefork-shop.sock"
    assert os.stat(place.address).st_mode & 0o777 == 0o600
    # What cannot be written to is no place; root may write everywhere but to a read-only file system.
    monkeypatch.setattr(os, "access", lambda *args: False)
    name = f"t{os.getpid()}"
    assert [shown(opened("auto", name, environ, str(run)).address) for _ in range(2)] == [
        f"@prefork-{name}",
        f"@prefork-{name}-2",
    ]


def test_servers_of_one_name_do_not_collide(tmp_path: Path, opened: Callable[..., ControlPlace]) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    places = [opened("auto", "shop", environ) for _ in range(3)]
    names = ["prefork-shop.sock", "prefork-shop-2.sock", "prefork-shop-3.sock"]
    assert [os.path.basename(place.address) for place in places] == names
    places[1].sock.close()  # as if its server had been killed
    assert opened("auto", "shop", environ).address == places[1].address


def test_a_path_of_its_own(tmp_path: Path, opened: Callable[..., ControlPlace]) -> None:
    path = str(tmp_path / "ctl")
    first = opened(path, "shop")
    with pytest.raises(ListenError, match=rf"cannot listen on unix:{path}: already in use by"):
        opened(path, "other")
    os.unlink(path)
    second = opened(path, "shop")
    first.close()  # what is there now is not its own
    assert os.path.exists(path)
    second.sock.close()
    third = opened(path, "shop")  # in the place of what a killed server has left
    third.close()
    assert not os.path.exists(path)
