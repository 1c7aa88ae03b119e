"""Channels: messages between the master, a mold and a worker.

A channel is one end of a ``SOCK_SEQPACKET`` pair; a message is one JSON object in one packet, which may carry
descriptors. The master's ends ask the kernel for the sender's credentials, so that a pid is the kernel's word
and not the sender's. Nothing here blocks. Used by master, mold and worker.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from prefork.errors import PreforkError

PROTOCOL = 1
"""Version of the messages; a worker tells it in its hello."""

MESSAGE_BYTES = 64 * 1024
"""Longest message; who sends text of unknown length cuts it (see ``clip``)."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid; see unix(7)
_DESCRIPTORS = 16


class ChannelClosed(PreforkError):
    """The other end is gone."""


class Message(NamedTuple):
    """``pid`` is the sender's by the kernel's word, or None on an end that does not ask for it."""

    kind: str
    fields: dict[str, Any]
    fds: list[int]
    pid: int | None


class Channel:
    """One end of a channel; ``fileno()`` may be polled for input."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._trusts_peer = not sock.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return the master's end, which learns the sender's pid, and the child's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        return cls(ours), cls(theirs)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, kind: str, fds: Sequence[int] = (), **fields: Any) -> bool:
        """Send a message; return False if the other end does not read and the buffer is full.

        Raises ``ChannelClosed`` if the other end is gone.
        """
        packet = json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        return True

    def receive(self) -> Message | None:
        """Return the next message, or None if there is none now.

        A packet that is no message (the peer may be a broken application) comes back with the kind "garbage".
        Raises ``ChannelClosed`` at the end of the channel.
        """
        # An end that asks for credentials has room for nothing else: descriptors that an untrusted peer
        # attaches are closed by the kernel.
        room = (
            socket.CMSG_SPACE(4 * _DESCRIPTORS) if self._trusts_peer else socket.CMSG_SPACE(_CREDENTIALS.size)
        )
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            try:
                packet, ancillary, _, _ = self._sock.recvmsg(MESSAGE_BYTES, room, flags)
            except ConnectionResetError:
                # The peer ended and had not read all; that is told once, and what it said last comes after it.
                packet, ancillary, _, _ = self._sock.recvmsg(MESSAGE_BYTES, room, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        fds: list[int] = []
        pid = None
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.extend(array.array("i", data[: len(data) - len(data) % 4]))
            elif kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
                pid = _CREDENTIALS.unpack_from(data)[0]
        if not packet:
            raise ChannelClosed("end of file")
        return _message(packet, fds, pid)


def _message(packet: bytes, fds: list[int], pid: int | None) -> Message:
    try:
        fields = json.loads(packet)
        return Message(str(fields.pop("kind")), fields, fds, pid)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        for fd in fds:
            os.close(fd)
        return Message("garbage", {}, [], pid)


def clip(text: str, limit: int = MESSAGE_BYTES // 8) -> str:
    """Cut a long text in the middle so that it fits into a message whatever its characters are."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"
