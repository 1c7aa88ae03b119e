"""How a failed boot is told: what failed and why in one line, the application's traceback below it.

Pure. Runs in the master.
"""

from __future__ import annotations

from prefork.config import Pool
from prefork.master.plan import Worker


def not_ready(worker: Worker, config: Pool) -> str:
    """Return that a worker did not get ready, and within what time if that was it."""
    late = worker.reason == "boot-timeout"
    within = f" within timeouts.boot ({config.timeouts.boot:g} s)" if late else ""
    return f"worker {config.name}.{worker.slot} did not get ready{within}"


def told(what: str, details: str) -> tuple[str, str | None]:
    """Return the message and the traceback, if there is one, for what a mold or worker said of its failure.

    Its first line is the reason; of a bare traceback it is the last, and a stack has none.
    """
    first, _, rest = details.strip("\n").partition("\n")
    if first.startswith("Traceback"):
        return f"{what}: {rest.rpartition(chr(10))[2]}", details
    if first.endswith("(most recent call first):"):
        return what, details
    return (f"{what}: {first}" if first else what), rest or None
