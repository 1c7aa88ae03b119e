"""What a reader of the scoreboard gets: the requests that run, and a worker's memory and counters, as plain values.

Used by master, workers and the admin process.
"""

from __future__ import annotations

from typing import NamedTuple


class Running(NamedTuple):
    """A request that runs now; instants are ``time.monotonic_ns()``, 0 for none."""

    thread: int
    start_ns: int
    deadline_ns: int
    """0, too, if the worker has dealt with it."""
    slow_ns: int
    """When it is to be told of as slow for the first or the next time."""
    line: str


class Memory(NamedTuple):
    """What a worker uses, as it has measured itself."""

    rss_bytes: int
    pss_bytes: int
    uss_bytes: int
    """What it shares with nobody, and what its end would free."""


class Counts(NamedTuple):
    """Counters since the worker began (or, for a fold, of all dead workers of a pool)."""

    requests: int = 0
    errors: int = 0
    accepted: int = 0
    refused: int = 0
    handed_over: int = 0
    """Connections that went to another worker."""
    adopted: int = 0
    """Connections that came from another worker."""
    sent_bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))
