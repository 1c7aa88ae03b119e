"""A child that the master forks itself, as the master sees it: a mold, or the admin process. It gets ready and then
takes orders until it is dismissed.

Runs in the master, which never waits for a child and trusts nothing it says but what the kernel confirms.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from time import monotonic

from prefork.channel import Channel, ChannelClosed, Message
from prefork.last_words import LastWords
from prefork.master.loop import Loop, Timer
from prefork.master.worker_states import ABORT_S
from prefork.process import Process, spawn
from prefork.records import Descriptor

LEAVE_S = 1.0
"""A child that is not needed any more has this long to notice before it is killed."""
LOADING_LEAVE_S = 0.2
"""The same for one that may be in the middle of an import, which cannot notice."""
MESSAGES_AT_A_TIME = 16
"""A child that floods its channel must not keep the master from the others."""


class ChildState(Enum):
    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"
    """it failed, or is not needed any more"""
    UNSUITABLE = "unsuitable"
    """a mold that leaves because its import left behind what a fork does not keep"""


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A child that goes on under the next version of the master."""

    pid: int
    channel: Descriptor | None
    last_words: Descriptor
    state: ChildState
    was_ready: bool
    timed_out: bool
    started_at: float


OnMessage = Callable[["ChildProcess", Message], None]


class ChildProcess:
    """One process."""

    def __init__(
        self,
        loop: Loop,
        pid: int,
        channel: Channel | None,
        last_words: LastWords,
        on_message: OnMessage,
        *,
        started_at: float,
    ) -> None:
        """``on_message`` is told what it says."""
        self.state = ChildState.LOADING
        self.was_ready = False
        self.timed_out = False
        """It was ended because its boot timeout passed."""
        self.started_at = started_at
        self.last_words = last_words
        self._loop = loop
        self._on_message = on_message
        self._channel = channel
        self._process = Process(pid)
        self._timer: Timer | None = None
        if channel is not None:
            loop.watch(channel.fileno(), self.read)

    @classmethod
    def start(
        cls, loop: Loop, main: Callable[[int, int], int], *, boot_s: float, on_message: OnMessage
    ) -> ChildProcess:
        """Fork one; ``main`` gets the descriptors of its own channel and last words. Raises ``OSError``."""
        ours, theirs = Channel.pair()
        try:
            last_words = LastWords()
            try:
                pid = spawn(lambda: main(theirs.fileno(), last_words.fd))
            except OSError:
                last_words.close()
                raise
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        made = cls(loop, pid, ours, last_words, on_message, started_at=monotonic())
        made._limit_boot(boot_s)
        return made

    @classmethod
    def adopt(cls, loop: Loop, record: ChildRecord, *, boot_s: float, on_message: OnMessage) -> ChildProcess:
        """Take over one that an older version of this process has forked."""
        channel = None if record.channel is None else Channel.from_fd(record.channel)
        words = LastWords(record.last_words)
        made = cls(loop, record.pid, channel, words, on_message, started_at=record.started_at)
        made.state, made.was_ready, made.timed_out = record.state, record.was_ready, record.timed_out
        if made.state is ChildState.LOADING:
            made._limit_boot(boot_s)
        elif made.state is not ChildState.READY:
            made._timer = loop.call_later(LEAVE_S, made.kill)
        return made

    def record(self) -> ChildRecord:
        return ChildRecord(
            self.pid,
            None if self._channel is None else Descriptor(self._channel.fileno()),
            Descriptor(self.last_words.fd),
            self.state,
            self.was_ready,
            self.timed_out,
            self.started_at,
        )

    def _limit_boot(self, boot_s: float) -> None:
        if boot_s:
            left_s = max(0.0, self.started_at + boot_s - monotonic())
            self._timer = self._loop.call_later(left_s, self._boot_timed_out)

    @property
    def pid(self) -> int:
        return self._process.pid

    def became_ready(self) -> None:
        """Note that it takes orders."""
        self.state = ChildState.READY
        self.was_ready = True
        self._cancel_timer()

    def send(self, kind: str, fds: Sequence[int] = (), **fields: object) -> bool:
        """Send an order; return False if the child is gone or does not read."""
        if self._channel is None:
            return False
        try:
            return self._channel.send(kind, fds, **fields)
        except ChannelClosed:
            return False

    def read(self) -> None:
        """Take what it said, some messages at a time; at the end of the channel close it.

        Its death is told by SIGCHLD.
        """
        try:
            for _ in range(MESSAGES_AT_A_TIME):
                if self._channel is None or (message := self._channel.receive()) is None:
                    return
                self._on_message(self, message)
        except ChannelClosed:
            self._close_channel()

    def dismiss(self, state: ChildState = ChildState.LEAVING) -> None:
        """Let it go: it leaves when its channel closes, else it is killed."""
        if self.state in (ChildState.LOADING, ChildState.READY):
            loads = self.state is ChildState.LOADING
            self.state = state
            self._close_channel()
            self._cancel_timer()
            # What imports an application cannot see that the channel closed.
            self._timer = self._loop.call_later(LOADING_LEAVE_S if loads else LEAVE_S, self.kill)

    def retire(self, within_s: float) -> None:
        """Let it go: it was told to, and is killed if it does not within some seconds."""
        if self.state in (ChildState.LOADING, ChildState.READY):
            self.state = ChildState.LEAVING
            self._cancel_timer()
            self._timer = self._loop.call_later(within_s, self.kill)

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
        self.state = ChildState.LEAVING
        self._process.signal(signal.SIGABRT)
        self._timer = self._loop.call_later(ABORT_S, self.kill)

    def kill(self) -> None:
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
