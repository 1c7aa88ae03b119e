"""Deaths: one line for each worker that is gone, with all that is known of it.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefork.figures import Counts
from prefork.log import Log
from prefork.master.plan import BackedOff, Worker
from prefork.process import Exit

WHY = {
    "retired": "replaced",
    "scaled": "scaled away",
    "asked": "asked to be replaced by SIGTERM",
    "recycled-requests": "it has served recycle.requests",
    "recycled-lifetime": "it has lived for recycle.lifetime",
    "recycled-memory": "it used more than recycle.memory",
    "recycled-command": "it was replaced by prefork recycle",
    "recycled-pressure": "it was the biggest when memory was beyond recycle.pressure",
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
OF_WORKERS = frozenset({"asked", "recycled-requests", "recycled-lifetime", "recycled-memory"})
"""Reasons for which a worker asks to be replaced."""
EXPECTED = OF_WORKERS | {
    "recycled-command",
    "recycled-pressure",
    "retired",
    "scaled",
    "stop",
    "quick-stop",
    "rolled-back",
    "not-started",
}
"""Reasons that need no attention if the worker also exits with status 0, or if nobody waited for that."""


def reasons_as_markdown() -> Iterator[str]:
    """Yield the lines of the table of reasons for the documentation."""
    yield "| reason | meaning | expected |"
    yield "|---|---|---|"
    yield "| `died` | it ended without being asked to | no |"
    yield "| `oom-killed` | killed by the kernel for lack of memory | no |"
    for reason, why in WHY.items():
        yield f"| `{reason}` | {why} | {'yes' if reason in EXPECTED else 'no'} |"


def write_obituary_of_unborn(log: Log, worker: Worker) -> None:
    """Log that a worker died, or was never forked, before it said hello: its pid is not known."""
    if worker.reason not in EXPECTED:
        log.error(
            "worker-gone",
            "gone: it said no hello, not expected: it could not be forked, or died at once",
            reason=worker.reason,
            expected=False,
        )


def facts_of_unborn(worker: Worker, uptime_s: float) -> dict[str, object]:
    """Return what is known of such a death, as ``write_obituary`` does."""
    reason = worker.reason or "spawn-failed"
    return {
        "reason": reason,
        "detail": "it said no hello: it could not be forked, or died at once",
        "exit_status": None,
        "signal": None,
        "uptime_s": round(uptime_s, 3),
        "requests": None,
        "expected": reason in EXPECTED,
    }


def facts_of_mold(exit: Exit, detail: str, uptime_s: float, oom_killed: bool) -> dict[str, object]:
    """Return the same for a mold whose death nobody asked for."""
    return {
        "reason": "oom-killed" if oom_killed else "mold-died",
        "detail": detail,
        "exit_status": exit.exit_status,
        "signal": exit.signal,
        "uptime_s": round(uptime_s, 3),
        "requests": None,
        "expected": False,
    }


def write_obituary(
    log: Log, worker: Worker, exit: Exit, counts: Counts, uptime_s: float, oom_killed: bool, stack: str
) -> dict[str, object]:
    """Log the death of a worker, with its own ``log``: as information if it was expected, else as an error.

    Return what the hook ``worker_gone`` is told of it.
    """
    reason = worker.reason or ("oom-killed" if oom_killed else "died")
    may_be_killed = worker.ready_at is None or reason == "quick-stop"
    expected = reason in EXPECTED and (exit.exit_status == 0 or may_be_killed)
    why = WHY.get(reason, "")
    if worker.detail:
        why += f": {worker.detail}"
    if oom_killed:
        why = "killed by the kernel for lack of memory (OOM)"
    facts: dict[str, object] = {
        "reason": reason,
        "detail": worker.detail or None,
        "exit_status": exit.exit_status,
        "signal": exit.signal,
        "uptime_s": round(uptime_s, 3),
        "requests": counts.requests,
        "expected": expected,
    }
    write = log.info if expected else log.error
    write(
        "worker-gone",
        f"gone: {exit} after {uptime_s:.1f} s and {counts.requests} requests, "
        f"{'expected' if expected else 'not expected'}{f': {why}' if why else ''}",
        **facts,
        traceback=stack or None,
    )
    return facts


def tell_back_off(log: Log, pool: str, wait: BackedOff) -> None:
    """Log that a slot waits before it gets a successor."""
    log.warning(
        "slot-backs-off",
        f"{pool}.{wait.slot}: failure {wait.failures} in a row, next worker in {wait.delay_s:.1f} s",
        slot=f"{pool}.{wait.slot}",
        failures=wait.failures,
        delay_s=round(wait.delay_s, 3),
    )
