"""Where the control socket is, and how it comes there: a file of mode 0600, or a name that needs no file.

Runs in the master.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from prefork.control_protocol import PREFIX, shown
from prefork.errors import ListenError
from prefork.master.holders import AddressBusy
from prefork.master.unix_socket import LONGEST_PATH_BYTES, SocketFile, bind_unix, is_live
from prefork.records import Descriptor

BACKLOG = 32
PATIENCE_S = 2.0
"""How long a server that starts waits for another one that just starts in the same directory."""


@dataclass(frozen=True)
class ControlPlace:
    """The listening socket and its address; ``file`` is None if it has none."""

    sock: socket.socket
    address: str
    file: SocketFile | None

    def close(self) -> None:
        """Close it, and remove its file if that is still ours."""
        if self.file:
            self.file.unlink()
        self.sock.close()

    def record(self) -> PlaceRecord:
        return PlaceRecord(Descriptor(self.sock.fileno()), self.address, self.file)


@dataclass(frozen=True, slots=True)
class PlaceRecord:
    """A control socket that goes on under the next version of the master."""

    descriptor: Descriptor
    address: str
    file: SocketFile | None

    def adopt(self) -> ControlPlace:
        return ControlPlace(socket.socket(fileno=self.descriptor), self.address, self.file)


def open_control(
    setting: str, name: str, environ: Mapping[str, str] = os.environ, run: str = "/run/prefork"
) -> ControlPlace:
    """Open the socket at the path that ``setting`` is, or with ``auto`` where there is room for it.

    A stale file is replaced; a live one is an error that names its server, or with ``auto`` a reason to take the
    next name: ``prefork-shop.sock``, ``prefork-shop-2.sock``. Raises ``ListenError``.
    """
    if setting != "auto":
        return _at(os.path.abspath(setting))
    for directory in _directories(environ, run):
        for path in _names(os.path.join(directory, f"{PREFIX}{name}"), ".sock"):
            if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
                break
            try:
                if not is_live(path):
                    return _at(path)
            except (ListenError, OSError):
                if not _is_taken(path):
                    break  # read-only, full, or not a socket: the next place will do
    return _without_file(name)


def _directories(environ: Mapping[str, str], run: str) -> Iterator[str]:
    for directory in (
        environ.get("RUNTIME_DIRECTORY", "").partition(":")[0],
        run,
        environ.get("XDG_RUNTIME_DIR", ""),
    ):
        if os.path.isabs(directory) and os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK):
            yield directory


def _names(stem: str, end: str) -> Iterator[str]:
    yield f"{stem}{end}"
    yield from (f"{stem}-{number}{end}" for number in count(2))


def _is_taken(path: str) -> bool:
    """Tell whether another server was faster."""
    try:
        return is_live(path)
    except OSError:
        return False


def _at(path: str) -> ControlPlace:
    """Open it at a path."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            sock, file = bind_unix(path, BACKLOG, mode=0o600, owner=None, group=None)
        except AddressBusy:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            sock.setblocking(False)
            return ControlPlace(sock, path, file)


def _without_file(name: str) -> ControlPlace:
    """Open it in the abstract namespace, that of the network: everybody may connect, and is looked at then."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    for address in _names(f"\0{PREFIX}{name}", ""):
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            sock.close()
            raise ListenError(f"cannot listen on {shown(address)}: {error.strerror}") from error
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return ControlPlace(sock, address, None)
    raise AssertionError("the names never end")
