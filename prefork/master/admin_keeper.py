"""Keeps the server supplied with an admin process: starts it, replaces it, starts it again when it dies.

Runs in the master, which never waits for it: orders that do not fit into its channel end it, and a new one follows. It
may have three of them at a time: the one that serves, one that gets ready to replace it, and those that leave.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from prefork.channel import Message
from prefork.log import Log
from prefork.master.admin_terms import Terms
from prefork.master.backoff import BackOff
from prefork.master.child_process import ChildProcess, ChildRecord, ChildState
from prefork.master.failure import told
from prefork.master.loop import Loop, Timer
from prefork.process import Exit
from prefork.quiesce import HANDSHAKES_S

LEAVE_S = 5.0
"""How long one that was replaced may finish what it answers."""
STOP_S = 1.0
"""The same at the end of a stop, when nothing else is left."""


class Owner(Protocol):
    """Who is told what becomes of a reload's admin process."""

    def admin_ready(self) -> None:
        """It can take over."""

    def admin_failed(self, reason: str, details: str) -> None:
        """It cannot."""


Spawn = Callable[[Terms, int, int], int]
"""The life of an admin process: its terms, and the descriptors of its channel and last words. Runs in the child."""


@dataclass(frozen=True, slots=True)
class AdminRecord:
    """Admin processes that go on under the next version of the master."""

    current: ChildRecord | None
    leaving: tuple[ChildRecord, ...]


@dataclass(slots=True)
class _Change:
    """What a reload brings: other terms, and the process that it waits for; None if there is to be none."""

    terms: Terms | None
    process: ChildProcess | None


