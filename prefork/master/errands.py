"""Errands: the hooks of a pool that are about the server, each run by a helper process; one at a time, in order.

Runs in the master, which runs no application code: the pool's mold forks the helper. What a hook does wrong is
logged, and harms neither the master nor the errands after it.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, Protocol

from prefork.channel import ChannelClosed, Message
from prefork.log import Log
from prefork.master.loop import Loop, Timer
from prefork.master.worker_link import LinkRecord, WorkerLink
from prefork.master.worker_states import ABORT_S
from prefork.process import Exit, Process

HOOK_S = 30.0
"""How long a helper may take, with loading the application if it has to, before it is ended."""
MOST_WAITING = 100
"""So many errands may wait; with more the oldest is dropped, for workers may die faster than hooks run."""
RETRY_S = 1.0
"""When a mold that could not take an order is asked again."""


class Send(Protocol):
    """Sends an order to the pool's mold; returns False if it cannot take it now."""

    def __call__(self, kind: str, fds: list[int], /, **fields: object) -> bool: ...


class Errand(NamedTuple):
    hook: str
    told: dict[str, object]
    """The fields of the hook's argument."""


@dataclass(frozen=True, slots=True)
class ErrandsRecord:
    """Errands that go on under the next version of the master."""

    waiting: tuple[Errand, ...]
    hook: str
    link: LinkRecord | None
    pid: int | None
    ends_at: float | None
    closed: str


class Errands:
    """``send`` reaches the mold, ``on_idle`` is called when the last errand is done."""

    def __init__(self, pool: str, loop: Loop, log: Log, send: Send, on_idle: Callable[[], None]) -> None:
        self._pool = pool
        self._loop = loop
        self._log = log.bind(f"{pool} hooks", pool=pool)
        self._send = send
        self._on_idle = on_idle
        self._waiting: deque[Errand] = deque()
        self._hook = ""
        """Of the errand that runs."""
        self._link: WorkerLink | None = None
        self._timer: Timer | None = None
        """Of the errand that runs, or of the next try."""
        self._end: Timer | None = None
        self._closed = ""
        """Why no more errands are run; empty while they are."""

    def record(self) -> ErrandsRecord:
        link = self._link
        return ErrandsRecord(
            tuple(self._waiting),
            self._hook,
            None if link is None else link.record(),
            None if link is None or link.process is None else link.process.pid,
            None if self._end is None else self._end.instant,
            self._closed,
        )

    def adopt(self, record: ErrandsRecord) -> None:
        """Go on where an older version of this process had got to; the errand that runs has all its time again."""
        self._waiting.extend(record.waiting)
        self._hook, self._closed = record.hook, record.closed
        if record.link is not None:
            self._link = WorkerLink.adopt(self._loop, record.link, record.pid)
            self._link.watch(self._read)
            self._timer = self._loop.call_later(HOOK_S, self._overdue)
        else:
            self._timer = self._loop.call_later(0, self._give)
        if record.ends_at is not None and not record.closed:
            self.end_by(record.ends_at)

    @property
    def is_idle(self) -> bool:
        return self._link is None and not self._waiting

    def add(self, hook: str, **told: object) -> None:
        """Have a hook run with an argument of these fields."""
        if self._closed:
            self._drop(Errand(hook, told), self._closed)
            return
        if len(self._waiting) >= MOST_WAITING:
            self._drop(self._waiting.popleft(), f"{MOST_WAITING} others wait")
        self._waiting.append(Errand(hook, told))
        if self._link is None and self._timer is None:
            self._give()

    def end_by(self, deadline: float) -> None:
        """Give up what is not done at an instant; it may be called again."""
        if self._end is not None:
            self._end.cancel()
        rest_s = max(0.0, deadline - monotonic())
        self._end = self._loop.call_later(rest_s, lambda: self.give_up("the time to stop is over"))

    def close(self) -> None:
        """There is nothing to do any more, and no end to wait for."""
        if self._end is not None:
            self._end.cancel()

    def give_up(self, why: str) -> None:
        """Kill the helper that runs, and run no other."""
        if self._closed:
            return
        self._closed = why
        was_idle = self.is_idle
        while self._waiting:
            self._drop(self._waiting.popleft(), why)
        if self._link is None:
            self._cancel_timer()
            if not was_idle:
                self._on_idle()
        elif self._link.process is None:
            self._done(f"given up: {why}")
        else:
            self._log.warning("hook-ended", f"the hook {self._hook}: {why}: sending SIGKILL")
            self._kill()

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is the helper; return whether it is."""
        link = self._link
        if link is None or link.process is None or link.process.pid != pid:
            return False
        exit = reap(pid)
        stack = link.last_words.read()
        self._done("" if exit.exit_status == 0 else f"its helper process ended: {exit}", stack)
        return True

    def read_hello(self) -> None:
        """Take a hello that waits: only it tells the pid of a helper."""
        if self._link is not None and self._link.process is None:
            self._read()

    def _give(self) -> None:
        """Order the next errand; if the mold cannot take it, later."""
        self._timer = None
        if not self._waiting:
            return
        errand = self._waiting[0]
        try:
            link, theirs = WorkerLink.make(self._loop)
        except OSError as error:
            self._drop(self._waiting.popleft(), f"cannot make a channel: {error.strerror}")
            self._timer = self._loop.call_later(RETRY_S, self._give)
            return
        link.watch(self._read)
        fds = [theirs.fileno(), link.last_words.fd]
        is_sent = self._send("hook", fds, hook=errand.hook, told=errand.told)
        theirs.close()
        if not is_sent:
            link.close()
            self._timer = self._loop.call_later(RETRY_S, self._give)
            return
        self._waiting.popleft()
        self._hook, self._link = errand.hook, link
        self._timer = self._loop.call_later(HOOK_S, self._overdue)

    def _read(self) -> None:
        link = self._link
        if link is None:
            return
        try:
            for message in link.messages():
                self._said(link, message)
        except ChannelClosed:
            if link.process is None:
                self._done("its helper process could not be forked")

    def _said(self, link: WorkerLink, message: Message) -> None:
        if message.kind == "hello" and link.process is None and message.pid:
            link.process = Process(message.pid)

    def _overdue(self) -> None:
        if self._link is None or self._link.process is None:
            self._done(f"its helper process did not begin within {HOOK_S:g} s")
            return
        self._log.warning("hook-ended", f"the hook {self._hook} runs for {HOOK_S:g} s: sending SIGABRT")
        self._link.process.signal(signal.SIGABRT)
        self._timer = self._loop.call_later(ABORT_S, self._kill)

    def _kill(self) -> None:
        if self._link is not None and self._link.process is not None:
            self._link.process.signal(signal.SIGKILL)

    def _done(self, failure: str, stack: str = "") -> None:
        if failure:
            self._log.error(
                "hook-failed", f"the hook {self._hook}: {failure}", hook=self._hook, traceback=stack or None
            )
        assert self._link is not None
        self._link.close()
        self._link = None
        self._cancel_timer()
        self._give()
        if self.is_idle:
            self._on_idle()

    def _drop(self, errand: Errand, why: str) -> None:
        self._log.warning("hook-dropped", f"the hook {errand.hook} is not run: {why}", **errand.told)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
