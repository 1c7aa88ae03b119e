"""The forms of an address to listen on; parsing only, nothing is resolved or bound here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

ALL_INTERFACES = "0.0.0.0"
FORMS = "host:port, :port, port, [ipv6]:port, unix:PATH, fd:N, systemd or systemd:NAME"
_LONGEST_UNIX_PATH = 107  # sun_path in unix(7), less the final NUL
_LOWEST_FD = 3  # 0 to 2 are stdin, stdout and stderr

_PORT = re.compile(r"[0-9]{1,5}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name, IPv4 or IPv6 without brackets) and a port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket's path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """An open descriptor that prefork inherited."""

    fd: int

    def __str__(self) -> str:
        return f"fd:{self.fd}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """The sockets of systemd's activation with this name, or all of them. See sd_listen_fds(3)."""

    name: str | None = None

    def __str__(self) -> str:
        return f"systemd:{self.name}" if self.name else "systemd"


Address: TypeAlias = TcpAddress | UnixAddress | FdAddress | SystemdAddress


def parse(text: str) -> Address:
    """Return the address; ``8000`` and ``:8000`` mean port 8000 of all IPv4 interfaces.

    Raises ValueError; its message says what was expected.
    """
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        return _unix(rest)
    if kind == "fd" and colon:
        if not rest.isascii() or not rest.isdigit() or len(rest) > 6 or int(rest) < _LOWEST_FD:
            raise ValueError(f"fd:N with N from {_LOWEST_FD} on")
        return FdAddress(int(rest))
    if kind == "systemd":
        if colon and not re.fullmatch(r"[!-9;-~]+", rest):
            raise ValueError("systemd:NAME with a FileDescriptorName= of the socket unit")
        return SystemdAddress(rest or None)
    return _tcp(text)


def _unix(path: str) -> UnixAddress:
    if not path or "\0" in path or path.startswith("@") or path.endswith("/"):
        raise ValueError("unix:PATH with a path such as /run/shop.sock")
    if len(path.encode()) > _LONGEST_UNIX_PATH:
        raise ValueError(f"a unix socket's path of at most {_LONGEST_UNIX_PATH} bytes")
    return UnixAddress(path)


def _tcp(text: str) -> TcpAddress:
    host, _, port = text.rpartition(":")
    if not _PORT.fullmatch(port):
        raise ValueError(FORMS)
    if int(port) > 65535:
        raise ValueError("a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return TcpAddress(str(IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError("an IPv6 address in the brackets") from None
    if ":" in host:
        raise ValueError("an IPv6 address in brackets: [::1]:8000")
    if host and not _HOST.fullmatch(host):
        raise ValueError(FORMS)
    return TcpAddress(host or ALL_INTERFACES, int(port))