class AdminKeeper:
    """The admin process in all its lives; there is none without terms."""

    def __init__(self, loop: Loop, log: Log, spawn: Spawn, owner: Owner) -> None:
        self._loop = loop
        self._log = log.bind("admin")
        self._spawn = spawn
        self._owner = owner
        self._terms: Terms | None = None
        self._current: ChildProcess | None = None
        self._successor: ChildProcess | None = None
        """Of the same terms; takes over when it is ready."""
        self._change: _Change | None = None
        self._leaving: list[ChildProcess] = []
        self._backoff = BackOff()
        self._ready_at: float | None = None
        self._timer: Timer | None = None
        self.has_ended = False
        """It was told to go for good."""
        self._is_outdated = False
        """Another process is to take the place of the one that serves, whatever becomes of a reload."""

    # Start, upgrade, end

    def start(self, terms: Terms | None) -> None:
        """Have an admin process from now on."""
        self._terms = terms
        self._begin()

    def adopt(self, terms: Terms | None, record: AdminRecord | None) -> None:
        """Go on with those of an older version of this process; ``renew`` is to follow."""
        self._terms = terms
        if record is None:
            return
        if record.current is not None:
            self._current = self._adopted(record.current)
        for each in record.leaving:
            process = self._adopted(each)
            process.retire(LEAVE_S)
            self._leaving.append(process)

    def record(self) -> AdminRecord:
        others = [*self._leaving, *filter(None, [self._successor])]
        return AdminRecord(
            None if self._current is None else self._current.record(),
            tuple(process.record() for process in others),
        )

    def renew(self) -> None:
        """Have a new process, of the code that runs now, take the place of the one that serves."""
        self._is_outdated = self._current is not None
        if self._successor is None and self._change is None:
            self._cancel_timer()
            self._begin()

    def end(self) -> None:
        """The server is about to end: let it go."""
        self.has_ended = True
        self._cancel_timer()
        self._give_up(self._successor)
        self._successor = None
        if self._current is not None:
            self._retire(self._current, empty_listeners=True, within_s=STOP_S)
            self._loop.call_later(HANDSHAKES_S, lambda: self.broadcast("close-listeners"))
            self._current = None

    def kill(self) -> None:
        """End what is left at once: the master is about to end, in whatever way."""
        for process in self._processes():
            process.kill()

    @property
    def is_gone(self) -> bool:
        """No process lives."""
        return not any(self._processes())

    # Reload

    def prepare(self, terms: Terms | None) -> bool:
        """Get ready for what a reload wants; return whether it has to wait for ``admin_ready``."""
        if terms == self._terms and not (terms and terms.are_read_again):
            return False
        self._give_up(self._successor)
        self._successor = None
        self._change = _Change(terms, None)
        if terms is not None:
            self._change.process = self._fork(terms)
        return terms is not None

    def commit(self, *, empty_listeners: bool) -> None:
        """Let what a reload brought take over.

        With ``empty_listeners`` the one before takes what waits in listeners that are about to close.
        """
        if (change := self._change) is None:
            return
        self._change = None
        self._terms = change.terms
        self._replace(change.process, empty_listeners=empty_listeners)

    def roll_back(self) -> None:
        """Forget what a reload brought."""
        if self._change is not None:
            self._give_up(self._change.process)
            self._change = None
            if self._is_outdated:
                self.renew()

    # What it is told

    def send_board(self, pool: str, generation: int, fd: int) -> None:
        """A generation has a scoreboard."""
        self.broadcast("board", [fd], pool=pool, generation=generation)

    def broadcast(self, kind: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Send an order to all of them. One that does not read is ended, for it would miss what it needs."""
        for process in list(self._processes()):
            if not process.send(kind, fds, **fields) and process.state is not ChildState.LEAVING:
                self._log.warning(
                    "admin-stuck", f"pid {process.pid} reads no orders: sending SIGKILL", pid=process.pid
                )
                process.kill()

    # What it tells

    def _said(self, process: ChildProcess, message: Message) -> None:
        match message.kind:
            case "ready" if process.state is ChildState.LOADING:
                process.became_ready()
                self._became_ready(process)
            case "failed" if process.state is ChildState.LOADING:
                self._give_up(process)
                self._lost(process, "it cannot get ready", str(message.fields.get("text", "")))
            case "leave" | "late" if process is self._current:
                self.renew()

    def _became_ready(self, process: ChildProcess) -> None:
        if process is self._successor:
            self._successor = None
            self._replace(process, empty_listeners=False)
        elif process is self._current:
            self._ready_at = monotonic()
        elif self._change is not None and process is self._change.process:
            self._owner.admin_ready()

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is an admin process; return whether it is."""
        process = next((each for each in self._processes() if each.pid == pid), None)
        if process is None:
            return False
        exit = reap(pid)
        stack = process.last_words.read()
        process.gone()  # takes what it said last
        if process in self._leaving:
            self._leaving.remove(process)
            self._log.info("admin-gone", f"pid {pid} is gone: {exit}", pid=pid)
        else:
            reason = "it did not get ready in time" if process.timed_out else "it died"
            self._lost(process, f"{reason}: {exit} (pid {pid})", stack)
        return True

    def _lost(self, process: ChildProcess, reason: str, details: str) -> None:
        """One that was not asked to go is gone, or about to go."""
        if self._change is not None and process is self._change.process:
            self._change.process = None
            self._owner.admin_failed(reason, details)
            return
        message, traceback = told(reason, details)
        self._log.error("admin-failed", message, traceback=traceback)
        lived_s = 0.0
        if process is self._current:
            self._current = None
            lived_s = 0.0 if self._ready_at is None else monotonic() - self._ready_at
            self._ready_at = None
        elif process is self._successor:
            self._successor = None
        if self._current is None and self._successor is not None:
            self._current, self._successor = self._successor, None
        else:
            self._try_again(lived_s)

    # Processes

    def _processes(self) -> Iterator[ChildProcess]:
        change = None if self._change is None else self._change.process
        for process in (self._current, self._successor, change, *self._leaving):
            if process is not None:
                yield process

    def _begin(self) -> None:
        self._timer = None
        if self._terms is None or self.has_ended:
            return
        try:
            process = self._fork(self._terms)
        except OSError as error:
            self._log.error("admin-failed", f"cannot start an admin process: {error.strerror}")
            self._try_again(0.0)
            return
        if self._current is None:
            self._current = process
        else:
            self._successor = process

    def _try_again(self, lived_s: float) -> None:
        if self.has_ended or self._timer is not None:
            return
        delay_s = self._backoff.failed(monotonic(), lived_s, random.random())
        self._timer = self._loop.call_later(delay_s, self._begin)

    def _fork(self, terms: Terms) -> ChildProcess:
        """Raises ``OSError``."""
        process = ChildProcess.start(
            self._loop,
            lambda channel, last_words: self._spawn(terms, channel, last_words),
            boot_s=terms.pool.timeouts.boot,
            on_message=self._said,
        )
        self._log.debug("admin-started", f"pid {process.pid}", pid=process.pid)
        return process

    def _adopted(self, record: ChildRecord) -> ChildProcess:
        return ChildProcess.adopt(self._loop, record, boot_s=LEAVE_S, on_message=self._said)

    def _replace(self, process: ChildProcess | None, *, empty_listeners: bool) -> None:
        """Let a process take the place of the one that serves."""
        before, self._current = self._current, process
        self._is_outdated = False
        self._ready_at = None if process is None else monotonic()
        self._cancel_timer()
        if before is not None:
            self._retire(before, empty_listeners=empty_listeners, within_s=LEAVE_S)

    def _retire(self, process: ChildProcess, *, empty_listeners: bool, within_s: float) -> None:
        process.send("drain", reason="retired", empty_listeners=empty_listeners)
        process.retire(within_s)
        self._leaving.append(process)

    def _give_up(self, process: ChildProcess | None) -> None:
        if process is not None:
            process.dismiss()
            self._leaving.append(process)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
