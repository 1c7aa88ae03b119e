"""An application with a page for each behaviour that the tests look at on the wire."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

Environ = dict[str, Any]
PLAIN = [("Content-Type", "text/plain")]


def pass_gate(tag: str) -> None:
    """Say that we are here, and wait until the test opens the gate; see ``wire_client.Gate``."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["GATE"])
        sock.sendall(f"{tag} {os.getpid()} {threading.get_native_id()}\n".encode())
        sock.recv(1)


def note(line: str) -> None:
    """Leave a line for the test to find."""
    fd = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


class Blocks:
    """An iterable that notes its ``close()``, and waits at the gate wherever a block is None."""

    def __init__(self, tag: str, *blocks: Any) -> None:
        self.tag = tag
        self.blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            if block is None:
                pass_gate(self.tag)
            elif isinstance(block, BaseException):
                raise block
            else:
                yield block

    def close(self) -> None:
        note(f"closed {self.tag}")


def environ(env: Environ, start_response: Any) -> Any:
    shown = {name: value for name, value in env.items() if isinstance(value, str | bool | tuple)}
    shown["pid"] = os.getpid()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]


def echo(env: Environ, start_response: Any) -> Any:
    body = f"{env['REQUEST_METHOD']} {env['QUERY_STRING']} ".encode() + env["wsgi.input"].read()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def read(env: Environ, start_response: Any) -> Any:
    """Read a body of lines with each method of ``wsgi.input``."""
    given = env["wsgi.input"]
    parts = [given.read(3), given.readline(), given.readline(2), given.readline(), given.readlines(4)]
    parts += [
        next(iter(given)),
        given.read(0),
        given.read(),
        given.read(),
        given.readline(),
        given.readlines(),
    ]
    start_response("200 OK", PLAIN)
    return [repr(parts).encode()]


def write(env: Environ, start_response: Any) -> Any:
    send = start_response("200 OK", PLAIN)
    send(b"one ")
    send(b"")
    send(b"two ")
    return [b"three"]


def stream(env: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return Blocks(env["QUERY_STRING"], b"one ", b"", b"two ", b"three")


def gated(env: Environ, start_response: Any) -> Any:
    """Send a block, wait at the gate, then go on for longer than any buffer holds."""
    start_response("200 OK", PLAIN)
    return Blocks(env["QUERY_STRING"], b"one ", None, *[bytes(1024 * 1024)] * 8)


def exc_info_before(env: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Service Unavailable", PLAIN, sys.exc_info())
    return [b"replaced"]


def exc_info_after(env: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)(b"some")
    try:
        raise ValueError("too late for this")
    except ValueError:
        start_response("503 Service Unavailable", PLAIN, sys.exc_info())
    return [b"never"]


def file(env: Environ, start_response: Any) -> Any:
    class Noting(BytesIO):
        def close(self) -> None:
            note(f"closed file {self.closed}")
            super().close()

    start_response("200 OK", PLAIN)
    return env["wsgi.file_wrapper"](Noting(bytes(range(256)) * 1000), 8192)


def errors(env: Environ, start_response: Any) -> Any:
    print("first of wsgi.errors", file=env["wsgi.errors"])
    env["wsgi.errors"].writelines(["second of", " wsgi.errors\n"])
    env["wsgi.errors"].write("third of wsgi.errors")
    env["wsgi.errors"].flush()
    start_response("200 OK", PLAIN)
    return [b"said"]


def big(env: Environ, start_response: Any) -> Any:
    """Answer with as many KiB as the query says."""
    start_response("200 OK", PLAIN)
    return [bytes(1024) * int(env["QUERY_STRING"])]


def wait(env: Environ, start_response: Any) -> Any:
    pass_gate(env["QUERY_STRING"])
    return echo(env, start_response)


def nap(env: Environ, start_response: Any) -> Any:
    """Sleep for so many milliseconds, as an application that asks a database does."""
    time.sleep(int(env["QUERY_STRING"]) / 1000)
    return echo(env, start_response)


RAISED = {
    "error": LookupError("spam"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "generator-exit": GeneratorExit(),
}


def fail(env: Environ, start_response: Any) -> Any:
    """Raise ``what``; when ``after``, after a first block; with a ``length``, having promised it."""
    query = {name: values[0] for name, values in parse_qs(env["QUERY_STRING"]).items()}
    error = RAISED[query["what"]]
    if "after" not in query:
        raise error
    headers = [("Content-Length", query["length"])] if "length" in query else []
    start_response("200 OK", [*PLAIN, *headers])
    return Blocks("fail", b"begun", error)


def short(env: Environ, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "10")])
    return [b"short"]


def validated(env: Environ, start_response: Any) -> Any:
    def app(env: Environ, start_response: Any) -> Any:
        body = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", PLAIN)
        return [body]

    env["PATH_INFO"] = "/" + env["PATH_INFO"].lstrip("/")
    return validator(app)(env, start_response)


PAGES: dict[str, Callable[[Environ, Any], Any]] = {
    page.__name__: page
    for page in (
        environ, echo, read, write, stream, gated, exc_info_before, exc_info_after, file, errors, big, wait, nap,
        fail,
        short, validated,
    )
}  # fmt: skip


def app(env: Environ, start_response: Any) -> Any:
    return PAGES[env["PATH_INFO"].strip("/").partition("/")[0]](env, start_response)
