"""Binding unix sockets: modes without a race, stale files replaced, live ones kept. Runs in the master."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from prefork.errors import ListenError, PreforkError
from prefork.master.holders import AddressBusy, Holder, holder, in_use, unix_holders
from prefork.privileges import find_gid, find_uid

DEFAULT_MODE = 0o660
"""Owner and group, so that a proxy is let in by its group and other users of the machine are not."""

LONGEST_PATH_BYTES = 107
"""``sun_path`` has 108 bytes, the last of them a NUL. See unix(7)."""


@dataclass(frozen=True)
class SocketFile:
    """The file of a bound unix socket, told from later ones of the same name by device and inode.

    The kernel does not reuse the inode while the listening socket is open, so compare before closing it.
    """

    path: str
    device: int
    inode: int

    def is_ours(self) -> bool:
        """Return whether the path still leads to this file."""
        try:
            now = os.lstat(self.path)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (self.device, self.inode)

    def unlink(self) -> None:
        """Remove the file if it is still ours; a file that another server put there stays."""
        if self.is_ours():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def bind_unix(
    path: str, backlog: int, *, mode: int | None, owner: str | None, group: str | None
) -> tuple[socket.socket, SocketFile]:
    """Return a listening socket at ``path`` and its file.

    The file has its mode from its first moment (the umask makes it so) and its owner before ``listen``,
    until which the kernel refuses every connect. Raises ``ListenError``, or ``AddressBusy``.
    """
    length = len(os.fsencode(path))
    if length > LONGEST_PATH_BYTES:
        raise _error(
            path, f"the path has {length} bytes, the system allows {LONGEST_PATH_BYTES}; use a shorter one"
        )
    uid, gid = _find_owner(path, owner, group)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    file: SocketFile | None = None
    try:
        with _directory_locked(path):
            _make_way(path)
            file = _bind(sock, path, DEFAULT_MODE if mode is None else mode)
            _chown(path, uid, gid, owner, group)
            sock.listen(backlog)
    except BaseException as error:
        if file:
            file.unlink()
        sock.close()
        if isinstance(error, OSError):
            raise _explain(error, path) from error
        raise
    return sock, file


def change_mode(path: str, *, mode: int | None, owner: str | None, group: str | None) -> None:
    """Give the file of an open listener its mode and owner after a reload has changed them."""
    uid, gid = _find_owner(path, owner, group)
    try:
        os.chmod(path, DEFAULT_MODE if mode is None else mode)
        _chown(path, uid, gid, owner, group)
    except OSError as error:
        raise _explain(error, path) from error


def _find_owner(path: str, owner: str | None, group: str | None) -> tuple[int, int]:
    try:
        return (-1 if owner is None else find_uid(owner), -1 if group is None else find_gid(group))
    except PreforkError as error:
        raise _error(path, str(error)) from error


@contextlib.contextmanager
def _directory_locked(path: str) -> Iterator[None]:
    """Hold a lock on the directory, so that of two servers that start at once only one replaces a stale file.

    Between bind and listen a socket looks stale to everybody else. The lock is on the directory itself: it
    leaves no file behind. Where the directory cannot be opened or locked we go without.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AddressBusy(
                f"cannot listen on unix:{path}: another server is just starting in that directory"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(directory)


def _make_way(path: str) -> None:
    """Remove a stale socket file; raise when there is a live one, or something else."""
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise _error(path, "the file exists and is not a socket; remove it or choose another path")
    if is_live(path):
        raise in_use(f"unix:{path}", _listening(path), f"`ss -lxp src {path}` as root shows which")
    SocketFile(path, before.st_dev, before.st_ino).unlink()


def is_live(path: str) -> bool:
    """Tell whether somebody listens there. Raises ``OSError`` if that cannot be known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            # EAGAIN: its queue is full. EPROTOTYPE: not a stream. EACCES: we may not know, so leave it alone.
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE, errno.EACCES):
                return True
            raise
    return True


def _listening(path: str) -> list[Holder]:
    """Return who listens: those that have the socket open, else the process that once called ``listen``."""
    if holders := unix_holders(path):
        return holders
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.setblocking(False)
        probe.connect(path)
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if listener := holder(pid):
            return [listener]
    return []


def _bind(sock: socket.socket, path: str, mode: int) -> SocketFile:
    # The kernel creates the file with 0777 minus the umask. The master has one thread: nobody else sees it.
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(umask)
    made = os.lstat(path)
    return SocketFile(os.path.abspath(path), made.st_dev, made.st_ino)


def _chown(path: str, uid: int, gid: int, owner: str | None, group: str | None) -> None:
    if uid == -1 and gid == -1:
        return
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except PermissionError as error:
        wanted = f"{owner or ''}:{group or ''}"
        raise _error(
            path, f"may not give the socket to {wanted}; that needs root, or membership of the group"
        ) from error


def _explain(error: OSError, path: str) -> ListenError:
    directory = os.path.dirname(path) or "."
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return _error(
                path, f"the directory {directory} does not exist; create it (systemd: RuntimeDirectory=)"
            )
        case errno.EACCES | errno.EPERM:
            return _error(path, f"no permission to create a socket in {directory} as uid {os.geteuid()}")
        case errno.EADDRINUSE:
            return in_use(f"unix:{path}", unix_holders(path), f"`ss -lxp src {path}` as root shows which")
        case errno.EROFS:
            return _error(path, f"{directory} is on a read-only file system; use a path on a writable one")
    return _error(path, str(error.strerror))


def _error(path: str, reason: str) -> ListenError:
    return ListenError(f"cannot listen on unix:{path}: {reason}")
