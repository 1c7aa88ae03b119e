"""Listeners: from ``Listen`` objects of the config to open sockets, and the difference that a reload makes.

Runs in the master, which opens all listeners and closes them; molds and workers inherit them. What the two
families need is in ``tcp_socket`` and ``unix_socket``, sockets opened by others are in ``activation``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prefork.config import Listen
from prefork.config.address import ALL_INTERFACES, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from prefork.listen_queue import queue_of
from prefork.master.activation import Activation
from prefork.master.holders import AddressBusy
from prefork.master.tcp_socket import bind_tcp
from prefork.master.unix_socket import SocketFile, bind_unix, change_mode
from prefork.quiesce import quiesce
from prefork.records import Descriptor

if TYPE_CHECKING:
    from prefork.log import Log

RETRY_INTERVAL_S = 0.1
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class ListenerRecord:
    """A listener that stays open for the next version of the master."""

    fd: Descriptor
    key: str
    address: str
    backlog: int
    inherited: bool
    file: SocketFile | None


@dataclass(eq=False)
class Listener:
    """An open listening socket: non-blocking, closed on exec.

    ``key`` is the identity that a reload compares, from the config as written; ``address`` is where it really
    listens, with the port that the system chose for port 0. ``inherited``: somebody else opened it.
    """

    key: str
    sock: socket.socket
    address: str
    backlog: int
    inherited: bool = False
    file: SocketFile | None = None

    @classmethod
    def adopt(cls, record: ListenerRecord) -> Listener:
        """Take over one that an older version of this process has opened."""
        sock = socket.socket(fileno=record.fd)
        return cls(record.key, sock, record.address, record.backlog, record.inherited, record.file)

    def record(self) -> ListenerRecord:
        fd = Descriptor(self.fileno())
        return ListenerRecord(fd, self.key, self.address, self.backlog, self.inherited, self.file)

    @property
    def family(self) -> int:
        """``AF_INET``, ``AF_INET6`` or ``AF_UNIX``."""
        return self.sock.family

    @property
    def inode(self) -> int:
        """The number by which others can ask the kernel about it; 0 after ``close``."""
        return os.fstat(self.fileno()).st_ino if self.fileno() >= 0 else 0

    def fileno(self) -> int:
        """Return the descriptor, or -1 after ``close``."""
        return self.sock.fileno()

    def adjust(self, listen: Listen) -> None:
        """Apply backlog, mode, owner and group of a reloaded config to this listener, which stays open.

        Nothing of an inherited listener is changed. Raises ``ListenError``.
        """
        if self.inherited:
            return
        if listen.backlog != self.backlog:
            self.sock.listen(listen.backlog)
            self.backlog = listen.backlog
        if self.file and self.file.is_ours():
            change_mode(self.file.path, mode=listen.mode, owner=listen.owner, group=listen.group)

    def quiesce(self) -> str | None:
        """Make the kernel refuse new connections; return None, or why it could not (a line for the log).

        An inherited listener is left alone: its owner goes on queueing for our successor.
        """
        return None if self.inherited else quiesce(self.sock, self.address)

    def free_address(self) -> None:
        """Let the address of a quiesced listener be bound again, though busy workers still hold the listener.

        Not while connections wait in it, which the shutdown would reset: then the last worker's close frees it.
        A unix socket does not need this, a new one takes over its path.
        """
        if self.inherited or self.family == socket.AF_UNIX:
            return
        depth = queue_of(self.sock)
        if depth is not None and depth[0] == 0:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self, *, unlink: bool) -> None:
        """Close this process's descriptor; with ``unlink`` first remove the file, if it is still ours."""
        if unlink and self.file:
            self.file.unlink()
        self.sock.close()


class ListenerDiff(NamedTuple):
    """What a reload does: open listeners that stay, entries to open, open listeners to close at its end."""

    keep: list[Listener]
    add: list[Listen]
    remove: list[Listener]


def key_of(listen: Listen) -> str:
    """Return the identity of an address: two entries with one key are the same listener."""
    address = listen.parsed
    if isinstance(address, UnixAddress):
        return str(UnixAddress(os.path.abspath(address.path)))
    if isinstance(address, TcpAddress) and address.port == 0 and listen.of_admin:
        return f"admin {address}"  # a port of its own
    return str(address)


