"""Sockets that others opened: systemd's protocol, also by its own tool, and plain descriptors."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefork.config import Listen
from prefork.errors import ListenError
from prefork.master.activation import Activation, take_activation
from prefork.master.listeners import open_listeners

ACTIVATED = """
import os
from prefork.config import Listen
from prefork.master.activation import take_activation
from prefork.master.listeners import open_listeners
activation = take_activation()
assert not [name for name in os.environ if name.startswith("LISTEN_")]
web = open_listeners(Listen(address="systemd:web"), activation)
everything = open_listeners(Listen(address="systemd"), activation)
print(len(web), len(everything), web[0].inherited, web[0].key)
"""


def take(**variables: str) -> tuple[Activation, dict[str, str]]:
    environ = {"PATH": "/bin", **variables}
    return take_activation(environ), environ


def test_descriptors_by_name_and_variables_removed() -> None:
    activation, environ = take(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="web:api:web")
    assert activation.named == {"web": (3, 5), "api": (4,)}
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no sockets were passed to this process (LISTEN_FDS is not set)"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "passed to process LISTEN_PID=1, and this is"),
        ({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, "LISTEN_FDS='x' is not a number of sockets"),
        (
            {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "api"},
            "passed no socket of that name, but: api",
        ),
    ],
)
def test_absent_sockets_are_explained(variables: dict[str, str], words: str) -> None:
    activation, environ = take(**variables)
    assert environ == {"PATH": "/bin"}
    with pytest.raises(ListenError) as error:
        open_listeners(Listen(address="systemd:web"), activation)
    assert str(error.value).startswith("cannot listen on systemd:web: ")
    assert words in str(error.value)


@pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed"
)
def test_with_systemds_own_tool(tmp_path: Path) -> None:
    web, api = f"{tmp_path}/web.sock", f"{tmp_path}/api.sock"
    tool = ["systemd-socket-activate", "-l", web, "-l", api, "--fdname=web:api"]
    with subprocess.Popen(
        [*tool, sys.executable, "-c", ACTIVATED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        bound = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < bound:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(web)
                break
            except OSError:
                time.sleep(0.02)  # not listening yet
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out == "1 2 True systemd:web\n", err


def test_descriptor_left_open_can_be_removed_and_added_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        fd = owner.fileno()
        assert fd not in take_activation({}).inherited
        os.set_inheritable(fd, True)
        activation = take_activation({})
        assert fd in activation.inherited
        for _ in range(2):
            (listener,) = open_listeners(Listen(address=f"fd:{fd}"), activation)
            assert listener.inherited
            assert listener.address == f"127.0.0.1:{owner.getsockname()[1]}"
            listener.close(unlink=True)
        assert not os.get_inheritable(fd)


def test_descriptors_that_do_not_listen_are_refused() -> None:
    with socket.socket() as bound, open(os.devnull) as file:
        for fd, words in ((bound.fileno(), "not a listening TCP"), (file.fileno(), "is not a socket")):
            with pytest.raises(ListenError, match=words):
                open_listeners(Listen(address=f"fd:{fd}"), Activation(inherited=frozenset({fd})))
