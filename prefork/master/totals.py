"""What a pool counts beyond the lives of its workers.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from prefork.figures import Counts


@dataclass(frozen=True, slots=True)
class Totals:
    """Each only grows; what is ``spawned`` and not among the ``deaths`` lives, or is about to be forked."""

    counts: Counts = field(default_factory=Counts)
    """Of all workers that are gone."""
    spawned: int = 0
    """Workers that were ordered."""
    deaths: Mapping[str, int] = field(default_factory=dict)
    """Workers that are gone or never came, by reason."""
    cpu_ns: Mapping[str, int] = field(default_factory=dict)
    """CPU time of the workers that are gone, by the name of their slot."""

    def spawning(self) -> Totals:
        """Count a worker that is ordered."""
        return replace(self, spawned=self.spawned + 1)

    def burying(self, reason: str, counts: Counts, slot: str, cpu_ns: int) -> Totals:
        """Count the death of a worker, and all that it counted."""
        return self.plus(Totals(counts, 0, {reason: 1}, {slot: cpu_ns}))

    def plus(self, other: Totals) -> Totals:
        return Totals(
            self.counts.plus(other.counts),
            self.spawned + other.spawned,
            _sum(self.deaths, other.deaths),
            _sum(self.cpu_ns, other.cpu_ns),
        )


def sum_of(totals: Iterable[Totals]) -> Totals:
    total = Totals()
    for each in totals:
        total = total.plus(each)
    return total


def _sum(mine: Mapping[str, int], theirs: Mapping[str, int]) -> Mapping[str, int]:
    return {**mine, **{key: mine.get(key, 0) + each for key, each in theirs.items()}}
