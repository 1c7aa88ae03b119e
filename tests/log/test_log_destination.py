"""Destinations: nothing that a reader, a disk or a fork does may block, raise, or write a line twice."""

import fcntl
import os
import socket
import stat
import threading

import pytest

from prefork.errors import ConfigError
from prefork.log import Destination
from prefork.log.destination import BUFFER_BYTES, CHUNK_BYTES

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe():
    """A small pipe and a destination that writes to it: ``(read end, destination)``."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    destination = Destination(writer)
    yield reader, destination
    destination.close()
    os.close(writer)
    os.close(reader)


def take(reader):
    """Return all that can be read now."""
    data = b""
    try:
        while more := os.read(reader, 1 << 20):
            data += more
    except BlockingIOError:
        pass
    return data


def test_stalled_reader_loses_only_what_exceeds_the_buffer(pipe):
    reader, destination = pipe
    written = 2 * BUFFER_BYTES // len(LINE)
    assert sum(destination.write(b"%099d\n" % number) for number in range(written)) == 0
    seen, lost = [], 0
    while not lost:
        seen += take(reader).splitlines()
        lost = destination.flush(0.01)
    seen += take(reader).splitlines()
    assert len(seen) + lost == written
    assert seen == [b"%099d" % number for number in range(len(seen))]
    assert destination.write(LINE) == 0, "a loss is told once"
    assert take(reader) == LINE


def test_pipe_is_nonblocking_for_us_alone():
    reader, writer = os.pipe()
    destination = Destination(writer)
    assert (os.get_blocking(writer), os.get_blocking(destination.fd)) == (True, False)
    destination.close()
    os.close(reader)
    os.close(writer)


def test_writes_to_a_pipe_are_atomic_and_end_at_line_ends(pipe, monkeypatch):
    reader, destination = pipe
    chunks = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: chunks.append(bytes(data)) or write(fd, data))
    lines = b"".join(b"y" * length + b"\n" for length in (1000, 3000, 90, 4095, 10)) + b"z" * 5000 + b"\n"
    destination.write(lines)
    seen = b""
    while len(seen) < len(lines):
        seen += take(reader)
        destination.flush(0.01)
    assert seen == lines
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert [chunk for chunk in chunks if not chunk.endswith(b"\n")] == [b"z" * CHUNK_BYTES] * chunks.count(
        b"z" * CHUNK_BYTES
    )


@pytest.mark.parametrize("where", ["/dev/full", "closed pipe", "closed socket"])
def test_a_dead_destination_is_harmless(where):
    if where == "closed pipe":
        reader, fd = os.pipe()
    elif where == "closed socket":
        reader, fd = (end.detach() for end in socket.socketpair())
    else:
        reader, fd = os.open("/dev/null", os.O_RDONLY), os.open(where, os.O_WRONLY)
    destination = Destination(fd)
    os.close(reader)
    for _ in range(2 * BUFFER_BYTES // 8192):
        assert destination.write(b"x" * 8191 + b"\n") == 0
    assert destination.flush(10) == 0, "returns at once: waiting would change nothing"
    destination.close()
    os.close(fd)


def test_socket_does_not_block():
    left, right = socket.socketpair()
    with left, right:
        destination = Destination(right.fileno())
        for _ in range(10_000):
            destination.write(LINE)
        assert right.getblocking(), "the other users of the socket are not touched"
        received = left.recv(1 << 20)
        assert received.startswith(LINE)
        destination.close()


def test_without_proc_the_descriptor_is_shared_and_still_does_not_block(monkeypatch):
    real_open = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest: real_open(str(path).replace("/proc/self/fd", "/nonexistent"), *rest)
    )
    reader, writer = os.pipe()
    destination = Destination(writer)
    assert "cannot open /proc/self/fd/" in destination.warning
    for _ in range(2000):
        destination.write(LINE)
    assert os.read(reader, 1 << 20).startswith(LINE)
    for fd in (reader, writer, destination.fd):
        os.close(fd)


def test_files_are_appended_to_and_reopened_under_the_same_number(tmp_path):
    path, old = tmp_path / "x.log", tmp_path / "x.log.1"
    path.write_bytes(b"before\n")
    master = Destination.open(str(path))
    child = Destination.open(str(path))  # as if inherited: a descriptor of its own to replace
    master.write(b"one\n")
    os.rename(path, old)
    number = child.fd
    assert master.reopen() is None
    child.replace(os.dup(master.fd))
    master.write(b"two\n")
    child.write(b"three\n")
    assert (old.read_bytes(), path.read_bytes()) == (b"before\none\n", b"two\nthree\n")
    assert child.fd == number
    assert not os.get_inheritable(child.fd)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~_umask()
    os.rename(tmp_path, tmp_path.with_name("moved"))
    assert isinstance(master.reopen(), FileNotFoundError)
    assert master.write(b"four\n") == 0, "the old file is written on"
    os.rename(tmp_path.with_name("moved"), tmp_path)
    assert path.read_bytes().endswith(b"three\nfour\n")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_new_file_does_not_begin_inside_a_line(pipe, tmp_path):
    reader, destination = pipe
    destination.write(b"z" * 5000 + b"\nwhole\n")
    destination.replace(os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT))
    assert destination.write(b"next\n") == 1
    assert (tmp_path / "new").read_bytes() == b"whole\nnext\n"
    assert len(take(reader)) == CHUNK_BYTES


def test_a_child_does_not_write_what_its_parent_has_buffered(pipe):
    reader, destination = pipe
    for _ in range(100):
        destination.write(LINE)
    assert destination._turn.take(), "as if another thread of the parent were writing"
    pid = os.fork()
    if pid == 0:
        take(reader)
        destination.write(b"child\n")
        os._exit(0)
    destination._turn.give_back()
    assert os.waitpid(pid, 0)[1] == 0
    assert take(reader) == b"child\n"
    destination.flush(0.01)
    assert set(take(reader).splitlines(keepends=True)) == {LINE}


def test_threads_lose_and_mix_nothing(tmp_path):
    destination = Destination.open(str(tmp_path / "x.log"))
    threads = [
        threading.Thread(target=lambda n=n: [destination.write(b"%d %d\n" % (n, i)) for i in range(500)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    destination.flush(10)
    lines = (tmp_path / "x.log").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%d %d" % (n, i) for n in range(4) for i in range(500))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("/nonexistent/x.log", "log.to: cannot open /nonexistent/x.log: No such file or directory"),
        ("/tmp", "log.to: cannot open /tmp: Is a directory"),
    ],
)
def test_a_path_that_cannot_be_opened(where, message):
    with pytest.raises(ConfigError) as caught:
        Destination.open(where)
    assert str(caught.value) == message


def test_off_and_closed_descriptors_take_everything():
    fd = os.open("/dev/null", os.O_WRONLY)
    os.close(fd)
    for destination in (Destination.open("off"), Destination(fd)):
        assert destination.write(LINE) == 0
        assert destination.fds == ()
        assert destination.flush(1) == 0
