"""The application's own metrics: what its processes have counted with prometheus-client, put together for each pool.

In its multiprocess mode each process keeps its values in files of its own, which its death leaves behind. Here they are
read and summed up; those of dead processes are merged into one file of each type, and removed. The format of the files
is prometheus-client's, and only it reads and writes them. See ``prefork.master.metrics_folder`` for the directories.

Runs only in the admin process. Who writes the files is the application, perhaps as another user: nothing in them is
trusted, and nothing in them can take ``/metrics`` away.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict

from prefork.admin.application_families import Values, families
from prefork.process import pid_exists

MERGED = "merged"
"""In the name of a file it stands for all processes that are dead."""

MOST_BYTES = 64 << 20
"""A larger file is not read."""

_LEAST_BYTES = 24
"""What a value takes in a file, however short its key."""

TIDY_S = 60.0

_ATTEMPTS, _ATTEMPT_S = 25, 0.02
"""How often the lock of a folder is tried for, and the pause between; merging takes a few milliseconds."""

_NAME = re.compile(
    r"(?P<type>counter|histogram|summary|gauge_(?P<mode>(?:live)?(?:all|min|max|sum|mostrecent)))"
    r"_(?P<process>[0-9]{1,9}|merged)\.db"
)
_LEFT_BY_MERGING = re.compile(r"\.(?P<type>[a-z_]+)\.(new|note)")
_OF_THE_LIVING = re.compile(r"gauge_(live.*|all)")
"""Gauges that end with their process. One that is shown for each process (``all``) says nothing of a dead one, and
would be there for ever."""


class File(NamedTuple):
    """A file of values, as its name tells it."""

    name: str
    type: str
    """``gauge_MODE`` of a gauge."""
    process: str
    """The pid, or ``MERGED``."""


class ApplicationMetrics:
    """What the pools' applications have counted."""

    def __init__(self, folder: str | None) -> None:
        """``folder`` has one with the files of each pool; None: nothing is collected."""
        self._folder = folder

    def collect(self, pools: Iterable[str]) -> tuple[list[Metric], Mapping[str, int]]:
        """Return the metrics of ``pools``, and how many files and families of each were left out."""
        values: dict[str, Values] = {}
        skipped: dict[str, int] = {}
        for pool in [] if self._folder is None else pools:
            values[pool], skipped[pool] = collect_pool(os.path.join(self._folder or "", pool))
        return families(values, skipped), skipped

    def keep_tidy(self) -> None:
        """Merge every minute, for ever: files must not pile up where nobody asks for ``/metrics``."""
        while True:
            time.sleep(TIDY_S)
            for pool in _listed(self._folder or ""):
                collect_pool(os.path.join(self._folder or "", pool))


def collect_pool(folder: str) -> tuple[Values, int]:
    """Return the values of all processes of a pool, and how many files could not be read.

    What dead processes left is merged first. If that cannot be, it is read where it is.
    """
    with _alone_in(folder) as is_alone:
        if is_alone:
            _finish_merging(folder)
        files = sorted(_files(folder))
        merged = [file for file in files if file.process == MERGED]
        living = [file for file in files if file.process != MERGED and pid_exists(int(file.process))]
        dead = [file for file in files if file not in merged and file not in living]
        left = [file for file in dead if not _OF_THE_LIVING.fullmatch(file.type)]
        total, past = Values(), Values()
        unreadable = _read(folder, living, total)
        unreadable += _read(folder, [*merged, *left], past)
        if is_alone:
            for file in dead:
                if file not in left:
                    _remove(os.path.join(folder, file.name))
            _merge(folder, past, left)
        total.add_all(past)
        return total, unreadable


@contextmanager
def _alone_in(folder: str) -> Iterator[bool]:
    """Keep other admin processes and threads from merging meanwhile; yield whether that can be.

    The application may hold the lock, too, but only for so long.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield any(_locked(fd) for _ in range(_ATTEMPTS))
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_ATTEMPT_S)
        return False
    return True


def _files(folder: str) -> Iterator[File]:
    for name in _listed(folder):
        if found := _NAME.fullmatch(name):
            yield File(name, found["type"], found["process"])


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read(folder: str, files: Iterable[File], into: Values) -> int:
    """Add what the files hold; return how many of them are broken."""
    broken = 0
    for file in files:
        try:
            entries = _entries(os.path.join(folder, file.name))
        except FileNotFoundError:
            continue
        except Exception:  # whatever a reader that trusts its files makes of a broken one
            broken += 1
            continue
        for key, value, timestamp in entries:
            into.add(file.type, key, file.process, value, timestamp)
    return broken


def _entries(path: str) -> list[tuple[str, float, float]]:
    """Return key, value and time of each value; none of a file that is just being made."""
    with _opened(path) as (fd, size_bytes):
        if size_bytes == 0:
            return []
        found = MmapedDict.read_all_values_from_file(f"/proc/self/fd/{fd}")
        entries = []
        for key, value, timestamp, _ in found:
            entries.append((key, value, timestamp))
            if len(entries) > size_bytes // _LEAST_BYTES:  # a length that is negative leads it in circles
                raise ValueError(f"{path} has more values than it can hold")
        return entries


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    """Yield descriptor and size of a file that anybody may have made. Raises ``OSError`` and ``ValueError``."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise ValueError(f"{path} is no file of metrics")
        yield fd, about.st_size
    finally:
        os.close(fd)


class _Merging(NamedTuple):
    """The paths of a merge of one type. Whenever it is killed, nothing gets lost, nor is it counted twice.

    First ``new`` is written, then in ``note`` whose values are in it; renaming ``new`` is what makes them count there.
    """

    new: str
    note: str
    merged: str

    @classmethod
    def of(cls, folder: str, type: str) -> _Merging:
        return cls(
            *(os.path.join(folder, n) for n in (f".{type}.new", f".{type}.note", f"{type}_{MERGED}.db"))
        )


def _merge(folder: str, past: Values, files: Iterable[File]) -> None:
    """Write what dead processes left into the merged files, and remove their own."""
    for type in sorted({file.type for file in files}):
        merging = _Merging.of(folder, type)
        names = [file.name for file in files if file.type == type]
        try:
            with _made(merging.new) as fd:
                written = MmapedDict(f"/proc/self/fd/{fd}")
                for key, value, timestamp in past.of(type):
                    written.write_value(key, value, timestamp)
                written.close()
            with _made(merging.note) as fd, open(fd, "w", closefd=False) as note:
                note.write("\n".join(names))
            os.rename(merging.new, merging.merged)
        except OSError:
            pass  # no room, or no right; nothing is lost
        _finish(folder, type)


def _finish_merging(folder: str) -> None:
    """Do what is left to do of merges that were killed."""
    for name in _listed(folder):
        if found := _LEFT_BY_MERGING.fullmatch(name):
            _finish(folder, found["type"])


def _finish(folder: str, type: str) -> None:
    """Remove what is in the merged file now, or else what was made for it."""
    merging = _Merging.of(folder, type)
    if not os.path.lexists(merging.new):
        try:
            with _opened(merging.note) as (fd, size_bytes):
                names = os.read(fd, size_bytes).decode().splitlines()
        except (OSError, ValueError):
            names = []
        for name in filter(_NAME.fullmatch, names):
            _remove(os.path.join(folder, name))
    _remove(merging.note)
    _remove(merging.new)


@contextmanager
def _made(path: str) -> Iterator[int]:
    """Yield the descriptor of a new file. Raises ``OSError``."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)  # the application may read them all itself, whatever the umask here
        yield fd
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
