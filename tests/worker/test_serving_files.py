"""``wsgi.file_wrapper``: the kernel sends regular files from the loop, everything else is read."""

# ruff: noqa: SIM115 (what opens a file here is not what closes it)

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from django.core.files import File
from serving_harness import echo, eventually, serving

from prefork.worker.files import FileRange, FileWrapper

CONTENT = random.Random(1).randbytes(24 << 20)  # more than the socket buffers of both sides


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "content"
    path.write_bytes(CONTENT)
    return path


def held(path: Path) -> int:
    """Return how many descriptors of this process are open on a file, deleted or not."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return sum(link.removesuffix(" (deleted)") == str(path) for link in links)


class FileApp:
    """Answers with the file from ``offset`` on; keeps what it opened."""

    def __init__(self, path: Path, *headers: tuple[str, str], offset: int = 0) -> None:
        self.path = path
        self.headers = headers
        self.offset = offset
        self.opened: list[Any] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/echo":
            return echo(environ, start_response)
        file = open(self.path, "rb")
        file.read(self.offset)
        self.opened.append(file)
        start_response("200 OK", list(self.headers))
        return environ["wsgi.file_wrapper"](file)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize(
    ("headers", "offset", "expected"),
    [
        ((), 0, CONTENT),
        ((), len(CONTENT) - 100_000, CONTENT[-100_000:]),
        ((), len(CONTENT) - 5, CONTENT[-5:]),
        ((), len(CONTENT), b""),
        ((("Content-Length", str(len(CONTENT))),), 0, CONTENT),
        ((("Content-Length", "70000"),), 1000, CONTENT[1000:71000]),
        ((("Content-Length", "7"),), 1000, CONTENT[1000:1007]),
    ],
    ids=["whole", "end", "small", "nothing", "length", "range", "small-range"],
)
def test_what_is_sent_of_a_file(
    path: Path, tmp_path: Path, family: int, headers: Any, offset: int, expected: bytes
) -> None:
    app = FileApp(path, *headers, offset=offset)
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
    listener.listen()
    with listener, serving(app, listener=listener) as server:
        client = server.connect()
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\nHEAD / HTTP/1.1\r\nHost: t\r\n\r\n")
            status, fields, body = client.response()
            assert (status, fields["content-length"], body) == (200, str(len(expected)), expected)
            _, fields, _ = client.response(body=False)
            assert fields.get("content-length") == (str(len(expected)) if expected else None)
        eventually(lambda: all(file.closed for file in app.opened))
        assert server.log.lines == []


def test_a_slow_reader_of_a_file_holds_a_descriptor_and_nothing_else(path: Path, tmp_path: Path) -> None:
    path = shutil.copy(path, tmp_path / "content")
    app = FileApp(path)
    with serving(app) as server:
        readers = [server.connect() for _ in range(3)]
        for reader in readers:
            reader.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: len(app.opened) == 3)
        # The application is done with the file, and the file is gone; what is unsent of it is not in memory.
        assert server.connect().get("/echo")[0] == 200
        path.unlink()
        assert all(file.closed for file in app.opened)
        eventually(lambda: held(path) == 3)
        assert server.server.storage.memory_bytes == 0
        readers[0].close()
        eventually(lambda: held(path) == 2)
        assert readers[1].response()[2] == readers[2].response()[2] == CONTENT
        eventually(lambda: held(path) == 0)


def test_a_file_that_shrinks_does_not_look_complete(path: Path, tmp_path: Path) -> None:
    path = shutil.copy(path, tmp_path / "content")
    app = FileApp(path)
    with serving(app) as server:
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        eventually(lambda: app.opened)
        server.call(lambda: os.truncate(path, 1000))
        assert len(client.rest()) < len(CONTENT)


def test_a_length_beyond_the_file_is_told(path: Path) -> None:
    with serving(FileApp(path, ("Content-Length", str(len(CONTENT) + 1)))) as server:
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.rest().endswith(CONTENT[-1000:])
        assert server.log.named("response-short")


def test_without_a_spare_descriptor_the_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(fd: int) -> int:
        raise OSError(24, "Too many open files")

    with serving(FileApp(path)) as server:
        monkeypatch.setattr(os, "dup", no_more)
        assert server.connect().get()[2] == CONTENT


def _kinds(path: Path) -> Iterator[tuple[Any, FileRange | None]]:
    """Yield what an application may wrap, after one byte was read, and whether the kernel can send the rest."""
    rest = (1, len(CONTENT) - 1)
    for mode, buffering in (("rb", -1), ("rb", 0), ("r+b", -1)):
        file = open(path, mode, buffering)
        yield file, FileRange(file.fileno(), *rest)
    named = tempfile.NamedTemporaryFile()
    named.write(b"abc")
    named.seek(0)
    yield named, FileRange(named.fileno(), 1, 2)
    django = File(open(path, "rb"))
    yield django, FileRange(django.fileno(), *rest)
    yield gzip.open(path.with_suffix(".gz")), None
    yield io.BufferedReader(gzip.open(path.with_suffix(".gz"))), None
    yield io.BytesIO(b"abc"), None
    yield open("/proc/self/status", "rb"), None
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    yield open(reading, "rb"), None


def test_which_files_the_kernel_sends(path: Path) -> None:
    """One that has a ``fileno()`` need not be what is in it: GzipFile."""
    with gzip.open(path.with_suffix(".gz"), "wb") as file:
        file.write(b"unpacked")
    for file, expected in _kinds(path):
        with file:
            file.read(1)
            assert FileWrapper(file).range() == expected, file
            assert b"".join(FileWrapper(file)) != b""
        assert FileWrapper(file).range() is None


def test_flask_hands_over_the_file_itself(path: Path) -> None:
    app = flask.Flask(__name__)
    app.route("/")(lambda: flask.send_file(path))
    returned = []

    def spying(environ: Any, start_response: Any) -> Any:
        returned.append(app(environ, start_response))
        return returned[-1]

    with serving(spying) as server:
        status, fields, body = server.connect().get()
        assert (status, fields["content-length"], body) == (200, str(len(CONTENT)), CONTENT)
        assert server.connect().get("/", "Range: bytes=5-9")[2] == CONTENT[5:10]
    assert type(returned[0]) is FileWrapper
