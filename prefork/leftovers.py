"""What an import left behind that does not survive a fork: threads and connections; runs in the mold."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

# A joined thread is still in /proc for a moment.
_THREAD_EXIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Names for the log; false when there is nothing."""

    threads: list[str]
    sockets: list[str]

    def __bool__(self) -> bool:
        return bool(self.threads or self.sockets)


def leftovers(known_fds: Collection[int]) -> Leftovers:
    """Return the threads and the connected sockets of this process, apart from the known descriptors.

    Listening sockets are no concern: sharing them is what forking is for.
    """
    return Leftovers(_threads(), _sockets(known_fds))


def _threads() -> list[str]:
    """Name the threads: in a forked child they are gone, and their locks may stay held for good."""
    until = time.monotonic() + _THREAD_EXIT_S
    while (native := _native_threads()) and time.monotonic() < until:
        time.sleep(0.01)
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if native:
        names.append(f"{native} native, not started by Python")
    return names


def _native_threads() -> int:
    return max(0, len(os.listdir("/proc/self/task")) - len(threading.enumerate()))


def _sockets(known_fds: Collection[int]) -> list[str]:
    """Describe the sockets that are connected: two processes on one connection garble each other's data."""
    found = []
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if fd not in known_fds and (described := _connection(fd)):
            found.append(f"fd {fd}: {described}")
    return found


def _connection(fd: int) -> str | None:
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            return None
        with socket.socket(fileno=os.dup(fd)) as sock:
            # Datagrams are sent whole, so that a shared sender (syslog, statsd) does no harm.
            if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                return None
            return _peer(sock.family, sock.getpeername())
    except OSError:
        return None  # the descriptor of our own listing, or a socket that is not connected (a listener)


def _peer(family: int, address: object) -> str:
    if family in (socket.AF_INET, socket.AF_INET6):
        assert isinstance(address, tuple)
        host, port = address[:2]
        return f"[{host}]:{port} (TCP)" if ":" in host else f"{host}:{port} (TCP)"
    if isinstance(address, bytes):
        address = "@" + address[1:].decode(errors="backslashreplace")
    return f"{address or 'a socket pair'} (unix)"
