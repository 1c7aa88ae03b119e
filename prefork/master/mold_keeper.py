"""Keeps a generation supplied with a mold: starts it, hears it out, starts it again when it dies.

Runs in the master. Whether a failure ends the generation (it has not served yet) or is only a delay (its workers
serve on) is for the pool to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from prefork.channel import Message
from prefork.log import Log
from prefork.master.backoff import BackOff
from prefork.master.child_process import ChildProcess, ChildRecord, ChildState
from prefork.master.generation import Generation
from prefork.master.loop import Loop, Timer
from prefork.master.obituary import facts_of_mold
from prefork.process import Exit


class MoldOwner(Protocol):
    """Who is told how the mold does."""

    def mold_ready(self, generation: int) -> None:
        """Workers can be forked."""

    def mold_gone(self, generation: int) -> None:
        """No workers can be forked for now."""

    def mold_died(self, generation: int, pid: int, facts: Mapping[str, object], stack: str) -> None:
        """The process of the mold is gone, and nobody asked for that; ``mold_failed`` follows."""

    def mold_failed(self, generation: int, reason: str, details: str) -> None:
        """The mold did not get ready, or died: call ``retry``, or give the generation up."""


@dataclass(frozen=True, slots=True)
class MoldRecord:
    """A mold that is kept by the next version of the master."""

    generation: int
    process: ChildRecord | None
    preload: bool
    backoff: BackOff
    ready_at: float | None
    waits: bool
    """Another process is to be started after a while."""
    dismissed: bool
    failed: bool


class MoldKeeper:
    """The mold of one generation of a pool, in all its lives."""

    def __init__(
        self,
        generation: Generation,
        loop: Loop,
        log: Log,
        owner: MoldOwner,
        spawn: Callable[[int, int, bool], int],
    ) -> None:
        """``spawn(channel, last_words, preload)`` runs in the child and is the mold's life."""
        self._loop = loop
        pool, number = generation.config.name, generation.number
        self._log = log.bind(f"{pool} mold gen {number}", pool=pool, generation=number)
        self._generation = number
        self._owner = owner
        self._spawn = spawn
        self._preload = generation.config.preload is not False
        self._boot_s = generation.config.timeouts.boot
        self._process: ChildProcess | None = None
        self._backoff = BackOff()
        self._ready_at: float | None = None
        """When the last process got ready; None if it did not."""
        self._timer: Timer | None = None
        self._dismissed = False
        self._failed = False
        """The owner was told of this process's failure already."""

    def start(self) -> None:
        """Fork the mold, unless it was dismissed."""
        self._timer = None
        if self._dismissed:
            return
        if self._process is not None:  # its predecessor is slow to die
            self._timer = self._loop.call_later(0.1, self.start)
            return
        self._failed = False
        self._ready_at = None
        try:
            self._process = ChildProcess.start(
                self._loop,
                lambda channel, last_words: self._spawn(channel, last_words, self._preload),
                boot_s=self._boot_s,
                on_message=self._said,
            )
        except OSError as error:
            reason = f"cannot start a mold: {error.strerror}"
            # Later: who starts a mold does not expect that it fails at once.
            self._timer = self._loop.call_later(0, lambda: self._fail(reason, ""))
            return
        self._log.debug("mold-started", f"pid {self._process.pid}", pid=self._process.pid)

    def adopt(self, record: MoldRecord) -> None:
        """Go on where an older version of this process had got to, instead of ``start``."""
        self._preload, self._backoff = record.preload, record.backoff
        self._ready_at, self._dismissed, self._failed = record.ready_at, record.dismissed, record.failed
        if record.process is not None:
            self._process = ChildProcess.adopt(
                self._loop, record.process, boot_s=self._boot_s, on_message=self._said
            )
        if record.waits:
            left_s = max(0.0, (record.backoff.retry_at or 0.0) - monotonic())
            self._timer = self._loop.call_later(left_s, self.start)

    def record(self) -> MoldRecord:
        return MoldRecord(
            self._generation,
            None if self._process is None else self._process.record(),
            self._preload,
            self._backoff,
            self._ready_at,
            self._timer is not None,
            self._dismissed,
            self._failed,
        )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_ready(self) -> bool:
        """It takes orders."""
        return self._process is not None and self._process.state is ChildState.READY

    @property
    def can_supply(self) -> bool:
        """It takes orders, or loads and has not failed at that since it last did."""
        return self.is_ready or (not self._dismissed and self._backoff.failures <= 1)

    @property
    def is_gone(self) -> bool:
        """No process lives, and none will be started."""
        return self._process is None and self._dismissed

    def send(self, kind: str, fds: Sequence[int] = (), **fields: object) -> bool:
        """Send an order; return False if there is nobody to take it."""
        return self._process is not None and self._process.send(kind, fds, **fields)

    def dismiss(self) -> None:
        """It is not needed any more."""
        self._dismissed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is not None:
            self._process.dismiss()
        self._owner.mold_gone(self._generation)

    def retry(self) -> None:
        """Load the application again from disk, after a while."""
        now = monotonic()
        lived_s = now - self._ready_at if self._ready_at is not None else 0.0
        delay_s = self._backoff.failed(now, lived_s, random.random())
        self._log.info(
            "mold-respawn",
            f"loads the application again from disk in {delay_s:.1f} s",
            delay_s=round(delay_s, 3),
        )
        self._timer = self._loop.call_later(delay_s, self.start)

    def died(self, exit: Exit, *, oom_killed: bool) -> None:
        """Its process was reaped."""
        process = self._process
        assert process is not None
        stack = process.last_words.read()
        process.gone()  # takes what it said last
        self._process = None
        self._owner.mold_gone(self._generation)
        if self._dismissed or self._failed:
            return
        if process.state is ChildState.UNSUITABLE:
            self.start()
            return
        if process.timed_out:
            reason = f"the application did not load within timeouts.boot ({self._boot_s:g} s)"
        else:
            when = "" if process.was_ready else " while it loaded the application"
            by = " by the kernel for lack of memory (OOM)" if oom_killed else ""
            reason = f"the mold died{when}: {exit}{by} (pid {exit.pid})"
        facts = facts_of_mold(exit, reason, monotonic() - process.started_at, oom_killed)
        self._owner.mold_died(self._generation, exit.pid, facts, stack)
        self._owner.mold_failed(self._generation, reason, stack)

    def _said(self, process: ChildProcess, message: Message) -> None:
        if process is not self._process or process.state is not ChildState.LOADING:
            return
        match message.kind:
            case "ready":
                process.became_ready()
                self._ready_at = monotonic()
                took_s = self._ready_at - process.started_at
                what = "loaded the application" if message.fields.get("preload") else "ready to fork"
                self._log.info(
                    "mold-ready", f"{what} in {took_s:.2f} s", pid=process.pid, took_s=round(took_s, 3)
                )
                self._owner.mold_ready(self._generation)
            case "unsuitable":
                left = [str(name) for name in message.fields.get("left") or ["it does not say what"]]
                self._log.warning(
                    "preload-off",
                    "workers load the application for themselves, because its import leaves behind what a "
                    f"fork does not keep: {', '.join(left)} (preload: false says so in the config)",
                    leftovers=left,
                )
                self._preload = False
                process.dismiss(ChildState.UNSUITABLE)
            case "failed":
                process.dismiss()
                self._fail("the application cannot be loaded", str(message.fields.get("text", "")))

    def _fail(self, reason: str, details: str) -> None:
        self._failed = True
        self._owner.mold_failed(self._generation, reason, details)
