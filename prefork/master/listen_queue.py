"""How many connections wait in a listener's accept queue. Runs in the master."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefork.master.listeners import Listener

# struct tcp_info of linux/tcp.h: 8 bytes, then 32-bit numbers, two of which mean this for a listener.
_TCP_INFO = struct.Struct("=8B6I")
_TCPI_UNACKED = 8 + 4
_TCPI_SACKED = 8 + 5

# sock_diag(7): unix_diag_req, the header of its answer, and the attribute with the queue of a listener.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_NO_COOKIE = 0xFFFFFFFF
_ALL_STATES = 0xFFFFFFFF
_NLMSGHDR = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_DIAG_MSG_BYTES = 16
_ATTRIBUTE = struct.Struct("=HH")
_RQLEN = struct.Struct("=II")


def queue_depth(listener: Listener) -> tuple[int, int] | None:
    """Return (connections waiting, backlog as the kernel applies it), or None where it does not tell."""
    try:
        if listener.family == socket.AF_UNIX:
            return _unix_queue(listener.sock)
        info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        numbers = _TCP_INFO.unpack(info)
    except (OSError, struct.error):
        return None
    return numbers[_TCPI_UNACKED], numbers[_TCPI_SACKED]


def _unix_queue(sock: socket.socket) -> tuple[int, int] | None:
    """Ask the kernel by netlink, which answers in the call itself: nothing is waited for."""
    request = _REQUEST.pack(
        socket.AF_UNIX,
        0,
        0,
        _ALL_STATES,
        os.fstat(sock.fileno()).st_ino,
        _UDIAG_SHOW_RQLEN,
        _NO_COOKIE,
        _NO_COOKIE,
    )
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.setblocking(False)
        netlink.send(header + request)
        answer = netlink.recv(8192)
    length, kind, *_ = _NLMSGHDR.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    at = _NLMSGHDR.size + _UNIX_DIAG_MSG_BYTES
    while at + _ATTRIBUTE.size <= length:
        size, attribute = _ATTRIBUTE.unpack_from(answer, at)
        if attribute == _UNIX_DIAG_RQLEN:
            waiting, backlog = _RQLEN.unpack_from(answer, at + _ATTRIBUTE.size)
            return waiting, backlog
        at += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None
