"""The master's hold on a worker: its channel, its process, and what it leaves behind.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prefork.channel import Channel, ChannelClosed, Message
from prefork.last_words import LastWords
from prefork.master.loop import Loop
from prefork.process import Process
from prefork.records import Descriptor

MESSAGES_AT_A_TIME = 16
"""A worker that floods its channel must not keep the master from the others."""


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link that goes on in the next version of the master."""

    channel: Descriptor | None
    """None: it is closed."""
    last_words: Descriptor
    failure: str


class WorkerLink:
    """Made before the worker is forked; ``process`` is known once it has said hello."""

    def __init__(
        self, loop: Loop, channel: Channel | None, last_words: LastWords, process: Process | None = None
    ) -> None:
        self.last_words = last_words
        self.process = process
        self.failure = ""
        """What the worker said of its failed boot."""
        self.asking: list[Callable[[str], None]] = []
        """Who waits for the stack that it was asked for."""
        self._channel = channel
        self._loop = loop
        self.is_closed = False
        """Is the worker gone, and all that was held of it?"""

    @classmethod
    def make(cls, loop: Loop) -> tuple[WorkerLink, Channel]:
        """Return a link, and the other end of its channel, which is to be given away. Raises ``OSError``."""
        last_words = LastWords()
        try:
            ours, theirs = Channel.pair()
        except OSError:
            last_words.close()
            raise
        return cls(loop, ours, last_words), theirs

    @classmethod
    def adopt(cls, loop: Loop, record: LinkRecord, pid: int | None) -> WorkerLink:
        """Take over the hold that an older version of this process had."""
        channel = None if record.channel is None else Channel.from_fd(record.channel)
        process = None if pid is None else Process(pid)
        link = cls(loop, channel, LastWords(record.last_words), process)
        link.failure = record.failure
        return link

    def record(self) -> LinkRecord:
        channel = None if self._channel is None else Descriptor(self._channel.fileno())
        return LinkRecord(channel, Descriptor(self.last_words.fd), self.failure)

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call back when the worker has said something, or its end is closed."""
        if self._channel is not None:
            self._loop.watch(self._channel.fileno(), on_readable)

    def messages(self) -> Iterator[Message]:
        """Yield what the worker said, up to some messages; the loop calls again for more.

        Raises ``ChannelClosed`` after the last one; the channel is closed then.
        """
        for _ in range(MESSAGES_AT_A_TIME):
            if self._channel is None:
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
        if self._channel is not None:
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
        if self._channel is not None:
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
