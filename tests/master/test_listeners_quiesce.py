"""The final stop: no connection is lost that its client believes in."""

from __future__ import annotations

import errno
import socket
import threading
import time
from pathlib import Path

import pytest

from prefork.config import Listen
from prefork.master.activation import Activation
from prefork.master.listeners import Listener, open_listeners

CLIENTS = 24
BOUND_S = 30.0


class Clients:
    """Threads that connect and ask, again and again, until they are refused or told to stop."""

    def __init__(self, listener: Listener) -> None:
        self.family, self.address = listener.family, listener.sock.getsockname()
        self.answered = 0
        self.lost = 0
        self.stop = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while not self.stop:
            with socket.socket(self.family) as sock:
                sock.settimeout(BOUND_S)
                try:
                    sock.connect(self.address)
                except ConnectionError:
                    return
                try:
                    sock.sendall(b"?")
                    good = sock.recv(1) == b"!"
                except OSError:
                    good = False
            with self._lock:
                self.answered += good
                self.lost += not good


def serve_one(listener: Listener) -> bool:
    """Accept and answer; False when nothing waits."""
    try:
        sock, _ = listener.sock.accept()
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EINVAL):
            raise
        return False
    with sock:
        sock.settimeout(BOUND_S)
        sock.recv(1)
        sock.sendall(b"!")
    return True


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_none_of_24_connecting_clients_is_lost(tmp_path: Path, kind: str) -> None:
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/x.sock"
    (listener,) = open_listeners(Listen(address=address), Activation())
    clients = Clients(listener)
    bound = time.monotonic() + BOUND_S
    try:
        while clients.answered < 500 and time.monotonic() < bound:
            serve_one(listener)
        assert listener.quiesce() is None
        # Every client ends with a refused connect; what was connected before is served until then.
        while clients.running() and time.monotonic() < bound:
            serve_one(listener)
        assert not clients.running()
        assert not serve_one(listener)
    finally:
        clients.stop = True
        listener.close(unlink=True)
    assert clients.answered >= 500
    assert clients.lost == 0


def test_an_inherited_listener_goes_on_for_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        activation = Activation({"web": (owner.fileno(),)})
        (listener,) = open_listeners(Listen(address="systemd:web"), activation)
        assert listener.quiesce() is None
        listener.close(unlink=True)
        socket.create_connection(owner.getsockname(), timeout=BOUND_S).close()


def test_a_system_that_cannot_refuse_is_told() -> None:
    (listener,) = open_listeners(Listen(address="127.0.0.1:0"), Activation())
    listener.close(unlink=True)  # any error of setsockopt will do
    assert "may be reset" in (listener.quiesce() or "")
