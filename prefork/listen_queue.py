"""How many connections wait in the accept queues of listeners, and how many there may be.

The kernel tells it by sock_diag(7), also to a process that has no descriptor of the listener; it answers in the call
itself, so nothing is waited for. Of TCP it looks at listeners only, however many connections there are. Used by the
master and by the admin process.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Queue(NamedTuple):
    """The accept queue of a listener."""

    waiting: int
    backlog: int
    """As the kernel applies it."""


# struct tcp_info of linux/tcp.h: 8 bytes, then 32-bit numbers, two of which mean this for a listener.
_TCP_INFO = struct.Struct("=8B6I")
_TCPI_UNACKED = 8 + 4
_TCPI_SACKED = 8 + 5

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSGHDR = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 32 * 1024
"""The kernel fills its messages up to this."""
_MOST_ANSWERS = 256
"""So many are read at most, on a machine with a hundred thousand listeners."""

# unix_diag_req and unix_diag_msg of linux/unix_diag.h.
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_NO_COOKIE = 0xFFFFFFFF
_ALL_STATES = 0xFFFFFFFF
_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_ANSWER_BYTES = 16
_RQLEN = struct.Struct("=II")

# inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h; of a listener, the queues are these two numbers.
_LISTEN_STATE = 1 << 10
_INET_REQUEST = struct.Struct("=BBBBI48x")
_INET_ANSWER = struct.Struct("=4x48xIIIII")


def queue_of(sock: socket.socket) -> Queue | None:
    """Return the queue of a listener whose descriptor is at hand, None where the kernel does not tell."""
    try:
        if sock.family == socket.AF_UNIX:
            return _unix_queue(os.fstat(sock.fileno()).st_ino)
        numbers = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (OSError, struct.error):
        return None
    return Queue(numbers[_TCPI_UNACKED], numbers[_TCPI_SACKED])


def queues(listeners: Iterable[tuple[int, int]]) -> dict[int, Queue]:
    """Return the queues of listeners (family, inode), by inode; those that the kernel does not tell are left out."""
    inodes: dict[int, set[int]] = {}
    for family, inode in listeners:
        inodes.setdefault(family, set()).add(inode)
    found: dict[int, Queue] = {}
    for family, wanted in inodes.items():
        try:
            if family == socket.AF_UNIX:
                found |= {inode: queue for inode in wanted if (queue := _unix_queue(inode)) is not None}
            else:
                found |= {inode: queue for inode, queue in _tcp_queues(family) if inode in wanted}
        except (OSError, struct.error):
            continue
    return found


def _unix_queue(inode: int) -> Queue | None:
    request = _UNIX_REQUEST.pack(
        socket.AF_UNIX, 0, 0, _ALL_STATES, inode & 0xFFFFFFFF, _UDIAG_SHOW_RQLEN, _NO_COOKIE, _NO_COOKIE
    )
    for answer in _ask(request, 0):
        at = _UNIX_ANSWER_BYTES
        while at + _ATTRIBUTE.size <= len(answer):
            size, attribute = _ATTRIBUTE.unpack_from(answer, at)
            if attribute == _UNIX_DIAG_RQLEN:
                return Queue(*_RQLEN.unpack_from(answer, at + _ATTRIBUTE.size))
            at += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None


def _tcp_queues(family: int) -> Iterator[tuple[int, Queue]]:
    """Yield inode and queue of each TCP listener of the network namespace."""
    for answer in _ask(_INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN_STATE), _NLM_F_DUMP):
        _, waiting, backlog, _, inode = _INET_ANSWER.unpack_from(answer)
        yield inode, Queue(waiting, backlog)


def _ask(request: bytes, flags: int) -> Iterator[bytes]:
    """Yield the bodies of the answers to a question, none if it is refused. Raises ``OSError``."""
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 0, 0)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as netlink:
        netlink.setblocking(False)
        netlink.send(header + request)
        for _ in range(_MOST_ANSWERS):
            answers, at = netlink.recv(_ANSWER_BYTES), 0
            while at + _NLMSGHDR.size <= len(answers):
                length, kind, *_ = _NLMSGHDR.unpack_from(answers, at)
                if kind != _SOCK_DIAG_BY_FAMILY or length < _NLMSGHDR.size:
                    return
                yield answers[at + _NLMSGHDR.size : at + length]
                at += (length + 3) & ~3
            if not flags:
                return
