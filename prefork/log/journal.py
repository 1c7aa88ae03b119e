"""The journal of systemd as a destination: each event with its fields, by the journal's native protocol.

``journalctl PREFORK_EVENT=worker-gone``. See "Native journal protocol" and systemd.journal-fields(7).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence

from prefork.errors import ConfigError
from prefork.log.daemons import SEVERITIES
from prefork.log.datagrams import Datagrams
from prefork.log.format import Event, as_text, body

SOCKET = "/run/systemd/journal/socket"

_UNFIT = re.compile("[^A-Z0-9_]")


def open_journal(key: str, fields: Mapping[str, object], path: str = SOCKET) -> Datagrams:
    """Return the journal; ``fields`` are added to each event. Raises ``ConfigError``, which names ``key``."""
    family = socket.AF_UNIX
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            raise ConfigError(f"{key}: cannot reach the journal at {path}: {error.strerror}") from error

    def wire(event: Event, line: Callable[[Event], str]) -> Sequence[bytes]:
        return (encode(event, fields),)

    return Datagrams(family, path, wire, big=True)


def encode(event: Event, fields: Mapping[str, object]) -> bytes:
    """Return an event as the journal's fields: ``MESSAGE`` with what people read, ours with ``PREFORK_`` before."""
    ours = {"event": event.name, **fields, **event.fields}
    record = {
        "MESSAGE": "\n".join(body(event)),
        "PRIORITY": str(SEVERITIES[event.level]),
        "SYSLOG_IDENTIFIER": "prefork",
    }
    for name, value in ours.items():
        if name != "traceback" and value is not None:  # the traceback is in the message
            record[f"PREFORK_{_UNFIT.sub('_', name.upper())}"] = as_text(value)
    return b"".join(_field(name, value) for name, value in record.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode("ascii"), len(data).to_bytes(8, "little"), data)
    return b"%s=%s\n" % (name.encode("ascii"), data)
