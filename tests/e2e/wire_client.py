"""A client that shows what is on the wire, and a gate at which an application waits for the test."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import PATIENCE_S, Server, running, wait_for

APPS = Path(__file__).parent / "apps"


@dataclass
class Answer:
    """One response; ``framed`` is its body as it was on the wire."""

    line: str
    headers: dict[str, str]
    framed: bytes
    body: bytes
    cookies: list[str]
    """The one field that may be repeated."""

    @property
    def status(self) -> int:
        return int(self.line.split()[1])


class Client:
    """A connection that reads one response at a time."""

    def __init__(self, address: Any, receive_bytes: int = 0) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(PATIENCE_S)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if not isinstance(address, str):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request on HTTP/1.1."""
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *fields, *length, "", ""])
        self.send(head.encode("latin-1") + body)

    def get(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
        self.ask(target, *fields, method=method, body=body)
        return self.answer(head_only=method == "HEAD")

    def answer(self, head_only: bool = False) -> Answer:
        """Read one response, whichever way it is framed."""
        line = self.file.readline().decode("latin-1")
        assert line.startswith("HTTP/1.1 "), line
        assert line.endswith("\r\n"), line
        headers: dict[str, str] = {}
        cookies: list[str] = []
        while field := self.file.readline().rstrip(b"\r\n").decode("latin-1"):
            name, value = field.split(": ", 1)
            if name.lower() == "set-cookie":
                cookies.append(value)
            else:
                assert name.lower() not in headers, field
            headers[name.lower()] = value
        framed = body = b""
        if head_only or line.split()[1] in ("100", "204", "304"):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            framed, body = self._chunks()
        elif "content-length" in headers:
            framed = body = self.file.read(int(headers["content-length"]))
        else:
            framed = body = self.file.read()
        return Answer(line.rstrip("\r\n"), headers, framed, body, cookies)

    def rest(self) -> bytes:
        """Read to the end of the connection; a reset fails."""
        return self.file.read()

    def is_reset(self) -> bool:
        """Read to the end of the connection; return whether that was a reset."""
        try:
            self.file.read()
        except ConnectionResetError:
            return True
        return False

    def has_ended(self) -> bool:
        """Return whether the server has closed the idle connection."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def rest_until_cut(self) -> bytes:
        """Read to the end of the connection, be it a reset or not."""
        received = b""
        try:
            while data := self.file.read1():
                received += data
        except ConnectionResetError:
            pass
        return received

    def abort(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.sock.close()

    def _chunks(self) -> tuple[bytes, bytes]:
        framed, body = b"", b""
        while True:
            line = self.file.readline()
            size = int(line, 16)
            data = self.file.read(size + 2)
            framed += line + data
            if not size:
                return framed, body
            body += data[:-2]


@dataclass
class Visitor:
    """A request that waits at the gate."""

    tag: str
    pid: int
    thread: int
    sock: socket.socket

    def release(self) -> None:
        self.sock.close()


class Gate:
    """Where requests say that they run, and wait for the test; see ``pass_gate`` in ``apps/wire.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(256)
        self._listener.settimeout(PATIENCE_S)
        self._open: list[socket.socket] = []

    def visitor(self) -> Visitor:
        """Wait for the next request that arrives at the gate."""
        sock, _ = self._listener.accept()
        self._open.append(sock)
        sock.settimeout(PATIENCE_S)
        with sock.makefile("r") as file:
            tag, pid, thread = file.readline().split()
        return Visitor(tag, int(pid), int(thread), sock)

    def nobody(self) -> bool:
        """Return whether no request waits that was not yet met."""
        self._listener.setblocking(False)
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return True
        finally:
            self._listener.settimeout(PATIENCE_S)
        sock.close()
        return False

    def release_all(self) -> None:
        """Let all go on that wait now, at the end of a test, whatever its outcome."""
        while not self.nobody():
            pass
        while self._open:
            self._open.pop().close()

    def close(self) -> None:
        self.release_all()
        self._listener.close()


@dataclass
class Wire:
    """A running server with ``apps/wire.py``."""

    server: Server
    gate: Gate
    unix_path: str
    threads: int = 1

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server.port)

    def connect(self, receive_bytes: int = 0, unix: bool = False) -> Client:
        return Client(self.unix_path if unix else self.address, receive_bytes)

    @property
    def notes(self) -> list[str]:
        path = self.server.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_note(self, line: str) -> None:
        wait_for(lambda: line in self.notes, f"the note {line!r}")


@contextmanager
def wire(folder: Path, config: str = "", app: str = "wire:app") -> Iterator[Wire]:
    """Serve an application of ``apps`` over TCP and a unix socket with the given lines of config."""
    gate = Gate(folder / "gate")
    unix_path = str(folder / "http.sock")
    try:
        with running(folder) as server:
            server.configure(
                f"app: {app}\npythonpath: [{APPS}]\nlisten: [127.0.0.1:0, unix:{unix_path}]\n"
                f"env: {{GATE: {gate.path}, NOTES: {folder}/notes}}\n{config}",
                app=None,
            )
            server.serve(env={"PYTHONFAULTHANDLER": "1"})
            yield Wire(server, gate, unix_path)
    finally:
        gate.close()


class Load:
    """Clients that ask one request after the other until they are told to stop, or cannot connect.

    A request on an established connection that is not answered whole is in ``failures``. As a client should,
    they look for the end of a kept connection before they use it again.
    """

    def __init__(self, address: Any, clients: int, target: str, *, keep_alive: bool) -> None:
        self.failures: list[str] = []
        self.answered = 0
        self.refused = 0
        self._address = address
        self._target = target
        self._fields = [] if keep_alive else ["Connection: close"]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait for all clients to stop."""
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()

    def wait_for(self, answered: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.answered + answered
        wait_for(lambda: self.answered >= wanted or self.failures, f"{answered} more answers")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                client = Client(self._address)
            except OSError:
                with self._lock:
                    self.refused += 1
                return
            try:
                with client:
                    self._use(client)
            except Exception as error:
                self.failures.append(f"{error!r}")

    def _use(self, client: Client) -> None:
        while not self._stop.is_set():
            answer = client.get(self._target, *self._fields)
            assert answer.status == 200, answer
            with self._lock:
                self.answered += 1
            if answer.headers.get("connection") == "close" or client.has_ended():
                return


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
