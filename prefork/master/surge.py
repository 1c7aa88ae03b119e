"""Whether memory holds a reload: for a while there are two molds, and a batch of workers more.

Runs in the master. What a new generation will need is what the old one uses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from prefork.config import Config, Reload
from prefork.errors import PreforkError
from prefork.master.cgroup import MemoryUse
from prefork.master.plan import batch_size
from prefork.master.pool import Pool

MIB = 1 << 20


class Need(NamedTuple):
    """What a pool needs beside what it has: ``batch`` workers, and a mold."""

    pool: str
    worker_bytes: int
    batch: int
    mold_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.worker_bytes * self.batch + self.mold_bytes

    def __str__(self) -> str:
        return f"{self.pool} {self.batch} x {self.worker_bytes // MIB} MiB and {self.mold_bytes // MIB} MiB for a mold"


def fit(config: Config, pools: Mapping[str, Pool], use: MemoryUse | None) -> tuple[Config, str]:
    """Return the config to reload to, with batches of one if memory holds no more; and if so, why.

    Raises ``PreforkError`` if it does not hold even that.
    """
    needs = [_need(pools[pool.name], pool.reload.batch) for pool in config.pools if pool.name in pools]
    if use is None or _fits(needs, use):
        return config, ""
    least = [need._replace(batch=1) for need in needs]
    if _fits(least, use):
        one_by_one = tuple(replace(pool, reload=Reload(batch=1)) for pool in config.pools)
        why = f"memory does not hold whole batches, so workers are replaced one by one: {_sum(needs, use)}"
        return replace(config, pools=one_by_one), why
    raise PreforkError(f"memory does not hold a reload, not even worker by worker: {_sum(least, use)}")


def _need(pool: Pool, batch: float | int) -> Need:
    memories = [cell.memory for _, cell in pool.serving()]
    biggest = max((memory.uss_bytes for memory in memories if memory), default=0)
    mold_bytes = _anonymous_bytes(pool.mold_pid) if pool.mold_pid is not None else 0
    return Need(pool.name, biggest, batch_size(pool.table.wanted, batch), mold_bytes)


def _fits(needs: Sequence[Need], use: MemoryUse) -> bool:
    return sum(need.total_bytes for need in needs) <= use.limit_bytes - use.used_bytes


def _sum(needs: Sequence[Need], use: MemoryUse) -> str:
    free_bytes = max(0, use.limit_bytes - use.used_bytes)
    total_bytes = sum(need.total_bytes for need in needs)
    return (
        f"needed are {total_bytes // MIB} MiB ({', '.join(map(str, needs))}), free are {free_bytes // MIB} MiB "
        f"({use.used_bytes // MIB} MiB of {use.limit_bytes // MIB} MiB are in use)"
    )


def _anonymous_bytes(pid: int) -> int:
    """Return what a process has in memory besides pages of files; 0 if that cannot be known.

    This file, unlike those with more detail, may be read of a process of another user. See proc_pid_statm(5).
    """
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
