"""Messages to systemd about what the master does; never raises or waits. See sd_notify(3). Master only."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Notifier:
    """Sends to ``address``, or nowhere when it is None.

    ``watchdog_interval_s`` is how often to call ``watchdog``: half of the unit's ``WatchdogSec=``.
    """

    address: str | None = None
    watchdog_interval_s: float | None = None

    def ready(self, status: str = "") -> None:
        """Say that the service serves, at the start and at the end of a reload, be it a failed one."""
        self._send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> None:
        """Say that a reload begins; ``Type=notify-reload`` wants the time in the same message."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", *_status(status))

    def stopping(self, status: str = "") -> None:
        """Say that the service stops."""
        self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> None:
        """Say that the master is alive; call it every ``watchdog_interval_s``."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self.address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode("utf-8", "replace"), _where(self.address))
        except OSError:
            pass  # a message lost is better than a server that stops for it


def take_notifier(environ: MutableMapping[str, str] | None = None) -> Notifier:
    """Read systemd's variables and remove them from ``environ``: children have no use for them."""
    environ = os.environ if environ is None else environ
    path = environ.pop("NOTIFY_SOCKET", "")
    usec = environ.pop("WATCHDOG_USEC", "")
    pid = environ.pop("WATCHDOG_PID", "")
    if not path.startswith(("/", "@")):
        return Notifier()
    interval = None
    if usec.isascii() and usec.isdigit() and int(usec) and pid in ("", str(os.getpid())):
        interval = int(usec) / 2 / 1_000_000
    return Notifier(path, interval)


def _where(path: str) -> str | bytes:
    """Return the address: an abstract one begins with a NUL, which the variable cannot hold."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else path


def _status(text: str) -> tuple[str, ...]:
    """Return the assignment; a line end in it would begin another one."""
    return (f"STATUS={' '.join(text.split())}",) if text else ()
