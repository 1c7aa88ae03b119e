"""Whatever an application does, the client can tell a whole response from one that is cut, and where it ends."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_agreement import Machine

BLOCKS = st.lists(st.sampled_from([b"", b"a", b"hello", b"0\r\n\r\n", b"x" * 3000]), max_size=4)
END = b"GET /end HTTP/1.1\r\nHost: a\r\n\r\n"
OURS = b"500 Internal Server Error\n"


@dataclass(frozen=True)
class Script:
    """What the application does for one request, in the order of the fields."""

    method: str
    version: str
    status: str
    length: int | None
    written: list[bytes]
    restarts: bool
    blocks: list[bytes]
    fails: bool
    """Raises, after the blocks."""
    whole: bool
    """Returns a list."""


SCRIPTS = st.builds(
    Script,
    st.sampled_from(["GET", "GET", "HEAD"]),
    st.sampled_from(["1.1", "1.1", "1.0"]),
    st.sampled_from(["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"]),
    st.none() | st.integers(0, 12) | st.just(3000),
    BLOCKS,
    st.booleans(),
    BLOCKS,
    st.booleans(),
    st.booleans(),
)


class Application:
    """Does what the script says; for ``/end``, something simple."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.open = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/end":
            start_response("200 OK", [])
            return [b"end"]
        script = self.script
        assert script is not None
        headers = [] if script.length is None else [("Content-Length", str(script.length))]
        write = start_response(script.status, headers)
        for block in script.written:
            write(block)
        if script.restarts:
            try:
                raise LookupError("restarts")
            except LookupError:
                start_response(script.status, headers, sys.exc_info())
        if script.whole and script.fails:
            raise LookupError("fails")
        if script.whole:
            return script.blocks
        self.open += 1
        return Body(self, script)


class Body:
    def __init__(self, application: Application, script: Script) -> None:
        self._application = application
        self._script = script

    def __iter__(self) -> Iterator[bytes]:
        yield from self._script.blocks
        if self._script.fails:
            raise LookupError("fails")

    def close(self) -> None:
        self._application.open -= 1


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Application, Machine]]:
    application = Application()
    machine = Machine(app=application)
    yield application, machine
    machine.close()


@given(script=SCRIPTS)
@settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_what_is_whole_is_right_and_what_is_not_shows(
    served: tuple[Application, Machine], script: Script
) -> None:
    check_script(*served, script)


def check_script(application: Application, machine: Machine, script: Script) -> None:
    application.script = script
    keep = "Connection: keep-alive\r\n" if script.version == "1.0" else ""
    request = f"{script.method} / HTTP/{script.version}\r\nHost: a\r\n{keep}\r\n".encode()
    answered = machine.connection([request + END]).answered
    assert application.open == 0

    said = b"".join(script.written) + (b"" if script.whole and script.fails else b"".join(script.blocks))
    written = any(script.written)
    failed = script.fails or (script.restarts and written)
    if script.restarts and written:
        said = b"".join(script.written)
    status = int(script.status[:3])
    if failed and not said:
        status, said, length = 500, OURS, None
    else:
        length = script.length
    bodiless = script.method == "HEAD" or status in (204, 304)
    wanted = said if length is None else said[:length]

    head, _, rest = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    kept = b"Connection: close" not in head
    given_length = re.search(rb"Content-Length: ([0-9]+)", head)
    if bodiless:
        whole, body = True, b""
    elif b"Transfer-Encoding: chunked" in head:
        whole, body, rest = unchunked(rest)
        assert not (whole and failed), "a failure looks complete"
    elif given_length:
        body, rest = rest[: int(given_length[1])], rest[int(given_length[1]) :]
        whole = len(body) == int(given_length[1])
    else:
        assert not kept
        whole, body, rest = False, rest, b""
    assert wanted.startswith(body)
    if whole and not bodiless:
        assert body == wanted
    if whole and kept:
        # After a failure that came when all was said, the connection ends although that was not announced.
        assert (rest.startswith(b"HTTP/1.1 200 OK\r\n") and rest.endswith(b"\r\n\r\nend")) or (
            failed and not rest
        )
    else:
        assert rest == b""


def unchunked(data: bytes) -> tuple[bool, bytes, bytes]:
    """Return whether the last chunk is there, the body, and what follows."""
    body = b""
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return data[:2] == b"\r\n", body, data[2:]
        body += data[:size]
        data = data[size + 2 :]
    return False, body, b""
