"""Clients for the end-to-end tests: one that waits in a thread, and a crowd that keeps a server busy."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter
from pathlib import Path

from harness import PATIENCE_S, Server, wait_for

GATE = """
import os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/hold"):
        here = "held" + path.replace("/", "-")
        open(here, "w").write(str(os.getpid()))
        while not os.path.exists("release"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
"""An application that answers with its pid, ``/hold…`` once the file ``release`` exists."""


class Pending:
    """A request under way in a thread. ``outcome()`` is its status and body, or ``cut``."""

    def __init__(self, server: Server, path: str) -> None:
        self._connection = server.connect()
        self._outcome: tuple[int, str] | str = ""
        self._path = path
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def outcome(self) -> tuple[int, str] | str:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"{self._path} was neither answered nor cut"
        return self._outcome

    def _run(self) -> None:
        try:
            self._connection.request("GET", self._path)
            response = self._connection.getresponse()
            self._outcome = (response.status, response.read().decode())
        except (OSError, http.client.HTTPException):
            self._outcome = "cut"
        finally:
            self._connection.close()


def hold(server: Server, path: str = "/hold") -> tuple[Pending, int]:
    """Begin a request to ``GATE`` and wait until it runs; return it and the pid of its worker."""
    note = server.folder / ("held" + path.replace("/", "-"))
    note.unlink(missing_ok=True)
    pending = Pending(server, path)
    wait_for(lambda: note.exists() and note.read_text(), f"{path} to run")
    return pending, int(note.read_text())


def release(server: Server) -> None:
    """Let all held requests end."""
    (server.folder / "release").touch()


class Crowd:
    """Clients that send one request after the other, each on a connection of its own or on a kept one.

    ``outcomes`` counts ``200``, other statuses, ``lost`` (sent, and not answered in full) and ``refused``; a
    client that was refused ends. A kept connection that the server announced to close is not used again.
    """

    def __init__(self, address: tuple[str, int] | str, size: int, keep: bool = False) -> None:
        self.outcomes: Counter[str] = Counter()
        self._address = address
        self._keep = keep
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def wait_until_served(self, count: int) -> None:
        wait_for(lambda: self.outcomes["200"] >= count, f"{count} answers, got {self.outcomes}")

    def leave(self) -> Counter[str]:
        """Have every client end after its request; return the outcomes."""
        self._over.set()
        return self.wait()

    def wait(self) -> Counter[str]:
        """Wait until every client was refused; return the outcomes."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"a client waits for an answer in vain: {self.outcomes}"
        return self.outcomes

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                connection = self._connect()
            except OSError:
                self.outcomes["refused"] += 1
                return
            try:
                while not self._over.is_set() and self._ask(connection):
                    pass
            except (OSError, http.client.HTTPException):
                self.outcomes["lost"] += 1
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """Send one request; return whether the connection is good for another."""
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        self.outcomes[str(response.status)] += 1
        return self._keep and not response.will_close

    def _connect(self) -> http.client.HTTPConnection:
        if isinstance(self._address, tuple):
            connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_S)
            connection.connect()
            return connection
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(PATIENCE_S)
            sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        connection = http.client.HTTPConnection("localhost")
        connection.sock = sock
        return connection


def zombies_of(pid: int) -> list[int]:
    """Return the dead children of a process that it has not reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == pid:
                found.append(int(entry.name))
    return found
