"""Deaths: one line for each worker that is gone, with all that is known of it.

Runs in the master.
"""

from __future__ import annotations

from prefork.log import Log
from prefork.master.plan import Worker
from prefork.process import Exit
from prefork.scoreboard import Counts

_WHY = {
    "retired": "replaced",
    "scaled": "scaled away",
    "asked": "asked to be replaced by SIGTERM",
    "stop": "the server stops",
    "quick-stop": "the server stops at once",
    "boot-timeout": "it did not get ready within timeouts.boot",
    "drain-timeout": "it did not finish within timeouts.graceful",
    "request-deadline": "a request passed timeouts.request",
    "spawn-failed": "it could not be forked",
    "rolled-back": "the reload was rolled back",
    "boot-failed": "it could not get ready",
    "not-started": "the server could not start",
}
EXPECTED = frozenset({"retired", "scaled", "asked", "stop", "quick-stop"})
"""Reasons that need no attention when the worker also exits with status 0."""
GIVEN_UP = frozenset({"retired", "rolled-back", "not-started"})
"""Reasons for which the master kills a worker that does not serve yet: nothing is lost, and nothing wrong."""


def write_obituary(
    log: Log, worker: Worker, exit: Exit, counts: Counts, uptime_s: float, oom_killed: bool
) -> None:
    """Log the death of a worker, with its own ``log``: as information if it was expected, else as an error."""
    reason = worker.reason or ("oom-killed" if oom_killed else "died")
    never_served = worker.ready_at is None and reason in GIVEN_UP
    expected = never_served or (reason in EXPECTED | GIVEN_UP and exit.exit_status == 0)
    why = _WHY.get(reason, "")
    if oom_killed:
        why = "killed by the kernel for lack of memory (OOM)"
    write = log.info if expected else log.error
    write(
        "worker-gone",
        f"gone: {exit} after {uptime_s:.1f} s and {counts.requests} requests, "
        f"{'expected' if expected else 'not expected'}{f': {why}' if why else ''}",
        reason=reason,
        exit_status=exit.exit_status,
        signal=exit.signal,
        uptime_s=round(uptime_s, 3),
        requests=counts.requests,
        expected=expected,
    )
