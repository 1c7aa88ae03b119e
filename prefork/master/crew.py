"""The workers of a pool as processes: a link to each, by worker and by pid, and the orders by which they are forked.

Runs in the master.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prefork.channel import Channel
from prefork.log import Log
from prefork.master import obituary
from prefork.master.loop import Loop
from prefork.master.plan import Worker
from prefork.master.spawn_orders import SpawnOrders
from prefork.master.worker_link import LinkRecord, WorkerLink
from prefork.master.worker_states import Reaction
from prefork.process import Process
from prefork.records import Descriptor


@dataclass(frozen=True, slots=True)
class CrewRecord:
    """Links and orders that go on under the next version of the master, by the worker's id in the slot table."""

    links: dict[int, LinkRecord]
    orders: dict[int, Descriptor]
    """The ends of channels that wait to be given to a mold."""


class Crew:
    """``order`` sends a mold the descriptors of a new worker, ``on_readable`` hears of a worker that says something."""

    def __init__(
        self,
        loop: Loop,
        order: Callable[[Worker, Sequence[int]], None],
        on_readable: Callable[[Worker], None],
    ) -> None:
        self._loop = loop
        self._order = order
        self._on_readable = on_readable
        self._links: dict[int, WorkerLink] = {}
        self._by_pid: dict[int, Worker] = {}
        self._orders = SpawnOrders(self._send)

    def spawn(self, worker: Worker) -> None:
        """Have a worker forked when its turn has come; ``give_orders`` must follow. Raises ``OSError``."""
        link, theirs = WorkerLink.make(self._loop)
        self._hold(worker, link)
        self._orders.add(worker, theirs)

    def give_orders(self) -> None:
        """Send the orders whose turn has come."""
        self._orders.give()

    def met(self, worker: Worker, pid: int) -> None:
        """A worker has said hello; ``pid`` is the kernel's word."""
        self._links[worker.id].process = Process(pid)
        self._by_pid[pid] = worker

    def link_to(self, worker: Worker) -> WorkerLink | None:
        return self._links.get(worker.id)

    def worker_of(self, pid: int) -> Worker | None:
        return self._by_pid.get(pid)

    def let_go(self, worker: Worker) -> WorkerLink:
        """Forget a worker; return its link, which is to be closed."""
        if worker.pid is not None:
            self._by_pid.pop(worker.pid, None)
        return self._links.pop(worker.id)

    def react(self, worker: Worker, reaction: Reaction, log: Log, *, empty_listeners: bool) -> None:
        """Do to a worker what the state table says; ``log`` speaks of it.

        ``empty_listeners``: if it drains, it first takes what waits in listeners that are about to close.
        """
        link = self._links.get(worker.id)
        match reaction:
            case Reaction.DRAIN if link is not None:
                link.send("drain", reason=worker.reason, empty_listeners=empty_listeners)
            case Reaction.ABORT | Reaction.KILL if link is not None and link.process is not None:
                number = signal.SIGABRT if reaction is Reaction.ABORT else signal.SIGKILL
                if worker.ready_at is not None or worker.reason not in obituary.EXPECTED:
                    log.warning(
                        "worker-ended", f"{worker.reason}: sending {number.name}", reason=worker.reason
                    )
                link.process.signal(number)
            case Reaction.FORGET if link is not None:
                obituary.write_obituary_of_unborn(log, worker)
                self.let_go(worker).close()

    def broadcast(self, kind: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Send an order to every worker that can be reached."""
        for link in self._links.values():
            link.send(kind, fds, **fields)

    def record(self) -> CrewRecord:
        return CrewRecord({id: link.record() for id, link in self._links.items()}, self._orders.record())

    def adopt(self, record: CrewRecord, workers: Mapping[int, Worker]) -> None:
        """Go on where an older version of this process had got to."""
        for id, link in record.links.items():
            worker = workers[id]
            self._hold(worker, WorkerLink.adopt(self._loop, link, worker.pid))
            if worker.pid is not None:
                self._by_pid[worker.pid] = worker
        self._orders.adopt((worker for worker in workers.values() if worker.pid is None), record.orders)

    def _hold(self, worker: Worker, link: WorkerLink) -> None:
        self._links[worker.id] = link
        link.watch(lambda: self._on_readable(worker))

    def _send(self, worker: Worker, channel: Channel) -> None:
        self._order(worker, [channel.fileno(), self._links[worker.id].last_words.fd])
