"""The life of a worker, as a table: ``(state, event) -> (state, reaction)``.

Pure. Runs in the master. The table in docs/architecture.md is drawn from it (``make docs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum


class State(Enum):
    """What the master knows of a worker."""

    SPAWNING = "spawning"
    DOOMED = "doomed"
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    ABORTING = "aborting"
    KILLED = "killed"
    LOST = "lost"


MEANING = {
    State.SPAWNING: "ordered from the mold; no hello yet, so its pid is not known",
    State.DOOMED: "like spawning, but not wanted any more: killed when it says hello",
    State.BOOTING: "said hello, gets ready",
    State.READY: "serves",
    State.DRAINING: "finishes what it has and leaves",
    State.ABORTING: "a deadline passed; SIGABRT makes it write its stack and die",
    State.KILLED: "was sent SIGKILL",
    State.LOST: "no hello in time, or its channel closed before: a failed spawn",
}


class Event(Enum):
    """What happens to a worker; its death ends every state."""

    HELLO = "hello"
    READY = "ready"
    RETIRE = "retire"
    """the master wants it gone, in good order"""
    OVERDUE = "overdue"
    """one of its requests passed its deadline"""
    EXPIRE = "expire"
    """the deadline of its state passed"""


class Reaction(Enum):
    """What the master does about it."""

    NONE = "–"
    DRAIN = "order: drain"
    ABORT = "SIGABRT"
    KILL = "SIGKILL"
    FORGET = "close its channel"


TRANSITIONS: dict[tuple[State, Event], tuple[State, Reaction]] = {
    (State.SPAWNING, Event.HELLO): (State.BOOTING, Reaction.NONE),
    (State.SPAWNING, Event.RETIRE): (State.DOOMED, Reaction.NONE),
    (State.SPAWNING, Event.EXPIRE): (State.LOST, Reaction.FORGET),
    (State.DOOMED, Event.HELLO): (State.KILLED, Reaction.KILL),
    (State.DOOMED, Event.EXPIRE): (State.LOST, Reaction.FORGET),
    (State.BOOTING, Event.READY): (State.READY, Reaction.NONE),
    (State.BOOTING, Event.RETIRE): (State.KILLED, Reaction.KILL),
    (State.BOOTING, Event.EXPIRE): (State.ABORTING, Reaction.ABORT),
    (State.READY, Event.RETIRE): (State.DRAINING, Reaction.DRAIN),
    (State.READY, Event.OVERDUE): (State.ABORTING, Reaction.ABORT),
    (State.DRAINING, Event.OVERDUE): (State.ABORTING, Reaction.ABORT),
    (State.DRAINING, Event.EXPIRE): (State.ABORTING, Reaction.ABORT),
    (State.ABORTING, Event.EXPIRE): (State.KILLED, Reaction.KILL),
    (State.KILLED, Event.EXPIRE): (State.KILLED, Reaction.KILL),
}

ACTIVE = frozenset({State.SPAWNING, State.BOOTING, State.READY})
"""States of a worker that serves or will: it fills its slot."""

ABORT_S = 1.0
"""How long a worker may take to die of SIGABRT; then SIGKILL."""
REKILL_S = 5.0
"""A worker that survives SIGKILL this long hangs in the kernel; it is sent another one."""


def transition(state: State, event: Event) -> tuple[State, Reaction]:
    """Return the next state and what to do. An event that a state does not know changes nothing."""
    return TRANSITIONS.get((state, event), (state, Reaction.NONE))


def as_markdown() -> Iterator[str]:
    """Yield the lines of the table for the documentation."""
    yield "| state | meaning | " + " | ".join(event.value for event in Event) + " |"
    yield "|---|---|" + "---|" * len(Event)
    for state in State:
        cells = []
        for event in Event:
            known = TRANSITIONS.get((state, event))
            if known is None:
                cells.append("")
            else:
                target, reaction = known
                cells.append(target.value + (f" ({reaction.value})" if reaction is not Reaction.NONE else ""))
        yield f"| **{state.value}** | {MEANING[state]} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print("\n".join(as_markdown()))
