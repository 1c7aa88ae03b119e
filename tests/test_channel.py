"""Channels: messages with descriptors, the sender's pid, and peers that misbehave."""

import gc
import os
import socket
from collections.abc import Iterator

import pytest

from prefork.channel import MESSAGE_BYTES, Channel, ChannelClosed, clip
from prefork.process import spawn


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_message_with_descriptor_to_the_child(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    read_fd, write_fd = os.pipe()
    assert ours.send("spawn", [write_fd], slot=3)
    message = theirs.receive()
    assert message is not None
    assert (message.kind, message.fields, len(message.fds)) == ("spawn", {"slot": 3}, 1)
    os.write(message.fds[0], b"x")
    assert os.read(read_fd, 1) == b"x"
    for fd in (read_fd, write_fd, *message.fds):
        os.close(fd)


def test_pid_is_the_kernels_word_even_of_a_dead_sender(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends

    def main() -> int:
        theirs.send("hello", pid=1)
        return 0

    pid = spawn(main)
    os.waitpid(pid, 0)
    message = ours.receive()
    assert message is not None
    assert message.pid == pid


def test_nothing_and_the_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert ours.receive() is None
    theirs.send("last")
    theirs.close()
    assert ours.receive() is not None
    with pytest.raises(ChannelClosed):
        ours.receive()
    with pytest.raises(ChannelClosed):
        ours.send("order")


def test_a_peer_that_does_not_read_does_not_block(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    sent = 0
    while ours.send("order", text="x" * 1000):
        sent += 1
    assert sent > 10


@pytest.mark.parametrize(
    "packet", [b"junk", b"[1]", b'"text"', b"{}", b'{"kind"', b"\xff\xfe", b"[" * 60_000, b"1" * 200_000]
)
def test_garbage_is_no_accident(packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    channel = Channel(ours)
    theirs.send(packet)
    theirs.send(b'{"kind":"ready"}')
    assert [message.kind for message in (channel.receive(), channel.receive()) if message] == [
        "garbage",
        "ready",
    ]
    channel.close()
    theirs.close()


def test_the_master_takes_no_descriptors(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    gc.collect()  # what other tests have left behind would free descriptors meanwhile
    before = os.listdir("/proc/self/fd")
    theirs.send("hello", [0, 1, 2])
    message = ours.receive()
    assert message is not None
    assert message.fds == []
    assert os.listdir("/proc/self/fd") == before


def test_clip_fits_whatever_the_characters() -> None:
    ours, theirs = Channel.pair()
    assert theirs.send("failed", text=clip("\N{SNOWMAN}\0" * MESSAGE_BYTES))
    message = ours.receive()
    assert message is not None
    assert "characters left out" in message.fields["text"]
    assert clip("short") == "short"
    ours.close()
    theirs.close()


def test_the_last_words_of_a_peer_that_had_not_read_all_are_heard() -> None:
    ours, theirs = Channel.pair()
    ours.send("order")
    theirs.send("failed", text="why")
    theirs.close()
    message = ours.receive()
    assert message is not None
    assert (message.kind, message.fields) == ("failed", {"text": "why"})
    with pytest.raises(ChannelClosed):
        ours.receive()
    ours.close()
