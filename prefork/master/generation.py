"""A generation of a pool: what all its molds and workers inherit.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefork.config import Pool as PoolConfig
from prefork.config import WorkerRange
from prefork.contexts import Contexts
from prefork.heritage import Heritage, InheritedListener
from prefork.master.listeners import Listener, key_of
from prefork.master.plan import Plan, batch_size
from prefork.records import Descriptor
from prefork.relay import Relay
from prefork.scoreboard import Scoreboard

SPARE_CELLS = 64
"""Cells beyond twice the wanted workers: for scaling by signals, and for spawns that got lost."""


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A generation that goes on under the next version of the master."""

    number: int
    config: PoolConfig
    wanted: int
    listeners: tuple[Descriptor, ...]
    scoreboard: Descriptor


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One generation of one pool, as long as any of its processes lives."""

    number: int
    config: PoolConfig
    wanted: int
    listeners: tuple[Listener, ...]
    scoreboard: Scoreboard
    relay: Relay
    """The same for all generations of a pool."""
    tls: Contexts

    @classmethod
    def create(
        cls,
        number: int,
        config: PoolConfig,
        wanted: int,
        listeners: tuple[Listener, ...],
        doorbell: int,
        relay: Relay,
        tls: Contexts,
        buckets_s: Sequence[float],
    ) -> Generation:
        """Make its shared memory; no process yet."""
        most = config.workers.max if isinstance(config.workers, WorkerRange) else wanted
        scoreboard = Scoreboard.create(
            config.name,
            number,
            cells=2 * most + SPARE_CELLS,
            threads=config.threads,
            doorbell=doorbell,
            buckets_s=buckets_s,
        )
        return cls(number, config, wanted, listeners, scoreboard, relay, tls)

    @classmethod
    def adopt(
        cls, record: GenerationRecord, listeners: Mapping[int, Listener], doorbell: int, relay: Relay
    ) -> Generation:
        """Take over one that an older version of this process has made; ``listeners`` by their descriptors.

        A private key is in no record: the next mold, if there is one, reads it again.
        """
        return cls(
            record.number,
            record.config,
            record.wanted,
            tuple(listeners[fd] for fd in record.listeners),
            Scoreboard(record.scoreboard, doorbell),
            relay,
            Contexts(),
        )

    def record(self) -> GenerationRecord:
        return GenerationRecord(
            self.number,
            self.config,
            self.wanted,
            tuple(Descriptor(listener.fileno()) for listener in self.listeners if listener.fileno() >= 0),
            Descriptor(self.scoreboard.fd),
        )

    def plan(self, before: int | None = None) -> Plan:
        """Return what the slot table should aim at.

        ``before``: how many workers the load needed before a reload; it still will.
        """
        timeouts, span = self.config.timeouts, self.config.workers
        wanted = span.clamp(before) if isinstance(span, WorkerRange) and before is not None else self.wanted
        return Plan(
            generation=self.number,
            wanted=wanted,
            batch=batch_size(wanted, self.config.reload.batch),
            boot_s=timeouts.boot,
            graceful_s=timeouts.graceful,
            cells=len(self.scoreboard.cells),
        )

    @property
    def most_workers(self) -> int:
        """How many workers may be wanted: their successors need cells, too."""
        return len(self.scoreboard.cells) // 2

    def heritage(
        self,
        server: str,
        *,
        lifeline: int,
        doorbell: int,
        channel: int,
        last_words: int,
        logs: tuple[int, ...],
    ) -> Heritage:
        """Return what its next mold inherits."""
        introduced = {key_of(listen) for listen in self.config.listen if listen.proxy_protocol}
        return Heritage(
            server=server,
            pool=self.config.name,
            generation=self.number,
            lifeline=lifeline,
            doorbell=doorbell,
            relay=(self.relay.way_in.fileno(), self.relay.way_out.fileno()),
            channel=channel,
            last_words=last_words,
            listeners=tuple(
                InheritedListener(
                    listener.fileno(),
                    listener.address,
                    ours=not listener.inherited,
                    proxy_protocol=listener.key in introduced,
                )
                for listener in self.listeners
            ),
            logs=logs,
        )
