"""Listeners that somebody else opened: systemd's socket activation and descriptors left open for us.

Read once, when the master starts; the descriptors stay open as long as the master lives, so that a reload may
leave a listener out and a later one take it in again. See sd_listen_fds(3).
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from prefork.errors import ListenError
from prefork.records import Descriptor

FIRST_FD = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@dataclass(frozen=True)
class Activation:
    """The descriptors that the master was started with.

    ``named`` are those of the socket activation, by name; ``inherited`` all that were left open across exec,
    which is what ``fd:N`` may name; ``absent`` says why there is no socket activation.
    """

    named: Mapping[str, tuple[Descriptor, ...]] = field(default_factory=dict)
    inherited: frozenset[Descriptor] = frozenset()
    absent: str = "no sockets were passed to this process (LISTEN_FDS is not set)"

    def sockets(self, name: str | None) -> list[socket.socket]:
        """Return duplicates of the sockets passed by systemd under ``name``; None stands for all of them.

        Raises ``ListenError`` when there are none, and when one of them does not listen.
        """
        address = "systemd" if name is None else f"systemd:{name}"
        if not self.named:
            raise ListenError(
                f"cannot listen on {address}: {self.absent}; start it from a systemd .socket unit, "
                "or try it with systemd-socket-activate"
            )
        if name is not None and name not in self.named:
            known = ", ".join(sorted(self.named))
            raise ListenError(
                f"cannot listen on {address}: systemd passed no socket of that name, but: {known} "
                "(FileDescriptorName= in the .socket unit, by default the unit's own name)"
            )
        fds = (
            self.named[name] if name is not None else sorted(fd for fds in self.named.values() for fd in fds)
        )
        return [_adopt(fd, address) for fd in fds]

    def descriptor(self, fd: int) -> socket.socket:
        """Return a duplicate of descriptor ``fd``. Raises ``ListenError`` if it was not left open for us."""
        if fd not in self.inherited:
            raise ListenError(
                f"cannot listen on fd:{fd}: this process was started without an open descriptor {fd}; "
                "whoever starts prefork must open the socket there and leave it open across exec"
            )
        return _adopt(fd, f"fd:{fd}")


def take_activation(environ: MutableMapping[str, str] | None = None) -> Activation:
    """Read what the master was started with and remove systemd's variables from ``environ`` (``os.environ``).

    Call it before anything else opens descriptors or forks. Never raises: a mistake in the variables matters
    only when a listener needs them, and is told then.
    """
    environ = os.environ if environ is None else environ
    pid, count, names = (environ.get(variable) for variable in VARIABLES[:3])
    for variable in VARIABLES:
        environ.pop(variable, None)
    inherited = _left_open()
    if count is None:
        return Activation(inherited=inherited)
    if pid != str(os.getpid()):
        return Activation(
            inherited=inherited,
            absent=f"the sockets were passed to process LISTEN_PID={pid}, and this is {os.getpid()} "
            "(a script between systemd and prefork must start it with exec)",
        )
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        return Activation(inherited=inherited, absent=f"LISTEN_FDS={count!r} is not a number of sockets")
    fds = [Descriptor(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]
    shown = names.split(":") if names else []
    named: dict[str, tuple[Descriptor, ...]] = {}
    for at, fd in enumerate(fds):
        name = shown[at] if at < len(shown) else "unknown"
        named[name] = (*named.get(name, ()), fd)
    return Activation(named, inherited)


def _left_open() -> frozenset[Descriptor]:
    """Return the descriptors above 2 without close-on-exec: Python sets it on all that it opens itself."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        fd = Descriptor(int(name))
        try:
            if fd >= FIRST_FD and not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.add(fd)
        except OSError:
            continue  # the descriptor that listed the directory
    return frozenset(found)


def _adopt(fd: int, address: str) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        with socket.socket(fileno=fd) as original:
            try:
                sock = original.dup()
            finally:
                original.detach()  # the descriptor itself stays open as long as the master lives
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: descriptor {fd} is not a socket ({error.strerror})"
        ) from error
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if (
        sock.family not in families
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.close()
        raise ListenError(
            f"cannot listen on {address}: descriptor {fd} is not a listening TCP or unix stream socket "
            "(systemd: ListenStream= with Accept=no)"
        )
    return sock
