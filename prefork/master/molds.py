"""The generations of a pool that still have processes, each with its mold.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from prefork.bulletin import Bulletin
from prefork.log import Log
from prefork.master.cgroup import OomWatch
from prefork.master.chronicle import Chronicle
from prefork.master.generation import Generation
from prefork.master.loop import Loop
from prefork.master.mold_keeper import MoldKeeper, MoldOwner, MoldRecord
from prefork.process import Exit


@dataclass(frozen=True, slots=True)
class Means:
    """What a pool needs of the master to make children."""

    loop: Loop
    log: Log
    mold_main: Callable[[Generation, int, int, bool], int]
    """The life of a mold: its generation, the descriptors of its channel and last words, whether it preloads."""
    oom: OomWatch
    bulletin: Bulletin
    chronicle: Chronicle

    def is_oom_kill(self, exit: Exit) -> bool:
        """Tell whether the kernel ended a process for lack of memory."""
        return exit.signal == "SIGKILL" and self.oom.has_killed()


class Molds:
    """The molds of a pool by the number of their generation; ``owner`` is told how they do."""

    def __init__(self, means: Means, owner: MoldOwner) -> None:
        self.generations: dict[int, Generation] = {}
        self._means = means
        self._owner = owner
        self._keepers: dict[int, MoldKeeper] = {}

    def start(self, generation: Generation) -> None:
        """Start the mold of a new generation."""
        self._keep(generation).start()

    def adopt(self, generation: Generation, record: MoldRecord) -> None:
        """Take over a mold that an older version of this process has kept."""
        self._keep(generation).adopt(record)

    def record(self) -> tuple[MoldRecord, ...]:
        return tuple(keeper.record() for keeper in self._keepers.values())

    def _keep(self, generation: Generation) -> MoldKeeper:
        means = self._means
        self.generations[generation.number] = generation
        keeper = self._keepers[generation.number] = MoldKeeper(
            generation, means.loop, means.log, self._owner, partial(means.mold_main, generation)
        )
        return keeper

    def pid_of(self, number: int) -> int | None:
        """Return the process of a generation's mold, None if there is none now."""
        return self._keepers[number].pid

    def retry(self, number: int) -> None:
        """Have a mold that failed load the application again, after a while."""
        self._keepers[number].retry()

    def dismiss(self, number: int) -> None:
        """The generation needs no mold any more."""
        self._keepers[number].dismiss()

    def dismiss_all_but(self, number: int | None) -> None:
        for other, keeper in self._keepers.items():
            if other != number:
                keeper.dismiss()

    def is_ready(self, number: int) -> bool:
        """Tell whether a generation has a mold that can fork now."""
        return number in self._keepers and self._keepers[number].is_ready

    def can_supply(self, number: int) -> bool:
        """Tell whether a generation has a mold that can fork, or that will as far as is known."""
        return number in self._keepers and self._keepers[number].can_supply

    def send(self, number: int, kind: str, fds: Sequence[int] = (), **fields: object) -> bool:
        """Send an order to a generation's mold; return False if there is nobody to take it."""
        return self._keepers[number].send(kind, fds, **fields)

    def broadcast(self, kind: str, fds: Sequence[int] = ()) -> None:
        for keeper in self._keepers.values():
            keeper.send(kind, fds)

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is a mold; return whether it is."""
        for keeper in self._keepers.values():
            if keeper.pid == pid:
                exit = reap(pid)
                keeper.died(exit, oom_killed=self._means.is_oom_kill(exit))
                return True
        return False

    @property
    def are_gone(self) -> bool:
        """No mold lives, and none will be started."""
        return all(keeper.is_gone for keeper in self._keepers.values())

    def forget_generations(self, living: Collection[int]) -> bool:
        """Give up the shared memory and private keys of generations without a mold that are not in ``living``.

        Returns whether there were any.
        """
        forgotten = False
        for number in [n for n, keeper in self._keepers.items() if keeper.is_gone and n not in living]:
            del self._keepers[number]
            generation = self.generations.pop(number)
            generation.scoreboard.close()
            generation.tls.forget()
            forgotten = True
        return forgotten
