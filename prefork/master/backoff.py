"""How long a slot waits before its next worker after one has failed.

Pure. Runs in the master.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.5
CAP_S = 30.0
HEALTHY_S = 60.0
"""A worker that lived this long makes earlier failures forgotten."""


@dataclass(slots=True)
class BackOff:
    """Exponential, with jitter: no wait after the first failure, then 0.5 s doubling up to 30 s."""

    failures: int = 0
    retry_at: float | None = None
    """The instant at which the slot may have a worker again; None if it may now."""

    def failed(self, now: float, lived_s: float, random: float) -> float:
        """Note a failure of a worker that was ready for ``lived_s``; return the wait in seconds.

        ``random`` in [0, 1) takes up to a quarter off the wait, so that slots do not go in step.
        """
        if lived_s >= HEALTHY_S:
            self.failures = 0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        delay_s = min(CAP_S, FIRST_S * 2.0 ** min(self.failures - 2, 16)) * (1 - 0.25 * random)
        self.retry_at = now + delay_s
        return delay_s

    def is_over(self, now: float) -> bool:
        """Tell whether the slot may have a worker."""
        if self.retry_at is not None and self.retry_at <= now:
            self.retry_at = None
        return self.retry_at is None
