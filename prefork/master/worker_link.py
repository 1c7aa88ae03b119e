"""The master's hold on a worker: its channel, its process, and what it leaves behind.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prefork.channel import Channel, ChannelClosed, Message
from prefork.last_words import LastWords
from prefork.master.loop import Loop
from prefork.process import Process

MESSAGES_AT_A_TIME = 16
"""A worker that floods its channel must not keep the master from the others."""


class WorkerLink:
    """Made before the worker is forked; ``process`` is known once it has said hello."""

    def __init__(self, loop: Loop) -> None:
        """Make the channel, whose other end ``theirs`` is to be given away. Raises ``OSError``."""
        self.last_words = LastWords()
        try:
            self._channel, self.theirs = Channel.pair()
        except OSError:
            self.last_words.close()
            raise
        self.process: Process | None = None
        self.failure = ""
        """What the worker said of its failed boot."""
        self._loop = loop
        self._is_open = True
        self.is_closed = False
        """Is the worker gone, and all that was held of it?"""

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call back when the worker has said something, or its end is closed."""
        self._loop.watch(self._channel.fileno(), on_readable)

    def messages(self) -> Iterator[Message]:
        """Yield what the worker said, up to some messages; the loop calls again for more.

        Raises ``ChannelClosed`` after the last one; the channel is closed then.
        """
        for _ in range(MESSAGES_AT_A_TIME):
            if not self._is_open:
                return
            try:
                message = self._channel.receive()
            except ChannelClosed:
                self._close_channel()
                raise
            if message is None:
                return
            yield message

    def send(self, kind: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Send an order. One that cannot be delivered is left to the deadlines: the worker is stuck or dead."""
        if self._is_open:
            try:
                self._channel.send(kind, fds, **fields)
            except ChannelClosed:
                pass

    def close(self) -> None:
        """Let go: the worker is dead, or was never there."""
        self.is_closed = True
        self._close_channel()
        self.last_words.close()
        if self.process is not None:
            self.process.close()

    def _close_channel(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
