"""Messages to systemd, received on a real socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.master.notify import Notifier, take_notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        name = f"{tmp_path}/notify" if request.param == "path" else f"@prefork-test-{os.getpid()}"
        sock.bind(name if request.param == "path" else "\0" + name[1:])
        yield sock, name


def test_messages(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = take_notifier(environ)
    assert environ == {"A": "b"}
    assert notifier.watchdog_interval_s == 1.5
    before = time.monotonic_ns() // 1000
    notifier.ready("serving\non 8000")
    notifier.reloading()
    notifier.stopping()
    notifier.watchdog()
    assert sock.recv(1000) == b"READY=1\nSTATUS=serving on 8000"
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", sock.recv(1000))
    assert found
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000
    assert [sock.recv(1000) for _ in range(2)] == [b"STOPPING=1", b"WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "soon"},
    ],
)
def test_nothing_raises_and_a_watchdog_for_others_is_not_ours(environ: dict[str, str]) -> None:
    notifier = take_notifier(environ)
    notifier.ready()
    assert notifier.watchdog_interval_s is None


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{tmp_path}/notify")
        notifier = Notifier(f"{tmp_path}/notify")
        for _ in range(2000):
            notifier.ready("x" * 1000)
