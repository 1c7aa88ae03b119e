"""The hand-over protocol of docs/decisions/0010-relay-and-steward.md, searched exhaustively for small pools.

How to read it: ``handover_states`` holds the states and the kernel, ``handover_model`` what a worker and its
steward may do in one (an action, a function), ``handover_surroundings`` what everybody else may, and
``model_search`` the search. A scenario is a start and a few budgets (requests,
kills, orders of the master); all that can follow from it, in any order, is visited. In every state holds:

1. no connection has two owners (workers that serve it, or the relay);
2. none is lost: what its client has not closed and no killed worker owned is closed at the last stop only,
   with no request in it;
3. no descriptor of a closed connection is left, and no epoll reports one that its worker does not have;
4. no event reaches another connection than its own, and none is passed on while it is served;
5. a request that was passed on because its owner was busy is served by the next that takes it.

And from every state:

6. no request waits while a worker is idle: moves of the servers' own lead on, with no application returning
   and no worker replaced;
7. all requests are answered, when applications return and dead workers are replaced; after the last stop
   nothing is left.

Then each step of the protocol is left out, and the search must find what goes wrong. To see the shortest way
to it: ``pytest tests/model -k baton -rP``.

Not in the model: bytes (a request is there or not), deadlines, fair shares, threads, and a batch of epoll that is
too small for all that is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from handover_model import Protocol
from handover_states import Connection, Violation, Worker, World, check
from handover_surroundings import STEPS
from model_search import Found, Move, Space


class Scenario(NamedTuple):
    start: World
    room: int = 2


def pool(
    *owners: int,
    new: int = 0,
    numbers: tuple[int, ...] = (2, 2),
    sends: int = 1,
    patient: bool = True,
    sent: bool = False,
    room: int = 2,
    **budgets: object,
) -> Scenario:
    """Idle workers with ``numbers`` descriptors each; the owner of each open connection; ``new`` that may come.
    ``sent``: the requests are there already, and new connections bring none.

    Worker 0 has registered first, so that an exclusive wake goes to it if it sleeps.
    """
    workers = []
    for index, size in enumerate(numbers):
        mine = [connection for connection, owner in enumerate(owners) if owner == index]
        row = (*mine, *(-1,) * (size - len(mine)))
        phase = "turn" if sent and mine else "asleep"
        workers.append(Worker(phase, descriptors=row, handlers=row, epoll=frozenset(enumerate(mine))))
    order = tuple(range(len(numbers)))
    first = Connection(sends=sends - sent, waiting=sent, patient=patient, open=True)
    connections = [first for _ in owners]
    connections += [Connection(sends=0 if sent else sends, patient=patient) for _ in range(new)]
    world = World(tuple(connections), tuple(workers), watchers=(order, order), **budgets)
    return Scenario(world, room)


RELOAD, STOPS = (0, "leave"), ((0, "stop"), (1, "stop"))
SCENARIOS = {
    "busy": pool(0, 0),
    "busy, requests again": pool(1, 1, sends=2),
    "busy, a death": pool(1, 1, kills=1, respawns=1),
    "clients hang up": pool(0, 0, patient=False),
    "the relay is full": pool(0, 0, 0, numbers=(3, 3), room=1),
    "reload": pool(0, 0, orders=(RELOAD,)),
    "reload, the receiver busy": pool(1, 1, orders=(RELOAD,)),
    "reload, the relay full": pool(0, 1, 0, numbers=(3, 3), orders=(RELOAD,), room=1),
    "reload, a death": pool(0, 1, orders=(RELOAD,), kills=1, respawns=1),
    "new connections": pool(0, new=1, orders=(RELOAD,)),
    "new connections, two open": pool(0, 0, new=1, sent=True, numbers=(2, 3), orders=(RELOAD,)),
    "new connections, the receiver busy": pool(1, new=1),
    "new connections, a death": pool(0, new=1, kills=1, respawns=1),
    "the last stop": pool(0, 1, orders=STOPS, sends=2),
    "the last stop, a death": pool(0, 0, orders=STOPS, kills=1),
    "the last stop during a reload, one connection": pool(0, orders=(RELOAD, *STOPS)),
    "the last stop during a reload": pool(0, 0, sent=True, orders=(RELOAD, *STOPS)),
    "out of descriptors": pool(0, 1, 1, numbers=(1, 2)),
    "three workers": pool(2, new=1, numbers=(1, 1, 1), kills=1),
}

NECESSARY = {
    "DEL before sendmsg": ("busy", "goes on reporting"),
    "ADD after a failed sendmsg": ("the relay is full", "waits while a worker is idle"),
    "look when adopting": ("the relay is full", "passed on and on"),
    "only main takes": ("new connections, two open", "calls another's handler"),
    "take once more": ("new connections", "waits while a worker is idle"),
    "nudge after a death": ("busy, a death", "waits while a worker is idle"),
    "handler per event": ("busy", "calls another's handler"),
    "baton": ("busy", "passed on while it is served"),
    "empty the relay": ("the last stop, a death", "does not come to rest"),
    "last look at the orders": ("the last stop during a reload, one connection", "does not come to rest"),
    "stop the leaving first": ("the last stop during a reload, one connection", "does not come to rest"),
    "take first": ("new connections", "waits while a worker is idle"),
    "descriptor check": ("out of descriptors", "is lost"),
    "nudge when full": ("out of descriptors", "waits while a worker is idle"),
    "skip the running": ("reload", "passed on while it is served"),
}
"""For each step, where it is missed, and how it shows."""


def waiting(world: World) -> bool:
    """Is there anything to do for a worker that is free? Not what waits behind its own running request."""
    running = {worker.handlers[worker.running] for worker in world.workers if worker.running >= 0}
    return (
        any(message >= 0 for message in world.relay)
        or bool(world.backlog)
        or any(c.waiting and not c.over and i not in running for i, c in enumerate(world.connections))
    )


def idle(worker: Worker) -> bool:
    return worker.phase == "asleep" and worker.mode == "serving" and not worker.held


def search(scenario: Scenario, without: str = "") -> Space:
    """Raise ``Found`` if anything goes wrong in a scenario, with one step of the protocol left out."""
    start = scenario.start

    def nothing_waits_beside_the_idle(world: World) -> bool:
        return not (waiting(world) and any(idle(worker) for worker in world.workers))

    def at_rest(world: World) -> bool:
        if not world.ended:
            return not waiting(world)
        # Inherent: what a worker had sent that is killed during the last stop, when all others have left.
        left = set(world.relay) if world.kills < start.kills else set()
        return all(worker.phase == "gone" for worker in world.workers) and all(
            connection.over or not connection.open or index in left
            for index, connection in enumerate(world.connections)
        )

    space = Space(start, Protocol(without, scenario.room).moves, check, Violation)
    space.always_can_reach(nothing_waits_beside_the_idle, {"own"}, "a request waits while a worker is idle")
    space.always_can_reach(at_rest, {"own", "application", "respawn"}, "the pool does not come to rest")
    return space


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_goes_wrong(name: str) -> None:
    space = search(SCENARIOS[name])
    print(f"{len(space.states)} states")


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_necessary(step: str) -> None:
    name, problem = NECESSARY[step]
    with pytest.raises(Found, match=problem) as found:
        search(SCENARIOS[name], without=step)
    print(f"without: {STEPS[step]}\n{found.value}")


# ---- The steward that falls asleep as a request begins: a model of its own, which the other leaves out.


class Nap(NamedTuple):
    main: str = "loop"
    """loop (with the baton), released, application"""
    steward: str = "awake"
    """awake, announced (that it sleeps), blocked"""
    asleep: bool = False
    """The flag that both share."""
    wake: bool = False


def naps(state: Nap, main_looks_first: bool = False, steward_looks_first: bool = False) -> Iterator[Move]:
    """Yield what main and steward can do next."""
    look = state._replace(main="application", asleep=False, wake=state.wake or state.asleep)
    release = state._replace(main="released")
    if main_looks_first:
        look, release = look._replace(main="released"), state._replace(main="application")
    first, second = (look, release) if main_looks_first else (release, look)
    if state.main == "loop":
        yield Move("main looks" if main_looks_first else "main lets go of the baton", "own", first)
    elif state.main == "released":
        yield Move("main lets go of the baton" if main_looks_first else "main looks", "own", second)
    else:
        yield Move("application returns", "application", state._replace(main="loop"))
    baton_held = state.main == "loop" or (main_looks_first and state.main == "released")
    if state.steward == "awake":
        then = state if steward_looks_first else state._replace(asleep=True)
        if not steward_looks_first or baton_held:
            yield Move("steward decides to sleep", "own", then._replace(steward="announced"))
    elif state.steward == "announced":
        if steward_looks_first:
            yield Move("steward blocks", "own", state._replace(steward="blocked", asleep=True))
        elif baton_held:
            yield Move("steward blocks", "own", state._replace(steward="blocked"))
        else:
            yield Move("steward stays awake", "own", state._replace(steward="awake", asleep=False))
    elif state.wake:
        yield Move("steward wakes", "own", state._replace(steward="awake", wake=False))


def search_naps(**changes: bool) -> None:
    def guarded(state: Nap) -> bool:
        return not (state.main == "application" and state.steward == "blocked")

    space = Space(Nap(), lambda state: naps(state, **changes), lambda state: None, Violation)
    space.always_can_reach(guarded, {"own"}, "the steward sleeps beside a running request")


def test_steward_never_sleeps_beside_a_request() -> None:
    search_naps()


@pytest.mark.parametrize("change", ["main_looks_first", "steward_looks_first"])
def test_the_order_of_flag_and_look_is_necessary(change: str) -> None:
    with pytest.raises(Found, match="sleeps beside a running request"):
        search_naps(**{change: True})
