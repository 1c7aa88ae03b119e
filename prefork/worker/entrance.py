"""What a connection has from the listener that it came in by; runs only in a worker."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from prefork.worker.connection import Connection

if TYPE_CHECKING:
    from ssl import SSLContext


class Entrance(NamedTuple):
    """One listener of the web server, as its connections see it."""

    local: tuple[str, str]
    """SERVER_NAME and SERVER_PORT, unless a proxy says otherwise; empty if there are none."""
    scheme: str
    introduced: bool
    """Does a proxy say first whose connection it is?"""
    make: Callable[..., Connection]
    """``Connection``, or what is made like one."""
    is_private: bool = False
    """Can its connections not go on in another worker?"""


def entrances(
    listeners: Iterable[socket.socket], introduced: Collection[int], tls: Mapping[int, SSLContext]
) -> dict[socket.socket, Entrance]:
    """Return the entrance of each listener; the other two know listeners by their descriptors."""
    found = {}
    for listener in listeners:
        fd = listener.fileno()
        name = listener.getsockname()
        local = (name[0], str(name[1])) if isinstance(name, tuple) else ("", "")
        scheme = "http"
        make: Callable[..., Connection] = Connection
        if fd in tls:
            from prefork.worker.tls_connection import (
                TlsConnection,  # without TLS, nobody needs the module ssl
            )

            scheme, make = "https", partial(TlsConnection, context=tls[fd])
        found[listener] = Entrance(local, scheme, fd in introduced, make, fd in tls)
    return found
