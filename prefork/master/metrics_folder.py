"""Folders for the application's own metrics: prometheus-client has files in one when a server has several processes.

One for the server, with one for each pool in it; on tmpfs if there is one, since each count is a store into a mapped
file. It is locked as long as the master lives, so that what a killed one left behind is found and removed by the next.
Runs in the master, and in a mold before it drops its privileges.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefork import privileges, temporary
from prefork.config import Config
from prefork.config import Pool as PoolConfig
from prefork.log import Log
from prefork.records import Descriptor

PREFIX = "prefork-metrics-"

_ACL_VERSION, _ACL_USER, _ACL_GROUP, _ACL_OTHER, _ACL_NOBODY = 2, 1, 4, 32, 0xFFFFFFFF
_GROUP_MAY_READ = struct.pack("<I", _ACL_VERSION) + b"".join(
    struct.pack("<HHI", tag, rights, _ACL_NOBODY)
    for tag, rights in ((_ACL_USER, 6), (_ACL_GROUP, 4), (_ACL_OTHER, 0))
)
"""A default ACL, see acl(5): with it the application's umask cannot hide its files from the admin process."""


@dataclass(frozen=True, slots=True)
class MetricsFolder:
    """A folder that exists as long as the server, whatever versions that goes through."""

    path: str
    lock: Descriptor
    gid: int
    """The group of the admin process, which reads, merges and removes the files."""

    @classmethod
    def make(cls, config: Config, log: Log, places: Sequence[str] | None = None) -> MetricsFolder | None:
        """Return a new folder in the first of ``places`` that takes one; None if none does, or none is wanted."""
        if config.admin is None or not config.metrics.application:
            return None
        admin = privileges.resolve(config.admin.user, config.admin.group)
        gid = os.getegid() if admin is None else admin.gid
        why = ""
        for place in _places() if places is None else places:
            try:
                _remove_stale(place)
                path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.chmod(path, 0o755)
            except OSError as error:
                why = f"{place}: {error.strerror}"
                continue
            return cls(path, Descriptor(lock), gid)
        log.warning(
            "metrics-folder-failed",
            f"the application's own metrics are not collected, for there is no place for their files: {why}",
        )
        return None

    def of_pool(self, config: PoolConfig) -> str:
        """Return the folder of a pool, made for its user if it is not there yet. Raises ``OSError``."""
        path = os.path.join(self.path, config.name)
        os.makedirs(path, exist_ok=True)
        if os.geteuid() != 0:
            os.chmod(path, 0o700)
            return path
        owner = privileges.resolve(config.user, config.group)
        os.chown(path, 0 if owner is None else owner.uid, self.gid)
        os.chmod(path, 0o2770)  # what is made in it belongs to the group, too
        try:
            os.setxattr(path, "system.posix_acl_default", _GROUP_MAY_READ)
        except OSError:
            pass  # a file system without ACLs
        return path

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def _places() -> list[str]:
    """Return where the folder may be, what is in memory first.

    /dev/shm is not the first of those: of a user that logs out, systemd-logind removes what is there.
    """
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    places = [*filter(os.path.isabs, [runtime]), "/run", "/dev/shm", temporary.directory(None)]
    in_memory = _tmpfs()
    return sorted(places, key=lambda place: _mount_of(place) not in in_memory)


def _tmpfs() -> set[str]:
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return set()
    return {mount[1] for mount in mounts if mount[2] == "tmpfs"}


def _mount_of(place: str) -> str:
    place = os.path.realpath(place)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def _remove_stale(place: str) -> None:
    """Remove the folders of servers that did not end in good order."""
    for path in Path(place).glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its server lives
        finally:
            os.close(fd)
