"""What requests at the control socket wait for: a reload, an upgrade, the end, other workers.

Runs in the master. Nothing here decides or is asked by anybody: a client that goes away in the middle changes nothing.

A reload, as one who waits for it sees it::

    asked for ── the server is free ─────────────────────────> its own reload begins
        └── it boots, reloads or closes listeners: queued ───> the *next* that begins is for all that wait
    begins ── the file is wrong, or the application fails ───> end, with the error and its status
        └── committed ── old workers drain ── all are gone ──> end, with what changed
    at any moment before the commit: the server stops ───────> end, failed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prefork.config import Config, in_force
from prefork.errors import ExitStatus
from prefork.master.control_diff import difference
from prefork.master.control_request import Request, Wait
from prefork.master.news import (
    Happening,
    ReloadBegan,
    ReloadEnded,
    ReloadQueued,
    StopBegan,
    Upgraded,
    UpgradeRefused,
    UpgradeStage,
)
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.worker_states import State


class Master(Protocol):
    """What waits look at."""

    @property
    def started_with(self) -> Config:
        """Some of its keys hold until a restart."""

    def pools(self) -> Sequence[Pool]:
        """Return all pools, coming and leaving ones too."""


class ReloadWait(Wait):
    """Until a reload has ended and the workers of before are gone; ``generation`` is None until it has begun."""

    def __init__(
        self, request: Request, master: Master, generation: int | None = None, preface: str = ""
    ) -> None:
        """``preface``: what has happened before, for the last message."""
        super().__init__(request)
        self._master = master
        self._generation = generation
        self._preface = preface
        self._ended: ReloadEnded | None = None

    def hear(self, happening: Happening) -> None:
        match happening:
            case ReloadQueued(doing) if self._generation is None:
                self.request.progress("waiting", f"the reload waits: the server is {doing}")
            case ReloadBegan(generation) if self._generation is None:
                self._generation = generation
            case ReloadEnded(generation=generation) if generation == self._generation:
                self.ended(happening)
            case StopBegan() if self._ended is None:
                self.request.end("the server stops: there is no reload", ExitStatus.INTERNAL)

    def ended(self, outcome: ReloadEnded) -> None:
        """Its reload has ended."""
        self._ended = outcome
        if outcome.error is not None:
            self.request.end(
                f"{self._preface}the reload failed, the generation before serves on: {outcome.error}",
                outcome.status,
                generation=outcome.generation,
                error=outcome.error,
                traceback=outcome.traceback,
            )

    def look(self) -> None:
        if self._generation is None:
            return
        if self._ended is None:
            for pool in self._master.pools():
                self._tell_of(pool, self._generation)
            return
        old = sum(_lives(w) and w.generation < self._generation for w in self._workers())
        if old:
            self.request.progress("draining", f"generation {self._generation} serves, {_old(old)}", old=old)
        else:
            self._report(self._ended)

    def replaced(self) -> None:
        if self._ended is not None:
            self._report(self._ended)
        super().replaced()

    def _workers(self) -> list[Worker]:
        return [worker for pool in self._master.pools() for worker in pool.table.workers.values()]

    def _tell_of(self, pool: Pool, generation: int) -> None:
        if generation not in pool.generations:
            return
        if not any(worker.generation == generation for worker in pool.table.workers.values()):
            self.request.progress("loading", f"{pool.name}: loading the application", pool=pool.name)
            return
        ready, wanted = pool.table.ready_count(generation), pool.table.wanted
        old = sum(w.state is State.DRAINING for w in pool.table.workers.values() if w.generation < generation)
        self.request.progress(
            "workers",
            f"{pool.name}: workers ready {ready}/{wanted}" + (f", {_old(old)}" if old else ""),
            pool=pool.name,
            ready=ready,
            wanted=wanted,
            old=old,
        )

    def _report(self, outcome: ReloadEnded) -> None:
        assert outcome.after is not None
        before = in_force(self._master.started_with, outcome.before)
        self.request.end(
            f"{self._preface}generation {outcome.generation} serves, {outcome.took_s:.2f} s after the reload began",
            generation=outcome.generation,
            took_s=round(outcome.took_s, 3),
            notes=list(outcome.notes),
            **difference(before, outcome.after),
        )


class UpgradeWait(Wait):
    """Until this process becomes the installed version, or that is refused. The client asks that one how it went."""

    def hear(self, happening: Happening) -> None:
        match happening:
            case UpgradeStage(stage):
                self.stage(stage)
            case UpgradeRefused(error, traceback):
                self.request.end(error, ExitStatus.INTERNAL, error=error, traceback=traceback)
            case StopBegan():
                self.request.end("the server stops: there is no upgrade", ExitStatus.INTERNAL)

    def stage(self, stage: str) -> None:
        """Tell how far it is."""
        words = {
            "waiting": "the upgrade begins when the server is idle",
            "checking": "the installed version rehearses",
            "checked": "the installed version has passed",
            "exec": "the installed version takes over",
        }
        self.request.progress(stage, words[stage])

    def replaced(self) -> None:
        """The connection ends with this program, and the next one knows how it went."""


class Succession:
    """What is known of the last upgrade, for those who asked the version before for it."""

    def __init__(self) -> None:
        self.upgraded: Upgraded | None = None
        self.generation: int | None = None
        """That of the reload that followed."""
        self.reload: ReloadEnded | None = None

    def hear(self, happening: Happening) -> None:
        match happening:
            case Upgraded():
                self.upgraded, self.generation, self.reload = happening, None, None
            case ReloadBegan(generation) if self.upgraded and self.generation is None:
                self.generation = generation
            case ReloadEnded(generation=generation) if generation == self.generation:
                self.reload = happening


class StopWait(Wait):
    """Until the process is gone: the end of the connection is the answer, and the client looks whether that is true."""

    def __init__(self, request: Request, master: Master) -> None:
        super().__init__(request)
        self._master = master

    def look(self) -> None:
        workers = sum(len(pool.table.workers) for pool in self._master.pools())
        if not workers:
            return
        many = "1 worker has" if workers == 1 else f"{workers} workers have"
        self.request.progress("stopping", f"{many} not left yet", workers=workers)


class WorkersWait(Wait):
    """Until ``left`` has nothing to say, which tells what is to be done yet; it may end the request itself."""

    def __init__(self, request: Request, left: Callable[[], str], done: str, **fields: Any) -> None:
        """``done`` is the last message, with ``fields``."""
        super().__init__(request)
        self._left = left
        self._done = done
        self._fields = fields

    def hear(self, happening: Happening) -> None:
        if isinstance(happening, StopBegan):
            self.request.end("the server stops", ExitStatus.INTERNAL)

    def look(self) -> None:
        left = self._left()
        if left:
            self.request.progress("workers", left)
        else:
            self.request.end(self._done, **self._fields)


def _lives(worker: Worker) -> bool:
    """Tell whether a worker is there and was not killed: one that hangs in the kernel is not waited for."""
    return worker.pid is not None and worker.state is not State.KILLED


def _old(count: int) -> str:
    return f"{count} old worker{'' if count == 1 else 's'} still drain{'s' if count == 1 else ''}"
