"""Where pools and their generations come from: all that a new child inherits is put together here.

Runs in the master; ``run_mold`` runs in the child.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakSet

from prefork import privileges
from prefork.bulletin import Bulletin
from prefork.config import Admin
from prefork.config import Pool as PoolConfig
from prefork.contexts import Contexts
from prefork.heritage import AdminHeritage, Heritage, InheritedBoard, InheritedListener
from prefork.log import Logs
from prefork.master import open_files
from prefork.master.admin_terms import Terms
from prefork.master.capacity import worker_count
from prefork.master.certificates import contexts_of
from prefork.master.cgroup import OomWatch
from prefork.master.chronicle import Chronicle
from prefork.master.generation import Generation
from prefork.master.listeners import Listener
from prefork.master.loop import Loop
from prefork.master.metrics_folder import MetricsFolder
from prefork.master.molds import Means
from prefork.master.pool import Pool
from prefork.master.pool_terms import PoolRecord, Watcher
from prefork.master.request_watch import RequestWatch
from prefork.privileges import Credentials
from prefork.relay import Relay
from prefork.scoreboard import Scoreboard

AdminMain = Callable[[AdminHeritage, Admin, PoolConfig, Credentials | None, Logs, Contexts], int]
MoldMain = Callable[[Heritage, PoolConfig, Logs, Scoreboard, Contexts, bool], int]


class Lives(NamedTuple):
    """The lives of a mold and of an admin process; handed in, since the master never imports the code of workers."""

    mold: MoldMain
    admin: AdminMain


class Nursery:
    """Makes generations of pools, which share one lifeline, doorbell and set of logs."""

    def __init__(
        self,
        server: str,
        lifeline: int,
        loop: Loop,
        logs: Logs,
        requests: RequestWatch,
        lives: Lives,
        buckets_s: Sequence[float],
        bulletin: Bulletin,
        chronicle: Chronicle,
        metrics: MetricsFolder | None,
    ) -> None:
        """``lifeline`` is the end that children watch."""
        self._metrics = metrics
        self._server = server
        self._logs = logs
        self._log = logs.log
        self._requests = requests
        self._lives = lives
        self._buckets_s = buckets_s
        self._room_for_connections = 0
        """The most connections of a worker that the limit of open files was raised for; a limit that an operator
        lowers meanwhile stays."""
        self._lifeline = lifeline
        self._contexts: WeakSet[Contexts] = WeakSet()
        self._means = Means(loop, logs.log, self._run_mold, OomWatch(), bulletin, chronicle)

    def add_generation(
        self,
        config: PoolConfig,
        generation: int,
        listeners: Sequence[Listener],
        pool: Pool | None,
        watcher: Watcher,
    ) -> Pool:
        """Start a generation of ``pool``, or of a new pool if it is None.

        Raises ``PreforkError`` if its user, its number of workers or its certificates make no sense here.
        """
        privileges.resolve(config.user, config.group)
        wanted, explanation = worker_count(config)
        if config.limits.connections > self._room_for_connections:
            self._room_for_connections = config.limits.connections
            open_files.make_room(config, self._log)
        contexts = contexts_of(config, listeners)
        self._contexts.add(contexts)
        addresses = [listener.address for listener in listeners]
        self._log.info(
            "pool-starting",
            f"{config.name} gen {generation}: {config.app} on {', '.join(addresses)}; {explanation}",
            pool=config.name,
            generation=generation,
            workers=wanted,
            app=config.app,
            listeners=addresses,
        )
        made = Generation.create(
            generation,
            config,
            wanted,
            tuple(listeners),
            doorbell=self._requests.doorbell,
            relay=pool.relay if pool is not None else Relay.make(),
            tls=contexts,
            buckets_s=self._buckets_s,
        )
        self._requests.adopt(made.scoreboard)
        if pool is None:
            pool = Pool(made, self._means, watcher)
        pool.add(made)
        return pool

    def adopt_pool(self, record: PoolRecord, listeners: Mapping[int, Listener], watcher: Watcher) -> Pool:
        """Take over a pool that an older version of this process has run; ``listeners`` by their descriptors."""
        relay = Relay.adopt(*record.relay)
        doorbell = self._requests.doorbell
        generations = {
            each.number: Generation.adopt(each, listeners, doorbell, relay) for each in record.generations
        }
        for generation in generations.values():
            self._contexts.add(generation.tls)
        return Pool.adopt(record, generations, self._means, watcher)

    def _metrics_folder_of(self, config: PoolConfig) -> str | None:
        """Return the folder for the application's own metrics; runs in the child, which may do what the master may."""
        try:
            return None if self._metrics is None else self._metrics.of_pool(config)
        except OSError as error:
            self._log.warning(
                "metrics-folder-failed", f"the application's own metrics are not collected: {error}"
            )
            return None

    def run_admin(
        self,
        terms: Terms,
        generation: int,
        listeners: Sequence[Listener],
        boards: Mapping[tuple[str, int], int],
        channel: int,
        last_words: int,
    ) -> int:
        """Live as an admin process; runs in the child."""
        heritage = AdminHeritage(
            server=self._server,
            generation=generation,
            lifeline=self._lifeline,
            channel=channel,
            last_words=last_words,
            listeners=tuple(
                InheritedListener(listener.fileno(), listener.address, ours=not listener.inherited)
                for listener in listeners
            ),
            logs=self._logs.fds,
            bulletin=self._means.bulletin.fd,
            boards=tuple(InheritedBoard(*key, fd) for key, fd in boards.items()),
            metrics_folder=None if self._metrics is None else self._metrics.path,
        )
        for contexts in self._contexts:
            contexts.forget()  # it has no pool's private keys
        contexts = contexts_of(terms.pool, listeners)
        return self._lives.admin(heritage, terms.admin, terms.pool, terms.credentials, self._logs, contexts)

    def _run_mold(self, generation: Generation, channel: int, last_words: int, preload: bool) -> int:
        heritage = generation.heritage(
            self._server,
            lifeline=self._lifeline,
            doorbell=self._requests.doorbell,
            channel=channel,
            last_words=last_words,
            logs=self._logs.fds,
        )
        heritage = replace(heritage, metrics_folder=self._metrics_folder_of(generation.config))
        for contexts in self._contexts - {generation.tls}:
            contexts.forget()  # no pool has the private keys of another
        if not generation.tls.by_listener:  # there is no TLS, or the generation is older than this program
            generation.tls.by_listener.update(
                contexts_of(generation.config, generation.listeners).by_listener
            )
        return self._lives.mold(
            heritage, generation.config, self._logs, generation.scoreboard, generation.tls, preload
        )
