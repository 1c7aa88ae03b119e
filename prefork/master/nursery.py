"""Where pools and their generations come from: all that a new child inherits is put together here.

Runs in the master; ``run_mold`` runs in the child.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from weakref import WeakSet

from prefork import privileges
from prefork.config import Pool as PoolConfig
from prefork.contexts import Contexts
from prefork.heritage import Heritage
from prefork.log import Log, Logs
from prefork.master import open_files
from prefork.master.capacity import worker_count
from prefork.master.certificates import contexts_of
from prefork.master.cgroup import OomWatch
from prefork.master.generation import Generation
from prefork.master.listeners import Listener
from prefork.master.loop import Loop
from prefork.master.molds import Means
from prefork.master.pool import Pool, Watcher
from prefork.master.request_watch import RequestWatch
from prefork.relay import Relay
from prefork.scoreboard import Scoreboard

MoldMain = Callable[[Heritage, PoolConfig, Logs, Scoreboard, Contexts, bool], int]
"""The life of a mold; handed in, since the master never imports the code of molds and workers."""


class Nursery:
    """Makes generations of pools, which share one lifeline, doorbell and set of logs."""

    def __init__(
        self, server: str, loop: Loop, logs: Logs, log: Log, requests: RequestWatch, mold_main: MoldMain
    ) -> None:
        self._server = server
        self._logs = logs
        self._log = log
        self._requests = requests
        self._mold_main = mold_main
        self._room_for_connections = 0
        """The most connections of a worker that the limit of open files was raised for; a limit that an operator
        lowers meanwhile stays."""
        # Nothing is ever written: at its end-of-file the master is dead. The other end stays open with it.
        self._lifeline, self._lifeline_ours = os.pipe2(os.O_CLOEXEC)
        self._contexts: WeakSet[Contexts] = WeakSet()
        self._means = Means(loop, log, self._run_mold, OomWatch())

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
            relay=pool.relay if pool is not None else Relay(),
            tls=contexts,
        )
        self._requests.adopt(made.scoreboard)
        if pool is None:
            pool = Pool(made, self._means, watcher)
        pool.add(made)
        return pool

    def _run_mold(self, generation: Generation, channel: int, last_words: int, preload: bool) -> int:
        heritage = generation.heritage(
            self._server,
            lifeline=self._lifeline,
            doorbell=self._requests.doorbell,
            channel=channel,
            last_words=last_words,
            logs=self._logs.fds,
        )
        for contexts in self._contexts - {generation.tls}:
            contexts.forget()  # no pool has the private keys of another
        return self._mold_main(
            heritage, generation.config, self._logs, generation.scoreboard, generation.tls, preload
        )
