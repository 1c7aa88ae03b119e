"""The part of the schema that says how many workers there are, and how long one lives."""

from __future__ import annotations

from dataclasses import dataclass

from prefork.config.composites import REQUIRED, key
from prefork.config.kinds import Integer
from prefork.config.quantities import Duration, Share, Size

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class WorkerRange:
    """As many workers as the load needs."""

    min: int = key(1, Integer(1, 1024), "The fewest, however quiet it is.")
    max: int = key(REQUIRED, Integer(1, 1024), "The most.")
    start: int | None = key(None, Integer(1, 1024), "How many at first; `min` when unset.")

    @property
    def first(self) -> int:
        """How many there are before anything is known of the load."""
        return self.start or self.min

    def clamp(self, wanted: int) -> int:
        """Return the nearest number of workers that is allowed."""
        return max(self.min, min(wanted, self.max))


@dataclass(frozen=True)
class Recycle:
    """When a worker is replaced by a fresh one, which is ready before the old one drains; 0 is never."""

    requests: int = key(
        0, Integer(0, 1_000_000_000), "After so many requests (connections of a service). 0: never."
    )
    jitter: float = key(
        "10%", Share(), "Each worker takes up to this share more of `requests` and `lifetime`, by chance."
    )
    lifetime: float = key(0, Duration(1, 366 * 86400, or_zero=True), "After so long. 0: never.")
    memory: int = key(
        0,
        Size(MIB, 1024 * 1024 * MIB, or_zero=True),
        "When it uses more memory that it shares with nobody (USS). 0: never.",
    )
    pressure: float = key(
        "90%",
        Share(),
        "When the memory of the control group, without inactive file pages, is above this share of its limit: the "
        "worker that uses most, one every few seconds. 0: never.",
    )
