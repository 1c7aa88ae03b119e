"""``log.capture_output``: what the application prints goes into our log, with the identity of its process.

Runs in the mold, before it imports the application, and in the worker.

``sys.stdout`` and ``sys.stderr`` are replaced; descriptors 1 and 2 stay what they are. So what C code and
child processes write, and what the interpreter writes while it dies, still gets to the server's standard
error, but untagged. To tag that as well takes a pipe, and each reader of one is worse than the gap: the
master would have to take whatever a broken application floods it with, and to wake up for it; a thread in
the worker would have to be started again after each fork and would lose the very last words, which matter
most.
"""

from __future__ import annotations

import io
import sys

from prefork.log.log import Log
from prefork.log.logs import Logs
from prefork.log.stream import LogStream


class CapturedStream(LogStream):
    """Stands for a standard stream; ``fileno()`` is the real descriptor, for child processes."""

    def __init__(self, log: Log, level: str, event: str, fd: int) -> None:
        super().__init__(log, level, event)
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def reconfigure(self, **options: object) -> None:
        """Accept what applications ask of ``sys.stdout``: lines go out at once and are UTF-8 anyway."""


def capture_output(logs: Logs) -> None:
    """Make events ``stdout`` (level info) and ``stderr`` (level warning) of what is printed, if so configured.

    If not, lines are at least written when they are printed, and whole: Python keeps what goes to a pipe or a
    file until there are 8 KiB, and a process that is killed takes them with it; with ``PYTHONUNBUFFERED``, as
    in many images, it writes piece by piece, and those of several processes are mixed.

    Called in the mold and again in each worker with its own logs: the streams stay the same objects, because
    handlers of ``logging`` hold on to them.
    """
    if not logs.capture_output:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True, write_through=False)
        return
    if isinstance(sys.stdout, CapturedStream) and isinstance(sys.stderr, CapturedStream):
        sys.stdout.rebind(logs.log)
        sys.stderr.rebind(logs.log)
    else:
        sys.stdout = CapturedStream(logs.log, "info", "stdout", 1)
        sys.stderr = CapturedStream(logs.log, "warning", "stderr", 2)
