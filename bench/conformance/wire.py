"""Send the bytes of a case, and see what comes of them: at the client, and in the application."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SILENCE_S = 1.0
"""A server that says nothing for so long waits for more."""
GRACE_S = 0.02
"""How long the application may take to report a call to which the client has got another answer."""
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n"
"""Sent behind every case: is it taken for a request, or for a part of the one before?"""

_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


@dataclass
class Response:
    """One final response, as a client frames it."""

    status: int
    fields: dict[str, str]
    body: bytes
    complete: bool
    """Does it end before the connection does?"""


@dataclass
class Outcome:
    """What came of the bytes of one case."""

    seen: list[dict[str, str]] = field(default_factory=list)
    """The requests that the application has read to their end."""
    responses: list[Response] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    stray: bytes = b""
    """What follows the last response and is none."""
    received: bytes = b""
    waited: bool = False
    """Did the server want more bytes?"""
    closed: bool = False
    reset: bool = False

    def summary(self) -> str:
        """Return a few words."""
        told = ", ".join(map(str, [*self.interim, *(response.status for response in self.responses)]))
        calls = [call.get("PATH_INFO", "?") for call in self.seen]
        words = [told or ("no HTTP" if self.received else "no answer")]
        if calls:
            first = self.seen[0]
            body = f" with body {first['body'][:20]!r}" if first["body"] else ""
            words.append(f"served {' and '.join(calls)}{body}")
        if self.waited:
            words.append("waited for more")
        if not self.closed:
            words.append("left open")
        return "; ".join(words).translate(_SHOWN)


class Reports:
    """Where the application tells what it has seen."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def close(self) -> None:
        self._socket.close()

    def take(self, grace_s: float = 0.0) -> list[dict[str, str]]:
        """Return the complete requests since the last call."""
        time.sleep(grace_s)
        taken = []
        with suppress(BlockingIOError):
            while True:
                taken.append(json.loads(self._socket.recv(1 << 20, socket.MSG_DONTWAIT)))
        return [seen for seen in taken if seen["complete"]]


def run(
    port: int,
    reports: Reports,
    data: bytes,
    *,
    then: bytes = NEXT,
    half_close: bool = False,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Send ``data`` and ``then``, and read until the server closes, or is silent."""
    reports.take()
    outcome = Outcome()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with suppress(OSError):
            client.sendall(data + then)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        client.settimeout(silence_s)
        receive(client, outcome)
        if not outcome.closed:
            outcome.waited = True
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            receive(client, outcome)
    outcome.seen = reports.take(GRACE_S)
    parse(outcome, data[:5] == b"HEAD ")
    return outcome


def converse(port: int, reports: Reports, head: bytes, body: bytes) -> Outcome:
    """Send a head, wait for ``100 Continue`` or silence, then send the body and see the end."""
    reports.take()
    outcome = Outcome()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, suppress(OSError):
        client.sendall(head)
        client.settimeout(SILENCE_S)
        with suppress(TimeoutError):
            outcome.received += client.recv(65536)
        client.sendall(body + NEXT)
        receive(client, outcome)
    outcome.seen = reports.take(GRACE_S)
    parse(outcome, head=False)
    return outcome


def receive(client: socket.socket, outcome: Outcome) -> None:
    """Read until the end, or until nothing comes."""
    try:
        while piece := client.recv(65536):
            outcome.received += piece
        outcome.closed = True
    except TimeoutError:
        pass
    except OSError:
        outcome.closed = outcome.reset = True


def parse(outcome: Outcome, head: bool) -> None:
    """Find the responses in what was received, as a client does; ``head``: the first request was a HEAD."""
    data = outcome.received
    interim, responses = outcome.interim, outcome.responses
    while True:
        top, found, rest = data.partition(b"\r\n\r\n")
        line, *lines = top.decode("latin-1").split("\r\n")
        status = re.match(r"HTTP/1\.[0-9] ([1-5][0-9][0-9])( |$)", line)
        if not found or not status:
            outcome.stray = data
            return
        fields = {}
        for text in lines:
            name, _, value = text.partition(":")
            fields[name.strip().lower()] = value.strip()
        number = int(status[1])
        if number < 200:
            interim.append(number)
            data = rest
            continue
        length = fields.get("content-length", "")
        bodiless = number in (204, 304) or (head and not responses)
        if bodiless:
            body, complete, data = b"", True, rest
        elif "chunked" in fields.get("transfer-encoding", "").lower():
            body, complete, data = unchunk(rest)
        elif length.isdecimal():
            body, data = rest[: int(length)], rest[int(length) :]
            complete = len(body) == int(length)
        else:
            body, complete, data = rest, False, b""
        responses.append(Response(number, fields, body, complete))


def unchunk(data: bytes) -> tuple[bytes, bool, bytes]:
    """Return the body, whether its last chunk is there, and what follows."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        try:
            count = int(size.split(b";")[0], 16)
        except ValueError:
            return body, False, b""
        if not count:
            return body, data[:2] == b"\r\n", data[2:]
        body += data[:count]
        data = data[count + 2 :]
    return body, False, b""
