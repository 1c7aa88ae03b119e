"""What a pool counts beyond the lives of its workers.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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

    def spawning(self) -> Totals:
        """Count a worker that is ordered."""
        return Totals(self.counts, self.spawned + 1, self.deaths)

    def burying(self, reason: str, counts: Counts) -> Totals:
        """Count the death of a worker, and all that it counted."""
        return self.plus(Totals(counts, 0, {reason: 1}))

    def plus(self, other: Totals) -> Totals:
        deaths = dict(self.deaths)
        for reason, count in other.deaths.items():
            deaths[reason] = deaths.get(reason, 0) + count
        return Totals(self.counts.plus(other.counts), self.spawned + other.spawned, deaths)


def sum_of(totals: Iterable[Totals]) -> Totals:
    total = Totals()
    for each in totals:
        total = total.plus(each)
    return total
