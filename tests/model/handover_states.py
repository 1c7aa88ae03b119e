"""The states of the hand-over model, and what the kernel does in it. All values are immutable.

A worker's descriptors are numbers, the lowest free one is given first, and a number is not the connection:
the kernel knows which open connection a registration in an epoll is about, the worker only its number. So
each event here carries both, and the model can tell when one reaches the wrong connection.
"""

from __future__ import annotations

from typing import NamedTuple

RELAY, LISTENER, ORDER = "relay", "listener", "order"
"""What is ready in a worker's epoll besides its connections."""
NUDGE = -1
"""A message of the relay that carries no connection."""

Event = tuple[int | str, int]
"""A number, or one of the names above; and the connection that it is about, or -1."""


class Violation(Exception):
    """The protocol has done what it must never do."""


class Connection(NamedTuple):
    sends: int = 0
    """How many more requests the client may send."""
    waiting: bool = False
    """Is a request in the socket that nobody has read?"""
    hung_up: bool = False
    patient: bool = True
    """Does the client never hang up?"""
    hurried: bool = False
    """Was it passed on by a busy worker, for the sake of the request that waits?"""
    open: bool = False
    """Has the kernel accepted it, whether or not a worker has?"""
    over: str = ""
    """Why it is closed: by its client, with its worker, or at the last stop."""

    @property
    def readable(self) -> bool:
        return self.waiting or self.hung_up


class Worker(NamedTuple):
    phase: str = "asleep"
    """asleep (in epoll_wait), turn (woken, or about to wait), batch, application, gone"""
    mode: str = "serving"
    """serving, leaving (others take over), stopping (for good)"""
    order: str = ""
    """What the master has sent and the worker has not read."""
    batch: tuple[Event, ...] = ()
    descriptors: tuple[int, ...] = ()
    """Which connection is open under each number; -1: none."""
    handlers: tuple[int, ...] = ()
    """The same as the loop sees it: whose handler an event under each number calls."""
    epoll: frozenset[tuple[int, int]] = frozenset()
    told: frozenset[str] = frozenset()
    """The exclusive items on the epoll's ready list."""
    held: bool = False
    """Are relay and listener out of the epoll, for want of descriptors?"""
    received: int = -1
    """The number of a connection that is received but not adopted."""
    running: int = -1
    """The number of the connection whose request is in the application."""
    passing: tuple[int, str] = (-1, "")
    """The number of the connection that is being passed on, and the next step of that."""
    tick: tuple[Event, ...] | None = None
    """What the steward still has to look at; None while it does not hold the baton."""

    @property
    def free_number(self) -> int:
        return self.descriptors.index(-1) if -1 in self.descriptors else -1


class World(NamedTuple):
    connections: tuple[Connection, ...]
    workers: tuple[Worker, ...]
    relay: tuple[int, ...] = ()
    backlog: tuple[int, ...] = ()
    """The listener's accept queue."""
    watchers: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """The workers that have the relay, and the listener, in their epolls, in the order of EPOLL_CTL_ADD."""
    nudges_owed: int = 0
    kills: int = 0
    orders: tuple[tuple[int, str], ...] = ()
    """Orders of the master that may come: to which worker, and what."""
    respawns: int = 0
    ended: bool = False
    """Has the last stop begun?"""


def replaced(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])


def with_worker(world: World, index: int, /, **changes: object) -> World:
    worker = world.workers[index]._replace(**changes)
    return world._replace(workers=replaced(world.workers, index, worker))


def with_connection(world: World, index: int, /, **changes: object) -> World:
    connection = world.connections[index]._replace(**changes)
    return world._replace(connections=replaced(world.connections, index, connection))


# ---- The kernel


def ready_source(world: World, source: str) -> bool:
    return bool(world.relay if source is RELAY else world.backlog)


def tell(world: World, source: str) -> World:
    """Wake for something new in the relay or the listener, as ``EPOLLEXCLUSIVE`` does.

    Item after item goes on its epoll's ready list, until one has a waiter: that one is woken, and those
    behind it learn nothing. A woken waiter is no waiter any more, even before it runs.
    """
    workers = list(world.workers)
    for index in world.watchers[source is LISTENER]:
        worker = workers[index]
        asleep = worker.phase == "asleep"
        workers[index] = worker._replace(
            told=worker.told | {source}, phase="turn" if asleep else worker.phase
        )
        if asleep:
            break
    return world._replace(workers=tuple(workers))


def tell_owner(world: World, connection: int) -> World:
    """Wake all that sleep with this connection in their epolls: its items are not exclusive."""
    for index, worker in enumerate(world.workers):
        if worker.phase == "asleep" and any(item == connection for _, item in worker.epoll):
            world = with_worker(world, index, phase="turn")
    return world


def watch_sources(world: World, index: int) -> World:
    """EPOLL_CTL_ADD of relay and listener: at the end of the queue, and looks at what is there."""
    relay, listener = world.watchers
    told = frozenset(source for source in (RELAY, LISTENER) if ready_source(world, source))
    world = world._replace(watchers=((*relay, index), (*listener, index)))
    return with_worker(world, index, told=told, held=False)


def unwatch_sources(world: World, index: int) -> World:
    relay, listener = (tuple(other for other in queue if other != index) for queue in world.watchers)
    return with_worker(world._replace(watchers=(relay, listener)), index, told=frozenset())


def ready_connections(world: World, worker: Worker) -> tuple[Event, ...]:
    """Return what a level-triggered epoll reports of its connections."""
    events = []
    for number, connection in sorted(worker.epoll):
        if world.connections[connection].readable:
            if worker.descriptors[number] != connection:
                raise Violation(f"epoll goes on reporting connection {connection} under number {number}")
            events.append((number, connection))
    return tuple(events)


def open_number(world: World, index: int, connection: int) -> tuple[World, int]:
    worker = world.workers[index]
    number = worker.free_number
    return with_worker(world, index, descriptors=replaced(worker.descriptors, number, connection)), number


def close_number(world: World, index: int, number: int) -> World:
    worker = world.workers[index]
    return with_worker(world, index, descriptors=replaced(worker.descriptors, number, -1))


def references(world: World, connection: int) -> int:
    """Return how many descriptors, messages and queues hold a connection open."""
    held = sum(worker.descriptors.count(connection) for worker in world.workers)
    return held + world.relay.count(connection) + world.backlog.count(connection)


def owners(world: World, connection: int) -> int:
    """Return how many workers serve a connection, or would take it from the relay, or have just done so."""
    count = world.relay.count(connection)
    for worker in world.workers:
        count += worker.handlers.count(connection)
        count += worker.received >= 0 and worker.descriptors[worker.received] == connection
    return count


def check(world: World) -> None:
    """Raise ``Violation`` if a connection is lost, leaked, or owned twice."""
    for index, connection in enumerate(world.connections):
        held = references(world, index)
        # Whoever has sent it and not yet closed its own descriptor will do so.
        closing = sum(
            worker.passing[1] == "close" and worker.descriptors[worker.passing[0]] == index
            for worker in world.workers
        )
        if connection.over and held > closing:
            raise Violation(f"a descriptor of connection {index} is left, which is closed {connection.over}")
        if connection.open and not connection.over and not held:
            raise Violation(f"connection {index} is lost: nobody holds it, and nobody has closed it")
        if owners(world, index) > 1:
            raise Violation(f"connection {index} has two owners")
