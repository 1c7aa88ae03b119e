"""What one worker tells another of a connection that it hands over: the messages of a relay.

A message is a line of JSON and the raw bytes that were received of a request; the descriptors of the connection, and
of what is spooled of its body, go along. Runs only in workers; the generations of a pool share a relay, so both
ends may be of different versions.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, NamedTuple

from prefork.relay import PROTOCOL

RAW_BYTES = 60 * 1024
"""The most that may have been received of a request whose connection is handed over."""

MESSAGE_BYTES = RAW_BYTES + 4 * 1024


class Stage(Enum):
    """How far a connection has got."""

    INTRODUCTION = "introduction"
    """Its PROXY header is not complete; ``raw`` is what there is of it."""
    REQUEST = "request"
    """``raw`` is what there is of the next request, and of pipelined ones: nothing, a part, or all of it."""
    BODY = "body"
    """``raw`` begins with a complete head; its body is not complete, or waits for a thread."""


class Origin(NamedTuple):
    """Between whom a connection is."""

    local: tuple[str, str]
    """SERVER_NAME and SERVER_PORT; empty if there are none."""
    client: Any
    """Its address, as from ``accept``: a tuple, or that of a unix socket."""
    peer: str
    """Whom its requests are trusted as, see ``peers.peer_name``."""


class Handover(NamedTuple):
    """All that is known of a connection, without its descriptors."""

    stage: Stage
    origin: Origin
    family: int
    raw: bytes
    due: float | None
    """The instant (``time.monotonic()``, the same in all processes) at which its present deadline ends."""
    spooled_bytes: int | None = None
    """Size of the part of the body that is in a file, which is the second descriptor; then none of it is in ``raw``."""
    sent_at: float = 0.0
    """The instant (as above) at which it went into the relay."""
    began_ns: int = 0
    """When the first byte of its request was read, in ``time.monotonic_ns()``; 0 if none was."""

    @property
    def is_idle(self) -> bool:
        """Had nothing of a request been received?"""
        return not self.raw and self.stage is not Stage.BODY

    def encode(self) -> bytes:
        """Return the message."""
        client = self.origin.client if isinstance(self.origin.client, tuple) else None
        fields = [
            PROTOCOL,
            self.stage.value,
            self.family,
            self.origin.local,
            client,
            self.origin.peer,
            self.due,
            self.spooled_bytes,
            self.sent_at,
            self.began_ns,
        ]
        return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n" + self.raw


def decode(message: bytes) -> Handover:
    """Return what a message says. Raises ``ValueError`` if it is not of this version."""
    line, _, raw = message.partition(b"\n")
    fields = json.loads(line)
    if fields[0] != PROTOCOL:
        raise ValueError(f"a connection was handed over in version {fields[0]!r}, this is {PROTOCOL}")
    _, stage, family, local, client, peer, due, spooled_bytes, sent_at, began_ns = fields
    origin = Origin((local[0], local[1]), "" if client is None else tuple(client), peer)
    return Handover(Stage(stage), origin, family, raw, due, spooled_bytes, sent_at, began_ns)
