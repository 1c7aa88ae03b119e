"""What happened between two looks at the server: rates, shares and percentiles, from counters that only grow.

Pure. Runs in a command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefork.latency import percentile

Status = dict[str, Any]
"""An answer to ``status``; see docs/reference/control.md."""

WINDOW_S = 60.0
"""Percentiles are those of the requests of so long."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """A pool between two looks; None where nothing is known."""

    requests_per_s: float | None
    errors_per_s: float | None
    percentiles_s: tuple[float | None, float | None, float | None]
    """p50, p95 and p99 of the time in the application."""


@dataclass(frozen=True, slots=True)
class Work:
    """A worker between two looks."""

    requests_per_s: float | None
    cpu_share: float | None
    """1.0 is a whole core."""


class History:
    """The looks of the last minute at one server."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Status]] = deque()

    def add(self, at: float, status: Status) -> None:
        """Add what the server said at an instant (monotonic seconds). A server that was started anew begins anew."""
        if self._looks and _began_anew(self._looks[-1][1], status):
            self._looks.clear()
        self._looks.append((at, status))
        while len(self._looks) > 2 and self._looks[1][0] < at - WINDOW_S:
            self._looks.popleft()

    @property
    def status(self) -> Status | None:
        """The last answer."""
        return self._looks[-1][1] if self._looks else None

    @property
    def at(self) -> float | None:
        """The instant of the last answer."""
        return self._looks[-1][0] if self._looks else None

    def traffic(self, pool: str) -> Traffic:
        """Return what passed through a pool of the last answer."""
        now = self._looks[-1][1]["pools"][pool]
        oldest = self._looks[0][1]["pools"].get(pool)
        latency = now["latency"]
        counts: Sequence[int] = latency["application"]
        # An upgrade may bring other bounds.
        if oldest is not None and oldest is not now and oldest["latency"]["bounds_s"] == latency["bounds_s"]:
            counts = [new - old for new, old in zip(counts, oldest["latency"]["application"], strict=True)]
        p50, p95, p99 = (percentile(latency["bounds_s"], counts, share) for share in (0.5, 0.95, 0.99))
        before = self._before().get(pool)
        return Traffic(
            self._rate(before, now, "requests"), self._rate(before, now, "errors"), (p50, p95, p99)
        )

    def work(self, pool: str, worker: Status) -> Work:
        """Return what a worker of the last answer did."""
        workers = self._before().get(pool, {"workers": []})["workers"]
        before = next((each for each in workers if each["pid"] == worker["pid"]), None)
        return Work(self._rate(before, worker, "requests"), self._rate(before, worker, "cpu_s"))

    def _before(self) -> dict[str, Status]:
        """The pools at the last look but one."""
        return self._looks[-2][1]["pools"] if len(self._looks) > 1 else {}

    def _rate(self, before: Status | None, now: Status, name: str) -> float | None:
        if before is None or before[name] is None or now[name] is None:
            return None
        grown: float = now[name] - before[name]
        return max(0.0, grown / (self._looks[-1][0] - self._looks[-2][0]))


def _began_anew(before: Status, now: Status) -> bool:
    return (before["pid"], now["uptime_s"] < before["uptime_s"]) != (now["pid"], False)
