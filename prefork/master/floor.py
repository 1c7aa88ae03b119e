"""What an operator asked for by ``TTIN`` and ``TTOU``, which holds until the next reload. Runs in the master."""

from __future__ import annotations

from dataclasses import dataclass

from prefork.config import Pool, WorkerRange
from prefork.master.scaling_rule import Bounds


@dataclass(slots=True)
class Floor:
    """The number of workers below which a pool that scales itself does not go."""

    _workers: int = 0
    _before_reload: int = 0

    def ask(self, config: Pool, wanted: int, most: int) -> int:
        """Ask for so many workers; return how many that may be: never below ``workers.min``."""
        least = config.workers.min if isinstance(config.workers, WorkerRange) else 1
        self._workers = max(least, min(wanted, most))
        return self._workers

    def forget(self) -> None:
        """A reload has begun."""
        self._before_reload, self._workers = self._workers, 0

    def restore(self) -> None:
        """That reload failed."""
        self._workers = self._before_reload

    def bounds(self, config: Pool) -> Bounds | None:
        """Return how many workers there may be; None if the number is fixed."""
        span = config.workers
        if not isinstance(span, WorkerRange):
            return None
        return Bounds(max(span.min, self._workers), max(span.max, self._workers))
