"""A mold as the master sees it: a child that loads for a while and then forks workers on order.

Runs in the master, which never waits for a mold and trusts nothing it says but what the kernel confirms.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from enum import Enum
from time import monotonic

from prefork.channel import Channel, ChannelClosed, Message
from prefork.last_words import LastWords
from prefork.master.loop import Loop, Timer
from prefork.master.worker_states import ABORT_S
from prefork.process import Process, spawn

LEAVE_S = 1.0
"""A mold that is not needed any more has this long to notice before it is killed."""
LOADING_LEAVE_S = 0.2
"""The same for one that may be in the middle of an import, which cannot notice."""


class MoldState(Enum):
    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"
    """it failed, or is not needed any more"""
    UNSUITABLE = "unsuitable"
    """it leaves because its import left behind what a fork does not keep"""


class MoldProcess:
    """One mold process. ``on_message`` is told what it says."""

    def __init__(
        self,
        loop: Loop,
        main: Callable[[int, int], int],
        *,
        boot_s: float,
        on_message: Callable[[MoldProcess, Message], None],
    ) -> None:
        """Fork it; ``main`` gets the descriptors of the mold's own channel and last words."""
        self.state = MoldState.LOADING
        self.was_ready = False
        self.timed_out = False
        """It was ended because its boot timeout passed."""
        self.started_at = monotonic()
        self._loop = loop
        self._on_message = on_message
        self._channel: Channel | None
        self._channel, theirs = Channel.pair()
        try:
            self.last_words = LastWords()
            try:
                pid = spawn(lambda: main(theirs.fileno(), self.last_words.fd))
            except OSError:
                self.last_words.close()
                raise
        except OSError:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self._process = Process(pid)
        self._timer: Timer | None = loop.call_later(boot_s, self._boot_timed_out) if boot_s else None
        loop.watch(self._channel.fileno(), self.read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def became_ready(self) -> None:
        """Note that it can fork workers."""
        self.state = MoldState.READY
        self.was_ready = True
        self._cancel_timer()

    def send(self, kind: str, fds: Sequence[int] = (), **fields: object) -> bool:
        """Send an order; return False if the mold is gone or does not read."""
        if self._channel is None:
            return False
        try:
            return self._channel.send(kind, fds, **fields)
        except ChannelClosed:
            return False

    def read(self) -> None:
        """Take what it said. At the end of the channel only close it: its death is told by SIGCHLD."""
        try:
            while self._channel is not None and (message := self._channel.receive()) is not None:
                self._on_message(self, message)
        except ChannelClosed:
            self._close_channel()

    def dismiss(self, state: MoldState = MoldState.LEAVING) -> None:
        """Let it go: it leaves when its channel closes, else it is killed."""
        if self.state in (MoldState.LOADING, MoldState.READY):
            loads = self.state is MoldState.LOADING
            self.state = state
            self._close_channel()
            self._cancel_timer()
            # What imports an application cannot see that the channel closed.
            self._timer = self._loop.call_later(LOADING_LEAVE_S if loads else LEAVE_S, self._kill)

    def gone(self) -> None:
        """It died and was reaped."""
        self.read()
        self._close_channel()
        self._cancel_timer()
        self._process.close()
        self.last_words.close()

    def _boot_timed_out(self) -> None:
        """Make it write its stack, and end it."""
        self.timed_out = True
        self.state = MoldState.LEAVING
        self._process.signal(signal.SIGABRT)
        self._timer = self._loop.call_later(ABORT_S, self._kill)

    def _kill(self) -> None:
        self._process.signal(signal.SIGKILL)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
