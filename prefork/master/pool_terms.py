"""Whom a pool tells what happens, and what it leaves to the next version of the master.

Runs in the master.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from prefork.figures import Counts
from prefork.master.crew import CrewRecord
from prefork.master.floor import Floor
from prefork.master.generation import GenerationRecord
from prefork.master.mold_keeper import MoldRecord
from prefork.master.pool_hooks import HooksRecord
from prefork.records import Descriptor

if TYPE_CHECKING:
    from prefork.master.pool import Pool


class Watcher(Protocol):
    """What a pool tells the supervisor."""

    def gate_reached(self, pool: Pool, generation: int) -> None:
        """The first batch of a generation is ready."""

    def all_ready(self, pool: Pool, generation: int) -> None:
        """Every slot has a ready worker of the generation."""

    def generation_failed(self, pool: Pool, generation: int, reason: str, details: str) -> None:
        """A generation that has not taken over yet cannot; ``details`` may be a traceback."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A pool that goes on under the next version of the master."""

    current: int
    relay: tuple[Descriptor, Descriptor]
    totals: Counts
    closing: bool
    floor: Floor
    table: Any
    """The slot table in plain values."""
    generations: tuple[GenerationRecord, ...]
    molds: tuple[MoldRecord, ...]
    crew: CrewRecord
    hooks: HooksRecord
    spawned: int | None = None
    deaths: dict[str, int] = field(default_factory=dict)
    cpu_ns: dict[str, int] = field(default_factory=dict)
