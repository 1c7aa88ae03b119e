"""What a worker or a helper process begins with: all that its mold hands it through the fork.

Made in the mold, read in the process that it forks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefork.application import load_application
from prefork.config import Pool
from prefork.contexts import Contexts
from prefork.heritage import Heritage
from prefork.hooks import Hooks
from prefork.log import Logs
from prefork.scoreboard import Scoreboard


@dataclass(frozen=True, slots=True)
class Loaded:
    """The application and its hooks, imported."""

    app: object
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class Birth:
    """All that a worker begins with."""

    heritage: Heritage
    pool: Pool
    slot: int
    cell: int
    scoreboard: Scoreboard
    logs: Logs
    loaded: Loaded | None
    """None: the worker loads the application itself."""
    tls: Contexts


WorkerMain = Callable[[Birth], int]


def load(pool: Pool) -> Loaded:
    """Import the application and its hooks. Raises ``ApplicationError``."""
    return Loaded(load_application(pool.app), Hooks.load(pool.hooks))
