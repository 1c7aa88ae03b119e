"""A breadth-first search of all states, and of what can still be reached from each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple


class Move(NamedTuple):
    name: str
    kind: str
    """What may be relied on: ``own`` moves happen sooner or later, others only if the check says so."""
    then: Hashable


class Found(AssertionError):
    """What is wrong, and the shortest way there, one move a line."""


class Space:
    """Every reachable state, with the moves between them. ``check`` and ``moves`` raise ``error`` for what is wrong."""

    def __init__(
        self,
        start: Hashable,
        moves: Callable[[Hashable], Iterable[Move]],
        check: Callable[[Hashable], None],
        error: type[Exception],
    ) -> None:
        self.states = [start]
        self._came: list[tuple[int, str]] = [(-1, "start")]
        self._edges: list[tuple[int, str, int]] = []
        numbers = {start: 0}
        at = 0
        try:
            while at < len(self.states):
                check(self.states[at])
                for move in moves(self.states[at]):
                    target = numbers.setdefault(move.then, len(self.states))
                    if target == len(self.states):
                        self.states.append(move.then)
                        self._came.append((at, move.name))
                    self._edges.append((at, move.kind, target))
                at += 1
        except error as problem:
            raise Found(self.trace(at, str(problem))) from None

    def always_can_reach(self, good: Callable[[Hashable], bool], kinds: set[str], problem: str) -> None:
        """Check that every state leads, by moves of these kinds alone, to one that is ``good``."""
        before: list[list[int]] = [[] for _ in self.states]
        for source, kind, target in self._edges:
            if kind in kinds:
                before[target].append(source)
        leads = [good(state) for state in self.states]
        pending = [number for number, is_good in enumerate(leads) if is_good]
        while pending:
            for source in before[pending.pop()]:
                if not leads[source]:
                    leads[source] = True
                    pending.append(source)
        if not all(leads):
            raise Found(self.trace(leads.index(False), problem))

    def trace(self, number: int, problem: str) -> str:
        """Tell how a state came about."""
        last = self.states[number]
        lines = list(self._way(number))
        lines.reverse()
        return "\n".join([problem, *lines, f"in: {last}"])

    def _way(self, number: int) -> Iterator[str]:
        while number > 0:
            number, name = self._came[number]
            yield f"  {name}"
