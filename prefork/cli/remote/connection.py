"""A connection to the control socket of a running server. Runs in a command."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from prefork.control_protocol import VERSION, encode, shown
from prefork.errors import ExitStatus, PreforkError

Answer = dict[str, Any]

MOST_ANSWER_BYTES = 64 << 20


class NoServerError(PreforkError):
    """Nobody is there, or it is not permitted to speak to him."""

    status = ExitStatus.NO_SERVER


class NotPermittedError(NoServerError):
    """The file of its socket may not be opened by who asks."""


class TimedOutError(PreforkError):
    """The server did not answer in time; what it was asked to do may go on."""

    status = ExitStatus.TIMEOUT


class ConnectionEnded(PreforkError):
    """The server has closed the connection without an answer."""


class Connection:
    """Connected to a server; ``pid`` is 0 if that cannot be seen from here, being in another container."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.address = address
        self.pid, self.uid, _ = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        self._sock = sock
        self._received = b""

    @classmethod
    def open(cls, address: str, deadline: float) -> Connection:
        """Connect until ``deadline`` (monotonic seconds). Raises ``NoServerError`` or ``TimedOutError``."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(address)
                    return cls(sock, address)
                except BlockingIOError:  # too many are connecting
                    _left(deadline, f"the server at {shown(address)} accepts nobody")
                    time.sleep(0.05)
        except OSError as error:
            sock.close()
            raise _explained(error, address) from error
        except PreforkError:
            sock.close()
            raise

    def ask(
        self,
        command: str,
        deadline: float,
        on_progress: Callable[[Answer], None] = lambda _: None,
        **arguments: Any,
    ) -> Answer:
        """Return the last line of the answer. Raises ``TimedOutError``, or ``ConnectionEnded`` if there is none."""
        self._sock.settimeout(_left(deadline, f"no answer to {command} yet"))
        try:
            self._sock.sendall(encode({"v": VERSION, "command": command, **arguments}))
        except TimeoutError:
            _left(0.0, f"the server at {shown(self.address)} does not read what it is asked")
        except OSError:
            pass  # it may have said why before it closed the connection
        for line in self._lines(deadline, f"no answer to {command} yet"):
            if line.get("type") != "progress":
                return line
            on_progress(line)
        raise ConnectionEnded(f"the server at {shown(self.address)} closed the connection without an answer")

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _lines(self, deadline: float, what: str) -> Iterator[Answer]:
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                answer = _read(line)
                if answer is None:
                    raise NoServerError(
                        f"what listens at {shown(self.address)} is not the control socket of prefork"
                    )
                yield answer
                what = f"{what.partition(':')[0]}: {answer.get('message')}"
                continue
            self._sock.settimeout(_left(deadline, what))
            try:
                data = self._sock.recv(1 << 20)
            except TimeoutError:
                continue  # the deadline has passed
            except OSError:
                data = b""
            if not data:
                return
            self._received += data
            if len(self._received) > MOST_ANSWER_BYTES:
                raise PreforkError(f"the server at {shown(self.address)} answers too much")


def _read(line: bytes) -> Answer | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "type" in answer else None


def _left(deadline: float, what: str) -> float:
    """Return the seconds until the deadline. Raises ``TimedOutError`` if there are none."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimedOutError(f"timed out, the server goes on with it: {what}")
    return left_s


def _explained(error: OSError, address: str) -> NoServerError:
    where = shown(address)
    match error.errno:
        case errno.ENOENT | errno.ECONNREFUSED | errno.ENOTDIR:
            return NoServerError(f"no server listens at {where}: is it running?")
        case errno.EACCES | errno.EPERM:
            return NotPermittedError(f"not permitted to speak to the server at {where}: {_who_may(address)}")
    return NoServerError(f"cannot connect to {where}: {error.strerror}")


def _who_may(address: str) -> str:
    """Return who may use a control socket that we may not."""
    try:
        uid = os.stat(address).st_uid
    except OSError:
        return "only its own user and root may"
    return "only root may" if uid == 0 else f"only uid {uid} and root may"
