"""What a server finds around it, as it sees it: the log, and the worker's cell in the scoreboard;
runs only in a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prefork.worker.threads import BindableCell


class Log(Protocol):
    """What the serve loop writes to: ``prefork.log.Log``."""

    def info(self, event: str, message: str, /, **fields: object) -> None: ...

    def warning(self, event: str, message: str, /, **fields: object) -> None: ...

    def error(self, event: str, message: str, /, **fields: object) -> None: ...


class Cell(Protocol):
    """The worker's own cell: ``prefork.cell.Cell``."""

    @property
    def threads(self) -> Sequence[BindableCell]: ...

    def connections(self, count: int) -> None: ...

    def add_accepted(self) -> None: ...

    def add_refused(self, reason: str) -> None: ...

    def add_handed_over(self) -> None: ...

    def add_adopted(self) -> None: ...

    def add_exchange(self, elapsed_ns: int) -> None: ...

    def census(self, reading: int, writing: int, awaiting: int) -> None: ...

    received: memoryview[int]
    """One word, which counts bytes."""