def diff(old: Iterable[Listener], new: Iterable[Listen]) -> ListenerDiff:
    """Compare open listeners with the entries of a new config, by key."""
    open_now = list(old)
    wanted = {key_of(listen): listen for listen in new}
    have = {listener.key for listener in open_now}
    return ListenerDiff(
        keep=[listener for listener in open_now if listener.key in wanted],
        add=[listen for key, listen in wanted.items() if key not in have],
        remove=[listener for listener in open_now if listener.key not in wanted],
    )


def open_listeners(listen: Listen, activation: Activation, siblings: Iterable[Listen] = ()) -> list[Listener]:
    """Open one entry: several listeners for a host name with several addresses, and for ``systemd``.

    ``siblings`` are all entries of the config: ``[::]:N`` leaves IPv4 to a ``0.0.0.0:N`` among them, and
    takes both families otherwise. Raises ``AddressBusy`` when another attempt is worth it, else
    ``ListenError``.
    """
    key = key_of(listen)
    file: SocketFile | None = None
    inherited = False
    match listen.parsed:
        case TcpAddress(_, port) as address:
            v6only = TcpAddress(ALL_INTERFACES, port) in {other.parsed for other in siblings}
            sockets = bind_tcp(address, listen.backlog, v6only=v6only)
        case UnixAddress(path):
            sock, file = bind_unix(
                path, listen.backlog, mode=listen.mode, owner=listen.owner, group=listen.group
            )
            sockets = [sock]
        case FdAddress(fd):
            sockets, inherited = [activation.descriptor(fd)], True
        case SystemdAddress(name):
            sockets, inherited = activation.sockets(name), True
    for sock in sockets:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Inherited by every accepted connection, which saves a system call for each of them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [Listener(key, sock, _address(sock), listen.backlog, inherited, file) for sock in sockets]


def open_at_start(
    listens: Sequence[Listen], activation: Activation, log: Log, patience_s: float = PATIENCE_S
) -> list[Listener]:
    """Open all entries at the start, waiting for addresses that orphans of a killed master still hold.

    Give it the entries of all pools together, for ``siblings``; ``key_of`` tells which listener is whose.
    Blocks for at most ``patience_s`` in total. Raises ``ListenError``; then nothing stays open.
    """
    give_up = time.monotonic() + patience_s
    with _all_or_none(log) as opened:
        waiting = list(listens)
        told = False
        while waiting:
            try:
                opened += open_listeners(waiting[0], activation, listens)
                del waiting[0]
            except AddressBusy as busy:
                if time.monotonic() >= give_up:
                    raise
                if not told:
                    log.warning("listen-waiting", f"{busy}; trying again for up to {patience_s:g} s")
                    told = True
                time.sleep(RETRY_INTERVAL_S)
    return opened


def open_all(
    listens: Iterable[Listen], activation: Activation, siblings: Sequence[Listen], log: Log
) -> list[Listener]:
    """Open entries that a reload adds. Raises ``ListenError``; then nothing stays open."""
    with _all_or_none(log) as opened:
        for listen in listens:
            opened += open_listeners(listen, activation, siblings)
    return opened


@contextlib.contextmanager
def _all_or_none(log: Log) -> Iterator[list[Listener]]:
    """Give a list for the listeners that the block opens, and close them if it fails."""
    opened: list[Listener] = []
    try:
        yield opened
    except BaseException:
        for listener in opened:
            listener.close(unlink=True)
        raise
    for line in backlog_warnings(opened):
        log.warning("backlog-capped", line)


def backlog_warnings(listeners: Iterable[Listener], somaxconn: int | None = None) -> list[str]:
    """Return a line for each own listener whose backlog the kernel cuts to ``net.core.somaxconn``."""
    limit = _somaxconn() if somaxconn is None else somaxconn
    return [
        f"{listener.address}: the backlog of {listener.backlog} is cut to {limit} by the system; "
        f"`sysctl net.core.somaxconn={listener.backlog}` raises the limit"
        for listener in listeners
        if limit is not None and not listener.inherited and listener.backlog > limit
    ]


def _somaxconn() -> int | None:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return None


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return str(TcpAddress(name[0], name[1]))
    return f"unix:{name}" if isinstance(name, str) else f"unix:@{os.fsdecode(name[1:])}"
