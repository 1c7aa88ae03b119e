"""What is the same for all daemons that log lines and figures are sent to: where they are, and how bad an event is.

Used by the master, which opens the sockets.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SEVERITIES: Mapping[str, int] = MappingProxyType(
    {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
)
"""See syslog(3)."""

_REMOTE = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


def find_host(address: str, port: int) -> tuple[int, tuple[Any, ...]] | None:
    """Return the family and the address of ``host``, ``host:port`` or ``[v6]:port``; None if it is none of these.

    ``port`` is that of an address without one. Raises ``OSError`` or ``UnicodeError`` if the host is not found.
    """
    match = _REMOTE.fullmatch(address)
    if match is None:
        return None
    family, _, _, _, found = socket.getaddrinfo(
        match[1] or match[2], int(match[3] or port), type=socket.SOCK_DGRAM
    )[0]
    return family, found
