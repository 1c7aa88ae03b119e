"""What the control groups allow this process: CPU quota, memory limit, kills by the kernel. Versions 1 and 2.

Runs in the master. ``root`` is where /proc and /sys are looked for, so that tests can bring their own.
See cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

UNLIMITED_V1_BYTES = 1 << 60
"""Version 1 says "no limit" with a number near 2**63, rounded to pages."""


class Limit(NamedTuple):
    """A limit, and the words in which the file that sets it says so."""

    value: float
    shown: str


class MemoryUse(NamedTuple):
    """The memory of a group that has a limit. Pages of files that nobody has read for a while do not count: the
    kernel takes them back when it needs them."""

    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        return self.used_bytes / max(1, self.limit_bytes)


@dataclass(frozen=True)
class Hierarchy:
    """Our group for one controller and its ancestors, innermost first, as far as they are mounted."""

    version: int
    levels: tuple[Path, ...]


def cpu_quota(root: str | Path = "/") -> Limit | None:
    """Return the smallest CPU quota of our group and its ancestors, in CPUs; None without one."""
    found = []
    hierarchy = _hierarchy("cpu", Path(root))
    for level in hierarchy.levels:
        if hierarchy.version == 2:
            quota, _, period = _read(level / "cpu.max").partition(" ")
            shown = f"cpu.max {quota} {period}"
        else:
            quota, period = _read(level / "cpu.cfs_quota_us"), _read(level / "cpu.cfs_period_us")
            shown = f"cpu.cfs_quota_us {quota} / {period}"
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            found.append(Limit(int(quota) / int(period), shown))
    return min(found, default=None)


def memory_limit(root: str | Path = "/") -> Limit | None:
    """Return the smallest memory limit of our group and its ancestors, in bytes; None without one."""
    hierarchy = _hierarchy("memory", Path(root))
    return min((limit for _, limit in _limited_levels(hierarchy)), default=None)


def memory_use(root: str | Path = "/") -> MemoryUse | None:
    """Return the use of the group with the smallest limit among ours and its ancestors; None without a limit."""
    found = []
    hierarchy = _hierarchy("memory", Path(root))
    use_name, inactive_name = (
        ("memory.current", "inactive_file")
        if hierarchy.version == 2
        else ("memory.usage_in_bytes", "total_inactive_file")
    )
    for level, limit in _limited_levels(hierarchy):
        used = _read(level / use_name)
        if used.isdigit():
            inactive = _entry(level / "memory.stat", inactive_name) or 0
            found.append(MemoryUse(max(0, int(used) - inactive), int(limit.value)))
    return min(found, key=lambda use: use.limit_bytes, default=None)


def oom_kills(root: str | Path = "/") -> int | None:
    """Return how many processes of our group the kernel has killed for lack of memory; None if untold.

    Compare before and after a death by SIGKILL to tell an out-of-memory kill from any other.
    """
    file = oom_file(root)
    return _entry(file, "oom_kill") if file else None


def oom_file(root: str | Path = "/") -> Path | None:
    """Return the file in which the kernel counts them, whether or not it can be read."""
    hierarchy = _hierarchy("memory", Path(root))
    name = "memory.events" if hierarchy.version == 2 else "memory.oom_control"
    return hierarchy.levels[0] / name if hierarchy.levels else None


class OomWatch:
    """Tells of kills by the kernel for lack of memory between one question and the next."""

    def __init__(self, root: str | Path = "/") -> None:
        self._root = root
        self._known = oom_kills(root)

    def has_killed(self) -> bool:
        """Return whether there was one since the last call, or since the beginning."""
        before, self._known = self._known, oom_kills(self._root)
        return before is not None and self._known is not None and self._known > before


def _hierarchy(controller: str, root: Path) -> Hierarchy:
    """Find our group for ``controller``: in version 1 if that has it, else in version 2."""
    ours = dict(_memberships(root))
    for mount in _mounts(root):
        if mount.version == 1 and controller in mount.options and controller in ours:
            return Hierarchy(1, _levels(mount, ours[controller], root))
    for mount in _mounts(root):
        if mount.version == 2 and "" in ours:
            return Hierarchy(2, _levels(mount, ours[""], root))
    return Hierarchy(2, ())


def _limited_levels(memory: Hierarchy) -> Iterator[tuple[Path, Limit]]:
    """Yield each group that has a memory limit, with it, in bytes."""
    name = "memory.max" if memory.version == 2 else "memory.limit_in_bytes"
    for level in memory.levels:
        limit = _read(level / name)
        if limit.isdigit() and int(limit) < UNLIMITED_V1_BYTES:
            yield level, Limit(int(limit), f"{name} {limit}")


class _Mount(NamedTuple):
    version: int
    subtree: str
    """The group that is mounted; not ``/`` in a container that shares the host's view."""
    point: str
    options: frozenset[str]


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (controller, our group); the controller is empty for version 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, group


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(" "), after.split(" ")
        if kind in ("cgroup", "cgroup2"):
            yield _Mount(2 if kind == "cgroup2" else 1, fields[3], fields[4], frozenset(rest[-1].split(",")))


def _levels(mount: _Mount, group: str, root: Path) -> tuple[Path, ...]:
    """Return the directories of ``group`` and its ancestors, up to the mount point."""
    point = root / mount.point.lstrip("/")
    path = PurePosixPath(group)
    if ".." in path.parts or not path.is_relative_to(mount.subtree):
        # Outside of what is mounted here (a namespace, or the mount of a container): what we see is our own.
        return (point,)
    below = path.relative_to(mount.subtree)
    return tuple(point / level for level in (below, *below.parents))


def _entry(path: Path, name: str) -> int | None:
    """Return the number of a line in a file of names and numbers; None if it is not there."""
    for line in _read(path).splitlines():
        key, _, number = line.partition(" ")
        if key == name and number.isdigit():
            return int(number)
    return None


def _read(path: Path) -> str:
    """Return the text of a file without its last newline, empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
