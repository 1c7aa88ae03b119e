"""The chronicle: the last deaths, reloads and upgrade of a server, through all versions of prefork that it runs.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from prefork.master.failure import LATEST_FIRST, in_one_line
from prefork.master.news import Happening, ReloadEnded, Upgraded, UpgradeRefused
from prefork.master.totals import Totals

MOST_DEATHS = 50
MOST_RELOADS = 20
LONGEST_STACK = 4096
"""In characters."""


@dataclass(slots=True)
class Chronicle:
    """Plain values, as they are shown; lists begin with the latest, and are replaced when something comes to them."""

    started_at: float = field(default_factory=monotonic)
    """When the server began (monotonic seconds)."""
    deaths: list[dict[str, Any]] = field(default_factory=list)
    reloads: list[dict[str, Any]] = field(default_factory=list)
    reloads_total: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})
    last_upgrade: dict[str, Any] | None = None
    departed: dict[str, Totals] = field(default_factory=dict)
    """Of pools that are gone: one of the same name may come again, and its counters go on."""

    def note_death(
        self,
        facts: Mapping[str, object],
        stack: str,
        *,
        slot: str | None,
        pid: int | None,
        pool: str,
        generation: int,
    ) -> None:
        """Note the death of a worker; of a mold, if there is no slot. ``facts``: see ``obituary``."""
        death = {
            "slot": slot,
            "pid": pid,
            "pool": pool,
            "generation": generation,
            **{key: facts[key] for key in ("reason", "detail", "exit_status", "signal", "expected")},
            "at": _now(),
            "uptime_s": facts["uptime_s"],
            "requests": facts["requests"],
            "stack": shortened(stack) if stack else None,
        }
        self.deaths = [death, *self.deaths[: MOST_DEATHS - 1]]

    def hear(self, happening: Happening) -> None:
        """Note how reloads and upgrades end."""
        match happening:
            case ReloadEnded():
                result = "failed" if happening.error is not None else "ok"
                reload = {
                    "result": result,
                    "error": happening.error and in_one_line(happening.error, happening.traceback),
                    "generation": happening.generation,
                    "took_s": round(happening.took_s, 3),
                    "ended_at": _now(),
                }
                self.reloads = [reload, *self.reloads[: MOST_RELOADS - 1]]
                self.reloads_total = {
                    **self.reloads_total,
                    result: self.reloads_total.get(result, 0) + 1,
                }
            case UpgradeRefused(error, traceback):
                self._note_upgrade("failed", in_one_line(error, traceback), None, None)
            case Upgraded(version, predecessor, error, traceback):
                told = error and in_one_line(error, traceback)
                self._note_upgrade("failed" if error else "ok", told, version, predecessor)

    def depart(self, pool: str, totals: Totals) -> None:
        """Keep the totals of a pool that is gone."""
        self.departed = {**self.departed, pool: self.departed.get(pool, Totals()).plus(totals)}

    def _note_upgrade(
        self, result: str, error: str | None, version: str | None, predecessor: str | None
    ) -> None:
        self.last_upgrade = {
            "result": result,
            "error": error,
            "version": version,
            "predecessor": predecessor,
            "ended_at": _now(),
        }


def shortened(stack: str) -> str:
    """Return at most ``LONGEST_STACK`` characters of a stack, from the end at which the latest call is."""
    if len(stack) <= LONGEST_STACK:
        return stack
    room = LONGEST_STACK - len("…\n")
    return f"{stack[:room]}\n…" if LATEST_FIRST in stack[:room] else f"…\n{stack[-room:]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
