"""A reload, from a valid new config to its commit or rollback, over all pools.

Runs in the master. The order: new listeners are opened; each pool's new mold loads; workers of the new generation
boot; when every pool has its first batch ready, old workers drain batch by batch; when every slot of every pool is
filled by the new generation it is committed: the last old workers go, old molds too, and listeners that the new
config does not have are emptied and closed. Until then whatever fails turns everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from prefork.config import Config
from prefork.config import Pool as PoolConfig
from prefork.log import Log
from prefork.master.listeners import Listener, diff, key_of
from prefork.master.pool import Pool


@dataclass(slots=True)
class Estate:
    """What the master owns, apart from processes: replaced as a whole when a reload commits."""

    config: Config
    generation: int
    listeners: list[Listener] = field(default_factory=list)
    pools: dict[str, Pool] = field(default_factory=dict)
    leaving: list[Pool] = field(default_factory=list)
    """Pools that a reload removed and whose workers still drain."""

    def listeners_of(self, pool: PoolConfig) -> tuple[Listener, ...]:
        """Return the open listeners of a pool, in the order of its config."""
        keys = [key_of(listen) for listen in pool.listen]
        return tuple(listener for key in keys for listener in self.listeners if listener.key == key)

    def all_pools(self) -> list[Pool]:
        return [*self.pools.values(), *self.leaving]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a reload needs of the supervisor."""

    log: Log
    open_listeners: Callable[[Sequence[object]], list[Listener]]
    add_generation: Callable[[PoolConfig, int, tuple[Listener, ...], Pool | None], Pool]
    """Start a generation of a pool; of a new pool if the last argument is None."""
    release: Callable[[list[Listener], list[Pool]], None]
    """Empty and close listeners that are no longer served, by way of the workers that still hold them."""


class Reload:
    """One reload. ``start`` may raise ``ListenError``; then nothing has changed."""

    def __init__(self, estate: Estate, config: Config, generation: int, tools: Tools) -> None:
        self.generation = generation
        self.started_at = monotonic()
        self._estate = estate
        self._config = config
        self._tools = tools
        self._added: list[Listener] = []
        self._removed: list[Listener] = []
        self._new_pools: dict[str, Pool] = {}
        self._waits_for_gate: set[str] = set()
        self._waits_for_all: set[str] = set()
