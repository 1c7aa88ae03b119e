"""The journal and syslog as destinations, with real sockets in the place of the daemons."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefork.errors import ConfigError
from prefork.log.datagrams import Datagrams
from prefork.log.journal import open_journal
from prefork.log.log import Log
from prefork.log.syslog import open_syslog


@contextmanager
def daemon(path: Path) -> Iterator[socket.socket]:
    """A socket at which a daemon listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.settimeout(10)
        yield sock


@pytest.fixture
def keep() -> Iterator[Callable[[Datagrams], Datagrams]]:
    """Closes at the end what it was given."""
    kept: list[Datagrams] = []

    def remember(sink: Datagrams) -> Datagrams:
        kept.append(sink)
        return sink

    yield remember
    for sink in kept:
        sink.close()


Keep = Callable[[Datagrams], Datagrams]


def parse(datagram: bytes) -> dict[str, str]:
    """Read the journal's native protocol."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_the_journal_gets_each_field(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "journal"
    with daemon(path) as sock:
        log = Log(keep(open_journal("log.to", {"env": "test"}, str(path)))).bind(
            "shop.0 gen 1 pid 7", slot="shop.0", pid=7
        )
        log.error("request-failed", "KeyError:\nGET /x", traceback="File x\n  line", status=None)
        assert parse(sock.recv(1 << 16)) == {
            "MESSAGE": "shop.0 gen 1 pid 7: KeyError:\n    GET /x\n    File x\n      line",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "prefork",
            "PREFORK_EVENT": "request-failed",
            "PREFORK_ENV": "test",
            "PREFORK_SLOT": "shop.0",
            "PREFORK_PID": "7",
        }


def test_what_is_too_long_for_a_datagram_goes_to_the_journal_as_a_file(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "journal"
    with daemon(path) as sock:
        sink = keep(open_journal("log.to", {}, str(path)))
        sink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        Log(sink).info("serving", "x" * 30_000)
        data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 1)
        assert data == b""
        with open(fds[0], "rb") as file:
            file.seek(0)
            assert parse(file.read())["MESSAGE"] == "x" * 30_000


def test_syslog_of_this_machine_gets_a_message_for_each_line(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "log"
    with daemon(path) as sock:
        log = Log(keep(open_syslog(str(path), "log.to"))).bind("", pid=7)
        log.warning("request-slow", "slow", traceback="File x\n<3>forged")
        messages = [sock.recv(1 << 16).decode() for _ in range(3)]
    assert [message.partition("prefork[7]: ")[2] for message in messages] == [
        "slow",
        "    File x",
        "    <3>forged",
    ]
    assert all(re.match(r"<28>[A-Z][a-z]{2} [ 123][0-9] \d\d:\d\d:\d\d prefork", each) for each in messages)


def test_syslog_of_the_network_gets_rfc_5424(keep: Keep) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        log = Log(keep(open_syslog(f"127.0.0.1:{sock.getsockname()[1]}", "log.to")), format="json")
        log.info("serving", "serving", generation=2)
        head, _, text = sock.recv(1 << 16).decode().partition(" - ")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        rf"<30>1 {stamp} {re.escape(socket.gethostname())} prefork {os.getpid()} serving", head
    )
    assert json.loads(text)["generation"] == 2


def test_lines_wait_for_a_daemon_that_is_started_anew(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "log"
    with daemon(path):
        log = Log(keep(open_syslog(str(path), "log.to")))
    log.info("serving", "while it is away")
    with daemon(path) as sock:
        log.info("serving", "when it is back")
        texts = [sock.recv(1 << 16).decode().partition("]: ")[2] for _ in range(2)]
    assert texts == ["while it is away", "when it is back"]


def test_a_daemon_that_does_not_read_blocks_nobody_and_hears_how_much_it_missed(
    tmp_path: Path, keep: Keep
) -> None:
    path = tmp_path / "log"
    with daemon(path) as sock:
        sink = keep(open_syslog(str(path), "log.to"))
        log = Log(sink)
        written = 2000
        for number in range(written):
            log.info("serving", f"{number} " + "x" * 1000)
        sock.settimeout(0.2)
        texts = []

        def take_all() -> None:
            while True:
                try:
                    texts.append(sock.recv(1 << 16).decode().partition("]: ")[2])
                except TimeoutError:
                    return

        for _ in range(100):
            take_all()
            log.info("serving", "again")
            if any("dropped" in text for text in texts):
                break
        take_all()
    dropped = sum(int(text.split()[0]) for text in texts if "dropped" in text)
    assert dropped > 0
    assert sum(text.endswith("x" * 1000) for text in texts) + dropped == written


@pytest.mark.parametrize("where", ["", "a:b:c", "host:port:1", "[::1"])
def test_what_is_no_address_is_said(where: str) -> None:
    with pytest.raises(ConfigError, match=r"log\.to: "):
        open_syslog(where, "log.to")


def test_no_daemon_at_the_start_is_a_mistake_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.access: cannot reach syslog at .*: No such file"):
        open_syslog(f"{tmp_path}/none", "log.access")
    with pytest.raises(ConfigError, match=r"log\.to: cannot reach the journal at"):
        open_journal("log.to", {}, f"{tmp_path}/none")


def test_the_access_log_is_a_message_for_each_line(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "log"
    with daemon(path) as sock:
        sink = keep(open_syslog(str(path), "log.access"))
        sink.write(b"GET /a\nGET /b\n")
        assert [sock.recv(4096).partition(b"]: ")[2] for _ in range(2)] == [b"GET /a", b"GET /b"]
