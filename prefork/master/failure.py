"""How a failed boot is told: what failed and why in one line, the application's traceback below it.

Pure. Runs in the master.
"""

from __future__ import annotations

import re

from prefork.config import Pool
from prefork.master.plan import Worker

LATEST_FIRST = "(most recent call first)"
"""In the heading of a stack, that of a traceback ends the other way round."""
_FRAME = re.compile(r'^  File "(.+)", line (\d+)')


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


def in_one_line(message: str, traceback: str | None) -> str:
    """Return a message with the exception that its traceback ends with, and where that was raised; for a stack, where
    it is."""
    lines = (traceback or "").splitlines()
    frames = [(at, found) for at, line in enumerate(lines) if (found := _FRAME.match(line))]
    if not frames:
        return message
    at, place = frames[0 if LATEST_FIRST in lines[0] else -1]
    exception = next((line for line in lines[at:] if line.strip() and not line.startswith(" ")), "")
    where = f"{place[1]}:{place[2]}"
    return f"{message}: {exception} ({where})" if exception else f"{message} ({where})"
