"""What workers and their stewards do in the hand-over model: one small function for each action.

An action yields the ``Move``s that it allows in a state. Each is atomic; between any two, everybody else may
act. What a mutation removes stands behind ``self.has("its name")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from handover_states import (
    LISTENER,
    NUDGE,
    ORDER,
    RELAY,
    Event,
    Violation,
    Worker,
    World,
    close_number,
    open_number,
    ready_connections,
    ready_source,
    replaced,
    tell,
    unwatch_sources,
    watch_sources,
    with_connection,
    with_worker,
)
from handover_surroundings import Surroundings
from model_search import Move


class Protocol(Surroundings):
    """The moves of all parties."""

    def moves(self, world: World) -> Iterator[Move]:
        """Yield all that can happen next."""
        for index, worker in enumerate(world.workers):
            if worker.phase == "gone":
                continue
            for action in (
                self.wait,
                self.handle,
                self.adopt,
                self.application_returns,
                self.tick,
                self.steward,
                self.pass_on,
                self.leave,
                self.stop,
                self.release,
            ):
                for move in action(world, index, worker):
                    yield move._replace(name=f"worker {index}: {move.name}")
        yield from self.master(world)
        yield from self.killer(world)
        yield from self.clients(world)

    # ---- The main thread

    def main_has_baton(self, worker: Worker) -> bool:
        """It has, except in the application; what comes back from there waits for the steward."""
        return (
            worker.phase != "application"
            and worker.received < 0
            and (not self.has("baton") or worker.passing[0] < 0)
        )

    def wait(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Call epoll_wait: sleep, or begin a batch."""
        if worker.phase != "turn" or not self.main_has_baton(worker):
            return
        sources = tuple(s for s in (RELAY, LISTENER) if s in worker.told and ready_source(world, s))
        # Level-triggered: what is ready no more leaves the ready list, what is stays on it.
        told = frozenset(sources)
        takes: tuple[Event, ...] = tuple((source, -1) for source in sources)
        others = ready_connections(world, worker)
        order: tuple[Event, ...] = ((ORDER, -1),) if worker.order else ()
        if not (takes or others or order):
            yield Move("sleeps", "own", with_worker(world, index, phase="asleep", told=told))
            return
        # Whether an order is obeyed before or after the takes must not matter.
        for first in {order, ()}:
            batch = (*first, *takes, *(order if not first else ()), *others)
            if not self.has("take first"):
                batch = (*order, *others, *takes)
            name = f"wakes for {', '.join(str(event[0]) for event in batch)}"
            yield Move(name, "own", with_worker(world, index, phase="batch", told=told, batch=batch))
        if len(takes) == 2:
            batch = (*takes[::-1], *order, *others)
            yield Move(
                "wakes, listener first",
                "own",
                with_worker(world, index, phase="batch", told=told, batch=batch),
            )

    def handle(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Handle the next event of the batch."""
        if worker.phase != "batch" or not self.main_has_baton(worker):
            return
        if not worker.batch:
            yield Move("ends its batch", "own", with_worker(world, index, phase="turn"))
            return
        what, connection = worker.batch[0]
        world = with_worker(world, index, batch=worker.batch[1:])
        if what == RELAY:
            yield self.receive(world, index)
        elif what == LISTENER:
            yield self.accept(world, index)
        elif what == ORDER and not worker.order:
            yield Move("finds that its steward has obeyed", "own", world)
        elif what == ORDER:
            yield Move(f"obeys: {worker.order}", "own", self.obey(world, index, in_main=True))
        else:
            yield self.serve(world, index, what, connection)

    def serve(self, world: World, index: int, number: int, connection: int) -> Move:
        """Call a connection's handler: read, and enter the application with what was read."""
        worker = world.workers[index]
        handler = worker.handlers[number] if self.has("handler per event") else connection
        if handler < 0:
            return Move(f"ignores a stale event of number {number}", "own", world)
        if handler != connection or worker.handlers[number] != handler:
            raise Violation(f"an event of connection {connection} calls another's handler under {number}")
        if world.connections[handler].hung_up:
            world = with_connection(world, handler, over="by its client")
            return Move(f"closes connection {handler}", "own", self.forget(world, index, number))
        if not world.connections[handler].waiting:
            return Move(f"is called in vain for connection {handler}", "own", world)
        world = with_connection(world, handler, waiting=False, hurried=False)
        world = with_worker(world, index, phase="application", running=number)
        return Move(f"enters the application with connection {handler}", "own", world)

    def forget(self, world: World, index: int, number: int) -> World:
        """Close a connection for good: epoll, handler, descriptor."""
        worker = world.workers[index]
        epoll = worker.epoll - {(number, worker.handlers[number])}
        handlers = replaced(worker.handlers, number, -1)
        return close_number(with_worker(world, index, epoll=epoll, handlers=handlers), index, number)

    def application_returns(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        if worker.phase != "application" or (self.has("baton") and worker.tick is not None):
            return
        connection = worker.handlers[worker.running]
        if connection < 0:
            raise Violation("the connection is gone whose response is to be sent")
        then = with_worker(world, index, phase="batch", running=-1)
        if worker.mode == "stopping" and not world.connections[connection].waiting:
            # Connection: close was announced. (What a client sends nevertheless, now, is inherent.)
            then = with_connection(then, connection, over="at the last stop")
            then = self.forget(then, index, worker.running)
        yield Move(f"answers connection {connection}", "application", then)

    # ---- Taking

    def receive(self, world: World, index: int) -> Move:
        """Take one message."""
        worker = world.workers[index]
        if not world.relay:
            return Move("finds the relay empty", "own", world)
        if worker.free_number < 0 and self.has("descriptor check"):
            return Move("has no descriptor to receive", "own", self.hold(world, index))
        message, world = world.relay[0], world._replace(relay=world.relay[1:])
        if message == NUDGE:
            if worker.phase == "batch":
                world = with_worker(world, index, batch=((LISTENER, -1), *worker.batch))
            return Move("takes a nudge", "own", world)
        if worker.free_number < 0:
            return Move(f"receives connection {message} without its descriptor", "own", world)
        world, number = open_number(world, index, message)
        return Move(
            f"receives connection {message} as {number}", "own", with_worker(world, index, received=number)
        )

    def adopt(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Make a received connection one's own."""
        number = worker.received
        if number < 0:
            return
        connection = worker.descriptors[number]
        batch = worker.batch
        if self.has("look when adopting") and world.connections[connection].readable:
            takes = sum(event[1] < 0 for event in batch)
            batch = (*batch[:takes], (number, connection), *batch[takes:])
        yield Move(
            f"adopts connection {connection}",
            "own",
            with_worker(
                world,
                index,
                received=-1,
                batch=batch,
                handlers=replaced(worker.handlers, number, connection),
                epoll=worker.epoll | {(number, connection)},
                phase="batch",
            ),
        )

    def accept(self, world: World, index: int) -> Move:
        worker = world.workers[index]
        if not world.backlog:
            return Move("finds no new connection", "own", world)
        if worker.free_number < 0:
            return Move("has no descriptor to accept", "own", self.hold(world, index))
        connection, world = world.backlog[0], world._replace(backlog=world.backlog[1:])
        world, number = open_number(world, index, connection)
        handlers = replaced(worker.handlers, number, connection)
        epoll = worker.epoll | {(number, connection)}
        return Move(
            f"accepts connection {connection} as {number}",
            "own",
            with_worker(world, index, handlers=handlers, epoll=epoll),
        )

    def hold(self, world: World, index: int) -> World:
        """Take no more until a descriptor is free, and pass on the wake that this may have cost a sibling."""
        if world.workers[index].held:
            return world
        world = with_worker(unwatch_sources(world, index), index, held=True)
        return self.owe_nudge(world) if self.has("nudge when full") else world

    def release(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Watch relay and listener again when there is a descriptor."""
        if not worker.held or worker.mode != "serving" or worker.free_number < 0:
            return
        if self.main_has_baton(worker):
            phase = "turn" if worker.phase == "asleep" else worker.phase
            then = with_worker(watch_sources(world, index), index, phase=phase)
            yield Move("has a descriptor again", "own", then)

    # ---- Passing on: by the steward while main is in the application, by main when it leaves

    def tick(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """The steward takes the baton, if it is free, and polls without waiting."""
        if worker.phase != "application" or worker.tick is not None or worker.passing[0] >= 0:
            return
        order: tuple[Event, ...] = ((ORDER, -1),) if worker.order else ()
        others = ready_connections(world, worker)
        if worker.mode == "leaving":
            others = tuple((n, c) for n, c in enumerate(worker.handlers) if c >= 0)
        elif worker.mode == "stopping":
            others = ()
        if self.has("skip the running"):
            others = tuple(event for event in others if event[0] != worker.running)
        if (others and len(world.relay) < self.room) or order:
            yield Move("steward ticks", "own", with_worker(world, index, tick=(*order, *others)))

    def steward(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Look at the next event of the tick, or let go of the baton."""
        if worker.tick is None or worker.passing[0] >= 0:
            return
        if not worker.tick:
            yield Move("steward ends its tick", "own", with_worker(world, index, tick=None))
            return
        (what, _), then = worker.tick[0], with_worker(world, index, tick=worker.tick[1:])
        if what == ORDER:
            yield Move(f"steward obeys: {worker.order}", "own", self.obey(then, index, in_main=False))
        elif worker.handlers[what] >= 0 and worker.mode != "stopping":
            yield Move(f"steward passes on {what}", "own", self.begin_passing(then, index, what))
        else:
            yield Move(f"steward skips {what}", "own", then)

    def begin_passing(self, world: World, index: int, number: int) -> World:
        return with_worker(
            world, index, passing=(number, "DEL" if self.has("DEL before sendmsg") else "send")
        )

    def pass_on(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Do the next step of a hand-over: DEL, sendmsg, close; or ADD again."""
        number, step = worker.passing
        if number < 0:
            return
        connection = worker.descriptors[number]
        if connection < 0 or worker.running == number:
            raise Violation(f"number {number} is passed on while it is served")
        if step == "DEL":
            epoll = worker.epoll - {(number, connection)}
            yield Move(
                f"DEL {number}", "own", with_worker(world, index, epoll=epoll, passing=(number, "send"))
            )
        elif step == "send" and len(world.relay) < self.room:
            hurried = worker.mode == "serving" and world.connections[connection].waiting
            if hurried and world.connections[connection].hurried:
                raise Violation(f"the request on connection {connection} is passed on and on, and not served")
            then = with_connection(world, connection, hurried=hurried)
            handlers = replaced(worker.handlers, number, -1)
            then = with_worker(then, index, handlers=handlers, passing=(number, "close"))
            then = then._replace(relay=(*world.relay, connection))
            yield Move(f"sends connection {connection}", "own", tell(then, RELAY))
        elif step == "send":
            then = with_worker(world, index, passing=(-1, ""))
            if self.has("ADD after a failed sendmsg"):
                then = with_worker(then, index, epoll=worker.epoll | {(number, connection)})
            yield Move(f"keeps {number}: the relay is full", "own", then)
        elif step == "close":
            yield Move(
                f"closes {number}",
                "own",
                close_number(with_worker(world, index, passing=(-1, "")), index, number),
            )

    # ---- Leaving

    def obey(self, world: World, index: int, in_main: bool) -> World:
        """Read the order; deregister, and if it is main that does so, take once more.

        The steward does not take: main has taken before it entered the application, and no wake was given to
        it since. So descriptors are opened by main alone, which a stale batch needs.
        """
        worker = world.workers[index]
        world = unwatch_sources(world, index)
        mode = "stopping" if worker.order == "stop" else "leaving"
        world = with_worker(world, index, order="", mode=mode, held=False)
        if in_main:
            once: tuple[Event, ...] = ((RELAY, -1), (LISTENER, -1))
            once = once if worker.mode == "serving" and self.has("take once more") else ()
            others = tuple(event for event in worker.batch if event[0] not in (RELAY, LISTENER))
            return with_worker(world, index, batch=(*once, *others))
        return world if self.has("only main takes") else self.accept(world, index).then

    def leave(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Hand over all, then go."""
        if worker.mode != "leaving" or worker.phase not in ("asleep", "turn"):
            return
        if not self.main_has_baton(worker) or worker.passing[0] >= 0:
            return
        owned = [number for number, connection in enumerate(worker.handlers) if connection >= 0]
        if owned and len(world.relay) < self.room:
            then = with_worker(world, index, phase="turn")
            yield Move(f"passes on {owned[0]}", "own", self.begin_passing(then, index, owned[0]))
        elif not owned and not (worker.order and self.has("last look at the orders")):
            yield Move("leaves", "own", with_worker(world, index, phase="gone", order=""))

    def stop(self, world: World, index: int, worker: Worker) -> Iterable[Move]:
        """Take what is left anywhere, close what is idle, and go."""
        if worker.mode != "stopping" or worker.phase not in ("asleep", "turn"):
            return
        if not self.main_has_baton(worker):
            return
        owned = [number for number, connection in enumerate(worker.handlers) if connection >= 0]
        idle = [number for number in owned if not world.connections[worker.handlers[number]].readable]
        turn = with_worker(world, index, phase="turn")
        emptied = not self.has("empty the relay") or not world.relay
        if worker.free_number >= 0 and world.backlog:
            yield self.accept(turn, index)
        elif worker.free_number >= 0 and not emptied:
            yield self.receive(turn, index)
        elif idle:
            connection = worker.handlers[idle[0]]
            then = with_connection(turn, connection, over="at the last stop")
            yield Move(f"closes idle connection {connection}", "own", self.forget(then, index, idle[0]))
        elif not owned and not world.backlog and emptied:
            yield Move("leaves", "own", with_worker(world, index, phase="gone"))
