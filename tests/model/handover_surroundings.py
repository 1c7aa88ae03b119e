"""What surrounds the workers of the hand-over model: master, killer, clients; and what may be left out."""

from __future__ import annotations

from collections.abc import Iterable

from handover_states import (
    LISTENER,
    NUDGE,
    RELAY,
    Worker,
    World,
    owners,
    replaced,
    tell,
    tell_owner,
    unwatch_sources,
    watch_sources,
    with_connection,
    with_worker,
)
from model_search import Move

STEPS = {
    "DEL before sendmsg": "a hand-over begins with EPOLL_CTL_DEL",
    "ADD after a failed sendmsg": "whoever keeps the connection watches it again",
    "look when adopting": "the receiver looks into the socket and serves at once what is there",
    "only main takes": "the steward, when it obeys, leaves relay and listener and takes nothing",
    "take once more": "who leaves relay and listener takes once more from both",
    "nudge after a death": "the master sends a message without a connection",
    "handler per event": "the handler is looked up just before its call, not with the batch",
    "baton": "the main thread goes on only when the steward has finished its tick",
    "empty the relay": "who stops for good takes all that is in the relay before it leaves",
    "last look at the orders": "who has handed over all it had reads its orders once more, then leaves",
    "stop the leaving first": "at the last stop the master tells those first that it has told to leave",
    "take first": "relay and listener come before whatever else is ready",
    "descriptor check": "nobody receives without a free descriptor",
    "nudge when full": "who cannot take what it may have been woken for nudges the next",
    "skip the running": "the steward leaves the connection alone whose request is in the application",
}
"""The steps of the protocol that are shown to be necessary."""


class Surroundings:
    """``without``: a step of the protocol that is left out; ``room``: how many messages fill the relay."""

    def __init__(self, without: str = "", room: int = 2) -> None:
        self.without = without
        self.room = room

    def has(self, step: str) -> bool:
        """Is this step of the protocol taken?"""
        assert step in STEPS
        return step != self.without

    def owe_nudge(self, world: World) -> World:
        """More than one for each worker is never needed."""
        return world._replace(nudges_owed=min(world.nudges_owed + 1, len(world.workers)))

    def leaves(self, world: World, index: int) -> bool:
        """Has the master told this worker to leave, as far as it knows?"""
        worker = world.workers[index]
        return worker.phase != "gone" and (worker.order == "leave" or worker.mode == "leaving")

    def master(self, world: World) -> Iterable[Move]:
        if world.nudges_owed and len(world.relay) < self.room:
            then = world._replace(nudges_owed=world.nudges_owed - 1, relay=(*world.relay, NUDGE))
            yield Move("a nudge is sent", "own", tell(then, RELAY))
        for order in world.orders:
            index, what = order
            leaving = [other for other, _ in world.orders if self.leaves(world, other)]
            if world.ended and what != "stop":
                continue
            if what == "stop" and leaving and index not in leaving and self.has("stop the leaving first"):
                continue
            rest = tuple(other for other in world.orders if other != order)
            then = world._replace(orders=rest, ended=what == "stop")
            phase = world.workers[index].phase
            if phase != "gone":
                then = with_worker(then, index, order=what, phase="turn" if phase == "asleep" else phase)
            # The first of the stops comes when it likes, the others follow.
            yield Move(f"master tells worker {index}: {what}", "own" if world.ended else "outside", then)
        if world.respawns and not world.ended:
            for index, worker in enumerate(world.workers):
                if worker.phase == "gone":
                    none = (-1,) * len(worker.descriptors)
                    fresh = Worker(phase="turn", descriptors=none, handlers=none)
                    then = world._replace(
                        respawns=world.respawns - 1, workers=replaced(world.workers, index, fresh)
                    )
                    yield Move(f"worker {index} is replaced", "respawn", watch_sources(then, index))

    def killer(self, world: World) -> Iterable[Move]:
        for index, worker in enumerate(world.workers):
            if world.kills and worker.phase != "gone":
                none = (-1,) * len(worker.descriptors)
                dead = Worker(phase="gone", descriptors=none, handlers=none)
                then = unwatch_sources(world, index)._replace(kills=world.kills - 1)
                then = then._replace(workers=replaced(then.workers, index, dead))
                if self.has("nudge after a death"):
                    then = self.owe_nudge(then)
                received = worker.descriptors[worker.received] if worker.received >= 0 else -1
                for connection in {*worker.handlers, received} - {-1}:
                    if owners(then, connection) == 0:
                        then = with_connection(then, connection, over="with its worker", waiting=False)
                yield Move(f"worker {index} is killed", "outside", then)

    def clients(self, world: World) -> Iterable[Move]:
        for index, connection in enumerate(world.connections):
            if connection.over or connection.hung_up:
                continue
            if not connection.open:
                if not world.ended:
                    then = with_connection(world, index, open=True)
                    then = then._replace(backlog=(*world.backlog, index))
                    yield Move(f"connection {index} is new", "outside", tell(then, LISTENER))
                continue
            if not connection.patient:
                then = with_connection(world, index, hung_up=True)
                yield Move(f"client {index} hangs up", "outside", tell_owner(then, index))
            if connection.sends and not connection.waiting:
                then = with_connection(world, index, sends=connection.sends - 1, waiting=True)
                yield Move(f"client {index} sends a request", "outside", tell_owner(then, index))
