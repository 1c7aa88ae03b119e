"""The account that the master gives of the server: a document, from which ``prefork.status`` makes what is shown.

Built at the end of each turn of the master, and published if it is another one: nobody has to say what has changed.
An idle master makes no turns. Runs in the master.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from prefork import __version__
from prefork.bulletin import Bulletin
from prefork.log import Log
from prefork.master.chronicle import Chronicle
from prefork.master.estate import Estate, ServerState
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.totals import Totals, sum_of
from prefork.master.worker_states import State
from prefork.records import plain
from prefork.scoreboard import Scoreboard
from prefork.status import status

Document = dict[str, Any]


class Account:
    """``pools`` tells all that there are, those that are in force first."""

    def __init__(
        self,
        estate: Estate,
        chronicle: Chronicle,
        bulletin: Bulletin,
        pools: Callable[[], Sequence[Pool]],
        log: Log,
        tell_workers: Callable[[int], None] | None = None,
    ) -> None:
        """``tell_workers`` is told how many workers serve whenever that has changed."""
        self._estate = estate
        self._chronicle = chronicle
        self._bulletin = bulletin
        self._pools = pools
        self._log = log
        self._tell_workers = tell_workers
        self._told_workers = 0
        self._published: Document | None = None
        self._deaths: tuple[object, str] = (None, "")
        """Those that were written last, and as JSON: they are most of a document, and seldom change."""
        self._complained = False

    def status(self, *, show_queries: bool = True) -> Document:
        """Return the status as of now."""
        return status(self.document(), self.boards(), monotonic(), show_queries=show_queries)

    def boards(self) -> dict[tuple[str, int], Scoreboard]:
        """Return the scoreboards of all generations that have processes, by pool and generation."""
        return {
            (pool.name, number): generation.scoreboard
            for pool in self._pools()
            for number, generation in pool.generations.items()
        }

    def publish(self) -> None:
        """Publish what is so now, if it is not what was published."""
        document = self.document()
        if document != self._published or self._bulletin.is_touched:
            written = self._written(document)
            if len(written) <= self._bulletin.half_bytes:
                self._bulletin.publish(written)
            self._published = document
            self._tell()

    def _tell(self) -> None:
        serving = sum(sum(_serving(pool)) for pool in self._pools())
        if self._tell_workers is not None and serving != self._told_workers:
            self._tell_workers(serving)
            self._told_workers = serving

    def document(self) -> Document:
        """Return the document as of now."""
        estate, chronicle = self._estate, self._chronicle
        groups: dict[str, list[Pool]] = {}
        for pool in self._pools():
            groups.setdefault(pool.name, []).append(pool)
        return {
            "name": estate.config.name,
            "version": __version__,
            "pid": os.getpid(),
            "state": self._state(),
            "generation": estate.generation,
            "started_at": chronicle.started_at,
            "config": list(estate.config.files),
            "config_hash": estate.config.digest,
            "ready": estate.state in (ServerState.SERVING, ServerState.RELOADING)
            and all(any(_serving(pool)) for pool in estate.pools.values()),
            "healthy": estate.state is ServerState.STOPPING
            or any(pool.can_boot for pool in estate.pools.values()),
            "reloads": chronicle.reloads,
            "reloads_total": chronicle.reloads_total,
            "last_upgrade": chronicle.last_upgrade,
            "pools": {name: self._pool(name, pools) for name, pools in groups.items()},
            "deaths": chronicle.deaths,
        }

    def _state(self) -> str:
        if self._estate.state is ServerState.STOPPING and not self._estate.is_hasty:
            return "draining"
        return self._estate.state.value

    def _pool(self, name: str, pools: Sequence[Pool]) -> Document:
        """Return what there is about a pool, with one of the same name that leaves or comes."""
        first = pools[0]
        bounds = first.bounds
        totals = sum_of(pool.totals for pool in pools).plus(self._chronicle.departed.get(name, Totals()))
        return {
            "workers_wanted": first.table.wanted,
            "bounds": None if bounds is None else {"min": bounds.least, "max": bounds.most},
            "threads": first.current.config.threads,
            "totals": plain(totals.counts),
            "spawned": totals.spawned,
            "deaths": dict(totals.deaths),
            "cpu_ns": dict(totals.cpu_ns),
            "generations": sorted({number for pool in pools for number in pool.generations}),
            "listeners": [
                {
                    "address": listener.address,
                    "backlog": listener.backlog,
                    "family": int(listener.family),
                    "inode": listener.inode,
                }
                for listener in first.current.listeners
            ],
            "workers": [_worker(name, worker) for pool in pools for worker in _by_slot(pool)],
        }

    def _written(self, document: Document) -> bytes:
        """Return a document as JSON that fits into the bulletin."""
        deaths = self._chronicle.deaths
        if self._deaths[0] is not deaths:
            self._deaths = deaths, _json(deaths)
        head = _json({key: value for key, value in document.items() if key != "deaths"})
        written = _join(head, self._deaths[1])
        for fewer in _fewer(deaths):
            if len(written) <= self._bulletin.half_bytes:
                break
            if not self._complained:
                self._complained = True
                self._log.warning(
                    "status-too-long",
                    f"the status does not fit into {self._bulletin.half_bytes} bytes: it goes without stacks, and "
                    "without the oldest deaths if need be",
                )
            written = _join(head, _json(fewer))
        return written


def _fewer(deaths: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield deaths without stacks, and then fewer and fewer of them."""
    bare = [{**death, "stack": None} for death in deaths]
    yield bare
    while bare:
        bare = bare[: len(bare) // 2]
        yield bare


def _join(head: str, deaths: str) -> bytes:
    return f'{head[:-1]},"deaths":{deaths}}}'.encode("ascii")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _by_slot(pool: Pool) -> list[Worker]:
    """Return the workers, of a slot the oldest first."""
    return sorted(pool.table.workers.values(), key=lambda worker: (worker.slot, worker.spawned_at))


def _serving(pool: Pool) -> Iterator[bool]:
    return (worker.state is State.READY for worker in pool.table.workers.values())


def _worker(pool: str, worker: Worker) -> Document:
    return {
        "slot": f"{pool}.{worker.slot}",
        "pid": worker.pid,
        "generation": worker.generation,
        "cell": worker.cell,
        "state": _state_of(worker),
        "spawned_at": worker.spawned_at,
        "ready_at": worker.ready_at,
    }


def _state_of(worker: Worker) -> str:
    if worker.ready_at is None:
        return "booting"
    return "ready" if worker.state is State.READY else "draining"
