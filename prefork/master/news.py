"""News: what happens to the server as a whole, for whoever keeps a record of it or waits for it.

Runs in the master. Reloads, upgrades and stops tell; the control socket and the chronicle listen. Nobody decides
anything because of news: what a listener does wrong is reported and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefork.config import Config
from prefork.errors import ExitStatus


@dataclass(frozen=True, slots=True)
class ReloadQueued:
    """A reload was asked for, and waits for what the server is doing."""

    doing: str


@dataclass(frozen=True, slots=True)
class ReloadBegan:
    """A reload begins; everyone who has asked for one until now gets this one."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadEnded:
    """A reload has been committed, or has failed: ``error`` says why, ``traceback`` is the application's own."""

    generation: int
    took_s: float
    before: Config
    """The config that was in force when it began."""
    after: Config | None
    """The config that it was to put in force; None if that is not valid."""
    error: str | None = None
    traceback: str | None = None
    status: ExitStatus = ExitStatus.OK
    """What a command that asked for it ends with."""
    notes: tuple[str, ...] = ()
    """What it could not apply, for people."""


@dataclass(frozen=True, slots=True)
class UpgradeStage:
    """An upgrade was asked for, or goes on: ``waiting``, ``checking``, ``checked`` or ``exec``."""

    stage: str


@dataclass(frozen=True, slots=True)
class UpgradeRefused:
    """The installed version cannot take over; this one serves on."""

    error: str
    traceback: str | None


@dataclass(frozen=True, slots=True)
class Upgraded:
    """This process has taken over from ``predecessor``; with an ``error`` the other could not, and it came back."""

    version: str
    predecessor: str
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class StopBegan:
    """The server stops: reloads and upgrades are given up."""

    why: str


Happening = ReloadQueued | ReloadBegan | ReloadEnded | UpgradeStage | UpgradeRefused | Upgraded | StopBegan


class News:
    """Tells every listener, in the order in which they came; ``on_error`` is called in the handler of an exception."""

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error
        self._listeners: list[Callable[[Happening], None]] = []

    def listen(self, listener: Callable[[Happening], None]) -> None:
        self._listeners.append(listener)

    def tell(self, happening: Happening) -> None:
        for listener in self._listeners:
            try:
                listener(happening)
            except Exception:
                self._on_error()
