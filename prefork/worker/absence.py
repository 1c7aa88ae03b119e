"""When a worker was suspended (SIGSTOP, a frozen container, a halted virtual machine): its requests are not late
for that.

Runs in a worker.
"""

from __future__ import annotations

from time import monotonic, process_time

NOTICEABLE_S = 1.0


class Absence:
    """Notices by a wait that took much longer than it should, while the process used little of a processor.

    C code that holds the interpreter lock makes a thread wait too long as well, but computes meanwhile. (If it does
    not, the worker excuses what it should not, and the master ends it.)
    """

    def __init__(self) -> None:
        self._due = self._cpu_s = 0.0

    def wait_until(self, due: float) -> None:
        """Note that the thread is about to wait until ``due``, in monotonic seconds."""
        self._due = due
        self._cpu_s = process_time()

    def lost_s(self) -> float:
        """Return for how long the process was suspended since then, in seconds."""
        lost_s = monotonic() - self._due
        if lost_s < NOTICEABLE_S or process_time() - self._cpu_s > lost_s / 2:
            return 0.0
        return lost_s
