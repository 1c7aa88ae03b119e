"""How a failed boot is told: what failed and why in one line, the application's traceback below it.

Pure. Runs in the master.
"""

from __future__ import annotations


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
