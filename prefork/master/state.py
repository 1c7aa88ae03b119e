"""The state of the master, as it goes from one version of prefork to the next: a sealed file in memory.

A JSON object. ``format``, ``descriptors``, ``program`` and ``way_back`` are for the first stage, which uses only the
standard library; ``master`` is a ``MasterRecord``. What the parts of it mean is said where they belong: each record
stands beside the class that it describes. Runs in the master.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prefork import __version__, channel, relay, scoreboard
from prefork.config import Config
from prefork.errors import PreforkError
from prefork.master.activation import Activation, take_activation
from prefork.master.admin_keeper import AdminRecord
from prefork.master.chronicle import Chronicle
from prefork.master.command import Command
from prefork.master.control_place import PlaceRecord
from prefork.master.listeners import ListenerRecord
from prefork.master.metrics_folder import MetricsFolder
from prefork.master.notify import Notifier, take_notifier
from prefork.master.pool_terms import PoolRecord
from prefork.master.request_watch import make_doorbell
from prefork.records import Descriptor, build, descriptors, plain

FORMAT = 2
"""Raised when an older version could not make sense of a newer one's state, or the other way round."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class StateError(PreforkError):
    """This version cannot go on from a state."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a master has from its start to its end, whatever versions it goes through."""

    command: Command
    notifier: Notifier
    activation: Activation
    lifeline: tuple[Descriptor, Descriptor]
    """A pipe in which nothing is ever written: at the end of the first, which children have, the master is dead."""
    doorbell: Descriptor
    bulletin: Descriptor | None = None
    """None, if an older version began: then the first that has one makes it."""
    metrics: MetricsFolder | None = None
    """None, if the application's own metrics are not collected."""

    @classmethod
    def take(cls) -> Belongings:
        """Make them, at the start; before anything else opens descriptors that stay open across an exec."""
        activation = take_activation()
        ends, ours = os.pipe2(os.O_CLOEXEC)
        return cls(
            Command.of_this_process(),
            take_notifier(),
            activation,
            (Descriptor(ends), Descriptor(ours)),
            Descriptor(make_doorbell()),
        )

    @contextmanager
    def put_away(self) -> Iterator[None]:
        """Remove at the end of the block what must not outlive the server; an exec is no end."""
        try:
            yield
        finally:
            if self.metrics is not None:
                self.metrics.remove()


@dataclass(frozen=True, slots=True)
class Protocols:
    """What molds and workers speak, and write, who live on."""

    channel: int
    relay: int
    scoreboard: int


PROTOCOLS = Protocols(channel.PROTOCOL, relay.PROTOCOL, scoreboard.FORMAT)


@dataclass(frozen=True, slots=True)
class MasterRecord:
    """All that the next version of the master must know."""

    belongings: Belongings
    config: Config
    started_with: Config
    generation: int
    last_generation: int
    log_files: dict[str, Descriptor]
    listeners: tuple[ListenerRecord, ...]
    pools: tuple[PoolRecord, ...]
    leaving: tuple[PoolRecord, ...]
    written_at: float
    """The instant (monotonic seconds) at which the master stopped to look at deadlines."""
    chronicle: Chronicle = field(default_factory=Chronicle)
    protocols: Protocols = PROTOCOLS
    control: PlaceRecord | None = None
    version: str = __version__
    admin: AdminRecord | None = None


def write(record: MasterRecord) -> int:
    """Return the descriptor of a sealed file that holds the state. Raises ``OSError``."""
    state = {
        "format": FORMAT,
        "descriptors": sorted(set(descriptors(record))),
        "program": record.belongings.command.program,
        "way_back": record.belongings.command.way_back(),
        "master": plain(record),
    }
    fd = os.memfd_create("prefork-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(state).encode("ascii"))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> MasterRecord:
    """Return what is in such a file. Raises ``PreforkError`` if this version cannot go on from there."""
    state = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    if state["format"] != FORMAT:
        raise StateError(
            f"the running master's state has format {state['format']}, and prefork {__version__} knows "
            f"format {FORMAT}: restart the server instead"
        )
    record = build(MasterRecord, state["master"])
    if record.protocols != PROTOCOLS:
        raise StateError(
            f"the workers of prefork {record.version} speak {plain(record.protocols)}, and those of prefork "
            f"{__version__} {plain(PROTOCOLS)}: restart the server instead"
        )
    return record
