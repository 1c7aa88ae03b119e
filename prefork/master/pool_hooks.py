"""The hooks of a pool that are about the server: when they run, and that the pool's stop waits for them.

Runs in the master; the hooks run in helper processes, see ``errands``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from prefork.config import Pool as PoolConfig
from prefork.master.errands import Errands, ErrandsRecord
from prefork.process import Exit

EXIT_HOOK_S = 2.0
"""What ``server_exit`` has left of the time to stop at least; less if that is more than a tenth of it."""


@dataclass(frozen=True, slots=True)
class HooksRecord:
    """The hooks of a pool, as they go on under the next version of the master."""

    was_ready: bool
    stop_reason: str
    exit_told: bool
    errands: ErrandsRecord


class PoolHooks:
    """``config`` returns the config in force, whose hooks count."""

    def __init__(self, config: Callable[[], PoolConfig], errands: Errands) -> None:
        self._config = config
        self.errands = errands
        self._was_ready = False
        self._stop_reason = ""
        self._exit_told = False

    def record(self) -> HooksRecord:
        return HooksRecord(self._was_ready, self._stop_reason, self._exit_told, self.errands.record())

    def adopt(self, record: HooksRecord) -> None:
        """Go on where an older version of this process had got to."""
        self._was_ready, self._stop_reason = record.was_ready, record.stop_reason
        self._exit_told = record.exit_told
        self.errands.adopt(record.errands)

    def announce_ready(self, addresses: Sequence[str]) -> None:
        """The server serves with this pool; tell ``server_ready``, the first time."""
        if not self._was_ready:
            self._was_ready = True
            self._run("server_ready", addresses=list(addresses))

    def worker_gone(self, slot: str, generation: int, exit: Exit, facts: dict[str, object]) -> None:
        """Tell ``worker_gone``, unless the pool has never been ready: then the log says it all."""
        if self._was_ready:
            self._run("worker_gone", slot=slot, generation=generation, pid=exit.pid, **facts)

    def stop(self, deadline: float, reason: str, *, has_mold: bool) -> float:
        """Hooks have until ``deadline`` to run; return until when workers have. ``reason`` may change later."""
        if not (self.needs_mold and has_mold):
            self.errands.give_up("there is no mold to run it")
            return deadline
        self._stop_reason = reason
        self.errands.end_by(deadline)
        rest_s = max(0.0, deadline - monotonic())
        return deadline - min(EXIT_HOOK_S, rest_s / 10) if self._has("server_exit") else deadline

    def last(self) -> bool:
        """All workers of a pool that stops are gone: tell ``server_exit``; return whether nothing is left to run."""
        if self.errands.is_idle and self._stop_reason and not self._exit_told:
            self._exit_told = True
            self._run("server_exit", reason=self._stop_reason)
        if self.errands.is_idle:
            self.errands.close()
        return self.errands.is_idle

    @property
    def needs_mold(self) -> bool:
        """While the pool stops, hooks are to run."""
        return self._was_ready and (self._has("worker_gone") or self._has("server_exit"))

    def _has(self, hook: str) -> bool:
        return bool(self._config().hooks.get(hook))

    def _run(self, hook: str, **told: object) -> None:
        if self._has(hook):
            self.errands.add(hook, **told)
