"""The pidfile: written whole or not at all, never over that of a living server, removed only if still ours.

Runs in the master.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

from prefork.errors import ExitStatus, PreforkError

CLOCK_SLACK_S = 2.0


class PidfileError(PreforkError):
    """The pidfile cannot be written, or belongs to a server that runs."""

    status = ExitStatus.USAGE


def write_pidfile(path: str, pid: int | None = None) -> None:
    """Write our pid to ``path``, replacing a stale file. Raises ``PidfileError``."""
    pid = os.getpid() if pid is None else pid
    other = _living_writer(path)
    if other not in (None, pid):
        raise PidfileError(
            f"pidfile {path}: the server with pid {other} that wrote it still runs; "
            "stop it first, or give this one another pidfile"
        )
    temporary = None
    try:
        fd, temporary = tempfile.mkstemp(prefix=".prefork-", dir=os.path.dirname(path) or ".")
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, 0o644)
            file.write(f"{pid}\n")
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise PidfileError(
            f"pidfile {path}: cannot be written ({error.strerror}); the directory must exist and be writable"
        ) from error


def remove_pidfile(path: str, pid: int | None = None) -> None:
    """Remove the file if it still holds our pid; never raises."""
    if _read_pid(path) == (os.getpid() if pid is None else pid):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _living_writer(path: str) -> int | None:
    """Return the pid in the file if that process runs, and already ran when the file was written.

    The second condition is for reused numbers: after a restart of a container a pidfile on a volume
    names pid 1 or 7, and somebody has that number again.
    """
    pid = _read_pid(path)
    if pid is None:
        return None
    try:
        file_age_s = time.time() - os.stat(path).st_mtime
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    state, start_ticks = fields[0], int(fields[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")
    return pid if state != b"Z" and age_s >= file_age_s - CLOCK_SLACK_S else None


def _read_pid(path: str) -> int | None:
    try:
        text = Path(path).read_bytes()[:32].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None
