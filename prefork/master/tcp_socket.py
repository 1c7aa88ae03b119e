"""Binding TCP listeners, and one plain line for each way in which that fails. Runs in the master."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from prefork.config.address import ALL_INTERFACES, TcpAddress
from prefork.errors import ListenError
from prefork.master.holders import in_use, tcp_holders

WILDCARD_V6 = "::"

SocketAddress = tuple[str, int, int, int]
"""Host, port, flow and scope; the last two are zero for IPv4."""


def bind_tcp(address: TcpAddress, backlog: int, *, v6only: bool) -> list[socket.socket]:
    """Return listening sockets: one for a numeric address, one for each address of a name.

    ``v6only``: whether ``::`` leaves IPv4 alone; without it, ``::`` takes connections of both families.
    Addresses of a *name* that this machine does not have are skipped, as long as one remains
    (``localhost`` often has an IPv6 address in a container without IPv6).
    Resolving a name may block for as long as the system's resolver does; numeric addresses never do.
    Raises ``ListenError``, or ``AddressBusy`` when a later attempt may succeed.
    """
    sockets: list[socket.socket] = []
    absent: ListenError | None = None
    try:
        for family, numbers in _resolve(address):
            try:
                sockets.append(_bind(family, numbers, backlog, v6only=v6only))
            except OSError as error:
                reason = _explain(error, TcpAddress(*numbers[:2]))
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise reason from error
                absent = reason
        if not sockets and absent:
            raise absent
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _resolve(address: TcpAddress) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Return (family, socket address) pairs without repetition; an IPv4 one has zeros at its end."""
    try:
        answers = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a valid host name"
        raise ListenError(
            f"cannot listen on {address}: the host name {address.host!r} has no address ({why}); "
            "check its spelling, or give a numeric address such as 127.0.0.1 or 0.0.0.0"
        ) from error
    unique: dict[tuple[socket.AddressFamily, SocketAddress], None] = {}
    for family, _, _, _, found in answers:
        flow, scope = (int(found[2]), int(found[3])) if len(found) == 4 else (0, 0)
        unique[family, (str(found[0]), int(found[1]), flow, scope)] = None
    return list(unique)


def _bind(
    family: socket.AddressFamily, address: SocketAddress, backlog: int, *, v6only: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without this, connections in TIME_WAIT keep a restarted server from its address for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            both = address[0] == WILDCARD_V6 and not v6only
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind(address if family == socket.AF_INET6 else address[:2])
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _explain(error: OSError, address: TcpAddress) -> ListenError:
    shown, host, port = str(address), address.host, address.port
    match error.errno:
        case errno.EADDRINUSE:
            return in_use(shown, tcp_holders(host, port), f"`ss -ltnp 'sport = :{port}'` as root shows which")
        case errno.EACCES | errno.EPERM:
            first = _first_unprivileged_port()
            if port >= first:
                return ListenError(
                    f"cannot listen on {shown}: the system does not permit it ({error.strerror})"
                )
            return ListenError(
                f"cannot listen on {shown}: ports below {first} need root (set `user:` to drop it again), "
                "the capability CAP_NET_BIND_SERVICE, or socket activation"
            )
        case errno.EADDRNOTAVAIL:
            everywhere = TcpAddress(WILDCARD_V6 if ":" in host else ALL_INTERFACES, port)
            return ListenError(
                f"cannot listen on {shown}: no interface of this machine has the address {host}; "
                f"`ip address` shows those it has, and {everywhere} listens on all"
            )
        case errno.EAFNOSUPPORT:
            return ListenError(
                f"cannot listen on {shown}: this system has no IPv6; use 0.0.0.0:{port} instead"
            )
    return ListenError(f"cannot listen on {shown}: {error.strerror}")


def _first_unprivileged_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
