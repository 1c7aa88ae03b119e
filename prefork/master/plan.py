"""The values that the slot table takes and gives: plans, workers, actions.

Pure. Runs in the master.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from prefork.master.worker_states import ACTIVE, Reaction, State


@dataclass(frozen=True, slots=True)
class Plan:
    """What a generation of a pool should look like; durations in seconds."""

    generation: int
    wanted: int
    batch: int
    boot_s: float
    graceful_s: float
    cells: int


def batch_size(wanted: int, batch: float | int) -> int:
    """Return how many workers a reload replaces at a time: a number, or a share of ``wanted``; at least one."""
    return max(1, batch if isinstance(batch, int) else ceil(wanted * batch))


def leavers_at_once(wanted: int) -> int:
    """Return how many workers of a pool are replaced at a time without a reload: a quarter, at least one."""
    return max(1, wanted // 4)


@dataclass(slots=True, eq=False)
class Worker:
    """A worker as the master knows it, from its order to its death; instants are monotonic seconds."""

    id: int
    slot: int
    generation: int
    cell: int
    spawned_at: float
    deadline: float | None
    state: State = State.SPAWNING
    pid: int | None = None
    ready_at: float | None = None
    leaving: bool = False
    """It is to be replaced, though its generation is the plan's."""
    reason: str | None = None
    """Why the master ended it; None as long as it did not."""
    detail: str = ""
    """More of that, for people: the request that was late."""

    @property
    def fills(self) -> bool:
        return self.state in ACTIVE and not self.leaving


# What the table asks to be done.


@dataclass(frozen=True, slots=True)
class Spawn:
    """Order a worker from the mold of its generation."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class React:
    """Do to a worker what the state table says."""

    worker: Worker
    reaction: Reaction


@dataclass(frozen=True, slots=True)
class GateReached:
    """The first batch of a new generation is ready."""

    generation: int


@dataclass(frozen=True, slots=True)
class AllReady:
    """Every slot is filled by a ready worker of the plan's generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class BootFailed:
    """A worker of a generation that has not served yet did not get ready."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class BackedOff:
    """A slot waits before its next worker."""

    slot: int
    delay_s: float
    failures: int


Action = Spawn | React | GateReached | AllReady | BootFailed | BackedOff
