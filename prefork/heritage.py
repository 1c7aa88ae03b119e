"""Heritage: all that a child of the master inherits, besides plain values.

A mold closes every descriptor that is not in its heritage, so does the admin process: no lifeline, listener or channel
is held by a process that does not know of it. A worker has what its mold had, with a channel and last words of its
own; what the application opened while it was loaded is the application's, here as there. The records are frozen and
have a form that survives an exec.
Used by master, mold, worker and admin process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

_STANDARD = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class InheritedListener:
    """A listening socket: its descriptor and the address as people write it."""

    fd: int
    address: str
    ours: bool = True
    """No: who started the master opened it, and lets connections wait in it for the next one."""
    proxy_protocol: bool = False
    """Each connection begins with a PROXY header."""


@dataclass(frozen=True, slots=True)
class BaseHeritage:
    """What every child inherits; each ``int`` but ``generation`` is a descriptor."""

    server: str
    generation: int
    lifeline: int
    """Read end of a pipe of which only the master holds the other end: at end-of-file the master is dead."""
    channel: int
    """The child's own channel to the master."""
    last_words: int
    """The child's own file for its stack, should it die; see ``prefork.last_words``."""
    listeners: tuple[InheritedListener, ...]
    logs: tuple[int, ...]
    """Descriptors of the log destinations."""

    def descriptors(self) -> frozenset[int]:
        """Return every descriptor that the child keeps."""
        inherited = {listener.fd for listener in self.listeners}
        return frozenset({*_STANDARD, self.lifeline, self.channel, self.last_words, *inherited, *self.logs})


@dataclass(frozen=True, slots=True)
class Heritage(BaseHeritage):
    """What a mold or worker of one pool and generation inherits."""

    pool: str
    doorbell: int
    """Eventfd that wakes the master; see ``scoreboard``."""
    relay: tuple[int, int]
    """The ends of the pool's relay: where connections are sent, where they are taken; see ``prefork.relay``."""
    metrics_folder: str | None = None
    """Where the application's own metrics go; see ``prefork.master.metrics_folder``."""

    def descriptors(self) -> frozenset[int]:
        """Return every descriptor that the child keeps."""
        return BaseHeritage.descriptors(self) | {self.doorbell, *self.relay}

    def ties(self) -> frozenset[int]:
        """Return the descriptors that bind a child to the server.

        Not the standard ones and the logs; and not the last words, whose number ``faulthandler`` goes on
        writing to in a process that the application forks.
        """
        return self.descriptors() - {*_STANDARD, self.last_words, *self.logs}

    def for_worker(self, channel: int, last_words: int) -> Heritage:
        """Return the heritage of a worker of this mold."""
        return replace(self, channel=channel, last_words=last_words)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Heritage:
        fields = json.loads(text)
        fields["listeners"] = tuple(InheritedListener(**listener) for listener in fields["listeners"])
        fields["logs"] = tuple(fields["logs"])
        fields["relay"] = tuple(fields["relay"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class InheritedBoard:
    """A scoreboard that exists when the admin process is forked."""

    pool: str
    generation: int
    fd: int


@dataclass(frozen=True, slots=True)
class AdminHeritage(BaseHeritage):
    """What the admin process inherits."""

    bulletin: int
    boards: tuple[InheritedBoard, ...]
    metrics_folder: str | None = None
    """Where each pool's application has a folder for its own metrics."""

    def descriptors(self) -> frozenset[int]:
        """Return every descriptor that the child keeps."""
        return BaseHeritage.descriptors(self) | {self.bulletin, *(board.fd for board in self.boards)}


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor of the process that is not in ``keep``; see close_range(2).

    Python objects of the parent that own a closed descriptor must stay referenced until the process exits:
    their finalizers would close a number that may be in use again.
    """
    low = 0
    for fd in sorted(keep):
        if low < fd:
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(os.sysconf("SC_OPEN_MAX"), low))
