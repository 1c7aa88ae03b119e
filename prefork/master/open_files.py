"""The limit of open files, which molds and workers inherit: raised to what ``limits.connections`` needs.

Runs in the master. Only the soft limit changes, and only as far as needed: programs that the application starts
inherit it too, and old ones close every number up to it.
"""

from __future__ import annotations

import resource
from typing import Protocol

from prefork.config import Pool

SPARE = 128
"""For listeners, logs, channels and what the application opens."""


class Log(Protocol):
    """The part of ``prefork.log.Log`` that is needed here."""

    def info(self, event: str, message: str, /, **fields: object) -> None: ...

    def warning(self, event: str, message: str, /, **fields: object) -> None: ...


def make_room(pool: Pool, log: Log) -> None:
    """Raise the soft limit for the workers of ``pool``, and say so; warn if the hard limit is in the way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = pool.limits.connections
    least, wanted = (
        connections + SPARE,
        2 * connections + SPARE,
    )  # each may have a temporary file beside its socket
    if hard != resource.RLIM_INFINITY and hard < least:
        log.warning(
            "open-files-too-few",
            f"{pool.name}: limits.connections is {connections}, which takes {least} open files in a worker, and the "
            f"hard limit is {hard}; raise it (LimitNOFILE= in systemd, ulimit -Hn) or lower limits.connections",
            needed=least,
            limit=hard,
        )
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.info("open-files-raised", f"raised the limit of open files from {soft} to {wanted}", limit=wanted)
