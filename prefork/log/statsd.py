"""Figures of each request by statsd, with the names that gunicorn has: dashboards made for it go on.

``gunicorn.requests``, ``gunicorn.request.duration`` (ms), ``gunicorn.request.status.200`` and ``gunicorn.log.error``;
and ``gunicorn.workers`` from the master. A worker collects them and sends a datagram when the serve loop is about to
wait; nothing is waited for, and what the network or the daemon does not take is lost. Tags are those of DogStatsD.

Used by the master and by workers.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol

from prefork.errors import ConfigError
from prefork.log.access_format import AccessEntry
from prefork.log.daemons import find_host
from prefork.log.turn import call_after_fork

PORT = 8125
MOST_BYTES = 1432
"""Of one datagram: what passes through an Ethernet in one piece."""


class StatsdSettings(Protocol):
    """What is needed of ``config.statsd``; the names are the config's keys."""

    @property
    def address(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


class Statsd:
    """Sends figures to a daemon; never blocks and never raises. Raises ``ConfigError`` if it cannot be made."""

    def __init__(self, settings: StatsdSettings) -> None:
        family, self._address = _resolve(settings.address)
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()
        prefix = f"{settings.prefix}.gunicorn." if settings.prefix else "gunicorn."
        tags = ",".join(f"{name}:{value}" if value else name for name, value in settings.tags.items())
        end = f"|#{tags}" if tags else ""
        # Of one request, all in one: duration in ms, status.
        self._request = (
            f"{prefix}request.duration:%.3f|ms{end}\n"
            f"{prefix}requests:1|c{end}\n"
            f"{prefix}request.status.%d:1|c{end}\n"
        )
        self._logged = f"{prefix}log.%s:1|c{end}\n"
        self._workers = f"{prefix}workers:%d|g{end}\n"
        self._lines: list[str] = []
        self._bytes = 0
        call_after_fork(self)

    def record(self, entry: AccessEntry) -> None:
        """Count a request that is over; any thread may do that."""
        self._add(self._request % (entry.elapsed_ns / 1e6, entry.status))

    def count_logged(self, level: str) -> None:
        """Count an event of the log."""
        self._send(self._logged % level)

    def tell_workers(self, count: int) -> None:
        """Tell how many workers there are."""
        self._send(self._workers % count)

    def flush(self) -> None:
        """Send what was recorded; the serve loop does so before it waits."""
        if self._lines:
            # Another thread may record meanwhile: its line is in one of the two lists.
            lines, self._lines, self._bytes = self._lines, [], 0
            self._send("".join(lines))

    def close(self) -> None:
        """Close the socket without sending what is left."""
        self._socket.close()

    def after_fork(self) -> None:
        """Forget, in a child, what the parent has yet to send."""
        self._lines, self._bytes = [], 0

    def _add(self, lines: str) -> None:
        if self._bytes + len(lines) > MOST_BYTES:
            self.flush()
        self._lines.append(lines)
        self._bytes += len(lines)

    def _send(self, lines: str) -> None:
        try:
            self._socket.sendto(lines.rstrip("\n").encode("utf-8", "replace"), self._address)
        except OSError:
            pass  # lost, as anything on a network may be


def _resolve(address: str) -> tuple[int, tuple[object, ...] | str]:
    if address.startswith("unix:"):
        return socket.AF_UNIX, address.removeprefix("unix:")
    try:
        found = find_host(address, PORT)
        if found is None:
            raise OSError("expected host:port, [v6]:port or unix:PATH")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"statsd.address: {address}: {error}") from error
    return found
