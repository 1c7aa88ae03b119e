"""A reload, from a valid new config to its commit or rollback, over all pools.

Runs in the master. The order: new listeners are opened; an admin process starts if its config is another; each pool's
new mold loads; workers of the new generation boot; when every pool has its first batch ready, old workers drain batch
by batch; when every slot of every pool is filled by the new generation it is committed: the last old workers go, old
molds too, and listeners that the new config does not have are emptied and closed. Until then whatever fails turns
everything back.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from prefork.config import Config
from prefork.config import Pool as PoolConfig
from prefork.config.admin_pool import NAME as ADMIN
from prefork.errors import PreforkError
from prefork.master.admin_keeper import AdminKeeper
from prefork.master.admin_terms import Terms
from prefork.master.doors import Doors
from prefork.master.estate import Estate, listens_of
from prefork.master.listeners import Listener, diff
from prefork.master.pool import Pool


class Tools(Protocol):
    """What a reload needs of the supervisor."""

    @property
    def doors(self) -> Doors:
        """What opens and closes listeners."""

    def add_generation(
        self, config: PoolConfig, generation: int, listeners: Sequence[Listener], pool: Pool | None
    ) -> Pool:
        """Start a generation of ``pool``, or of a new pool if it is None."""

    @property
    def admin(self) -> AdminKeeper:
        """The keeper of the admin process."""

    def retire_pool(self, pool: Pool, reason: str) -> None:
        """Have all workers of a pool drain and go."""


class Reload:
    """One reload. ``start`` may raise ``PreforkError`` or ``OSError``; then nothing has changed."""

    def __init__(self, estate: Estate, config: Config, generation: int, tools: Tools) -> None:
        self.config = config
        self.generation = generation
        self.started_at = monotonic()
        self.new_pools: dict[str, Pool] = {}
        self._estate = estate
        self._tools = tools
        self._opened: list[Listener] = []
        self._closing: list[Listener] = []
        self._before_gate: set[str] = set()
        self._before_commit: set[str] = set()

    @property
    def took_s(self) -> float:
        """How long it takes so far."""
        return monotonic() - self.started_at

    def start(self) -> None:
        """Open new listeners and start a mold for each pool."""
        terms = Terms.of(self.config)
        wanted = listens_of(self.config)
        change = diff(self._estate.listeners, wanted)
        self._opened = self._tools.doors.open(change.add, wanted)
        self._closing = change.remove
        self._estate.listeners += self._opened
        names = {pool.name for pool in self.config.pools}
        self._before_gate, self._before_commit = set(names), set(names)
        try:
            if self._tools.admin.prepare(terms):
                self._before_gate.add(ADMIN)
                self._before_commit.add(ADMIN)
            for config in self.config.pools:
                listeners = self._estate.listeners_of(config)
                old = self._estate.pools.get(config.name)
                pool = self._tools.add_generation(config, self.generation, listeners, old)
                if old is None:
                    self.new_pools[config.name] = pool
        except BaseException:
            self.roll_back()
            raise

    def gate_reached(self, name: str) -> None:
        """The pool has its first batch, or the admin process is ready: once all are, old workers may go."""
        self._before_gate.discard(name)
        if not self._before_gate:
            for each in self._before_commit - self.new_pools.keys() - {ADMIN}:
                self._estate.pools[each].open_gate()

    def all_ready(self, name: str) -> bool:
        """Every slot of the pool is filled by the new generation, or the admin process is ready.

        Return whether that completes the reload.
        """
        self._before_commit.discard(name)
        self.gate_reached(name)
        return not self._before_commit

    def commit(self) -> list[str]:
        """Let the new generation take over for good; return complaints about listeners that could not change."""
        estate = self._estate
        removed = [
            pool for name, pool in estate.pools.items() if name not in {p.name for p in self.config.pools}
        ]
        complaints = self._adjust_listeners()
        self._tools.doors.quiesce(self._closing)
        estate.listeners = [listener for listener in estate.listeners if listener not in self._closing]
        estate.config, estate.generation = self.config, self.generation
        estate.pools = {
            config.name: self.new_pools.get(config.name) or estate.pools[config.name]
            for config in self.config.pools
        }
        for pool in estate.pools.values():
            pool.commit(self.generation, empty_listeners=bool(self._closing))
        self._tools.admin.commit(empty_listeners=bool(self._closing))
        for pool in removed:
            self._tools.retire_pool(pool, "retired")
        if self._closing:
            self._tools.doors.empty_and_close(self._closing)
        return complaints

    def roll_back(self) -> None:
        """Return to the generation before, which still serves."""
        for pool in self._estate.pools.values():
            if self.generation in pool.generations:
                pool.roll_back(self.generation)
        self._tools.admin.roll_back()
        for pool in self.new_pools.values():
            self._tools.retire_pool(pool, "rolled-back")
        self._estate.listeners = [
            listener for listener in self._estate.listeners if listener not in self._opened
        ]
        self._tools.doors.quiesce(self._opened)
        if self._opened:
            self._tools.doors.empty_and_close(self._opened)

    def _adjust_listeners(self) -> list[str]:
        """Apply backlog, mode and owner to listeners that stay; a failure is no reason to go back."""
        complaints = []
        for listen in listens_of(self.config):
            for listener in self._estate.listeners_with(listen):
                try:
                    listener.adjust(listen)
                except PreforkError as error:
                    complaints.append(str(error))
        return complaints
